resource "google_storage_bucket" "this" {
  #checkov:skip=CKV_GCP_62:access logs need a second bucket; data access audit logs are the project's to switch on
  project       = var.project
  name          = var.name
  location      = var.location
  storage_class = "STANDARD"
  force_destroy = var.delete_data
  labels        = var.labels

  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = true
  }

  soft_delete_policy {
    retention_duration_seconds = 7 * 24 * 60 * 60
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = 30
      with_state                 = "ARCHIVED"
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 7
    }
  }
}
