//! The way from the host into the node: one link and two routes, all of them gone with the link.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use super::error::{Context as _, Error, Kind, Result};
use super::options::{Network, Options};
use super::program;

/// Where Google's machines and pods find their metadata server.
pub(crate) const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

const DEADLINE: Duration = Duration::from_secs(20);

/// Refuses subnets and ports that somebody has already, by name.
pub(crate) async fn check(options: &Options) -> Result<()> {
    let network = &options.network;
    for port in network.forwarded() {
        if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Err(Error::new(Kind::Machine, format!("port {port} of 127.0.0.1, for the testbed, is taken"))
                .source(error)
                .hint(format!("end what listens there (ss -ltnp 'sport = :{port}' names it)")));
        }
    }
    let routes = ip(&["-4", "-json", "route", "show", "table", "all"]).await?;
    if let Some((subnet, route)) = taken(network, &routes)? {
        return Err(Error::new(
            Kind::Machine,
            format!("the testbed's subnet {subnet} is in use: there is a route to {route}"),
        )
        .hint("remove the route, the interface or the VPN that it belongs to (ip route names it)"));
    }
    Ok(())
}

/// The first of our subnets that a route of the host leads into, with that route. Default routes
/// and those that are wider than ours are no obstacle: ours go before them.
fn taken(network: &Network, routes: &str) -> Result<Option<(String, String)>> {
    let routes: Vec<serde_json::Value> = serde_json::from_str(routes).on_machine(|| "ip printed no JSON")?;
    let ours = [(network.link, 30), (network.pods, 24), (network.services, 16)];
    for route in routes.iter().filter_map(|route| route["dst"].as_str()) {
        let (address, bits) = route.split_once('/').unwrap_or((route, "32"));
        let (Ok(address), Ok(bits)) = (address.parse::<Ipv4Addr>(), bits.parse::<u32>()) else { continue };
        for (subnet, own_bits) in ours {
            if bits >= own_bits && prefix(address, own_bits) == prefix(subnet, own_bits) {
                return Ok(Some((format!("{subnet}/{own_bits}"), route.to_owned())));
            }
        }
    }
    Ok(None)
}

fn prefix(address: Ipv4Addr, bits: u32) -> u32 {
    u32::from(address) >> (32 - bits)
}

/// Connects the host with the network namespace of process `pid`.
pub(crate) async fn connect(options: &Options, pid: i32) -> Result<()> {
    let (host, node) = (options.host_link(), options.node_link());
    let network = &options.network;
    let (host_ip, node_ip) = (network.host_ip(), network.node_ip());
    batch(
        program::command("ip"),
        &format!(
            "link add {host} type veth peer name {node} netns {pid}\n\
             addr add {host_ip}/30 dev {host}\nlink set {host} up\n\
             route add {} via {node_ip} dev {host}\nroute add {} via {node_ip} dev {host}\n",
            network.pod_cidr(),
            network.service_cidr(),
        ),
    )
    .await?;
    let mut inside = program::command("nsenter");
    inside.arg(format!("--net=/proc/{pid}/ns/net")).arg("ip");
    batch(
        inside,
        &format!(
            "link set lo up\naddr add {METADATA}/32 dev lo\n\
             addr add {node_ip}/30 dev {node}\nlink set {node} up\nroute add default via {host_ip}\n"
        ),
    )
    .await
}

/// Removes the link, and with it the routes. Gives whether there was one.
pub(crate) async fn disconnect(options: &Options) -> Result<bool> {
    if !is_connected(options) {
        return Ok(false);
    }
    let gone = ip(&["link", "delete", &options.host_link()]).await;
    // It goes by itself, too, some moments after the node's last process.
    if is_connected(options) { gone.map(|_| true) } else { Ok(true) }
}

/// Whether the host has our link.
pub(crate) fn is_connected(options: &Options) -> bool {
    std::path::Path::new("/sys/class/net").join(options.host_link()).exists()
}

async fn ip(args: &[&str]) -> Result<String> {
    let mut command = program::command("ip");
    command.args(args);
    program::read(command, b"", DEADLINE).await
}

async fn batch(mut command: tokio::process::Command, lines: &str) -> Result<()> {
    command.args(["-batch", "-"]);
    program::read(command, lines.as_bytes(), DEADLINE).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(routes: &[&str], expected: Option<&str>) {
        let routes: Vec<_> = routes.iter().map(|dst| serde_json::json!({ "dst": dst, "dev": "eth0" })).collect();
        let found = taken(&Network::default(), &serde_json::to_string(&routes).unwrap()).unwrap();
        assert_eq!(found.map(|(_, route)| route).as_deref(), expected, "{routes:?}");
    }

    #[test]
    fn a_route_into_our_subnets_is_named_and_a_wider_one_is_no_obstacle() {
        check(&["default", "192.168.0.0/24", "127.0.0.1", "10.0.0.0/8"], None);
        check(&["10.201.0.0/30"], Some("10.201.0.0/30"));
        check(&["10.201.0.2"], Some("10.201.0.2"));
        check(&["10.201.0.4/30", "10.245.1.0/24", "10.98.0.0/16"], None);
        check(&["10.97.3.0/24"], Some("10.97.3.0/24"));
        check(&["10.245.0.0/16"], None);
    }
}
