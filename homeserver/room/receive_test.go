package room

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// Users of the other server.
const (
	dave = matrix.UserID("@dave:b.test")
	erin = matrix.UserID("@erin:b.test")
)

// pair is two servers that know each other's events when they are told.
type pair struct {
	world
	b world
}

// twoServers runs f with a server a.test on a fresh store and b.test on another.
func twoServers(t *testing.T, f func(p pair)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		storetest.Each(t, func(t *testing.T, other *store.Store) {
			p := pair{world: newWorld(t, "a.test", st), b: newWorld(t, "b.test", other)}
			f(p)
		})
	})
}

func newWorld(t *testing.T, name matrix.ServerName, st *store.Store) world {
	key, err := signing.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return world{t, &Service{Store: st, Bell: &notify.Bell{}, ServerName: name, Key: key}}
}

// join lets dave of b.test join a room of a.test.
func (p pair) join(id matrix.RoomID) *event.PDU {
	p.Helper()
	ctx := p.ctx()
	tpl, err := p.Template(ctx, id, dave, "join", nil)
	p.ok(err)
	e, err := p.b.Complete(ctx, tpl.Version, p.drafted(tpl), Change{Room: id, Actor: dave, Membership: "join"})
	p.ok(err)
	_, err = p.Receive(ctx, e)
	p.ok(err)
	stored, err := p.Store.Event(ctx, e.ID)
	p.ok(err)
	before, err := p.StateBefore(ctx, stored)
	p.ok(err)
	events, err := p.StateEvents(ctx, before)
	p.ok(err)
	var state []*event.PDU
	for _, s := range events {
		state = append(state, s.PDU)
	}
	chain, err := p.AuthChain(ctx, append(slices.Clone(state), e))
	p.ok(err)
	if !slices.ContainsFunc(chain, func(e *store.Event) bool { return e.PDU.Type == event.TypeCreate }) {
		p.Errorf("no create event authorizes %s", e.ID)
	}
	var auth []*event.PDU
	for _, c := range chain {
		auth = append(auth, c.PDU)
	}
	p.ok(p.b.Import(ctx, Joined{Event: e, State: state, Auth: auth}))
	return e
}

// drafted reads a template, as fedclient does.
func (w world) drafted(tpl *Template) event.Draft {
	w.Helper()
	var e struct {
		Room     matrix.RoomID `json:"room_id"`
		Type     string
		Sender   matrix.UserID
		StateKey *string `json:"state_key"`
		Content  json.RawMessage
		Depth    int64
		Prev     []json.RawMessage `json:"prev_events"`
		Auth     []json.RawMessage `json:"auth_events"`
	}
	w.ok(json.Unmarshal(tpl.Event, &e))
	d := event.Draft{Room: e.Room, Type: e.Type, Sender: e.Sender, StateKey: e.StateKey, Content: e.Content, Depth: e.Depth,
		OriginServerTS: now(), Hashes: map[matrix.EventID]string{}}
	ids := func(list []json.RawMessage) (ids []matrix.EventID) {
		for _, raw := range list {
			var id matrix.EventID
			if tpl.Version.EventIDInEvent {
				var hash struct{ SHA256 string }
				w.ok(json.Unmarshal(raw, &[]any{&id, &hash}))
				d.Hashes[id] = hash.SHA256
			} else {
				w.ok(json.Unmarshal(raw, &id))
			}
			ids = append(ids, id)
		}
		return ids
	}
	d.PrevEvents, d.AuthEvents = ids(e.Prev), ids(e.Auth)
	return d
}

// tell gives an event of one server to the other.
func (w world) tell(to world, id matrix.EventID) (store.Status, error) {
	e, err := w.Store.Event(w.ctx(), id)
	if err != nil {
		return 0, err
	}
	p, err := event.Parse(e.PDU.Version, e.PDU.JSON)
	if err != nil {
		return 0, err
	}
	return to.Receive(to.ctx(), p)
}

// told is tell for an event that must be accepted.
func (w world) told(to world, id matrix.EventID) {
	w.Helper()
	status, err := w.tell(to, id)
	if err != nil || status != store.Accepted {
		w.Fatalf("%s: status %d, %v", id, status, err)
	}
}

// stateOf is the state of a room as text, to compare two servers.
func (w world) stateOf(id matrix.RoomID) string {
	w.Helper()
	r, err := w.Store.Room(w.ctx(), id)
	w.ok(err)
	events, err := w.StateEvents(w.ctx(), r.Current)
	w.ok(err)
	var list []string
	for _, e := range events {
		list = append(list, fmt.Sprintf("%s %q %s\n", e.PDU.Type, *e.PDU.StateKey, e.PDU.ID))
	}
	slices.Sort(list)
	return fmt.Sprint(list)
}

// topic sets the topic and gives the event.
func (w world) topic(user matrix.UserID, id matrix.RoomID, text string) matrix.EventID {
	w.Helper()
	e, err := w.Send(w.ctx(), Sending{User: user, Room: id, Type: "m.room.topic", StateKey: new(string), Content: object{"topic": text}.raw()})
	w.ok(err)
	return e
}

func TestRoomOfTwoServers(t *testing.T) {
	twoServers(t, func(p pair) {
		for _, version := range []string{"1", "2", "6", "10", "11", "12"} {
			id := p.create(Creation{Version: version, Preset: "public_chat"})
			p.say(alice, id, "before")
			p.join(id)
			hello := p.b.say(dave, id, "hello")
			p.b.told(p.world, hello)
			p.told(p.b, p.say(alice, id, "welcome"))
			if a, b := p.stateOf(id), p.b.stateOf(id); a != b {
				t.Errorf("version %s: a has %s, b has %s", version, a, b)
			}
			if got := p.texts(alice, id); got != "before hello welcome" {
				t.Errorf("version %s: alice reads %q", version, got)
			}
			if got := p.b.texts(dave, id); got != "hello welcome" {
				t.Errorf("version %s: dave reads %q", version, got)
			}
			for _, w := range []world{p.world, p.b} {
				r, err := w.Store.Room(w.ctx(), id)
				w.ok(err)
				servers, err := w.Store.Servers(w.ctx(), r.Num)
				w.ok(err)
				if r.Joined != 2 || len(servers) != 2 {
					t.Errorf("version %s: %s counts %d members on %v", version, w.ServerName, r.Joined, servers)
				}
			}
		}
	})
}

func TestForks(t *testing.T) {
	twoServers(t, func(p pair) {
		for _, version := range []string{"1", "2", "10", "12"} {
			id := p.create(Creation{Version: version, Preset: "public_chat"})
			p.join(id)
			if err := p.state(alice, id, "m.room.power_levels", "", levelsFor(version)); err != nil {
				t.Fatal(err)
			}
			r, err := p.Store.Room(p.ctx(), id)
			p.ok(err)
			levels, err := p.StateEvent(p.ctx(), r.Current, "m.room.power_levels", "")
			p.ok(err)
			p.told(p.b, levels.PDU.ID)
			for round := range 3 { // both write without knowing of the other, then tell
				mine := []matrix.EventID{p.topic(alice, id, fmt.Sprint("tea ", round)), p.say(alice, id, "a")}
				his := []matrix.EventID{p.b.topic(dave, id, fmt.Sprint("coffee ", round)), p.b.say(dave, id, "b")}
				for i := range mine {
					p.told(p.b, mine[i])
					p.b.told(p.world, his[i])
				}
				if a, b := p.stateOf(id), p.b.stateOf(id); a != b {
					t.Fatalf("version %s, round %d: a has %s, b has %s", version, round, a, b)
				}
			}
			end := p.say(alice, id, "end") // joins the branches
			p.told(p.b, end)
			e, err := p.Store.Event(p.ctx(), end)
			p.ok(err)
			if len(e.PDU.PrevEvents) != 2 {
				t.Errorf("version %s: the last event follows on %d", version, len(e.PDU.PrevEvents))
			}
		}
	})
}

// levelsFor lets dave set topics.
func levelsFor(version string) string {
	users := object{string(dave): 50, string(alice): 100}
	if version == "12" {
		delete(users, string(alice))
	}
	return string(object{"users": map[string]any(users), "state_default": 50}.raw())
}

func TestMissingEvents(t *testing.T) {
	twoServers(t, func(p pair) {
		id := p.create(Creation{Preset: "public_chat"})
		p.join(id)
		lost := p.say(alice, id, "lost")
		late := p.say(alice, id, "late")
		_, err := p.tell(p.b, late)
		var missing *MissingError
		if !errors.As(err, &missing) || len(missing.Prev) != 1 || missing.Prev[0] != lost {
			t.Fatalf("got %v", err)
		}
		p.told(p.b, lost)
		p.told(p.b, late)
		p.told(p.b, late) // again: nothing happens
		if got := p.b.texts(dave, id); got != "lost late" {
			t.Errorf("dave reads %q", got)
		}
	})
}

func TestWhatIsNotAllowed(t *testing.T) {
	twoServers(t, func(p pair) {
		ctx := p.ctx()
		id := p.create(Creation{Preset: "public_chat"})
		p.join(id)
		r, err := p.Store.Room(ctx, id)
		p.ok(err)
		h, err := p.b.open(ctx, must(p.b.Store.Room(ctx, id)))
		p.ok(err)
		forged := func(typ string, key *string, content string) *event.PDU {
			d := event.Draft{Room: id, Type: typ, Sender: dave, StateKey: key, Content: json.RawMessage(content),
				PrevEvents: []matrix.EventID{h.prev[0].ID}, Depth: h.depth + 1, OriginServerTS: now()}
			for _, typ := range []string{"m.room.power_levels", "m.room.member"} {
				k := ""
				if typ == "m.room.member" {
					k = string(dave)
				}
				d.AuthEvents = append(d.AuthEvents, h.view.Event(typ, k).ID)
			}
			e, err := event.Build(r.Version, d, "b.test", p.b.Key)
			p.ok(err)
			return e
		}
		bad := forged("m.room.power_levels", new(string), `{"users":{"@dave:b.test":100}}`)
		status, err := p.Receive(ctx, bad)
		p.ok(err)
		if status != store.Rejected {
			t.Errorf("a grab for power has status %d", status)
		}
		if levels := must(p.Levels(ctx, must(p.Store.Room(ctx, id)))); levels.User(dave) != 0 {
			t.Errorf("dave has level %v", levels.User(dave))
		}
		p.ok(p.Ban(ctx, Change{Room: id, Actor: alice, Target: dave}))
		late := forged("m.room.message", nil, `{"body":"from before the ban"}`)
		status, err = p.Receive(ctx, late)
		p.ok(err)
		if status != store.SoftFailed {
			t.Errorf("an event that ignores a ban has status %d", status)
		}
		if got := p.texts(alice, id); got != "" {
			t.Errorf("alice reads %q", got)
		}
		for _, e := range []*event.PDU{bad, late} { // other servers may see it otherwise
			want := map[*event.PDU]int{bad: 0, late: 1}[e]
			if found := must(p.Earlier(ctx, must(p.Store.Room(ctx, id)), []matrix.EventID{e.ID}, 1)); len(found) != want {
				t.Errorf("of %s, another server gets %d events, want %d", e.Type, len(found), want)
			}
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestHistory(t *testing.T) {
	twoServers(t, func(p pair) {
		ctx := p.ctx()
		for _, version := range []string{"2", "11", "12"} {
			id := p.create(Creation{Version: version, Preset: "public_chat"})
			want := ""
			for i := range 12 {
				p.say(alice, id, fmt.Sprint(i))
				want += fmt.Sprint(i, " ")
				if i == 5 {
					p.topic(alice, id, "half-way")
				}
			}
			join := p.join(id)
			want += "joined"
			p.told(p.b, p.say(alice, id, "joined"))
			gaps, err := p.b.Gaps(ctx, id)
			p.ok(err)
			if len(gaps) != 1 || gaps[0].PDU.ID != join.ID {
				t.Fatalf("version %s: gaps %v", version, gaps)
			}
			r := must(p.Store.Room(ctx, id))
			for _, limit := range []int{7, 100} {
				gaps := must(p.b.Gaps(ctx, id))
				earlier := must(p.Earlier(ctx, r, gaps[0].PDU.PrevEvents, limit))
				slices.Reverse(earlier)
				var past, state []*event.PDU
				var before []matrix.EventID
				for _, e := range earlier {
					past = append(past, must(event.Parse(e.PDU.Version, e.PDU.JSON)))
				}
				for _, e := range must(p.StateEvents(ctx, must(p.StateBefore(ctx, earlier[0])))) {
					state, before = append(state, e.PDU), append(before, e.PDU.ID)
				}
				p.ok(p.b.Keep(ctx, id, state))
				if before == nil {
					before = []matrix.EventID{}
				}
				p.ok(p.b.History(ctx, id, gaps[0], past, before))
			}
			if got := p.b.texts(dave, id); got != want {
				t.Errorf("version %s: dave reads %q, want %q", version, got, want)
			}
			if gaps := must(p.b.Gaps(ctx, id)); len(gaps) != 0 {
				t.Errorf("version %s: %d gaps are left", version, len(gaps))
			}
			if a, b := p.stateOf(id), p.b.stateOf(id); a != b {
				t.Errorf("version %s: a has %s, b has %s", version, a, b)
			}
		}
	})
}
