package main

import (
	"context"
	"sync"
	"time"
)

// APIs to enable, collected for a moment and asked for together, as the provider does.
type batch struct {
	mutex   sync.Mutex
	pending map[string]*enabling
}

type enabling struct {
	services []any
	done     chan struct{}
	err      error
}

// How long is collected.
const collecting = 200 * time.Millisecond

func (b *batch) enable(ctx context.Context, c *client, project, service string) error {
	b.mutex.Lock()
	if b.pending == nil {
		b.pending = map[string]*enabling{}
	}
	group, ok := b.pending[project]
	if !ok {
		group = &enabling{done: make(chan struct{})}
		b.pending[project] = group
		go func() {
			time.Sleep(collecting)
			b.mutex.Lock()
			delete(b.pending, project)
			b.mutex.Unlock()
			group.err = enableAll(ctx, c, project, group.services)
			close(group.done)
		}()
	}
	group.services = append(group.services, service)
	b.mutex.Unlock()
	<-group.done
	return group.err
}

func enableAll(ctx context.Context, c *client, project string, services []any) error {
	var operation map[string]any
	var err error
	if len(services) == 1 {
		operation, err = c.call(ctx, "POST", serviceUsage, "projects/"+project+"/services/"+text(services[0])+":enable", map[string]any{})
	} else {
		body := map[string]any{"serviceIds": services}
		operation, err = c.call(ctx, "POST", serviceUsage, "projects/"+project+"/services:batchEnable", body)
	}
	if err == nil {
		_, err = c.wait(ctx, serviceUsage, operation, func(name string) string { return name })
	}
	return err
}

func isEnabled(ctx context.Context, c *client, project, service string) (bool, error) {
	token := ""
	for {
		path := "projects/" + project + "/services?filter=state:ENABLED&fields=services/name,nextPageToken" + token
		answer, err := c.call(ctx, "GET", serviceUsage, path, nil)
		if err != nil {
			return false, err
		}
		all, _ := answer["services"].([]any)
		for _, item := range all {
			found, _ := item.(map[string]any)
			if last(text(found["name"])) == service {
				return true, nil
			}
		}
		next := text(answer["nextPageToken"])
		if next == "" {
			return false, nil
		}
		token = "&pageToken=" + next
	}
}

var projectService = &resource{
	title: "Project Service",
	fields: []field{
		{hcl: "project", fixed: true},
		{hcl: "service", fixed: true},
		{hcl: "disable_on_destroy", def: false},
		{hcl: "disable_dependent_services"},
		{hcl: "check_if_service_has_usage_on_destroy"},
	},
	create: func(ctx context.Context, c *client, d data) error {
		project, service := d.text("project"), d.text("service")
		enabled, err := isEnabled(ctx, c, project, service)
		if err == nil && !enabled {
			err = c.services.enable(ctx, c, project, service)
		}
		if err != nil {
			return errorf("Error when reading or editing Project Service %s/%s: Request `Enable Project Service %q for project %q` returned error: %w", project, service, service, project, err)
		}
		d["id"] = project + "/" + service
		return nil
	},
	read: func(ctx context.Context, c *client, d data) (bool, error) {
		project, service := d.text("project"), d.text("service")
		if _, err := c.call(ctx, "GET", resourceManager, "projects/"+project, nil); err != nil {
			if isStatus(err, 404) {
				return false, nil
			}
			return false, errorf("Error when reading or editing Project Service %q: %w", d.text("id"), err)
		}
		enabled, err := isEnabled(ctx, c, project, service)
		if err != nil {
			return false, errorf("Error when reading or editing Project Service %q: %w", d.text("id"), err)
		}
		d["id"] = project + "/" + service
		return enabled, nil
	},
	update: func(context.Context, *client, data, data) error { return nil },
	delete: func(ctx context.Context, c *client, d data) error {
		if !d.yes("disable_on_destroy") {
			return nil
		}
		path := "projects/" + d.text("project") + "/services/" + d.text("service") + ":disable"
		body := map[string]any{"disableDependentServices": d.yes("disable_dependent_services")}
		operation, err := c.call(ctx, "POST", serviceUsage, path, body)
		if err == nil {
			_, err = c.wait(ctx, serviceUsage, operation, func(name string) string { return name })
		}
		return err
	},
	imports: []string{"{project}/{service}"},
}
