locals {
  has_cluster = var.cluster != "none"
  has_network = local.has_cluster || var.private_ip
  has_github  = var.github != null

  services = toset(concat(
    ["storage", "sqladmin", "artifactregistry", "iam", "iamcredentials", "cloudresourcemanager", "serviceusage"],
    local.has_cluster ? ["container"] : [],
    local.has_network ? ["compute"] : [],
    var.private_ip ? ["servicenetworking"] : [],
    local.has_github ? ["sts"] : [],
  ))

  # The project once its APIs are enabled: who names it waits for them, and it is known in every plan.
  project = one(distinct(values(google_project_service.this)[*].project))

  protected = var.deletion_protection && !var.delete_data
}

resource "google_project_service" "this" {
  for_each = local.services

  project = var.project
  service = "${each.key}.googleapis.com"

  # Others in the project may use them.
  disable_on_destroy = false
}

module "network" {
  source = "./modules/network"
  count  = local.has_network ? 1 : 0

  project    = local.project
  region     = var.region
  name       = var.name
  private_ip = var.private_ip
  cluster    = local.has_cluster
}

module "bucket" {
  source = "./modules/bucket"

  project     = local.project
  location    = var.region
  name        = coalesce(var.bucket, "${var.project}-${var.name}")
  delete_data = var.delete_data
  labels      = var.labels
}

module "database" {
  source = "./modules/database"

  project             = local.project
  region              = var.region
  instance            = coalesce(var.instance, var.name)
  name                = "mlflow"
  database_version    = var.database_version
  edition             = var.edition
  tier                = var.tier
  availability        = var.availability
  disk_gb             = var.disk_gb
  network             = var.private_ip ? module.network[0].private_services : null
  login               = var.login
  server              = module.identities.server
  password            = var.database_password
  password_version    = var.database_password_version
  deletion_protection = local.protected
  labels              = var.labels
}

module "registry" {
  source = "./modules/registry"

  project  = local.project
  location = var.registry == "gcr.io" ? "us" : var.region
  name     = var.registry == "gcr.io" ? "gcr.io" : var.name
  labels   = var.labels
}

module "identities" {
  source = "./modules/identities"

  project       = local.project
  name          = var.name
  bucket        = module.bucket.name
  repository    = module.registry.repository
  login         = var.login
  cluster       = local.has_cluster
  workload_pool = local.has_cluster ? module.cluster[0].workload_pool : null
  namespace     = var.namespace
}

module "cluster" {
  source = "./modules/cluster"
  count  = local.has_cluster ? 1 : 0

  project             = local.project
  region              = var.region
  name                = var.name
  mode                = var.cluster
  network             = module.network[0].network
  subnetwork          = module.network[0].subnetwork
  nodes               = module.identities.nodes
  node_type           = var.node_type
  node_count          = var.node_count
  spot                = var.spot
  deletion_protection = local.protected
  labels              = var.labels
}

module "github" {
  source = "./modules/github"
  count  = local.has_github ? 1 : 0

  project       = local.project
  name          = var.name
  github        = var.github
  repository_id = var.github_repository_id
  owner_id      = var.github_owner_id
  environment   = var.github_environment
  repository    = module.registry.repository
  state_bucket  = var.state_bucket
}
