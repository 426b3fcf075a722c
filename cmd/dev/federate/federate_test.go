package federate

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"switchboard/cmd/dev/checkout"
	"switchboard/cmd/dev/instance"
	"switchboard/cmd/dev/peers"
)

// versions are the room versions that the test is for.
var versions = []string{"10", "11", "12"}

// homeserver is one that runs.
type homeserver struct {
	*peers.Server
	program string
	users   atomic.Int64 // registered so far
}

// TestFederation starts the servers and runs all scenarios, each with the room
// on our side and on the peer's. What stops servers comes last.
func TestFederation(t *testing.T) {
	named := os.Getenv("SWITCHBOARD_TEST_PEERS")
	if named == "" {
		t.Skip("SWITCHBOARD_TEST_PEERS does not name homeservers to federate with")
	}
	ours, others := start(t, strings.Split(named, ","))
	t.Run("living", func(t *testing.T) {
		for _, peer := range others {
			t.Run(peer.program, func(t *testing.T) {
				t.Parallel()
				living(t, ours, peer)
			})
		}
	})
	t.Run("outage", func(t *testing.T) { outages(t, ours, others) })
}

// start runs our server and the peers, each with an address of its own, because
// ports mean nothing to a server ACL.
func start(t *testing.T, names []string) (ours *homeserver, others []*homeserver) {
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	programs := []peers.Program{peers.Switchboard(instance.Binary(t))}
	for _, name := range names {
		var p peers.Program
		switch name {
		case "dendrite":
			p, err = peers.InstallDendrite(t.Context(), root)
		case "synapse":
			p, err = peers.InstallSynapse(t.Context(), root)
		default:
			err = fmt.Errorf("no homeserver is called %q: there are dendrite and synapse", name)
		}
		if err != nil {
			t.Fatal(err)
		}
		programs = append(programs, p)
	}
	authority, err := peers.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	all := make([]*homeserver, len(programs))
	var group sync.WaitGroup
	for i, program := range programs {
		options := peers.Options{Dir: t.TempDir(), Host: fmt.Sprintf("127.0.0.%d", i+1), Authority: authority}
		group.Go(func() {
			s, err := peers.New(t.Context(), program, options)
			if err == nil {
				err = s.Start(t.Context())
			}
			if err != nil {
				t.Errorf("%s: %v", program.Name(), err)
				return
			}
			all[i] = &homeserver{Server: s, program: program.Name()}
		})
	}
	group.Wait()
	t.Cleanup(func() {
		for _, s := range all {
			if s != nil {
				s.end(t)
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return all[0], all[1:]
}

// end stops a server; its log shows why a test failed.
func (s *homeserver) end(t *testing.T) {
	if err := s.Stop(syscall.SIGTERM); err != nil {
		t.Errorf("%s: %v", s.program, err)
	}
	if directory := os.Getenv("SWITCHBOARD_TEST_LOGS"); directory != "" {
		if err := os.WriteFile(directory+"/"+s.program+".log", []byte(s.Log()), 0o600); err != nil {
			t.Error(err)
		}
	}
}

// pair is what a scenario happens between: a room version, the server of the
// room's creator and the server of who comes in.
type pair struct {
	*testing.T
	version     string
	host, guest *homeserver
}

// users makes a user on either side.
func (p pair) users() (alice, bob *user) {
	p.Helper()
	return register(p.T, p.host), register(p.T, p.guest)
}

// scenario is something that two servers do together.
type scenario struct {
	name string
	run  func(pair)
}

// living runs the scenarios for which both servers are there, all at once.
func living(t *testing.T, ours, peer *homeserver) {
	offered := register(t, peer).must("GET", client("capabilities"), nil).at("capabilities", "m.room_versions", "available")
	both := func(t *testing.T, version string, list []scenario) {
		for _, s := range list {
			for side, p := range map[string]pair{
				"ours": {version: version, host: ours, guest: peer}, "theirs": {version: version, host: peer, guest: ours},
			} {
				t.Run(s.name+"/"+side, func(t *testing.T) {
					t.Parallel()
					p.T = t
					s.run(p)
				})
			}
		}
	}
	for _, version := range versions {
		t.Run("v"+version, func(t *testing.T) {
			t.Parallel()
			if !offered.at(version).exists() {
				t.Skipf("%s has no rooms of version %s: %s", peer.program, version, offered)
			}
			both(t, version, inRooms)
		})
	}
	both(t, versions[0], besides)
}

// inRooms are the scenarios for each room version, the longest first.
var inRooms = slices.Concat(history, membership, rooms, conversation)

// equal waits until both servers have the same state of a room.
func equal(room string, alice, bob *user) {
	alice.t.Helper()
	var a, b map[string]string
	if inTime(func() bool {
		a, b = alice.fullState(room), bob.fullState(room)
		return maps.Equal(a, b)
	}) {
		return
	}
	maps.DeleteFunc(a, func(key, id string) bool {
		same := b[key] == id
		if same {
			delete(b, key)
		}
		return same
	})
	alice.t.Errorf("the state of %s differs:\n%s: %v\n%s: %v", room, alice.server.program, a, bob.server.program, b)
}

// fullState maps each type and key of a room's state to the event.
func (u *user) fullState(room string) map[string]string {
	u.t.Helper()
	state := map[string]string{}
	for _, e := range u.must("GET", client("rooms", room, "state"), nil).list() {
		state[e.at("type").text()+" "+e.at("state_key").text()] = e.at("event_id").text()
	}
	return state
}
