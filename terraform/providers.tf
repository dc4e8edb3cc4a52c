provider "google" {
  project = var.project
  region  = var.region

  # What is made here and what gcloud makes carry the same labels.
  add_terraform_attribution_label = false
}
