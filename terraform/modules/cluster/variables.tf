variable "project" {
  description = "Id of the project."
  type        = string
}

variable "region" {
  description = "Region of the cluster."
  type        = string
}

variable "name" {
  description = "Name of the cluster."
  type        = string
}

variable "mode" {
  description = "autopilot or standard."
  type        = string

  validation {
    condition     = contains(["autopilot", "standard"], var.mode)
    error_message = "The mode must be autopilot or standard."
  }
}

variable "network" {
  description = "Id of the network."
  type        = string
}

variable "subnetwork" {
  description = "The subnetwork and its ranges for pods and services."

  type = object({
    id       = string
    pods     = string
    services = string
  })
}

variable "nodes" {
  description = "Email of the nodes' service account."
  type        = string
}

variable "node_type" {
  description = "Machine type of the nodes; standard only."
  type        = string
}

variable "node_count" {
  description = "Nodes in each zone; standard only."
  type        = number
}

variable "spot" {
  description = "Whether Google may take nodes away; standard only."
  type        = bool
}

variable "deletion_protection" {
  description = "Whether terraform refuses to delete the cluster."
  type        = bool
}

variable "labels" {
  description = "Labels of the cluster."
  type        = map(string)
}
