package main

import (
	"strconv"
	"strings"
)

// A number that the API writes as text.
type numberAsText struct{}

func (numberAsText) toAPI(value any) any { return text(value) }

func (numberAsText) fromAPI(value, _ any) any {
	number, err := strconv.ParseInt(text(value), 10, 64)
	if err != nil {
		return nil
	}
	return number
}

// A link to another object, which the API writes in another form.
type link struct{}

func (link) toAPI(value any) any { return value }

func (link) fromAPI(value, before any) any {
	if last(text(value)) == last(text(before)) {
		return before
	}
	return value
}

func last(path string) string { return path[strings.LastIndex(path, "/")+1:] }

// Text in which capitals do not matter.
type anyCase struct{}

func (anyCase) toAPI(value any) any { return value }

func (anyCase) fromAPI(value, before any) any {
	if strings.EqualFold(text(value), text(before)) {
		return before
	}
	return value
}

// One value that the API has as the list of it.
type single struct{}

func (single) toAPI(value any) any { return value }

func (single) fromAPI(value, _ any) any {
	list, ok := value.([]any)
	if !ok || len(list) == 0 {
		return nil
	}
	return list[0]
}

// ARCHIVED and LIVE, which the API has as isLive.
type liveness struct{}

func (liveness) toAPI(value any) any {
	switch text(value) {
	case "LIVE":
		return true
	case "ARCHIVED":
		return false
	}
	return nil
}

func (liveness) fromAPI(value, _ any) any {
	if live, _ := value.(bool); live {
		return "LIVE"
	}
	return "ARCHIVED"
}
