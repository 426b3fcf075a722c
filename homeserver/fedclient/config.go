package fedclient

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// OutboundConfig is the section "outbound" of the configuration file: where this
// server may connect to.
type OutboundConfig struct {
	// Allow are networks to which connections may be made although they are not
	// on the internet, such as 10.1.0.0/16 where other servers of yours are.
	// Everybody who can make this server fetch something can then reach them.
	Allow []netip.Prefix `yaml:"allow"`

	// Deny are networks to which no connections may be made although they are
	// on the internet.
	Deny []netip.Prefix `yaml:"deny"`

	// ConnectTimeout is how long one address may take to answer.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
}

// DefaultOutboundConfig allows the internet and nothing else.
func DefaultOutboundConfig() OutboundConfig { return OutboundConfig{ConnectTimeout: 10 * time.Second} }

// Check returns everything that is wrong, not only the first thing.
func (c OutboundConfig) Check() error {
	var errs []error
	if c.ConnectTimeout < 100*time.Millisecond {
		errs = append(errs, errors.New("outbound.connect_timeout: must be at least 100ms"))
	}
	for key, list := range map[string][]netip.Prefix{"allow": c.Allow, "deny": c.Deny} {
		for _, p := range list {
			if p != p.Masked() {
				errs = append(errs, fmt.Errorf("outbound.%s: %s has bits behind its length; write %s", key, p, p.Masked()))
			}
		}
	}
	return errors.Join(errs...)
}

// Config is the part of the section "federation" of the configuration file that
// tells how other servers are asked and believed.
type Config struct {
	// AllowServers are the servers to talk to, by name without a port; * stands
	// for any characters. Without any, that is all servers.
	AllowServers []string `yaml:"allow_servers"`

	// DenyServers are servers never to talk to, written like those of
	// allow_servers: their requests are refused, and they are asked for nothing,
	// files and keys included. What their users say in rooms still comes by way of
	// the rooms' other servers; against that a room has its access control list.
	DenyServers []string `yaml:"deny_servers"`

	// Notaries are servers that are believed about the keys of servers which do
	// not answer themselves, so that what they said before can be checked. Where
	// the key is missing that is matrix.org; an empty list is nobody.
	Notaries []NotaryConfig `yaml:"notaries"`

	// OldKeys are signing keys that this server no longer uses.
	OldKeys []OldKeyConfig `yaml:"old_keys"`

	// RootCA is a PEM file with authorities to trust beside those of the
	// system.
	RootCA string `yaml:"root_ca"`

	// Timeout is how long another server may take for an ordinary answer.
	Timeout time.Duration `yaml:"timeout"`

	// LongTimeout is how long the state of a large room may take to arrive.
	LongTimeout time.Duration `yaml:"long_timeout"`

	// MaxAnswer is the largest ordinary answer.
	MaxAnswer int64 `yaml:"max_answer" unit:"bytes"`

	// MaxState is the largest answer with the state of a room. It is read
	// event by event, so it needs no memory.
	MaxState int64 `yaml:"max_state" unit:"bytes"`

	// RetryFirst is how long a server is left alone that did not answer once.
	// Each further failure doubles it.
	RetryFirst time.Duration `yaml:"retry_first"`

	// RetryMost is how long a server is left alone at most. When it asks us
	// something, it is tried again at once.
	RetryMost time.Duration `yaml:"retry_most"`
}

// NotaryConfig is a server that is believed about the keys of others.
type NotaryConfig struct {
	// Server is its name.
	Server matrix.ServerName `yaml:"server"`

	// Keys are its public keys in base64 by their IDs, such as ed25519:auto.
	// Without any, it is asked for them.
	Keys map[string]string `yaml:"keys"`
}

// OldKeyConfig is a signing key that this server no longer uses. Others check
// old events with it.
type OldKeyConfig struct {
	// ID is the key's name, such as ed25519:a_XYZABC.
	ID string `yaml:"id"`

	// Public is the public key in base64.
	Public string `yaml:"public"`

	// ExpiredTS is when the key was last used, in milliseconds since 1970.
	ExpiredTS int64 `yaml:"expired_ts"`
}

// DefaultConfig talks to all servers.
func DefaultConfig() Config {
	return Config{
		Timeout:     time.Minute,
		LongTimeout: 15 * time.Minute,
		MaxAnswer:   32 << 20,
		MaxState:    2 << 30,
		RetryFirst:  10 * time.Second,
		RetryMost:   6 * time.Hour,
	}
}

// Check returns everything that is wrong, not only the first thing.
func (c Config) Check() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("federation.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	c.checkServers(bad)
	c.checkKeys(bad)
	if c.RootCA != "" {
		if _, err := roots(c.RootCA); err != nil {
			bad("root_ca", "%v", err)
		}
	}
	if c.Timeout < time.Second {
		bad("timeout", "must be at least 1s")
	}
	if c.LongTimeout < c.Timeout {
		bad("long_timeout", "must be at least as long as timeout")
	}
	if c.MaxAnswer < 1<<20 {
		bad("max_answer", "must be at least 1M")
	}
	if c.MaxState < c.MaxAnswer {
		bad("max_state", "must be at least as large as max_answer")
	}
	if c.RetryFirst < time.Second {
		bad("retry_first", "must be at least 1s")
	}
	if c.RetryMost < c.RetryFirst {
		bad("retry_most", "must be at least as long as retry_first")
	}
	return errors.Join(errs...)
}

func (c Config) checkServers(bad func(key, format string, args ...any)) {
	for key, list := range map[string][]string{"allow_servers": c.AllowServers, "deny_servers": c.DenyServers} {
		for _, p := range list {
			if _, err := matrix.ParseServerName(strings.ReplaceAll(p, "*", "x")); err != nil || matrix.ServerName(p).Host() != p {
				bad(key, "%q is no server name without a port", p)
			}
		}
	}
}

func (c Config) checkKeys(bad func(key, format string, args ...any)) {
	for i, n := range c.Notaries {
		if _, err := matrix.ParseServerName(string(n.Server)); err != nil {
			bad(fmt.Sprintf("notaries[%d].server", i), "%q is no server name", n.Server)
		}
		for id, key := range n.Keys {
			if _, err := publicKey(id, key); err != nil {
				bad(fmt.Sprintf("notaries[%d].keys", i), "%v", err)
			}
		}
	}
	for i, k := range c.OldKeys {
		if _, err := publicKey(k.ID, k.Public); err != nil {
			bad(fmt.Sprintf("old_keys[%d]", i), "%v", err)
		}
		if k.ExpiredTS <= 0 {
			bad(fmt.Sprintf("old_keys[%d].expired_ts", i), "must be the time when the key was last used, in milliseconds since 1970")
		}
	}
}

// publicKey reads a key in base64.
func publicKey(id, text string) (ed25519.PublicKey, error) {
	if !validKeyID(id) {
		return nil, fmt.Errorf("%q is no ID of a key, such as ed25519:auto", id)
	}
	key, err := signing.ParsePublicKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", id, err)
	}
	return key, nil
}

// validKeyID tells whether a key ID is one of an algorithm that we know.
func validKeyID(id string) bool {
	version, ok := strings.CutPrefix(id, signing.Algorithm+":")
	if !ok || version == "" || len(id) > 255 {
		return false
	}
	for _, c := range []byte(version) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_-.+/=~", c) >= 0) {
			return false // the specification allows _ only
		}
	}
	return true
}

// roots are the authorities to trust: those of the system and of a PEM file.
func roots(file string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if file == "" {
		return pool, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("there is no certificate in " + file)
	}
	return pool, nil
}

// Permits tells whether the operator wants this server to talk to another one.
func (c Config) Permits(server matrix.ServerName) bool {
	host := strings.ToLower(server.Host())
	for _, p := range c.DenyServers {
		if matrix.Glob(strings.ToLower(p), host) {
			return false
		}
	}
	for _, p := range c.AllowServers {
		if matrix.Glob(strings.ToLower(p), host) {
			return true
		}
	}
	return len(c.AllowServers) == 0
}
