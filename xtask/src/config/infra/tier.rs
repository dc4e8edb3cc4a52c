//! How many connections a Cloud SQL instance takes.

/// What Cloud SQL lets a machine of this tier take, unless its flag says otherwise: by memory
/// (<https://cloud.google.com/sql/docs/postgres/quotas#maximum_concurrent_connections>). `None`: the
/// tier does not tell its memory.
pub fn connections(tier: &str) -> Option<u64> {
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
            assert_eq!(connections(tier), expected, "{tier}");
        }
    }
}
