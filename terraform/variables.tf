variable "project" {
  description = "Id of the Google Cloud project."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project id has 6 to 30 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "region" {
  description = "Region of everything, for example europe-west1."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "A region looks like europe-west1; a zone (europe-west1-b) is not a region."
  }
}

variable "name" {
  description = "What the names of all resources begin with."
  type        = string
  default     = "mlflow"
  nullable    = false

  # mlflow-services and mlflow-github are the longest; a service account's id has 6 to 30 characters.
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,20}[a-z0-9]$", var.name)) && !startswith(var.name, "gcp-")
    error_message = "A name has 6 to 22 lower-case letters, digits and hyphens, begins with a letter and not with gcp-."
  }
}

variable "bucket" {
  description = "Name of the bucket for artifacts; null: PROJECT-NAME."
  type        = string
  default     = null

  validation {
    condition     = var.bucket == null || can(regex("^[a-z0-9][a-z0-9_-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "A bucket's name has 3 to 63 lower-case letters, digits, hyphens and underscores."
  }
}

variable "instance" {
  description = "Name of the Cloud SQL instance; null: NAME. The name of a deleted instance is blocked for a week."
  type        = string
  default     = null

  validation {
    condition     = var.instance == null || can(regex("^[a-z][a-z0-9-]{0,95}[a-z0-9]$", var.instance))
    error_message = "An instance's name has lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "database_version" {
  description = "Version of PostgreSQL, as Cloud SQL calls it."
  type        = string
  default     = "POSTGRES_17"
  nullable    = false

  validation {
    condition     = can(regex("^POSTGRES_(1[3-9]|[2-9][0-9])$", var.database_version))
    error_message = "The version must be POSTGRES_13 or newer, for example POSTGRES_17."
  }
}

variable "edition" {
  description = "Edition of Cloud SQL: ENTERPRISE or ENTERPRISE_PLUS."
  type        = string
  default     = "ENTERPRISE"
  nullable    = false

  validation {
    condition     = contains(["ENTERPRISE", "ENTERPRISE_PLUS"], var.edition)
    error_message = "The edition must be ENTERPRISE or ENTERPRISE_PLUS."
  }
}

variable "tier" {
  description = "Machine type of the database: db-custom-CPUS-MB, or db-f1-micro or db-g1-small for trying things."
  type        = string
  default     = "db-custom-1-3840"
  nullable    = false

  validation {
    condition     = can(regex("^db-[a-z0-9-]+$", var.tier))
    error_message = "A tier begins with db-, for example db-custom-1-3840."
  }
}

variable "availability" {
  description = "ZONAL, or REGIONAL for a standby in another zone."
  type        = string
  default     = "ZONAL"
  nullable    = false

  validation {
    condition     = contains(["ZONAL", "REGIONAL"], var.availability)
    error_message = "The availability must be ZONAL or REGIONAL."
  }
}

variable "disk_gb" {
  description = "Size of the database's disk to begin with, in GB; it grows by itself."
  type        = number
  default     = 10
  nullable    = false

  validation {
    condition     = var.disk_gb >= 10 && var.disk_gb <= 65536 && floor(var.disk_gb) == var.disk_gb
    error_message = "The disk must have 10 to 65536 GB."
  }
}

variable "login" {
  description = "How the server logs in to the database: iam (its service account, no password) or password."
  type        = string
  default     = "iam"
  nullable    = false

  validation {
    condition     = contains(["iam", "password"], var.login)
    error_message = "The login must be iam or password."
  }
}

variable "database_password" {
  description = "Password of the database user with login = password; never kept in plan or state."
  type        = string
  default     = null
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = var.database_password == null || try(length(var.database_password) >= 16, false)
    error_message = "The password must have 16 characters or more."
  }
}

variable "database_password_version" {
  description = "To be raised when the password changes: what is not kept cannot be compared."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.database_password_version >= 1 && floor(var.database_password_version) == var.database_password_version
    error_message = "The version of the password must be a whole number from 1."
  }
}

variable "private_ip" {
  description = "Whether the database has only an address in the private network."
  type        = bool
  default     = true
  nullable    = false
}

variable "deletion_protection" {
  description = "Whether database and cluster refuse to be deleted."
  type        = bool
  default     = true
  nullable    = false
}

variable "delete_data" {
  description = "Whether deleting may take the data along: lifts the protections and empties the bucket."
  type        = bool
  default     = false
  nullable    = false
}

variable "registry" {
  description = "Where images are: pkg.dev (a repository of its own) or gcr.io (the old addresses)."
  type        = string
  default     = "pkg.dev"
  nullable    = false

  validation {
    condition     = contains(["pkg.dev", "gcr.io"], var.registry)
    error_message = "The registry must be pkg.dev or gcr.io."
  }
}

variable "cluster" {
  description = "The cluster to make: autopilot, standard or none."
  type        = string
  default     = "autopilot"
  nullable    = false

  validation {
    condition     = contains(["autopilot", "standard", "none"], var.cluster)
    error_message = "The cluster must be autopilot, standard or none."
  }
}

variable "node_type" {
  description = "Machine type of the nodes of a standard cluster."
  type        = string
  default     = "e2-standard-2"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9]*-[a-z0-9-]+$", var.node_type))
    error_message = "A machine type looks like e2-standard-2."
  }
}

variable "node_count" {
  description = "Nodes of a standard cluster in each of the region's zones."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.node_count >= 1 && var.node_count <= 100 && floor(var.node_count) == var.node_count
    error_message = "There must be 1 to 100 nodes."
  }
}

variable "spot" {
  description = "Whether the nodes of a standard cluster are cheap ones that Google may take away."
  type        = bool
  default     = false
  nullable    = false
}

variable "namespace" {
  description = "Namespace of the server in the cluster."
  type        = string
  default     = "mlflow"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "A namespace has up to 63 lower-case letters, digits and hyphens."
  }
}

variable "github" {
  description = "OWNER/REPO on GitHub whose workflows may deploy, for people to read; null: none."
  type        = string
  default     = null

  validation {
    condition     = var.github == null || can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github))
    error_message = "The repository must be OWNER/REPO."
  }
}

variable "github_repository_id" {
  description = "Number of that repository, which is what is checked: a name can be given to another."
  type        = string
  default     = null

  validation {
    condition     = var.github_repository_id == null || can(regex("^[1-9][0-9]*$", var.github_repository_id))
    error_message = "The repository's id is a number."
  }

  validation {
    condition     = (var.github_repository_id == null) == (var.github == null)
    error_message = "github and github_repository_id go together."
  }
}

variable "github_owner_id" {
  description = "Number of that repository's owner."
  type        = string
  default     = null

  validation {
    condition     = var.github_owner_id == null || can(regex("^[1-9][0-9]*$", var.github_owner_id))
    error_message = "The owner's id is a number."
  }

  validation {
    condition     = (var.github_owner_id == null) == (var.github == null)
    error_message = "github and github_owner_id go together."
  }
}

variable "github_environment" {
  description = "Environment of that repository whose jobs alone may deploy: who approves them is said on GitHub."
  type        = string
  default     = null

  validation {
    condition     = (var.github_environment == null) == (var.github == null)
    error_message = "github and github_environment go together."
  }
}

variable "state_bucket" {
  description = "Bucket of the terraform state, which GitHub's accounts may then use; null: the state is local."
  type        = string
  default     = null

  validation {
    condition     = var.state_bucket == null || can(regex("^[a-z0-9][a-z0-9_-]{1,61}[a-z0-9]$", var.state_bucket))
    error_message = "A bucket's name has 3 to 63 lower-case letters, digits, hyphens and underscores."
  }

  validation {
    condition     = var.state_bucket == null || var.state_bucket != coalesce(var.bucket, "${var.project}-${var.name}")
    error_message = "The state needs a bucket of its own: the server may change everything in the bucket of artifacts."
  }
}

variable "labels" {
  description = "Labels of everything that can have them."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition = alltrue([
      for key, value in var.labels :
      can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))
    ])
    error_message = "Labels have lower-case letters, digits, hyphens and underscores, 63 at most; a key begins with a letter."
  }
}
