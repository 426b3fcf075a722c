package fedclient

import (
	"errors"
	"fmt"
	"net/netip"
)

// ErrRefused is in the error of a connection that the rules about addresses do
// not allow.
var ErrRefused = errors.New("address refused")

// special are the networks of IPv4, and those of IPv6 within 2000::/3, that are
// no place on the internet.
var special = prefixes(
	"0.0.0.0/8",       // this network
	"10.0.0.0/8",      // private
	"100.64.0.0/10",   // carrier-grade NAT
	"127.0.0.0/8",     // loopback
	"169.254.0.0/16",  // link-local, with the metadata services of clouds
	"172.16.0.0/12",   // private
	"192.0.0.0/24",    // protocol assignments
	"192.0.2.0/24",    // documentation
	"192.88.99.0/24",  // 6to4 relays
	"192.168.0.0/16",  // private
	"198.18.0.0/15",   // benchmarks
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"224.0.0.0/4",     // multicast
	"240.0.0.0/4",     // reserved, and broadcast

	"2001::/23",     // protocol assignments, with Teredo, which holds IPv4 addresses
	"2001:db8::/32", // documentation
	"2002::/16",     // 6to4, which holds IPv4 addresses
	"3fff::/20",     // documentation
)

var (
	// unicast is all of IPv6 that is given out to the internet.
	unicast = netip.MustParsePrefix("2000::/3")

	// nat64 are IPv4 addresses as networks without IPv4 reach them.
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// Everywhere are the networks of all addresses. To allow them turns the guard
// off, which is for tests.
func Everywhere() []netip.Prefix { return prefixes("0.0.0.0/0", "::/0") }

// plainAddress is a without disguise: an IPv4 address that is written as one of
// IPv6, mapped or through NAT64, becomes itself.
func plainAddress(a netip.Addr) netip.Addr {
	if nat64.Contains(a) {
		b := a.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a.Unmap()
}

// Public tells whether a is a place on the internet. An IPv4 address that is
// written as one of IPv6 is none.
func Public(a netip.Addr) bool {
	if a.Is6() && !unicast.Contains(a) {
		return false // loopback, link-local, site-local, unique local, multicast, embedded IPv4 …
	}
	return a.IsValid() && !within(special, a)
}

func within(networks []netip.Prefix, a netip.Addr) bool {
	for _, p := range networks {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// guard holds the rules about addresses.
type guard struct {
	allow, deny []netip.Prefix
	off         bool
}

// check refuses an address to which no connection may be made.
func (g *guard) check(a netip.Addr) error {
	if g.off {
		return nil
	}
	if a.Zone() != "" {
		return fmt.Errorf("%w: %s has a zone", ErrRefused, a)
	}
	plain := plainAddress(a)
	switch {
	case within(g.deny, plain) || within(g.deny, a):
		return fmt.Errorf("%w: %s is denied", ErrRefused, a)
	case Public(plain) || within(g.allow, plain) || within(g.allow, a):
		return nil
	}
	return fmt.Errorf("%w: %s is not a public address", ErrRefused, a)
}
