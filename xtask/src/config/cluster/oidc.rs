//! `[environment.NAME.oidc]`: who logs people in, and whom the server then lets in.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use url::Url;

use super::Secret;
use super::checks;
use super::read::{at_most_one, existing, file, variable};
use crate::config::table::Table;
use crate::error::Result;

/// oauth2-proxy. Its releases are tags that are not moved
/// (<https://github.com/oauth2-proxy/oauth2-proxy/releases>).
pub const IMAGE: &str = "quay.io/oauth2-proxy/oauth2-proxy:v7.15.6";

/// Google's issuer, who knows everybody with a Google account.
const GOOGLE: &str = "https://accounts.google.com";

/// Domains in which everybody can get an address.
const ANYBODY: [&str; 16] = [
    "gmail.com",
    "googlemail.com",
    "outlook.com",
    "hotmail.com",
    "live.com",
    "msn.com",
    "yahoo.com",
    "icloud.com",
    "me.com",
    "aol.com",
    "proton.me",
    "protonmail.com",
    "gmx.de",
    "gmx.net",
    "web.de",
    "mail.ru",
];

/// A login by OpenID Connect, which oauth2-proxy asks for before the server sees a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oidc {
    /// Who logs people in: the address below which `.well-known/openid-configuration` is.
    pub issuer: String,
    /// What the issuer knows the server as.
    pub client: String,
    /// The client's secret.
    pub client_secret: Secret,
    /// Where browsers find the server, without a path.
    pub url: Url,
    /// Everybody with an address in one of these gets in,
    pub domains: Vec<String>,
    /// and so do these people.
    pub emails: Vec<String>,
    /// If there are any: only who is in one of them.
    pub groups: Vec<String>,
    /// The claim that holds the groups.
    pub groups_claim: String,
    /// For whom tokens of programs may be made besides the client.
    pub audiences: Vec<String>,
    /// What the issuer is asked to tell.
    pub scopes: String,
    /// How long a browser's login lasts.
    pub session: Duration,
    /// oauth2-proxy's image.
    pub image: String,
}

impl Oidc {
    /// Where the issuer sends browsers back to.
    pub fn redirect(&self) -> String {
        format!("{}/oauth2/callback", self.url.as_str().trim_end_matches('/'))
    }
}

/// Reads the table; `hosts` are the names that the server answers to.
pub(super) fn read(root: &Path, table: &mut Table<'_, '_>, hosts: &[String]) -> Result<Oidc> {
    let mut table = table.nested("oidc")?;
    let issuer = table.required("issuer", "who logs people in: \"https://login.example.com\"")?;
    address(&issuer).map_err(|why| table.refuse("issuer", why))?;
    let client = table.required("client-id", "what the issuer knows the server as")?;
    let sources = [
        ("client-secret-file", file(root, &mut table, "client-secret-file")?),
        ("client-secret-variable", variable(&mut table, "client-secret-variable")?),
        ("client-secret-secret", existing(&mut table, "client-secret-secret", "client-secret-key", "client-secret")?),
    ];
    let client_secret = at_most_one(&table, sources)?.ok_or_else(|| {
        table.refuse("client-secret-file", "nothing says where the client's secret is").hint(
            "set one of client-secret-file, client-secret-variable (an environment variable that holds it) or \
             client-secret-secret (a Secret of the namespace)",
        )
    })?;
    let url = url(&mut table, hosts)?;
    let domains = checked(&mut table, "email-domains", domain)?;
    let emails = checked(&mut table, "emails", email)?;
    let groups = checked(&mut table, "groups", group)?;
    somebody(&table, &issuer, &domains, &emails, &groups)?;
    let groups_claim = table.checked("groups-claim", "groups", word)?;
    let audiences = checked(&mut table, "audiences", group)?;
    let scopes = table.checked("scopes", "openid email profile", |text| {
        match text.split(' ').any(|scope| scope == "openid") && text.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
            true => Ok(()),
            false => Err(format!("{text:?} is no list of scopes with openid among them, separated by spaces")),
        }
    })?;
    let session = table.seconds("session", 43_200, 300..=604_800)?;
    let image = table.checked("image", IMAGE, |text| {
        text.parse::<crate::registry::Reference>().map(|_| ()).map_err(|error| error.to_string())
    })?;
    table.finish()?;
    Ok(Oidc {
        issuer,
        client,
        client_secret,
        url,
        domains,
        emails,
        groups,
        groups_claim,
        audiences,
        scopes,
        session,
        image,
    })
}

fn checked(table: &mut Table<'_, '_>, key: &str, check: fn(&str) -> Result<(), String>) -> Result<Vec<String>> {
    let texts = table.strings(key, &[])?;
    match texts.iter().find_map(|text| check(text).err()) {
        Some(why) => Err(table.refuse(key, why)),
        None => Ok(texts),
    }
}

/// Refuses a login that lets in whoever has an account somewhere.
fn somebody(
    table: &Table<'_, '_>,
    issuer: &str,
    domains: &[String],
    emails: &[String],
    groups: &[String],
) -> Result<()> {
    if domains.is_empty() && emails.is_empty() && groups.is_empty() {
        let who = match issuer.trim_end_matches('/') == GOOGLE {
            true => "everybody with a Google account would get in".to_owned(),
            false => format!("everybody whom {issuer} knows would get in"),
        };
        let hint = "name them: email-domains = [\"example.com\"], emails = [\"ann@example.com\"] or groups = [...]";
        return Err(table.refuse("email-domains", format!("nobody is named, so {who}")).hint(hint));
    }
    if !groups.is_empty() && issuer.trim_end_matches('/') == GOOGLE {
        let hint = "use email-domains or emails; groups of Google's can be named in IAP's policy: login = \"iap\"";
        return Err(table.refuse("groups", "Google's tokens name no groups, so nobody would get in").hint(hint));
    }
    Ok(())
}

/// Where browsers find the server: what is said, else by HTTPS the first of its hosts.
fn url(table: &mut Table<'_, '_>, hosts: &[String]) -> Result<Url> {
    let default = hosts.iter().find(|host| !host.contains('*')).map(|host| format!("https://{host}"));
    let text = table.string("url", default)?.filter(|text| !text.is_empty()).ok_or_else(|| {
        table
            .refuse("url", "nothing says where browsers find the server, and the issuer sends them back there")
            .hint("add hosts = [\"mlflow.example.com\"] to the environment, or url = \"https://...\" here")
    })?;
    let url = address(&text).map_err(|why| table.refuse("url", why))?;
    if url.path() != "/" {
        return Err(table.refuse("url", "the server is not below a path").hint("leave the path out"));
    }
    let name = url.host_str().unwrap_or_default();
    let known = |host: &String| {
        let host = host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host);
        host == name || host.strip_prefix('*').is_some_and(|end| name.ends_with(end))
    };
    match is_inside(name) || hosts.iter().any(known) {
        true => Ok(url),
        false => Err(table
            .refuse("url", format!("the server answers to its hosts only, and {name} is none of them"))
            .hint(format!("add {name:?} to hosts"))),
    }
}

/// An address without anything that does not belong there; encrypted, or inside of a network.
fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
    let Some(url) = url else { return Err(format!("{text:?} is no address: write it like https://login.example.com")) };
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err("it has more than host, port and path".to_owned());
    }
    match url.scheme() == "https" || is_inside(url.host_str().unwrap_or_default()) {
        true => Ok(url),
        false => {
            Err(format!("{text:?} is not encrypted, and whoever is on the way could log in as anybody: use https"))
        }
    }
}

/// Whether a name leads no further than this machine, the cluster or a private network.
fn is_inside(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => !crate::cluster::exposure::is_public(address),
        Err(_) => !host.contains('.') || host.ends_with(".svc") || host.ends_with(".svc.cluster.local"),
    }
}

fn domain(text: &str) -> Result<(), String> {
    if text.contains('*') {
        return Err(format!("{text:?} would let in whoever has an account somewhere: name each domain"));
    }
    if ANYBODY.contains(&text.to_ascii_lowercase().as_str()) {
        return Err(format!("everybody can get an address in {text}: name the people in emails"));
    }
    match text.contains('.') && !text.contains(':') && checks::host(text).is_ok() {
        true => Ok(()),
        false => Err(format!("{text:?} is not a domain: write it like example.com, without @")),
    }
}

fn email(text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_graphic() && !"*,\"'#;<>\\".contains(c);
    let parts = text.split_once('@').filter(|(name, _)| !name.is_empty() && text.chars().all(plain));
    match parts.is_some_and(|(_, domain)| !domain.contains('@') && checks::host(domain).is_ok()) {
        true => Ok(()),
        false => Err(format!("{text:?} is not an e-mail address: write it like ann@example.com")),
    }
}

/// As a flag takes it: a comma would make two of it.
fn group(text: &str) -> Result<(), String> {
    match !text.is_empty() && !text.contains([',', '"', '\n']) && text.trim() == text {
        true => Ok(()),
        false => Err(format!("{text:?} is not one name: leave commas and quotes out")),
    }
}

fn word(text: &str) -> Result<(), String> {
    match !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(format!("{text:?} is not the name of a claim")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_in_by_an_address_that_anybody_can_have() {
        for (check, text, why) in [
            (domain as fn(&str) -> Result<(), String>, "example.com", ""),
            (domain, "*", "name each domain"),
            (domain, "*.example.com", "name each domain"),
            (domain, "Gmail.com", "everybody can get"),
            (domain, "@example.com", "not a domain"),
            (domain, "com", "not a domain"),
            (email, "ann@example.com", ""),
            (email, "ann+lab@gmail.com", ""),
            (email, "*@example.com", "not an e-mail"),
            (email, "ann@b@example.com", "not an e-mail"),
            (email, "ann,bob@example.com", "not an e-mail"),
            (email, "example.com", "not an e-mail"),
            (group, "ml team", ""),
            (group, "a,b", "commas"),
            (group, "", "not one name"),
        ] {
            let found = check(text).err().unwrap_or_default();
            assert!(found.contains(why) && found.is_empty() == why.is_empty(), "{text}: {found}");
        }
    }

    #[test]
    fn tokens_and_cookies_are_on_no_open_wire() {
        for (text, good) in [
            ("https://login.example.com", true),
            ("https://login.example.com/realms/lab", true),
            ("http://login.example.com", false),
            ("http://10.0.0.1:8080", true),
            ("http://203.0.113.7", false),
            ("http://keycloak.login.svc.cluster.local:8080/realms/lab", true),
            ("http://localhost:5556", true),
            ("https://a:b@login.example.com", false),
            ("https://login.example.com?x=1", false),
            ("login.example.com", false),
            ("ftp://login.example.com", false),
        ] {
            assert_eq!(address(text).is_ok(), good, "{text}: {:?}", address(text));
        }
    }
}
