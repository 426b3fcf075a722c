package canonjson

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

const (
	lows  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plain returns the index of the first byte at or behind i that ends a run of
// plain ASCII in a string: a quote, a backslash, a control or a non-ASCII byte.
// It is len(b) if there is none.
func plain(b []byte, i int) int {
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		quote, slash := x^(lows*'"'), x^(lows*'\\')
		// Each term has the high bit of a byte set if the byte is what we look
		// for. A borrow may set further bits, but only behind the first match.
		m := (x | (x-lows*0x20)&^x | (quote-lows)&^quote | (slash-lows)&^slash) & highs
		if m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return i
		}
	}
	return i
}

// scan returns the end of the canonical value that starts at b[i], below depth
// arrays and objects. It returns -1 if the value is wrong or only not canonical;
// an encoder finds out which. It allocates nothing.
func scan(b []byte, i, depth int) int {
	if i >= len(b) {
		return -1
	}
	switch c := b[i]; {
	case c == '"':
		end, _ := scanString(b, i)
		return end
	case c == '{':
		return scanObject(b, i, depth+1)
	case c == '[':
		return scanArray(b, i, depth+1)
	case c == '-' || c >= '0' && c <= '9':
		return scanInt(b, i)
	case c == 't':
		return scanWord(b, i, "true")
	case c == 'f':
		return scanWord(b, i, "false")
	case c == 'n':
		return scanWord(b, i, "null")
	}
	return -1
}

func scanWord(b []byte, i int, word string) int {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return -1
	}
	return i + len(word)
}

func scanObject(b []byte, i, depth int) int {
	if depth > MaxDepth {
		return -1
	}
	i++
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	var last []byte
	for first := true; ; first = false {
		end, escaped := scanString(b, i)
		if end < 0 {
			return -1
		}
		key := b[i+1 : end-1]
		if !first && !ascending(last, key, escaped) {
			return -1
		}
		last = key
		if end >= len(b) || b[end] != ':' {
			return -1
		}
		if i = scan(b, end+1, depth); i < 0 || i >= len(b) {
			return -1
		}
		switch b[i] {
		case '}':
			return i + 1
		case ',':
			i++
		default:
			return -1
		}
	}
}

// ascending tells whether key comes behind last.
func ascending(last, key []byte, escaped bool) bool {
	if !escaped {
		// The common case: a difference before any escape in last decides.
		n := min(len(last), len(key))
		for k := range n {
			if last[k] == '\\' {
				return compareKeys(last, key) < 0
			}
			if last[k] != key[k] {
				return last[k] < key[k]
			}
		}
		return len(last) < len(key)
	}
	return compareKeys(last, key) < 0
}

func scanArray(b []byte, i, depth int) int {
	if depth > MaxDepth {
		return -1
	}
	i++
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	for {
		if i = scan(b, i, depth); i < 0 || i >= len(b) {
			return -1
		}
		switch b[i] {
		case ']':
			return i + 1
		case ',':
			i++
		default:
			return -1
		}
	}
}

// scanInt takes what every rule about numbers writes like this: an integer
// within ±MaxInt, no leading zero, no -0.
func scanInt(b []byte, i int) int {
	neg := b[i] == '-'
	if neg {
		i++
	}
	if i >= len(b) || b[i] < '0' || b[i] > '9' {
		return -1
	}
	if b[i] == '0' {
		i++
		if neg || i < len(b) && b[i] >= '0' && b[i] <= '9' {
			return -1
		}
		return endOfInt(b, i)
	}
	var n uint64
	for start := i; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		if i-start >= 16 {
			return -1
		}
		n = n*10 + uint64(b[i]-'0')
	}
	if n > MaxInt {
		return -1
	}
	return endOfInt(b, i)
}

// endOfInt answers i unless the number goes on there with a fraction or exponent.
func endOfInt(b []byte, i int) int {
	if i < len(b) && (b[i] == '.' || b[i] == 'e' || b[i] == 'E') {
		return -1
	}
	return i
}

// scanString returns the end of the canonical string at b[i], and whether it
// holds escapes.
func scanString(b []byte, i int) (end int, escaped bool) {
	if i >= len(b) || b[i] != '"' {
		return -1, false
	}
	for i++; ; {
		i = plain(b, i)
		if i >= len(b) {
			return -1, false
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1, escaped
		case c == '\\':
			n := scanEscape(b[i:])
			if n == 0 {
				return -1, false
			}
			i += n
			escaped = true
		case c < 0x20:
			return -1, false
		default:
			r, n := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && n == 1 {
				return -1, false
			}
			i += n
		}
	}
}

// scanEscape returns the length of the canonical escape that b starts with, 0
// if it is another one.
func scanEscape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 || string(b[2:4]) != "00" {
			return 0
		}
		hi, lo := b[4], b[5]
		if hi != '0' && hi != '1' || !(lo >= '0' && lo <= '9' || lo >= 'a' && lo <= 'f') {
			return 0
		}
		if hi == '0' { // those with a short escape
			switch lo {
			case '8', '9', 'a', 'c', 'd':
				return 0
			}
		}
		return 6
	}
	return 0
}
