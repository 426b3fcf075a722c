package client

import (
	"strconv"
	"strings"
)

// ISupport holds the tokens of RPL_ISUPPORT, by which a server says how it
// differs from RFC 1459. The zero value answers with the defaults.
type ISupport struct {
	tokens map[string]string
}

// apply takes the parameters of one RPL_ISUPPORT line. The first is our nick
// and the last a text for people.
func (s *ISupport) apply(params []string) {
	if len(params) < 3 {
		return
	}
	if s.tokens == nil {
		s.tokens = make(map[string]string)
	}
	for _, p := range params[1 : len(params)-1] {
		name, value, _ := strings.Cut(p, "=")
		if gone, ok := strings.CutPrefix(name, "-"); ok {
			delete(s.tokens, strings.ToUpper(gone))
			continue
		}
		s.tokens[strings.ToUpper(name)] = unescapeToken(value)
	}
}

// unescapeToken replaces \xHH by the byte it names.
func unescapeToken(s string) string {
	if !strings.Contains(s, `\x`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.HasPrefix(s[i:], `\x`) && len(s) >= i+4 {
			if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Value returns the value of a token and whether the server sent it.
func (s *ISupport) Value(token string) (string, bool) {
	v, ok := s.tokens[token]
	return v, ok
}

// number returns a token's positive value, or the default when it is absent,
// empty or no such number.
func (s *ISupport) number(token string, def int) int {
	if n, err := strconv.Atoi(s.tokens[token]); err == nil && n > 0 {
		return n
	}
	return def
}

// Casemapping is the rule for comparing names.
func (s *ISupport) Casemapping() Casemapping { return parseCasemapping(s.tokens["CASEMAPPING"]) }

// Network is the name by which the network calls itself, or empty.
func (s *ISupport) Network() string { return s.tokens["NETWORK"] }

// NickLen is the longest nick in bytes, 0 when unknown.
func (s *ISupport) NickLen() int { return s.number("NICKLEN", 0) }

// TopicLen is the longest topic in bytes, 0 when unknown.
func (s *ISupport) TopicLen() int { return s.number("TOPICLEN", 0) }

// KickLen is the longest reason of a kick in bytes, 0 when unknown.
func (s *ISupport) KickLen() int { return s.number("KICKLEN", 0) }

// LineLen is the longest line in bytes with its CR LF, 512 by default. A value
// outside 512 to 65536 is not believed.
func (s *ISupport) LineLen() int {
	if n := s.number("LINELEN", 512); n >= 512 && n <= 1<<16 {
		return n
	}
	return 512
}

// ChanTypes are the characters a channel name may begin with.
func (s *ISupport) ChanTypes() string {
	if v, ok := s.tokens["CHANTYPES"]; ok {
		return v
	}
	return "#&"
}

// IsChannel reports whether a message's target is a channel, not a nick.
func (s *ISupport) IsChannel(name string) bool {
	return name != "" && strings.IndexByte(s.ChanTypes(), name[0]) >= 0
}

// Prefix returns the modes of channel members, the strongest first, and for
// each the symbol that stands before the nick.
func (s *ISupport) Prefix() (modes, symbols string) {
	v, ok := s.tokens["PREFIX"]
	if !ok {
		return "ov", "@+"
	}
	modes, symbols, ok = strings.Cut(strings.TrimPrefix(v, "("), ")")
	if !ok || len(modes) != len(symbols) {
		return "", ""
	}
	return modes, symbols
}

// statusTarget cuts the prefix from a target like "@#channel", which reaches
// only the operators of the channel.
func (s *ISupport) statusTarget(target string) (status, name string) {
	allowed, ok := s.tokens["STATUSMSG"]
	if !ok {
		return "", target
	}
	i := 0
	for i < len(target) && strings.IndexByte(allowed, target[i]) >= 0 {
		i++
	}
	if i > 0 && s.IsChannel(target[i:]) {
		return target[:i], target[i:]
	}
	return "", target
}

// ModeChange is one letter of a MODE command.
type ModeChange struct {
	Add  bool
	Mode byte
	Arg  string // empty for modes without an argument
}

// modeChanges splits the parameters of MODE for a channel into single changes.
// Which letters take an argument is told by CHANMODES and PREFIX.
func (s *ISupport) modeChanges(params []string) []ModeChange {
	if len(params) == 0 {
		return nil
	}
	kinds := strings.SplitN(s.tokens["CHANMODES"], ",", 4)
	if len(kinds) < 3 {
		kinds = []string{"beI", "k", "l"}
	}
	members, _ := s.Prefix()
	always := kinds[0] + kinds[1] + members
	onlySet := kinds[2]

	var changes []ModeChange
	args, add := params[1:], true
	for i := 0; i < len(params[0]); i++ {
		m := params[0][i]
		if m == '+' || m == '-' {
			add = m == '+'
			continue
		}
		c := ModeChange{Add: add, Mode: m}
		takes := strings.IndexByte(always, m) >= 0 || add && strings.IndexByte(onlySet, m) >= 0
		if takes && len(args) > 0 {
			c.Arg, args = args[0], args[1:]
		}
		changes = append(changes, c)
	}
	return changes
}
