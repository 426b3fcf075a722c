package mail

import (
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"os"
	"time"
)

// The ways to encrypt the connection to the mail server.
const (
	StartTLS = "starttls" // begins in plain text and refuses to go on so
	TLS      = "tls"
	None     = "none"
)

// Config is the section "mail" of the configuration file: how the server sends
// e-mail.
type Config struct {
	// Host is the name of the mail server that takes e-mail from this server.
	// Empty means that no e-mail is sent.
	Host string `yaml:"host"`

	// Port is the port of the mail server. 0 means what is usual: 587 for
	// starttls, 465 for tls, 25 for none.
	Port int `yaml:"port"`

	// TLS is how the connection is encrypted: starttls and tls refuse a mail
	// server that cannot, or whose certificate is wrong; none is for one on this
	// computer.
	TLS string `yaml:"tls" oneof:"starttls tls none"`

	// RootCA is a PEM file with the certificate by which to know the mail server,
	// if the system does not know it.
	RootCA string `yaml:"root_ca"`

	// User is the name by which to log in at the mail server. Empty means not to
	// log in.
	User string `yaml:"user"`

	// Password goes with user.
	Password string `yaml:"password" secret:"true"`

	// From is the sender, such as "Example chat <chat@example.org>".
	From string `yaml:"from"`

	// Timeout is how long the mail server may take.
	Timeout time.Duration `yaml:"timeout"`

	// Client is the address of the web client to which links in e-mail lead, such
	// as https://app.element.io. Empty means matrix.to, where one chooses.
	Client string `yaml:"client"`

	// Delay is how long a message stays unread before its receiver gets an e-mail.
	Delay time.Duration `yaml:"delay"`

	// Pause is how long after an e-mail its rooms get no other one, if the receiver
	// has not read them. Each next pause is six times longer.
	Pause time.Duration `yaml:"pause"`

	// LongestPause is the longest of these pauses.
	LongestPause time.Duration `yaml:"longest_pause"`
}

// DefaultConfig sends nothing.
func DefaultConfig() Config {
	return Config{TLS: StartTLS, Timeout: 30 * time.Second, Delay: 10 * time.Minute, Pause: time.Hour, LongestPause: 24 * time.Hour}
}

// Check returns everything that is wrong, not only the first thing.
func (c Config) Check() error {
	if c.Host == "" {
		return nil
	}
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("mail.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.Port < 0 || c.Port > 65535 {
		bad("port", "must be between 1 and 65535, or 0 for the usual one")
	}
	if _, err := mail.ParseAddress(c.From); err != nil {
		bad("from", "must be an e-mail address, such as \"Example chat <chat@example.org>\"")
	}
	if c.User == "" && c.Password != "" {
		bad("user", "is needed with a password")
	}
	if c.User != "" && c.TLS == None {
		bad("tls", "must be starttls or tls where there is a user, since the password would be sent in plain text")
	}
	if c.RootCA != "" {
		if _, err := os.Stat(c.RootCA); err != nil {
			bad("root_ca", "%v", err)
		}
	}
	if c.Client != "" {
		if u, err := url.Parse(c.Client); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Fragment != "" {
			bad("client", "must be a URL such as https://app.element.io")
		}
	}
	if c.Timeout < time.Second {
		bad("timeout", "must be at least 1s")
	}
	if c.Delay < time.Second {
		bad("delay", "must be at least 1s")
	}
	if c.Pause < time.Second {
		bad("pause", "must be at least 1s")
	}
	if c.LongestPause < c.Pause {
		bad("longest_pause", "must not be shorter than pause")
	}
	return errors.Join(errs...)
}

// port is the port of the mail server.
func (c Config) port() int {
	if c.Port != 0 {
		return c.Port
	}
	return map[string]int{StartTLS: 587, TLS: 465, None: 25}[c.TLS]
}
