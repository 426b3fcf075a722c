package main

import (
	"encoding"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// mistake is one thing that is wrong with the configuration.
type mistake struct {
	origin string // "switchboard.yaml:12" or the name of a variable; "" for a default
	key    string // such as "listeners[0].address"; "" for the whole file
	text   string
}

// Error implements error.
func (m *mistake) Error() string {
	var parts []string
	for _, part := range []string{m.origin, m.key, m.text} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

// loader fills a configuration from a file and from the environment. It goes
// on after a mistake, so that all are told at once.
type loader struct {
	file     string            // its name, for messages
	origins  map[string]string // where the value of a key came from
	mistakes []error
	warnings []string
}

func (l *loader) bad(origin, key, format string, args ...any) {
	l.mistakes = append(l.mistakes, &mistake{origin, key, fmt.Sprintf(format, args...)})
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

// read takes the values of a file into the struct that config points to.
func (l *loader) read(name string, b []byte, config any) {
	l.file = name
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		origin, text := name, err.Error()
		if m := yamlLine.FindStringSubmatch(text); m != nil {
			if text = m[2]; m[1] != "" {
				origin += ":" + m[1]
			}
		}
		l.bad(origin, "", "not YAML: %s", text)
		return
	}
	if len(doc.Content) > 0 { // an empty file is right
		l.set("", doc.Content[0], reflect.ValueOf(config).Elem(), "")
	}
}

// where is the place of a node for messages.
func (l *loader) where(n *yaml.Node) string { return l.file + ":" + strconv.Itoa(n.Line) }

// set puts what a node says into v.
func (l *loader) set(key string, n *yaml.Node, v reflect.Value, tag reflect.StructTag) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if key != "" {
		l.origins[key] = l.where(n)
	}
	switch {
	case isScalar(v.Type()):
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			l.bad(l.where(n), key, "must be %s, not %s", expected(v, tag), describe(n))
		} else if err := setText(v, tag, n.Value); err != nil {
			l.bad(l.where(n), key, "%v", err)
		}
	case n.Tag == "!!null": // a key with nothing behind it keeps its default
	case v.Kind() == reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		l.set(key, n, v.Elem(), tag)
	case v.Kind() == reflect.Struct:
		l.setStruct(key, n, v)
	case v.Kind() == reflect.Slice:
		l.setSlice(key, n, v, tag)
	case v.Kind() == reflect.Map:
		l.setMap(key, n, v, tag)
	}
}

func (l *loader) setStruct(key string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		l.bad(l.where(n), key, "must be keys and values, not %s", describe(n))
		return
	}
	known := fields(v)
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, line := n.Content[i].Value, n.Content[i].Line
		at := slices.IndexFunc(known, func(f field) bool { return f.name == name })
		switch {
		case seen[name] != 0:
			l.bad(l.where(n.Content[i]), join(key, name), "stands here a second time; the first is in line %d", seen[name])
		case at < 0:
			l.bad(l.where(n.Content[i]), join(key, name), "%s", unknownKey(name, known))
		default:
			l.set(join(key, name), n.Content[i+1], known[at].value, known[at].tag)
		}
		seen[name] = line
	}
}

// setSlice replaces a list. One value alone counts as a list of one.
func (l *loader) setSlice(key string, n *yaml.Node, v reflect.Value, tag reflect.StructTag) {
	items := n.Content
	switch {
	case n.Kind == yaml.ScalarNode && isScalar(v.Type().Elem()):
		items = []*yaml.Node{n}
	case n.Kind != yaml.SequenceNode:
		l.bad(l.where(n), key, "must be a list, not %s", describe(n))
		return
	}
	list := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		l.setItem(fmt.Sprintf("%s[%d]", key, i), item, list.Index(i), tag)
	}
	v.Set(list)
}

// setMap replaces entries of a map, whose keys are the operator's own.
func (l *loader) setMap(key string, n *yaml.Node, v reflect.Value, tag reflect.StructTag) {
	if n.Kind != yaml.MappingNode {
		l.bad(l.where(n), key, "must be names and values, not %s", describe(n))
		return
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		item := reflect.New(v.Type().Elem()).Elem()
		l.setItem(join(key, n.Content[i].Value), n.Content[i+1], item, tag)
		v.SetMapIndex(reflect.ValueOf(n.Content[i].Value).Convert(v.Type().Key()), item)
	}
}

// defaulter is an item of a list or map that has defaults of its own.
type defaulter interface{ SetDefaults() }

func (l *loader) setItem(key string, n *yaml.Node, v reflect.Value, tag reflect.StructTag) {
	if d, ok := v.Addr().Interface().(defaulter); ok {
		d.SetDefaults()
	}
	l.set(key, n, v, tag)
}

// environment takes the values of the variables, in which "name=value" stands,
// into the struct that config points to. They win over the file.
func (l *loader) environment(variables []string, config any) {
	values := map[string]string{}
	for _, s := range variables {
		if name, value, ok := strings.Cut(s, "="); ok && strings.HasPrefix(name, variablePrefix) {
			values[name] = value
		}
	}
	var known []string
	walk("", reflect.ValueOf(config).Elem(), func(key string, f field) {
		name := variable(key)
		known = append(known, name)
		text, given := values[name]
		if f.secret() {
			known = append(known, name+"_FILE")
			if file, ok := values[name+"_FILE"]; ok {
				if given {
					l.bad(name+"_FILE", key, "stands beside %s; only one of them may be set", name)
				}
				b, err := os.ReadFile(file)
				if err != nil {
					l.bad(name+"_FILE", key, "%v", err)
					return
				}
				text, given, name = strings.TrimRight(string(b), "\r\n"), true, name+"_FILE"
			}
		}
		if given {
			l.setVariable(name, key, text, f)
		}
	})
	for name := range values {
		if !slices.Contains(known, name) && !slices.ContainsFunc(foreignVariables, func(p string) bool { return strings.HasPrefix(name, p) }) {
			l.warnings = append(l.warnings, "the environment variable "+name+" means nothing"+didYouMean(name, known))
		}
	}
	slices.Sort(l.warnings)
}

const variablePrefix = "SWITCHBOARD_"

// foreignVariables begin so and are none of ours: for the command line and the
// tests, and those that Kubernetes and Docker set for a service of our name.
var foreignVariables = []string{"SWITCHBOARD_CONFIG", "SWITCHBOARD_BIN", "SWITCHBOARD_TEST_", "SWITCHBOARD_COMPLEMENT_", "SWITCHBOARD_PORT", "SWITCHBOARD_SERVICE_"}

// variable is the name of the environment variable of a key.
func variable(key string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// setVariable takes the text of a variable: the value alone, or YAML where the
// key takes more. A list of plain values may also have commas between them.
func (l *loader) setVariable(name, key, text string, f field) {
	l.origins[key] = name
	t := f.value.Type()
	if isScalar(t) {
		if err := setText(f.value, f.tag, text); err != nil {
			l.bad(name, key, "%v", err)
		}
		return
	}
	if t.Kind() == reflect.Slice && isScalar(t.Elem()) && !strings.HasPrefix(strings.TrimSpace(text), "[") {
		list := reflect.MakeSlice(t, 0, 4)
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item == "" {
				continue
			}
			v := reflect.New(t.Elem()).Elem()
			if err := setText(v, f.tag, item); err != nil {
				l.bad(name, key, "%v", err)
			}
			list = reflect.Append(list, v)
		}
		f.value.Set(list)
		return
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil || len(doc.Content) == 0 {
		l.bad(name, key, "must be YAML, such as %s", flowExample(t))
		return
	}
	inner := &loader{file: name, origins: map[string]string{}}
	inner.set(key, doc.Content[0], f.value, f.tag)
	l.mistakes = append(l.mistakes, inner.mistakes...)
}

func flowExample(t reflect.Type) string {
	if t.Kind() == reflect.Map {
		return "{name: value}"
	}
	return "[{key: value}]"
}

// doubtful are the sections in which there is a mistake: a Check would blame
// them, or others on their account, for what was only misspelt. All are if the
// mistake is none of a section that is known.
func (l *loader) doubtful(known []field) (sections []string, all bool) {
	for _, err := range l.mistakes {
		var m *mistake
		if !errors.As(err, &m) {
			return nil, true
		}
		name := topmost(m.key)
		if !slices.ContainsFunc(known, func(f field) bool { return f.name == name }) {
			return nil, true
		}
		sections = append(sections, name)
	}
	return sections, false
}

// topmost is the section of a key.
func topmost(key string) string {
	if i := strings.IndexAny(key, ".["); i >= 0 {
		return key[:i]
	}
	return key
}

// checked adds what a Check found, each error beginning with its key, and says
// where the value of the key stands. What has to do with a doubtful section is
// left out.
func (l *loader) checked(err error, doubtful []string) {
	for _, err := range flatten(err) {
		key, text, ok := strings.Cut(err.Error(), ": ")
		switch {
		case !ok:
			l.mistakes = append(l.mistakes, err)
		case !slices.ContainsFunc(doubtful, func(s string) bool { return topmost(key) == s || strings.Contains(text, s) }):
			l.bad(l.origin(key), key, "%s", text)
		}
	}
}

// origin is the place of a key, or of the nearest one above it that is set.
func (l *loader) origin(key string) string {
	for key != "" {
		if o := l.origins[key]; o != "" {
			return o
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return ""
}

// err joins all mistakes; nil if there are none.
func (l *loader) err() error { return errors.Join(l.mistakes...) }

// field is one key of a section.
type field struct {
	name  string // in the file
	value reflect.Value
	tag   reflect.StructTag
}

// secret tells whether the value must not be shown.
func (f field) secret() bool { return f.tag.Get("secret") == "true" }

// fields lists the keys of a struct in order. Embedded structs are part of it.
func fields(v reflect.Value) []field {
	var list []field
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		name, option, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		switch {
		case option == "inline":
			list = append(list, fields(v.Field(i))...)
		case name != "" && name != "-":
			list = append(list, field{name, v.Field(i), sf.Tag})
		}
	}
	return list
}

// walk visits every key that holds a value and not further keys.
func walk(key string, v reflect.Value, visit func(key string, f field)) {
	for _, f := range fields(v) {
		if full := join(key, f.name); f.value.Kind() == reflect.Struct && !isScalar(f.value.Type()) {
			walk(full, f.value, visit)
		} else {
			visit(full, f)
		}
	}
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// isScalar tells whether a type is written as one word.
func isScalar(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(textUnmarshaler) {
		return true
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Slice, reflect.Map, reflect.Pointer:
		return false
	}
	return true
}

// describe names what stands in the file. It shows no values: they may be
// secrets.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "keys and values"
	case n.Tag == "!!null":
		return "empty"
	}
	return "one value"
}

// unknownKey tells what is allowed in the place of a key.
func unknownKey(name string, known []field) string {
	names := make([]string, len(known))
	for i, f := range known {
		names[i] = f.name
	}
	return "unknown key" + didYouMean(name, names) + "; known here: " + strings.Join(names, ", ")
}

// didYouMean names the word that is most like s, if one is.
func didYouMean(s string, words []string) string {
	best, least := "", len(s)/3+1
	for _, w := range words {
		if d := distance(s, w); d <= least && w != s {
			best, least = w, d-1
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is how many letters must be added, dropped or replaced to make b of
// a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
