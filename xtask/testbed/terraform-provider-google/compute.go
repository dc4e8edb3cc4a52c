package main

import (
	"context"
)

const (
	globalOperations   = "projects/{project}/global/operations/"
	regionalOperations = "projects/{project}/regions/{region}/operations/"
)

var network = rest{
	service:    compute,
	collection: "projects/{project}/global/networks",
	self:       "projects/{project}/global/networks/{name}",
	id:         "projects/{project}/global/networks/{name}",
	operations: globalOperations,
}.resource("Network", []field{
	{hcl: "project", fixed: true},
	{hcl: "name", api: "name", fixed: true},
	{hcl: "description", api: "description", fixed: true},
	{hcl: "auto_create_subnetworks", api: "autoCreateSubnetworks", def: true, fixed: true},
	{hcl: "routing_mode", api: "routingConfig.routingMode"},
	{hcl: "mtu", api: "mtu", fixed: true},
	{hcl: "delete_default_routes_on_create", def: false, fixed: true},
	{hcl: "gateway_ipv4", api: "gatewayIPv4", output: true},
	{hcl: "numeric_id", api: "id", output: true},
	{hcl: "network_id", api: "id", output: true},
	{hcl: "self_link", api: "selfLink", output: true},
})

var subnetwork = rest{
	service:    compute,
	collection: "projects/{project}/regions/{region}/subnetworks",
	self:       "projects/{project}/regions/{region}/subnetworks/{name}",
	id:         "projects/{project}/regions/{region}/subnetworks/{name}",
	operations: regionalOperations,
}.resource("Subnetwork", []field{
	{hcl: "project", fixed: true},
	{hcl: "region", fixed: true},
	{hcl: "name", api: "name", fixed: true},
	{hcl: "description", api: "description", fixed: true},
	{hcl: "network", api: "network", fixed: true, conv: link{}},
	{hcl: "ip_cidr_range", api: "ipCidrRange", fixed: true},
	{hcl: "private_ip_google_access", api: "privateIpGoogleAccess"},
	{hcl: "secondary_ip_range", api: "secondaryIpRanges", each: []field{
		{hcl: "range_name", api: "rangeName"},
		{hcl: "ip_cidr_range", api: "ipCidrRange"},
	}},
	{hcl: "purpose", api: "purpose", fixed: true},
	{hcl: "gateway_address", api: "gatewayAddress", output: true},
	{hcl: "creation_timestamp", api: "creationTimestamp", output: true},
	{hcl: "fingerprint", api: "fingerprint", output: true},
	{hcl: "self_link", api: "selfLink", output: true},
})

var router = rest{
	service:    compute,
	collection: "projects/{project}/regions/{region}/routers",
	self:       "projects/{project}/regions/{region}/routers/{name}",
	id:         "projects/{project}/regions/{region}/routers/{name}",
	operations: regionalOperations,
}.resource("Router", []field{
	{hcl: "project", fixed: true},
	{hcl: "region", fixed: true},
	{hcl: "name", api: "name", fixed: true},
	{hcl: "description", api: "description"},
	{hcl: "network", api: "network", fixed: true, conv: link{}},
	{hcl: "creation_timestamp", api: "creationTimestamp", output: true},
	{hcl: "self_link", api: "selfLink", output: true},
})

var globalAddress = rest{
	service:    compute,
	collection: "projects/{project}/global/addresses",
	self:       "projects/{project}/global/addresses/{name}",
	id:         "projects/{project}/global/addresses/{name}",
	operations: globalOperations,
}.resource("GlobalAddress", []field{
	{hcl: "project", fixed: true},
	{hcl: "name", api: "name", fixed: true},
	{hcl: "description", api: "description", fixed: true},
	{hcl: "network", api: "network", fixed: true, conv: link{}},
	{hcl: "purpose", api: "purpose", fixed: true},
	{hcl: "address_type", api: "addressType", def: "EXTERNAL", fixed: true},
	{hcl: "prefix_length", api: "prefixLength", fixed: true},
	{hcl: "address", api: "address", fixed: true},
	{hcl: "creation_timestamp", api: "creationTimestamp", output: true},
	{hcl: "label_fingerprint", api: "labelFingerprint", output: true},
	{hcl: "self_link", api: "selfLink", output: true},
})

// A NAT is an entry of its router.
var routerNAT = newRouterNAT()

func newRouterNAT() *resource {
	kind := &resource{
		title: "RouterNat",
		fields: []field{
			{hcl: "project", fixed: true},
			{hcl: "region", fixed: true},
			{hcl: "router", fixed: true},
			{hcl: "name", api: "name", fixed: true},
			{hcl: "nat_ip_allocate_option", api: "natIpAllocateOption"},
			{hcl: "source_subnetwork_ip_ranges_to_nat", api: "sourceSubnetworkIpRangesToNat"},
			{hcl: "enable_endpoint_independent_mapping", api: "enableEndpointIndependentMapping"},
			{hcl: "min_ports_per_vm", api: "minPortsPerVm"},
			{hcl: "auto_network_tier", api: "autoNetworkTier"},
			{hcl: "udp_idle_timeout_sec", api: "udpIdleTimeoutSec", def: int64(30)},
			{hcl: "icmp_idle_timeout_sec", api: "icmpIdleTimeoutSec", def: int64(30)},
			{hcl: "tcp_established_idle_timeout_sec", api: "tcpEstablishedIdleTimeoutSec", def: int64(1200)},
			{hcl: "tcp_transitory_idle_timeout_sec", api: "tcpTransitoryIdleTimeoutSec", def: int64(30)},
			{hcl: "tcp_time_wait_timeout_sec", api: "tcpTimeWaitTimeoutSec", def: int64(120)},
			{hcl: "type", api: "type", def: "PUBLIC", fixed: true},
		},
		imports: []string{"{project}/{region}/{router}/{name}"},
	}
	kind.create = func(ctx context.Context, c *client, d data) error {
		err := changeNATs(ctx, c, d, func(nats []any) []any {
			return append(nats, expand(kind.fields, d))
		})
		if err == nil {
			d["id"] = d.fill("{project}/{region}/{router}/{name}")
		}
		return err
	}
	kind.update = func(ctx context.Context, c *client, d, _ data) error {
		return changeNATs(ctx, c, d, func(nats []any) []any {
			return append(withoutNAT(nats, d), expand(kind.fields, d))
		})
	}
	kind.delete = func(ctx context.Context, c *client, d data) error {
		err := changeNATs(ctx, c, d, func(nats []any) []any { return withoutNAT(nats, d) })
		if isStatus(err, 404) {
			return nil
		}
		return err
	}
	kind.read = func(ctx context.Context, c *client, d data) (bool, error) {
		found, err := c.call(ctx, "GET", compute, d.fill("projects/{project}/regions/{region}/routers/{router}"), nil)
		if isStatus(err, 404) {
			return false, nil
		}
		if err != nil {
			return false, errorf("Error when reading or editing RouterNat %q: %w", d.text("id"), err)
		}
		nats, _ := found["nats"].([]any)
		for _, item := range nats {
			nat, _ := item.(map[string]any)
			if nat["name"] == d.text("name") {
				d["id"] = d.fill("{project}/{region}/{router}/{name}")
				kind.take(d, nat)
				return true, nil
			}
		}
		return false, nil
	}
	return kind
}

func withoutNAT(nats []any, d data) []any {
	kept := []any{}
	for _, item := range nats {
		if nat, _ := item.(map[string]any); nat["name"] != d.text("name") {
			kept = append(kept, item)
		}
	}
	return kept
}

func changeNATs(ctx context.Context, c *client, d data, change func([]any) []any) error {
	path := d.fill("projects/{project}/regions/{region}/routers/{router}")
	defer c.lock("router/" + path)()
	found, err := c.call(ctx, "GET", compute, path, nil)
	if err == nil {
		nats, _ := found["nats"].([]any)
		var operation map[string]any
		operation, err = c.call(ctx, "PATCH", compute, path, map[string]any{"nats": change(nats)})
		if err == nil {
			_, err = c.wait(ctx, compute, operation, rest{operations: regionalOperations}.operation(d))
		}
	}
	if err != nil {
		return errorf("Error creating RouterNat: %w", err)
	}
	return nil
}
