variable "project" {
  description = "Id of the project."
  type        = string
}

variable "name" {
  description = "What the accounts' ids begin with."
  type        = string
}

variable "bucket" {
  description = "Bucket that the server writes to."
  type        = string
}

variable "repository" {
  description = "Repository that nodes pull from."

  type = object({
    location = string
    name     = string
  })
}

variable "login" {
  description = "How the server logs in to the database: iam or password."
  type        = string
}

variable "cluster" {
  description = "Whether there is a cluster."
  type        = bool
}

variable "workload_pool" {
  description = "Identity pool of the cluster, which exists with the cluster; null without one."
  type        = string
  default     = null
}

variable "namespace" {
  description = "Namespace of the server's pods."
  type        = string
}
