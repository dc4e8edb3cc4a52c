# The login with a password, which is neither in the plan nor in the state.

mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = {
      email = "an-account@my-project.iam.gserviceaccount.com"
      name  = "projects/my-project/serviceAccounts/an-account@my-project.iam.gserviceaccount.com"
    }
  }
}

variables {
  project           = "my-project"
  region            = "europe-west1"
  login             = "password"
  database_password = "only-for-this-test"
}

run "user" {
  command = plan

  assert {
    condition     = output.contract.database.user == "mlflow" && output.contract.database.login == "password"
    error_message = "the user is ${output.contract.database.user}"
  }
}

run "database" {
  command = plan

  module {
    source = "./modules/database"
  }

  variables {
    instance            = "mlflow"
    name                = "mlflow"
    database_version    = "POSTGRES_17"
    edition             = "ENTERPRISE"
    tier                = "db-custom-1-3840"
    availability        = "ZONAL"
    disk_gb             = 10
    server              = "mlflow@my-project.iam.gserviceaccount.com"
    password            = "only-for-this-test"
    password_version    = 3
    deletion_protection = true
    labels              = {}
  }

  assert {
    condition = (
      google_sql_user.password[0].type == "BUILT_IN" && google_sql_user.password[0].password_wo_version == 3 &&
      google_sql_user.password[0].password_wo == null && google_sql_user.password[0].password == null &&
      length(google_sql_user.iam) == 0
    )
    error_message = "the user is another, or its password is in the plan"
  }
  assert {
    condition     = length(google_sql_database_instance.this.settings[0].database_flags) == 0
    error_message = "the login with an account is on"
  }
}
