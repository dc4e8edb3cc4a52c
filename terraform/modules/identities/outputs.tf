output "server" {
  description = "Email of the server's service account."
  value       = google_service_account.server.email
}

output "nodes" {
  description = "Email of the service account of nodes and pulls."
  value       = google_service_account.nodes.email
}
