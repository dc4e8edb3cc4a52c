//! What `infra` needs of a project, derived from what it makes there. Asks nobody.

use std::collections::BTreeSet;

use crate::config::infra::{ClusterShape, InfraConfig};

/// Zones in which a pool of a regional cluster has its nodes.
const ZONES: u64 = 3;

/// The permissions on the project without which making the resources fails half-way.
pub(super) fn permissions(infra: &InfraConfig) -> BTreeSet<&'static str> {
    let mut needed = BTreeSet::from([
        "artifactregistry.repositories.create",
        "artifactregistry.repositories.setIamPolicy",
        "cloudsql.databases.create",
        "cloudsql.instances.create",
        "cloudsql.users.create",
        "iam.serviceAccounts.create",
        "resourcemanager.projects.getIamPolicy",
        "resourcemanager.projects.setIamPolicy",
        "serviceusage.services.enable",
        "storage.buckets.create",
        "storage.buckets.setIamPolicy",
    ]);
    if infra.has_network() {
        needed.extend(["compute.networks.create", "compute.subnetworks.create"]);
    }
    if infra.sql.private_ip {
        needed.extend(["compute.globalAddresses.createInternal", "servicenetworking.services.addPeering"]);
    }
    if infra.cluster.is_some() {
        needed.extend([
            "compute.routers.create",
            "container.clusters.create",
            "iam.serviceAccounts.actAs",
            "iam.serviceAccounts.setIamPolicy",
        ]);
    }
    if infra.keys.any() {
        needed.insert("iam.serviceAccountKeys.create");
    }
    if infra.github.is_some() {
        needed.extend([
            "iam.serviceAccounts.setIamPolicy",
            "iam.workloadIdentityPoolProviders.create",
            "iam.workloadIdentityPools.create",
        ]);
    }
    needed
}

/// A constraint of the organisation that is in the way, and what else can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Constraint {
    /// Its name, without `constraints/`.
    pub(super) name: &'static str,
    /// What it forbids.
    pub(super) forbids: &'static str,
    /// What to do.
    pub(super) fix: &'static str,
    /// The value of a list of allowed ones that is needed; empty for a constraint that is on or off.
    pub(super) value: &'static str,
}

/// The constraints that forbid something that is wanted.
pub(super) fn constraints(infra: &InfraConfig) -> Vec<Constraint> {
    let mut all = Vec::new();
    if infra.keys.any() {
        all.push(Constraint {
            name: "iam.disableServiceAccountKeyCreation",
            forbids: "server-key and pull-key",
            fix: "leave server-key and pull-key out, where the cluster is Google's; else ask the organisation's \
                administrator for an exception for this project",
            value: "",
        });
    }
    all.push(Constraint {
        name: "iam.disableServiceAccountCreation",
        forbids: "service accounts, and the server is one",
        fix: "ask the organisation's administrator for an exception for this project",
        value: "",
    });
    if !infra.sql.private_ip {
        all.push(Constraint {
            name: "sql.restrictPublicIp",
            forbids: "a database with a public address",
            fix: "set private-ip = true in deploy.toml, or ask the organisation's administrator for an exception for \
                this project",
            value: "",
        });
    }
    if infra.github.is_some() {
        all.push(Constraint {
            name: "iam.workloadIdentityPoolProviders",
            forbids: "logins of GitHub's workflows",
            fix: "ask the organisation's administrator to allow https://token.actions.githubusercontent.com",
            value: "https://token.actions.githubusercontent.com",
        });
        all.push(Constraint {
            name: "iam.allowedPolicyMemberDomains",
            forbids: "roles for identities from outside the organisation, as GitHub's workflows are",
            fix: "ask the organisation's administrator to allow the project's workload identity pools",
            value: "is:principalSet",
        });
    }
    all
}

/// What is taken of the quotas: the metric and how much of it, first of the project, then of the region.
pub(super) fn quotas(infra: &InfraConfig) -> [Vec<(&'static str, u64)>; 2] {
    let (mut project, mut region) = (Vec::new(), Vec::new());
    if infra.has_network() {
        project.push(("NETWORKS", 1));
    }
    if let Some(shape) = &infra.cluster {
        // What the nodes reach the internet with.
        region.push(("IN_USE_ADDRESSES", 1));
        if let ClusterShape::Standard { node_type, node_count, spot } = shape
            && let Some(cpus) = cpus(node_type)
        {
            let metric = match (spot, node_type.split('-').next()) {
                (true, _) => "PREEMPTIBLE_CPUS",
                (false, Some("n2")) => "N2_CPUS",
                (false, Some("n2d")) => "N2D_CPUS",
                (false, Some("c2")) => "C2_CPUS",
                (false, _) => "CPUS",
            };
            region.push((metric, cpus * u64::from(*node_count) * ZONES));
        }
    }
    [project, region]
}

/// The CPUs of a machine type: the number at the end, and two of those that share them.
fn cpus(machine: &str) -> Option<u64> {
    let parts: Vec<&str> = machine.split('-').collect();
    match parts.as_slice() {
        ["e2", "micro" | "small" | "medium"] => Some(2),
        [_, "custom", cpus, ..] => cpus.parse().ok(),
        [.., last] => last.parse().ok(),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::infra::tests::kubernetes;

    use super::*;

    fn standard(node_type: &str, node_count: u32, spot: bool) -> Option<ClusterShape> {
        Some(ClusterShape::Standard { node_type: node_type.to_owned(), node_count, spot })
    }

    #[test]
    fn only_what_is_made_is_needed() {
        let small = kubernetes();
        let mut large = kubernetes();
        large.cluster = Some(ClusterShape::Autopilot);
        large.sql.private_ip = true;
        large.keys.pull = true;
        // terraform enables the same.
        let terraform = include_str!("../../../../terraform/main.tf");
        for api in large.apis() {
            let name = api.trim_end_matches(".googleapis.com");
            assert!(terraform.contains(&format!("\"{name}\"")), "{name}");
        }
        assert!(small.apis().len() < large.apis().len());
        for (permission, small_has) in [
            ("storage.buckets.create", true),
            ("container.clusters.create", false),
            ("compute.networks.create", false),
            ("iam.serviceAccountKeys.create", false),
        ] {
            assert_eq!(permissions(&small).contains(permission), small_has, "{permission}");
            assert!(permissions(&large).contains(permission), "{permission}");
        }
        let names = |infra: &InfraConfig| constraints(infra).iter().map(|one| one.name).collect::<Vec<_>>();
        assert_eq!(names(&small), ["iam.disableServiceAccountCreation", "sql.restrictPublicIp"]);
        assert_eq!(names(&large), ["iam.disableServiceAccountKeyCreation", "iam.disableServiceAccountCreation"]);
    }

    #[test]
    fn the_nodes_take_cpus_in_each_zone() {
        let check = |cluster: Option<ClusterShape>, expected: &[(&str, u64)]| {
            let [project, region] = quotas(&InfraConfig { cluster: cluster.clone(), ..kubernetes() });
            assert_eq!(region, expected, "{cluster:?}");
            assert_eq!(project.is_empty(), cluster.is_none());
        };
        check(None, &[]);
        check(Some(ClusterShape::Autopilot), &[("IN_USE_ADDRESSES", 1)]);
        check(standard("e2-standard-2", 1, false), &[("IN_USE_ADDRESSES", 1), ("CPUS", 6)]);
        check(standard("e2-medium", 2, true), &[("IN_USE_ADDRESSES", 1), ("PREEMPTIBLE_CPUS", 12)]);
        check(standard("n2-highmem-8", 1, false), &[("IN_USE_ADDRESSES", 1), ("N2_CPUS", 24)]);
        check(standard("e2-custom-4-8192", 1, false), &[("IN_USE_ADDRESSES", 1), ("CPUS", 12)]);
        check(standard("odd", 1, false), &[("IN_USE_ADDRESSES", 1)]);
    }
}
