// Package canonjson knows JSON as Matrix signs it: it checks JSON more strictly
// than encoding/json does (UTF-8, no duplicate keys, no lone surrogates, bounded
// depth), brings it into canonical form, and reads single values out of
// canonical bytes without decoding the rest. It knows nothing of events.
package canonjson

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// MaxDepth is how deep arrays and objects may be nested.
const MaxDepth = 100

// MaxInt is the largest integer of canonical JSON; -MaxInt is the smallest.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#canonical-json
const MaxInt = 1<<53 - 1

// Numbers tells which numbers are taken.
type Numbers uint8

const (
	// Whole takes numbers whose value is an integer within ±MaxInt, however
	// they are written: 1e3 becomes 1000 and -0 becomes 0.
	Whole Numbers = iota

	// Integers takes integers within ±MaxInt that are written as such. This is
	// what events of room version 6 and later must keep to.
	Integers

	// Any takes every number that fits a double, and integers of any size.
	// Events of room versions 1 to 5 may hold them.
	Any
)

// Error tells what is wrong with a JSON text and at which byte.
type Error struct {
	Offset int
	Text   string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%s at byte %d", e.Text, e.Offset) }

// Canonical brings one JSON value into canonical form: the shortest encoding,
// keys sorted by code point, only integers within ±MaxInt. It refuses other
// numbers, invalid UTF-8, lone surrogates, duplicate keys and more than
// MaxDepth levels with *Error. The answer is b itself if b is canonical.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#canonical-json
func Canonical(b []byte) ([]byte, error) { return Encode(b, Whole) }

// Enforced is Canonical for events of room version 6 and later: numbers with a
// fraction or an exponent are refused even if their value is an integer.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v6/#canonical-json
func Enforced(b []byte) ([]byte, error) { return Encode(b, Integers) }

// Relaxed is Canonical for events of room versions 1 to 5, whose numbers may be
// too large or have fractions. Integers keep their digits; other numbers become
// the shortest decimal that is the same double, written as the first servers did
// (1.0, 0.0001, 1e-05, 1e+16), because hashes depend on it.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v1/#canonical-json
func Relaxed(b []byte) ([]byte, error) { return Encode(b, Any) }

// Encode brings one JSON value into canonical form with the numbers that n
// takes. The answer is b itself if b is canonical.
func Encode(b []byte, n Numbers) ([]byte, error) {
	if end := scan(b, 0, 0); end == len(b) {
		return b, nil
	}
	e := encoder{src: b, numbers: n, dst: make([]byte, 0, len(b))}
	if err := e.document(); err != nil {
		return nil, err
	}
	return e.dst, nil
}

// Valid checks b as strictly as Canonical does, except that every number of the
// JSON grammar is taken.
func Valid(b []byte) error {
	if end := scan(b, 0, 0); end == len(b) {
		return nil
	}
	e := encoder{src: b, numbers: verbatim, dst: make([]byte, 0, len(b))}
	return e.document()
}

// Marshal encodes v with encoding/json and brings it into canonical form.
func Marshal(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return Canonical(b)
}

// Member is one key of an object with its value.
type Member struct {
	Key   []byte // canonical, without the quotes; escapes as in Value
	Value []byte // canonical
}

// Members appends the members of the JSON object obj to dst, sorted by key and
// in canonical form. They alias obj where it is canonical already. It refuses
// what Encode refuses, and values that are no object.
func Members(dst []Member, obj []byte, n Numbers) ([]Member, error) {
	e := encoder{src: obj, numbers: n}
	e.space()
	if e.peek() != '{' {
		return nil, e.fail("expected an object")
	}
	e.pos++
	e.depth = 1
	e.space()
	base, sorted := len(dst), true
	for more := e.peek() != '}'; more; {
		m, err := e.member()
		if err != nil {
			return nil, err
		}
		if len(dst) > base {
			switch c := compareKeys(dst[len(dst)-1].Key, m.Key); {
			case c == 0:
				return nil, e.fail("duplicate key")
			case c > 0:
				sorted = false
			}
		}
		dst = append(dst, m)
		e.space()
		switch e.peek() {
		case '}':
			more = false
		case ',':
			e.pos++
			e.space()
		default:
			return nil, e.fail("expected , or }")
		}
	}
	e.pos++
	e.space()
	if e.pos != len(obj) {
		return nil, e.fail("unexpected text behind the value")
	}
	if !sorted {
		if !sortMembers(dst[base:]) {
			return nil, e.fail("duplicate key")
		}
	}
	return dst, nil
}

// member reads one member at pos, aliasing src where that is canonical.
func (e *encoder) member() (Member, error) {
	var m Member
	if end, _ := scanString(e.src, e.pos); end > 0 {
		m.Key = e.src[e.pos+1 : end-1]
		e.pos = end
	} else {
		e.dst = nil
		if err := e.text(); err != nil {
			return m, err
		}
		m.Key = e.dst[1 : len(e.dst)-1]
	}
	e.space()
	if e.peek() != ':' {
		return m, e.fail("expected :")
	}
	e.pos++
	e.space()
	if end := scan(e.src, e.pos, e.depth); end > 0 {
		m.Value = e.src[e.pos:end]
		e.pos = end
		return m, nil
	}
	e.dst = make([]byte, 0, 64)
	if err := e.value(); err != nil {
		return m, err
	}
	m.Value = e.dst
	return m, nil
}

// Object appends an object made of members, which must be sorted and canonical,
// to dst. Members for which skip is true are left out; skip may be nil.
func Object(dst []byte, members []Member, skip func(key []byte) bool) []byte {
	dst = append(dst, '{')
	first := true
	for _, m := range members {
		if skip != nil && skip(m.Key) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, '"')
		dst = append(dst, m.Key...)
		dst = append(dst, '"', ':')
		dst = append(dst, m.Value...)
	}
	return append(dst, '}')
}

// compareKeys compares two keys in canonical form by code point.
func compareKeys(a, b []byte) int {
	if bytes.IndexByte(a, '\\') < 0 && bytes.IndexByte(b, '\\') < 0 {
		return bytes.Compare(a, b)
	}
	return bytes.Compare(unescape(nil, a), unescape(nil, b))
}
