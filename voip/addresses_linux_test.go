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
