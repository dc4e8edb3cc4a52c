resource "google_service_account" "server" {
  project      = var.project
  account_id   = var.name
  display_name = "MLflow server"
  description  = "Reads and writes the artifacts and logs in to the database"
}

resource "google_service_account" "nodes" {
  project      = var.project
  account_id   = "${var.name}-nodes"
  display_name = "MLflow nodes"
  description  = "Runs the nodes of the cluster and pulls images"
}

resource "google_storage_bucket_iam_member" "server" {
  bucket = var.bucket
  role   = "roles/storage.objectUser"
  member = "serviceAccount:${google_service_account.server.email}"
}

resource "google_project_iam_member" "server" {
  for_each = toset(concat(
    ["roles/cloudsql.client"],
    var.login == "iam" ? ["roles/cloudsql.instanceUser"] : [],
  ))

  project = var.project
  role    = each.key
  member  = "serviceAccount:${google_service_account.server.email}"
}

resource "google_service_account_iam_member" "server" {
  count = var.cluster ? 1 : 0

  service_account_id = google_service_account.server.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.workload_pool}[${var.namespace}/mlflow]"
}

resource "google_artifact_registry_repository_iam_member" "nodes" {
  project    = var.project
  location   = var.repository.location
  repository = var.repository.name
  role       = "roles/artifactregistry.reader"
  member     = "serviceAccount:${google_service_account.nodes.email}"
}

resource "google_project_iam_member" "nodes" {
  count = var.cluster ? 1 : 0

  project = var.project
  role    = "roles/container.defaultNodeServiceAccount"
  member  = "serviceAccount:${google_service_account.nodes.email}"
}
