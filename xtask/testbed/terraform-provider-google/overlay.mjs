// What the package's classes do not say of the resources that terraform/ uses.

/** Where the schema comes from: generated from google provider 6.50.0. */
export const PACKAGE = {
  name: "@cdktf/provider-google",
  version: "16.12.1",
  integrity: "sha512-KqNA/5RiFT07r0PSZ6/07cJ2zESUgbj1JchVj21iBFBZVUbD+578xA/k8eq/r0cbyEgLmg9eYWeVslaYah4DCQ==",
};

/** What terraform/ uses. */
export const RESOURCES = [
  "google_artifact_registry_repository",
  "google_artifact_registry_repository_iam_member",
  "google_compute_global_address",
  "google_compute_network",
  "google_compute_router",
  "google_compute_router_nat",
  "google_compute_subnetwork",
  "google_container_cluster",
  "google_container_node_pool",
  "google_iam_workload_identity_pool",
  "google_iam_workload_identity_pool_provider",
  "google_project_iam_member",
  "google_project_service",
  "google_service_account",
  "google_service_account_iam_member",
  "google_service_networking_connection",
  "google_sql_database",
  "google_sql_database_instance",
  "google_sql_user",
  "google_storage_bucket",
  "google_storage_bucket_iam_member",
];

// A value that the user may set and the provider fills otherwise looks like any optional one in a
// class; the provider's documentation tells them apart.
const both = { optional: true, computed: true };
const id = { id: both };
const project = { project: both, ...id };

/**
 * By resource and path. Between 6.50 and 7.x, of what is used here, the upgrade guide (version_7_upgrade)
 * and the change log name: registry_uri (7.1.0) and final_backup_config (7.2.0), which are new;
 * disable_on_destroy, whose default is not part of a schema; and enable_flow_logs and the bucket's
 * retention_period, which are not used.
 */
export const OVERLAY = {
  provider: { access_token: { sensitive: true } },
  google_artifact_registry_repository: {
    ...project,
    location: both,
    registry_uri: { type: "string", computed: true },
  },
  google_artifact_registry_repository_iam_member: { ...project, location: both },
  google_compute_global_address: { ...project, address: both, prefix_length: both },
  google_compute_network: { ...project, routing_mode: both, mtu: both },
  google_compute_router: { ...project, region: both },
  google_compute_router_nat: { ...project, region: both, min_ports_per_vm: both, auto_network_tier: both },
  google_compute_subnetwork: { ...project, region: both, private_ip_google_access: both, purpose: both },
  google_container_cluster: {
    ...project,
    location: both,
    datapath_provider: both,
    node_version: both,
    "master_auth.client_key": { sensitive: true },
    "control_plane_endpoints_config.dns_endpoint_config.endpoint": both,
  },
  google_container_node_pool: {
    ...project,
    location: both,
    name: both,
    node_count: both,
    version: both,
    initial_node_count: both,
    "node_config.machine_type": both,
    "node_config.service_account": both,
    "node_config.oauth_scopes": both,
    "node_config.metadata": both,
  },
  google_iam_workload_identity_pool: project,
  google_iam_workload_identity_pool_provider: project,
  google_project_iam_member: id,
  google_project_service: project,
  google_service_account: project,
  google_service_account_iam_member: id,
  google_service_networking_connection: id,
  google_sql_database: { ...project, charset: both, collation: both },
  google_sql_database_instance: {
    ...project,
    name: both,
    region: both,
    instance_type: both,
    "settings.edition": both,
    "settings.connector_enforcement": both,
    "settings.disk_size": both,
    "settings.user_labels": both,
    "settings.ip_configuration.ssl_mode": both,
    "settings.backup_configuration.transaction_log_retention_days": both,
    "settings.final_backup_config": {
      nesting: "list",
      min: 0,
      max: 1,
      block: {
        attributes: { enabled: { type: "bool", optional: true }, retention_days: { type: "number", optional: true } },
        blocks: {},
      },
    },
  },
  google_sql_user: {
    ...project,
    host: both,
    password: { sensitive: true },
    password_wo: { writeOnly: true, sensitive: true },
    // Since Cloud SQL can assign roles (January 2026).
    database_roles: { type: ["list", "string"], optional: true },
  },
  google_storage_bucket: { ...project, public_access_prevention: both, uniform_bucket_level_access: both, rpo: both },
  google_storage_bucket_iam_member: id,
};
