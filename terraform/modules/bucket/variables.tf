variable "project" {
  description = "Id of the project."
  type        = string
}

variable "name" {
  description = "Name of the bucket, unique in the world."
  type        = string
}

variable "location" {
  description = "Region of the bucket."
  type        = string
}

variable "delete_data" {
  description = "Whether deleting the bucket deletes what is in it."
  type        = bool
}

variable "labels" {
  description = "Labels of the bucket."
  type        = map(string)
}
