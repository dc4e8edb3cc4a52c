//! What Cloud SQL refuses.

use serde_json::{Value, json};

use super::failure::{Failure, Outcome};

const VERSIONS: &[&str] = &[
    "POSTGRES_9_6",
    "POSTGRES_10",
    "POSTGRES_11",
    "POSTGRES_12",
    "POSTGRES_13",
    "POSTGRES_14",
    "POSTGRES_15",
    "POSTGRES_16",
    "POSTGRES_17",
    "POSTGRES_18",
];

/// Predefined tiers, with the megabytes of memory.
pub(crate) const TIERS: &[(&str, u64)] = &[
    ("db-f1-micro", 614),
    ("db-g1-small", 1740),
    ("db-perf-optimized-N-2", 16_384),
    ("db-perf-optimized-N-4", 32_768),
    ("db-perf-optimized-N-8", 65_536),
];

fn refused(message: impl Into<String>) -> Failure {
    Failure::invalid(message).reason("invalid")
}

/// Checks what an instance is to be, and fills in what was left out.
pub(crate) fn complete(instance: &mut Value) -> Outcome<()> {
    let name = instance["name"].as_str().unwrap_or_default();
    let is_name = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !is_name || name.ends_with('-') || name.len() > 97 {
        return Err(refused(format!("Invalid request: Invalid instance name ({name}).")));
    }
    if instance["databaseVersion"].is_null() {
        instance["databaseVersion"] = "POSTGRES_17".into();
    }
    let version = instance["databaseVersion"].as_str().unwrap_or_default().to_owned();
    if !VERSIONS.contains(&version.as_str()) {
        return Err(refused(format!("Invalid value at 'body.database_version', \"{version}\"")));
    }
    let new = ["POSTGRES_16", "POSTGRES_17", "POSTGRES_18"].contains(&version.as_str());
    let settings = &mut instance["settings"];
    if settings["edition"].is_null() {
        // This default surprises people whose tier does not fit.
        settings["edition"] = if new { "ENTERPRISE_PLUS" } else { "ENTERPRISE" }.into();
    }
    let edition = settings["edition"].as_str().unwrap_or_default().to_owned();
    let tier = settings["tier"].as_str().unwrap_or_default().to_owned();
    check_tier(&edition, &tier)?;
    let disk = settings["dataDiskSizeGb"].as_str().and_then(|text| text.parse::<u64>().ok());
    if disk.is_some_and(|disk| disk < 10) {
        return Err(refused("Invalid request: Disk size must be at least 10 GB."));
    }
    if settings["ipConfiguration"]["ipv4Enabled"] == false && settings["ipConfiguration"]["privateNetwork"].is_null() {
        return Err(refused(
            "Invalid request: At least one of Public IP or Private IP or PSC connectivity must be enabled.",
        ));
    }
    fill(settings);
    Ok(())
}

/// Checks a tier by its edition.
pub(crate) fn check_tier(edition: &str, tier: &str) -> Outcome<()> {
    let optimized = tier.starts_with("db-perf-optimized-");
    let fits = match edition {
        "ENTERPRISE_PLUS" => optimized,
        "ENTERPRISE" => !optimized,
        _ => return Err(refused(format!("Invalid value at 'body.settings.edition', \"{edition}\""))),
    };
    if !fits {
        let use_instead = if optimized { "db-custom-CPU-RAM" } else { "db-perf-optimized-N-*" };
        return Err(refused(format!(
            "Invalid request: Invalid Tier ({tier}) for ({edition}) Edition. Use a predefined Tier like {use_instead} \
             instead. For more details, see documentation."
        )));
    }
    if TIERS.iter().any(|(name, _)| *name == tier) {
        return Ok(());
    }
    let numbers = tier.strip_prefix("db-custom-").and_then(|rest| rest.split_once('-'));
    let numbers = numbers.and_then(|(cpu, memory)| Some((cpu.parse::<u64>().ok()?, memory.parse::<u64>().ok()?)));
    let Some((cpu, memory)) = numbers else {
        return Err(refused(format!("Invalid request: Invalid Tier ({tier}).")));
    };
    let right_cpu = cpu == 1 || (cpu % 2 == 0 && (2..=96).contains(&cpu));
    if !right_cpu || memory % 256 != 0 || !((cpu * 922)..=(cpu * 6656)).contains(&memory) || memory < 3840 {
        return Err(refused(format!("Invalid request: Invalid custom machine type ({tier}).")));
    }
    Ok(())
}

fn fill(settings: &mut Value) {
    let defaults = json!({
        "activationPolicy": "ALWAYS",
        "availabilityType": "ZONAL",
        "connectorEnforcement": "NOT_REQUIRED",
        "dataDiskSizeGb": "10",
        "dataDiskType": "PD_SSD",
        "deletionProtectionEnabled": false,
        "kind": "sql#settings",
        "locationPreference": { "kind": "sql#locationPreference" },
        "pricingPlan": "PER_USE",
        "replicationType": "SYNCHRONOUS",
        "storageAutoResize": true,
        "storageAutoResizeLimit": "0",
        "backupConfiguration": {
            "kind": "sql#backupConfiguration",
            "enabled": false,
            "startTime": "03:00",
            "backupTier": "STANDARD",
            "pointInTimeRecoveryEnabled": false,
            "transactionLogRetentionDays": 7,
            "backupRetentionSettings": { "retainedBackups": 7, "retentionUnit": "COUNT" },
        },
        "ipConfiguration": {
            "ipv4Enabled": true,
            "sslMode": "ALLOW_UNENCRYPTED_AND_ENCRYPTED",
            "serverCaMode": "GOOGLE_MANAGED_INTERNAL_CA",
        },
    });
    fill_in(settings, &defaults);
}

/// Fields that are not there yet.
fn fill_in(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                fill_in(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into @ Value::Null, from) => *into = from.clone(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_has_to_fit() {
        for (edition, tier, right) in [
            ("ENTERPRISE", "db-f1-micro", true),
            ("ENTERPRISE", "db-custom-1-3840", true),
            ("ENTERPRISE", "db-custom-3-3840", false),
            ("ENTERPRISE", "db-custom-2-3841", false),
            ("ENTERPRISE", "db-custom-2-99840", false),
            ("ENTERPRISE", "db-perf-optimized-N-2", false),
            ("ENTERPRISE_PLUS", "db-perf-optimized-N-2", true),
            ("ENTERPRISE_PLUS", "db-f1-micro", false),
            ("CHEAP", "db-f1-micro", false),
        ] {
            assert_eq!(check_tier(edition, tier).is_ok(), right, "{edition} {tier}");
        }
    }

    #[test]
    fn an_instance_is_completed() {
        let mut instance =
            json!({ "name": "a", "databaseVersion": "POSTGRES_15", "settings": { "tier": "db-f1-micro" } });
        complete(&mut instance).unwrap();
        assert_eq!(instance["settings"]["edition"], "ENTERPRISE");
        assert_eq!(instance["settings"]["activationPolicy"], "ALWAYS");
        let mut newer = json!({ "name": "a", "databaseVersion": "POSTGRES_17", "settings": { "tier": "db-f1-micro" } });
        let refused = complete(&mut newer).unwrap_err();
        assert!(refused.message.contains("ENTERPRISE_PLUS"), "{refused:?}");
    }
}
