# Who gets which role, and no other.

mock_provider "google" {
  mock_resource "google_iam_workload_identity_pool" {
    defaults = { name = "projects/1/locations/global/workloadIdentityPools/mlflow-github" }
  }
}

override_resource {
  target = google_service_account.server
  values = { email = "server@p", name = "projects/p/serviceAccounts/server@p" }
}

override_resource {
  target = google_service_account.nodes
  values = { email = "nodes@p" }
}

variables {
  project       = "my-project"
  name          = "mlflow"
  bucket        = "my-project-mlflow"
  repository    = { location = "europe-west1", name = "mlflow" }
  login         = "iam"
  cluster       = true
  workload_pool = "my-project.svc.id.goog"
  namespace     = "mlflow"
  github        = "someone/mlflow"
  repository_id = "123"
  owner_id      = "45"
  environment   = "production"
  state_bucket  = "my-project-state"
}

run "server_and_nodes" {
  module {
    source = "./modules/identities"
  }

  assert {
    condition     = sort([for grant in google_project_iam_member.server : "${grant.role} ${grant.member}"]) == tolist(["roles/cloudsql.client serviceAccount:server@p", "roles/cloudsql.instanceUser serviceAccount:server@p"])
    error_message = "the server's roles on the project are others"
  }
  assert {
    condition     = google_storage_bucket_iam_member.server.role == "roles/storage.objectUser" && google_storage_bucket_iam_member.server.bucket == "my-project-mlflow" && google_storage_bucket_iam_member.server.member == "serviceAccount:server@p"
    error_message = "the server's role on the bucket is another"
  }
  assert {
    condition     = [for grant in google_service_account_iam_member.server : "${grant.service_account_id} ${grant.role} ${grant.member}"] == ["projects/p/serviceAccounts/server@p roles/iam.workloadIdentityUser serviceAccount:my-project.svc.id.goog[mlflow/mlflow]"]
    error_message = "someone else may be the server"
  }
  assert {
    condition     = google_artifact_registry_repository_iam_member.nodes.role == "roles/artifactregistry.reader" && google_artifact_registry_repository_iam_member.nodes.member == "serviceAccount:nodes@p"
    error_message = "the nodes' role on the repository is another"
  }
  assert {
    condition     = [for grant in google_project_iam_member.nodes : "${grant.role} ${grant.member}"] == ["roles/container.defaultNodeServiceAccount serviceAccount:nodes@p"]
    error_message = "the nodes' role on the project is another"
  }
}

run "password_and_no_cluster" {
  module {
    source = "./modules/identities"
  }

  variables {
    login         = "password"
    cluster       = false
    workload_pool = null
  }

  assert {
    condition     = keys(google_project_iam_member.server) == ["roles/cloudsql.client"] && length(google_project_iam_member.nodes) == 0 && length(google_service_account_iam_member.server) == 0
    error_message = "a role is granted that nobody needs"
  }
}

run "github" {
  module {
    source = "./modules/github"
  }

  assert {
    condition     = keys(google_project_iam_member.this) == ["deploy roles/container.developer", "plan roles/iam.securityReviewer", "plan roles/viewer"]
    error_message = "the roles on the project are ${join(", ", keys(google_project_iam_member.this))}"
  }
  assert {
    condition     = { for account, grant in google_artifact_registry_repository_iam_member.this : account => grant.role } == { build = "roles/artifactregistry.writer", deploy = "roles/artifactregistry.writer" }
    error_message = "the roles on the repository are others"
  }
  assert {
    condition     = { for account, grant in google_storage_bucket_iam_member.state : account => "${grant.role} ${grant.bucket}" } == { deploy = "roles/storage.objectUser my-project-state", plan = "roles/storage.objectUser my-project-state" }
    error_message = "the roles on the state are others"
  }
  assert {
    condition = { for account, grant in google_service_account_iam_member.this : account => "${grant.role} ${grant.member}" } == {
      plan   = "roles/iam.workloadIdentityUser principalSet://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/mlflow-github/attribute.repository_id/123"
      deploy = "roles/iam.workloadIdentityUser principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/mlflow-github/subject/repo:someone/mlflow:environment:production"
    }
    error_message = "someone else on GitHub may use the accounts"
  }
  assert {
    condition     = google_iam_workload_identity_pool_provider.this.attribute_condition == "assertion.repository_id == '123' && assertion.repository_owner_id == '45'"
    error_message = "the condition is ${google_iam_workload_identity_pool_provider.this.attribute_condition}"
  }
}

run "github_with_local_state" {
  module {
    source = "./modules/github"
  }

  variables {
    state_bucket = null
  }

  assert {
    condition     = length(google_storage_bucket_iam_member.state) == 0
    error_message = "a role is granted on no bucket"
  }
}
