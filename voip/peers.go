package voip

import (
	"net/netip"
	"slices"

	"switchboard/homeserver/fedclient"
)

// peers are the rules about whom users may reach through the relay. Without
// them everybody with an account could reach whatever this machine can.
type peers struct {
	allow, deny []netip.Prefix
	own         func() []netip.Addr // addresses of this machine
	external    func(netip.Addr) bool
}

// allowed tells whether a may be a peer. An address of this machine may be one
// as that of a relay, which is checked with each packet, whatever else is at
// that address and denied; or if it is allowed by itself and not just the
// network around it.
func (p *peers) allowed(a netip.Addr) bool {
	if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
		return false
	}
	switch named := p.named(a); {
	case p.external(a) && !named:
		return true
	case within(p.deny, a):
		return false
	case named:
		return true
	case slices.Contains(p.own(), a):
		return false
	}
	return fedclient.Public(a) || within(p.allow, a)
}

// named tells whether a is allowed by itself.
func (p *peers) named(a netip.Addr) bool {
	return slices.Contains(p.allow, netip.PrefixFrom(a, a.BitLen()))
}

func within(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) })
}
