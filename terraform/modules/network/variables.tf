variable "project" {
  description = "Id of the project."
  type        = string
}

variable "region" {
  description = "Region of the subnetwork."
  type        = string
}

variable "name" {
  description = "Name of the network and of what is in it."
  type        = string
}

variable "private_ip" {
  description = "Whether Google's services get addresses in the network."
  type        = bool
}

variable "cluster" {
  description = "Whether private nodes need a way out."
  type        = bool
}
