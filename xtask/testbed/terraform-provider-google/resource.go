package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

// A field: an attribute of the resource and where the API has it.
type field struct {
	hcl string
	// Path in the API's object; empty: terraform's alone.
	api string
	// What the provider assumes where nothing is set.
	def any
	// A change means a new resource.
	fixed bool
	// Comes from the API alone.
	output bool
	// Not sent: part of the address, or sent in a way of its own.
	unsent bool
	// How the two differ; nil: not at all.
	conv conversion
	// Fields of the elements of a block that is repeated, or is a list in the API.
	each []field
}

// A conversion gives the API's value for terraform's, and back (with the value until now).
type conversion interface {
	toAPI(value any) any
	fromAPI(value, before any) any
}

// A kind of resource.
type resource struct {
	// Its schema, once that is read.
	block *block
	// What the provider's messages call it.
	title  string
	fields []field
	// Blocks that the API fills where nothing is set.
	filled []string
	create func(context.Context, *client, data) error
	// Whether it is there.
	read   func(context.Context, *client, data) (bool, error)
	update func(ctx context.Context, c *client, d, before data) error
	delete func(context.Context, *client, data) error
	// Forms of the id to import by, with {attribute}; the most exact first.
	imports []string
}

// The attributes of one resource.
type data map[string]any

func (d data) text(name string) string { return text(lookup(map[string]any(d), name)) }

func (d data) yes(name string) bool {
	yes, _ := lookup(map[string]any(d), name).(bool)
	return yes
}

var placeholder = regexp.MustCompile(`\{(\w+)\}`)

// A template with its {attributes} filled in.
func (d data) fill(template string) string {
	return placeholder.ReplaceAllStringFunc(template, func(match string) string {
		return d.text(strings.Trim(match, "{}"))
	})
}

// The object that the API takes.
func expand(fields []field, d map[string]any) map[string]any {
	result := map[string]any{}
	for _, f := range fields {
		if f.api == "" || f.output || f.unsent {
			continue
		}
		value := lookup(d, f.hcl)
		if value == nil || value == (unknown{}) {
			continue
		}
		if f.each != nil {
			list, _ := value.([]any)
			all := make([]any, 0, len(list))
			for _, item := range list {
				inner, _ := item.(map[string]any)
				all = append(all, expand(f.each, inner))
			}
			put(result, f.api, all)
			continue
		}
		if f.conv != nil {
			value = f.conv.toAPI(value)
		}
		put(result, f.api, value)
	}
	return result
}

// Takes the API's answer into d. What is not set and not the API's to say stays unset, unless all is new.
func flatten(b *block, r *resource, d data, answer map[string]any, importing bool) {
	for _, f := range r.fields {
		if f.api == "" {
			continue
		}
		now := lookup(answer, f.api)
		before := lookup(map[string]any(d), f.hcl)
		filled := r.isFilled(f.hcl)
		if before == nil && !importing && !f.output && !filled && !b.isComputed(f.hcl) {
			continue
		}
		if f.each != nil {
			now = flattenEach(f.each, now, before)
		} else if f.conv != nil && now != nil {
			now = f.conv.fromAPI(now, before)
		}
		if now == nil {
			now = f.def
		}
		if same(now, before) {
			continue
		}
		putBlock(d, f.hcl, now, importing || filled)
	}
}

func flattenEach(fields []field, now, before any) any {
	list, ok := now.([]any)
	if !ok {
		return nil
	}
	known, _ := before.([]any)
	all := make([]any, 0, len(list))
	for i, item := range list {
		answer, _ := item.(map[string]any)
		element := map[string]any{}
		var old map[string]any
		if i < len(known) {
			old, _ = known[i].(map[string]any)
		}
		for _, f := range fields {
			value := lookup(answer, f.api)
			was := lookup(old, f.hcl)
			if f.conv != nil && value != nil {
				value = f.conv.fromAPI(value, was)
			}
			if value == nil {
				value = f.def
			}
			// What answers leave out is what it was, if that is as good as nothing.
			if value == nil && empty(was) {
				value = was
			}
			putBlock(element, f.hcl, value, true)
		}
		all = append(all, element)
	}
	// The order of a set is not the API's.
	if sameElements(all, known) {
		return known
	}
	return all
}

func sameElements(a, b []any) bool {
	if len(a) != len(b) {
		return false
	}
	used := make([]bool, len(b))
next:
	for _, left := range a {
		for i, right := range b {
			if !used[i] && sameOrUnset(left, right) {
				used[i] = true
				continue next
			}
		}
		return false
	}
	return true
}

func sameOrUnset(a, b any) bool {
	left, ok := a.(map[string]any)
	right, also := b.(map[string]any)
	if !ok || !also {
		return same(a, b)
	}
	for name, value := range left {
		if list, ok := value.([]any); ok && len(list) == 1 {
			other, _ := right[name].([]any)
			if len(other) == 1 && sameOrUnset(list[0], other[0]) {
				continue
			}
			return false
		}
		if !same(value, right[name]) {
			return false
		}
	}
	return true
}

func (r *resource) isFilled(path string) bool {
	for _, block := range r.filled {
		if path == block || strings.HasPrefix(path, block+".") {
			return true
		}
	}
	return false
}

// The field of a path; nil if the stand-in knows nothing of it.
func (r *resource) field(path string) *field {
	for i, f := range r.fields {
		if f.hcl == path || f.each != nil && strings.HasPrefix(path, f.hcl+".") {
			return &r.fields[i]
		}
	}
	return nil
}

func (b *block) isComputed(path string) bool {
	steps := strings.Split(path, ".")
	for _, step := range steps[:len(steps)-1] {
		inner, ok := b.Blocks[step]
		if !ok {
			return false
		}
		b = inner.Block
	}
	attribute, ok := b.Attributes[steps[len(steps)-1]]
	return ok && attribute.Computed
}

// The attributes that an id to import by stands for.
func (r *resource) parseID(id string, c *client) (data, error) {
	for _, form := range r.imports {
		pattern := "^" + placeholder.ReplaceAllString(regexp.QuoteMeta(strings.NewReplacer("{", "<", "}", ">").Replace(form)), "$0") + "$"
		pattern = regexp.MustCompile(`<(\w+)>`).ReplaceAllString(pattern, `(?P<$1>.+)`)
		expression := regexp.MustCompile(pattern)
		match := expression.FindStringSubmatch(id)
		if match == nil {
			continue
		}
		d := data{"id": id, "project": c.project}
		for i, name := range expression.SubexpNames() {
			if name != "" {
				d[name] = match[i]
			}
		}
		return d, nil
	}
	return nil, fmt.Errorf("Import id %q doesn't match any of the accepted formats: %v", id, r.imports)
}
