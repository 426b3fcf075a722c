package clientsync

import (
	"encoding/json"
	"fmt"
	"testing"

	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/unread"
)

// counter follows the unread counts of a user in one room.
type counter struct {
	*client
	room matrix.RoomID
	told string // by incremental syncs
}

func (w *world) counter(u matrix.UserID, id matrix.RoomID, filter string) *counter {
	w.Helper()
	return &counter{w.client(u, filter), id, ""}
}

func describe(t testing.TB, j *joined) string {
	s := fmt.Sprintf("%d/%d", j.Unread.Notify, j.Unread.Highlight)
	for _, u := range j.Threads {
		s += fmt.Sprintf(" thread %d/%d", u.Notify, u.Highlight)
	}
	return s
}

// want checks the counts, notifications before highlights: those that
// incremental syncs have told, and those of an initial sync.
func (c *counter) want(what, want string) {
	c.Helper()
	if j := c.sync().in(c.room); j.Unread != nil {
		c.told = describe(c, j)
	}
	if c.told != want {
		c.Errorf("%s: told %s, want %s", what, c.told, want)
	}
	fresh := *c.client
	fresh.since = ""
	if got := describe(c, fresh.sync().in(c.room)); got != want {
		c.Errorf("%s: a first sync tells %s, want %s", what, got, want)
	}
}

// wantAfterRestart is want, and checks that nothing is lost with the memory.
func (c *counter) wantAfterRestart(what, want string) {
	c.Helper()
	c.want(what, want)
	c.restart()
	c.want(what+", after a restart", want)
}

func (w *world) mark(u matrix.UserID, id matrix.RoomID, typ string, e matrix.EventID, thread ...string) {
	w.Helper()
	m := ephemeral.Mark{Type: typ, Event: e}
	if len(thread) > 0 {
		m.Thread = &thread[0]
	}
	w.ok(w.Ephemeral.SetMarks(w.ctx(), u, id, m))
}

func TestUnread(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob, carol)
		c := w.counter(bob, id, "")
		c.want("nothing", "0/0")
		one := w.say(alice, id, "one")
		c.want("a message", "1/0")
		two := w.say(alice, id, "two")
		w.state(alice, id, "m.room.topic", "", `{"topic":"tea"}`)
		w.newUser("dave")
		w.join("@dave:a.test", id)
		c.wantAfterRestart("state and members do not notify", "2/0")
		w.send(alice, id, `{"msgtype":"m.notice","body":"notice"}`)
		c.want("nor do notices", "2/0")
		w.send(alice, id, `{"msgtype":"m.text","body":"hey","m.mentions":{"user_ids":["@bob:a.test"]}}`)
		c.wantAfterRestart("a mention", "3/1")
		w.send(carol, id, `{"msgtype":"m.text","body":"@room","m.mentions":{"room":true}}`)
		c.want("carol may not call the room", "4/1")
		w.send(alice, id, `{"msgtype":"m.text","body":"@room","m.mentions":{"room":true}}`)
		c.want("alice may", "5/2")
		w.mark(bob, id, ephemeral.Read, one)
		c.wantAfterRestart("read one", "4/2")
		w.mark(bob, id, ephemeral.ReadPrivate, two)
		c.wantAfterRestart("read two in private", "3/2")
		w.mark(bob, id, ephemeral.Read, two)
		c.want("read two again", "3/2")
		w.mark(carol, id, ephemeral.Read, w.say(carol, id, "six"))
		c.want("what others read changes nothing", "4/2")
		w.say(bob, id, "mine")
		c.want("who writes has read", "0/0")
		w.say(alice, id, "seven")
		c.wantAfterRestart("one more", "1/0")
		w.want("alice wrote last", describe(t, w.client(alice, "").sync().in(id)), "0/0")
	})
}

func TestProfileChangeReadsNothing(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		c := w.counter(bob, id, "")
		w.say(alice, id, "one")
		w.state(bob, id, "m.room.member", string(bob), `{"membership":"join","displayname":"Bobby"}`)
		c.wantAfterRestart("a new name", "1/0")
		w.leave(bob, id)
		w.say(alice, id, "away")
		w.join(bob, id)
		c.wantAfterRestart("come back", "0/0")
		w.send(alice, id, `{"msgtype":"m.text","body":"hey","m.mentions":{"user_ids":["@bob:a.test"]}}`)
		c.want("mentioned", "1/1")
	})
}

func TestUnreadRedacted(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		c := w.counter(bob, id, "")
		one := w.say(alice, id, "one")
		w.send(alice, id, `{"msgtype":"m.text","body":"hey","m.mentions":{"user_ids":["@bob:a.test"]}}`)
		c.want("two", "2/1")
		_, err := w.Rooms.Redact(w.ctx(), room.Sending{User: alice, Room: id, Redacts: one}, nil)
		w.ok(err)
		c.wantAfterRestart("one is gone", "1/1")
	})
}

func TestMutedRoom(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		c := w.counter(bob, id, "")
		rules := `{"global":{"override":[{"rule_id":"mute","default":false,"enabled":true,"actions":[],
			"conditions":[{"kind":"event_match","key":"room_id","pattern":"` + string(id) + `"}]}]}}`
		_, err := w.accounts.PushRules(w.ctx(), bob)
		w.ok(err)
		w.ok(w.Store.Update(w.ctx(), putRules(w, bob, rules)))
		w.say(alice, id, "psst")
		w.send(alice, id, `{"msgtype":"m.text","body":"hey","m.mentions":{"user_ids":["@bob:a.test"]}}`)
		c.wantAfterRestart("muted", "0/0")
		w.ok(w.Store.Update(w.ctx(), putRules(w, bob, `{"global":{}}`)))
		w.say(alice, id, "loud")
		c.want("no longer", "1/0")
	})
}

func TestThreads(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		plain, split := w.counter(bob, id, ""), w.counter(bob, id, `{"room":{"timeline":{"unread_thread_notifications":true}}}`)
		root := w.say(alice, id, "root")
		reply := func(text string) matrix.EventID {
			return w.send(alice, id, fmt.Sprintf(`{"msgtype":"m.text","body":%q,"m.relates_to":{"rel_type":"m.thread","event_id":%q}}`, text, root))
		}
		first := reply("first")
		reply("second")
		main := w.say(alice, id, "main")
		plain.want("all", "4/0")
		split.want("apart", "2/0 thread 2/0")
		w.mark(bob, id, ephemeral.Read, first, string(root))
		split.want("read first", "2/0 thread 1/0")
		plain.want("read first", "3/0")
		w.mark(bob, id, ephemeral.Read, main, "main")
		split.want("read the main timeline", "0/0 thread 1/0")
		// What relates to an event of a thread is in the thread.
		w.send(alice, id, fmt.Sprintf(`{"msgtype":"m.text","body":"x","m.relates_to":{"rel_type":"x","event_id":%q}}`, first))
		split.want("indirectly", "0/0 thread 2/0")
		w.send(alice, id, fmt.Sprintf(`{"msgtype":"m.text","body":"x","m.relates_to":{"rel_type":"x","event_id":%q}}`, root))
		split.want("the root is of the main timeline", "1/0 thread 2/0")
		split.restart()
		split.want("after a restart", "1/0 thread 2/0")
		last := w.say(alice, id, "last")
		w.mark(bob, id, ephemeral.Read, last)
		split.want("read all", "0/0")
		plain.want("read all", "0/0")
		reply("third")
		w.say(alice, id, "more")
		w.send(bob, id, fmt.Sprintf(`{"msgtype":"m.text","body":"me","m.relates_to":{"rel_type":"m.thread","event_id":%q}}`, root))
		split.want("who writes in a thread has read it", "1/0")
	})
}

// TestUnreadIgnored: what somebody wrote before they were ignored is no longer
// unread, since the user cannot even see it to read it.
func TestUnreadIgnored(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob, carol)
		c := w.counter(bob, id, "")
		w.say(alice, id, "one")
		w.say(carol, id, "two")
		w.say(alice, id, "three")
		c.want("three", "3/0")
		ignore := func(users string) {
			w.ok(w.accounts.SetData(w.ctx(), bob, "", "m.ignored_user_list", json.RawMessage(users)))
			w.say(carol, id, "more") // rooms with nothing new are not told
		}
		ignore(`{"ignored_users":{"@alice:a.test":{}}}`)
		c.wantAfterRestart("without alice", "2/0")
		ignore(`{"ignored_users":{}}`)
		c.wantAfterRestart("with alice again", "5/0")
	})
}

func TestManyUnread(t *testing.T) {
	if testing.Short() {
		t.Skip("sends thousands of events")
	}
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		c := w.counter(bob, id, "")
		c.want("nothing", "0/0")
		for i := range unread.Most + 10 {
			w.say(alice, id, fmt.Sprint(i))
		}
		c.wantAfterRestart("bounded", fmt.Sprintf("%d/0", unread.Most))
	})
}

func TestIgnored(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob, carol)
		c := w.counter(bob, id, "")
		c.want("nothing", "0/0")
		ignore := func(users string) {
			w.ok(w.accounts.SetData(w.ctx(), bob, "", "m.ignored_user_list", json.RawMessage(users)))
		}
		ignore(`{"ignored_users":{"@alice:a.test":{},"@bob:a.test":{}}}`)
		c.sync()
		w.say(alice, id, "unheard")
		w.topic(id, "state")
		w.say(carol, id, "heard")
		w.say(bob, id, "mine")
		w.say(carol, id, "heard again")
		j := c.sync().in(id)
		w.want("timeline", w.timeline(j), "topic:state heard mine heard again")
		w.want("unread", describe(t, j), "1/0")
		secret := w.create(room.Creation{Preset: "private_chat"})
		w.invite(bob, secret)
		w.want("no invitation", text(t, c.sync().Rooms), "null")
		w.want("nor initially", text(t, w.client(bob, "").sync().Rooms.Invite), "{}")
		w.mark(alice, id, ephemeral.Read, w.say(bob, id, "x"))
		w.ok(w.Ephemeral.SetTyping(w.ctx(), alice, id, true, 0))
		if s := text(t, c.sync().in(id)); contains(s, "alice") {
			t.Errorf("told of whom one ignores: %s", s)
		}
		p, err := w.Rooms.Messages(w.ctx(), room.Reader{User: bob}, room.Page{Room: id, Limit: 7, Filter: &EventFilter{}})
		w.ok(err)
		if s := w.words(p.Chunk); contains(s, "unheard") || !contains(s, "topic:state") {
			t.Errorf("messages %q", s)
		}
		for _, no := range []string{`{}`, `{"ignored_users":[]}`, `{"ignored_users":{}}`, `{"ignored_users":"@alice:a.test"}`} {
			ignore(no)
			c.sync()
			w.say(alice, id, "again")
			w.want("no longer", w.timeline(c.sync().in(id)), "again")
		}
	})
}
