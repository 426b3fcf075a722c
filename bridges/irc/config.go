package irc

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"strings"
	"time"

	"switchboard/bridges/bridge"
	"switchboard/bridges/irc/client"
)

// Config is the section "bridges.irc" of the configuration file.
type Config struct {
	bridge.Config `yaml:",inline"`

	// Networks are the networks that users may log in to.
	Networks []Network `yaml:"networks"`
}

// Network is one IRC network.
type Network struct {
	// ID names the network in user IDs and commands. It can not be changed
	// later. Letters a-z, digits and "-".
	ID string `yaml:"id"`

	// Name is what people call the network. When empty it is the ID.
	Name string `yaml:"name"`

	// Address is the server, host:port. The port may be left out: 6697, or
	// 6667 without TLS.
	Address string `yaml:"address"`

	// TLS is "verify", "insecure" (encrypted, but the server may be anybody) or
	// "off".
	TLS string `yaml:"tls" oneof:"verify insecure off"`

	// CAFile is a PEM file with the certificates that the server's must come
	// from, instead of those of the system.
	CAFile string `yaml:"ca_file"`

	// Password is the server's password, not a user's. Most servers have none.
	Password string `yaml:"password" secret:"true"`

	// Nick is the nick that is proposed to a user; {localpart} stands for the
	// first part of the user ID.
	Nick string `yaml:"nick"`

	// NickServ says that accounts log in by IDENTIFY with NickServ where the
	// server does not offer SASL.
	NickServ bool `yaml:"nickserv"`

	// Channels limits what can be joined to names that match one of these
	// patterns, such as "#go-*". When empty all channels are allowed.
	Channels []string `yaml:"channels"`

	// Burst is how many lines may be sent at once. Public networks put up with 5.
	Burst int `yaml:"burst"`

	// Interval is the time between lines when the burst is used up. Public
	// networks want one second.
	Interval time.Duration `yaml:"interval"`

	// MaxLines is how many lines a message may make on IRC. A longer one is
	// offered as a link where the server has public links, else refused.
	MaxLines int `yaml:"max_lines"`

	// MemberLimit is how many users of a channel are shown. In a channel with
	// more, those with a mode are, and the others as soon as they write.
	MemberLimit int `yaml:"member_limit"`

	// SplitDelay is how long users who vanish in a net split stay in the room.
	SplitDelay time.Duration `yaml:"split_delay"`

	// SendTimeout is how long a message waits for the connection to come back.
	SendTimeout time.Duration `yaml:"send_timeout"`

	// Backoff is the wait before the second attempt to connect. It doubles, up
	// to five minutes, until a connection has lasted. Zero means two seconds.
	Backoff time.Duration `yaml:"-"`

	// Gap is the time between two new connections to the network, whose servers
	// take many at once from one address for an attack. Zero means one second.
	Gap time.Duration `yaml:"-"`

	// Relay is the login by which users without one of their own take part.
	// Without it somebody who is logged in can offer to relay in a room.
	Relay *Relay `yaml:"relay"`
}

// Relay is a login that belongs to nobody but the bridge.
type Relay struct {
	// Nick is the nick on the network.
	Nick string `yaml:"nick"`

	// Account is the services account; empty without one.
	Account string `yaml:"account"`

	// Password is the account's.
	Password string `yaml:"password" secret:"true"`

	// Channels are those that it is always in.
	Channels []string `yaml:"channels"`
}

// SetDefaults fills in what a network that is written down may leave out.
func (n *Network) SetDefaults() {
	setDefault(&n.TLS, "verify")
	setDefault(&n.Nick, "{localpart}[m]")
	setDefault(&n.Burst, 5)
	setDefault(&n.Interval, time.Second)
	setDefault(&n.MaxLines, 10)
	setDefault(&n.MemberLimit, 500)
	setDefault(&n.SplitDelay, 10*time.Minute)
	setDefault(&n.SendTimeout, 2*time.Minute)
	setDefault(&n.Gap, time.Second)
}

func setDefault[T comparable](value *T, def T) {
	if *value == *new(T) {
		*value = def
	}
}

// complete returns the network with everything that follows from the rest.
func (n Network) complete() Network {
	n.SetDefaults()
	setDefault(&n.Name, n.ID)
	if _, _, err := net.SplitHostPort(n.Address); err != nil {
		port := "6697"
		if n.TLS == "off" {
			port = "6667"
		}
		n.Address = net.JoinHostPort(strings.Trim(n.Address, "[]"), port)
	}
	return n
}

// Check returns everything that is wrong.
func (c Config) Check() error {
	errs := []error{c.Config.Check("bridges.irc")}
	bad := func(i int, key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("bridges.irc.networks[%d].%s: %s", i, key, fmt.Sprintf(format, args...)))
	}
	if c.Enabled && len(c.Networks) == 0 {
		errs = append(errs, errors.New("bridges.irc.networks: must name at least one network when the bridge is enabled"))
	}
	seen := make(map[string]bool)
	for i, n := range c.Networks {
		bad := func(key, format string, args ...any) { bad(i, key, format, args...) }
		if n.ID == "" || strings.ContainsFunc(n.ID, func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-') }) {
			bad("id", "%q must be made of a-z, 0-9 and -", n.ID)
		}
		if seen[n.ID] {
			bad("id", "%q is there twice", n.ID)
		}
		seen[n.ID] = true
		n.check(bad)
	}
	return errors.Join(errs...)
}

func (n Network) check(bad func(key, format string, args ...any)) {
	if n.Address == "" {
		bad("address", "must be given, such as irc.example.org:6697")
	}
	switch n.TLS {
	case "", "verify", "insecure", "off":
	default:
		bad("tls", `is %q, must be "verify", "insecure" or "off"`, n.TLS)
	}
	if n.CAFile != "" {
		if _, err := certificates(n.CAFile); err != nil {
			bad("ca_file", "%v", err)
		}
	}
	for _, p := range n.Channels {
		if _, err := path.Match(p, ""); err != nil {
			bad("channels", "%q is no pattern", p)
		}
	}
	if n.Burst < 0 || n.Interval < 0 || n.MaxLines < 0 || n.MemberLimit < 0 || n.SplitDelay < 0 || n.SendTimeout < 0 {
		bad("burst, interval, max_lines, member_limit, split_delay, send_timeout", "must not be negative")
	}
	if r := n.Relay; r != nil {
		if err := checkNick(r.Nick, 0); err != nil {
			bad("relay.nick", "%v", err)
		}
		if (r.Account == "") != (r.Password == "") {
			bad("relay.account, relay.password", "must both be given, or none")
		}
	}
}

// allows reports whether a channel may be joined.
func (n Network) allows(channel string) bool {
	if len(n.Channels) == 0 {
		return true
	}
	for _, p := range n.Channels {
		if ok, _ := path.Match(strings.ToLower(p), strings.ToLower(channel)); ok {
			return true
		}
	}
	return false
}

// proposal is the nick that is proposed to a user.
func (n Network) proposal(localpart string) string {
	clean := strings.Map(func(r rune) rune {
		if r < 0x80 && checkNick("x"+string(r), 0) == nil {
			return r
		}
		return '_'
	}, localpart)
	nick := strings.ReplaceAll(n.Nick, "{localpart}", clean)
	if checkNick(nick, 0) != nil {
		nick = "m_" + nick
	}
	return nick
}

// client is the configuration of a connection.
func (n Network) client(m *LoginMetadata) (client.Config, error) {
	c := client.Config{
		Address: n.Address, Password: n.Password, Nick: m.Nick, User: m.User, RealName: m.RealName,
		NickServ: n.NickServ, Burst: n.Burst, Interval: n.Interval, Backoff: n.Backoff,
	}
	if m.Account != "" {
		c.SASL = &client.SASL{Account: m.Account, Password: m.Password}
	}
	if n.TLS == "off" {
		return c, nil
	}
	c.TLS = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: n.TLS == "insecure"}
	if n.CAFile != "" {
		pool, err := certificates(n.CAFile)
		if err != nil {
			return c, err
		}
		c.TLS.RootCAs = pool
	}
	return c, nil
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

// checkNick tells what is wrong with a nick before a server does. Max is the
// longest in bytes, 0 if unknown.
func checkNick(nick string, max int) error {
	switch {
	case nick == "":
		return errors.New("a nick must not be empty")
	case max > 0 && len(nick) > max:
		return fmt.Errorf("%q has %d bytes, the network allows %d", nick, len(nick), max)
	case len(nick) > 64:
		return fmt.Errorf("%q is too long", nick)
	case strings.IndexByte("0123456789-", nick[0]) >= 0:
		return fmt.Errorf("%q must not begin with a digit or -", nick)
	}
	for _, r := range nick {
		ok := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r >= 0x80 || strings.ContainsRune("-[]\\`^{}_|", r)
		if !ok || printable(r) < 0 {
			return fmt.Errorf("%q must not contain %q", nick, r)
		}
	}
	return nil
}
