//! A login by OpenID Connect on a cluster: who gets in, that a rollout loses nobody, and what a deploy says
//! while the issuer is away.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use testbed::{Client, Issuer, Person};

use super::{API, OTLP, Table};
use crate::load::{Load, Shape};
use crate::report::Row;
use crate::site::{ENV, Site};
use crate::world::World;
use crate::{Result, ensure};

/// Where browsers are told to go; the name of the Service.
fn url(site: &Site<'_>) -> String {
    format!("http://mlflow.{}.svc.cluster.local:5000", site.name)
}

/// What curl sees: the status, and where a redirect leads.
fn curl(site: &Site<'_>, url: &str, args: &[&str]) -> Result<(String, String)> {
    let service = site.service()?;
    let ip = service.trim_start_matches("http://").split(':').next().unwrap_or_default().to_owned();
    let resolve = format!("mlflow.{}.svc.cluster.local:5000:{ip}", site.name);
    let mut curl = site.home.command("curl");
    curl.args(["-sS", "-m", "30", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"]);
    let output = curl.args(["--resolve", &resolve]).args(args).arg(url).output()?;
    ensure!(output.status.success(), "curl {url}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (status, to) = text.split_once(' ').ok_or("no status")?;
    Ok((status.to_owned(), to.to_owned()))
}

/// How the Service answers; `login`: it sends to the issuer.
fn ask(site: &Site<'_>, path: &str, args: &[&str]) -> Result<String> {
    let (status, to) = curl(site, &format!("{}{path}", url(site)), args)?;
    Ok(if to.contains("/authorize?") { format!("{status}, login") } else { status })
}

/// A curl configuration with a token, for an argument is seen by all.
fn bearer(site: &Site<'_>, name: &str, token: &str) -> Result<String> {
    let path = site.file(name, &format!("header = \"Authorization: Bearer {token}\"\n"))?;
    Ok(path.display().to_string())
}

/// Logs in as a browser does. Gives how each step was answered, and the file with the cookies.
fn log_in(site: &Site<'_>, person: &Person) -> Result<(String, String)> {
    let jar = site.home.file(&format!("jar-{}", person.email)).display().to_string();
    let cookies = ["-b", jar.as_str(), "-c", jar.as_str()];
    let page = format!("{}/", url(site));
    let (first, to) = curl(site, &page, &cookies)?;
    let fields =
        format!("data-urlencode = \"email={}\"\ndata-urlencode = \"password={}\"\n", person.email, person.password);
    let form = site.file("form", &fields)?.display().to_string();
    let (second, back) = curl(site, &to, &["-K", &form])?;
    let (third, _) = curl(site, &back, &cookies)?;
    let (fourth, _) = curl(site, &page, &cookies)?;
    Ok((format!("{first} {second} {third} {fourth}"), jar))
}

/// Whether anybody takes a connection there.
fn connects(address: &str) -> bool {
    let Ok(address) = address.parse() else { return false };
    TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok()
}

fn status(report: &Value, name: &str) -> String {
    let checks = report["smoke"]["checks"].as_array().into_iter().flatten();
    let mut found = checks.filter(|check| check["name"] == name).filter_map(|check| check["status"].as_str());
    found.next().unwrap_or("-").to_owned()
}

pub fn run(world: &World) -> Result<Row> {
    let random = || format!("{:032x}", rand::random::<u128>());
    let mut site = Site::new(world, "oidc")?;
    let (ann, eve) = (Person::new("ann@example.com", &random(), &[]), Person::new("eve@example.org", &random(), &[]));
    let secret = random();
    let client = Client {
        id: "mlflow".to_owned(),
        secret: secret.clone(),
        redirects: vec![format!("{}/oauth2/callback", url(&site))],
    };
    let issuer = Issuer::start(world.place.own_address()?, client, vec![ann.clone(), eve.clone()]);
    let file = site.file("client-secret", &secret)?;
    let table = format!(
        "[environment.{ENV}.oidc]\nissuer = {:?}\nclient-id = \"mlflow\"\nclient-secret-file = {:?}\nurl = \
         {:?}\nemail-domains = [\"example.com\"]\nimage = {:?}",
        issuer.url(),
        file.display().to_string(),
        url(&site),
        world.place.oauth2_proxy
    );
    site.set(|settings| {
        settings.replicas = 2;
        // Two containers to pull and to start, on a machine that may be busy.
        settings.deadline = 300;
        settings.lines.extend(["login = \"oidc\"".to_owned(), table]);
    })?;
    let first = site.deploy(&["--json"])?.expect(0)?;
    ensure!(!first.text().contains(&secret), "deploy prints the client's secret");
    let report = first.json()?;

    let (token, others) = (issuer.token(&ann, "mlflow", 3_600), issuer.token(&eve, "mlflow", 3_600));
    let files = [bearer(&site, "ann", &token)?, bearer(&site, "eve", &others)?, bearer(&site, "none", "no.to.ken")?];
    let [right, other, wrong] = files.each_ref().map(|file| ["-K", file.as_str()]);
    let mut table = Table::default();
    let deployment = site.deployment()?.ok_or("there is no Deployment")?;
    table.add("probe: pods ready", "2", deployment["status"]["readyReplicas"].to_string());
    table.add("probe: /health, no login", "200", ask(&site, "/health", &[])?);
    table.add("probe: /ready, no login", "200", ask(&site, "/ready", &[])?);
    table.add("smoke: login", "passed", status(&report, "login"));
    table.add("browser page, no login", "302, login", ask(&site, "/", &[])?);
    let (steps, jar) = log_in(&site, &ann)?;
    table.add("browser: ann logs in", "302 302 302 200", steps);
    table.add("browser: eve logs in", "302 302 403 302", log_in(&site, &eve)?.0);
    table.add("API, no token", "401", ask(&site, API, &[])?);
    table.add("API, wrong token", "401", ask(&site, API, &wrong)?);
    table.add("API, another's token", "403", ask(&site, API, &other)?);
    table.add("API, token", "200", ask(&site, API, &right)?);
    table.add("OTLP trace, no token", "401", ask(&site, "/v1/traces", &OTLP)?);
    table.add("OTLP trace, another's token", "403", ask(&site, "/v1/traces", &[&OTLP[..], &other].concat())?);
    table.add("artifacts, no token", "401", ask(&site, "/api/2.0/mlflow-artifacts/artifacts", &[])?);
    let evil = ["-H", "Host: evil.example.com"];
    table.add("wrong Host, token", "403", ask(&site, API, &[&evil[..], &right].concat())?);
    table.add("wrong Host, no token", "401", ask(&site, API, &evil)?);
    table.add("prefix /health/.., no token", "301", ask(&site, &format!("/health/..{API}"), &[])?);
    let pods = world.kube.list(&site.path("v1", "pods"))?;
    let address = pods.iter().find_map(|pod| pod["status"]["podIP"].as_str()).ok_or("a pod without an address")?;
    table.add(
        "pod's address, server's port",
        "closed",
        if connects(&format!("{address}:5000")) { "open" } else { "closed" },
    );
    table.add(
        "pod's address, proxy's port",
        "open",
        if connects(&format!("{address}:4180")) { "open" } else { "closed" },
    );
    let mut notes = table.end("oidc")?;

    // The same again changes nothing; a rollout loses no request and logs nobody out.
    let second = site.deploy(&["--json"])?.expect(0)?;
    ensure!(second.json()?["changed"] == false, "the second deploy changes something: {}", second.out);
    let load = Load::start_as(&world.runtime, &site.service()?, Shape::BUSY, Some(&token))?;
    site.set(|settings| drop(settings.env.insert("ROUND".to_owned(), "two".to_owned())))?;
    let rolled = site.deploy(&[])?.expect(0)?;
    // The last old pods may still be ending.
    std::thread::sleep(Duration::from_secs(20));
    let count = load.stop();
    let failures: Vec<String> = count.failures.iter().map(ToString::to_string).collect();
    ensure!(failures.is_empty(), "{} of {} requests:\n{}", failures.len(), count.requests, failures.join("\n"));
    ensure!(count.requests > 100, "the clients have asked only {} times", count.requests);
    notes.push(format!("a rollout: {} requests, 0 failed, {:.1} s", count.requests, rolled.seconds));
    let kept = ask(&site, "/", &["-b", &jar])?;
    ensure!(kept == "200", "who was logged in before the rollout is answered {kept}");

    // While the issuer is away what runs goes on, and nothing new starts.
    drop(issuer);
    site.set(|settings| drop(settings.env.insert("ROUND".to_owned(), "three".to_owned())))?;
    let refused = site.deploy(&[])?.expect(10)?;
    let cause = refused.first(&["oauth2-proxy"]).map(|line| line.text.clone());
    ensure!(cause.is_some(), "the proxy is not named:\n{}", refused.text());
    table_after(&site, &right)?;
    site.close()?;
    Ok(Row { exit: refused.code, cause, notes, ..Row::default() })
}

fn table_after(site: &Site<'_>, right: &[&str]) -> Result<()> {
    let (probe, api) = (ask(site, "/ready", &[])?, ask(site, API, right)?);
    ensure!((probe.as_str(), api.as_str()) == ("200", "200"), "without the issuer: {probe}, with a token {api}");
    Ok(())
}
