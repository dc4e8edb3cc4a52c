//! How many connections the server may open, and how large its pools are so that its database takes them.
//!
//! A worker has up to three engines, and each of them a pool, which keeps `POOL_SIZE` connections and
//! opens `MAX_OVERFLOW` more under load. The parent of the workers keeps some of its own. While a
//! rollout replaces pods there is one more than usual.
//!
//! A pool that is too small for its requests is the worst of all: MLflow takes a second connection
//! while it holds a first, so that requests wait for each other for 30 seconds and end in HTTP 400,
//! which clients do not repeat. Too few connections at the database end in 503 at once, which they do.
//! So pools may be as small as the database asks for only because the image serves fewer requests at a
//! time than its pool has connections (`mlflow_server_threads.py`): the rest wait for their turn. With
//! 14 connections and 64 clients that gave no error, and without it 42 of 69 requests ended in HTTP 400.

use serde::Serialize;

use crate::config::cluster::{ClusterConfig, Login, ServerConfig};
use crate::error::{Error, Kind, Result};

/// Engines in a worker, at most: tracking, model registry, jobs.
const ENGINES: u64 = 3;

/// And the one of the users, where MLflow's own login asks for them.
const LOGIN: u64 = 1;

/// Connections of the process that starts the workers.
const PARENT: u64 = 3;

/// Connections of a pod beside the servers, of which there is one at a time: gc, a question about the schema,
/// a migration, a backup.
const JOB: u64 = 3;

/// What PostgreSQL keeps back for administrators and Cloud SQL for itself.
const RESERVED: u64 = 6;

/// Pods beside the usual number while they are replaced: maxSurge in `kubernetes/deployment.yaml`.
/// Pods that end keep what they have at rest, which is a third of what this one may open under load.
const SURGE: u64 = 1;

/// The image's own settings (`mlflow_server/Dockerfile`), by the variable that overrides them.
pub const POOL_SIZE: (&str, u64) = ("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", 5);
/// The same of the overflow.
pub const MAX_OVERFLOW: (&str, u64) = ("MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW", 40);

/// SQLAlchemy's own settings: MLflow does not pass a zero on.
const UNSET: (u64, u64) = (5, 10);

/// Connections of an engine. With fewer than these, probes wait for other requests; with more,
/// there are more requests at a time than a worker has use for.
const LEAST: u64 = 5;
const MOST: u64 = POOL_SIZE.1 + MAX_OVERFLOW.1;

/// What the server asks of its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Demand {
    /// Pods, as many as there may be, without the one that a rollout adds.
    pub pods: u64,
    /// Workers in each.
    pub workers: u64,
    /// Engines in each worker.
    pub engines: u64,
    /// Connections that an engine keeps.
    pub pool: u64,
    /// Connections that it opens beyond them.
    pub overflow: u64,
}

impl Demand {
    /// What these settings come to: pools as large as the database allows, where it is known what it
    /// takes, but for what the environment's variables say.
    pub fn of(config: &ClusterConfig) -> Self {
        let ServerConfig { replicas, max_replicas, workers, env, .. } = &config.server;
        let (pods, workers) = (u64::from(max_replicas.unwrap_or(*replicas)), u64::from(*workers));
        let has_users = matches!(config.access.login, Login::Basic { .. });
        let engines = if has_users { ENGINES + LOGIN } else { ENGINES };
        let each = config.max_connections.map_or(MOST, |limit| affordable(limit.into(), pods, workers * engines));
        let each = each.clamp(LEAST, MOST);
        let set = |(name, _): (&str, u64)| env.get(name).and_then(|text| text.trim().parse::<u64>().ok());
        let (pool, overflow) = (set(POOL_SIZE), set(MAX_OVERFLOW));
        let pool = match (pool, overflow) {
            (Some(0), _) => UNSET.0,
            (Some(pool), _) => pool,
            (None, Some(overflow)) => each.saturating_sub(overflow).clamp(1, POOL_SIZE.1),
            // Three pods at rest have no more than one under load.
            (None, None) => ((each - 2) / 3).clamp(1, POOL_SIZE.1),
        };
        let overflow = match overflow {
            Some(0) => UNSET.1,
            Some(overflow) => overflow,
            None => each.saturating_sub(pool).max(1),
        };
        Self { pods, workers, engines, pool, overflow }
    }

    /// Connections that may be open at rest.
    pub fn kept(&self) -> u64 {
        needed(self.pods, self.in_a_pod(self.workers), self.pool)
    }

    /// Connections that may be open under load, with a job beside it.
    pub fn most(&self) -> u64 {
        needed(self.pods, self.in_a_pod(self.workers), self.pool.saturating_add(self.overflow)).saturating_add(JOB)
    }

    /// Engines of a pod with so many workers.
    fn in_a_pod(&self, workers: u64) -> u64 {
        workers.saturating_mul(self.engines)
    }

    /// The sum, as text.
    pub fn sum(&self) -> String {
        let Self { pods, workers, engines, pool, overflow } = self;
        let many = |count: &u64, what: &str| format!("{count} {what}{}", if *count == 1 { "" } else { "s" });
        format!(
            "up to {} connections: ({} + {SURGE} in a rollout) x ({} x {engines} engines x ({pool} + {overflow}) + {PARENT}) \
             + {JOB} of a job",
            self.most(),
            many(pods, "pod"),
            many(workers, "worker")
        )
    }

    /// What follows where a database takes `limit` connections.
    pub fn verdict(&self, limit: u64) -> Verdict {
        if self.most() <= usable(limit) {
            Verdict::Fits
        } else if self.kept() <= usable(limit) {
            Verdict::TightUnderLoad(self.remedy(limit))
        } else {
            Verdict::TooMany(self.remedy(limit))
        }
    }

    fn remedy(&self, limit: u64) -> String {
        let mut ways = Vec::new();
        if affordable(limit, self.pods, self.in_a_pod(self.workers)) >= LEAST {
            ways.push(format!(
                "set database.max-connections = {limit} in deploy.toml without {} and {} in its env: the pools then fit",
                POOL_SIZE.0, MAX_OVERFLOW.0
            ));
        } else {
            let most = usable(limit).saturating_sub(JOB) / in_one(self.in_a_pod(self.workers), LEAST);
            let fitting = most.checked_sub(SURGE).filter(|pods| (1..self.pods).contains(pods));
            ways.extend(fitting.map(|pods| format!("let there be at most {pods} pods (max-replicas, replicas)")));
            let single = self.workers > 1 && affordable(limit, self.pods, self.in_a_pod(1)) >= LEAST;
            ways.extend(single.then(|| "set workers = 1".to_owned()));
        }
        let enough = self.most().saturating_add(RESERVED);
        ways.push(format!("let the database take {enough} (its flag max_connections, or a larger tier)"));
        ways.join("; or ")
    }
}

/// Connections of so many pods and the one that a rollout adds, with `each` for an engine.
fn needed(pods: u64, engines: u64, each: u64) -> u64 {
    pods.saturating_add(SURGE).saturating_mul(in_one(engines, each))
}

/// Connections of a pod.
fn in_one(engines: u64, each: u64) -> u64 {
    engines.saturating_mul(each).saturating_add(PARENT)
}

/// What others leave of a database's connections.
fn usable(limit: u64) -> u64 {
    limit.saturating_sub(RESERVED)
}

/// Connections that each engine may have where a database takes `limit`.
fn affordable(limit: u64, pods: u64, engines: u64) -> u64 {
    let pod = usable(limit).saturating_sub(JOB) / pods.saturating_add(SURGE);
    pod.saturating_sub(PARENT) / engines.max(1)
}

/// Whether the database takes what the server may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Fits,
    /// Not under load: requests then fail with 503, which clients repeat. What helps.
    TightUnderLoad(String),
    /// Not even at rest. What helps.
    TooMany(String),
}

/// What whoever deploys should know; `None` where the database takes enough, or nobody said how many.
///
/// # Errors
/// `Config` where it does not take what the server keeps at rest.
pub fn check(config: &ClusterConfig) -> Result<Option<String>> {
    let Some(limit) = config.max_connections else { return Ok(None) };
    let demand = Demand::of(config);
    match demand.verdict(limit.into()) {
        Verdict::Fits => Ok(None),
        Verdict::TightUnderLoad(remedy) => Ok(Some(format!(
            "the server may open {}, and the database takes {limit}: under load requests may fail with 503; {remedy}",
            demand.sum()
        ))),
        Verdict::TooMany(remedy) => {
            let message = format!(
                "the server keeps up to {} connections at rest, and the database takes {limit}, {RESERVED} of them \
                 for administrators",
                demand.kept()
            );
            Err(Error::new(Kind::Config, message).hint(remedy))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::render::tests::kubernetes;

    fn config(pods: (u32, Option<u32>), workers: u16, limit: Option<u32>, env: &[(&str, &str)]) -> ClusterConfig {
        let mut config = kubernetes();
        (config.server.replicas, config.server.max_replicas) = pods;
        config.server.workers = workers;
        config.server.env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        config.max_connections = limit;
        config
    }

    #[test]
    fn what_others_say_is_what_is_counted() {
        let dockerfile = include_str!("../../../mlflow_server/Dockerfile");
        for (name, value) in [POOL_SIZE, MAX_OVERFLOW] {
            assert!(dockerfile.contains(&format!("{name}={value}")), "{name}");
        }
        let manifest = include_str!("../../../kubernetes/deployment.yaml");
        assert!(manifest.contains(&format!("maxUnavailable: 0\n      maxSurge: {SURGE}\n")));
    }

    #[test]
    fn the_sum_counts_pods_workers_engines_and_pools() {
        for (pods, workers, overflow, kept, most) in
            [(1, 1, 40, 36, 279), (2, 1, 10, 54, 147), (1, 4, 10, 126, 369), (3, 2, 40, 132, 1_095)]
        {
            let demand = Demand { pods, workers, engines: ENGINES, pool: 5, overflow };
            assert_eq!((demand.kept(), demand.most()), (kept, most), "{demand:?}");
        }
    }

    #[test]
    fn pools_are_as_large_as_the_database_allows() {
        let check = |pods: (u32, Option<u32>), workers: u16, limit: Option<u32>, pools: (u64, u64), expected: &str| {
            let config = config(pods, workers, limit, &[]);
            let demand = Demand::of(&config);
            let found = match limit.map(|limit| demand.verdict(limit.into())) {
                None => "unknown",
                Some(Verdict::Fits) => "fits",
                Some(Verdict::TightUnderLoad(_)) => "tight",
                Some(Verdict::TooMany(_)) => "too many",
            };
            assert_eq!(((demand.pool, demand.overflow), found), (pools, expected), "{pods:?} {workers} {limit:?}");
            assert!(demand.pool + demand.overflow >= LEAST && demand.overflow > 0, "{demand:?}");
            // Three pods that end or start need no more than one at work.
            let pod = |each: u64| in_one(demand.in_a_pod(demand.workers), each);
            assert!(3 * pod(demand.pool) <= pod(demand.pool + demand.overflow), "{demand:?}");
        };
        // Nobody said: the image's own.
        check((1, None), 1, None, (5, 40), "unknown");
        check((8, None), 4, None, (5, 40), "unknown");
        // db-custom-2-7680 and larger: the image's own.
        check((1, None), 1, Some(400), (5, 40), "fits");
        check((1, None), 1, Some(1_000), (5, 40), "fits");
        check((4, None), 1, Some(400), (5, 20), "fits");
        // db-custom-1-3840, the default.
        check((1, None), 1, Some(100), (4, 10), "fits");
        check((2, None), 1, Some(100), (2, 7), "fits");
        check((1, Some(4)), 1, Some(100), (1, 4), "fits");
        check((1, Some(5)), 1, Some(100), (1, 4), "tight");
        check((1, Some(16)), 1, Some(100), (1, 4), "too many");
        check((1, None), 2, Some(100), (1, 6), "fits");
        check((1, None), 4, Some(100), (1, 4), "tight");
        // For trying things out.
        check((1, None), 1, Some(50), (1, 4), "fits");
        check((1, None), 1, Some(25), (1, 4), "tight");
        check((2, None), 1, Some(25), (1, 4), "tight");
        check((3, None), 1, Some(25), (1, 4), "too many");
        check((1, None), 1, Some(0), (1, 4), "too many");
        // Nothing overflows.
        check((u32::MAX, None), u16::MAX, Some(100), (1, 4), "too many");
    }

    #[test]
    fn a_login_asks_the_database_too() {
        let mut config = config((1, None), 1, Some(100), &[]);
        config.access.login = Login::Basic { password: None };
        let demand = Demand::of(&config);
        assert_eq!((demand.engines, demand.pool, demand.overflow), (4, 2, 8));
        assert_eq!(demand.verdict(100), Verdict::Fits);
    }

    #[test]
    fn variables_of_the_environment_stand() {
        let check = |env: &[(&str, &str)], limit: Option<u32>, pools: (u64, u64)| {
            let demand = Demand::of(&config((1, None), 1, limit, env));
            assert_eq!((demand.pool, demand.overflow), pools, "{env:?} {limit:?}");
        };
        let (pool, overflow) = (POOL_SIZE.0, MAX_OVERFLOW.0);
        check(&[(overflow, "25")], None, (5, 25));
        check(&[(pool, "2"), (overflow, "3")], Some(100), (2, 3));
        // The other one makes up for it.
        check(&[(pool, "12")], Some(100), (12, 2));
        check(&[(pool, "20")], Some(100), (20, 1));
        check(&[(overflow, "12")], Some(100), (2, 12));
        check(&[(overflow, "50")], Some(100), (1, 50));
        // A zero is not passed on.
        check(&[(overflow, "0"), (pool, "2")], None, (2, 10));
        check(&[(pool, "0")], Some(100), (5, 9));
        check(&[(overflow, "many")], Some(100), (4, 10));
    }

    #[test]
    fn a_deploy_is_warned_or_refused_with_what_helps() {
        let check = |config: ClusterConfig, expected: &str| {
            let found = match check(&config) {
                Ok(None) => "fits".to_owned(),
                Ok(Some(warning)) => format!("warning: {warning}"),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Config);
                    format!("error: {error} -> {}", error.hint_text().unwrap_or_default())
                }
            };
            assert!(found.starts_with(expected.split(" ... ").next().unwrap_or_default()), "{found}");
            assert!(expected.split(" ... ").all(|part| found.contains(part)), "{found} should contain {expected}");
        };
        check(config((1, None), 1, None, &[]), "fits");
        check(config((1, None), 1, Some(100), &[]), "fits");
        check(
            config((1, None), 1, Some(100), &[(MAX_OVERFLOW.0, "40")]),
            "warning: the server may open up to 255 connections: (1 pod + 1 in a rollout) x (1 worker x 3 engines x \
             (1 + 40) + 3) + 3 of a job, and the database takes 100: under load ... set database.max-connections = 100",
        );
        check(
            config((1, Some(16)), 1, Some(100), &[]),
            "error: the server keeps up to 102 connections at rest, and the database takes 100 ... at most 4 pods ... \
             let the database take 315 (its flag max_connections",
        );
        check(config((1, None), 4, Some(100), &[]), "warning: ... set workers = 1; or let the database take 135 (");
        check(config((1, None), 1, Some(25), &[]), "warning: ... 503; let the database take 45 (");
    }
}
