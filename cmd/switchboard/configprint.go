package main

import (
	_ "embed"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// sample is a configuration file that documents every key. A test makes it of
// the comments in the code; see sample_test.go.
//
//go:embed sample.yaml
var sample string

// printConfig writes the configuration as a file, with where each value came
// from. Secrets are not shown.
func printConfig(w io.Writer, c *loaded) error {
	p := &printer{w: w, origins: c.origins}
	p.section("", 0, reflect.ValueOf(c.Config))
	return p.err
}

type printer struct {
	w       io.Writer
	origins map[string]string
	err     error
}

func (p *printer) line(depth int, format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, "%s%s\n", strings.Repeat("  ", depth), fmt.Sprintf(format, args...))
	}
}

func (p *printer) section(key string, depth int, v reflect.Value) {
	for _, f := range fields(v) {
		full := join(key, f.name)
		switch {
		case f.value.Kind() == reflect.Struct && !isScalar(f.value.Type()):
			p.line(depth, "%s:", f.name)
			p.section(full, depth+1, f.value)
		case p.origins[full] != "":
			p.line(depth, "%s: %s # %s", f.name, shown(f), p.origins[full])
		default:
			p.line(depth, "%s: %s", f.name, shown(f))
		}
	}
}

// shown is the value of f as it may be shown.
func shown(f field) string {
	if f.secret() && !f.value.IsZero() {
		return `"(not shown)"`
	}
	return flow(f.value, f.tag)
}

// flow writes a value as YAML in one line.
func flow(v reflect.Value, tag reflect.StructTag) string {
	var parts []string
	switch {
	case isScalar(v.Type()):
		return quoted(v, tag)
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			parts = append(parts, inner(flow(v.Index(i), tag)))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case v.Kind() == reflect.Map:
		for _, k := range v.MapKeys() {
			parts = append(parts, inner(quote(k.String()))+": "+inner(flow(v.MapIndex(k), tag)))
		}
		slices.Sort(parts)
	case v.Kind() == reflect.Pointer && v.IsNil():
		return "null"
	case v.Kind() == reflect.Pointer:
		return flow(v.Elem(), tag)
	default:
		for _, f := range fields(v) {
			parts = append(parts, f.name+": "+inner(shown(f)))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// inner puts quotes around a word that is right alone, but not inside brackets.
func inner(s string) string {
	if s != "" && strings.ContainsAny(s, ":#") && !strings.ContainsAny(s[:1], "[{\"'") {
		return fmt.Sprintf("%q", s)
	}
	return s
}

// quoted writes a word, in quotes where YAML needs them.
func quoted(v reflect.Value, tag reflect.StructTag) string {
	s := text(v, tag)
	if v.Kind() == reflect.String || strings.ContainsAny(s, ":#") {
		return quote(s)
	}
	return s
}

func quote(s string) string {
	b, err := yaml.Marshal(s)
	if out := strings.TrimSpace(string(b)); err == nil && !strings.ContainsAny(out, "\n,[]{}") {
		return out
	}
	return fmt.Sprintf("%q", s)
}
