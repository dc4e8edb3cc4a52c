# Values that are refused before anything is made.

mock_provider "google" {}

variables {
  project = "my-project"
  region  = "europe-west1"
}

run "project" {
  command = plan

  variables {
    project = "My_Project"
  }

  expect_failures = [var.project]
}

run "zone_for_region" {
  command = plan

  variables {
    region = "europe-west1-b"
  }

  expect_failures = [var.region]
}

run "short_name" {
  command = plan

  variables {
    name = "ml"
  }

  expect_failures = [var.name]
}

run "bucket" {
  command = plan

  variables {
    bucket = "Capital"
  }

  expect_failures = [var.bucket]
}

run "instance" {
  command = plan

  variables {
    instance = "1st"
  }

  expect_failures = [var.instance]
}

run "old_postgres" {
  command = plan

  variables {
    database_version = "POSTGRES_9_6"
  }

  expect_failures = [var.database_version]
}

run "mysql" {
  command = plan

  variables {
    database_version = "MYSQL_8_0"
  }

  expect_failures = [var.database_version]
}

run "edition" {
  command = plan

  variables {
    edition = "BASIC"
  }

  expect_failures = [var.edition]
}

run "tier" {
  command = plan

  variables {
    tier = "n1-standard-1"
  }

  expect_failures = [var.tier]
}

run "availability" {
  command = plan

  variables {
    availability = "GLOBAL"
  }

  expect_failures = [var.availability]
}

run "small_disk" {
  command = plan

  variables {
    disk_gb = 9
  }

  expect_failures = [var.disk_gb]
}

run "login" {
  command = plan

  variables {
    login = "none"
  }

  expect_failures = [var.login]
}

run "short_password" {
  command = plan

  variables {
    database_password = "short"
  }

  expect_failures = [var.database_password]
}

run "password_version" {
  command = plan

  variables {
    database_password_version = 0
  }

  expect_failures = [var.database_password_version]
}

run "registry" {
  command = plan

  variables {
    registry = "docker.io"
  }

  expect_failures = [var.registry]
}

run "cluster" {
  command = plan

  variables {
    cluster = "big"
  }

  expect_failures = [var.cluster]
}

run "node_type" {
  command = plan

  variables {
    node_type = "large"
  }

  expect_failures = [var.node_type]
}

run "no_nodes" {
  command = plan

  variables {
    node_count = 0
  }

  expect_failures = [var.node_count]
}

run "namespace" {
  command = plan

  variables {
    namespace = "Upper"
  }

  expect_failures = [var.namespace]
}

run "github" {
  command = plan

  variables {
    github               = "nobody"
    github_repository_id = "1"
    github_owner_id      = "2"
    github_environment   = "production"
  }

  expect_failures = [var.github]
}

run "state_in_the_bucket_of_artifacts" {
  command = plan

  variables {
    state_bucket = "my-project-mlflow"
  }

  expect_failures = [var.state_bucket]
}

run "labels" {
  command = plan

  variables {
    labels = { Team = "a" }
  }

  expect_failures = [var.labels]
}

run "github_without_its_numbers" {
  command = plan

  variables {
    github = "someone/mlflow"
  }

  expect_failures = [var.github_repository_id, var.github_owner_id, var.github_environment]
}

run "plus_with_a_small_tier" {
  command = plan

  module {
    source = "./modules/database"
  }

  variables {
    instance            = "mlflow"
    name                = "mlflow"
    database_version    = "POSTGRES_17"
    edition             = "ENTERPRISE_PLUS"
    tier                = "db-custom-1-3840"
    availability        = "ZONAL"
    disk_gb             = 10
    login               = "iam"
    server              = "mlflow@my-project.iam.gserviceaccount.com"
    password_version    = 1
    deletion_protection = true
    labels              = {}
  }

  expect_failures = [google_sql_database_instance.this]
}

run "plus_tier_without_plus" {
  command = plan

  module {
    source = "./modules/database"
  }

  variables {
    instance            = "mlflow"
    name                = "mlflow"
    database_version    = "POSTGRES_17"
    edition             = "ENTERPRISE"
    tier                = "db-perf-optimized-N-2"
    availability        = "ZONAL"
    disk_gb             = 10
    login               = "iam"
    server              = "mlflow@my-project.iam.gserviceaccount.com"
    password_version    = 1
    deletion_protection = true
    labels              = {}
  }

  expect_failures = [google_sql_database_instance.this]
}
