package main

// What the stand-in knows, by the names of terraform.
var resources map[string]*resource

func init() {
	resources = map[string]*resource{
		"google_artifact_registry_repository":            repository,
		"google_artifact_registry_repository_iam_member": repositoryMember,
		"google_compute_global_address":                  globalAddress,
		"google_compute_network":                         network,
		"google_compute_router":                          router,
		"google_compute_router_nat":                      routerNAT,
		"google_compute_subnetwork":                      subnetwork,
		"google_container_cluster":                       cluster,
		"google_container_node_pool":                     nodePool,
		"google_iam_workload_identity_pool":              identityPool,
		"google_iam_workload_identity_pool_provider":     identityProvider,
		"google_project_iam_member":                      projectMember,
		"google_project_service":                         projectService,
		"google_service_account":                         serviceAccount,
		"google_service_account_iam_member":              serviceAccountMember,
		"google_service_networking_connection":           connection,
		"google_sql_database":                            database,
		"google_sql_database_instance":                   instance,
		"google_sql_user":                                user,
		"google_storage_bucket":                          bucket,
		"google_storage_bucket_iam_member":               bucketMember,
	}
}
