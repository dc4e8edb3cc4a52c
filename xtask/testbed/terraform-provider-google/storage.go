package main

import (
	"context"
	"net/url"
)

var repository = rest{
	service:    artifactRegistry,
	collection: "projects/{project}/locations/{location}/repositories?repository_id={repository_id}",
	self:       "projects/{project}/locations/{location}/repositories/{repository_id}",
	id:         "projects/{project}/locations/{location}/repositories/{repository_id}",
	operations: byFullName,
	mask:       true,
	prompt:     true,
}.resource("Repository", []field{
	{hcl: "project", fixed: true},
	{hcl: "location", fixed: true},
	{hcl: "repository_id", fixed: true},
	{hcl: "format", api: "format", fixed: true, conv: anyCase{}},
	{hcl: "mode", api: "mode", def: "STANDARD_REPOSITORY", fixed: true},
	{hcl: "description", api: "description"},
	{hcl: "labels", api: "labels"},
	{hcl: "cleanup_policy_dry_run"},
	{hcl: "effective_labels", api: "labels", output: true},
	{hcl: "terraform_labels", api: "labels", output: true},
	{hcl: "create_time", api: "createTime", output: true},
	{hcl: "update_time", api: "updateTime", output: true},
	{hcl: "registry_uri", api: "registryUri", output: true},
	{hcl: "name", api: "name", output: true, conv: shortName{}},
})

// The last part of a full name.
type shortName struct{}

func (shortName) toAPI(value any) any      { return value }
func (shortName) fromAPI(value, _ any) any { return last(text(value)) }

var bucketFields = []field{
	{hcl: "project", fixed: true},
	{hcl: "name", api: "name", fixed: true},
	{hcl: "location", api: "location", fixed: true, conv: anyCase{}},
	{hcl: "storage_class", api: "storageClass", def: "STANDARD"},
	{hcl: "force_destroy", def: false},
	{hcl: "labels", api: "labels"},
	{hcl: "uniform_bucket_level_access", api: "iamConfiguration.uniformBucketLevelAccess.enabled"},
	{hcl: "public_access_prevention", api: "iamConfiguration.publicAccessPrevention"},
	{hcl: "versioning.enabled", api: "versioning.enabled"},
	{hcl: "soft_delete_policy.retention_duration_seconds", api: "softDeletePolicy.retentionDurationSeconds", conv: numberAsText{}},
	{hcl: "soft_delete_policy.effective_time", api: "softDeletePolicy.effectiveTime", output: true},
	{hcl: "lifecycle_rule", api: "lifecycle.rule", each: []field{
		{hcl: "action.type", api: "action.type"},
		{hcl: "action.storage_class", api: "action.storageClass"},
		{hcl: "condition.age", api: "condition.age"},
		{hcl: "condition.days_since_noncurrent_time", api: "condition.daysSinceNoncurrentTime"},
		{hcl: "condition.num_newer_versions", api: "condition.numNewerVersions"},
		{hcl: "condition.with_state", api: "condition.isLive", conv: liveness{}},
	}},
	{hcl: "effective_labels", api: "labels", output: true},
	{hcl: "terraform_labels", api: "labels", output: true},
	{hcl: "project_number", api: "projectNumber", output: true},
	{hcl: "self_link", api: "selfLink", output: true},
	{hcl: "time_created", api: "timeCreated", output: true},
	{hcl: "updated", api: "updated", output: true},
}

var bucket = newBucket()

func newBucket() *resource {
	kind := rest{
		service:    storage,
		collection: "b?project={project}",
		self:       "b/{name}",
		id:         "{name}",
	}.resource("bucket", bucketFields, "soft_delete_policy")
	kind.imports = []string{"{project}/{name}", "{name}"}
	read, remove := kind.read, kind.delete
	kind.read = func(ctx context.Context, c *client, d data) (bool, error) {
		found, err := read(ctx, c, d)
		d["url"] = "gs://" + d.text("name")
		return found, err
	}
	kind.delete = func(ctx context.Context, c *client, d data) error {
		objects, err := c.call(ctx, "GET", storage, d.fill("b/{name}/o?versions=true"), nil)
		if isStatus(err, 404) {
			return nil
		}
		if err != nil {
			return errorf("Error listing contents of bucket: %w", err)
		}
		all, _ := objects["items"].([]any)
		if len(all) > 0 && !d.yes("force_destroy") {
			return errorf("Error trying to delete bucket %s containing objects without `force_destroy` set to true", d.text("name"))
		}
		for _, item := range all {
			object, _ := item.(map[string]any)
			path := d.fill("b/{name}/o/") + url.PathEscape(text(object["name"])) + "?generation=" + text(object["generation"])
			if _, err := c.call(ctx, "DELETE", storage, path, nil); err != nil && !isStatus(err, 404) {
				return errorf("Error deleting objects of bucket %s: %w", d.text("name"), err)
			}
		}
		return remove(ctx, c, d)
	}
	return kind
}
