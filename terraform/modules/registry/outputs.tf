output "repository" {
  description = "Location and id, to grant roles on."

  value = {
    location = google_artifact_registry_repository.this.location
    name     = google_artifact_registry_repository.this.repository_id
  }
}

output "uri" {
  description = "What the names of its images begin with."
  value       = google_artifact_registry_repository.this.registry_uri
}
