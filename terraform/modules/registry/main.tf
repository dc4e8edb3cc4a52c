resource "google_artifact_registry_repository" "this" {
  #checkov:skip=CKV_GCP_84:Google's keys encrypt it; images hold no secrets
  project       = var.project
  location      = var.location
  repository_id = var.name
  format        = "DOCKER"
  description   = "Images of the MLflow server"
  labels        = var.labels
}
