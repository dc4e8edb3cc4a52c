package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// Set in the data of a resource that is being imported.
const importing = "\x00importing"

// The services, by the names of the provider's arguments and variables.
const (
	artifactRegistry  = "artifact_registry"
	compute           = "compute"
	container         = "container"
	iam               = "iam"
	iamBeta           = "iam_beta"
	resourceManager   = "resource_manager"
	serviceNetworking = "service_networking"
	serviceUsage      = "service_usage"
	sql               = "sql"
	storage           = "storage"
)

type client struct {
	project   string
	region    string
	token     string
	endpoints map[string]string
	http      *http.Client
	locks     sync.Map
	services  batch
}

func newClient(config map[string]any) *client {
	setting := func(name string, variables ...string) string {
		if value := text(config[name]); value != "" {
			return value
		}
		for _, variable := range variables {
			if value := os.Getenv(variable); value != "" {
				return value
			}
		}
		return ""
	}
	timeout, err := time.ParseDuration(setting("request_timeout"))
	if err != nil {
		timeout = 120 * time.Second
	}
	c := &client{
		project:   setting("project", "GOOGLE_PROJECT", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT"),
		region:    setting("region", "GOOGLE_REGION", "GCLOUD_REGION", "CLOUDSDK_COMPUTE_REGION"),
		token:     setting("access_token", "GOOGLE_OAUTH_ACCESS_TOKEN"),
		endpoints: map[string]string{},
		http:      &http.Client{Timeout: timeout},
	}
	for _, name := range []string{
		artifactRegistry, compute, container, iam, iamBeta, resourceManager, serviceNetworking, serviceUsage, sql, storage,
	} {
		c.endpoints[name] = setting(name+"_custom_endpoint", "GOOGLE_"+strings.ToUpper(name)+"_CUSTOM_ENDPOINT")
	}
	return c
}

// An error of the API, worded as Google's client does.
type apiError struct {
	status  int
	message string
	reason  string
	details string
}

func (e *apiError) Error() string {
	text := fmt.Sprintf("googleapi: Error %d: %s", e.status, e.message)
	if e.details != "" {
		text += "\nDetails:\n" + e.details
	}
	if e.reason != "" {
		text += ", " + e.reason
	}
	return text
}

func isStatus(err error, statuses ...int) bool {
	var failed *apiError
	if !errors.As(err, &failed) {
		return false
	}
	for _, status := range statuses {
		if failed.status == status {
			return true
		}
	}
	return false
}

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

// How often a call is made that the service or the network could not answer.
const attempts = 6

// One call. What may pass by itself is asked again: too many requests, 5xx, a lost connection.
func (c *client) call(ctx context.Context, method, service, path string, body any) (map[string]any, error) {
	base := c.endpoints[service]
	if base == "" {
		return nil, errorf("the stand-in for the google provider calls no service of Google: GOOGLE_%s_CUSTOM_ENDPOINT is not set", strings.ToUpper(service))
	}
	if c.token == "" {
		return nil, errors.New("Attempted to load application default credentials since neither `credentials` nor `access_token` was set in the provider block.  No credentials loaded.")
	}
	var sent []byte
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		sent = text
	}
	wait := 250 * time.Millisecond
	for attempt := 1; ; attempt++ {
		answer, err := c.once(ctx, method, base+path, sent)
		if err == nil || !passing(err) || attempt == attempts {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
			wait *= 2
		}
	}
}

func passing(err error) bool {
	if isStatus(err, 429, 500, 502, 503, 504) {
		return true
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func (c *client) once(ctx context.Context, method, url string, body []byte) (map[string]any, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	request.Header.Set("User-Agent", "Terraform-test-stand-in")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 {
		return nil, parseError(response.StatusCode, text)
	}
	answer := map[string]any{}
	if len(bytes.TrimSpace(text)) == 0 {
		return answer, nil
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, errorf("%s %s answers something else than JSON: %w", method, url, err)
	}
	return answer, nil
}

func parseError(status int, body []byte) error {
	var answer struct {
		Error struct {
			Message string           `json:"message"`
			Errors  []map[string]any `json:"errors"`
			Details []any            `json:"details"`
		} `json:"error"`
	}
	failed := &apiError{status: status, message: strings.TrimSpace(string(body))}
	if json.Unmarshal(body, &answer) == nil && answer.Error.Message != "" {
		failed.message = answer.Error.Message
		if len(answer.Error.Errors) > 0 {
			failed.reason = text(answer.Error.Errors[0]["reason"])
		}
		if len(answer.Error.Details) > 0 {
			details, _ := json.MarshalIndent(answer.Error.Details, "", "  ")
			failed.details = string(details)
		}
	}
	return failed
}

// Holds what changes one object by reading and writing it.
func (c *client) lock(name string) func() {
	lock, _ := c.locks.LoadOrStore(name, &sync.Mutex{})
	mutex := lock.(*sync.Mutex)
	mutex.Lock()
	return mutex.Unlock
}

// How long an operation may take.
const patience = 40 * time.Minute

// Waits for an operation until it is done; path gives where it is asked for.
func (c *client) wait(ctx context.Context, service string, operation map[string]any, path func(name string) string) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pause := 200 * time.Millisecond
	for {
		if done, _ := operation["done"].(bool); done || text(operation["status"]) == "DONE" {
			return operation, failure(operation)
		}
		select {
		case <-ctx.Done():
			return nil, errorf("timeout while waiting for operation %s: %w", text(operation["name"]), ctx.Err())
		case <-time.After(pause):
			pause = min(pause*2, 5*time.Second)
		}
		next, err := c.call(ctx, "GET", service, path(text(operation["name"])), nil)
		if err != nil {
			return nil, err
		}
		operation = next
	}
}

// The error that an operation ended with, in one of the forms that the services have.
func failure(operation map[string]any) error {
	failed, ok := operation["error"].(map[string]any)
	if !ok {
		return nil
	}
	if list, ok := failed["errors"].([]any); ok {
		var all []string
		for _, item := range list {
			each, _ := item.(map[string]any)
			all = append(all, strings.TrimPrefix(text(each["code"])+": "+text(each["message"]), ": "))
		}
		return errors.New(strings.Join(all, "\n"))
	}
	return errorf("Error code %s, message: %s", text(failed["code"]), text(failed["message"]))
}
