//! What roles grant: as much of Google's table as this project uses.

/// Patterns of permissions, `*` standing for anything, by role.
const ROLES: &[(&str, &[&str])] = &[
    ("roles/owner", &["*"]),
    ("roles/editor", &["*.get", "*.list", "*.create", "*.update", "*.delete"]),
    ("roles/viewer", &["*.get", "*.list"]),
    ("roles/iam.securityReviewer", &["*.getIamPolicy", "*.list"]),
    ("roles/iam.serviceAccountAdmin", &["iam.serviceAccounts.*"]),
    ("roles/iam.serviceAccountKeyAdmin", &["iam.serviceAccountKeys.*"]),
    ("roles/iam.serviceAccountTokenCreator", ALL_TOKENS),
    ("roles/iam.serviceAccountUser", &["iam.serviceAccounts.actAs", "iam.serviceAccounts.get"]),
    ("roles/iam.workloadIdentityUser", TOKENS),
    ("roles/iam.workloadIdentityPoolAdmin", &["iam.workloadIdentityPool*"]),
    ("roles/resourcemanager.projectIamAdmin", &["resourcemanager.projects.*"]),
    ("roles/serviceusage.serviceUsageAdmin", &["serviceusage.*"]),
    ("roles/storage.admin", &["storage.*"]),
    ("roles/storage.objectUser", &["storage.objects.*", "storage.multipartUploads.*"]),
    ("roles/storage.objectAdmin", &["storage.objects.*", "storage.multipartUploads.*"]),
    ("roles/storage.objectViewer", &["storage.objects.get", "storage.objects.list"]),
    ("roles/storage.objectCreator", &["storage.objects.create", "storage.multipartUploads.*"]),
    ("roles/cloudsql.admin", &["cloudsql.*"]),
    ("roles/cloudsql.client", &["cloudsql.instances.connect", "cloudsql.instances.get"]),
    ("roles/cloudsql.instanceUser", &["cloudsql.instances.get", "cloudsql.instances.login"]),
    ("roles/artifactregistry.admin", &["artifactregistry.*"]),
    ("roles/artifactregistry.reader", READ_ARTIFACTS),
    ("roles/artifactregistry.writer", WRITE_ARTIFACTS),
    ("roles/container.admin", &["container.*"]),
    (
        "roles/container.developer",
        &["container.clusters.get", "container.clusters.list", "container.operations.*", "container.deployments.*"],
    ),
    ("roles/container.clusterViewer", &["container.clusters.get", "container.clusters.list"]),
    ("roles/container.defaultNodeServiceAccount", &["logging.logEntries.create", "monitoring.timeSeries.create"]),
    ("roles/compute.networkAdmin", &["compute.*", "servicenetworking.*"]),
    ("roles/cloudbuild.builds.editor", &["cloudbuild.builds.*"]),
];

const TOKENS: &[&str] =
    &["iam.serviceAccounts.get", "iam.serviceAccounts.getAccessToken", "iam.serviceAccounts.getOpenIdToken"];
const ALL_TOKENS: &[&str] = &[
    "iam.serviceAccounts.get",
    "iam.serviceAccounts.getAccessToken",
    "iam.serviceAccounts.getOpenIdToken",
    "iam.serviceAccounts.signJwt",
];
const READ_ARTIFACTS: &[&str] = &[
    "artifactregistry.repositories.get",
    "artifactregistry.repositories.list",
    "artifactregistry.repositories.downloadArtifacts",
];
const WRITE_ARTIFACTS: &[&str] = &[
    "artifactregistry.repositories.get",
    "artifactregistry.repositories.list",
    "artifactregistry.repositories.downloadArtifacts",
    "artifactregistry.repositories.uploadArtifacts",
];

/// Whether a role holds a permission.
pub(crate) fn grants(role: &str, permission: &str) -> bool {
    let patterns = ROLES.iter().find(|(name, _)| *name == role).map_or(&[][..], |(_, patterns)| patterns);
    // Basic roles and reviewers see no data.
    let data = permission.starts_with("storage.objects.") || permission == "cloudsql.instances.login";
    patterns.iter().any(|pattern| {
        if pattern.starts_with("*.") && data {
            return false;
        }
        match pattern.split_once('*') {
            None => *pattern == permission,
            Some((before, after)) => permission.starts_with(before) && permission.ends_with(after),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_holds_what_it_needs_and_no_more() {
        for (role, permission, held) in [
            ("roles/owner", "storage.objects.get", true),
            ("roles/viewer", "cloudsql.instances.get", true),
            ("roles/viewer", "cloudsql.instances.connect", false),
            ("roles/viewer", "storage.objects.get", false),
            ("roles/viewer", "resourcemanager.projects.getIamPolicy", false),
            ("roles/iam.securityReviewer", "resourcemanager.projects.getIamPolicy", true),
            ("roles/storage.objectUser", "storage.objects.create", true),
            ("roles/storage.objectUser", "storage.buckets.get", false),
            ("roles/cloudsql.client", "cloudsql.instances.connect", true),
            ("roles/cloudsql.client", "cloudsql.instances.login", false),
            ("roles/artifactregistry.reader", "artifactregistry.repositories.uploadArtifacts", false),
            ("roles/nobody.knows", "storage.objects.get", false),
        ] {
            assert_eq!(grants(role, permission), held, "{role} {permission}");
        }
    }
}
