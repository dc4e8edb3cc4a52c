output "network" {
  description = "Id of the network."
  value       = google_compute_network.this.id
}

output "subnetwork" {
  description = "The subnetwork and its ranges, for the cluster."

  value = {
    id       = google_compute_subnetwork.this.id
    pods     = google_compute_subnetwork.this.secondary_ip_range[0].range_name
    services = google_compute_subnetwork.this.secondary_ip_range[1].range_name
  }
}

output "private_services" {
  description = "Id of the network once Google's services are reached through it; null without that."
  value       = var.private_ip ? google_compute_network.this.id : null
  depends_on  = [google_service_networking_connection.services]
}
