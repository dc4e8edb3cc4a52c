//! `db restore`: the databases of a server become those of a backup.

use std::io;
use std::process::ExitCode;

use super::{Change, Server};
use crate::backup::{Backup, Restored};
use crate::cluster::lease::Held;
use crate::cluster::{login, server_image};
use crate::commands::Run;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::local::source::Source;
use crate::report::Report;
use crate::schema::{Heads, Store};

/// Bring the databases of a cluster's server back to a backup of the same schema
///
/// In one transaction: clients see the old data or the new, and what fails changes nothing. Another backup
/// is made first. A backup of another schema goes back together with the release that it was made of:
/// `rollback --restore`.
#[derive(clap::Args)]
pub struct Args {
    /// The backup: `db backups` lists them.
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    change: Change,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let env = &args.change.env;
    let config = Config::load(env)?;
    let server = Server::of(env).await?;
    let deployment = &server.deployment;
    let image = server_image(deployment).ok_or_else(|| Error::new(Kind::Refused, "the Deployment has no server"))?;
    let (_, schema) = super::schema_of(run, &config, Some(Source::Registry(image.parse()?))).await?;
    let heads = schema.heads(login::keeps_users(deployment));
    let held = args.change.lock(run, &server.cluster).await?;
    let done = under_lock(run, &server, &held, &args, &heads).await;
    held.end(&run.ui).await;
    let (restored, before) = done?;
    run.answer(&Answer { env: args.change.env, restored, before: before.map(|backup| backup.id) })
}

async fn under_lock(
    run: &Run,
    server: &Server,
    held: &Held,
    args: &Args,
    heads: &Heads,
) -> Result<(Restored, Option<Backup>)> {
    let server = server.backups(run);
    let backups = server.list().await?.backups;
    let found = backups.iter().find(|backup| backup.id == args.id).ok_or_else(|| {
        Error::new(Kind::Check, format!("there is no backup {}", args.id))
            .hint(format!("these are there: cargo xtask db backups --env {}", args.change.env))
    })?;
    fits(found, heads)?;
    run.ui.show(|out| writeln!(out, "what was written since {} goes out of sight", found.taken));
    args.change.agree(run, "Bring the databases back?")?;
    let before = match args.change.without_backup {
        true => None,
        false => {
            let reason = format!("before {} is restored", found.id);
            Some(server.take(&reason).await?)
        }
    };
    held.confirm().await?;
    Ok((server.restore(&found.id).await?, before))
}

/// Refuses a backup whose schema the server would not work with. Of a whole instance nobody knows it.
fn fits(backup: &Backup, heads: &Heads) -> Result<()> {
    let wanted = [(Store::Tracking, Some(&heads.tracking)), (Store::Login, heads.login.as_ref())];
    let has = backup.revisions();
    for (store, wanted) in wanted {
        if let (Some(has), Some(wanted)) = (has.get(&store), wanted)
            && has != wanted
        {
            let message = format!(
                "backup {} has schema {has} of the {store} store, and the server works with {wanted}",
                backup.id
            );
            return Err(Error::new(Kind::RollbackRefused, message).hint(format!(
                "go back to the release of that schema with it: cargo xtask rollback --restore {}",
                backup.id
            )));
        }
    }
    Ok(())
}

#[derive(serde::Serialize)]
struct Answer {
    env: String,
    #[serde(flatten)]
    restored: Restored,
    /// The backup of what was there before.
    before: Option<String>,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let Restored { backup, seconds } = &self.restored;
        writeln!(out, "{:10} the databases are those of {} again, after {seconds:.1} s", self.env, backup.taken)?;
        match &self.before {
            Some(before) => writeln!(out, "what was there before is in backup {before}"),
            None => writeln!(out, "what was there before is gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_backup_of_another_schema_is_refused() {
        let backup = |stores: serde_json::Value| {
            let dump = json!({"file": "f", "stores": stores, "tables": {}, "rows": 0, "bytes": 1, "sha256": ""});
            let databases = if stores.is_null() { json!([]) } else { json!([dump]) };
            let text = json!({"id": "b", "taken": "t", "reason": "r", "image": "i", "databases": databases});
            serde_json::from_value::<Backup>(text).unwrap()
        };
        let check = |stores: serde_json::Value, login: Option<&str>, good: bool| {
            let heads = Heads { tracking: "c".into(), login: login.map(str::to_owned) };
            let answer = fits(&backup(stores.clone()), &heads);
            assert_eq!(answer.is_ok(), good, "{stores} {login:?}");
            assert!(answer.err().is_none_or(|error| error.kind() == Kind::RollbackRefused));
        };
        check(json!({"tracking": "c"}), None, true);
        check(json!({"tracking": "b"}), None, false);
        check(json!({"tracking": "c", "login": "x"}), Some("x"), true);
        check(json!({"tracking": "c", "login": "w"}), Some("x"), false);
        // From before there was a login: it is made at the next deploy.
        check(json!({"tracking": "c"}), Some("x"), true);
        check(json!(null), Some("x"), true);
    }
}
