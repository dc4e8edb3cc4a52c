package main

import (
	"fmt"
	"math/big"
	"reflect"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// A value that is not known before it is applied.
type unknown struct{}

// Terraform's value as nil, unknown, string, bool, int64 or float64, []any, map[string]any.
func decode(value tftypes.Value) (any, error) {
	if !value.IsKnown() {
		return unknown{}, nil
	}
	if value.IsNull() {
		return nil, nil
	}
	kind := value.Type()
	switch {
	case kind.Is(tftypes.String):
		var text string
		err := value.As(&text)
		return text, err
	case kind.Is(tftypes.Bool):
		var yes bool
		err := value.As(&yes)
		return yes, err
	case kind.Is(tftypes.Number):
		number := new(big.Float)
		if err := value.As(&number); err != nil {
			return nil, err
		}
		if whole, accuracy := number.Int64(); accuracy == big.Exact {
			return whole, nil
		}
		fraction, _ := number.Float64()
		return fraction, nil
	case kind.Is(tftypes.List{}), kind.Is(tftypes.Set{}), kind.Is(tftypes.Tuple{}):
		var all []tftypes.Value
		if err := value.As(&all); err != nil {
			return nil, err
		}
		result := make([]any, 0, len(all))
		for _, each := range all {
			item, err := decode(each)
			if err != nil {
				return nil, err
			}
			result = append(result, item)
		}
		return result, nil
	default:
		var all map[string]tftypes.Value
		if err := value.As(&all); err != nil {
			return nil, err
		}
		result := map[string]any{}
		for name, each := range all {
			item, err := decode(each)
			if err != nil {
				return nil, err
			}
			result[name] = item
		}
		return result, nil
	}
}

// The same backwards; numbers that came from JSON or as text are taken too.
func encode(value any, kind tftypes.Type) (tftypes.Value, error) {
	switch value := value.(type) {
	case nil:
		return tftypes.NewValue(kind, nil), nil
	case unknown:
		return tftypes.NewValue(kind, tftypes.UnknownValue), nil
	case []any:
		element := elementType(kind)
		if element == nil {
			return tftypes.Value{}, fmt.Errorf("a list where %s is expected", kind)
		}
		all := make([]tftypes.Value, 0, len(value))
		for _, each := range value {
			item, err := encode(each, element)
			if err != nil {
				return tftypes.Value{}, err
			}
			all = append(all, item)
		}
		return tftypes.NewValue(kind, all), nil
	case map[string]any:
		all := map[string]tftypes.Value{}
		if object, ok := kind.(tftypes.Object); ok {
			for name, each := range object.AttributeTypes {
				item, err := encode(value[name], each)
				if err != nil {
					return tftypes.Value{}, fmt.Errorf("%s: %w", name, err)
				}
				all[name] = item
			}
		} else if element := elementType(kind); element != nil {
			for name, each := range value {
				item, err := encode(each, element)
				if err != nil {
					return tftypes.Value{}, fmt.Errorf("%s: %w", name, err)
				}
				all[name] = item
			}
		}
		return tftypes.NewValue(kind, all), nil
	}
	if kind.Is(tftypes.Number) {
		number, _, err := big.ParseFloat(fmt.Sprint(value), 10, 512, big.ToNearestEven)
		if err != nil {
			return tftypes.Value{}, err
		}
		return tftypes.NewValue(kind, number), nil
	}
	if kind.Is(tftypes.String) {
		return tftypes.NewValue(kind, text(value)), nil
	}
	if yes, ok := value.(bool); ok && kind.Is(tftypes.Bool) {
		return tftypes.NewValue(kind, yes), nil
	}
	return tftypes.Value{}, fmt.Errorf("%v where %s is expected", value, kind)
}

func elementType(kind tftypes.Type) tftypes.Type {
	switch kind := kind.(type) {
	case tftypes.List:
		return kind.ElementType
	case tftypes.Set:
		return kind.ElementType
	case tftypes.Map:
		return kind.ElementType
	}
	return nil
}

// Text of a value that may be a number of JSON.
func text(value any) string {
	switch value := value.(type) {
	case nil, unknown:
		return ""
	case float64:
		return big.NewFloat(value).Text('f', -1)
	}
	return fmt.Sprint(value)
}

// Whether two values mean the same; numbers may be text, and a list that is empty may be absent.
func same(a, b any) bool {
	if empty(a) && empty(b) {
		return true
	}
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !same(a[i], b[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok {
			return false
		}
		for name := range merged(a, b) {
			if !same(a[name], b[name]) {
				return false
			}
		}
		return true
	}
	switch b.(type) {
	case []any, map[string]any:
		return false
	}
	return text(a) == text(b) && reflect.TypeOf(a) == reflect.TypeOf(b) || number(a) && number(b) && text(a) == text(b)
}

func number(value any) bool {
	switch value.(type) {
	case int64, float64:
		return true
	}
	return false
}

// What an API leaves out of its answers.
func empty(value any) bool {
	switch value := value.(type) {
	case nil:
		return true
	case bool:
		return !value
	case string:
		return value == ""
	case int64:
		return value == 0
	case float64:
		return value == 0
	case []any:
		return len(value) == 0
	case map[string]any:
		return len(value) == 0
	}
	return false
}

func merged(all ...map[string]any) map[string]any {
	result := map[string]any{}
	for _, each := range all {
		for name, value := range each {
			result[name] = value
		}
	}
	return result
}

// The value at a path of names; lists are entered at their first element.
func lookup(tree any, path string) any {
	for _, step := range strings.Split(path, ".") {
		if list, ok := tree.([]any); ok {
			if len(list) == 0 {
				return nil
			}
			tree = list[0]
		}
		object, ok := tree.(map[string]any)
		if !ok {
			return nil
		}
		tree = object[step]
	}
	return tree
}

// Sets the value at a path and makes the objects on its way.
func put(tree map[string]any, path string, value any) {
	steps := strings.Split(path, ".")
	for _, step := range steps[:len(steps)-1] {
		inner, ok := tree[step].(map[string]any)
		if !ok {
			inner = map[string]any{}
			tree[step] = inner
		}
		tree = inner
	}
	tree[steps[len(steps)-1]] = value
}

// Sets the value of an attribute in blocks; makes them only if asked to.
func putBlock(tree map[string]any, path string, value any, create bool) {
	steps := strings.Split(path, ".")
	for _, step := range steps[:len(steps)-1] {
		list, _ := tree[step].([]any)
		if len(list) == 0 {
			if !create || empty(value) {
				return
			}
			list = []any{map[string]any{}}
			tree[step] = list
		}
		inner, ok := list[0].(map[string]any)
		if !ok {
			inner = map[string]any{}
			list[0] = inner
		}
		tree = inner
	}
	tree[steps[len(steps)-1]] = value
}
