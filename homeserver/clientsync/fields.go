package clientsync

import (
	"encoding/json"
	"strings"

	"switchboard/homeserver/canonjson"
)

// fields are the parts of events that a client wants, as a tree of property
// names. A nil tree wants all that is below it.
type fields struct{ below map[string]fields }

// UnmarshalJSON reads a list of dot-separated paths.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#dot-separated-property-paths
func (f *fields) UnmarshalJSON(raw []byte) error {
	var paths []string
	if err := json.Unmarshal(raw, &paths); err != nil || paths == nil {
		return err
	}
	f.below = map[string]fields{}
	for _, p := range paths {
		f.add(splitPath(p))
	}
	return nil
}

func (f *fields) add(path []string) {
	name := path[0]
	next, known := f.below[name]
	switch {
	case known && next.below == nil:
		return // all of it is wanted already
	case len(path) == 1:
		next = fields{}
	default:
		if next.below == nil {
			next.below = map[string]fields{}
		}
		next.add(path[1:])
	}
	f.below[name] = next
}

// splitPath cuts a path at its dots. A backslash takes the meaning from a dot or
// a backslash behind it; before anything else it is an ordinary character.
func splitPath(path string) []string {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '.':
			parts = append(parts, part.String())
			part.Reset()
		case c == '\\' && i+1 < len(path) && (path[i+1] == '.' || path[i+1] == '\\'):
			i++
			part.WriteByte(path[i])
		default:
			part.WriteByte(c)
		}
	}
	return append(parts, part.String())
}

// all tells whether everything is wanted.
func (f fields) all() bool { return f.below == nil }

// pick appends to dst what is wanted of a JSON value.
func (f fields) pick(dst, value []byte) []byte {
	if f.all() {
		return append(dst, value...)
	}
	dst = append(dst, '{')
	first := true
	for key, v := range canonjson.Fields(value) {
		name := canonjson.Key(key)
		next, wanted := f.below[name]
		if !wanted || !next.all() && !canonjson.IsObject(v) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = canonjson.AppendText(dst, name)
		dst = append(dst, ':')
		dst = next.pick(dst, v)
	}
	return append(dst, '}')
}
