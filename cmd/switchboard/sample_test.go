package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the sample configuration anew")

// TestSample makes the sample of the comments in the code and compares it with
// the files. Run it with -update when a comment, a key or a default changed.
func TestSample(t *testing.T) {
	want := (&sampler{t: t}).sample()
	for _, file := range []string{"sample.yaml", "../../deploy/switchboard.sample.yaml"} {
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is not what the code says; run go test ./cmd/switchboard -run TestSample -update", file)
		}
	}
}

// TestSampleIsDefault reads the sample as it is and with every value
// uncommented: both must be right, and both must say what holds anyway.
func TestSampleIsDefault(t *testing.T) {
	commented := regexp.MustCompile(`(?m)^( *)#([^ \n]|  )`)
	for name, text := range map[string]string{
		"as it is":    sample,
		"uncommented": commented.ReplaceAllString(sample, "$1$2"),
	} {
		got, want := defaultConfig(), defaultConfig()
		l := &loader{origins: map[string]string{}}
		l.read("sample", []byte(text), &got)
		if err := l.err(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if name == "uncommented" && len(l.origins) < 60 {
			t.Errorf("only %d keys were uncommented", len(l.origins))
		}
		// Lists of sections have an example in the sample and are empty by default.
		walk("", reflect.ValueOf(&got).Elem(), func(key string, f field) {
			if isList(f.value.Type()) {
				f.value.SetZero()
			}
			if (f.value.Kind() == reflect.Slice || f.value.Kind() == reflect.Map) && f.value.Len() == 0 {
				f.value.SetZero()
			}
		})
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got  %+v\nwant %+v", name, got, want)
		}
	}
}

// isList tells whether a type is a list or a map of sections.
func isList(t reflect.Type) bool {
	return (t.Kind() == reflect.Slice || t.Kind() == reflect.Map) && !isScalar(t.Elem())
}

const sampleHead = `# Switchboard's configuration, with every key and what holds if it is absent.
#
# Every key can also be given as an environment variable, which wins over the
# file: server_name as SWITCHBOARD_SERVER_NAME, url in the section database as
# SWITCHBOARD_DATABASE_URL. For those that are secret there is one more, with
# _FILE behind the name, for the path of a file that holds the value. Lists of
# words have commas between them there; everything larger is written as YAML.
#
# Times are like 30s, 5m, 12h or 7d, sizes like 512K, 50M or 2G.
#
# This file is made by "switchboard config print --sample".
`

// sampler writes the sample.
type sampler struct {
	t        *testing.T
	out      strings.Builder
	comments map[string]map[string]string // by type, by field
}

func (s *sampler) sample() string {
	s.comments = map[string]map[string]string{}
	s.out.WriteString(sampleHead)
	s.section("", "", reflect.ValueOf(defaultConfig()))
	return s.out.String()
}

// section writes the keys of a struct. What lies below depth is commented out.
func (s *sampler) section(key, indent string, v reflect.Value) {
	for _, f := range s.documented(v) {
		full := join(key, f.name)
		switch {
		case f.value.Kind() == reflect.Struct && !isScalar(f.value.Type()):
			s.comment(indent, f.doc)
			fmt.Fprintf(&s.out, "%s%s:\n", indent, f.name)
			s.section(full, indent+"  ", f.value)
		case isList(f.value.Type()):
			s.comment(indent, f.doc+"\nEnvironment: "+variable(full)+", as YAML.")
			fmt.Fprintf(&s.out, "%s#%s:\n", indent, f.name)
			s.item(indent+"#  ", f.value.Type())
		default:
			more := "\nEnvironment: " + variable(full)
			if f.secret() {
				more += " or " + variable(full) + "_FILE"
			}
			s.comment(indent, f.doc+allowed(f.field)+more)
			fmt.Fprintf(&s.out, "%s#%s: %s\n", indent, f.name, flow(f.value, f.tag))
		}
	}
}

// item writes an example of an item of a list or map.
func (s *sampler) item(indent string, t reflect.Type) {
	v := reflect.New(t.Elem())
	if d, ok := v.Interface().(defaulter); ok {
		d.SetDefaults()
	}
	if t.Kind() == reflect.Map {
		fmt.Fprintf(&s.out, "%sname:\n", indent)
		s.keys(indent+"  ", indent+"  ", v.Elem())
		return
	}
	s.keys(indent+"- ", indent+"  ", v.Elem())
}

// keys writes the keys inside an item, the first one behind first.
func (s *sampler) keys(first, indent string, v reflect.Value) {
	for i, f := range s.documented(v) {
		before := indent
		if i == 0 {
			before = first
		}
		doc := strings.ReplaceAll(f.doc+allowed(f.field), "\n", " ")
		for _, line := range wrap(doc, 78-len(indent)-2) {
			fmt.Fprintf(&s.out, "%s# %s\n", strings.TrimSuffix(before, "- "), line)
		}
		if f.value.Kind() == reflect.Pointer { // an example of what may be there
			f.value = reflect.New(f.value.Type().Elem()).Elem()
		}
		switch {
		case f.value.Kind() == reflect.Struct && !isScalar(f.value.Type()):
			fmt.Fprintf(&s.out, "%s%s:\n", before, f.name)
			s.keys(indent+"  ", indent+"  ", f.value)
		case isList(f.value.Type()):
			fmt.Fprintf(&s.out, "%s%s:\n", before, f.name)
			s.item(indent+"  ", f.value.Type())
		default:
			fmt.Fprintf(&s.out, "%s%s: %s\n", before, f.name, flow(f.value, f.tag))
		}
	}
}

func allowed(f field) string {
	if words := f.tag.Get("oneof"); words != "" {
		return "\nAllowed: " + strings.Join(strings.Fields(words), ", ") + "."
	}
	return ""
}

func (s *sampler) comment(indent, doc string) {
	s.out.WriteString("\n")
	for paragraph := range strings.SplitSeq(doc, "\n") {
		for _, line := range wrap(paragraph, 78-len(indent)) {
			fmt.Fprintf(&s.out, "%s# %s\n", indent, line)
		}
	}
}

// wrap breaks text into lines.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// documentedField is a key with its comment in the code.
type documentedField struct {
	field
	doc string
}

// documented lists the keys of a struct with their comments. Every key must
// have one.
func (s *sampler) documented(v reflect.Value) []documentedField {
	var list []documentedField
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		name, option, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		switch {
		case option == "inline":
			list = append(list, s.documented(v.Field(i))...)
		case name != "" && name != "-":
			doc := s.docs(v.Type())[sf.Name]
			if doc == "" {
				s.t.Errorf("%s.%s has no comment", v.Type(), sf.Name)
			}
			if rest, ok := strings.CutPrefix(doc, sf.Name+" "); ok {
				doc = name + " " + rest
			} else if doc != "" {
				doc = name + ": " + doc
			}
			list = append(list, documentedField{field{name, v.Field(i), sf.Tag}, doc})
		}
	}
	return list
}

// docs gives the comments of the fields of t, from the source of its package.
func (s *sampler) docs(t reflect.Type) map[string]string {
	if s.comments[t.String()] == nil {
		s.readPackage(t)
	}
	return s.comments[t.String()]
}

func (s *sampler) readPackage(t reflect.Type) {
	dir := "."
	if path, ok := strings.CutPrefix(t.PkgPath(), "switchboard/"); ok && !strings.HasSuffix(path, "cmd/switchboard") {
		dir = filepath.Join("../..", path)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		s.t.Fatalf("no source of %s in %s", t, dir)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			s.t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if st, ok := spec.Type.(*ast.StructType); ok {
				s.comments[file.Name.Name+"."+spec.Name.Name] = fieldComments(st)
			}
			return true
		})
	}
}

func fieldComments(st *ast.StructType) map[string]string {
	comments := map[string]string{}
	for _, f := range st.Fields.List {
		text := f.Doc.Text()
		if text == "" {
			text = f.Comment.Text()
		}
		for _, name := range f.Names {
			comments[name.Name] = strings.Join(strings.Fields(text), " ")
		}
	}
	return comments
}
