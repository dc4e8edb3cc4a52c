package main

import (
	"context"
)

const containerOperations = "projects/{project}/locations/{location}/operations/"

func containerWait(ctx context.Context, c *client, d data, operation map[string]any) error {
	_, err := c.wait(ctx, container, operation, rest{operations: containerOperations}.operation(d))
	return err
}

// What both the cluster and its pools say of nodes, below node_config and config.
func nodeFields(hcl, api string) []field {
	return []field{
		{hcl: hcl + ".machine_type", api: api + ".machineType", fixed: true},
		{hcl: hcl + ".spot", api: api + ".spot", def: false, fixed: true},
		{hcl: hcl + ".service_account", api: api + ".serviceAccount", fixed: true},
		{hcl: hcl + ".oauth_scopes", api: api + ".oauthScopes", fixed: true},
		{hcl: hcl + ".resource_labels", api: api + ".resourceLabels"},
		{hcl: hcl + ".metadata", api: api + ".metadata", fixed: true},
		{hcl: hcl + ".shielded_instance_config.enable_secure_boot", api: api + ".shieldedInstanceConfig.enableSecureBoot", def: false, fixed: true},
		{hcl: hcl + ".shielded_instance_config.enable_integrity_monitoring", api: api + ".shieldedInstanceConfig.enableIntegrityMonitoring", def: true, fixed: true},
		{hcl: hcl + ".workload_metadata_config.mode", api: api + ".workloadMetadataConfig.mode"},
	}
}

var clusterFields = append([]field{
	{hcl: "project", fixed: true},
	{hcl: "location", api: "location", unsent: true, fixed: true},
	{hcl: "name", api: "name", fixed: true},
	{hcl: "deletion_protection", def: true},
	{hcl: "resource_labels", api: "resourceLabels"},
	{hcl: "network", api: "network", def: "default", fixed: true, conv: link{}},
	{hcl: "subnetwork", api: "subnetwork", fixed: true, conv: link{}},
	{hcl: "networking_mode", api: "ipAllocationPolicy.useIpAliases", fixed: true, conv: vpcNative{}},
	{hcl: "ip_allocation_policy.cluster_secondary_range_name", api: "ipAllocationPolicy.clusterSecondaryRangeName", fixed: true},
	{hcl: "ip_allocation_policy.services_secondary_range_name", api: "ipAllocationPolicy.servicesSecondaryRangeName", fixed: true},
	{hcl: "private_cluster_config.enable_private_nodes", api: "privateClusterConfig.enablePrivateNodes", fixed: true},
	{hcl: "private_cluster_config.enable_private_endpoint", api: "privateClusterConfig.enablePrivateEndpoint"},
	{hcl: "control_plane_endpoints_config.dns_endpoint_config.allow_external_traffic", api: "controlPlaneEndpointsConfig.dnsEndpointConfig.allowExternalTraffic"},
	{hcl: "control_plane_endpoints_config.dns_endpoint_config.endpoint", api: "controlPlaneEndpointsConfig.dnsEndpointConfig.endpoint", unsent: true},
	{hcl: "release_channel.channel", api: "releaseChannel.channel"},
	{hcl: "enable_autopilot", api: "autopilot.enabled", fixed: true},
	{hcl: "remove_default_node_pool"},
	{hcl: "initial_node_count", unsent: true, fixed: true},
	{hcl: "datapath_provider", api: "networkConfig.datapathProvider", fixed: true},
	{hcl: "workload_identity_config.workload_pool", api: "workloadIdentityConfig.workloadPool"},
	{hcl: "cluster_autoscaling.auto_provisioning_defaults.service_account", api: "autoscaling.autoprovisioningNodePoolDefaults.serviceAccount"},
	{hcl: "cluster_autoscaling.auto_provisioning_defaults.oauth_scopes", api: "autoscaling.autoprovisioningNodePoolDefaults.oauthScopes"},
	{hcl: "master_auth.client_certificate_config.issue_client_certificate", api: "masterAuth.clientCertificateConfig.issueClientCertificate", fixed: true},
	{hcl: "master_auth.cluster_ca_certificate", api: "masterAuth.clusterCaCertificate", output: true},
	{hcl: "endpoint", api: "endpoint", output: true},
	{hcl: "self_link", api: "selfLink", output: true},
	{hcl: "master_version", api: "currentMasterVersion", output: true},
	{hcl: "node_version", api: "currentNodeVersion", unsent: true},
	{hcl: "services_ipv4_cidr", api: "servicesIpv4Cidr", output: true},
	{hcl: "label_fingerprint", api: "labelFingerprint", output: true},
	{hcl: "effective_labels", api: "resourceLabels", output: true},
	{hcl: "terraform_labels", api: "resourceLabels", output: true},
}, unsentNodes()...)

// The cluster's own node_config goes into its first pool.
func unsentNodes() []field {
	fields := nodeFields("node_config", "nodeConfig")
	for i := range fields {
		fields[i].unsent = true
		fields[i].fixed = false
	}
	return fields
}

// VPC_NATIVE, which the API has as the use of aliases.
type vpcNative struct{}

func (vpcNative) toAPI(value any) any { return value == "VPC_NATIVE" }

func (vpcNative) fromAPI(value, before any) any {
	if yes, _ := value.(bool); yes {
		return "VPC_NATIVE"
	}
	return before
}

var cluster = newCluster()

func newCluster() *resource {
	kind := rest{
		service:    container,
		collection: "projects/{project}/locations/{location}/clusters",
		self:       "projects/{project}/locations/{location}/clusters/{name}",
		id:         "projects/{project}/locations/{location}/clusters/{name}",
		operations: containerOperations,
		wrap:       wrapCluster,
	}.resource("Cluster", clusterFields, "master_auth", "workload_identity_config")
	create, read, remove := kind.create, kind.read, kind.delete
	kind.read = func(ctx context.Context, c *client, d data) (bool, error) {
		found, err := read(ctx, c, d)
		// Whoever imports a cluster learns that it issues no certificates.
		if auth, _ := d["master_auth"].([]any); found && d[importing] == true && len(auth) == 1 {
			inner, _ := auth[0].(map[string]any)
			inner["client_certificate_config"] = []any{map[string]any{"issue_client_certificate": false}}
		}
		return found, err
	}
	kind.create = func(ctx context.Context, c *client, d data) error {
		if err := create(ctx, c, d); err != nil || !d.yes("remove_default_node_pool") {
			return err
		}
		path := d.fill("projects/{project}/locations/{location}/clusters/{name}/nodePools/default-pool")
		operation, err := c.call(ctx, "DELETE", container, path, nil)
		if err == nil {
			err = containerWait(ctx, c, d, operation)
		}
		if err != nil && !isStatus(err, 404) {
			return errorf("error deleting default node pool: %w", err)
		}
		return nil
	}
	kind.update = func(ctx context.Context, c *client, d, before data) error {
		if same(d["resource_labels"], before["resource_labels"]) {
			if _, changed := changes(clusterFields, d, before); len(changed) > 0 {
				return errorf("the stand-in for the google provider cannot change %v of a cluster", changed)
			}
			return nil
		}
		body := map[string]any{"resourceLabels": d["resource_labels"], "labelFingerprint": d.text("label_fingerprint")}
		path := d.fill("projects/{project}/locations/{location}/clusters/{name}:setResourceLabels")
		operation, err := c.call(ctx, "POST", container, path, body)
		if err == nil {
			err = containerWait(ctx, c, d, operation)
		}
		return err
	}
	kind.delete = func(ctx context.Context, c *client, d data) error {
		if d.yes("deletion_protection") {
			return errorf("Cannot destroy cluster because deletion_protection is set to true. Set it to false to proceed with cluster deletion")
		}
		return remove(ctx, c, d)
	}
	return kind
}

func wrapCluster(d data, body map[string]any) map[string]any {
	if !d.yes("enable_autopilot") {
		nodes := []field{}
		for _, f := range nodeFields("node_config", "config") {
			nodes = append(nodes, f)
		}
		pool := merged(expand(nodes, d), map[string]any{"name": "default-pool", "initialNodeCount": d["initial_node_count"]})
		body["nodePools"] = []any{pool}
	}
	return map[string]any{"cluster": body}
}

var nodePoolFields = append([]field{
	{hcl: "project", fixed: true},
	{hcl: "location", fixed: true},
	{hcl: "cluster", fixed: true, conv: link{}},
	{hcl: "name", api: "name", fixed: true},
	{hcl: "node_count", api: "initialNodeCount"},
	{hcl: "management.auto_repair", api: "management.autoRepair", def: false},
	{hcl: "management.auto_upgrade", api: "management.autoUpgrade", def: false},
	{hcl: "version", api: "version", unsent: true},
}, nodeFields("node_config", "config")...)

var nodePool = newNodePool()

func newNodePool() *resource {
	kind := rest{
		service:    container,
		collection: "projects/{project}/locations/{location}/clusters/{cluster}/nodePools",
		self:       "projects/{project}/locations/{location}/clusters/{cluster}/nodePools/{name}",
		id:         "projects/{project}/locations/{location}/clusters/{cluster}/nodePools/{name}",
		operations: containerOperations,
		wrap:       func(_ data, body map[string]any) map[string]any { return map[string]any{"nodePool": body} },
	}.resource("NodePool", nodePoolFields)
	kind.update = func(ctx context.Context, c *client, d, before data) error {
		self := d.fill("projects/{project}/locations/{location}/clusters/{cluster}/nodePools/{name}")
		change := func(method, path string, body map[string]any) error {
			operation, err := c.call(ctx, method, container, path, body)
			if err == nil {
				err = containerWait(ctx, c, d, operation)
			}
			return err
		}
		if !same(d["node_count"], before["node_count"]) {
			if err := change("POST", self+":setSize", map[string]any{"nodeCount": d["node_count"]}); err != nil {
				return err
			}
			before = merged(before, map[string]any{"node_count": d["node_count"]})
		}
		_, changed := changes(nodePoolFields, d, before)
		labels := lookup(map[string]any(d), "node_config.resource_labels")
		was := lookup(map[string]any(before), "node_config.resource_labels")
		if len(changed) == 1 && !same(labels, was) {
			return change("PUT", self, map[string]any{"resourceLabels": map[string]any{"labels": labels}})
		}
		if len(changed) > 0 {
			return errorf("the stand-in for the google provider cannot change %v of a pool of nodes", changed)
		}
		return nil
	}
	return kind
}
