# The state is local, in a workspace for each environment. For a state that is shared, `cargo xtask infra`
# writes backend_override.tf.json with a gcs backend: a backend cannot depend on a variable.
terraform {
  required_version = ">= 1.11"

  required_providers {
    google = {
      source = "hashicorp/google"
      # The last that is used here came with Cloud SQL's database_roles, early in 2026.
      version = ">= 7.33, < 8.0"
    }
  }
}
