output "contract" {
  description = "What a workflow logs in with."

  value = {
    provider = google_iam_workload_identity_pool_provider.this.name
    build    = google_service_account.this["build"].email
    deploy   = google_service_account.this["deploy"].email
    plan     = google_service_account.this["plan"].email
  }
}
