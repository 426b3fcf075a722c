package pushrule

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// kind is the JSON type of a value.
type kind uint8

const (
	absent kind = iota
	null
	boolean
	integer
	text
	array
	object
	other // a number that is no integer of canonical JSON
)

// value is a property of an event, or what a condition compares one with.
type value struct {
	kind   kind
	truth  bool
	number int64
	text   string
	folded string  // text without case
	items  []value // the scalars of an array
	raw    []byte  // of an object
}

// maxInteger is the largest integer of canonical JSON.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#canonical-json
const maxInteger = 1<<53 - 1

// is tells whether two scalars are the same; compound values never are.
func (v *value) is(w *value) bool {
	if v.kind != w.kind {
		return false
	}
	switch v.kind {
	case null:
		return true
	case boolean:
		return v.truth == w.truth
	case integer:
		return v.number == w.number
	case text:
		return v.text == w.text
	}
	return false
}

// parse reads the one JSON value that b holds. What is not valid JSON is
// absent or cut short; it never panics.
func parse(b []byte) value {
	b = bytes.Trim(b, " \t\r\n")
	if len(b) == 0 {
		return value{}
	}
	switch b[0] {
	case 'n':
		return value{kind: null}
	case 't', 'f':
		return value{kind: boolean, truth: b[0] == 't'}
	case '"':
		s := unquote(b)
		return value{kind: text, text: s, folded: fold(s)}
	case '[':
		v := value{kind: array}
		elements(b, func(item []byte) {
			if item[0] == '[' || item[0] == '{' {
				return // no condition looks at compound elements
			}
			v.items = append(v.items, parse(item))
		})
		return v
	case '{':
		return value{kind: object, raw: b}
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil || n > maxInteger || n < -maxInteger {
		return value{kind: other}
	}
	return value{kind: integer, number: n}
}

// unquote decodes a JSON string.
func unquote(b []byte) string {
	if len(b) >= 2 && bytes.IndexByte(b, '\\') < 0 {
		return string(b[1 : len(b)-1])
	}
	var s string
	if json.Unmarshal(b, &s) != nil {
		return ""
	}
	return s
}

// members calls f with the name and the value of each member of an object.
func members(b []byte, f func(name string, raw []byte)) {
	if i := space(b, 0); i >= len(b) || b[i] != '{' {
		return
	}
	for i := space(b, space(b, 0)+1); i < len(b) && b[i] == '"'; {
		end := skip(b, i)
		colon := space(b, end)
		if end < 0 || colon >= len(b) || b[colon] != ':' {
			return
		}
		from := space(b, colon+1)
		to := skip(b, from)
		if to < 0 {
			return
		}
		f(unquote(b[i:end]), b[from:to])
		if i = space(b, to); i < len(b) && b[i] == ',' {
			i = space(b, i+1)
		}
	}
}

// elements calls f with each element of an array.
func elements(b []byte, f func(raw []byte)) {
	for i := space(b, 1); i < len(b) && b[i] != ']'; {
		to := skip(b, i)
		if to < 0 {
			return
		}
		f(b[i:to])
		if i = space(b, to); i < len(b) && b[i] == ',' {
			i = space(b, i+1)
		}
	}
}

// space returns the first place from i on that is not white space.
func space(b []byte, i int) int {
	for i >= 0 && i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// skip returns the end of the value that begins at i, or -1.
func skip(b []byte, i int) int {
	if i < 0 || i >= len(b) {
		return -1
	}
	depth := 0
	for start := i; i < len(b); i++ {
		switch b[i] {
		case '"':
			if i = quoteEnd(b, i); i < 0 {
				return -1
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // the end of what encloses a number or a word
				return end(start, i)
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return end(start, i)
			}
		}
	}
	if depth > 0 {
		return -1
	}
	return i
}

// end refuses an empty range.
func end(from, to int) int {
	if from == to {
		return -1
	}
	return to
}

// quoteEnd returns the place of the quote that ends the string at i, or -1.
func quoteEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// lookup walks down from an object to a property.
func lookup(obj []byte, path []string) value {
	for n, name := range path {
		var found []byte
		members(obj, func(m string, raw []byte) {
			if m == name {
				found = raw
			}
		})
		if found == nil {
			return value{}
		}
		if n == len(path)-1 {
			return parse(found)
		}
		obj = found
	}
	return value{}
}

// splitPath cuts a dot-separated property path into names.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#dot-separated-property-paths
func splitPath(key string) []string {
	var path []string
	var name strings.Builder
	for i := 0; i < len(key); i++ {
		switch c := key[i]; {
		case c == '.':
			path = append(path, name.String())
			name.Reset()
		case c == '\\' && i+1 < len(key) && (key[i+1] == '.' || key[i+1] == '\\'):
			i++
			name.WriteByte(key[i])
		default:
			name.WriteByte(c)
		}
	}
	return append(path, name.String())
}
