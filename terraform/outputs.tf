output "contract" {
  description = "What the deployment needs to know, version 1; nothing in it is secret."

  value = {
    version = 1
    project = var.project
    region  = var.region
    bucket  = module.bucket.name

    database = {
      instance   = module.database.connection_name
      name       = module.database.name
      user       = module.database.user
      login      = var.login
      private_ip = var.private_ip
      tier       = var.tier
      version    = var.database_version
    }

    registry = { repository = module.registry.uri }

    identities = {
      server = module.identities.server
      pull   = module.identities.nodes
    }

    cluster = one(module.cluster[*].contract)
    github  = one(module.github[*].contract)
  }
}
