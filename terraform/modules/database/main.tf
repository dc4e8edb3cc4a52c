locals {
  iam = var.login == "iam"
  # Cloud SQL for PostgreSQL names an account without its last part.
  user = local.iam ? trimsuffix(var.server, ".gserviceaccount.com") : "mlflow"
}

resource "google_sql_database_instance" "this" {
  #checkov:skip=CKV_GCP_6:only connectors get in, and they bring TLS and a client certificate of their own
  #checkov:skip=CKV_GCP_60:a public address only where no private network is wanted, and then for connectors only
  project             = var.project
  region              = var.region
  name                = var.instance
  database_version    = var.database_version
  deletion_protection = var.deletion_protection

  settings {
    tier                        = var.tier
    edition                     = var.edition
    availability_type           = var.availability
    activation_policy           = "ALWAYS"
    connector_enforcement       = "REQUIRED"
    deletion_protection_enabled = var.deletion_protection
    disk_size                   = var.disk_gb
    disk_autoresize             = true
    user_labels                 = var.labels

    dynamic "database_flags" {
      for_each = local.iam ? ["on"] : []

      content {
        name  = "cloudsql.iam_authentication"
        value = database_flags.value
      }
    }

    ip_configuration {
      ipv4_enabled    = var.network == null
      private_network = var.network
    }

    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = 7

      backup_retention_settings {
        retained_backups = 7
        retention_unit   = "COUNT"
      }
    }

    final_backup_config {
      enabled        = true
      retention_days = 30
    }
  }

  lifecycle {
    # It grows by itself, and shrinking would mean a new instance.
    ignore_changes = [settings[0].disk_size]

    precondition {
      condition     = var.edition != "ENTERPRISE_PLUS" || startswith(var.tier, "db-perf-optimized-") || startswith(var.tier, "db-c4a-")
      error_message = "Edition ENTERPRISE_PLUS has tiers of its own, for example db-perf-optimized-N-2, not ${var.tier}."
    }

    precondition {
      condition     = var.edition != "ENTERPRISE" || !startswith(var.tier, "db-perf-optimized-")
      error_message = "Tier ${var.tier} needs edition ENTERPRISE_PLUS."
    }
  }
}

resource "google_sql_database" "this" {
  project  = var.project
  instance = google_sql_database_instance.this.name
  name     = var.name

  # It goes with its instance: alone it cannot be dropped while its user has tables in it.
  deletion_policy = "ABANDON"
}

resource "google_sql_user" "iam" {
  count = local.iam ? 1 : 0

  project  = var.project
  instance = google_sql_database_instance.this.name
  name     = local.user
  type     = "CLOUD_IAM_SERVICE_ACCOUNT"
  # From PostgreSQL 15 on only a database's owner makes tables in its schema public, and this role owns it.
  database_roles  = ["cloudsqlsuperuser"]
  deletion_policy = "ABANDON"
}

resource "google_sql_user" "password" {
  count = local.iam ? 0 : 1

  project             = var.project
  instance            = google_sql_database_instance.this.name
  name                = local.user
  type                = "BUILT_IN"
  password_wo         = var.password
  password_wo_version = var.password_version
  deletion_policy     = "ABANDON"
}
