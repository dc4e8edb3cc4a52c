variable "project" {
  description = "Id of the project."
  type        = string
}

variable "region" {
  description = "Region of the instance."
  type        = string
}

variable "instance" {
  description = "Name of the instance."
  type        = string
}

variable "name" {
  description = "Name of the database."
  type        = string
}

variable "database_version" {
  description = "Version of PostgreSQL, as Cloud SQL calls it."
  type        = string
}

variable "edition" {
  description = "ENTERPRISE or ENTERPRISE_PLUS."
  type        = string
}

variable "tier" {
  description = "Machine type."
  type        = string
}

variable "availability" {
  description = "ZONAL or REGIONAL."
  type        = string
}

variable "disk_gb" {
  description = "Size of the disk to begin with."
  type        = number
}

variable "network" {
  description = "Private network that reaches Google's services; null: a public address, for connectors only."
  type        = string
  default     = null
}

variable "login" {
  description = "iam or password."
  type        = string
}

variable "server" {
  description = "Email of the server's service account."
  type        = string
}

variable "password" {
  description = "Password with login = password."
  type        = string
  default     = null
  ephemeral   = true
  sensitive   = true
}

variable "password_version" {
  description = "Raised when the password changes."
  type        = number
}

variable "deletion_protection" {
  description = "Whether terraform and Cloud SQL refuse to delete the instance."
  type        = bool
}

variable "labels" {
  description = "Labels of the instance."
  type        = map(string)
}
