package room

import (
	"encoding/json"
	"net/netip"
	"strings"

	"switchboard/homeserver/matrix"
)

// allows evaluates the content of m.room.server_acl. Broken parts of it count as
// absent, as the specification wants.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mroomserver_acl
func allows(content json.RawMessage, server matrix.ServerName) bool {
	var acl map[string]json.RawMessage
	if json.Unmarshal(content, &acl) != nil {
		return true
	}
	host := strings.ToLower(server.Host())
	literals := true
	if raw := acl["allow_ip_literals"]; raw != nil && json.Unmarshal(raw, &literals) != nil {
		literals = true
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && !literals {
		return false
	}
	return !listed(acl["deny"], host) && listed(acl["allow"], host)
}

// listed tells whether one of a list of globs matches a host.
func listed(raw json.RawMessage, host string) bool {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return false
	}
	for _, item := range list {
		var pattern string
		if json.Unmarshal(item, &pattern) == nil && matrix.Glob(strings.ToLower(pattern), host) {
			return true
		}
	}
	return false
}
