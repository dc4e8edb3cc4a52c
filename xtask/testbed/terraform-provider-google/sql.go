package main

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"
)

const sqlOperations = "projects/{project}/operations/"

// One change of an instance at a time, as the API wants it; another's is waited for.
func oneAtATime(ctx context.Context, c *client, d data, change func() error) error {
	defer c.lock(d.fill("instance/{project}/{instance}"))()
	wait := time.Second
	for {
		err := change()
		var failed *apiError
		if !errors.As(err, &failed) || failed.reason != "operationInProgress" || wait > time.Minute {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
			wait *= 2
		}
	}
}

// The resource, which changes its instance.
func serialised(kind *resource) *resource {
	create, update, remove := kind.create, kind.update, kind.delete
	kind.create = func(ctx context.Context, c *client, d data) error {
		return oneAtATime(ctx, c, d, func() error { return create(ctx, c, d) })
	}
	kind.update = func(ctx context.Context, c *client, d, before data) error {
		return oneAtATime(ctx, c, d, func() error { return update(ctx, c, d, before) })
	}
	kind.delete = func(ctx context.Context, c *client, d data) error {
		return oneAtATime(ctx, c, d, func() error { return remove(ctx, c, d) })
	}
	return kind
}

func sqlWait(ctx context.Context, c *client, d data, operation map[string]any) error {
	_, err := c.wait(ctx, sql, operation, rest{operations: sqlOperations}.operation(d))
	return err
}

var instanceFields = []field{
	{hcl: "project", fixed: true},
	{hcl: "name", api: "name", fixed: true},
	{hcl: "region", api: "region", fixed: true},
	{hcl: "database_version", api: "databaseVersion"},
	{hcl: "instance_type", api: "instanceType", unsent: true},
	{hcl: "deletion_protection", def: true},
	{hcl: "settings.tier", api: "settings.tier"},
	{hcl: "settings.edition", api: "settings.edition"},
	{hcl: "settings.availability_type", api: "settings.availabilityType", def: "ZONAL"},
	{hcl: "settings.activation_policy", api: "settings.activationPolicy", def: "ALWAYS"},
	{hcl: "settings.connector_enforcement", api: "settings.connectorEnforcement"},
	{hcl: "settings.deletion_protection_enabled", api: "settings.deletionProtectionEnabled"},
	{hcl: "settings.disk_size", api: "settings.dataDiskSizeGb", conv: numberAsText{}},
	{hcl: "settings.disk_type", api: "settings.dataDiskType", def: "PD_SSD"},
	{hcl: "settings.disk_autoresize", api: "settings.storageAutoResize", def: true},
	{hcl: "settings.disk_autoresize_limit", api: "settings.storageAutoResizeLimit", def: int64(0), conv: numberAsText{}},
	{hcl: "settings.pricing_plan", api: "settings.pricingPlan", def: "PER_USE"},
	{hcl: "settings.user_labels", api: "settings.userLabels"},
	{hcl: "settings.version", api: "settings.settingsVersion", output: true, conv: numberAsText{}},
	{hcl: "settings.database_flags", api: "settings.databaseFlags", each: []field{
		{hcl: "name", api: "name"},
		{hcl: "value", api: "value"},
	}},
	{hcl: "settings.ip_configuration.ipv4_enabled", api: "settings.ipConfiguration.ipv4Enabled", def: true},
	{hcl: "settings.ip_configuration.private_network", api: "settings.ipConfiguration.privateNetwork", conv: link{}},
	{hcl: "settings.ip_configuration.ssl_mode", api: "settings.ipConfiguration.sslMode"},
	{hcl: "settings.backup_configuration.enabled", api: "settings.backupConfiguration.enabled"},
	{hcl: "settings.backup_configuration.point_in_time_recovery_enabled", api: "settings.backupConfiguration.pointInTimeRecoveryEnabled"},
	{hcl: "settings.backup_configuration.transaction_log_retention_days", api: "settings.backupConfiguration.transactionLogRetentionDays"},
	{hcl: "settings.backup_configuration.backup_retention_settings.retained_backups", api: "settings.backupConfiguration.backupRetentionSettings.retainedBackups"},
	{hcl: "settings.backup_configuration.backup_retention_settings.retention_unit", api: "settings.backupConfiguration.backupRetentionSettings.retentionUnit", def: "COUNT"},
	{hcl: "settings.final_backup_config.enabled", api: "settings.finalBackupConfig.enabled"},
	{hcl: "settings.final_backup_config.retention_days", api: "settings.finalBackupConfig.retentionDays"},
	{hcl: "connection_name", api: "connectionName", output: true},
	{hcl: "self_link", api: "selfLink", output: true},
	{hcl: "service_account_email_address", api: "serviceAccountEmailAddress", output: true},
}

var instance = newInstance()

func newInstance() *resource {
	kind := rest{
		service:    sql,
		collection: "projects/{project}/instances",
		self:       "projects/{project}/instances/{name}",
		id:         "projects/{project}/instances/{name}",
		operations: sqlOperations,
	}.resource("Database Instance", instanceFields)
	kind.imports = []string{"projects/{project}/instances/{name}", "{project}/{name}", "{name}"}
	create, read := kind.create, kind.read
	kind.create = func(ctx context.Context, c *client, d data) error {
		err := create(ctx, c, d)
		if err != nil {
			return errorf("%s", strings.Replace(err.Error(), "Error creating Database Instance:", "Error, failed to create instance "+d.text("name")+":", 1))
		}
		return nil
	}
	kind.read = func(ctx context.Context, c *client, d data) (bool, error) {
		found, err := read(ctx, c, d)
		if err != nil || !found {
			return found, err
		}
		answer, err := c.call(ctx, "GET", sql, d.fill("projects/{project}/instances/{name}"), nil)
		if err != nil {
			return false, err
		}
		addresses(d, answer)
		return true, nil
	}
	kind.update = func(ctx context.Context, c *client, d, before data) error {
		if _, changed := changes(instanceFields, d, before); len(changed) == 0 {
			return nil
		}
		operation, err := c.call(ctx, "PUT", sql, d.fill("projects/{project}/instances/{name}"), withVersion(expand(instanceFields, d), before))
		if err == nil {
			err = sqlWait(ctx, c, d, operation)
		}
		if err != nil {
			return errorf("Error, failed to update instance settings for : %w", err)
		}
		return nil
	}
	kind.delete = func(ctx context.Context, c *client, d data) error {
		if d.yes("deletion_protection") {
			return errorf("Error, failed to delete instance because deletion_protection is set to true. Set it to false to proceed with instance deletion")
		}
		path := d.fill("projects/{project}/instances/{name}")
		if d.yes("settings.final_backup_config.enabled") {
			path += "?enableFinalBackup=true&finalBackupTtlDays=" + d.text("settings.final_backup_config.retention_days")
		}
		operation, err := c.call(ctx, "DELETE", sql, path, nil)
		if err == nil {
			err = sqlWait(ctx, c, d, operation)
		}
		if err != nil && !isStatus(err, 404) {
			return errorf("Error, failed to delete instance %s: %w", d.text("name"), err)
		}
		return nil
	}
	return kind
}

// An update names the version of the settings that it changes.
func withVersion(body map[string]any, before data) map[string]any {
	if version := before.text("settings.version"); version != "" {
		put(body, "settings.settingsVersion", version)
	}
	return body
}

func addresses(d data, answer map[string]any) {
	all := []any{}
	list, _ := answer["ipAddresses"].([]any)
	for i, item := range list {
		address, _ := item.(map[string]any)
		all = append(all, map[string]any{
			"ip_address": address["ipAddress"], "type": address["type"], "time_to_retire": address["timeToRetire"],
		})
		if i == 0 {
			d["first_ip_address"] = address["ipAddress"]
		}
		switch address["type"] {
		case "PRIMARY":
			d["public_ip_address"] = address["ipAddress"]
		case "PRIVATE":
			d["private_ip_address"] = address["ipAddress"]
		}
	}
	d["ip_address"] = all
}

var database = newDatabase()

func newDatabase() *resource {
	kind := rest{
		service:    sql,
		collection: "projects/{project}/instances/{instance}/databases",
		self:       "projects/{project}/instances/{instance}/databases/{name}",
		id:         "projects/{project}/instances/{instance}/databases/{name}",
		operations: sqlOperations,
	}.resource("Database", []field{
		{hcl: "project", fixed: true},
		{hcl: "instance", api: "instance", fixed: true},
		{hcl: "name", api: "name", fixed: true},
		{hcl: "charset", api: "charset"},
		{hcl: "collation", api: "collation"},
		{hcl: "deletion_policy", def: "DELETE"},
		{hcl: "self_link", api: "selfLink", output: true},
	})
	remove := kind.delete
	kind.delete = func(ctx context.Context, c *client, d data) error {
		if d.text("deletion_policy") == "ABANDON" {
			return nil
		}
		return remove(ctx, c, d)
	}
	return serialised(kind)
}

var user = serialised(&resource{
	title: "SQL User",
	fields: []field{
		{hcl: "project", fixed: true},
		{hcl: "instance", fixed: true},
		{hcl: "name", fixed: true},
		{hcl: "host", fixed: true},
		{hcl: "type", fixed: true},
		{hcl: "password"},
		{hcl: "password_wo"},
		{hcl: "password_wo_version"},
		{hcl: "deletion_policy"},
		{hcl: "database_roles"},
	},
	create: func(ctx context.Context, c *client, d data) error {
		body := map[string]any{"name": d.text("name"), "instance": d.text("instance")}
		if kind := d.text("type"); kind != "" {
			body["type"] = kind
		}
		if password := password(d); password != "" {
			body["password"] = password
		}
		if roles, _ := d["database_roles"].([]any); len(roles) > 0 {
			body["databaseRoles"] = roles
		}
		operation, err := c.call(ctx, "POST", sql, d.fill("projects/{project}/instances/{instance}/users"), body)
		if err == nil {
			err = sqlWait(ctx, c, d, operation)
		}
		if err != nil {
			return errorf("Error, failed to insert user %s into instance %s: %w", d.text("name"), d.text("instance"), err)
		}
		d["id"] = d.fill("{name}//{instance}")
		return nil
	},
	read: func(ctx context.Context, c *client, d data) (bool, error) {
		found, err := c.call(ctx, "GET", sql, d.fill("projects/{project}/instances/{instance}"), nil)
		if isStatus(err, 404) {
			return false, nil
		}
		if err != nil {
			return false, errorf("Error when reading or editing SQL User %q in instance %q: %w", d.text("name"), d.text("instance"), err)
		}
		// Users are readable only while the instance runs.
		if lookup(found, "settings.activationPolicy") != "ALWAYS" {
			return true, nil
		}
		answer, err := c.call(ctx, "GET", sql, d.fill("projects/{project}/instances/{instance}/users"), nil)
		if err != nil {
			return false, errorf("Error when reading or editing SQL User %q in instance %q: %w", d.text("name"), d.text("instance"), err)
		}
		all, _ := answer["items"].([]any)
		for _, item := range all {
			each, _ := item.(map[string]any)
			if text(each["name"]) == d.text("name") {
				d["host"] = text(each["host"])
				d["id"] = d.fill("{name}//{instance}")
				if d[importing] == true {
					d["type"] = each["type"]
				}
				d["database_roles"] = each["databaseRoles"]
				return true, nil
			}
		}
		return false, nil
	},
	update: func(ctx context.Context, c *client, d, before data) error {
		body := map[string]any{"name": d.text("name")}
		path := d.fill("projects/{project}/instances/{instance}/users?name=") + url.QueryEscape(d.text("name"))
		if !same(d["database_roles"], before["database_roles"]) {
			roles, _ := d["database_roles"].([]any)
			for _, role := range roles {
				path += "&databaseRoles=" + url.QueryEscape(text(role))
			}
		} else if same(d["password_wo_version"], before["password_wo_version"]) && same(d["password"], before["password"]) {
			return nil
		}
		if secret := password(d); secret != "" {
			body["password"] = secret
		}
		operation, err := c.call(ctx, "PUT", sql, path, body)
		if err == nil {
			err = sqlWait(ctx, c, d, operation)
		}
		if err != nil {
			return errorf("Error, failed to update user %s in instance %s: %w", d.text("name"), d.text("instance"), err)
		}
		return nil
	},
	delete: func(ctx context.Context, c *client, d data) error {
		if d.text("deletion_policy") == "ABANDON" {
			return nil
		}
		path := d.fill("projects/{project}/instances/{instance}/users?name=") + url.QueryEscape(d.text("name"))
		operation, err := c.call(ctx, "DELETE", sql, path, nil)
		if err == nil {
			err = sqlWait(ctx, c, d, operation)
		}
		if err != nil && !isStatus(err, 404) {
			return errorf("Error, failed to delete user %s in instance %s: %w", d.text("name"), d.text("instance"), err)
		}
		return nil
	},
	imports: []string{"{project}/{instance}/{name}"},
})

func password(d data) string {
	if secret := d.text("password_wo"); secret != "" {
		return secret
	}
	return d.text("password")
}
