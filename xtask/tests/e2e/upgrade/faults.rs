//! An upgrade that fails in every way, one after the other: each time the old server serves again with
//! all its data, and what was not mended yet is; then the same command completes.

use std::time::Duration;

use serde_json::Value;

use super::data::{self, Content, LITTLE};
use super::{older, revision};
use crate::images::{EXITS, Registry};
use crate::kube::wait_for;
use crate::report::Row;
use crate::run::{Ran, Running};
use crate::site::{ENV, LONGEST, Site};
use crate::world::World;
use crate::{Result, ensure};

/// How long a step may take to come.
const STEP: Duration = Duration::from_secs(240);

/// Refuses what a migration does after some of it is done.
const REFUSE: &str = "
CREATE SEQUENCE statements;
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN IF nextval('statements') > 3 THEN RAISE EXCEPTION 'no more of this'; END IF; END $$;
CREATE EVENT TRIGGER refuse ON ddl_command_end EXECUTE FUNCTION refuse();
";

/// And no longer.
const ALLOW: &str = "DROP EVENT TRIGGER refuse; DROP FUNCTION refuse(); DROP SEQUENCE statements";

/// A site with an old server, and what it holds.
struct Scene<'w> {
    site: Site<'w>,
    content: Content,
    schema: String,
    notes: Vec<String>,
}

pub fn faults(world: &World) -> Result<Row> {
    let site = older(world, "upgrade-faults")?;
    let content = data::make(&site, LITTLE)?;
    let schema = revision(&site)?;
    let mut scene = Scene { site, content, schema, notes: Vec::new() };

    scene.half_way()?;
    scene.crash(world)?;
    scene.connection_lost()?;
    scene.database_restarts(world)?;
    scene.disk_full()?;
    scene.pod_killed()?;
    scene.two_operators()?;
    scene.store_full()?;
    let last = scene.killed()?;

    let Scene { site, content, schema, notes } = scene;
    ensure!(revision(&site)? != schema, "the schema is still {schema}");
    data::compare(&site, &content)?;
    site.close()?;
    Ok(Row { exit: last.code, notes, ..Row::default() })
}

impl Scene<'_> {
    fn sql(&self, statements: &str) -> Result<String> {
        self.site.world.database.sql(&self.site.name, statements)
    }

    /// The old server serves, with its schema and all its data.
    fn is_old(&mut self, what: &str, ran: &Ran) -> Result<()> {
        let now = revision(&self.site)?;
        ensure!(now == self.schema, "{what}: the schema is {now} and not {} again:\n{}", self.schema, ran.text());
        data::compare(&self.site, &self.content).map_err(|error| format!("{what}: {error}\n{}", ran.text()))?;
        self.note(what, ran);
        match self.site.world.full {
            true => self.completes_and_goes_back(what),
            false => Ok(()),
        }
    }

    /// The same command completes, and the release before is restored for the next fault.
    fn completes_and_goes_back(&mut self, what: &str) -> Result<()> {
        let again = self.site.deploy(&["--yes"])?.expect(0)?;
        data::compare(&self.site, &self.content).map_err(|error| format!("{what}, then upgraded: {error}"))?;
        self.note("  the same command again", &again);
        self.site.xtask(&["rollback", "--env", ENV, "--restore", "--yes"])?.expect(0)?;
        let now = revision(&self.site)?;
        ensure!(now == self.schema, "{what}, then upgraded and restored: the schema is {now}, not {}", self.schema);
        data::compare(&self.site, &self.content).map_err(|error| format!("{what}, then restored: {error}").into())
    }

    fn note(&mut self, what: &str, ran: &Ran) {
        let code = ran.code.map_or("killed".to_owned(), |code| format!("exit {code}"));
        self.notes.push(format!("{what}: {code} after {:.0} s", ran.seconds));
    }

    /// PostgreSQL refuses one of the migration's statements.
    fn half_way(&mut self) -> Result<()> {
        self.sql(REFUSE)?;
        let ran = self.site.deploy(&["--yes"])?.expect(10)?;
        ensure!(ran.said().contains("no more of this"), "the cause is not named:\n{}", ran.text());
        self.sql(ALLOW)?;
        self.is_old("the migration fails half way", &ran)
    }

    /// The new server ends at once, when the database is its own already.
    fn crash(&mut self, world: &World) -> Result<()> {
        let image = Registry::open(world)?.python("upgrade-exits", EXITS)?;
        let ran = self.site.deploy(&["--yes", "--image", &image, "--json"])?.expect(10)?;
        let answer = ran.json()?;
        ensure!(answer["restored"].is_string(), "no backup was restored: {answer}");
        self.is_old("the new server crashes after the migration", &ran)
    }

    /// The migration waits for a lock in the database, and is cut off.
    fn connection_lost(&mut self) -> Result<()> {
        let ran = self.while_it_migrates(|scene| {
            scene
                .sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                 AND wait_event_type = 'Lock'",
                )
                .map(drop)
        })?;
        self.is_old("the database cuts the migration's connection", &ran.expect(10)?)
    }

    /// The database restarts while the migration waits for a lock.
    fn database_restarts(&mut self, world: &World) -> Result<()> {
        let ran = self.while_it_migrates(|_| world.place.stop("postgres")?.start())?;
        self.is_old("the database restarts during the migration", &ran.expect(10)?)
    }

    /// What the migration makes finds no room on the database's disk.
    fn disk_full(&mut self) -> Result<()> {
        let disk = FullDisk::of(&self.site)?;
        let ran = self.site.deploy(&["--yes"])?.expect(10)?;
        ensure!(ran.said().contains("No space left on device"), "the cause is not named:\n{}", ran.text());
        disk.clear()?;
        self.is_old("the database's disk is full", &ran)
    }

    /// The pod that migrates is deleted.
    fn pod_killed(&mut self) -> Result<()> {
        let ran = self.while_it_migrates(|scene| {
            let pods = scene.site.path("v1", "pods");
            let found =
                scene.site.world.kube.get(&format!("{pods}?labelSelector=app.kubernetes.io/component=migrate"))?;
            let name = found["items"][0]["metadata"]["name"].as_str().ok_or("no pod migrates")?;
            scene.site.world.kube.delete(&format!("{pods}/{name}"))
        })?;
        // The Job makes no other pod, and may say so before or after someone else has removed it.
        ensure!(matches!(ran.code, Some(10)), "exit {:?}:\n{}", ran.code, ran.text());
        self.is_old("the migration's pod is deleted", &ran)
    }

    /// Deploys while a lock keeps the migration from going on; `meanwhile` happens then, and the lock goes.
    fn while_it_migrates(&mut self, meanwhile: impl FnOnce(&mut Self) -> Result<()>) -> Result<Ran> {
        let mut holder = Holder::start(&self.site)?;
        let mut running = self.site.start_deploy(&["--yes"])?;
        running.wait_for("Migrating", STEP)?;
        wait_for("the migration waits for the lock", STEP, || {
            let waiting =
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
            Ok((self.sql(waiting)? != "0").then_some(()))
        })?;
        meanwhile(self)?;
        let ran = running.end(LONGEST)?;
        holder.end()?;
        self.site.keep(ran)
    }

    /// Two people upgrade at once; the one that is first is stopped by something else.
    fn two_operators(&mut self) -> Result<()> {
        self.sql(REFUSE)?;
        let mut first = self.site.start_deploy(&["--yes"])?;
        first.wait_for("Staging", STEP)?;
        let second = self.site.deploy(&["--yes"])?.expect(9)?;
        let upgrade = self.site.xtask(&["db", "upgrade", "--env", ENV, "--yes"])?.expect(9)?;
        ensure!(upgrade.said().contains("hint"), "nothing says what to do:\n{}", upgrade.said());
        let first = self.site.keep(first.end(LONGEST)?)?.expect(10)?;
        self.sql(ALLOW)?;
        self.note("a second operator", &second);
        self.is_old("the first of two operators", &first)
    }

    /// The store takes no backup: nothing is migrated without one.
    fn store_full(&mut self) -> Result<()> {
        self.site.set(|settings| settings.backup = vec!["to = \"gs://there-is-no-such-bucket/x\"".to_owned()])?;
        let ran = self.site.deploy(&["--yes"])?.expect(10)?;
        self.site.set(|settings| settings.backup.clear())?;
        self.is_old("the store takes no backup", &ran)
    }

    /// xtask is killed at each step; the same command goes on each time, and the last one completes.
    fn killed(&mut self) -> Result<Ran> {
        let steps = match self.site.world.full {
            true => &["Staging", "Stopping", "Backing up", "Migrating", "Starting", "Following", "Proving"][..],
            false => &["Stopping", "Migrating"],
        };
        for step in steps {
            let mut running: Running = self.site.start_deploy(&["--yes", "--lock-wait", "120"])?;
            running.wait_for(step, STEP)?;
            running.signal(nix::sys::signal::Signal::SIGKILL)?;
            let ran = self.site.keep(running.end(LONGEST)?)?;
            self.note(&format!("killed at {step:?}"), &ran);
        }
        let last = self.site.deploy(&["--yes", "--lock-wait", "120"])?.expect(0)?;
        self.note("the same command again", &last);
        let status: Value = self.site.xtask(&["status", "--env", ENV, "--exit-code", "--json"])?.expect(0)?.json()?;
        ensure!(status.is_object(), "status: {status}");
        Ok(last)
    }
}

/// A file system of PostgreSQL's machine without a free page, in which whatever is new in a database goes.
struct FullDisk<'s> {
    site: &'s Site<'s>,
}

impl<'s> FullDisk<'s> {
    /// The shared memory's: it is small everywhere.
    const FOLDER: &'static str = "/dev/shm/disk";

    fn of(site: &'s Site<'s>) -> Result<Self> {
        let disk = Self { site };
        let folder = Self::FOLDER;
        // One at a time: a tablespace is made outside of transactions.
        disk.sql(&format!("COPY (SELECT) TO PROGRAM 'mkdir -m 700 {folder}'"))?;
        disk.sql(&format!("CREATE TABLESPACE disk LOCATION '{folder}'"))?;
        disk.sql("CREATE TABLE filler (bytes text) TABLESPACE disk; ALTER TABLE filler ALTER bytes SET STORAGE PLAIN")?;
        // One row fills a page.
        for pages in [512, 16, 1] {
            let fill = format!("INSERT INTO filler SELECT repeat('x', 7000) FROM generate_series(1, {pages})");
            while disk.sql(&fill).is_ok() {}
        }
        disk.sql(&format!("ALTER DATABASE \"{}\" SET default_tablespace = disk", site.name))?;
        Ok(disk)
    }

    fn clear(self) -> Result<()> {
        self.sql(&format!("ALTER DATABASE \"{}\" RESET default_tablespace", self.site.name))?;
        self.sql("DROP TABLE filler")?;
        self.sql("DROP TABLESPACE disk")?;
        self.sql(&format!("COPY (SELECT) TO PROGRAM 'rmdir {}'", Self::FOLDER)).map(drop)
    }

    fn sql(&self, statement: &str) -> Result<String> {
        self.site.world.database.sql(&self.site.name, statement)
    }
}

/// A transaction that holds a lock on a table that the migration changes.
struct Holder {
    psql: std::process::Child,
}

impl Holder {
    fn start(site: &Site<'_>) -> Result<Self> {
        use std::io::Write as _;
        let mut psql = site.world.database.psql(&site.name);
        psql.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
        let mut psql = psql.spawn()?;
        // Servers read on; whoever changes a table waits.
        let tables = "DO $$ DECLARE t text; BEGIN FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' \
                      LOOP EXECUTE format('LOCK TABLE %I IN ACCESS SHARE MODE', t); END LOOP; END $$;";
        let input = psql.stdin.as_mut().ok_or("no input")?;
        writeln!(input, "BEGIN; {tables}")?;
        input.flush()?;
        Ok(Self { psql })
    }

    fn end(&mut self) -> Result<()> {
        drop(self.psql.stdin.take());
        self.psql.wait()?;
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}
