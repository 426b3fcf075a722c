package fedapi

import (
	"fmt"
	"math"
	"testing"

	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// deafen lets nobody ask a server, which itself may ask others, or mends that.
func (n *network) deafen(h *host, deaf bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, o := range n.hosts {
		n.cut[[2]matrix.ServerName{o.name, h.name}] = deaf
		n.cut[[2]matrix.ServerName{h.name, o.name}] = false
	}
}

// waits waits until a number of events wait for a room.
func (n *network) waits(h *host, id matrix.RoomID, number int) {
	n.Helper()
	n.await(fmt.Sprint(number, " events wait"), func() bool {
		list, err := h.st.Inbox(h.ctx(), id, 100)
		h.ok(err)
		return len(list) == number
	})
}

// lost waits until a server does not reach another one with what it has said last.
// The first transaction that is turned away may be from before; the next one has
// the newest of each room.
func (n *network) lost(from, to *host) {
	n.Helper()
	turnedAway := func() int {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.out[[2]matrix.ServerName{from.name, to.name}]
	}
	before := turnedAway()
	n.await("the other server is lost", func() bool { return turnedAway() > before+1 })
}

// served waits until a server takes what another one sends: an event is in the
// inbox a moment before its transaction is answered.
func (n *network) served(from, to *host) {
	n.Helper()
	n.await(string(from.name)+" is turned away by "+string(to.name), func() bool {
		d, _, err := from.st.Destination(from.ctx(), to.name)
		from.ok(err)
		return d.Failures == 0 && d.RetryTS == 0
	})
}

// TestInboxRestart restarts a server while an event waits whose earlier ones it
// cannot have.
func TestInboxRestart(t *testing.T) {
	connected(t, 2, func(n *network) {
		a, b := n.hosts[0], n.hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		for _, version := range []string{"1", "12"} {
			id := n.shared(version, alice, bob)
			said := []matrix.EventID{a.say(alice, id, "0").ID}
			n.reads(b, said...) // and has a's key
			n.isolate(a, true)
			said = append(said, a.say(alice, id, "1").ID, a.say(alice, id, "2").ID)
			n.lost(a, b)
			n.deafen(a, true)
			n.waits(b, id, 1)
			n.served(a, b)
			n.fell(b)
			n.raise(b)
			n.waits(b, id, 1)
			if got := b.texts(id); got != "0" {
				t.Errorf("b reads %q", got)
			}
			n.deafen(a, false)
			said = append(said, a.say(alice, id, "3").ID)
			n.reads(b, said...)
			n.waits(b, id, 0)
			n.agree(id, a, b)
			if got := b.texts(id); got != "0 1 2 3" {
				t.Errorf("b reads %q", got)
			}
		}
	})
}

// TestInboxDeaf has a server send that cannot be asked: its events come, in the
// rooms without gaps at once, in others from who has them, or when it can be
// asked again.
func TestInboxDeaf(t *testing.T) {
	connected(t, 3, func(n *network) {
		a, b, c := n.hosts[0], n.hosts[1], n.hosts[2]
		alice, bob, carol := a.user("alice"), b.user("bob"), c.user("carol")
		all, two, other := n.shared("12", alice, bob, carol), a.public(alice, "12"), a.public(alice, "10")
		for _, id := range []matrix.RoomID{two, other} {
			b.join(bob, id, a)
			n.agree(id, a, b)
		}
		n.part(a, b, true)
		gap := []matrix.EventID{a.say(alice, all, "gap").ID, a.state(alice, all, "m.room.topic", `{"topic":"tea"}`).ID}
		lost := []matrix.EventID{a.say(alice, two, "gap").ID, a.say(alice, two, "behind").ID}
		n.reads(c, gap...)
		n.lost(a, b)
		n.deafen(a, true)
		n.deafen(c, false)
		n.waits(b, two, 1)
		n.reads(b, gap...) // from c
		n.agree(all, b, c)
		for i := range 20 {
			lost = append(lost, a.say(alice, two, fmt.Sprint(i)).ID)
			n.reads(b, a.say(alice, other, fmt.Sprint(i)).ID)
		}
		n.served(a, b)
		if got := b.texts(two); got != "" {
			t.Errorf("b reads %q", got)
		}
		n.deafen(a, false)
		a.say(alice, other, "here I am")
		n.reads(b, lost...)
		n.waits(b, two, 0)
		for _, id := range []matrix.RoomID{all, two, other} {
			n.agree(id, a, b)
		}
	})
}

// TestInboxStruck has what waits come in by another way, and what can never be
// taken go.
func TestInboxStruck(t *testing.T) {
	connected(t, 2, func(n *network) {
		a, b := n.hosts[0], n.hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		b.limits.MaxInboxPerServer, b.fed.Config.MaxInboxPerServer = 3, 3
		id := n.shared("12", alice, bob)
		n.stop[a]() // the test sends
		delete(n.stop, a)
		first, second := a.say(alice, id, "1"), a.say(alice, id, "2")
		n.deafen(a, true)
		a.tell(b, second)
		n.waits(b, id, 1)
		a.tell(b, first)
		a.tell(b, second)
		n.waits(b, id, 0)
		a.say(alice, id, "3")
		for i := range 10 {
			a.tell(b, a.say(alice, id, fmt.Sprint("later ", i)))
		}
		n.waits(b, id, 3)
		n.mu.Lock()
		n.up[a.name] = nil
		n.mu.Unlock()
		b.ok(b.fed.Leave(b.ctx(), room.Change{Room: id, Actor: bob}))
		n.fell(b)
		n.raise(b)
		n.waits(b, id, 0)
	})
}

// TestReplay has a server send a transaction again after a restart of who took
// it: nothing happens twice.
func TestReplay(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		id := a.public(alice, "12")
		b.join(bob, id, a)
		a.device(alice, "PHONE")
		said := b.say(bob, id, "once")
		send := fedclient.Transaction{ID: "same", OriginServerTS: 1, EDUs: []fedclient.EDU{
			b.edu("m.direct_to_device", m{"sender": bob, "type": "t", "message_id": "1", "messages": m{string(alice): m{"*": m{"a": 1}}}}),
			b.edu("m.receipt", m{string(id): m{"m.read": m{string(bob): m{"event_ids": []matrix.EventID{said.ID}, "data": m{"ts": 1000}}}}}),
			b.edu("m.presence", m{"push": []m{{"user_id": bob, "presence": "online", "last_active_ago": 1}}}),
			b.edu("m.typing", m{"room_id": id, "user_id": bob, "typing": true}),
			b.edu("m.device_list_update", m{"user_id": bob, "device_id": "D", "stream_id": 2, "prev_id": []int{}}),
		}}
		send.PDUs = append(send.PDUs, said.JSON)
		seen := func() string {
			waiting, err := a.st.ToDeviceLog(a.ctx(), 0, 10)
			a.ok(err)
			r, err := a.st.Room(a.ctx(), id)
			a.ok(err)
			receipts, err := a.st.UserReceipts(a.ctx(), bob, r.Num)
			a.ok(err)
			changed, err := a.st.DeviceListChanges(a.ctx(), "", 0, math.MaxInt64)
			a.ok(err)
			there, _, err := a.st.Presence(a.ctx(), bob)
			a.ok(err)
			return fmt.Sprint(a.texts(id), len(waiting), len(receipts), receipts[0].Pos, changed, there.State, "\n", a.stateOf(id))
		}
		var first string
		for i := range 3 {
			if i == 2 {
				a.close()
				a.open()
				a.front = a.api.Handler()
			}
			results, err := b.client.Send(b.ctx(), a.name, send)
			b.ok(err)
			if len(results) != 0 { // errors
				t.Errorf("got %v", results)
			}
			if first == "" {
				first = seen()
			}
			if got := seen(); got != first {
				t.Errorf("after %d times\n%s\nfirst\n%s", i+1, got, first)
			}
		}
	})
}

// TestLastDeviceGone has a user log out everywhere: other servers learn of it.
func TestLastDeviceGone(t *testing.T) {
	connected(t, 2, func(n *network) {
		a, b := n.hosts[0], n.hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		n.shared("12", alice, bob)
		b.device(bob, "PHONE")
		a.ok(a.keys.Resync(a.ctx(), bob))
		knows := func(number int) func() bool {
			return func() bool {
				list, err := a.st.RemoteDevices(a.ctx(), []matrix.UserID{bob})
				a.ok(err)
				return len(list) == number
			}
		}
		n.await("the device is known", knows(1))
		b.ok(b.accounts.DeleteDevices(b.ctx(), bob, []matrix.DeviceID{"PHONE"}))
		n.await("the device is gone", knows(0))
	})
}
