// Package packed knows the short form in which events rest in the database. It
// replaces the words that every event has, base64, long numbers and what is said
// twice by bytes that JSON text cannot have; everything else stays as it is. So
// any text comes back byte for byte, whatever the room version, and no state is
// shared between events. It does not know what the text means.
//
// # Form
//
// Bytes from 0x20 to 0x7f and those of UTF-8 stand for themselves. The others are
// codes; what they stand for never changes:
//
//	00            the rest is verbatim (only as the first byte)
//	01 n bytes    n bytes in unpadded base64
//	02 n bytes    n bytes in unpadded URL-safe base64
//	03 n          the number n in decimal
//	04            the room's ID
//	05            the sender
//	06            the sender's server
//	07 n          the phrase n
//	08 to 1f      the phrases 0 to 23
//
// n are unsigned varints.
package packed

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
)

// The codes.
const (
	verbatim = iota
	standard
	urlSafe
	number
	roomID
	sender
	server
	phrase
	shortPhrase
	firstText = 0x20
)

const (
	shortPhrases = firstText - shortPhrase
	leastBase64  = 22 // characters that are worth a code
	leastNumber  = 4  // digits that are worth a code
	mostNumber   = 18 // digits that fit a uint64
)

var (
	standard64 = base64.RawStdEncoding.Strict()
	urlSafe64  = base64.RawURLEncoding.Strict()
)

// Known is what the database says about an event beside its text. It must be the
// same when the text is expanded as it was when it was packed.
type Known struct{ Room, Sender string }

// server is the sender's server.
func (k Known) server() string {
	_, name, _ := strings.Cut(k.Sender, ":")
	return name
}

// Append appends the packed form of text to dst.
func Append(dst, text []byte, k Known) []byte {
	if hasCode(text) {
		return append(append(dst, verbatim), text...)
	}
	p := packer{dst: dst, src: text, Known: k, server: k.server()}
	for p.at < len(p.src) {
		p.step()
	}
	return p.dst
}

// hasCode tells whether there is a byte in text that is a code.
func hasCode(text []byte) bool {
	for _, c := range text {
		if c < firstText {
			return true
		}
	}
	return false
}

// packer goes through one text.
type packer struct {
	Known
	dst, src []byte
	at       int
	server   string
	inside   bool // of a string
}

// step packs what stands at p.at: between the strings, or at the start or the end
// of one.
func (p *packer) step() {
	rest := p.src[p.at:]
	if n, ph := match(rest); n > 0 {
		if ph < shortPhrases {
			p.dst = append(p.dst, shortPhrase+byte(ph))
		} else {
			p.dst = binary.AppendUvarint(append(p.dst, phrase), uint64(ph))
		}
		p.at += n
		if phrases[ph].odd {
			p.inside = !p.inside
		}
		if p.inside {
			p.text()
		}
		return
	}
	switch c := rest[0]; {
	case c == '"':
		p.dst = append(p.dst, c)
		p.at++
		if p.inside = !p.inside; p.inside {
			p.text()
		}
	case c >= '1' && c <= '9':
		p.number()
	default:
		p.dst = append(p.dst, c)
		p.at++
	}
}

// number packs a number, or the part of one that is an integer.
func (p *packer) number() {
	end := p.at
	for end < len(p.src) && p.src[end] >= '0' && p.src[end] <= '9' {
		end++
	}
	digits := p.src[p.at:end]
	p.at = end
	if n, err := strconv.ParseUint(string(digits), 10, 64); err == nil && len(digits) >= leastNumber && len(digits) <= mostNumber {
		p.dst = binary.AppendUvarint(append(p.dst, number), n)
		return
	}
	p.dst = append(p.dst, digits...)
}

// text packs the inside of a string up to the quote at its end.
func (p *packer) text() {
	end := p.at
	for end < len(p.src) && p.src[end] != '"' {
		if p.src[end] == '\\' {
			end++
		}
		end++
	}
	end = min(end, len(p.src))
	s := p.src[p.at:end]
	p.at = end
	if len(s) > 0 && s[0] == '$' {
		p.dst = append(p.dst, '$')
		s = s[1:]
	}
	switch {
	case len(s) == 0:
	case string(s) == p.Sender:
		p.dst = append(p.dst, sender)
	case string(s) == p.server:
		p.dst = append(p.dst, server)
	case string(s) == p.Room:
		p.dst = append(p.dst, roomID)
	case len(s) >= leastBase64 && p.base64(s):
	default:
		p.dst = append(p.dst, s...)
	}
}

// What a character says about base64.
const (
	onlyStandard = 1 << iota
	onlyURLSafe
	neither
)

// alphabet has 0 for the characters that both kinds of base64 have.
var alphabet = func() (a [256]uint8) {
	for c := range a {
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9':
		case c == '+' || c == '/':
			a[c] = onlyStandard
		case c == '-' || c == '_':
			a[c] = onlyURLSafe
		default:
			a[c] = neither
		}
	}
	return a
}()

// base64 packs a string that is nothing else, and tells whether it was.
func (p *packer) base64(s []byte) bool {
	var all uint8
	for _, c := range s {
		all |= alphabet[c]
	}
	code, encoding := byte(standard), standard64
	switch {
	case all&neither != 0 || all == onlyStandard|onlyURLSafe:
		return false
	case all&onlyURLSafe != 0:
		code, encoding = urlSafe, urlSafe64
	}
	start := len(p.dst)
	out := binary.AppendUvarint(append(p.dst, code), uint64(encoding.DecodedLen(len(s))))
	out, err := encoding.AppendDecode(out, s)
	if err != nil {
		p.dst = p.dst[:start]
		return false
	}
	p.dst = out
	return true
}

var errMalformed = errors.New("malformed packed text")

// Expand appends the text whose packed form is data to dst.
func Expand(dst, data []byte, k Known) ([]byte, error) {
	if len(data) > 0 && data[0] == verbatim {
		return append(dst, data[1:]...), nil
	}
	for len(data) > 0 {
		code := data[0]
		if code >= firstText {
			n := 1
			for n < len(data) && data[n] >= firstText {
				n++
			}
			dst = append(dst, data[:n]...)
			data = data[n:]
			continue
		}
		data = data[1:]
		switch {
		case code >= shortPhrase:
			dst = append(dst, phrases[code-shortPhrase].text...)
			continue
		case code == roomID:
			dst = append(dst, k.Room...)
			continue
		case code == sender:
			dst = append(dst, k.Sender...)
			continue
		case code == server:
			dst = append(dst, k.server()...)
			continue
		}
		n, size := binary.Uvarint(data)
		if size <= 0 {
			return nil, errMalformed
		}
		data = data[size:]
		switch code {
		case number:
			dst = strconv.AppendUint(dst, n, 10)
			continue
		case phrase:
			if n >= uint64(len(phrases)) {
				return nil, errMalformed
			}
			dst = append(dst, phrases[n].text...)
			continue
		}
		if n > uint64(len(data)) {
			return nil, errMalformed
		}
		part := data[:n]
		data = data[n:]
		switch code {
		case standard:
			dst = standard64.AppendEncode(dst, part)
		case urlSafe:
			dst = urlSafe64.AppendEncode(dst, part)
		default:
			return nil, errMalformed
		}
	}
	return dst, nil
}
