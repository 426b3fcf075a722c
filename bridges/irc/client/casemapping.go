package client

import "strings"

// Casemapping is the name of a rule by which a network compares nicks and
// channel names, as in the CASEMAPPING token.
type Casemapping string

// The casemappings in use. A name that is none of them is taken for one of the
// Unicode mappings, for which Fold uses Go's lower case.
const (
	ASCII         Casemapping = "ascii"
	RFC1459       Casemapping = "rfc1459"
	RFC1459Strict Casemapping = "rfc1459-strict"
)

// parseCasemapping accepts both spellings of the strict mapping. The empty
// string is RFC 1459's mapping, which holds when a server says nothing.
func parseCasemapping(s string) Casemapping {
	switch m := Casemapping(strings.ToLower(s)); m {
	case "":
		return RFC1459
	case "strict-rfc1459":
		return RFC1459Strict
	default:
		return m
	}
}

// Fold returns the form of a nick or channel name under which equal names are
// equal strings. Folding twice changes nothing.
func (m Casemapping) Fold(s string) string {
	switch m {
	case ASCII:
		return foldBytes(s, 'Z')
	case RFC1459, "":
		return foldBytes(s, '^')
	case RFC1459Strict:
		return foldBytes(s, ']')
	default:
		return strings.ToLower(s)
	}
}

// foldBytes adds 0x20 to the bytes from 'A' to last. In ASCII the characters
// [ \ ] ^ follow Z, and their lower-case forms { | } ~ follow z, which is how
// RFC 1459 came to treat them as letters.
func foldBytes(s string, last byte) string {
	fold := func(b byte) bool { return 'A' <= b && b <= last }
	i := 0
	for i < len(s) && !fold(s[i]) {
		i++
	}
	if i == len(s) {
		return s
	}
	b := []byte(s)
	for ; i < len(b); i++ {
		if fold(b[i]) {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}
