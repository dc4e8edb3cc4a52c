//! Who reaches the server, and whether it asks them who they are. Nobody has to be asked for that.

use crate::cluster::exposure::{self, Exposure};
use crate::cluster::render::Manifests;
use crate::config::Config;
use crate::config::cluster::{ClusterConfig, Login};
use crate::error::Result;

use super::Check;

const NAME: &str = "access";

/// Looks at what `deploy.toml` and the manifests say.
pub(super) fn of(config: &Config, settings: &ClusterConfig) -> Check {
    let found = Manifests::read(&config.root).and_then(|manifests| exposure::check(settings, &manifests));
    judge(found, &settings.access.login)
}

fn judge(found: Result<Exposure>, login: &Login) -> Check {
    match found {
        Ok(Exposure::Public(what)) if *login != Login::None => Check::ok(NAME, format!("{what}, behind a login")),
        Ok(Exposure::Cluster) => Check::ok(NAME, "the cluster and port-forwards only"),
        Ok(Exposure::Private(what)) => Check::ok(NAME, format!("a private network: {what}")),
        Ok(Exposure::Public(what)) => Check::warning(
            NAME,
            format!("{what} may be reached by everyone, and public-without-login lets them read and delete everything"),
            "keep the address inside of the network, or the server behind a login",
        ),
        Err(error) => Check::failed(NAME, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::error::{Error, Kind};

    #[test]
    fn only_a_public_address_without_a_login_is_worth_a_word() {
        for (found, expected) in [
            (Ok(Exposure::Cluster), State::Ok),
            (Ok(Exposure::Private("x")), State::Ok),
            (Ok(Exposure::Public("x".to_owned())), State::Warning),
            (Err(Error::new(Kind::Config, "no login").hint("do")), State::Missing),
        ] {
            let check = judge(found, &Login::None);
            assert_eq!(check.state, expected, "{check:?}");
            assert_eq!(check.fix.is_some(), expected != State::Ok, "{check:?}");
        }
        let check = judge(Ok(Exposure::Public("x".to_owned())), &Login::Basic { password: None });
        assert_eq!(check.state, State::Ok, "{check:?}");
    }
}
