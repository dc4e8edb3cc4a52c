resource "google_compute_network" "this" {
  #checkov:skip=CKV2_GCP_18:only the cluster's nodes are in it, and GKE makes their rules
  project                 = var.project
  name                    = var.name
  auto_create_subnetworks = false
}

resource "google_compute_subnetwork" "this" {
  #checkov:skip=CKV_GCP_26:flow logs cost by the gigabyte; nothing here accepts connections from outside
  #checkov:skip=CKV_GCP_76:no IPv6 in this network
  project                  = var.project
  region                   = var.region
  name                     = var.name
  network                  = google_compute_network.this.id
  ip_cidr_range            = "10.10.0.0/20"
  private_ip_google_access = true

  secondary_ip_range {
    range_name    = "pods"
    ip_cidr_range = "10.20.0.0/16"
  }

  secondary_ip_range {
    range_name    = "services"
    ip_cidr_range = "10.30.0.0/20"
  }
}

# Private nodes reach the rest of the world through it.
resource "google_compute_router" "this" {
  count = var.cluster ? 1 : 0

  project = var.project
  region  = var.region
  name    = var.name
  network = google_compute_network.this.id
}

resource "google_compute_router_nat" "this" {
  count = var.cluster ? 1 : 0

  project                            = var.project
  region                             = var.region
  router                             = google_compute_router.this[0].name
  name                               = var.name
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"
}

resource "google_compute_global_address" "services" {
  count = var.private_ip ? 1 : 0

  project       = var.project
  name          = "${var.name}-services"
  network       = google_compute_network.this.id
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 16
}

# Cloud SQL may hold on to it for days after its last instance is deleted; a later destroy then takes it along.
resource "google_service_networking_connection" "services" {
  count = var.private_ip ? 1 : 0

  network                 = google_compute_network.this.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.services[0].name]
}
