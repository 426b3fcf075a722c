package registrations

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// Registration is what an appservice may do and wants to hear. It is made by
// Parse or Generate, which check it, and is not changed afterwards.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#registration
type Registration struct {
	// ID names the appservice; unique on a server and never sent to users.
	ID string

	// URL is where transactions go, without a "/" at the end. It is empty
	// where the file says null: such an appservice is never called.
	URL string

	ASToken string // what the appservice shows to us
	HSToken string // what we show to the appservice

	// SenderLocalpart is the localpart of the appservice's own user.
	SenderLocalpart string

	// Users, Rooms and Aliases are the namespaces.
	Users, Rooms, Aliases []Namespace

	// RateLimited tells whether rate limits hold for the appservice's users.
	// Its own user, the sender, is never limited.
	RateLimited bool

	// Protocols are the third-party networks that the appservice serves.
	Protocols []string

	// ReceiveEphemeral asks for typing, receipts and presence.
	ReceiveEphemeral bool

	// MSC3202 asks for to-device messages, device lists and key counts of the
	// appservice's users in transactions.
	MSC3202 bool

	// MSC4190 says that the appservice makes devices by PUT /devices. We allow
	// that to all of them; the flag is kept for who looks at the file.
	MSC4190 bool

	// Unknown are keys of the file that mean nothing to us, in order.
	Unknown []string
}

// Namespace is a set of identifiers, given by a regular expression.
type Namespace struct {
	Regex     string
	Exclusive bool // nobody else may create these

	compiled *regexp.Regexp
}

// Matches tells whether s belongs to the namespace: the expression must match
// from the first character on, but need not reach the last one. A namespace
// that was not compiled matches nothing.
func (n Namespace) Matches(s string) bool {
	return n.compiled != nil && n.compiled.MatchString(s)
}

// compile makes the matcher of the namespace. Expressions are in the syntax of
// Go (RE2).
func (n *Namespace) compile() error {
	if n.Regex == "" {
		return errors.New("an empty expression would match everything; write .* if that is meant")
	}
	if _, err := regexp.Compile(n.Regex); err != nil { // alone first, so that "a)|(b" does not slip through the brackets below
		return expressionError(err)
	}
	re, err := regexp.Compile(`\A(?:` + n.Regex + `)`)
	if err != nil {
		return expressionError(err)
	}
	n.compiled = re
	return nil
}

func expressionError(err error) error {
	text := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	if strings.Contains(text, "(?!") || strings.Contains(text, "(?=") || strings.Contains(text, "(?<") {
		return fmt.Errorf("%s (look-ahead and look-behind are not supported)", text)
	}
	return errors.New(text)
}

// Sender is the user ID of the appservice's own user on server.
func (r *Registration) Sender(server string) string {
	return "@" + r.SenderLocalpart + ":" + server
}

// CoversUser tells whether user is in the users namespaces. It looks neither at
// the server of user nor at the sender.
func (r *Registration) CoversUser(user string) bool { return matches(r.Users, user, false) }

// CoversAlias tells whether alias is in the aliases namespaces.
func (r *Registration) CoversAlias(alias string) bool { return matches(r.Aliases, alias, false) }

// CoversRoom tells whether room is in the rooms namespaces.
func (r *Registration) CoversRoom(room string) bool { return matches(r.Rooms, room, false) }

// ExclusiveUser tells whether only this appservice may create user.
func (r *Registration) ExclusiveUser(user string) bool { return matches(r.Users, user, true) }

// ExclusiveAlias tells whether only this appservice may create alias.
func (r *Registration) ExclusiveAlias(alias string) bool { return matches(r.Aliases, alias, true) }

// Serves tells whether the appservice serves a third-party network.
func (r *Registration) Serves(protocol string) bool {
	for _, p := range r.Protocols {
		if p == protocol {
			return true
		}
	}
	return false
}

func matches(list []Namespace, s string, exclusive bool) bool {
	for _, n := range list {
		if (n.Exclusive || !exclusive) && n.Matches(s) {
			return true
		}
	}
	return false
}

// Generate completes r: it makes the tokens that are empty, checks everything
// and compiles the namespaces. The error names all mistakes.
func Generate(r Registration) (*Registration, error) {
	for _, token := range []*string{&r.ASToken, &r.HSToken} {
		if *token == "" {
			*token = Token()
		}
	}
	r.Users = append([]Namespace(nil), r.Users...)
	r.Rooms = append([]Namespace(nil), r.Rooms...)
	r.Aliases = append([]Namespace(nil), r.Aliases...)
	var errs []error
	check(&r, func(key, text string) {
		errs = append(errs, &Mistake{File: r.ID, Key: key, Text: text})
	})
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &r, nil
}

// Token makes a random token: 256 bits as hexadecimal digits.
func Token() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// check compiles the namespaces of r and tells each mistake to bad.
func check(r *Registration, bad func(key, text string)) {
	need := func(key, value string) bool {
		if value == "" {
			bad(key, "must not be empty")
		}
		return value != ""
	}
	need("id", r.ID)
	tokens := need("as_token", r.ASToken)
	tokens = need("hs_token", r.HSToken) && tokens
	for _, token := range [][2]string{{"as_token", r.ASToken}, {"hs_token", r.HSToken}} {
		if strings.ContainsFunc(token[1], func(c rune) bool { return c <= ' ' || c > '~' }) {
			bad(token[0], "must be printable ASCII without blanks, because it is sent in a header")
		}
	}
	if tokens && r.ASToken == r.HSToken {
		bad("hs_token", "must differ from as_token")
	}
	if need("sender_localpart", r.SenderLocalpart) && !validLocalpart(r.SenderLocalpart) {
		bad("sender_localpart", fmt.Sprintf("%q may hold no blanks, @ and colons (only the part between @ and the colon)", r.SenderLocalpart))
	}
	if text := urlMistake(r.URL); text != "" {
		bad("url", text)
	}
	for _, space := range []struct {
		key  string
		list []Namespace
	}{{"users", r.Users}, {"rooms", r.Rooms}, {"aliases", r.Aliases}} {
		for i := range space.list {
			if err := space.list[i].compile(); err != nil {
				bad(fmt.Sprintf("namespaces.%s[%d].regex", space.key, i), err.Error())
			}
		}
	}
}

// validLocalpart allows what names were once, as other servers do: mautrix gives
// its senders names of capital letters, too.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#historical-user-ids
func validLocalpart(s string) bool {
	return len(s) < 250 && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' || c == '@' || c == ':' })
}

// urlMistake tells what is wrong with the address of an appservice. Empty, for
// null, is right.
func urlMistake(s string) string {
	if s == "" {
		return ""
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "is not a URL"
	case u.Scheme != "http" && u.Scheme != "https":
		return `must begin with http:// or https://, or be null if the appservice is never to be called`
	case u.Host == "":
		return "names no host"
	case u.RawQuery != "" || u.Fragment != "":
		return "must have neither ? nor #"
	}
	return ""
}

// YAML is the registration as a file that Parse reads back, for the appservice
// and for other homeservers.
func (r *Registration) YAML() ([]byte, error) {
	type space struct {
		Regex     string `yaml:"regex"`
		Exclusive bool   `yaml:"exclusive"`
	}
	spaces := func(list []Namespace) []space {
		out := []space{}
		for _, n := range list {
			out = append(out, space{n.Regex, n.Exclusive})
		}
		return out
	}
	var address *string
	if r.URL != "" {
		address = &r.URL
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	err := enc.Encode(struct {
		ID              string             `yaml:"id"`
		URL             *string            `yaml:"url"`
		ASToken         string             `yaml:"as_token"`
		HSToken         string             `yaml:"hs_token"`
		SenderLocalpart string             `yaml:"sender_localpart"`
		RateLimited     bool               `yaml:"rate_limited"`
		Namespaces      map[string][]space `yaml:"namespaces"`
		Protocols       []string           `yaml:"protocols,omitempty"`
		Ephemeral       bool               `yaml:"receive_ephemeral,omitempty"`
		OldEphemeral    bool               `yaml:"de.sorunome.msc2409.push_ephemeral,omitempty"`
		MSC3202         bool               `yaml:"org.matrix.msc3202,omitempty"`
		MSC4190         bool               `yaml:"io.element.msc4190,omitempty"`
	}{
		r.ID, address, r.ASToken, r.HSToken, r.SenderLocalpart, r.RateLimited,
		map[string][]space{"users": spaces(r.Users), "rooms": spaces(r.Rooms), "aliases": spaces(r.Aliases)},
		r.Protocols, r.ReceiveEphemeral, r.ReceiveEphemeral, r.MSC3202, r.MSC4190,
	})
	if err != nil {
		return nil, fmt.Errorf("write registration %s: %w", r.ID, err)
	}
	return b.Bytes(), nil
}
