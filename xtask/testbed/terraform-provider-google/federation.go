package main

import (
	"context"
	"strings"
)

func isDeleted(answer map[string]any) bool { return answer["state"] == "DELETED" }

var identityPool = rest{
	service:    iamBeta,
	collection: "projects/{project}/locations/global/workloadIdentityPools?workloadIdentityPoolId={workload_identity_pool_id}",
	self:       "projects/{project}/locations/global/workloadIdentityPools/{workload_identity_pool_id}",
	id:         "projects/{project}/locations/global/workloadIdentityPools/{workload_identity_pool_id}",
	operations: byFullName,
	mask:       true,
	gone:       isDeleted,
}.resource("WorkloadIdentityPool", []field{
	{hcl: "project", fixed: true},
	{hcl: "workload_identity_pool_id", fixed: true},
	{hcl: "display_name", api: "displayName"},
	{hcl: "description", api: "description"},
	{hcl: "disabled", api: "disabled"},
	{hcl: "name", api: "name", output: true},
	{hcl: "state", api: "state", output: true},
})

var identityProvider = rest{
	service:    iamBeta,
	collection: "projects/{project}/locations/global/workloadIdentityPools/{workload_identity_pool_id}/providers?workloadIdentityPoolProviderId={workload_identity_pool_provider_id}",
	self:       "projects/{project}/locations/global/workloadIdentityPools/{workload_identity_pool_id}/providers/{workload_identity_pool_provider_id}",
	id:         "projects/{project}/locations/global/workloadIdentityPools/{workload_identity_pool_id}/providers/{workload_identity_pool_provider_id}",
	operations: byFullName,
	mask:       true,
	gone:       isDeleted,
}.resource("WorkloadIdentityPoolProvider", []field{
	{hcl: "project", fixed: true},
	{hcl: "workload_identity_pool_id", fixed: true},
	{hcl: "workload_identity_pool_provider_id", fixed: true},
	{hcl: "display_name", api: "displayName"},
	{hcl: "description", api: "description"},
	{hcl: "disabled", api: "disabled"},
	{hcl: "attribute_mapping", api: "attributeMapping"},
	{hcl: "attribute_condition", api: "attributeCondition"},
	{hcl: "oidc.issuer_uri", api: "oidc.issuerUri"},
	{hcl: "oidc.allowed_audiences", api: "oidc.allowedAudiences"},
	{hcl: "name", api: "name", output: true},
	{hcl: "state", api: "state", output: true},
})

var serviceAccount = newServiceAccount()

func newServiceAccount() *resource {
	kind := &resource{
		title: "service account",
		fields: []field{
			{hcl: "project", fixed: true},
			{hcl: "account_id", fixed: true},
			{hcl: "display_name", api: "displayName"},
			{hcl: "description", api: "description"},
			{hcl: "disabled", api: "disabled", def: false},
			{hcl: "create_ignore_already_exists"},
			{hcl: "email", api: "email", output: true},
			{hcl: "name", api: "name", output: true},
			{hcl: "unique_id", api: "uniqueId", output: true},
		},
		imports: []string{"{id}"},
	}
	kind.create = func(ctx context.Context, c *client, d data) error {
		account := map[string]any{"displayName": d.text("display_name"), "description": d.text("description")}
		body := map[string]any{"accountId": d.text("account_id"), "serviceAccount": account}
		answer, err := c.call(ctx, "POST", iamBeta, d.fill("projects/{project}/serviceAccounts"), body)
		if isStatus(err, 409) && d.yes("create_ignore_already_exists") {
			email := d.fill("{account_id}@{project}.iam.gserviceaccount.com")
			answer, err = c.call(ctx, "GET", iamBeta, d.fill("projects/{project}/serviceAccounts/")+email, nil)
		}
		if err != nil {
			return errorf("Error creating service account: %w", err)
		}
		d["id"] = answer["name"]
		return nil
	}
	kind.read = func(ctx context.Context, c *client, d data) (bool, error) {
		answer, err := c.call(ctx, "GET", iamBeta, d.text("id"), nil)
		if isStatus(err, 404) {
			return false, nil
		}
		if err != nil {
			return false, errorf("Error when reading or editing Service Account %q: %w", d.text("id"), err)
		}
		kind.take(d, answer)
		d["id"] = answer["name"]
		d["member"] = "serviceAccount:" + text(answer["email"])
		account, _, _ := strings.Cut(text(answer["email"]), "@")
		d["account_id"] = account
		return true, nil
	}
	kind.update = func(ctx context.Context, c *client, d, before data) error {
		body, changed := changes(kind.fields, d, before)
		if len(changed) == 0 {
			return nil
		}
		_, err := c.call(ctx, "PATCH", iamBeta, d.text("id"), map[string]any{"serviceAccount": body, "updateMask": strings.Join(changed, ",")})
		return err
	}
	kind.delete = func(ctx context.Context, c *client, d data) error {
		_, err := c.call(ctx, "DELETE", iamBeta, d.text("id"), nil)
		if isStatus(err, 404) {
			return nil
		}
		return err
	}
	return kind
}
