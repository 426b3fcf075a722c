package matrix

import (
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxIDLength is the longest identifier in bytes, its sigil included.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#common-identifier-format
const MaxIDLength = 255

// ServerName is the name of a homeserver, "host" or "host:port".
//
// Spec: https://spec.matrix.org/v1.19/appendices/#server-name
type ServerName string

// UserID names a user: "@localpart:server".
//
// Spec: https://spec.matrix.org/v1.19/appendices/#user-identifiers
type UserID string

// RoomID names a room: "!opaque:server", or "!hash" from room version 12 on.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#room-ids
type RoomID string

// EventID names an event: "$hash", or "$opaque:server" in room versions 1 and 2.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#event-ids
type EventID string

// RoomAlias is a human-readable name of a room: "#localpart:server".
//
// Spec: https://spec.matrix.org/v1.19/appendices/#room-aliases
type RoomAlias string

// DeviceID names one of a user's devices. It is opaque.
type DeviceID string

// ParseServerName accepts exactly the grammar of the specification.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#server-name
func ParseServerName(s string) (ServerName, error) {
	host, port, ok := splitPort(s)
	if !ok || len(host) == 0 || len(s) > MaxIDLength-1 {
		return "", invalid("server name", s)
	}
	if port != "" {
		if n, err := strconv.Atoi(port); err != nil || len(port) > 5 || n > 65535 {
			return "", invalid("server name", s)
		}
	}
	if host[0] == '[' {
		a, err := netip.ParseAddr(host[1 : len(host)-1])
		if err != nil || !a.Is6() || a.Zone() != "" {
			return "", invalid("server name", s)
		}
		return ServerName(s), nil
	}
	for _, c := range []byte(host) {
		if !isAlnum(c) && c != '-' && c != '.' {
			return "", invalid("server name", s)
		}
	}
	return ServerName(s), nil
}

// splitPort cuts "host:port" and "[v6]:port". An absent port is "".
func splitPort(s string) (host, port string, ok bool) {
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", false
		}
		host, s = s[:end+1], s[end+1:]
		if s == "" {
			return host, "", true
		}
		if s[0] != ':' || !digits(s[1:]) {
			return "", "", false
		}
		return host, s[1:], true
	}
	host, port, found := strings.Cut(s, ":")
	if found && !digits(port) {
		return "", "", false
	}
	return host, port, true
}

func digits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// split cuts "<sigil>local:server" and checks length, encoding and the server name.
func split(what, s string, sigil byte) (local string, server ServerName, err error) {
	if len(s) < 2 || len(s) > MaxIDLength || s[0] != sigil || !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return "", "", invalid(what, s)
	}
	local, rest, ok := strings.Cut(s[1:], ":")
	if !ok {
		return "", "", invalid(what, s)
	}
	server, err = ParseServerName(rest)
	if err != nil {
		return "", "", invalid(what, s)
	}
	return local, server, nil
}

func invalid(what, s string) error {
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	return Errorf(InvalidParam, "%q is not a valid %s", strings.ToValidUTF8(s, "\uFFFD"), what)
}

// ParseUserID accepts current and historical user IDs. Historical ones may
// hold any character but ":" and NUL in the localpart, or none at all, so we
// must take them from other servers, but we never create them.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#historical-user-ids
func ParseUserID(s string) (UserID, error) {
	_, _, err := split("user ID", s, '@')
	return UserID(s), err
}

// ParseRoomID accepts room IDs of every room version.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#room-ids
func ParseRoomID(s string) (RoomID, error) {
	if len(s) < 2 || len(s) > MaxIDLength || s[0] != '!' || !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return "", invalid("room ID", s)
	}
	return RoomID(s), nil
}

// ParseEventID accepts event IDs of every room version.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#event-ids
func ParseEventID(s string) (EventID, error) {
	if len(s) < 2 || len(s) > MaxIDLength || s[0] != '$' || !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return "", invalid("event ID", s)
	}
	return EventID(s), nil
}

// ParseRoomAlias accepts room aliases.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#room-aliases
func ParseRoomAlias(s string) (RoomAlias, error) {
	local, _, err := split("room alias", s, '#')
	if err == nil && local == "" {
		err = invalid("room alias", s)
	}
	return RoomAlias(s), err
}

// ValidLocalpart tells whether a new user may have this localpart on server.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#user-identifiers
func ValidLocalpart(local string, server ServerName) bool {
	if local == "" || 1+len(local)+1+len(server) > MaxIDLength {
		return false
	}
	for _, c := range []byte(local) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("._=-/+", c) >= 0) {
			return false
		}
	}
	return true
}

// NewUserID joins a localpart and a server name.
func NewUserID(local string, server ServerName) UserID {
	return UserID("@" + local + ":" + string(server))
}

// Localpart is the part between "@" and the first ":".
func (u UserID) Localpart() string { return localpart(string(u)) }

// Host is the name without a port, with the brackets of IPv6.
func (s ServerName) Host() string {
	if i := strings.LastIndexByte(string(s), ':'); i > strings.LastIndexByte(string(s), ']') {
		return string(s[:i])
	}
	return string(s)
}

// Server is the part behind the first ":".
func (u UserID) Server() ServerName { return server(string(u)) }

// Localpart is the part between "#" and the first ":".
func (a RoomAlias) Localpart() string { return localpart(string(a)) }

// Server is the part behind the first ":".
func (a RoomAlias) Server() ServerName { return server(string(a)) }

// Server is the part behind the first ":", "" where the room version has none.
// It must not be used to find the room's servers.
func (r RoomID) Server() ServerName { return server(string(r)) }

// Server is the part behind the first ":", "" from room version 3 on.
func (e EventID) Server() ServerName { return server(string(e)) }

func localpart(s string) string {
	if s == "" {
		return ""
	}
	local, _, _ := strings.Cut(s[1:], ":")
	return local
}

func server(s string) ServerName {
	_, name, _ := strings.Cut(s, ":")
	return ServerName(name)
}
