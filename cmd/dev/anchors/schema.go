package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"gopkg.in/yaml.v3"
)

// A page shows an object inside a request, a response or a definition as a
// table of its own. Its anchor is that of the whole, "_" and the object's
// title.

// schemas reads the YAML files of the specification and follows references.
type schemas struct {
	spec  fs.FS
	files map[string]any // by path, read once
}

// file returns the content of a YAML file.
func (s *schemas) file(name string) (any, error) {
	if v, ok := s.files[name]; ok {
		return v, nil
	}
	text, err := fs.ReadFile(s.spec, name)
	if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(name, "data/api/identity/") {
		err = nil // the identity service API need not be there
	}
	if err != nil {
		return nil, err
	}
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s.files[name] = v
	return v, nil
}

// follow returns what a node stands for, and the file that it is in: its own
// content, or that of the node that it refers to.
func (s *schemas) follow(node any, file string) (any, string, error) {
	ref, ok := at(node, "$ref").(string)
	if !ok {
		return node, file, nil
	}
	name, fragment, _ := strings.Cut(ref, "#")
	if name != "" {
		file = path.Join(path.Dir(file), name)
	}
	target, err := s.file(file)
	for key := range strings.SplitSeq(strings.Trim(fragment, "/"), "/") {
		if key != "" {
			target = at(target, key)
		}
	}
	return target, file, err
}

// titles returns the slugs of the titled objects inside a schema.
// seen has the references followed so far, because some lead back to themselves.
func (s *schemas) titles(node any, file string, seen map[string]bool) ([]string, error) {
	if ref, ok := at(node, "$ref").(string); ok {
		key := file + " " + ref
		if seen[key] {
			return nil, nil
		}
		seen[key] = true
	}
	node, file, err := s.follow(node, file)
	if err != nil || node == nil {
		return nil, err
	}
	var found []string
	var inner []any
	if title, ok := at(node, "title").(string); ok {
		found = append(found, slugOf(title))
	}
	for _, key := range []string{"properties", "patternProperties"} {
		if m, ok := at(node, key).(map[string]any); ok {
			for _, v := range m {
				inner = append(inner, v)
			}
		}
	}
	for _, key := range []string{"allOf", "anyOf", "oneOf"} {
		if list, ok := at(node, key).([]any); ok {
			inner = append(inner, list...)
		}
	}
	inner = append(inner, at(node, "items"), at(node, "additionalProperties"))
	for _, v := range inner {
		more, err := s.titles(v, file, seen)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	return found, nil
}

// operation returns the anchors of the tables of one operation.
func (s *schemas) operation(node any, file, anchor string) ([]string, error) {
	bodies := map[string]any{anchor + "_request": at(node, "requestBody")}
	if responses, ok := at(node, "responses").(map[string]any); ok {
		for code, r := range responses {
			bodies[anchor+"_response-"+slugOf(code)] = r
		}
	}
	var found []string
	for base, body := range bodies {
		body, file, err := s.follow(body, file)
		if err != nil {
			return nil, err
		}
		more, err := s.titles(at(at(at(body, "content"), "application/json"), "schema"), file, map[string]bool{})
		if err != nil {
			return nil, err
		}
		for _, title := range more {
			found = append(found, base+"_"+title)
		}
	}
	return found, nil
}

// at returns what a map has under a key, nil if node is no map.
func at(node any, key string) any {
	m, ok := node.(map[string]any)
	if !ok {
		return nil
	}
	return m[key]
}
