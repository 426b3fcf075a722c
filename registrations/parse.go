package registrations

import (
	"errors"
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Mistake is one thing that is wrong with a registration file.
type Mistake struct {
	File string // as given to Parse
	Line int    // 1 is the first; 0 if it is not known
	Key  string // such as "namespaces.users[0].regex"; "" for the whole file
	Text string
}

// Error implements error.
func (m *Mistake) Error() string {
	s := m.File
	if m.Line > 0 {
		s += ":" + strconv.Itoa(m.Line)
	}
	if m.Key != "" {
		s += ": " + m.Key
		return s + " " + m.Text
	}
	return s + ": " + m.Text
}

// Parse reads a registration file; file is its name for messages. The error
// joins a Mistake for everything that is wrong, in the order of the lines.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#registration
func Parse(file string, b []byte) (*Registration, error) {
	p := &parser{file: file, lines: map[string]int{}}
	reg := &Registration{RateLimited: true}
	if root := p.document(b); root != nil {
		p.registration(root, reg)
	}
	if len(p.lines) > 0 {
		check(reg, func(key, text string) {
			if !p.wrong(key) {
				p.bad(p.lines[key], key, "%s", text)
			}
		})
	}
	if len(p.mistakes) == 0 {
		return reg, nil
	}
	sort.SliceStable(p.mistakes, func(i, j int) bool { return p.mistakes[i].Line < p.mistakes[j].Line })
	errs := make([]error, len(p.mistakes))
	for i, m := range p.mistakes {
		errs[i] = m
	}
	return nil, errors.Join(errs...)
}

// parser walks the nodes of a file and collects mistakes.
type parser struct {
	file     string
	lines    map[string]int // of the values, by key
	mistakes []*Mistake
}

func (p *parser) bad(line int, key, format string, args ...any) {
	p.mistakes = append(p.mistakes, &Mistake{File: p.file, Line: line, Key: key, Text: fmt.Sprintf(format, args...)})
}

// wrong tells whether a mistake of key is known already.
func (p *parser) wrong(key string) bool {
	for _, m := range p.mistakes {
		if m.Key == key {
			return true
		}
	}
	return false
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

// document gives the top mapping of the file, or nil.
func (p *parser) document(b []byte) *yaml.Node {
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		line, text := 0, err.Error()
		if m := yamlLine.FindStringSubmatch(text); m != nil {
			line, _ = strconv.Atoi(m[1])
			text = m[2]
		}
		p.bad(line, "", "not YAML: %s", text)
		return nil
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		p.bad(0, "", "the file is empty")
		return nil
	}
	return doc.Content[0]
}

// registration reads the top mapping. What is there but empty is told by check.
func (p *parser) registration(root *yaml.Node, r *Registration) {
	var newName, oldName bool
	setters := map[string]func(string, *yaml.Node){
		"id":                                 p.text(&r.ID),
		"as_token":                           p.text(&r.ASToken),
		"hs_token":                           p.text(&r.HSToken),
		"sender_localpart":                   p.text(&r.SenderLocalpart),
		"rate_limited":                       p.flag(&r.RateLimited),
		"receive_ephemeral":                  p.flag(&newName),
		"de.sorunome.msc2409.push_ephemeral": p.flag(&oldName),
		"org.matrix.msc3202":                 p.flag(&r.MSC3202),
		"io.element.msc4190":                 p.flag(&r.MSC4190),
		"protocols":                          p.texts(&r.Protocols),
		"url": func(key string, n *yaml.Node) {
			if n.Tag != "!!null" {
				p.text(&r.URL)(key, n)
				r.URL = strings.TrimRight(r.URL, "/")
			}
		},
		"namespaces": func(key string, n *yaml.Node) {
			p.mapping(key, n, map[string]func(string, *yaml.Node){
				"users": p.namespaces(&r.Users), "rooms": p.namespaces(&r.Rooms), "aliases": p.namespaces(&r.Aliases),
			}, &r.Unknown)
		},
	}
	p.mapping("", root, setters, &r.Unknown)
	for _, key := range []string{"id", "url", "as_token", "hs_token", "sender_localpart", "namespaces"} {
		if p.lines[key] == 0 && root.Kind == yaml.MappingNode {
			p.bad(0, key, "is missing")
		}
	}
	r.ReceiveEphemeral = newName || oldName
}

// mapping gives each value of a mapping to the setter of its key. Keys without
// one are collected in unknown.
func (p *parser) mapping(key string, n *yaml.Node, setters map[string]func(string, *yaml.Node), unknown *[]string) {
	if n = resolve(n); n.Kind != yaml.MappingNode {
		p.bad(n.Line, key, "must be a list of keys and values, not %s", describe(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i].Value, resolve(n.Content[i+1])
		full := name
		if key != "" {
			full = key + "." + name
		}
		p.lines[full] = value.Line
		set, known := setters[name]
		switch {
		case seen[name]:
			p.bad(n.Content[i].Line, full, "stands here a second time")
		case known:
			set(full, value)
		default:
			*unknown = append(*unknown, full)
		}
		seen[name] = true
	}
}

// text reads a string.
func (p *parser) text(to *string) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
			p.bad(n.Line, key, "must be a text, not %s", describe(n))
			return
		}
		*to = n.Value
	}
}

// flag reads true or false.
func (p *parser) flag(to *bool) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || n.Decode(to) != nil {
			p.bad(n.Line, key, "must be true or false, not %s", describe(n))
		}
	}
}

// texts reads a list of strings; null is an empty one.
func (p *parser) texts(to *[]string) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		p.list(key, n, func(key string, n *yaml.Node) {
			var s string
			p.text(&s)(key, n)
			*to = append(*to, s)
		})
	}
}

// namespaces reads a list of namespaces; null is an empty one.
func (p *parser) namespaces(to *[]Namespace) func(string, *yaml.Node) {
	return func(key string, n *yaml.Node) {
		p.list(key, n, func(key string, n *yaml.Node) {
			var space Namespace
			var unknown []string // such as group_id of old files
			p.mapping(key, n, map[string]func(string, *yaml.Node){
				"regex": p.text(&space.Regex), "exclusive": p.flag(&space.Exclusive),
			}, &unknown)
			if n.Kind == yaml.MappingNode && p.lines[key+".exclusive"] == 0 {
				p.bad(n.Line, key+".exclusive", "is missing: true or false")
			}
			if p.lines[key+".regex"] == 0 {
				p.lines[key+".regex"] = n.Line
			}
			*to = append(*to, space)
		})
	}
}

func (p *parser) list(key string, n *yaml.Node, item func(string, *yaml.Node)) {
	if n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.SequenceNode {
		p.bad(n.Line, key, "must be a list, not %s", describe(n))
		return
	}
	for i, c := range n.Content {
		item(fmt.Sprintf("%s[%d]", key, i), resolve(c))
	}
}

// resolve follows an alias. The target of one is never another.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// describe names what stands in the file instead. It shows no values: they may
// be tokens.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "keys and values"
	case n.Tag == "!!null":
		return "nothing"
	case n.Tag == "!!int" || n.Tag == "!!float":
		return "a number (put it in quotes if it is a text)"
	case n.Tag == "!!bool":
		return "true or false (put it in quotes if it is a text)"
	case n.Tag == "!!str":
		return "a text"
	}
	return "a " + strings.TrimPrefix(n.Tag, "!!")
}
