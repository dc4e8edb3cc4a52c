package main

import (
	"context"
	"net/url"
	"strings"
)

// The peering of a network with Google's services.
var connection = newConnection()

func newConnection() *resource {
	kind := &resource{
		title: "Service Networking Connection",
		fields: []field{
			{hcl: "network", api: "network", fixed: true, conv: link{}},
			{hcl: "service", fixed: true},
			{hcl: "reserved_peering_ranges", api: "reservedPeeringRanges"},
			{hcl: "deletion_policy"},
			{hcl: "update_on_creation_fail"},
			{hcl: "peering", api: "peering", output: true},
		},
		imports: []string{"{id}"},
	}
	kind.create = func(ctx context.Context, c *client, d data) error {
		consumer, err := consumerNetwork(ctx, c, d)
		if err != nil {
			return err
		}
		body := map[string]any{"network": consumer, "reservedPeeringRanges": d["reserved_peering_ranges"]}
		operation, err := c.call(ctx, "POST", serviceNetworking, d.fill("services/{service}/connections"), body)
		if err == nil {
			_, err = c.wait(ctx, serviceNetworking, operation, func(name string) string { return name })
		}
		if err != nil {
			return errorf("Error, failed to create Service Networking Connection, err: %w", err)
		}
		d["id"] = connectionID(d)
		return nil
	}
	kind.read = func(ctx context.Context, c *client, d data) (bool, error) {
		if d[importing] == true {
			name, service, _ := strings.Cut(strings.ReplaceAll(d.text("id"), "%2F", "/"), ":")
			d["network"], d["service"] = name, service
		}
		consumer, err := consumerNetwork(ctx, c, d)
		if err != nil {
			return false, err
		}
		path := d.fill("services/{service}/connections?network=") + url.QueryEscape(consumer)
		answer, err := c.call(ctx, "GET", serviceNetworking, path, nil)
		if err != nil {
			return false, errorf("Error when reading or editing Service Networking Connection %q: %w", d.text("id"), err)
		}
		all, _ := answer["connections"].([]any)
		for _, item := range all {
			found, _ := item.(map[string]any)
			if last(text(found["network"])) == last(d.text("network")) {
				d["id"] = connectionID(d)
				kind.take(d, found)
				return true, nil
			}
		}
		return false, nil
	}
	kind.update = func(ctx context.Context, c *client, d, before data) error {
		if same(d["reserved_peering_ranges"], before["reserved_peering_ranges"]) {
			return nil
		}
		consumer, err := consumerNetwork(ctx, c, d)
		if err != nil {
			return err
		}
		body := map[string]any{"network": consumer, "reservedPeeringRanges": d["reserved_peering_ranges"]}
		path := d.fill("services/{service}/connections/-?updateMask=reservedPeeringRanges&force=true")
		operation, err := c.call(ctx, "PATCH", serviceNetworking, path, body)
		if err == nil {
			_, err = c.wait(ctx, serviceNetworking, operation, func(name string) string { return name })
		}
		return err
	}
	kind.delete = func(ctx context.Context, c *client, d data) error {
		if d.text("deletion_policy") == "ABANDON" {
			return nil
		}
		consumer, err := consumerNetwork(ctx, c, d)
		if err != nil {
			return err
		}
		path := "services/" + d.text("service") + "/connections/servicenetworking-googleapis-com"
		operation, err := c.call(ctx, "POST", serviceNetworking, path, map[string]any{"consumerNetwork": consumer})
		if err == nil {
			_, err = c.wait(ctx, serviceNetworking, operation, func(name string) string { return name })
		}
		if err != nil {
			return errorf("Unable to remove Service Networking Connection, err: %w", err)
		}
		return nil
	}
	return kind
}

func connectionID(d data) string {
	return strings.ReplaceAll(d.text("network"), "/", "%2F") + ":" + d.text("service")
}

// The API wants the network by the number of its project.
func consumerNetwork(ctx context.Context, c *client, d data) (string, error) {
	steps := strings.Split(d.text("network"), "/")
	project := c.project
	for i, step := range steps {
		if step == "projects" && i+1 < len(steps) {
			project = steps[i+1]
		}
	}
	found, err := c.call(ctx, "GET", resourceManager, "projects/"+project, nil)
	if err != nil {
		return "", errorf("Failed to retrieve project, pid: %s, err: %w", project, err)
	}
	return "projects/" + text(found["projectNumber"]) + "/global/networks/" + last(d.text("network")), nil
}
