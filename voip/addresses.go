package voip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v3"
	"github.com/rs/zerolog"

	"switchboard/homeserver/fedclient"
)

// addresses are those of this machine.
type addresses struct {
	bound      [2]netip.Addr // by family: where the configuration has us listen, if it names one address
	configured []netip.Addr
	servers    []string // STUN servers

	found atomic.Pointer[found]
	told  [2]netip.Addr // for which local address it was logged that nobody tells the other one; look's own
}

// found is what is known of the machine's addresses. It is not changed.
type found struct {
	local    [2]netip.Addr // from which packets leave, by family
	external [2]netip.Addr // as others see it
	own      []netip.Addr  // of all interfaces
}

// of gives the addresses of a family: the local one, and that which others see.
// They are not valid where there is none.
func (a *addresses) of(family int) (local, external netip.Addr) {
	f := a.found.Load()
	return f.local[family], f.external[family]
}

// own are the addresses of all interfaces.
func (a *addresses) own() []netip.Addr { return a.found.Load().own }

// isExternal tells whether others see this machine under an address.
func (a *addresses) isExternal(ip netip.Addr) bool {
	e := a.found.Load().external
	return ip == e[ipv4] || ip == e[ipv6]
}

// recheck is how often the addresses are looked at again.
const recheck = 2 * time.Minute

// look finds the addresses. Probe asks STUN servers, where that is needed. An
// address that nobody could be asked about stays as it was.
func (a *addresses) look(ctx context.Context, probe bool) {
	before := a.found.Load()
	if before == nil {
		before = &found{}
	}
	now := &found{own: interfaceAddresses()}
	sources := [2]netip.Addr{sourceAddress(ctx, ipv4), sourceAddress(ctx, ipv6)}
	if !sources[ipv4].IsValid() && !sources[ipv6].IsValid() { // a network that leads nowhere else
		sources = privateAddresses(now.own)
	}
	for family := range now.local {
		local := a.bound[family]
		if !local.IsValid() {
			local = sources[family]
		}
		now.local[family] = local
		if i := slices.IndexFunc(a.configured, func(c netip.Addr) bool { return familyOf(c) == family }); i >= 0 {
			now.external[family] = a.configured[i]
			if !local.IsValid() {
				now.local[family] = unspecified(family)
			}
			continue
		}
		if !local.IsValid() || fedclient.Public(local) || local.IsLoopback() {
			now.external[family] = local
			continue
		}
		now.external[family] = local // at home, that is better than nothing
		if before.local[family] == local {
			now.external[family] = before.external[family]
		}
		if probe {
			if seen, err := a.probe(ctx, family, local); err == nil {
				now.external[family], a.told[family] = seen, netip.Addr{}
			} else if ctx.Err() == nil && a.told[family] != local && now.external[family] == local {
				a.told[family] = local
				zerolog.Ctx(ctx).Warn().Err(err).Stringer("address", local).Msg("the address that others see could not be found; calls with people elsewhere need voip.turn.external_ips")
			}
		}
	}
	if now.external != before.external {
		e := zerolog.Ctx(ctx).Info()
		for family, name := range []string{ipv4: "ipv4", ipv6: "ipv6"} {
			if a := now.external[family]; a.IsValid() {
				e.Stringer(name, a)
			}
		}
		e.Msg("relayed calls come from these addresses")
	}
	a.found.Store(now)
}

// watch looks at the addresses again from time to time, until ctx is done.
func (a *addresses) watch(ctx context.Context) {
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	for {
		a.look(ctx, true)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func unspecified(family int) netip.Addr {
	if family == ipv4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// interfaceAddresses are the addresses of this machine.
func interfaceAddresses() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var own []netip.Addr
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own = append(own, ip.Unmap())
			}
		}
	}
	return own
}

// privateAddresses are the first private ones of each family.
func privateAddresses(own []netip.Addr) (list [2]netip.Addr) {
	for _, a := range own {
		if f := familyOf(a); a.IsPrivate() && !list[f].IsValid() {
			list[f] = a
		}
	}
	return list
}

// sourceAddress is the address from which packets to the internet leave; not
// valid if they cannot. Nothing is sent.
func sourceAddress(ctx context.Context, family int) netip.Addr {
	network, somewhere := "udp4", "198.41.0.4:53" // a root server of the DNS
	if family == ipv6 {
		network, somewhere = "udp6", "[2001:503:ba3e::2:30]:53"
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, somewhere)
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	a := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	if a.IsLinkLocalUnicast() || a.IsLoopback() {
		return netip.Addr{}
	}
	return a.WithZone("")
}

// probe asks the STUN servers, one after the other, as what they see local.
func (a *addresses) probe(ctx context.Context, family int, local netip.Addr) (netip.Addr, error) {
	errs := []error{errors.New("no STUN server answers")}
	for _, server := range a.servers {
		seen, err := askSTUN(ctx, server, family, local)
		if err == nil && familyOf(seen) == family {
			return seen, nil
		}
		errs = append(errs, err)
	}
	return netip.Addr{}, errors.Join(errs...)
}

// askSTUN asks a STUN server, "host:port", as what it sees a packet from local.
func askSTUN(ctx context.Context, server string, family int, local netip.Addr) (netip.Addr, error) {
	network := "udp4"
	if family == ipv6 {
		network = "udp6"
	}
	dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)), Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, network, server)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	m, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.Fingerprint)
	if err != nil {
		return netip.Addr{}, err
	}
	buf := make([]byte, 1500)
	for wait := 500 * time.Millisecond; wait <= 2*time.Second; wait *= 2 {
		if _, err := conn.Write(m.Raw); err != nil {
			return netip.Addr{}, err
		}
		conn.SetReadDeadline(time.Now().Add(wait))
		for n, err := conn.Read(buf); err == nil; n, err = conn.Read(buf) {
			answer, err := parse(buf[:n])
			if err != nil || answer.TransactionID != m.TransactionID {
				continue
			}
			if v, err := answer.Get(stun.AttrXORMappedAddress); err == nil {
				if a, ok := readAddress(answer, v); ok {
					return a.Addr(), nil
				}
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("%s does not answer", server)
}
