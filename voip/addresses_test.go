package voip

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v3"
	"github.com/rs/zerolog"

	"switchboard/homeserver/fedclient"
)

// TestAddresses finds the address that others see, and finds it again when it is
// another one.
func TestAddresses(t *testing.T) {
	list := interfaceAddresses()
	i := slices.IndexFunc(list, func(a netip.Addr) bool { return a.Is4() && !a.IsLoopback() && !fedclient.Public(a) })
	if i < 0 {
		t.Skip("this machine has no private address")
	}
	local := list[i]
	var seen atomic.Pointer[netip.AddrPort]
	server := stunServer(t, local, &seen)
	a := &addresses{bound: [2]netip.Addr{ipv4: local}, servers: []string{"nobody.invalid:3478", server}}
	tell := func(text string) {
		at := netip.MustParseAddrPort(text)
		seen.Store(&at)
	}
	expect := func(what, want string) {
		t.Helper()
		// The server has a few seconds to answer; without an answer all stays as it was.
		for end := time.Now().Add(patience); !a.isExternal(netip.MustParseAddr(want)) && time.Now().Before(end); {
			a.look(t.Context(), true)
		}
		from, external := a.of(ipv4)
		if from != local || external.String() != want || !a.isExternal(netip.MustParseAddr(want)) {
			t.Errorf("%s: %s, known as %s, want %s", what, from, external, want)
		}
	}
	a.look(t.Context(), false)
	expect("before anybody was asked", local.String())
	tell("198.41.0.7:5000")
	a.look(t.Context(), true)
	expect("a STUN server tells", "198.41.0.7")
	tell("198.41.0.8:5000")
	a.look(t.Context(), true)
	expect("the router has a new address", "198.41.0.8")
	if a.isExternal(netip.MustParseAddr("198.41.0.7")) {
		t.Error("the old address is ours still")
	}
	tell("[2001:503:ba3e::2:30]:5000")
	a.look(t.Context(), true)
	expect("an answer of another family", "198.41.0.8")
	a.servers = a.servers[:1]
	a.look(t.Context(), true)
	expect("nobody answers any more", "198.41.0.8")
	a.configured = []netip.Addr{netip.MustParseAddr("198.41.0.9")}
	a.look(t.Context(), true)
	expect("the configuration says", "198.41.0.9")
}

// TestLookInVain warns once that nobody tells the address, and not because the
// server stops meanwhile.
func TestLookInVain(t *testing.T) {
	a := &addresses{bound: [2]netip.Addr{ipv4: netip.MustParseAddr("192.168.77.2")}}
	var log bytes.Buffer
	logged := zerolog.New(&log).Level(zerolog.WarnLevel).WithContext(t.Context())
	stopping, stop := context.WithCancel(logged)
	stop()
	a.look(stopping, true)
	if log.Len() > 0 {
		t.Errorf("a server that stops says %s", log.String())
	}
	a.look(logged, true)
	a.look(logged, true)
	if n := bytes.Count(log.Bytes(), []byte("192.168.77.2")); n != 1 {
		t.Errorf("it is told %d times: %s", n, log.String())
	}
}

// stunServer answers with what it is told to, and before that with what is no
// answer to the question.
func stunServer(t *testing.T, at netip.Addr, seen *atomic.Pointer[netip.AddrPort]) string {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			q, err := parse(b[:n])
			if err != nil {
				continue
			}
			for _, m := range []*stun.Message{
				stun.MustBuild(stun.TransactionID, stun.BindingSuccess, address{stun.AttrXORMappedAddress, netip.MustParseAddrPort("192.0.2.66:6")}),
				stun.MustBuild(stun.NewTransactionIDSetter(q.TransactionID), stun.BindingSuccess, address{stun.AttrXORMappedAddress, *seen.Load()}),
			} {
				conn.WriteToUDPAddrPort(m.Raw, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return conn.LocalAddr().String()
}
