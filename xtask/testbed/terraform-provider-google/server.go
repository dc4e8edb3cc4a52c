package main

import (
	"context"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// The calls that terraform makes; those of the embedded interface are never made.
type server struct {
	tfprotov5.ProviderServer
	schemas *schemas
	client  *client
}

func (s *server) GetMetadata(context.Context, *tfprotov5.GetMetadataRequest) (*tfprotov5.GetMetadataResponse, error) {
	response := &tfprotov5.GetMetadataResponse{}
	for _, name := range sorted(resources) {
		response.Resources = append(response.Resources, tfprotov5.ResourceMetadata{TypeName: name})
	}
	return response, nil
}

func (s *server) GetProviderSchema(context.Context, *tfprotov5.GetProviderSchemaRequest) (*tfprotov5.GetProviderSchemaResponse, error) {
	all := map[string]*tfprotov5.Schema{}
	for name := range resources {
		all[name] = &tfprotov5.Schema{Block: s.schemas.Resources[name].protocol()}
	}
	return &tfprotov5.GetProviderSchemaResponse{
		Provider:        &tfprotov5.Schema{Block: s.schemas.Provider.protocol()},
		ResourceSchemas: all,
	}, nil
}

func (s *server) GetResourceIdentitySchemas(context.Context, *tfprotov5.GetResourceIdentitySchemasRequest) (*tfprotov5.GetResourceIdentitySchemasResponse, error) {
	return &tfprotov5.GetResourceIdentitySchemasResponse{}, nil
}

func (s *server) PrepareProviderConfig(_ context.Context, request *tfprotov5.PrepareProviderConfigRequest) (*tfprotov5.PrepareProviderConfigResponse, error) {
	return &tfprotov5.PrepareProviderConfigResponse{PreparedConfig: request.Config}, nil
}

func (s *server) ConfigureProvider(_ context.Context, request *tfprotov5.ConfigureProviderRequest) (*tfprotov5.ConfigureProviderResponse, error) {
	config, err := s.decode(request.Config, s.schemas.Provider)
	if err != nil {
		return nil, err
	}
	s.client = newClient(config)
	return &tfprotov5.ConfigureProviderResponse{}, nil
}

func (s *server) StopProvider(context.Context, *tfprotov5.StopProviderRequest) (*tfprotov5.StopProviderResponse, error) {
	return &tfprotov5.StopProviderResponse{}, nil
}

func (s *server) ValidateResourceTypeConfig(_ context.Context, request *tfprotov5.ValidateResourceTypeConfigRequest) (*tfprotov5.ValidateResourceTypeConfigResponse, error) {
	response := &tfprotov5.ValidateResourceTypeConfigResponse{}
	block := s.schemas.Resources[request.TypeName]
	config, err := s.decode(request.Config, block)
	if err == nil {
		err = unsupported(block, resources[request.TypeName], "", config)
	}
	response.Diagnostics = diagnostics(err)
	return response, nil
}

func (s *server) UpgradeResourceState(_ context.Context, request *tfprotov5.UpgradeResourceStateRequest) (*tfprotov5.UpgradeResourceStateResponse, error) {
	kind := s.schemas.Resources[request.TypeName].objectType()
	options := tfprotov5.UnmarshalOpts{ValueFromJSONOpts: tftypes.ValueFromJSONOpts{IgnoreUndefinedAttributes: true}}
	value, err := request.RawState.UnmarshalWithOpts(kind, options)
	if err != nil {
		return &tfprotov5.UpgradeResourceStateResponse{Diagnostics: diagnostics(err)}, nil
	}
	state, err := tfprotov5.NewDynamicValue(kind, value)
	return &tfprotov5.UpgradeResourceStateResponse{UpgradedState: &state, Diagnostics: diagnostics(err)}, nil
}

func (s *server) ReadResource(ctx context.Context, request *tfprotov5.ReadResourceRequest) (*tfprotov5.ReadResourceResponse, error) {
	response := &tfprotov5.ReadResourceResponse{NewState: request.CurrentState, Private: request.Private}
	block, kind := s.schemas.Resources[request.TypeName], resources[request.TypeName]
	state, err := s.decode(request.CurrentState, block)
	if err != nil || state == nil {
		response.Diagnostics = diagnostics(err)
		return response, nil
	}
	found, err := kind.read(ctx, s.client, data(state))
	if err != nil {
		response.Diagnostics = diagnostics(err)
		return response, nil
	}
	if !found {
		state = nil
	}
	response.NewState, err = s.encode(state, block)
	response.Diagnostics = diagnostics(err)
	return response, nil
}

func (s *server) PlanResourceChange(_ context.Context, request *tfprotov5.PlanResourceChangeRequest) (*tfprotov5.PlanResourceChangeResponse, error) {
	response := &tfprotov5.PlanResourceChangeResponse{
		PlannedState:                request.ProposedNewState,
		PlannedPrivate:              request.PriorPrivate,
		UnsafeToUseLegacyTypeSystem: true,
	}
	block, kind := s.schemas.Resources[request.TypeName], resources[request.TypeName]
	config, err := s.decode(request.Config, block)
	if err != nil || config == nil {
		response.Diagnostics = diagnostics(err)
		return response, nil
	}
	prior, err := s.decode(request.PriorState, block)
	if err != nil {
		response.Diagnostics = diagnostics(err)
		return response, nil
	}
	next := planned(block, kind, "", config, prior)
	if at, ok := block.Attributes["project"]; ok && at.Computed && next["project"] == (unknown{}) && s.client.project != "" {
		next["project"] = s.client.project
	}
	if prior != nil {
		settle(block, kind, prior, next)
		response.RequiresReplace = replaced(kind, prior, next)
	}
	response.PlannedState, err = s.encode(next, block)
	response.Diagnostics = diagnostics(err)
	return response, nil
}

// Takes what was for what will be where they mean the same.
func settle(b *block, r *resource, prior, next map[string]any) {
	for _, f := range r.fields {
		before, after := lookup(prior, f.hcl), lookup(next, f.hcl)
		// Nothing is as good as false, zero or an empty list.
		if empty(before) && empty(after) {
			putBlock(next, f.hcl, before, false)
			continue
		}
		if before == nil || after == nil {
			continue
		}
		equal := f.conv != nil && same(f.conv.fromAPI(after, before), before)
		if list, ok := after.([]any); ok {
			known, _ := before.([]any)
			equal = f.each != nil && sameElements(list, known)
		}
		if equal {
			putBlock(next, f.hcl, before, false)
		}
	}
}

func (s *server) ApplyResourceChange(ctx context.Context, request *tfprotov5.ApplyResourceChangeRequest) (*tfprotov5.ApplyResourceChangeResponse, error) {
	response := &tfprotov5.ApplyResourceChangeResponse{
		NewState:                    request.PriorState,
		Private:                     request.PlannedPrivate,
		UnsafeToUseLegacyTypeSystem: true,
	}
	block, kind := s.schemas.Resources[request.TypeName], resources[request.TypeName]
	state, err := s.apply(ctx, request, block, kind)
	response.Diagnostics = diagnostics(err)
	encoded, err := s.encode(state, block)
	if err != nil {
		response.Diagnostics = append(response.Diagnostics, diagnostics(err)...)
		return response, nil
	}
	response.NewState = encoded
	return response, nil
}

// Creates, changes or deletes; the state afterwards, also of what went wrong.
func (s *server) apply(ctx context.Context, request *tfprotov5.ApplyResourceChangeRequest, b *block, r *resource) (map[string]any, error) {
	prior, err := s.decode(request.PriorState, b)
	if err != nil {
		return prior, err
	}
	next, err := s.decode(request.PlannedState, b)
	if err != nil {
		return prior, err
	}
	config, err := s.decode(request.Config, b)
	if err != nil {
		return prior, err
	}
	if next == nil {
		if err := r.delete(ctx, s.client, data(prior)); err != nil {
			return prior, err
		}
		return nil, nil
	}
	known(next)
	d := data(next)
	for name, attribute := range b.Attributes {
		if attribute.WriteOnly {
			d[name] = config[name]
		}
	}
	if prior == nil {
		err = r.create(ctx, s.client, d)
		forget(b, d)
		if err != nil {
			if d.text("id") == "" {
				return nil, err
			}
			return next, err
		}
	} else {
		err = r.update(ctx, s.client, d, data(prior))
		forget(b, d)
		if err != nil {
			return prior, err
		}
	}
	found, err := r.read(ctx, s.client, d)
	if err == nil && !found {
		return nil, nil
	}
	return next, err
}

// What was not known is unset until it is read.
func known(tree map[string]any) {
	for name, value := range tree {
		switch value := value.(type) {
		case unknown:
			tree[name] = nil
		case []any:
			for _, item := range value {
				if inner, ok := item.(map[string]any); ok {
					known(inner)
				}
			}
		}
	}
}

func forget(b *block, d data) {
	for name, attribute := range b.Attributes {
		if attribute.WriteOnly {
			d[name] = nil
		}
	}
}

func (s *server) ImportResourceState(ctx context.Context, request *tfprotov5.ImportResourceStateRequest) (*tfprotov5.ImportResourceStateResponse, error) {
	response := &tfprotov5.ImportResourceStateResponse{}
	block, kind := s.schemas.Resources[request.TypeName], resources[request.TypeName]
	d, err := kind.parseID(request.ID, s.client)
	if err != nil {
		response.Diagnostics = diagnostics(err)
		return response, nil
	}
	d[importing] = true
	found, err := kind.read(ctx, s.client, d)
	if err != nil || !found {
		if err == nil {
			err = errorf("Cannot import non-existent remote object: %s", request.ID)
		}
		response.Diagnostics = diagnostics(err)
		return response, nil
	}
	for _, f := range kind.fields {
		if f.def != nil && lookup(map[string]any(d), f.hcl) == nil {
			putBlock(d, f.hcl, f.def, false)
		}
	}
	state, err := s.encode(d, block)
	response.Diagnostics = diagnostics(err)
	response.ImportedResources = []*tfprotov5.ImportedResource{{TypeName: request.TypeName, State: state}}
	return response, nil
}

func (s *server) decode(value *tfprotov5.DynamicValue, b *block) (map[string]any, error) {
	if value == nil {
		return nil, nil
	}
	parsed, err := value.Unmarshal(b.objectType())
	if err != nil {
		return nil, err
	}
	tree, err := decode(parsed)
	if err != nil {
		return nil, err
	}
	object, _ := tree.(map[string]any)
	return object, nil
}

func (s *server) encode(tree map[string]any, b *block) (*tfprotov5.DynamicValue, error) {
	kind := b.objectType()
	var value any
	if tree != nil {
		value = lists(tree, b)
	}
	encoded, err := encode(value, kind)
	if err != nil {
		return nil, err
	}
	dynamic, err := tfprotov5.NewDynamicValue(kind, encoded)
	return &dynamic, err
}

// A copy in which a block that is absent is an empty list: it is never null.
func lists(tree map[string]any, b *block) map[string]any {
	result := merged(tree)
	for name, nested := range b.Blocks {
		switch value := result[name].(type) {
		case nil:
			if nested.Nesting != "single" {
				result[name] = []any{}
			}
		case []any:
			all := make([]any, 0, len(value))
			for _, item := range value {
				if inner, ok := item.(map[string]any); ok {
					item = lists(inner, nested.Block)
				}
				all = append(all, item)
			}
			result[name] = all
		}
	}
	return result
}

func diagnostics(err error) []*tfprotov5.Diagnostic {
	if err == nil {
		return nil
	}
	return []*tfprotov5.Diagnostic{{Severity: tfprotov5.DiagnosticSeverityError, Summary: err.Error()}}
}
