package calls

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"switchboard/cmd/dev/instance"
)

// address is that of the machine that runs the server.
const address = "198.51.100.1"

// topology makes a machine on the internet, which forwards nothing, and two
// homes behind routers of their own, each with a person in it. What is written
// as NAME: is run there.
//
//	alice -- routerA -- server -- routerB -- bob
const topology = `
server: ip address add 198.51.100.1/24 dev toA
server: ip address add 203.0.113.1/24 dev toB
server: sysctl -qw net.ipv4.ip_forward=0
routerA: ip address add 198.51.100.2/24 dev out
routerA: ip address add 192.168.1.1/24 dev in
routerA: ip route add default via 198.51.100.1
routerA: sysctl -qw net.ipv4.ip_forward=1
routerA: nft add table ip home
routerA: nft add chain ip home out { type nat hook postrouting priority 100 ; }
routerA: nft add rule ip home out oifname out masquerade fully-random
routerA: nft add chain ip home in { type filter hook forward priority 0 ; policy drop ; }
routerA: nft add rule ip home in iifname in accept
routerA: nft add rule ip home in ct state established,related accept
alice: ip address add 192.168.1.2/24 dev out
alice: ip route add default via 192.168.1.1
routerB: ip address add 203.0.113.2/24 dev out
routerB: ip address add 192.168.1.1/24 dev in
routerB: ip route add default via 203.0.113.1
routerB: sysctl -qw net.ipv4.ip_forward=1
routerB: nft add table ip home
routerB: nft add chain ip home out { type nat hook postrouting priority 100 ; }
routerB: nft add rule ip home out oifname out masquerade fully-random
routerB: nft add chain ip home in { type filter hook forward priority 0 ; policy drop ; }
routerB: nft add rule ip home in iifname in accept
routerB: nft add rule ip home in ct state established,related accept
bob: ip address add 192.168.1.2/24 dev out
bob: ip route add default via 192.168.1.1
`

// links are the cables: from a network's interface to another's.
var links = [][4]string{
	{"server", "toA", "routerA", "out"}, {"server", "toB", "routerB", "out"},
	{"routerA", "in", "alice", "out"}, {"routerB", "in", "bob", "out"},
}

// networks are namespaces of this machine, by name.
type networks struct{ prefix string }

// in is the command that runs something in one of them.
func (n networks) in(name string) []string {
	return []string{"ip", "netns", "exec", n.prefix + name}
}

// run runs something in one of them.
func (n networks) run(name string, args ...string) error { return run(append(n.in(name), args...)...) }

func run(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// newNetworks makes the namespaces. Where that is not allowed the test is
// skipped, and says so.
func newNetworks(t *testing.T) networks {
	t.Helper()
	for _, program := range []string{"ip", "nft"} { // "make calls" installs them
		if _, err := exec.LookPath(program); err != nil {
			t.Fatal(err)
		}
	}
	n := networks{fmt.Sprintf("calls%d-", os.Getpid())}
	for _, name := range []string{"server", "routerA", "routerB", "alice", "bob"} {
		if err := run("ip", "netns", "add", n.prefix+name); err != nil {
			t.Skipf("network namespaces cannot be made here, so calls from behind NAT are not tested: %v", err)
		}
		t.Cleanup(func() {
			if err := run("ip", "netns", "delete", n.prefix+name); err != nil {
				t.Error(err)
			}
		})
		must(t, n.run(name, "ip", "link", "set", "lo", "up"))
	}
	for _, l := range links {
		must(t, n.run(l[0], "ip", "link", "add", l[1], "type", "veth", "peer", "name", l[3], "netns", n.prefix+l[2]))
		must(t, n.run(l[0], "ip", "link", "set", l[1], "up"))
		must(t, n.run(l[2], "ip", "link", "set", l[3], "up"))
	}
	for line := range strings.Lines(strings.TrimSpace(topology)) {
		name, command, _ := strings.Cut(strings.TrimSpace(line), ": ")
		must(t, n.run(name, strings.Fields(command)...))
	}
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestNAT places calls between two homes whose routers give every connection
// another port and let in only what answers: nothing but a relay carries them.
// Without one they fail, so the networks are what they should be.
func TestNAT(t *testing.T) {
	script, binary := phone(t), instance.Binary(t)
	n := newNetworks(t)
	s := newServer(t, binary, n.in("server"), address+":443", builtin(map[string]any{
		"udp": []string{address + ":3478"}, "tcp": []string{}, "tls": []string{}, "https": true, "external_ips": []string{address},
	}))
	t.Run("with a relay", func(t *testing.T) {
		talk(t, s.person(t, n.in("alice"), script, "alice", "all"), s.person(t, n.in("bob"), script, "bob", "all"), "udp")
	})
	t.Run("with a relay at the port of HTTPS alone", func(t *testing.T) {
		for _, router := range []string{"routerA", "routerB"} {
			must(t, n.run(router, "nft", "insert", "rule", "ip", "home", "in", "udp", "dport", "3478", "drop"))
		}
		talk(t, s.person(t, n.in("alice"), script, "alice", "all"), s.person(t, n.in("bob"), script, "bob", "all"), "tls")
	})
	t.Run("without", func(t *testing.T) {
		alice, bob := s.person(t, n.in("alice"), script, "alice", "direct"), s.person(t, n.in("bob"), script, "bob", "direct")
		alice.Eval(fmt.Sprintf("phone.dial(%q)", meet(alice, bob)), nil)
		alice.await("the call fails", func(r report) bool {
			if r.flows() {
				t.Fatal("the homes reach each other without a relay")
			}
			return r.Ended && r.Reason == "ice_failed"
		})
	})
}
