package voip

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// trialUser is how the names begin of those who only try the relay. No user ID
// begins so.
const trialUser = "trial-"

// IssueTrial makes credentials for somebody who only tries the relay. They are
// good for life, which is at most the lifetime of others, and for nothing but to
// reach relayed addresses of this server: they make no relay for strangers.
func (r *Relay) IssueTrial(whom string, life time.Duration) Credentials {
	life = min(life, r.options.Lifetime)
	r.issuer.mu.RLock()
	defer r.issuer.mu.RUnlock()
	username := restUsername(trialUser+whom, time.Now().Add(life))
	return Credentials{Username: username, Password: restPassword(r.issuer.secrets[0].Value, username), URIs: r.URIs(), TTL: life}
}

// mayMeet tells whether the user of a session may have a peer at an address.
func (s *session) mayMeet(peer netip.Addr) bool {
	return s.relay.peers.allowed(peer) && (!strings.HasPrefix(s.user, trialUser) || s.relay.addresses.isExternal(peer))
}

// Local is the URI at which this machine itself reaches the relay, over UDP if it
// can be; "" if it serves nothing but TLS.
func (r *Relay) Local() string {
	switch {
	case len(r.udp) > 0:
		return localURI(r.udp[0].addr(), "udp")
	case len(r.tcp) > 0:
		return localURI(r.tcp[0].Addr().(*net.TCPAddr).AddrPort(), "tcp")
	}
	return ""
}

func localURI(at netip.AddrPort, transport string) string {
	host := at.Addr().Unmap()
	if host.IsUnspecified() {
		host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return "turn:" + net.JoinHostPort(host.String(), strconv.Itoa(int(at.Port()))) + "?transport=" + transport
}
