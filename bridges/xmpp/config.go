package xmpp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"mellium.im/xmpp/jid"

	"switchboard/bridges/bridge"
	"switchboard/bridges/xmpp/client"
)

// Config is the section "bridges.xmpp" of the configuration file. All of it but
// "enabled" may be left out.
type Config struct {
	bridge.Config `yaml:",inline"`

	// Domains limits whose accounts may log in, such as example.org. When empty
	// all may.
	Domains []string `yaml:"domains"`

	// Servers are those that DNS does not lead to, or whose certificate comes
	// from an authority of your own.
	Servers []Server `yaml:"servers"`

	// History is how many old messages of a room are shown when it is entered
	// for the first time; 0 shows none.
	History int `yaml:"history"`

	// SendTimeout is how long a message waits for the connection to come back.
	SendTimeout time.Duration `yaml:"send_timeout"`

	// MaxFileSize is the largest file that is carried.
	MaxFileSize int64 `yaml:"max_file_size" unit:"bytes"`

	// MemberLimit is how many people of a room are shown. In a room with more,
	// those with a role are, and the others as soon as they write.
	MemberLimit int `yaml:"member_limit"`

	// RoomCheck is how often rooms are asked whether they still know us; 0 asks
	// none.
	RoomCheck time.Duration `yaml:"room_check"`
}

// Server is how to reach the server of a domain.
type Server struct {
	// Domain is that of the accounts.
	Domain string `yaml:"domain"`

	// Address is the server, host:port, where it takes clients with STARTTLS.
	// It may be a private address. When empty DNS says it.
	Address string `yaml:"address"`

	// CAFile is a PEM file with the certificates that the server's must come
	// from, instead of those of the system.
	CAFile string `yaml:"ca_file"`
}

// SetDefaults fills in everything that may be left out.
func (c *Config) SetDefaults() {
	c.History = 50
	c.SendTimeout = 2 * time.Minute
	c.MaxFileSize = 100 << 20
	c.MemberLimit = 500
	c.RoomCheck = 10 * time.Minute
}

// Check returns everything that is wrong.
func (c Config) Check() error {
	errs := []error{c.Config.Check("bridges.xmpp")}
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("bridges.xmpp.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.History < 0 || c.SendTimeout < 0 || c.MemberLimit < 0 || c.RoomCheck < 0 {
		bad("history, send_timeout, member_limit, room_check", "must not be negative")
	}
	if c.MaxFileSize <= 0 {
		bad("max_file_size", "must be positive")
	}
	for i, s := range c.Servers {
		key := fmt.Sprintf("servers[%d].", i)
		if _, err := jid.Parse(s.Domain); err != nil || strings.ContainsAny(s.Domain, "@/") {
			bad(key+"domain", "%q must be a domain such as example.org", s.Domain)
		}
		if _, _, err := net.SplitHostPort(s.Address); s.Address != "" && err != nil {
			bad(key+"address", "%q must be host:port", s.Address)
		}
		if s.CAFile != "" {
			if _, err := certificates(s.CAFile); err != nil {
				bad(key+"ca_file", "%v", err)
			}
		}
	}
	return errors.Join(errs...)
}

func certificates(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return pool, nil
}

// client is the configuration of a connection.
func (c Config) client(account jid.JID, password string, dial client.Dial) (client.Config, error) {
	out := client.Config{JID: account, Password: password, Dial: dial}
	for _, s := range c.Servers {
		if s.Domain != account.Domainpart() {
			continue
		}
		if out.Address = s.Address; s.Address != "" {
			out.Dial = nil // the operator says where it is
		}
		if s.CAFile != "" {
			pool, err := certificates(s.CAFile)
			if err != nil {
				return out, err
			}
			out.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
		}
	}
	return out, nil
}
