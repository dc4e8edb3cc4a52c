variable "project" {
  description = "Id of the project."
  type        = string
}

variable "name" {
  description = "What pool and accounts begin with."
  type        = string
}

variable "github" {
  description = "OWNER/REPO, for people to read."
  type        = string
}

variable "repository_id" {
  description = "Number of the repository."
  type        = string
}

variable "owner_id" {
  description = "Number of its owner."
  type        = string
}

variable "environment" {
  description = "Environment of the repository whose jobs may deploy."
  type        = string
}

variable "repository" {
  description = "Repository that images are pushed to."

  type = object({
    location = string
    name     = string
  })
}

variable "state_bucket" {
  description = "Bucket of the terraform state; null: none."
  type        = string
  default     = null
}
