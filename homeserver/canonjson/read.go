package canonjson

import (
	"iter"
	"strconv"
	"unicode/utf8"
)

// The readers below take canonical JSON, which was checked before. They answer
// nothing, and never fail, where the bytes are something else.

// Fields iterates over the members of a canonical object: keys without their
// quotes, with escapes, and values.
func Fields(obj []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		if len(obj) < 2 || obj[0] != '{' {
			return
		}
		for i := 1; i < len(obj) && obj[i] == '"'; i++ {
			keyEnd := skipString(obj, i)
			if keyEnd < 0 || keyEnd >= len(obj) || obj[keyEnd] != ':' {
				return
			}
			end := skip(obj, keyEnd+1)
			if end <= keyEnd+1 || !yield(obj[i+1:keyEnd-1], obj[keyEnd+1:end]) {
				return
			}
			if i = end; i >= len(obj) || obj[i] != ',' {
				return
			}
		}
	}
}

// Elements iterates over the values of a canonical array.
func Elements(array []byte) iter.Seq[[]byte] {
	return func(yield func(value []byte) bool) {
		if len(array) < 2 || array[0] != '[' {
			return
		}
		for i := 1; i < len(array) && array[i] != ']'; i++ {
			end := skip(array, i)
			if end <= i || !yield(array[i:end]) {
				return
			}
			if i = end; i >= len(array) || array[i] != ',' {
				return
			}
		}
	}
}

// Lookup finds the value of key in a canonical object. The key must not need
// escapes.
func Lookup(obj []byte, key string) ([]byte, bool) {
	for k, v := range Fields(obj) {
		if string(k) == key {
			return v, true
		}
	}
	return nil, false
}

// Text decodes a canonical string value.
func Text(value []byte) (string, bool) {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return "", false
	}
	return Key(value[1 : len(value)-1]), true
}

// Key decodes a key as Fields and Members give it.
func Key(key []byte) string {
	for _, c := range key {
		if c == '\\' {
			return string(unescape(nil, key))
		}
	}
	return string(key)
}

// Int decodes an integer value. It answers false for values that are no integer
// or do not fit an int64.
func Int(value []byte) (int64, bool) {
	if len(value) == 0 || value[0] != '-' && (value[0] < '0' || value[0] > '9') {
		return 0, false
	}
	if len(value) > 18 {
		n, err := strconv.ParseInt(string(value), 10, 64)
		return n, err == nil
	}
	digits := value
	if value[0] == '-' {
		digits = value[1:]
	}
	var n int64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if len(digits) < len(value) {
		n = -n
	}
	return n, len(digits) > 0
}

// IsObject tells whether a canonical value is an object.
func IsObject(value []byte) bool { return len(value) > 1 && value[0] == '{' }

// IsArray tells whether a canonical value is an array.
func IsArray(value []byte) bool { return len(value) > 1 && value[0] == '[' }

// AppendText appends s as a canonical string, quotes included. Invalid UTF-8
// becomes U+FFFD.
func AppendText(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if c >= utf8.RuneSelf && (r != utf8.RuneError || n > 1) {
			i += n
			continue
		}
		dst = append(dst, s[from:i]...)
		dst = appendRune(dst, r)
		i += n
		from = i
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

// skip returns the end of the value at b[i], -1 if it has none.
func skip(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			if i = skipString(b, i); i < 0 {
				return -1
			}
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ',', ':':
			i++
		default:
			for i++; i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']'; i++ {
			}
		}
		switch {
		case depth == 0:
			return i
		case depth < 0: // a bracket that closes nothing
			return -1
		}
	}
	return -1
}

// skipString returns the end of the string at b[i], -1 if it has none.
func skipString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		if i = plain(b, i); i >= len(b) {
			return -1
		}
		switch b[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
	return -1
}

// unescape appends the characters of a string's inside, which may hold escapes.
func unescape(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			dst = append(dst, s[i])
			i++
			continue
		}
		r, n := decodeEscape(s[i:])
		if n == 0 {
			return dst
		}
		dst = utf8.AppendRune(dst, r)
		i += n
	}
	return dst
}
