//! Backups that Cloud SQL takes and keeps: of the whole instance, with all of its databases.
//!
//! What was noted of one is in its description. A call whose answer was lost is not made again: the
//! description tells whether it arrived.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Backup, Catalog, New, Restored, Taken};
use crate::commands::Run;
use crate::config::cluster::{BackupMethod, CloudSql, ClusterConfig};
use crate::error::{Error, Kind, Result};
use crate::google::{Ask, Google, Repeat, Service};
use crate::report;

/// How a description of ours begins.
const MARK: &str = "mlflow-on-kubernetes";

/// What shows more than the API's answers.
const LOOK: &str = "look at the instance's operations: gcloud sql operations list";

/// Between two questions.
const BETWEEN: Duration = Duration::from_secs(2);

/// An instance's place in the Admin API.
struct Instance<'a> {
    google: Google,
    run: &'a Run,
    project: String,
    name: String,
    end: Instant,
}

/// See [`super::take_and_prune`].
pub async fn take(run: &Run, settings: &ClusterConfig, new: &New, keep: Option<usize>) -> Result<Taken> {
    Instance::of(run, settings).await?.take(new, keep).await
}

/// See [`super::list`].
pub async fn list(run: &Run, settings: &ClusterConfig) -> Result<Catalog> {
    Instance::of(run, settings).await?.list().await
}

/// See [`super::restore`].
pub async fn restore(run: &Run, settings: &ClusterConfig, id: &str) -> Result<Restored> {
    Instance::of(run, settings).await?.restore(id).await
}

impl<'a> Instance<'a> {
    async fn of(run: &'a Run, settings: &ClusterConfig) -> Result<Self> {
        let cloud = settings.database.cloud_sql().ok_or_else(|| Error::new(Kind::Internal, "no Cloud SQL instance"))?;
        let (project, name) = place(cloud);
        let end = Instant::now() + settings.backup.deadline;
        let google = Google::connect(run).await?;
        Ok(Self { google, run, project, name, end })
    }

    async fn take(&self, new: &New, keep: Option<usize>) -> Result<Taken> {
        let what = format!("back up instance {}", self.name);
        self.run.ui.step("Backing up", format!("instance {}", self.name));
        let body = json!({ "description": describe(new) });
        let ask = || Ask::post(Service::Sql, self.path("backupRuns"), &body, Repeat::Refused, &*what);
        match self.begin(ask).await {
            Ok(operation) => self.finish(operation, &what).await?,
            // Without an answer it may have arrived all the same.
            Err(error) if error.kind() == Kind::Remote && self.find(&new.id).await?.is_some() => {}
            Err(error) => return Err(error),
        }
        let backup = loop {
            let found = self.find(&new.id).await?;
            match found.as_ref().map(|found| found["status"].as_str().unwrap_or_default()) {
                Some("SUCCESSFUL") => break found.as_ref().and_then(backup),
                Some("FAILED" | "SKIPPED" | "DELETED" | "DELETION_FAILED") => {
                    let why = found.as_ref().and_then(|found| found["error"]["message"].as_str()).unwrap_or_default();
                    return Err(Error::new(Kind::Refused, format!("cannot {what}: Cloud SQL gave it up"))
                        .source(why.to_owned())
                        .hint(LOOK));
                }
                _ => self.wait(&what).await?,
            }
        };
        let backup =
            backup.ok_or_else(|| Error::new(Kind::Remote, format!("cannot {what}: its description is lost")))?;
        let pruned = match keep {
            None => Vec::new(),
            Some(keep) => self.prune(keep).await?,
        };
        Ok(Taken { backup, pruned })
    }

    async fn list(&self) -> Result<Catalog> {
        let whole = self.runs().await?.into_iter().filter(|found| found["status"] == "SUCCESSFUL");
        let mut backups: Vec<Backup> = whole.filter_map(|found| backup(&found)).collect();
        backups.sort_by(|one, other| other.id.cmp(&one.id));
        Ok(Catalog { backups, parts: Vec::new() })
    }

    async fn restore(&self, id: &str) -> Result<Restored> {
        let what = format!("restore instance {}", self.name);
        let begun = Instant::now();
        let found = self.find(id).await?.filter(|found| found["status"] == "SUCCESSFUL");
        let (Some(kept), Some(backup)) = (found.as_ref(), found.as_ref().and_then(backup)) else {
            let message = format!("instance {} has no backup {id}", self.name);
            return Err(Error::new(Kind::Check, message).hint("cargo xtask db backups lists them"));
        };
        let context = json!({
            "kind": "sql#restoreBackupContext",
            "backupRunId": kept["id"],
            "instanceId": self.name,
            "project": self.project,
        });
        let body = json!({ "restoreBackupContext": context });
        self.run.ui.step("Restoring", format!("instance {} from its backup of {}", self.name, backup.taken));
        let ask = || Ask::post(Service::Sql, self.path("restoreBackup"), &body, Repeat::Refused, &*what);
        self.finish(self.begin(ask).await?, &what).await?;
        Ok(Restored { backup, seconds: report::seconds(begun.elapsed()) })
    }

    fn path(&self, below: &str) -> String {
        format!("sql/v1beta4/projects/{}/instances/{}/{below}", self.project, self.name)
    }

    /// Our backups and others', in whatever state.
    async fn runs(&self) -> Result<Vec<Value>> {
        let what = format!("list the backups of instance {}", self.name);
        let mut found = Vec::new();
        let mut token = None::<String>;
        loop {
            let mut ask = Ask::get(Service::Sql, self.path("backupRuns"), &*what);
            if let Some(token) = token {
                ask = ask.query("pageToken", token);
            }
            let mut page = self.google.ask(&ask).await?.ok_or_else(|| {
                Error::new(Kind::Check, format!("project {} has no instance {}", self.project, self.name))
                    .hint("check database.instance in deploy.toml")
            })?;
            found.extend(page["items"].as_array_mut().map(std::mem::take).unwrap_or_default());
            token = page["nextPageToken"].as_str().filter(|token| !token.is_empty()).map(str::to_owned);
            if token.is_none() {
                return Ok(found);
            }
        }
    }

    /// The backup of ours with this id.
    async fn find(&self, id: &str) -> Result<Option<Value>> {
        let ours = |found: &Value| backup(found).is_some_and(|backup| backup.id == id);
        Ok(self.runs().await?.into_iter().find(ours))
    }

    /// Makes a call that begins an operation; an instance that is busy is waited for.
    async fn begin<'b>(&self, ask: impl Fn() -> Ask<'b>) -> Result<Value> {
        loop {
            match self.google.ask(&ask()).await {
                Ok(answer) => {
                    let message = format!("project {} has no instance {}", self.project, self.name);
                    return answer.ok_or_else(|| Error::new(Kind::Check, message));
                }
                Err(error) if is_busy(&error) => self.wait("begin").await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for an operation's end.
    async fn finish(&self, mut operation: Value, what: &str) -> Result<()> {
        while operation["status"] != "DONE" {
            self.wait(what).await?;
            let name = operation["name"].as_str().unwrap_or_default();
            let path = format!("sql/v1beta4/projects/{}/operations/{name}", self.project);
            // The instance's own restart may take the operation out of sight for a moment.
            if let Some(next) = self.google.ask(&Ask::get(Service::Sql, path, what)).await? {
                operation = next;
            }
        }
        match operation.pointer("/error/errors/0/message").and_then(Value::as_str) {
            None => Ok(()),
            Some(why) => Err(Error::new(Kind::Refused, format!("cannot {what}")).source(why.to_owned()).hint(LOOK)),
        }
    }

    async fn wait(&self, what: &str) -> Result<()> {
        if Instant::now() >= self.end {
            return Err(Error::new(Kind::Remote, format!("cannot {what}: Cloud SQL is not done in time"))
                .hint("it goes on there: gcloud sql operations list; or raise backup.deadline in deploy.toml"));
        }
        tokio::select! {
            () = tokio::time::sleep(BETWEEN) => Ok(()),
            () = self.run.cancel.cancelled() => Err(Run::interrupted()),
        }
    }

    /// Deletes all of ours but the newest.
    async fn prune(&self, keep: usize) -> Result<Vec<String>> {
        let runs = self.runs().await?;
        let old = superfluous(&runs, keep);
        for (id, kept) in &old {
            let what = format!("delete backup {id} of instance {}", self.name);
            let path = self.path(&format!("backupRuns/{kept}"));
            let gone = self.begin(|| Ask::delete(Service::Sql, path.clone(), &*what)).await;
            match gone {
                Ok(operation) => self.finish(operation, &what).await?,
                // Someone else was faster.
                Err(error) if error.kind() == Kind::Check => {}
                Err(error) => return Err(error),
            }
        }
        Ok(old.into_iter().map(|(id, _)| id).collect())
    }
}

/// Whether the instance does something else now, so that nothing was begun.
fn is_busy(error: &Error) -> bool {
    error.lines().iter().any(|line| line.contains("another operation was already in progress"))
}

/// Ours beyond the newest `keep`: our id and Google's. Those that Google took by itself it deletes by itself.
fn superfluous(runs: &[Value], keep: usize) -> Vec<(String, String)> {
    let whole = runs.iter().filter(|found| found["status"] == "SUCCESSFUL");
    let mut ours: Vec<(String, String)> =
        whole.filter_map(|found| Some((backup(found)?.id, google_id(found)?))).collect();
    ours.sort_by(|one, other| other.cmp(one));
    ours.split_off(keep.min(ours.len()))
}

/// A number, which JSON has as text.
fn google_id(found: &Value) -> Option<String> {
    found["id"].as_str().map(str::to_owned).or_else(|| found["id"].as_u64().map(|id| id.to_string()))
}

/// Project and name.
fn place(cloud: &CloudSql) -> (String, String) {
    // PROJECT:REGION:NAME, where the project may be DOMAIN:PROJECT.
    let mut parts = cloud.instance.rsplitn(3, ':');
    let name = parts.next().unwrap_or_default().to_owned();
    let _region = parts.next();
    (parts.next().unwrap_or_default().to_owned(), name)
}

fn describe(new: &New) -> String {
    let image = if new.image.is_empty() { "-" } else { &new.image };
    format!("{MARK} {} {image} {}", new.id, new.reason)
}

/// A backup of ours; `None` for those of others.
fn backup(found: &Value) -> Option<Backup> {
    let mut words = found["description"].as_str()?.splitn(4, ' ');
    if words.next()? != MARK {
        return None;
    }
    let (id, image, reason) = (words.next()?, words.next()?, words.next().unwrap_or_default());
    let taken = ["startTime", "enqueuedTime"].iter().find_map(|key| found[*key].as_str()).unwrap_or_default();
    Some(Backup {
        id: id.to_owned(),
        taken: taken.to_owned(),
        reason: reason.to_owned(),
        image: image.to_owned(),
        method: BackupMethod::CloudSql,
        databases: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use testbed::google::{Fault, Google as Fake, Options, Project, Rule};

    use super::*;
    use crate::google;

    /// A fake Google with an instance.
    async fn fake(polls: u32) -> (Fake, Google, Run) {
        let project = Project { enabled: vec!["sqladmin.googleapis.com".to_owned()], ..Project::default() };
        let options = Options { projects: vec![project], polls, ..Options::default() };
        // It has a runtime of its own.
        let fake = tokio::task::block_in_place(|| Fake::start(options));
        let (run, client) = google::tests::client(&fake);
        let body = json!({
            "name": "mlflow", "region": "europe-west1", "databaseVersion": "POSTGRES_17",
            "settings": { "tier": "db-custom-1-3840", "edition": "ENTERPRISE" },
        });
        let path = "sql/v1beta4/projects/testbed-project/instances";
        let ask = Ask::post(Service::Sql, path, &body, Repeat::Refused, "make an instance");
        let making = client.ask(&ask).await.unwrap().unwrap();
        instance(&run, &client, "mlflow").finish(making, "make an instance").await.unwrap();
        (fake, client, run)
    }

    fn instance<'a>(run: &'a Run, google: &Google, name: &str) -> Instance<'a> {
        let end = Instant::now() + Duration::from_secs(60);
        Instance { google: google.clone(), run, project: "testbed-project".to_owned(), name: name.to_owned(), end }
    }

    fn new(id: &str) -> New {
        New { id: id.to_owned(), reason: "a test".to_owned(), image: "i".to_owned() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_backup_is_waited_for_listed_and_brought_back() {
        let (_fake, google, run) = fake(1).await;
        let instance = instance(&run, &google, "mlflow");
        // What the instance does first is waited for.
        let restart = Ask::post(Service::Sql, instance.path("restart"), &Value::Null, Repeat::Refused, "restart it");
        let restart = google.ask(&restart).await.unwrap().unwrap();
        let first = new("20260101");
        let (restarted, taken) = tokio::join!(instance.finish(restart, "restart it"), instance.take(&first, None));
        restarted.unwrap();
        let taken = taken.unwrap();
        assert_eq!((taken.backup.id.as_str(), taken.backup.method), ("20260101", BackupMethod::CloudSql));
        let taken = instance.take(&new("20260102"), Some(1)).await.unwrap();
        assert_eq!(taken.pruned, ["20260101"]);
        let ids: Vec<String> = instance.list().await.unwrap().backups.into_iter().map(|found| found.id).collect();
        assert_eq!(ids, ["20260102"]);
        assert_eq!(instance.restore("20260102").await.unwrap().backup.id, "20260102");
        let missing = instance.restore("20260101").await.unwrap_err();
        assert_eq!(missing.kind(), Kind::Check);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lost_answer_takes_no_second_backup() {
        let (fake, google, run) = fake(0).await;
        let instance = instance(&run, &google, "mlflow");
        let rule = |fault: Fault| Rule {
            service: "sql".to_owned(),
            method: "POST".to_owned(),
            path: "/backupRuns".to_owned(),
            skip: 0,
            times: 1,
            fault,
        };
        fake.fail(&rule(Fault::AnswerLost));
        assert_eq!(instance.take(&new("20260101"), None).await.unwrap().backup.id, "20260101");
        assert_eq!(instance.runs().await.unwrap().len(), 1);
        let none = Instance { name: "other".to_owned(), ..instance };
        assert_eq!(none.take(&new("20260102"), None).await.unwrap_err().kind(), Kind::Check);
    }

    fn run(id: &str, description: &str, status: &str) -> Value {
        json!({ "id": id, "description": description, "status": status, "startTime": "2026-11-28T05:00:00Z" })
    }

    fn described(id: &str) -> String {
        describe(&New { id: id.to_owned(), reason: "before a migration".to_owned(), image: "r/m@sha256:a".to_owned() })
    }

    #[test]
    fn a_description_tells_what_was_noted() {
        let found = backup(&run("1", &described("i"), "SUCCESSFUL")).unwrap();
        assert_eq!((found.id.as_str(), found.reason.as_str()), ("i", "before a migration"));
        assert_eq!((found.image.as_str(), found.taken.as_str()), ("r/m@sha256:a", "2026-11-28T05:00:00Z"));
        for other in ["", "mine", "mlflow-on-kubernetes", "mlflow-on-kubernetes i", "mlflow i m r"] {
            assert_eq!(backup(&run("1", other, "SUCCESSFUL")), None, "{other}");
        }
        assert_eq!(backup(&json!({ "id": "1", "type": "AUTOMATED" })), None);
    }

    #[test]
    fn only_old_ones_of_ours_are_superfluous() {
        let runs = [
            run("1", &described("20260101"), "SUCCESSFUL"),
            run("2", &described("20260103"), "SUCCESSFUL"),
            run("3", &described("20260102"), "SUCCESSFUL"),
            run("4", &described("20260104"), "RUNNING"),
            run("5", "someone else's", "SUCCESSFUL"),
        ];
        let check = |keep: usize, expected: &[&str]| {
            let found = superfluous(&runs, keep);
            assert_eq!(found.iter().map(|(_, google)| google.as_str()).collect::<Vec<_>>(), expected, "{keep}");
        };
        check(1, &["3", "1"]);
        check(2, &["1"]);
        check(3, &[]);
        check(9, &[]);
    }

    #[test]
    fn an_instance_has_a_project_and_a_name() {
        let check = |instance: &str, project: &str, name: &str| {
            let cloud = CloudSql {
                instance: instance.to_owned(),
                database: String::new(),
                user: String::new(),
                password: None,
                proxy_image: String::new(),
                private_ip: false,
                admin_api: None,
            };
            assert_eq!(place(&cloud), (project.to_owned(), name.to_owned()));
        };
        check("p:europe-west1:mlflow", "p", "mlflow");
        check("example.com:p:europe-west1:mlflow", "example.com:p", "mlflow");
    }
}
