package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sort"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

type schemas struct {
	Provider  *block            `json:"provider"`
	Resources map[string]*block `json:"resources"`
}

type block struct {
	Attributes map[string]*attribute `json:"attributes"`
	Blocks     map[string]*nested    `json:"blocks"`
}

type attribute struct {
	Type      json.RawMessage `json:"type"`
	Required  bool            `json:"required"`
	Optional  bool            `json:"optional"`
	Computed  bool            `json:"computed"`
	Sensitive bool            `json:"sensitive"`
	WriteOnly bool            `json:"writeOnly"`
	parsed    tftypes.Type
}

type nested struct {
	Nesting string `json:"nesting"`
	Min     int64  `json:"min"`
	Max     int64  `json:"max"`
	Block   *block `json:"block"`
}

func loadSchemas(path string) (*schemas, error) {
	if path == "" {
		return nil, errors.New("STANDIN_SCHEMA does not name the file with the provider's schema")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all schemas
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := all.Provider.parse(); err != nil {
		return nil, err
	}
	for name, kind := range resources {
		found, ok := all.Resources[name]
		if !ok {
			return nil, fmt.Errorf("%s has no %s", path, name)
		}
		if err := found.parse(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		kind.block = found
	}
	return &all, nil
}

func (b *block) parse() error {
	for name, attribute := range b.Attributes {
		parsed, err := tftypes.ParseJSONType(attribute.Type) //nolint:staticcheck
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		attribute.parsed = parsed
	}
	for _, nested := range b.Blocks {
		if err := nested.Block.parse(); err != nil {
			return err
		}
	}
	return nil
}

func (b *block) objectType() tftypes.Object {
	types := map[string]tftypes.Type{}
	for name, attribute := range b.Attributes {
		types[name] = attribute.parsed
	}
	for name, nested := range b.Blocks {
		types[name] = nested.valueType()
	}
	return tftypes.Object{AttributeTypes: types}
}

func (n *nested) valueType() tftypes.Type {
	element := n.Block.objectType()
	switch n.Nesting {
	case "single":
		return element
	case "set":
		return tftypes.Set{ElementType: element}
	default:
		return tftypes.List{ElementType: element}
	}
}

func (b *block) protocol() *tfprotov5.SchemaBlock {
	result := &tfprotov5.SchemaBlock{}
	for _, name := range sorted(b.Attributes) {
		attribute := b.Attributes[name]
		result.Attributes = append(result.Attributes, &tfprotov5.SchemaAttribute{
			Name:      name,
			Type:      attribute.parsed,
			Required:  attribute.Required,
			Optional:  attribute.Optional,
			Computed:  attribute.Computed,
			Sensitive: attribute.Sensitive,
			WriteOnly: attribute.WriteOnly,
		})
	}
	nesting := map[string]tfprotov5.SchemaNestedBlockNestingMode{
		"single": tfprotov5.SchemaNestedBlockNestingModeSingle,
		"list":   tfprotov5.SchemaNestedBlockNestingModeList,
		"set":    tfprotov5.SchemaNestedBlockNestingModeSet,
	}
	for _, name := range sorted(b.Blocks) {
		nested := b.Blocks[name]
		result.BlockTypes = append(result.BlockTypes, &tfprotov5.SchemaNestedBlock{
			TypeName: name,
			Block:    nested.Block.protocol(),
			Nesting:  nesting[nested.Nesting],
			MinItems: nested.Min,
			MaxItems: nested.Max,
		})
	}
	return result
}

func sorted[V any](all map[string]V) []string {
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
