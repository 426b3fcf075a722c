package voip

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/turn/v5"
)

// TestTrial lets two who only try the relay reach each other through it, and
// nobody else.
func TestTrial(t *testing.T) {
	r := startRelay(t, func(o *Options) {
		o.Config.ExternalIPs = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		o.Config.AllowPeers = append(o.Config.AllowPeers, netip.MustParsePrefix("10.0.0.0/8"))
	})
	var relayed [2]net.PacketConn
	var clients [2]*turn.Client
	for i := range relayed {
		have := r.IssueTrial("session", time.Minute)
		if have.TTL != time.Minute {
			t.Errorf("they are good for %s", have.TTL)
		}
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		server, _ := strings.CutSuffix(strings.TrimPrefix(r.Local(), "turn:"), "?transport=udp")
		client, err := turn.NewClient(&turn.ClientConfig{
			STUNServerAddr: server, TURNServerAddr: server, Conn: conn, Username: have.Username, Password: have.Password, RTO: time.Minute, LoggerFactory: silent{},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if err := client.Listen(); err != nil {
			t.Fatal(err)
		}
		if relayed[i], err = client.Allocate(); err != nil {
			t.Fatal(err)
		}
		defer relayed[i].Close()
		for _, peer := range []string{"8.8.8.8:53", "10.1.2.3:80"} {
			to, err := net.ResolveUDPAddr("udp4", peer)
			if err != nil {
				t.Fatal(err)
			}
			if err := client.CreatePermission(to); err == nil || !strings.Contains(err.Error(), "403") {
				t.Errorf("a permission for %s: %v", peer, err)
			}
		}
		clients[i] = client
	}
	for i := range clients {
		if err := clients[i].CreatePermission(relayed[1-i].LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	exchange(t, relayed[1], relayed[0])
}
