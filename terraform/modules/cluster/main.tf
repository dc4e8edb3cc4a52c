locals {
  autopilot = var.mode == "autopilot"
}

resource "google_container_cluster" "this" {
  #checkov:skip=CKV_GCP_20:people and GitHub's runners have no fixed addresses; IAM decides who gets in, by the DNS endpoint
  #checkov:skip=CKV_GCP_12:Autopilot and Dataplane V2 enforce network policies
  #checkov:skip=CKV_GCP_65:groups need a Google Workspace domain, which not everyone has
  #checkov:skip=CKV_GCP_61:flow logs cost by the gigabyte, and between the pods of a node nothing is in doubt
  #checkov:skip=CKV_GCP_21:labels are the user's to choose
  #checkov:skip=CKV_GCP_68:Autopilot's nodes have it always, the pool of a standard cluster below
  #checkov:skip=CKV_GCP_69:Autopilot's nodes have it always, the pool of a standard cluster below
  #checkov:skip=CKV_GCP_72:it is on unless switched off
  #checkov:skip=CKV_GCP_66:images are deployed by digest; attestations are the organisation's to demand
  project             = var.project
  location            = var.region
  name                = var.name
  deletion_protection = var.deletion_protection
  resource_labels     = var.labels

  network         = var.network
  subnetwork      = var.subnetwork.id
  networking_mode = "VPC_NATIVE"

  ip_allocation_policy {
    cluster_secondary_range_name  = var.subnetwork.pods
    services_secondary_range_name = var.subnetwork.services
  }

  private_cluster_config {
    enable_private_nodes    = true
    enable_private_endpoint = false
  }

  control_plane_endpoints_config {
    dns_endpoint_config {
      allow_external_traffic = true
    }
  }

  master_auth {
    client_certificate_config {
      issue_client_certificate = false
    }
  }

  release_channel {
    channel = "REGULAR"
  }

  # Only one of the two ways is given: the API refuses settings of the other.
  enable_autopilot         = local.autopilot ? true : null
  remove_default_node_pool = local.autopilot ? null : true
  initial_node_count       = local.autopilot ? null : 1
  datapath_provider        = local.autopilot ? null : "ADVANCED_DATAPATH"

  dynamic "cluster_autoscaling" {
    for_each = local.autopilot ? [true] : []

    content {
      auto_provisioning_defaults {
        service_account = var.nodes
        oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
      }
    }
  }

  dynamic "workload_identity_config" {
    for_each = local.autopilot ? [] : [true]

    content {
      workload_pool = "${var.project}.svc.id.goog"
    }
  }

  # The pool that every cluster is born with, for the minutes until it is removed.
  dynamic "node_config" {
    for_each = local.autopilot ? [] : [true]

    content {
      service_account = var.nodes
      oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]

      shielded_instance_config {
        enable_secure_boot = true
      }

      workload_metadata_config {
        mode = "GKE_METADATA"
      }
    }
  }

  lifecycle {
    ignore_changes = [node_config]
  }
}

resource "google_container_node_pool" "this" {
  count = local.autopilot ? 0 : 1

  project    = var.project
  location   = var.region
  cluster    = google_container_cluster.this.name
  name       = "nodes"
  node_count = var.node_count

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  node_config {
    machine_type    = var.node_type
    spot            = var.spot
    service_account = var.nodes
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    resource_labels = var.labels

    metadata = {
      disable-legacy-endpoints = "true"
    }

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    workload_metadata_config {
      mode = "GKE_METADATA"
    }
  }

  lifecycle {
    # Upgrades of GKE write into both.
    ignore_changes = [node_config[0].kubelet_config, node_config[0].resource_labels["goog-gke-node-pool-provisioning-model"]]
  }
}
