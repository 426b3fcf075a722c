package account

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"switchboard/homeserver/matrix"
)

// Mode tells who may make an account.
type Mode string

// The modes of registration.
const (
	Closed Mode = "closed" // nobody but the operator, and who holds the operator's first token
	Token  Mode = "token"  // who has a registration token
	Open   Mode = "open"   // everybody
)

// Config is the section "registration" of the configuration file: who may make
// an account, and what logging in is like.
type Config struct {
	// Mode is who may make an account: "closed" is nobody but the operator,
	// "token" is who has a registration token (switchboard token create),
	// "open" is everybody.
	Mode Mode `yaml:"mode" oneof:"closed token open"`

	// SharedSecret lets programs that know it make accounts through
	// /_synapse/admin/v1/register. Empty turns that off.
	SharedSecret string `yaml:"shared_secret" secret:"true"`

	// Guests says whether people may look in without an account.
	Guests bool `yaml:"guests"`

	// TokenLifetime is how long an access token lives that the client can
	// refresh.
	TokenLifetime time.Duration `yaml:"token_lifetime"`

	// LoginTokens says whether a device that is logged in may log in another
	// one, as by a QR code.
	LoginTokens bool `yaml:"login_tokens"`

	// PasswordLength is the least number of characters in a new password.
	PasswordLength int `yaml:"password_length"`

	// Terms are documents that a new user must accept.
	Terms []Document `yaml:"terms"`

	// Hash is what it costs to try a password. After a change each password is
	// hashed anew when its user logs in.
	Hash Argon2 `yaml:"hash"`
}

// Document is a text that a new user must accept.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#terms-of-service-at-registration
type Document struct {
	// ID names the document, such as privacy_policy.
	ID string `yaml:"id"`

	// Version changes when the text does.
	Version string `yaml:"version"`

	// Texts are the document by language, such as en.
	Texts map[string]Text `yaml:"texts"`
}

// Text is a document in one language.
type Text struct {
	// Name is the title.
	Name string `yaml:"name"`

	// URL is the page that shows the text.
	URL string `yaml:"url"`
}

// DefaultConfig lets nobody in but who holds the operator's first token.
func DefaultConfig() Config {
	return Config{
		Mode:           Closed,
		TokenLifetime:  time.Hour,
		PasswordLength: 8,
		Hash:           Argon2{Memory: 7 << 10, Time: 5, Threads: 1}, // as strong as 19 MiB and 2, says OWASP, in less memory
	}
}

// Check returns everything that is wrong, not only the first thing.
func (c Config) Check() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("registration.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	switch c.Mode {
	case Closed, Token, Open:
	default:
		bad("mode", "%q is not closed, token or open", c.Mode)
	}
	if n := len(c.SharedSecret); n > 0 && n < 8 {
		bad("shared_secret", "has %d bytes, needs at least 8", n)
	}
	if c.TokenLifetime < time.Minute {
		bad("token_lifetime", "%s is less than a minute", c.TokenLifetime)
	}
	if c.PasswordLength < 1 || c.PasswordLength > longestPassword {
		bad("password_length", "must be between 1 and %d", longestPassword)
	}
	if h := c.Hash; h.Memory < 7<<10 || h.Time < 1 || h.Threads < 1 {
		bad("hash", "needs a memory of at least 7168 KiB, a time and threads of at least 1")
	}
	for i, d := range c.Terms {
		key := fmt.Sprintf("terms[%d]", i)
		if d.ID == "" || d.Version == "" || len(d.Texts) == 0 {
			bad(key, "needs id, version and texts")
		}
		for lang, t := range d.Texts {
			if u, err := url.Parse(t.URL); err != nil || u.Host == "" || t.Name == "" {
				bad(key+".texts."+lang, "needs a name and the URL of a page")
			}
		}
	}
	return errors.Join(errs...)
}

// terms are the documents as the stage m.login.terms shows them.
func (c Config) terms() map[string]any {
	policies := make(map[string]any, len(c.Terms))
	for _, d := range c.Terms {
		p := map[string]any{"version": d.Version}
		for lang, t := range d.Texts {
			p[lang] = map[string]string{"name": t.Name, "url": t.URL}
		}
		policies[d.ID] = p
	}
	return map[string]any{"policies": policies}
}

// errClosed answers who tries to register where registration is closed.
func errClosed() error {
	return matrix.Errorf(matrix.Forbidden, "registration is closed on this server")
}
