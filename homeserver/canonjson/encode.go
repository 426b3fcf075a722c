package canonjson

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// verbatim takes every number of the JSON grammar and keeps it. The result is
// not canonical, so it only serves Valid.
const verbatim Numbers = 255

// encoder reads JSON from src and appends its canonical form to dst, in one pass.
type encoder struct {
	src     []byte
	pos     int
	depth   int
	numbers Numbers
	dst     []byte

	segments []segment // of the objects that are open, innermost last
	scratch  []byte
}

// segment is where a member stands in dst.
type segment struct {
	start, keyEnd, end int // of "key":value; keyEnd is behind the closing quote
}

func (e *encoder) fail(text string) error { return &Error{Offset: e.pos, Text: text} }

// peek is the byte at pos, 0 at the end.
func (e *encoder) peek() byte {
	if e.pos < len(e.src) {
		return e.src[e.pos]
	}
	return 0
}

func (e *encoder) space() {
	for e.pos < len(e.src) {
		switch e.src[e.pos] {
		case ' ', '\n', '\t', '\r':
			e.pos++
		default:
			return
		}
	}
}

// document reads exactly one value with space around it.
func (e *encoder) document() error {
	e.space()
	if err := e.value(); err != nil {
		return err
	}
	e.space()
	if e.pos != len(e.src) {
		return e.fail("unexpected text behind the value")
	}
	return nil
}

func (e *encoder) value() error {
	switch c := e.peek(); {
	case c == '"':
		return e.text()
	case c == '{' || c == '[':
		return e.nested(c)
	case c == '-' || c >= '0' && c <= '9':
		return e.number()
	}
	for _, w := range [...]string{"true", "false", "null"} {
		if end := scanWord(e.src, e.pos, w); end > 0 {
			e.pos = end
			e.dst = append(e.dst, w...)
			return nil
		}
	}
	return e.fail("expected a value")
}

func (e *encoder) nested(c byte) error {
	if e.depth++; e.depth > MaxDepth {
		return e.fail("nested too deep")
	}
	e.pos++
	e.space()
	var err error
	if c == '{' {
		err = e.object()
	} else {
		err = e.array()
	}
	e.depth--
	return err
}

func (e *encoder) array() error {
	e.dst = append(e.dst, '[')
	if e.peek() == ']' {
		e.pos++
		e.dst = append(e.dst, ']')
		return nil
	}
	for {
		if err := e.value(); err != nil {
			return err
		}
		e.space()
		switch e.peek() {
		case ']':
			e.pos++
			e.dst = append(e.dst, ']')
			return nil
		case ',':
			e.pos++
			e.space()
			e.dst = append(e.dst, ',')
		default:
			return e.fail("expected , or ]")
		}
	}
}

func (e *encoder) object() error {
	e.dst = append(e.dst, '{')
	base := len(e.segments)
	if e.peek() == '}' {
		e.pos++
		e.dst = append(e.dst, '}')
		return nil
	}
	for {
		var s segment
		s.start = len(e.dst)
		if e.peek() != '"' {
			return e.fail("expected a key")
		}
		if err := e.text(); err != nil {
			return err
		}
		s.keyEnd = len(e.dst)
		e.space()
		if e.peek() != ':' {
			return e.fail("expected :")
		}
		e.pos++
		e.space()
		e.dst = append(e.dst, ':')
		if err := e.value(); err != nil {
			return err
		}
		s.end = len(e.dst)
		e.segments = append(e.segments, s)
		e.space()
		switch e.peek() {
		case '}':
			if err := e.order(e.segments[base:]); err != nil {
				return err
			}
			e.segments = e.segments[:base]
			e.pos++
			e.dst = append(e.dst, '}')
			return nil
		case ',':
			e.pos++
			e.space()
			e.dst = append(e.dst, ',')
		default:
			return e.fail("expected , or }")
		}
	}
}

// order sorts the members of one object, which stand at the end of dst.
func (e *encoder) order(members []segment) error {
	key := func(s segment) []byte { return e.dst[s.start+1 : s.keyEnd-1] }
	sorted := true
	for i := 1; i < len(members) && sorted; i++ {
		sorted = compareKeys(key(members[i-1]), key(members[i])) < 0
	}
	if sorted {
		return nil
	}
	start := members[0].start
	slices.SortFunc(members, func(a, b segment) int { return compareKeys(key(a), key(b)) })
	e.scratch = e.scratch[:0]
	for i, m := range members {
		if i > 0 {
			if bytes.Equal(key(members[i-1]), key(m)) {
				return e.fail("duplicate key")
			}
			e.scratch = append(e.scratch, ',')
		}
		e.scratch = append(e.scratch, e.dst[m.start:m.end]...)
	}
	copy(e.dst[start:], e.scratch)
	return nil
}

// sortMembers sorts by key. It answers false if a key is there twice.
func sortMembers(members []Member) bool {
	slices.SortFunc(members, func(a, b Member) int { return compareKeys(a.Key, b.Key) })
	for i := 1; i < len(members); i++ {
		if bytes.Equal(members[i-1].Key, members[i].Key) {
			return false
		}
	}
	return true
}

// text reads a string.
func (e *encoder) text() error {
	if e.peek() != '"' {
		return e.fail("expected a string")
	}
	e.pos++
	e.dst = append(e.dst, '"')
	for {
		end := plain(e.src, e.pos)
		e.dst = append(e.dst, e.src[e.pos:end]...)
		e.pos = end
		switch c := e.peek(); {
		case end == len(e.src):
			return e.fail("unfinished string")
		case c == '"':
			e.pos++
			e.dst = append(e.dst, '"')
			return nil
		case c == '\\':
			r, n := decodeEscape(e.src[e.pos:])
			if n == 0 {
				return e.fail("invalid escape")
			}
			e.pos += n
			e.dst = appendRune(e.dst, r)
		case c < 0x20:
			return e.fail("control character in a string")
		default:
			r, n := utf8.DecodeRune(e.src[e.pos:])
			if r == utf8.RuneError && n == 1 {
				return e.fail("invalid UTF-8")
			}
			e.dst = append(e.dst, e.src[e.pos:e.pos+n]...)
			e.pos += n
		}
	}
}

// decodeEscape decodes the escape that b starts with and returns its length, 0
// if it is wrong. A pair of surrogates is one escape; one alone is wrong.
func decodeEscape(b []byte) (r rune, n int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return rune(b[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, ok := hex4(b[2:])
		if !ok {
			return 0, 0
		}
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		if len(b) < 12 || b[6] != '\\' || b[7] != 'u' {
			return 0, 0
		}
		low, ok := hex4(b[8:])
		if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
			return 0, 0
		}
		return r, 12
	}
	return 0, 0
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// appendRune appends a character of a string as canonical JSON writes it.
func appendRune(dst []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case '\b':
		return append(dst, `\b`...)
	case '\f':
		return append(dst, `\f`...)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	case '\t':
		return append(dst, `\t`...)
	}
	if r < 0x20 {
		const digits = "0123456789abcdef"
		return append(dst, '\\', 'u', '0', '0', digits[r>>4], digits[r&15])
	}
	return utf8.AppendRune(dst, r)
}

// number reads a number by the JSON grammar and writes it as numbers says.
func (e *encoder) number() error {
	start := e.pos
	digits := func() int {
		from := e.pos
		for c := e.peek(); c >= '0' && c <= '9'; c = e.peek() {
			e.pos++
		}
		return e.pos - from
	}
	if e.peek() == '-' {
		e.pos++
	}
	zero := e.peek() == '0'
	if n := digits(); n == 0 || zero && n > 1 {
		return e.fail("invalid number")
	}
	whole := true
	if e.peek() == '.' {
		e.pos++
		whole = false
		if digits() == 0 {
			return e.fail("invalid number")
		}
	}
	if c := e.peek(); c == 'e' || c == 'E' {
		e.pos++
		whole = false
		if c := e.peek(); c == '+' || c == '-' {
			e.pos++
		}
		if digits() == 0 {
			return e.fail("invalid number")
		}
	}
	lit := string(e.src[start:e.pos])
	out, ok := canonicalNumber(lit, whole, e.numbers)
	if !ok {
		e.pos = start
		return e.fail("number that is no integer within ±(2^53-1)")
	}
	e.dst = append(e.dst, out...)
	return nil
}

// canonicalNumber writes a number that keeps to the JSON grammar; whole tells
// that it has neither fraction nor exponent.
func canonicalNumber(lit string, whole bool, n Numbers) (string, bool) {
	switch {
	case n == verbatim:
		return lit, true
	case whole && lit == "-0":
		return "0", true
	case whole && n == Any:
		return lit, true
	case whole:
		i, err := strconv.ParseInt(lit, 10, 64)
		return lit, err == nil && -MaxInt <= i && i <= MaxInt
	case n == Whole:
		return wholeNumber(lit)
	case n == Any:
		return double(lit)
	}
	return "", false
}

// wholeNumber writes a number with fraction or exponent as an integer, if its
// exact value is one within ±MaxInt.
func wholeNumber(lit string) (string, bool) {
	sign := ""
	if lit[0] == '-' {
		sign, lit = "-", lit[1:]
	}
	mantissa, exp, power := lit, "", 0
	if i := strings.IndexAny(lit, "eE"); i >= 0 {
		mantissa, exp = lit[:i], lit[i+1:]
	}
	integer, fraction, _ := strings.Cut(mantissa, ".")
	all := strings.TrimLeft(integer+fraction, "0")
	significant := strings.TrimRight(all, "0")
	if significant == "" {
		return "0", true
	}
	if exp != "" {
		var err error
		if power, err = strconv.Atoi(exp); err != nil || power > 1<<20 || power < -(1<<20) {
			return "", false
		}
	}
	power += len(all) - len(significant) - len(fraction)
	if power < 0 || len(significant)+power > 16 {
		return "", false
	}
	significant += strings.Repeat("0", power)
	if i, err := strconv.ParseInt(significant, 10, 64); err != nil || i > MaxInt {
		return "", false
	}
	return sign + significant, true
}

// double writes a number as the shortest decimal that is the same double: with
// an exponent only below 1e-4 and from 1e16 on, and never without a point.
func double(lit string) (string, bool) {
	f, err := strconv.ParseFloat(lit, 64)
	if err != nil || math.IsInf(f, 0) {
		return "", false
	}
	scientific := strconv.FormatFloat(f, 'e', -1, 64)
	power, err := strconv.Atoi(scientific[strings.IndexByte(scientific, 'e')+1:])
	if err != nil {
		return "", false
	}
	if power < -4 || power >= 16 {
		return scientific, true
	}
	fixed := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(fixed, ".") {
		fixed += ".0"
	}
	return fixed, true
}
