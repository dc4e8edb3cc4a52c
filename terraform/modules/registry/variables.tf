variable "project" {
  description = "Id of the project."
  type        = string
}

variable "location" {
  description = "Region or multi-region of the repository."
  type        = string
}

variable "name" {
  description = "Id of the repository."
  type        = string
}

variable "labels" {
  description = "Labels of the repository."
  type        = map(string)
}
