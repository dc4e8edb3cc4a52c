//! How many connections the server may open, beside how many its database takes.
//!
//! A worker has up to three engines, and each of them a pool, which keeps `POOL_SIZE` connections and
//! opens `MAX_OVERFLOW` more under load. The parent of the workers keeps some of its own.

use serde::Serialize;

use crate::config::cluster::ServerConfig;

/// Engines in a worker, at most.
const ENGINES: u64 = 3;

/// Connections of the process that starts the workers.
const PARENT: u64 = 3;

/// What PostgreSQL keeps back for administrators and Cloud SQL for itself.
const RESERVED: u64 = 6;

/// The image's own settings (`mlflow_server/Dockerfile`), by the variable that overrides them.
const POOL_SIZE: (&str, u64) = ("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", 5);
/// The same of the overflow.
const MAX_OVERFLOW: (&str, u64) = ("MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW", 40);

/// Fewer further connections than this, and requests wait for each other.
const LEAST_OVERFLOW: u64 = 5;

/// What the server asks of its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Demand {
    /// Pods, as many as there may be.
    pub pods: u64,
    /// Workers in each.
    pub workers: u64,
    /// Connections that an engine keeps.
    pub pool: u64,
    /// Connections that it opens beyond them.
    pub overflow: u64,
}

impl Demand {
    /// What these settings come to.
    pub fn of(server: &ServerConfig) -> Self {
        let number = |(name, default): (&str, u64)| {
            server.env.get(name).and_then(|text| text.trim().parse().ok()).unwrap_or(default)
        };
        let overflow = match number(MAX_OVERFLOW) {
            // MLflow passes a zero on only where it is not the default, so SQLAlchemy's own stands.
            0 => 10,
            overflow => overflow,
        };
        Self {
            pods: server.max_replicas.unwrap_or(server.replicas).into(),
            workers: server.workers.into(),
            pool: number(POOL_SIZE),
            overflow,
        }
    }

    /// Connections that may be open at rest.
    pub fn kept(&self) -> u64 {
        self.pods * (self.workers * ENGINES * self.pool + PARENT)
    }

    /// Connections that may be open under load.
    pub fn most(&self) -> u64 {
        self.pods * (self.workers * ENGINES * (self.pool + self.overflow) + PARENT)
    }

    /// The largest overflow with which a database that takes `limit` connections is never asked for
    /// more; `None` where even a small one is too much.
    fn fitting(&self, limit: u64) -> Option<u64> {
        let engines = (self.workers * ENGINES).max(1);
        let each = (limit.saturating_sub(RESERVED) / self.pods.max(1)).checked_sub(PARENT)? / engines;
        each.checked_sub(self.pool).filter(|overflow| *overflow >= LEAST_OVERFLOW)
    }

    /// The sum, as text.
    pub fn sum(&self) -> String {
        let Self { pods, workers, pool, overflow } = self;
        let many = |count: &u64, what: &str| format!("{count} {what}{}", if *count == 1 { "" } else { "s" });
        format!(
            "up to {} connections: {} x ({} x {ENGINES} engines x ({pool} + {overflow}) + {PARENT})",
            self.most(),
            many(pods, "pod"),
            many(workers, "worker")
        )
    }

    /// What follows where a database takes `limit` connections.
    pub fn verdict(&self, limit: u64) -> Verdict {
        let usable = limit.saturating_sub(RESERVED);
        if self.most() <= usable {
            Verdict::Fits
        } else if self.kept() <= usable {
            Verdict::TightUnderLoad(self.remedy(limit))
        } else {
            Verdict::TooMany(self.remedy(limit))
        }
    }

    fn remedy(&self, limit: u64) -> String {
        let smaller = self.fitting(limit).map(|overflow| format!("env.{} = \"{overflow}\", or ", MAX_OVERFLOW.0));
        format!(
            "{}fewer replicas or workers in deploy.toml; or let the database take {} (its flag max_connections, or a \
             larger tier)",
            smaller.unwrap_or_default(),
            self.most() + RESERVED
        )
    }
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

/// What whoever deploys should know about a database of this tier; `None` where it takes enough.
pub fn warning(server: &ServerConfig, tier: &str) -> Option<String> {
    let (demand, limit) = (Demand::of(server), of_tier(tier)?);
    let (when, remedy) = match demand.verdict(limit) {
        Verdict::Fits => return None,
        Verdict::TightUnderLoad(remedy) => ("under load requests may fail with 503", remedy),
        Verdict::TooMany(remedy) => ("that is too few even at rest", remedy),
    };
    Some(format!(
        "the server may open {}, and a database of tier {tier} takes {limit}: {when}. Set {remedy}",
        demand.sum()
    ))
}

/// What Cloud SQL lets a machine of this tier take, unless its flag says otherwise: by memory
/// (<https://cloud.google.com/sql/docs/postgres/quotas#maximum_concurrent_connections>). `None`: the
/// tier does not tell its memory.
pub fn of_tier(tier: &str) -> Option<u64> {
    let megabytes = match tier {
        "db-f1-micro" => return Some(25),
        "db-g1-small" => return Some(50),
        _ => match tier.strip_prefix("db-perf-optimized-N-") {
            // Eight GB for each CPU.
            Some(cpus) => cpus.parse::<u64>().ok()?.checked_mul(8 * 1024)?,
            None => tier.strip_prefix("db-custom-")?.split('-').nth(1)?.parse().ok()?,
        },
    };
    const STEPS: [(u64, u64); 8] = [
        (122_880, 1_000),
        (61_440, 800),
        (30_720, 600),
        (15_360, 500),
        (7_680, 400),
        (6_144, 200),
        (3_840, 100),
        (1_740, 50),
    ];
    Some(STEPS.into_iter().find(|(from, _)| megabytes >= *from).map_or(25, |(_, limit)| limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(pods: u64, workers: u64, overflow: u64) -> Demand {
        Demand { pods, workers, pool: 5, overflow }
    }

    #[test]
    fn the_image_has_the_settings_that_are_counted() {
        let dockerfile = include_str!("../../../mlflow_server/Dockerfile");
        for (name, value) in [POOL_SIZE, MAX_OVERFLOW] {
            assert!(dockerfile.contains(&format!("{name}={value}")), "{name}");
        }
    }

    #[test]
    fn a_tier_takes_what_its_memory_allows() {
        for (tier, expected) in [
            ("db-f1-micro", Some(25)),
            ("db-g1-small", Some(50)),
            ("db-custom-1-3840", Some(100)),
            ("db-custom-2-6144", Some(200)),
            ("db-custom-2-7680", Some(400)),
            ("db-custom-4-15360", Some(500)),
            ("db-custom-16-61440", Some(800)),
            ("db-custom-96-638976", Some(1_000)),
            ("db-perf-optimized-N-2", Some(500)),
            ("db-perf-optimized-N-8", Some(800)),
            ("db-n1-standard-1", None),
            ("db-custom-x", None),
        ] {
            assert_eq!(of_tier(tier), expected, "{tier}");
        }
    }

    #[test]
    fn the_sum_counts_pods_workers_engines_and_pools() {
        for (pods, workers, overflow, kept, most) in
            [(1, 1, 40, 18, 138), (2, 1, 10, 36, 96), (1, 4, 10, 63, 183), (3, 2, 40, 99, 819)]
        {
            let demand = demand(pods, workers, overflow);
            assert_eq!((demand.kept(), demand.most()), (kept, most), "{demand:?}");
        }
    }

    #[test]
    fn a_verdict_names_the_overflow_that_fits() {
        let check = |demand: Demand, limit: u64, expected: &str| {
            let found = match demand.verdict(limit) {
                Verdict::Fits => "fits".to_owned(),
                Verdict::TightUnderLoad(remedy) => format!("tight: {remedy}"),
                Verdict::TooMany(remedy) => format!("too many: {remedy}"),
            };
            assert!(found.starts_with(expected), "{demand:?} {limit}: {found}");
            if let Some(overflow) = demand.fitting(limit) {
                assert_eq!(Demand { overflow, ..demand }.verdict(limit), Verdict::Fits, "{demand:?} {limit}");
            }
        };
        check(demand(1, 1, 40), 400, "fits");
        check(demand(1, 1, 40), 100, "tight: env.MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW = \"25\", or fewer");
        check(demand(1, 1, 40), 25, "tight: fewer replicas");
        check(demand(2, 1, 40), 25, "too many: fewer replicas");
        check(demand(2, 1, 40), 100, "tight: env.MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW = \"9\"");
        check(demand(1, 1, 40), 0, "too many: fewer");
    }

    #[test]
    fn the_settings_of_an_environment_are_counted() {
        let check = |env: &[(&str, &str)], max_replicas: Option<u32>, tier: &str, most: u64, warned: bool| {
            let text = |text: &str| text.to_owned();
            let server = ServerConfig {
                replicas: 1,
                max_replicas,
                workers: 1,
                cpu: text("250m"),
                memory: text("1Gi"),
                scratch: text("2Gi"),
                env: env.iter().map(|(name, value)| (text(name), text(value))).collect(),
            };
            let (found, warning) = (Demand::of(&server).most(), warning(&server, tier));
            assert_eq!((found, warning.is_some()), (most, warned), "{env:?} {max_replicas:?} {tier}: {warning:?}");
        };
        check(&[], None, "db-custom-1-3840", 138, true);
        check(&[], None, "db-custom-2-7680", 138, false);
        check(&[], Some(4), "db-custom-2-7680", 552, true);
        check(&[(MAX_OVERFLOW.0, "25")], None, "db-custom-1-3840", 93, false);
        // A zero is not passed on.
        check(&[(MAX_OVERFLOW.0, "0"), (POOL_SIZE.0, "2")], None, "db-f1-micro", 39, true);
        check(&[(MAX_OVERFLOW.0, "many")], None, "db-odd", 138, false);
    }
}
