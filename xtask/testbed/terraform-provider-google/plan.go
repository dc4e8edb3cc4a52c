package main

import (
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// What will be: what is configured, else what the provider assumes, else what was, else not yet known.
func planned(b *block, r *resource, path string, config, prior map[string]any) map[string]any {
	result := map[string]any{}
	for name, attribute := range b.Attributes {
		at := join(path, name)
		value := config[name]
		f := r.field(at)
		switch {
		case attribute.WriteOnly:
			value = nil
		case value != nil:
		case f != nil && f.def != nil && f.each == nil:
			value = f.def
		case attribute.Computed && prior == nil:
			value = unknown{}
		case attribute.Computed:
			value = prior[name]
		}
		result[name] = value
	}
	for name, nested := range b.Blocks {
		result[name] = plannedBlock(nested, r, join(path, name), config[name], prior, name)
	}
	return result
}

func plannedBlock(n *nested, r *resource, path string, config any, prior map[string]any, name string) any {
	before, _ := prior[name].([]any)
	switch config := config.(type) {
	case unknown:
		return config
	case map[string]any:
		return config
	case []any:
		if len(config) == 0 {
			break
		}
		repeated := n.Nesting == "set" || n.Max != 1
		all := make([]any, 0, len(config))
		for i, item := range config {
			inner, ok := item.(map[string]any)
			if !ok {
				all = append(all, item)
				continue
			}
			var old map[string]any
			if i < len(before) {
				old, _ = before[i].(map[string]any)
			}
			if repeated {
				all = append(all, plannedElement(n.Block, r, path, inner))
			} else {
				all = append(all, planned(n.Block, r, path, inner, old))
			}
		}
		return all
	}
	if r.isFilled(path) {
		if prior == nil {
			return unknown{}
		}
		return prior[name]
	}
	if n.Nesting == "single" {
		return nil
	}
	return []any{}
}

// An element of a repeated block is what is configured and nothing else.
func plannedElement(b *block, r *resource, path string, config map[string]any) map[string]any {
	result := merged(config)
	f := r.field(path + ".x")
	if f == nil {
		return result
	}
	for _, inner := range f.each {
		if inner.def != nil && !strings.Contains(inner.hcl, ".") && result[inner.hcl] == nil {
			result[inner.hcl] = inner.def
		}
	}
	return result
}

// The attributes whose change means a new resource.
func replaced(r *resource, prior, next map[string]any) []*tftypes.AttributePath {
	var paths []*tftypes.AttributePath
	for _, f := range r.fields {
		if !f.fixed || f.output {
			continue
		}
		before, after := lookup(prior, f.hcl), lookup(next, f.hcl)
		if f.conv != nil && before != nil && after != nil && same(f.conv.fromAPI(after, before), before) {
			continue
		}
		if same(before, after) {
			continue
		}
		path := tftypes.NewAttributePath()
		for i, step := range strings.Split(f.hcl, ".") {
			if i > 0 {
				path = path.WithElementKeyInt(0)
			}
			path = path.WithAttributeName(step)
		}
		paths = append(paths, path)
	}
	return paths
}

// Complains about what is set and the stand-in would not send.
func unsupported(b *block, r *resource, path string, config map[string]any) error {
	for _, name := range sorted(b.Attributes) {
		at := join(path, name)
		if config[name] != nil && r.field(at) == nil && at != "id" {
			return fmt.Errorf("the stand-in for the google provider does not know %s", at)
		}
	}
	for _, name := range sorted(b.Blocks) {
		at := join(path, name)
		list, _ := config[name].([]any)
		if f := r.field(at); f != nil && f.each != nil {
			for _, item := range list {
				if err := unsupportedElement(f, at, item); err != nil {
					return err
				}
			}
			continue
		}
		for _, item := range list {
			inner, _ := item.(map[string]any)
			if err := unsupported(b.Blocks[name].Block, r, at, inner); err != nil {
				return err
			}
		}
	}
	return nil
}

func unsupportedElement(f *field, path string, item any) error {
	inner, _ := item.(map[string]any)
	known := map[string]bool{}
	for _, each := range f.each {
		known[strings.Split(each.hcl, ".")[0]] = true
	}
	for _, name := range sorted(inner) {
		if !empty(inner[name]) && !known[name] {
			return fmt.Errorf("the stand-in for the google provider does not know %s.%s", path, name)
		}
	}
	return nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
