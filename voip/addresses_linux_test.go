package voip

import (
	"errors"
	"net/netip"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoWayOut relays in a network that leads nowhere else, at the address that
// the machine has there.
func TestNoWayOut(t *testing.T) {
	done := make(chan *found)
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with its network
		err := unix.Unshare(unix.CLONE_NEWNET)
		if errors.Is(err, unix.EPERM) {
			return
		}
		for _, args := range [][]string{
			{"link", "set", "lo", "up"}, {"link", "add", "lan", "type", "veth", "peer", "name", "far"}, {"link", "set", "far", "up"}, {"link", "set", "lan", "up"},
			{"address", "add", "192.168.77.2/24", "dev", "lan"}, {"address", "add", "fd00:77::2/64", "dev", "lan", "nodad"},
		} {
			if err == nil {
				err = exec.Command("ip", args...).Run()
			}
		}
		if err != nil {
			t.Error(err)
			return
		}
		var a addresses
		a.look(t.Context(), true)
		done <- a.found.Load()
	}()
	f, ok := <-done
	if !ok {
		if !t.Failed() {
			t.Skip("it takes root to make a network")
		}
		return
	}
	for family, want := range [2]string{"192.168.77.2", "fd00:77::2"} {
		if want := netip.MustParseAddr(want); f.local[family] != want || f.external[family] != want {
			t.Errorf("it relays from %v, known as %v, want %v", f.local[family], f.external[family], want)
		}
	}
}

// TestMayBeFragmented lets routers take apart what is relayed.
func TestMayBeFragmented(t *testing.T) {
	r := startRelay(t, nil)
	speak(t, r, "udp", "@alice:a.test").allocate()
	relayed, ok := r.session0(t).legs[ipv4].socket.(*relayPort)
	if !ok {
		t.Fatal("it has no port of its own")
	}
	for what, port := range map[string]*udpPort{"the port of clients": r.udp[0], "a relayed address": relayed.udp} {
		for _, s := range port.sockets {
			if v, err := unix.GetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER); err != nil || v != unix.IP_PMTUDISC_DONT {
				t.Errorf("%s sets DF: %d, %v", what, v, err)
			}
		}
	}
}
