package main

import (
	"context"
	"sort"
	"strings"
	"time"
)

// Where a policy is read and written.
type policy struct {
	service string
	// What the policy is of, with {attributes}; the id begins with it.
	of string
	// The attributes that name what the policy is of.
	names []string
	get   func(ctx context.Context, c *client, of string) (map[string]any, error)
	set   func(ctx context.Context, c *client, of string, policy map[string]any) error
}

// A member of a role: the policy is read, changed, and written with the etag that was read.
func (p policy) resource() *resource {
	kind := &resource{title: "IAM Member"}
	for _, name := range append(p.names, "role", "member") {
		kind.fields = append(kind.fields, field{hcl: name, fixed: true})
	}
	kind.fields = append(kind.fields, field{hcl: "etag"})
	describe := func(d data) string {
		return "Error applying IAM policy for " + strings.ToLower(strings.ReplaceAll(p.service, "_", " ")) + " " + quoted(d.fill(p.of))
	}
	change := func(ctx context.Context, c *client, d data, add bool) error {
		of := d.fill(p.of)
		defer c.lock("policy/" + of)()
		wait := 500 * time.Millisecond
		for attempt := 1; ; attempt++ {
			current, err := p.get(ctx, c, of)
			if err != nil {
				return errorf("%s: Error retrieving IAM policy: %w", describe(d), err)
			}
			current["bindings"] = bindings(current, d.text("role"), d.text("member"), add)
			current["version"] = 3
			err = p.set(ctx, c, of, current)
			// Someone else has changed it meanwhile.
			if isStatus(err, 409, 412) && attempt < attempts {
				time.Sleep(wait)
				wait *= 2
				continue
			}
			if err != nil {
				return errorf("%s: Error setting IAM policy: %w", describe(d), err)
			}
			return nil
		}
	}
	kind.create = func(ctx context.Context, c *client, d data) error {
		if err := change(ctx, c, d, true); err != nil {
			return err
		}
		d["id"] = d.fill(p.of + "/{role}/{member}")
		return nil
	}
	kind.read = func(ctx context.Context, c *client, d data) (bool, error) {
		if d[importing] == true {
			words := strings.Fields(d.text("id"))
			for i, name := range append(p.names, "role", "member") {
				if i < len(words) {
					d[name] = words[i]
				}
			}
		}
		current, err := p.get(ctx, c, d.fill(p.of))
		if isStatus(err, 404) {
			return false, nil
		}
		if err != nil {
			return false, errorf("Error when reading or editing Resource %s: %w", quoted(d.fill(p.of)), err)
		}
		d["etag"] = current["etag"]
		d["id"] = d.fill(p.of + "/{role}/{member}")
		return hasMember(current, d.text("role"), d.text("member")), nil
	}
	kind.update = func(context.Context, *client, data, data) error { return nil }
	kind.delete = func(ctx context.Context, c *client, d data) error {
		err := change(ctx, c, d, false)
		if isStatus(err, 404) {
			return nil
		}
		return err
	}
	kind.imports = []string{"{id}"}
	return kind
}

func quoted(text string) string { return "\"" + text + "\"" }

func plain(binding map[string]any, role string) bool {
	return binding["role"] == role && binding["condition"] == nil
}

func hasMember(policy map[string]any, role, member string) bool {
	all, _ := policy["bindings"].([]any)
	for _, item := range all {
		binding, _ := item.(map[string]any)
		members, _ := binding["members"].([]any)
		for _, each := range members {
			if plain(binding, role) && strings.EqualFold(text(each), member) {
				return true
			}
		}
	}
	return false
}

// The bindings with the member in the role or without it; nothing else is changed.
func bindings(policy map[string]any, role, member string, add bool) []any {
	all, _ := policy["bindings"].([]any)
	kept := []any{}
	added := !add
	for _, item := range all {
		binding, _ := item.(map[string]any)
		if !plain(binding, role) {
			kept = append(kept, item)
			continue
		}
		var members []string
		list, _ := binding["members"].([]any)
		for _, each := range list {
			if !strings.EqualFold(text(each), member) {
				members = append(members, text(each))
			}
		}
		if !added {
			members = append(members, member)
			added = true
		}
		sort.Strings(members)
		if len(members) > 0 {
			kept = append(kept, merged(binding, map[string]any{"members": members}))
		}
	}
	if !added {
		kept = append(kept, map[string]any{"role": role, "members": []string{member}})
	}
	return kept
}

var bucketMember = policy{
	service: storage,
	of:      "b/{bucket}",
	names:   []string{"bucket"},
	get: func(ctx context.Context, c *client, of string) (map[string]any, error) {
		return c.call(ctx, "GET", storage, of+"/iam?optionsRequestedPolicyVersion=3", nil)
	},
	set: func(ctx context.Context, c *client, of string, policy map[string]any) error {
		_, err := c.call(ctx, "PUT", storage, of+"/iam", policy)
		return err
	},
}.resource()

var requestedVersion = map[string]any{"options": map[string]any{"requestedPolicyVersion": 3}}

var projectMember = policy{
	service: resourceManager,
	of:      "{project}",
	names:   []string{"project"},
	get: func(ctx context.Context, c *client, of string) (map[string]any, error) {
		return c.call(ctx, "POST", resourceManager, "projects/"+of+":getIamPolicy", requestedVersion)
	},
	set: func(ctx context.Context, c *client, of string, policy map[string]any) error {
		body := map[string]any{"policy": policy, "updateMask": "bindings,etag,auditConfigs"}
		_, err := c.call(ctx, "POST", resourceManager, "projects/"+of+":setIamPolicy", body)
		return err
	},
}.resource()

var serviceAccountMember = policy{
	service: iam,
	of:      "{service_account_id}",
	names:   []string{"service_account_id"},
	get: func(ctx context.Context, c *client, of string) (map[string]any, error) {
		return c.call(ctx, "POST", iam, of+":getIamPolicy?options.requestedPolicyVersion=3", nil)
	},
	set: func(ctx context.Context, c *client, of string, policy map[string]any) error {
		_, err := c.call(ctx, "POST", iam, of+":setIamPolicy", map[string]any{"policy": policy})
		return err
	},
}.resource()

var repositoryMember = policy{
	service: artifactRegistry,
	of:      "projects/{project}/locations/{location}/repositories/{repository}",
	names:   []string{"project", "location", "repository"},
	get: func(ctx context.Context, c *client, of string) (map[string]any, error) {
		return c.call(ctx, "GET", artifactRegistry, of+":getIamPolicy?options.requestedPolicyVersion=3", nil)
	},
	set: func(ctx context.Context, c *client, of string, policy map[string]any) error {
		_, err := c.call(ctx, "POST", artifactRegistry, of+":setIamPolicy", map[string]any{"policy": policy})
		return err
	},
}.resource()
