# What comes of the two settings that everyone must give.

mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = {
      email = "an-account@my-project.iam.gserviceaccount.com"
      name  = "projects/my-project/serviceAccounts/an-account@my-project.iam.gserviceaccount.com"
    }
  }
  mock_resource "google_sql_database_instance" {
    defaults = { connection_name = "my-project:europe-west1:mlflow" }
  }
  mock_resource "google_artifact_registry_repository" {
    defaults = { registry_uri = "europe-west1-docker.pkg.dev/my-project/mlflow" }
  }
}

override_resource {
  target = module.identities.google_service_account.server
  values = {
    email = "mlflow@my-project.iam.gserviceaccount.com"
    name  = "projects/my-project/serviceAccounts/mlflow@my-project.iam.gserviceaccount.com"
  }
}

override_resource {
  target = module.identities.google_service_account.nodes
  values = { email = "mlflow-nodes@my-project.iam.gserviceaccount.com" }
}

override_resource {
  target = module.cluster[0].google_container_cluster.this
  values = {
    endpoint = "192.0.2.1"
    control_plane_endpoints_config = {
      dns_endpoint_config = { endpoint = "gke-1.europe-west1.gke.goog" }
    }
  }
}

variables {
  project = "my-project"
  region  = "europe-west1"

  # Not used here; terraform test cannot apply with an ephemeral variable that is null.
  database_password = "only-for-this-test"
}

run "contract" {
  assert {
    condition = jsonencode(output.contract) == jsonencode({
      version = 1
      project = "my-project"
      region  = "europe-west1"
      bucket  = "my-project-mlflow"
      database = {
        instance   = "my-project:europe-west1:mlflow"
        name       = "mlflow"
        user       = "mlflow@my-project.iam"
        login      = "iam"
        private_ip = true
        tier       = "db-custom-1-3840"
        version    = "POSTGRES_17"
      }
      registry = { repository = "europe-west1-docker.pkg.dev/my-project/mlflow" }
      identities = {
        server = "mlflow@my-project.iam.gserviceaccount.com"
        pull   = "mlflow-nodes@my-project.iam.gserviceaccount.com"
      }
      cluster = {
        name           = "mlflow"
        location       = "europe-west1"
        endpoint       = "https://gke-1.europe-west1.gke.goog"
        ca_certificate = null
      }
      github = null
    })
    error_message = "the contract is ${jsonencode(output.contract)}"
  }

  assert {
    condition = tolist(keys(google_project_service.this)) == sort([
      "artifactregistry", "cloudresourcemanager", "compute", "container", "iam", "iamcredentials",
      "servicenetworking", "serviceusage", "sqladmin", "storage",
    ])
    error_message = "the APIs are ${join(", ", keys(google_project_service.this))}"
  }

  assert {
    condition     = alltrue([for service in google_project_service.this : !service.disable_on_destroy])
    error_message = "an API would be disabled for others too"
  }
}
