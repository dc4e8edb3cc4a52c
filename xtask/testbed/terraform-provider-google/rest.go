package main

import (
	"context"
	"strings"
)

// The calls of a resource whose API is like most: insert, wait, get, patch, wait, delete, wait.
type rest struct {
	service string
	// Where it is made and where it is; both with {attributes}.
	collection, self string
	// Its id in the state.
	id string
	// Where an operation is asked for, with {attributes} before its name; empty: answers are final.
	operations string
	// What the body is wrapped in, when it is made.
	wrap func(d data, body map[string]any) map[string]any
	// Whether an update names the fields that it sends.
	mask bool
	// Whether an update is done when it is answered.
	prompt bool
	// Whether the answer means that it is gone.
	gone func(answer map[string]any) bool
}

// A resource of that kind.
func (r rest) resource(title string, fields []field, filled ...string) *resource {
	kind := &resource{title: title, fields: fields, filled: filled, imports: []string{r.id}}
	kind.create = func(ctx context.Context, c *client, d data) error {
		body := expand(fields, d)
		if r.wrap != nil {
			body = r.wrap(d, body)
		}
		operation, err := c.call(ctx, "POST", r.service, d.fill(r.collection), body)
		if err == nil && r.operations != "" {
			d["id"] = d.fill(r.id)
			if _, err = c.wait(ctx, r.service, operation, r.operation(d)); err != nil {
				d["id"] = nil
			}
		}
		if err != nil {
			return errorf("Error creating %s: %w", title, err)
		}
		d["id"] = d.fill(r.id)
		return nil
	}
	kind.read = func(ctx context.Context, c *client, d data) (bool, error) {
		answer, err := c.call(ctx, "GET", r.service, d.fill(r.self), nil)
		if isStatus(err, 404) || err == nil && r.gone != nil && r.gone(answer) {
			return false, nil
		}
		if err != nil {
			return false, errorf("Error when reading or editing %s %q: %w", title, d.text("id"), err)
		}
		d["id"] = d.fill(r.id)
		kind.take(d, answer)
		return true, nil
	}
	kind.update = func(ctx context.Context, c *client, d, before data) error {
		body, changed := changes(fields, d, before)
		if len(changed) == 0 {
			return nil
		}
		path := d.fill(r.self)
		if r.mask {
			path += "?updateMask=" + strings.Join(changed, ",")
		}
		operation, err := c.call(ctx, "PATCH", r.service, path, body)
		if err == nil && r.operations != "" && !r.prompt {
			_, err = c.wait(ctx, r.service, operation, r.operation(d))
		}
		if err != nil {
			return errorf("Error updating %s %q: %w", title, d.text("id"), err)
		}
		return nil
	}
	kind.delete = func(ctx context.Context, c *client, d data) error {
		operation, err := c.call(ctx, "DELETE", r.service, d.fill(r.self), nil)
		if err == nil && r.operations != "" {
			_, err = c.wait(ctx, r.service, operation, r.operation(d))
		}
		if err != nil && !isStatus(err, 404) {
			return errorf("Error when reading or editing %s: %w", title, err)
		}
		return nil
	}
	return kind
}

// The name of an operation is its whole path.
const byFullName = "-"

func (r rest) operation(d data) func(string) string {
	return func(name string) string {
		if r.operations == byFullName {
			return name
		}
		prefix := d.fill(r.operations)
		return prefix + strings.TrimPrefix(name, prefix)
	}
}

// Takes an answer into the data, by the schema of the resource.
func (r *resource) take(d data, answer map[string]any) {
	isImport, _ := d[importing].(bool)
	flatten(r.block, r, d, answer, isImport)
}

// The fields whose value is another one now, as the API takes them.
func changes(fields []field, d, before data) (map[string]any, []string) {
	body := map[string]any{}
	var changed []string
	now, was := expand(fields, d), expand(fields, before)
	for _, f := range fields {
		if f.api == "" || f.output || f.unsent {
			continue
		}
		value := lookup(now, f.api)
		if same(value, lookup(was, f.api)) {
			continue
		}
		if value == nil {
			value = f.def
		}
		put(body, f.api, value)
		top := strings.Split(f.api, ".")[0]
		if len(changed) == 0 || changed[len(changed)-1] != top {
			changed = append(changed, top)
		}
	}
	return body, changed
}
