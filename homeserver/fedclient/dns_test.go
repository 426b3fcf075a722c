package fedclient

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer is a server of the domain name system on loopback, and the system's
// resolver that asks only it.
func nameServer(t *testing.T, answer func(q dnsmessage.Question) ([]dnsmessage.ResourceBody, dnsmessage.RCode)) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			bodies, code := answer(q)
			reply := dnsmessage.Message{
				Header:    dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RCode: code},
				Questions: m.Questions,
			}
			for _, b := range bodies {
				reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}, Body: b})
			}
			if packed, err := reply.Pack(); err == nil {
				_, _ = conn.WriteTo(packed, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// TestRealResolver finds servers with the system's resolver and a name server.
func TestRealResolver(t *testing.T) {
	srv := func(target string, port, priority uint16) dnsmessage.ResourceBody {
		return &dnsmessage.SRVResource{Target: dnsmessage.MustNewName(target), Port: port, Priority: priority}
	}
	resolver := nameServer(t, func(q dnsmessage.Question) ([]dnsmessage.ResourceBody, dnsmessage.RCode) {
		switch strings.ToLower(q.Name.String()) + q.Type.String() {
		case "_matrix-fed._tcp.server.test.TypeSRV":
			return []dnsmessage.ResourceBody{srv("second.test.", 2, 20), srv("first.test.", 1, 10)}, 0
		case "_matrix._tcp.old.test.TypeSRV":
			return []dnsmessage.ResourceBody{srv("first.test.", 3, 10)}, 0
		case "_matrix-fed._tcp.none.test.TypeSRV":
			return []dnsmessage.ResourceBody{srv(".", 0, 0)}, 0
		case "_matrix-fed._tcp.broken.test.TypeSRV", "_matrix._tcp.broken.test.TypeSRV":
			return nil, dnsmessage.RCodeServerFailure
		case "first.test.TypeA":
			return []dnsmessage.ResourceBody{&dnsmessage.AResource{A: [4]byte{5, 5, 5, 1}}}, 0
		case "first.test.TypeAAAA":
			return []dnsmessage.ResourceBody{&dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2606:4700::1").As16()}}, 0
		case "sly.test.TypeAAAA":
			return []dnsmessage.ResourceBody{&dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("::ffff:127.0.0.1").As16()}}, 0
		case "sly.test.TypeA":
			return []dnsmessage.ResourceBody{&dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}, 0
		}
		return nil, dnsmessage.RCodeNameError
	})
	config := DefaultOutboundConfig()
	config.ConnectTimeout = time.Minute
	d := NewDialer(config, resolver)
	for host, want := range map[string]string{
		"server.test": "[first.test:1 second.test:2]", "old.test": "[first.test:3]", "plain.test": "[plain.test:8448]", "broken.test": "[broken.test:8448]",
	} {
		find := newDiscovery(d, nil, newClock().time)
		dest, err := find.records(t.Context(), host)
		var got []string
		for _, target := range dest.Targets {
			got = append(got, target.String())
		}
		if err != nil || "["+strings.Join(got, " ")+"]" != want || dest.Host != host {
			t.Errorf("%s: %v, %v; want %s", host, dest, err, want)
		}
	}
	if _, err := newDiscovery(d, nil, newClock().time).records(t.Context(), "none.test"); !errors.Is(err, ErrNoService) {
		t.Errorf("none.test: %v", err)
	}
	addrs, err := d.addresses(t.Context(), "tcp", "first.test")
	slices.SortFunc(addrs, netip.Addr.Compare)
	if err != nil || !slices.Equal(addrs, []netip.Addr{netip.MustParseAddr("5.5.5.1"), netip.MustParseAddr("2606:4700::1")}) {
		t.Errorf("first.test: %v, %v", addrs, err)
	}
	if _, err := d.DialContext(t.Context(), "tcp", "sly.test:80"); !errors.Is(err, ErrRefused) {
		t.Errorf("sly.test: %v", err)
	}
}
