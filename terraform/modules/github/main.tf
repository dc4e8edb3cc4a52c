locals {
  # Roles on the project, by account.
  project_roles = {
    "deploy roles/container.developer" = { account = "deploy", role = "roles/container.developer" }
    "plan roles/viewer"                = { account = "plan", role = "roles/viewer" }
    "plan roles/iam.securityReviewer"  = { account = "plan", role = "roles/iam.securityReviewer" }
  }

  # Whoever can push a branch can write a workflow: reading is for the whole repository, deploying only for
  # jobs of the environment, where GitHub asks its reviewers. The provider checks the numbers in both cases.
  pool = "iam.googleapis.com/${google_iam_workload_identity_pool.this.name}"
  principals = {
    plan   = "principalSet://${local.pool}/attribute.repository_id/${var.repository_id}"
    deploy = "principal://${local.pool}/subject/repo:${var.github}:environment:${var.environment}"
  }
}

resource "google_iam_workload_identity_pool" "this" {
  project                   = var.project
  workload_identity_pool_id = "${var.name}-github"
  display_name              = "GitHub"
  description               = "Workflows of ${var.github}"
}

resource "google_iam_workload_identity_pool_provider" "this" {
  #checkov:skip=CKV_GCP_125:repository and owner are checked by their numbers, which cannot be taken over as names can
  project                            = var.project
  workload_identity_pool_id          = google_iam_workload_identity_pool.this.workload_identity_pool_id
  workload_identity_pool_provider_id = "github"
  display_name                       = "GitHub"
  attribute_condition                = "assertion.repository_id == '${var.repository_id}' && assertion.repository_owner_id == '${var.owner_id}'"

  attribute_mapping = {
    "google.subject"                = "assertion.sub"
    "attribute.repository_id"       = "assertion.repository_id"
    "attribute.repository_owner_id" = "assertion.repository_owner_id"
  }

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account" "this" {
  for_each = {
    build  = "Builds images and pushes them"
    deploy = "Pushes images and deploys, from GitHub"
    plan   = "Reads, to show what a change would do, from GitHub"
  }

  project      = var.project
  account_id   = "${var.name}-${each.key}"
  display_name = "MLflow ${each.key}"
  description  = each.value
}

resource "google_artifact_registry_repository_iam_member" "this" {
  for_each = toset(["build", "deploy"])

  project    = var.project
  location   = var.repository.location
  repository = var.repository.name
  role       = "roles/artifactregistry.writer"
  member     = "serviceAccount:${google_service_account.this[each.key].email}"
}

resource "google_project_iam_member" "this" {
  #checkov:skip=CKV_GCP_117:a plan reads everything that was made, and changes nothing
  for_each = local.project_roles

  project = var.project
  role    = each.value.role
  member  = "serviceAccount:${google_service_account.this[each.value.account].email}"
}

resource "google_storage_bucket_iam_member" "state" {
  for_each = toset(var.state_bucket == null ? [] : ["deploy", "plan"])

  bucket = var.state_bucket
  role   = "roles/storage.objectUser"
  member = "serviceAccount:${google_service_account.this[each.key].email}"
}

resource "google_service_account_iam_member" "this" {
  for_each = local.principals

  service_account_id = google_service_account.this[each.key].name
  role               = "roles/iam.workloadIdentityUser"
  member             = each.value
}
