# What each setting changes.

mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = {
      email = "an-account@my-project.iam.gserviceaccount.com"
      name  = "projects/my-project/serviceAccounts/an-account@my-project.iam.gserviceaccount.com"
    }
  }
  mock_resource "google_iam_workload_identity_pool_provider" {
    defaults = { name = "projects/1/locations/global/workloadIdentityPools/mlflow-github/providers/github" }
  }
}

variables {
  project = "my-project"
  region  = "europe-west1"

  # Not used here; terraform test cannot apply with an ephemeral variable that is null.
  database_password = "only-for-this-test"
}

run "public_address_and_no_cluster" {
  variables {
    private_ip = false
    cluster    = "none"
  }

  assert {
    condition     = length(module.network) == 0 && length(module.cluster) == 0
    error_message = "a network or a cluster is made that nobody wants"
  }
  assert {
    condition     = output.contract.cluster == null && !output.contract.database.private_ip
    error_message = "the contract names what is not there"
  }
  assert {
    condition = tolist(keys(google_project_service.this)) == sort([
      "artifactregistry", "cloudresourcemanager", "iam", "iamcredentials", "serviceusage", "sqladmin", "storage",
    ])
    error_message = "the APIs are ${join(", ", keys(google_project_service.this))}"
  }
}

run "private_address_without_cluster" {
  variables {
    cluster = "none"
  }

  assert {
    condition     = length(module.network) == 1 && length(module.cluster) == 0
    error_message = "the private address has no network"
  }
  assert {
    condition     = contains(keys(google_project_service.this), "servicenetworking") && !contains(keys(google_project_service.this), "container")
    error_message = "the APIs are ${join(", ", keys(google_project_service.this))}"
  }
}

run "github" {
  variables {
    github               = "someone/mlflow"
    github_repository_id = "123"
    github_owner_id      = "45"
    github_environment   = "production"
    state_bucket         = "my-project-state"
  }

  assert {
    condition = (
      keys(output.contract.github) == ["build", "deploy", "plan", "provider"] &&
      output.contract.github.provider == "projects/1/locations/global/workloadIdentityPools/mlflow-github/providers/github"
    )
    error_message = "the contract has ${jsonencode(output.contract.github)}"
  }
  assert {
    condition     = contains(keys(google_project_service.this), "sts")
    error_message = "tokens cannot be exchanged"
  }
}

run "names" {
  variables {
    name     = "tracking"
    bucket   = "artifacts-of-ours"
    instance = "tracking-2"
  }

  assert {
    condition     = output.contract.bucket == "artifacts-of-ours" && output.contract.cluster.name == "tracking"
    error_message = "the names are ${jsonencode(output.contract)}"
  }
}

run "database_with_private_address" {
  module {
    source = "./modules/database"
  }

  variables {
    instance            = "mlflow"
    name                = "mlflow"
    database_version    = "POSTGRES_17"
    edition             = "ENTERPRISE"
    tier                = "db-custom-1-3840"
    availability        = "ZONAL"
    disk_gb             = 10
    network             = "projects/my-project/global/networks/mlflow"
    login               = "iam"
    server              = "mlflow@my-project.iam.gserviceaccount.com"
    password            = "only-for-this-test"
    password_version    = 1
    deletion_protection = true
    labels              = {}
  }

  assert {
    condition = (
      !google_sql_database_instance.this.settings[0].ip_configuration[0].ipv4_enabled &&
      google_sql_database_instance.this.settings[0].ip_configuration[0].private_network == "projects/my-project/global/networks/mlflow" &&
      google_sql_database_instance.this.settings[0].connector_enforcement == "REQUIRED"
    )
    error_message = "the database can be reached otherwise"
  }
  assert {
    condition     = google_sql_database_instance.this.deletion_protection && google_sql_database_instance.this.settings[0].deletion_protection_enabled
    error_message = "the database is not protected on both levels"
  }
  assert {
    condition     = [for flag in google_sql_database_instance.this.settings[0].database_flags : "${flag.name}=${flag.value}"] == ["cloudsql.iam_authentication=on"]
    error_message = "the login with an account is off"
  }
  assert {
    condition     = google_sql_user.iam[0].name == "mlflow@my-project.iam" && google_sql_user.iam[0].type == "CLOUD_IAM_SERVICE_ACCOUNT" && length(google_sql_user.password) == 0
    error_message = "the user is not the server's account"
  }
}

run "registry_of_gcr_io" {
  variables {
    registry = "gcr.io"
  }

  assert {
    condition     = module.registry.repository == { location = "us", name = "gcr.io" }
    error_message = "the repository is ${jsonencode(module.registry.repository)}"
  }
}

run "bucket_keeps_its_data" {
  module {
    source = "./modules/bucket"
  }

  variables {
    name        = "my-project-mlflow"
    location    = "europe-west1"
    delete_data = false
    labels      = {}
  }

  assert {
    condition = (
      !google_storage_bucket.this.force_destroy && google_storage_bucket.this.versioning[0].enabled &&
      google_storage_bucket.this.uniform_bucket_level_access &&
      google_storage_bucket.this.public_access_prevention == "enforced" &&
      google_storage_bucket.this.soft_delete_policy[0].retention_duration_seconds == 604800
    )
    error_message = "the bucket is open, or forgets"
  }
}

run "cluster_of_own_nodes" {
  module {
    source = "./modules/cluster"
  }

  variables {
    name                = "mlflow"
    mode                = "standard"
    network             = "projects/my-project/global/networks/mlflow"
    subnetwork          = { id = "projects/my-project/regions/europe-west1/subnetworks/mlflow", pods = "pods", services = "services" }
    nodes               = "mlflow-nodes@my-project.iam.gserviceaccount.com"
    node_type           = "e2-standard-2"
    node_count          = 2
    spot                = true
    deletion_protection = true
    labels              = {}
  }

  assert {
    condition = (
      google_container_node_pool.this[0].node_count == 2 && google_container_node_pool.this[0].node_config[0].spot &&
      google_container_node_pool.this[0].node_config[0].service_account == "mlflow-nodes@my-project.iam.gserviceaccount.com"
    )
    error_message = "the nodes are others"
  }
  assert {
    condition = (
      google_container_cluster.this.workload_identity_config[0].workload_pool == "my-project.svc.id.goog" &&
      google_container_cluster.this.private_cluster_config[0].enable_private_nodes && google_container_cluster.this.deletion_protection
    )
    error_message = "the cluster is open, unprotected or has no identities for pods"
  }
}
