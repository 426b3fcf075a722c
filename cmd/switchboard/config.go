package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"switchboard/appservices"
	"switchboard/bridges/bridge"
	"switchboard/bridges/irc"
	"switchboard/homeserver"
	"switchboard/jitsi"
	"switchboard/voip"
	"switchboard/voip/calltest"
)

// Config is the configuration file.
type Config struct {
	homeserver.Config `yaml:",inline"`

	// Listeners are where the server can be reached. Without any, that is port
	// 8008 of this computer alone, for a reverse proxy; or, if the section
	// acme is used, the ports 80, 443 and 8448 for everybody.
	Listeners []ListenerConfig `yaml:"listeners"`

	// TrustedProxies are the networks of reverse proxies. Who connects from
	// there may say in X-Forwarded-For on whose behalf.
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`

	// ACME gets certificates from Let's Encrypt or another authority.
	ACME ACMEConfig `yaml:"acme"`

	// HTTP are limits of connections.
	HTTP HTTPConfig `yaml:"http"`

	// Appservices are bridges and bots that run as programs of their own.
	Appservices appservices.Config `yaml:"appservices"`

	// Bridges connect to other networks, inside this program.
	Bridges BridgesConfig `yaml:"bridges"`

	// Jitsi offers group calls on a Jitsi Meet server.
	Jitsi jitsi.Config `yaml:"jitsi"`

	// VoIP lets users call each other where they cannot reach each other directly.
	VoIP voip.Config `yaml:"voip"`

	// CallTest lets users find out whether calls work: on the page /calltest, and
	// by a call to the bot @calltest.
	CallTest calltest.Config `yaml:"call_test"`

	// Log is what the server tells on standard error.
	Log LogConfig `yaml:"log"`

	// Metrics are for Prometheus.
	Metrics MetricsConfig `yaml:"metrics"`

	// Pprof is for developers.
	Pprof PprofConfig `yaml:"pprof"`
}

// ListenerConfig is one address at which the server listens.
type ListenerConfig struct {
	// Address is an address and a port, such as 0.0.0.0:8448 or :443, or
	// unix: and the path of a socket.
	Address string `yaml:"address"`

	// Serve is what can be reached there.
	Serve []string `yaml:"serve" oneof:"client federation"`

	// TLS encrypts the connections. Without it, a reverse proxy must.
	TLS ListenerTLSConfig `yaml:"tls"`
}

// ListenerTLSConfig is where the certificate of a listener comes from.
type ListenerTLSConfig struct {
	// Cert is a PEM file with the certificate and those that vouch for it.
	// When the file changes, it is read again.
	Cert string `yaml:"cert"`

	// Key is the PEM file with the private key.
	Key string `yaml:"key"`

	// ACME takes the certificate of the section acme.
	ACME bool `yaml:"acme"`
}

// SetDefaults fills in what a listener that is written down may leave out.
func (c *ListenerConfig) SetDefaults() { c.Serve = []string{"client", "federation"} }

// ACMEConfig is the section "acme".
type ACMEConfig struct {
	// Email is where the authority writes to when something is wrong. If it is
	// set, certificates are fetched.
	Email string `yaml:"email"`

	// Domains are the names on the certificate. Without any: the server name
	// and the host of public_url.
	Domains []string `yaml:"domains"`

	// Directory is the address of the authority.
	Directory string `yaml:"directory"`

	// HTTP is the address at which the authority may ask over plain HTTP, and
	// from which everybody else is sent to HTTPS. The authority asks port 80.
	// If it is empty, the authority must be able to ask port 443.
	HTTP string `yaml:"http"`

	// RootCA is a PEM file with the certificate by which to know the authority,
	// if the system does not know it.
	RootCA string `yaml:"root_ca"`
}

// HTTPConfig is the section "http".
type HTTPConfig struct {
	// HeaderTimeout is how long a request may take until its header is there.
	HeaderTimeout time.Duration `yaml:"header_timeout"`

	// StallTimeout ends a connection on which nothing moves in the middle of a
	// request's body or of an answer. Waiting for an answer is no stall.
	StallTimeout time.Duration `yaml:"stall_timeout"`

	// IdleTimeout closes a connection that is not used.
	IdleTimeout time.Duration `yaml:"idle_timeout"`

	// MaxHeader is the largest header of a request.
	MaxHeader int64 `yaml:"max_header" unit:"bytes"`

	// Grace is how long requests may go on when the server is stopped.
	Grace time.Duration `yaml:"grace"`
}

// LogConfig is the section "log".
type LogConfig struct {
	// Level is the least important message that is told.
	Level string `yaml:"level" oneof:"debug info warn error"`

	// Format is json for machines, console for people, auto for what fits to
	// where it goes.
	Format string `yaml:"format" oneof:"auto json console"`
}

// MetricsConfig is the section "metrics".
type MetricsConfig struct {
	// Address is where Prometheus finds /_switchboard/metrics, such as
	// 127.0.0.1:9000. Empty turns it off.
	Address string `yaml:"address"`
}

// PprofConfig is the section "pprof".
type PprofConfig struct {
	// Address is where Go's profiles are, such as 127.0.0.1:6060. It must be
	// one of this computer. Empty turns it off.
	Address string `yaml:"address"`
}

// defaultConfig is what holds where neither file nor environment say anything.
func defaultConfig() Config {
	return Config{
		Config:         homeserver.DefaultConfig(),
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		ACME:           ACMEConfig{Directory: "https://acme-v02.api.letsencrypt.org/directory", HTTP: ":80"},
		HTTP: HTTPConfig{
			HeaderTimeout: 10 * time.Second, StallTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
			MaxHeader: 64 << 10, Grace: 30 * time.Second,
		},
		Log:         LogConfig{Level: "info", Format: "auto"},
		Appservices: appservices.DefaultConfig(),
		Jitsi:       jitsi.DefaultConfig(),
		VoIP:        voip.DefaultConfig(), CallTest: calltest.DefaultConfig(),
		Bridges: BridgesConfig{IRC: irc.Config{Config: bridge.DefaultConfig()}, WhatsApp: defaultWhatsApp(), XMPP: defaultXMPP()},
	}
}

// Check returns everything that is wrong, not only the first thing. Each error
// begins with the key in the file.
func (c Config) Check() error {
	errs := []error{c.Config.Check()}
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	for i, l := range c.Listeners {
		c.checkListener(fmt.Sprintf("listeners[%d]", i), l, bad)
	}
	c.checkAddresses(bad)
	if e := c.ACME.Email; e != "" && !strings.Contains(e, "@") {
		bad("acme.email", "must be an e-mail address")
	}
	if c.ACME.Email != "" && !slices.ContainsFunc(c.listeners(), func(l ListenerConfig) bool { return l.TLS.ACME }) {
		bad("acme.email", "is set, but no listener has tls: {acme: true}")
	}
	if !strings.HasPrefix(c.ACME.Directory, "https://") {
		bad("acme.directory", "must begin with https://")
	}
	for i, d := range []time.Duration{c.HTTP.HeaderTimeout, c.HTTP.StallTimeout, c.HTTP.IdleTimeout} {
		if d < time.Second {
			bad([]string{"http.header_timeout", "http.stall_timeout", "http.idle_timeout"}[i], "must be at least 1s")
		}
	}
	if c.HTTP.MaxHeader < 4<<10 {
		bad("http.max_header", "must be at least 4K")
	}
	return errors.Join(append(errs, c.Bridges.Check(), c.Jitsi.Check(), c.VoIP.Check(), c.CallTest.Check())...)
}

func (c Config) checkListener(key string, l ListenerConfig, bad func(key, format string, args ...any)) {
	if len(l.Serve) == 0 {
		bad(key+".serve", "must name client, federation or both")
	}
	switch {
	case l.TLS.ACME && (l.TLS.Cert != "" || l.TLS.Key != ""):
		bad(key+".tls", "takes either cert and key, or acme")
	case l.TLS.ACME && c.ACME.Email == "":
		bad(key+".tls.acme", "needs acme.email")
	case (l.TLS.Cert == "") != (l.TLS.Key == ""):
		bad(key+".tls", "needs both cert and key")
	}
}

// checkAddresses looks at all addresses at which something listens.
func (c Config) checkAddresses(bad func(key, format string, args ...any)) {
	seen := map[string]string{}
	check := func(key, address string) {
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			if path == "" {
				bad(key, "names no socket behind unix:")
			}
		} else if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
			bad(key, "%q must be an address and a port, such as 127.0.0.1:8008 or :443", address)
		}
		if other := seen[address]; other != "" && !strings.HasSuffix(address, ":0") {
			bad(key, "is the same address as %s", other)
		}
		seen[address] = key
	}
	for i, l := range c.Listeners {
		check(fmt.Sprintf("listeners[%d].address", i), l.Address)
	}
	if c.Metrics.Address != "" {
		check("metrics.address", c.Metrics.Address)
	}
	if c.ACME.Email != "" && c.ACME.HTTP != "" {
		check("acme.http", c.ACME.HTTP)
	}
	if c.Pprof.Address != "" {
		check("pprof.address", c.Pprof.Address)
		host, _, _ := net.SplitHostPort(c.Pprof.Address)
		if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
			bad("pprof.address", "must be an address of this computer, such as 127.0.0.1:6060, because everybody who can reach it can read the server's memory")
		}
	}
}

// listeners are those of the file, or the default ones.
func (c Config) listeners() []ListenerConfig {
	both := []string{"client", "federation"}
	switch {
	case len(c.Listeners) > 0:
		return c.Listeners
	case c.ACME.Email != "":
		acme := ListenerTLSConfig{ACME: true}
		return []ListenerConfig{{Address: ":443", Serve: both, TLS: acme}, {Address: ":8448", Serve: []string{"federation"}, TLS: acme}}
	}
	return []ListenerConfig{{Address: "127.0.0.1:8008", Serve: both}}
}

// clientURL is what to enter in a client: the public address if there is one,
// or that of this computer.
func (c Config) clientURL() string {
	if c.PublicURL != "" || c.ServerName != "localhost" {
		return c.BaseURL()
	}
	for _, l := range c.listeners() {
		host, port, err := net.SplitHostPort(l.Address)
		if err != nil || !slices.Contains(l.Serve, "client") {
			continue
		}
		if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
			host = "localhost"
		}
		scheme := "http://"
		if l.TLS != (ListenerTLSConfig{}) {
			scheme = "https://"
		}
		return scheme + net.JoinHostPort(host, port)
	}
	return c.BaseURL()
}

// configFile is what is read where no file is named, if it exists.
const configFile = "switchboard.yaml"

// loaded is a configuration that was read.
type loaded struct {
	Config
	file     string            // "" if there was none
	origins  map[string]string // where the value of a key came from
	warnings []string
}

// loadConfig reads the file (path may be "") and the environment. The error
// tells everything that is wrong.
func loadConfig(path string, environment []string) (*loaded, error) {
	c := &loaded{Config: defaultConfig(), file: path}
	if path == "" {
		c.file = configFile
	}
	l := &loader{origins: map[string]string{}}
	b, err := os.ReadFile(c.file)
	switch {
	case err == nil:
		l.read(filepath.Base(c.file), b, &c.Config)
	case path == "" && errors.Is(err, fs.ErrNotExist):
		c.file = ""
	default:
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	l.environment(environment, &c.Config)
	if doubtful, all := l.doubtful(fields(reflect.ValueOf(c.Config))); !all {
		l.checked(c.Check(), doubtful)
	}
	c.origins, c.warnings = l.origins, l.warnings
	if err := l.err(); err != nil {
		return nil, err
	}
	return c, nil
}
