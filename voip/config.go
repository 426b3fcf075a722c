package voip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config is the section "voip".
type Config struct {
	// Provider is who relays the calls of those who cannot reach each other:
	// "builtin" is the TURN server of this program, "external" one of your own,
	// "cloudflare" theirs, "off" nobody, and then calls work only where both
	// sides can reach each other. "auto" is builtin if server_name is a name on
	// the internet, otherwise off.
	Provider string `yaml:"provider" oneof:"auto builtin external cloudflare off"`

	// Lifetime is how long the credentials are good that users get. They get new
	// ones in time; a call that has begun goes on.
	Lifetime time.Duration `yaml:"lifetime"`

	// TURN is the TURN server of this program. Behind a home router, forward to
	// this machine: UDP and TCP 3478 (how clients reach it), TCP 5349 (the same,
	// encrypted, for networks that let nothing else out), and UDP 49160 to 49660
	// (one port for each call that is relayed, where the other side's packets
	// arrive). If forwarding 501 ports is too much, set one_port and forward that
	// one instead. TCP 443 you forward already if this program serves HTTPS there.
	TURN TURNConfig `yaml:"turn"`

	// External is a TURN server of your own, such as coturn.
	External ExternalConfig `yaml:"external"`

	// Cloudflare is the TURN service of Cloudflare, which relays calls even where
	// no port of yours can be reached, such as behind a tunnel.
	Cloudflare CloudflareConfig `yaml:"cloudflare"`
}

// TURNConfig is the section "voip.turn".
type TURNConfig struct {
	// Host is the name that clients are told. It must lead to this machine, not
	// to a proxy, and the certificate must be valid for it. Empty means the host
	// of public_url.
	Host string `yaml:"host"`

	// UDP are the addresses at which clients are served over UDP.
	UDP []string `yaml:"udp"`

	// TCP are the addresses at which clients are served over TCP.
	TCP []string `yaml:"tcp"`

	// TLS are the addresses at which clients are served over TLS, with the
	// certificate of the first listener that has one. Without a certificate
	// there is no TLS.
	TLS []string `yaml:"tls"`

	// HTTPS serves clients on the ports of HTTPS, too: networks that let nothing
	// out but web pages let that out.
	HTTPS bool `yaml:"https"`

	// MinPort is the first of the UDP ports at which the packets of the other side
	// arrive, one for each user who is relayed.
	MinPort uint16 `yaml:"min_port"`

	// MaxPort is the last of them.
	MaxPort uint16 `yaml:"max_port"`

	// OnePort lets all share this UDP port, so that a router needs to forward only
	// one. It must be another one than those of udp. 0 gives each a port of min_port
	// to max_port.
	OnePort uint16 `yaml:"one_port"`

	// ExternalIPs are the addresses under which others reach this machine, at
	// most one IPv4 and one IPv6 address. Without any they are found: the
	// machine's own if it has public ones, or what a STUN server sees.
	ExternalIPs []netip.Addr `yaml:"external_ips"`

	// STUNServers are asked under which address they see this machine, if it has
	// no public address of its own. They learn nothing but the address.
	STUNServers []string `yaml:"stun_servers"`

	// AllowPeers are private networks into which users may relay, such as
	// 192.168.1.0/24 where people at home call each other. Everything that users
	// can reach through here they reach as this machine.
	AllowPeers []netip.Prefix `yaml:"allow_peers"`

	// DenyPeers are further networks into which nobody may relay.
	DenyPeers []netip.Prefix `yaml:"deny_peers"`

	// UserQuota is how many relayed addresses one user may have at once. A call
	// needs one or two for each device.
	UserQuota int `yaml:"user_quota"`

	// TotalQuota is how many all users may have together.
	TotalQuota int `yaml:"total_quota"`

	// MaxBitrate is how many kilobits a second each client may have relayed in each
	// direction. What is above is dropped, and clients send less. 0 sets no limit.
	MaxBitrate int `yaml:"max_bitrate"`

	// Sockets is how many sockets share each UDP address, so that as many cores
	// can work. 0 is one for two cores: the system needs as much for its part.
	Sockets int `yaml:"sockets"`

	// Grace is how long calls may go on when the server is stopped. New ones are
	// refused then.
	Grace time.Duration `yaml:"grace"`

	// SharedSecrets are secrets with which other programs, such as Jitsi, make
	// credentials for this server by themselves (the use-auth-secret of coturn).
	SharedSecrets []string `yaml:"shared_secrets" secret:"true"`
}

// ExternalConfig is the section "voip.external".
type ExternalConfig struct {
	// URIs are where it is, such as turn:turn.example.org?transport=udp.
	URIs []string `yaml:"uris"`

	// Secret makes time-limited credentials, if the TURN server knows the same
	// (static-auth-secret of coturn, secret of eturnal).
	Secret string `yaml:"secret" secret:"true"`

	// Username is the same for everybody, if there is no secret.
	Username string `yaml:"username"`

	// Password belongs to the user name.
	Password string `yaml:"password" secret:"true"`
}

// CloudflareConfig is the section "voip.cloudflare".
type CloudflareConfig struct {
	// KeyID is the ID of a TURN key, from the dashboard of Cloudflare.
	KeyID string `yaml:"key_id"`

	// Token is the API token of the key.
	Token string `yaml:"token" secret:"true"`

	// API is where the service makes credentials.
	API string `yaml:"api"`
}

// DefaultConfig is what holds where the file says nothing.
func DefaultConfig() Config {
	return Config{
		Provider: "auto", Lifetime: 12 * time.Hour,
		TURN: TURNConfig{
			UDP: []string{":3478"}, TCP: []string{":3478"}, TLS: []string{":5349"}, HTTPS: true,
			MinPort: 49160, MaxPort: 49660,
			STUNServers: []string{"stun.nextcloud.com:3478", "stun.cloudflare.com:3478"},
			UserQuota:   12, TotalQuota: 1200, MaxBitrate: 20_000, Grace: 30 * time.Second,
		},
		Cloudflare: CloudflareConfig{API: "https://rtc.live.cloudflare.com/v1"},
	}
}

// Check returns everything that is wrong with what is in use, each error
// beginning with its key.
func (c Config) Check() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("voip.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.Lifetime < time.Minute || c.Lifetime > 30*24*time.Hour {
		bad("lifetime", "must be between 1m and 30d")
	}
	switch c.Provider {
	case "auto", "builtin":
		c.TURN.check(bad)
	case "external":
		c.External.check(bad)
	case "cloudflare":
		if c.Cloudflare.KeyID == "" || c.Cloudflare.Token == "" {
			bad("cloudflare", "needs key_id and token, from the dashboard of Cloudflare")
		}
		if u, err := url.Parse(c.Cloudflare.API); err != nil || u.Scheme != "https" && u.Hostname() != "127.0.0.1" {
			bad("cloudflare.api", "must begin with https://")
		}
	}
	return errors.Join(errs...)
}

func (c ExternalConfig) check(bad func(key, format string, args ...any)) {
	if len(c.URIs) == 0 {
		bad("external.uris", "must say where the TURN server is, such as turn:turn.example.org?transport=udp")
	}
	for i, uri := range c.URIs {
		if scheme, rest, _ := strings.Cut(uri, ":"); scheme != "turn" && scheme != "turns" || rest == "" || strings.ContainsAny(rest, "/@ ") {
			bad(fmt.Sprintf("external.uris[%d]", i), "%q must be like turn:turn.example.org?transport=udp, or begin with turns:, and has no //", uri)
		}
	}
	if (c.Secret == "") == (c.Username == "") || (c.Username == "") != (c.Password == "") {
		bad("external", "needs either secret, or username and password")
	}
}

func (c TURNConfig) check(bad func(key, format string, args ...any)) {
	if c.Host != "" && !isHost(c.Host) {
		bad("turn.host", "%q must be a name or an address alone, such as turn.example.org, without scheme and port", c.Host)
	}
	for i, s := range c.STUNServers {
		if host, port, err := net.SplitHostPort(s); err != nil || !isHost(host) || !isPort(port) {
			bad(fmt.Sprintf("turn.stun_servers[%d]", i), "%q must be a host and a port, such as stun.example.org:3478", s)
		}
	}
	for key, list := range map[string][]string{"udp": c.UDP, "tcp": c.TCP, "tls": c.TLS} {
		for i, address := range list {
			at, err := listenAddress(address)
			if err != nil {
				bad(fmt.Sprintf("turn.%s[%d]", key, i), "%q must be an address and a port, such as :3478 or 192.0.2.1:3478", address)
			} else if key == "udp" && c.OnePort != 0 && at.Port() == c.OnePort {
				bad("turn.one_port", "%d is where clients are served over UDP (turn.udp); it must be another one", c.OnePort)
			}
		}
	}
	if c.MinPort < 1024 || c.MaxPort < c.MinPort {
		bad("turn.min_port", "must be at least 1024 and not above max_port")
	}
	families := map[bool]bool{}
	for i, a := range c.ExternalIPs {
		key := fmt.Sprintf("turn.external_ips[%d]", i)
		if a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a.IsLinkLocalUnicast() {
			bad(key, "%s is no address that others can reach", a)
		}
		if families[a.Is4()] {
			bad(key, "is the second address of its kind; there may be one IPv4 and one IPv6 address")
		}
		families[a.Is4()] = true
	}
	for key, list := range map[string][]netip.Prefix{"allow_peers": c.AllowPeers, "deny_peers": c.DenyPeers} {
		for i, p := range list {
			if p.Addr().Is4In6() {
				bad(fmt.Sprintf("turn.%s[%d]", key, i), "%s is a network of IPv4 written as one of IPv6, in which nobody is; write it as 192.168.1.0/24 is written", p)
			}
		}
	}
	if len(c.UDP)+len(c.TCP)+len(c.TLS) == 0 && !c.HTTPS {
		bad("turn", "udp, tcp and tls are empty and https is off, so that nobody reaches it; provider: off says that it is meant to be so")
	}
	for key, n := range map[string]int{"user_quota": c.UserQuota, "total_quota": c.TotalQuota} {
		if n < 1 {
			bad("turn."+key, "must be at least 1")
		}
	}
	if c.MaxBitrate < 0 || c.Sockets < 0 {
		bad("turn", "max_bitrate and sockets must not be negative")
	}
	for i, s := range c.SharedSecrets {
		if len(s) < 16 {
			bad(fmt.Sprintf("turn.shared_secrets[%d]", i), "has %d characters, needs at least 16", len(s))
		}
	}
}

// isHost tells whether s is a name or an address that can stand in a URI.
func isHost(s string) bool {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Zone() == ""
	}
	return s != "" && !strings.ContainsAny(s, ":/[]@?# ")
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// listenAddress reads "host:port", where host is an IP address or empty for all
// of them.
func listenAddress(address string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if host == "" {
		host = "::"
	}
	return netip.ParseAddrPort(net.JoinHostPort(host, port))
}

// sockets is how many share an address.
func (c TURNConfig) sockets() int {
	if c.Sockets > 0 {
		return c.Sockets
	}
	return (runtime.GOMAXPROCS(0) + 1) / 2
}

// reserved are the ends of names that lead nowhere on the internet.
var reserved = []string{"localhost", "local", "internal", "test", "invalid", "example", "lan", "home", "arpa"}

// PublicName tells whether a server name (a port may follow) is one that the
// internet can know: no address, and not one reserved for private use.
func PublicName(server string) bool {
	host := server
	if h, _, err := net.SplitHostPort(server); err == nil {
		host = h
	}
	labels := strings.Split(host, ".")
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil || len(labels) < 2 {
		return false
	}
	return !slices.Contains(reserved, labels[len(labels)-1])
}

// Builtin tells whether the TURN server of this program is to run on a server of
// this name.
func (c Config) Builtin(server string) bool {
	return c.Provider == "builtin" || c.Provider == "auto" && PublicName(server)
}
