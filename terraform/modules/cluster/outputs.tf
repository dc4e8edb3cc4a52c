locals {
  dns = one(google_container_cluster.this.control_plane_endpoints_config[*].dns_endpoint_config[0])
  # The DNS endpoint has a certificate that everyone trusts.
  by_dns = try(local.dns.allow_external_traffic && length(local.dns.endpoint) > 0, false)
}

output "contract" {
  description = "How the cluster is reached."

  value = {
    name           = google_container_cluster.this.name
    location       = google_container_cluster.this.location
    endpoint       = "https://${local.by_dns ? local.dns.endpoint : google_container_cluster.this.endpoint}"
    ca_certificate = local.by_dns ? null : google_container_cluster.this.master_auth[0].cluster_ca_certificate
  }
}

output "workload_pool" {
  description = "Identity pool of the cluster."
  value       = "${var.project}.svc.id.goog"
  depends_on  = [google_container_cluster.this]
}
