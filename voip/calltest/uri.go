package calltest

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// uri is where a STUN or TURN server is.
type uri struct {
	text      string // as it was written
	turn      bool   // or only STUN
	secure    bool   // TLS, or DTLS over UDP
	host      string // a name or an address, without brackets
	port      string
	transport string // udp or tcp
}

// parseURI reads a URI of RFC 7064 or RFC 7065.
func parseURI(text string) (uri, error) {
	u := uri{text: text, port: "3478", transport: "udp"}
	scheme, rest, ok := strings.Cut(text, ":")
	switch scheme {
	case "turn":
		u.turn = true
	case "turns":
		u.turn, u.secure = true, true
	case "stun":
	case "stuns":
		u.secure = true
	default:
		ok = false
	}
	if !ok {
		return uri{}, fmt.Errorf("%q begins with none of turn:, turns:, stun: and stuns: as it must", text)
	}
	if u.secure {
		u.port, u.transport = "5349", "tcp"
	}
	rest, query, hasQuery := strings.Cut(rest, "?")
	if hasQuery {
		transport, ok := strings.CutPrefix(query, "transport=")
		if !ok || !u.turn || transport != "udp" && transport != "tcp" {
			return uri{}, fmt.Errorf("%q: behind the ? there may only be transport=udp or transport=tcp", text)
		}
		u.transport = transport
	}
	u.host = rest
	if host, port, err := net.SplitHostPort(rest); err == nil {
		u.host, u.port = host, port
	} else if inner, ok := strings.CutPrefix(rest, "["); ok {
		if u.host, ok = strings.CutSuffix(inner, "]"); !ok {
			return uri{}, fmt.Errorf("%q names no host", text)
		}
	}
	if n, err := strconv.Atoi(u.port); err != nil || n < 1 || n > 65535 {
		return uri{}, fmt.Errorf("%q: %q is no port", text, u.port)
	}
	if _, err := netip.ParseAddr(u.host); err != nil && (u.host == "" || strings.ContainsAny(u.host, ":[]/@ ")) {
		return uri{}, fmt.Errorf("%q names no host", text)
	}
	return u, nil
}

// address is where to connect to.
func (u uri) address() string { return net.JoinHostPort(u.host, u.port) }
