output "connection_name" {
  description = "PROJECT:REGION:INSTANCE, what connectors ask for."
  value       = google_sql_database_instance.this.connection_name
}

output "name" {
  description = "Name of the database."
  value       = google_sql_database.this.name
}

output "user" {
  description = "Name of the database user."
  value       = local.user
}
