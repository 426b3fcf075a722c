package eventauth

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
)

// TestPowerLevelsFormat checks rules 10.1 to 10.5.
func TestPowerLevelsFormat(t *testing.T) {
	tests := []struct{ name, content, strict, loose string }{ // rules from version 10 on, and before
		{"empty", `{}`, "", ""},
		{"all", `{"users_default":0,"events_default":0,"state_default":50,"ban":50,"redact":50,"kick":50,"invite":0,"events":{"a":1},"notifications":{"room":50},"users":{"@bob:b":1}}`, "", ""},
		{"unknown keys", `{"x":"y","Users":1}`, "", ""},
		{"string", `{"ban":"50"}`, "10.1", ""},
		{"word", `{"kick":"x"}`, "10.1", "10.1"},
		{"null", `{"redact":null}`, "10.1", "10.1"},
		{"bool", `{"invite":true}`, "10.1", "10.1"},
		{"list", `{"users_default":[1]}`, "10.1", "10.1"},
		{"object", `{"events_default":{}}`, "10.1", "10.1"},
		{"string in state_default", `{"state_default":" -1 "}`, "10.1", ""},
		{"events are a list", `{"events":[]}`, "10.2", "10.2"},
		{"events are null", `{"events":null}`, "10.2", "10.2"},
		{"event with a string", `{"events":{"a":"1"}}`, "10.2", ""},
		{"event with a word", `{"events":{"a":"x"}}`, "10.2", "10.2"},
		{"event with null", `{"events":{"a":null}}`, "10.2", "10.2"},
		{"notification with a string", `{"notifications":{"room":"1"}}`, "10.2", ""},
		{"notifications are a list", `{"notifications":[]}`, "10.2", "notifications"},
		{"users are a list", `{"users":[]}`, "10.3", "10.3"},
		{"users are null", `{"users":null}`, "10.3", "10.3"},
		{"user with a string", `{"users":{"@bob:b":"1"}}`, "10.3", ""},
		{"user with a word", `{"users":{"@bob:b":"1x"}}`, "10.3", "10.3"},
		{"user with an empty string", `{"users":{"@bob:b":""}}`, "10.3", "10.3"},
		{"user with a float in a string", `{"users":{"@bob:b":"1.5"}}`, "10.3", "10.3"},
		{"user with two signs", `{"users":{"@bob:b":"+-1"}}`, "10.3", "10.3"},
		{"no user", `{"users":{"bob:b":1}}`, "10.3", "10.3"},
		{"user without a server", `{"users":{"@bob":1}}`, "10.3", "10.3"},
		{"empty user", `{"users":{"":1}}`, "10.3", "10.3"},
		{"historical user", `{"users":{"@É x:b":1,"@:b":1}}`, "", ""},
		{"user of an odd server", `{"users":{"@bob:b_c.example":1}}`, "", ""},
	}
	for _, tt := range tests {
		for _, v := range matrix.Versions() {
			t.Run(tt.name+" "+v.ID, func(t *testing.T) {
				want := tt.strict
				if !v.IntegerPowerLevels {
					want = tt.loose
				}
				if want == "notifications" { // a rule only since version 6
					want = map[bool]string{true: "10.2", false: ""}[v.NotificationsAuth]
				}
				w := newWorld(t, v.ID, "")
				w.want(want, levels(tt.content))
			})
		}
	}
	for _, v := range matrix.Versions()[:5] {
		newWorld(t, v.ID, "").want("", levels(`{"ban":50.7,"users":{"@bob:b":1e2,"@c:c":-0.5}}`))
	}
}

// TestPowerLevelsChange checks rules 10.6 to 10.10: alice, who has 50, changes the
// levels.
func TestPowerLevelsChange(t *testing.T) {
	tests := []struct{ name, versions, old, next, rule string }{
		{"nothing", "", `{%s}`, `{%s}`, ""},
		{"nothing, though above", "", `{"ban":90,"events":{"a":90},"notifications":{"room":90},%s}`, `{"ban":90,"events":{"a":90},"notifications":{"room":90},%s}`, ""},

		{"raise", "", `{"ban":10,%s}`, `{"ban":50,%s}`, ""},
		{"raise above", "", `{"ban":10,%s}`, `{"ban":51,%s}`, "10.6.2"},
		{"lower from above", "", `{"ban":51,%s}`, `{"ban":10,%s}`, "10.6.1"},
		{"add", "", `{%s}`, `{"kick":50,%s}`, ""},
		{"add above", "", `{%s}`, `{"kick":51,%s}`, "10.6.2"},
		{"remove", "", `{"redact":50,%s}`, `{%s}`, ""},
		{"remove from above", "", `{"redact":51,%s}`, `{%s}`, "10.6.1"},
		{"add the default, above", "", `{"users_default":0,%s}`, `{"users_default":60,%s}`, "10.6.2"},
		{"events_default above", "", `{%s}`, `{"events_default":60,%s}`, "10.6.2"},
		{"state_default above", "", `{%s}`, `{"state_default":60,%s}`, "10.6.2"},
		{"invite above", "", `{%s}`, `{"invite":60,%s}`, "10.6.2"},
		{"negative", "", `{"invite":-5,%s}`, `{"invite":-6,%s}`, ""},

		{"event: add", "", `{%s}`, `{"events":{"a":50},%s}`, ""},
		{"event: add above", "", `{%s}`, `{"events":{"a":51},%s}`, "10.8.1"},
		{"event: change", "", `{"events":{"a":1},%s}`, `{"events":{"a":2},%s}`, ""},
		{"event: raise above", "", `{"events":{"a":1},%s}`, `{"events":{"a":51},%s}`, "10.8.1"},
		{"event: lower from above", "", `{"events":{"a":51},%s}`, `{"events":{"a":1},%s}`, "10.7.1"},
		{"event: remove", "", `{"events":{"a":50},%s}`, `{"events":{},%s}`, ""},
		{"event: remove from above", "", `{"events":{"a":51},%s}`, `{"events":{},%s}`, "10.7.1"},
		{"event: remove all from above", "", `{"events":{"a":51},%s}`, `{%s}`, "10.7.1"},
		{"event: another one above stays", "", `{"events":{"a":51},%s}`, `{"events":{"a":51,"b":1},%s}`, ""},

		{"notification: add above", from6, `{%s}`, `{"notifications":{"room":51},%s}`, "10.8.1"},
		{"notification: lower from above", from6, `{"notifications":{"room":51},%s}`, `{"notifications":{"room":1},%s}`, "10.7.1"},
		{"notification: remove from above", from6, `{"notifications":{"room":51},%s}`, `{%s}`, "10.7.1"},
		{"notification: before there was a rule", aliasOnes, `{"notifications":{"room":51},%s}`, `{"notifications":{"room":99},%s}`, ""},

		{"user: add", "", `{%s}`, `{"users":{"@alice:a":50,"@bob:b":50}}`, ""},
		{"user: add above", "", `{%s}`, `{"users":{"@alice:a":50,"@bob:b":51}}`, "10.10.1"},
		{"user: raise", "", `{"users":{"@alice:a":50,"@bob:b":1}}`, `{"users":{"@alice:a":50,"@bob:b":50}}`, ""},
		{"user: lower", "", `{"users":{"@alice:a":50,"@bob:b":49}}`, `{"users":{"@alice:a":50,"@bob:b":1}}`, ""},
		{"user: lower an equal", "", `{"users":{"@alice:a":50,"@bob:b":50}}`, `{"users":{"@alice:a":50,"@bob:b":1}}`, "10.9.1"},
		{"user: lower from above", "", `{"users":{"@alice:a":50,"@bob:b":51}}`, `{"users":{"@alice:a":50,"@bob:b":1}}`, "10.9.1"},
		{"user: raise an equal", "", `{"users":{"@alice:a":50,"@bob:b":50}}`, `{"users":{"@alice:a":50,"@bob:b":51}}`, "10.9.1"},
		{"user: remove", "", `{"users":{"@alice:a":50,"@bob:b":49}}`, `{"users":{"@alice:a":50}}`, ""},
		{"user: remove an equal", "", `{"users":{"@alice:a":50,"@bob:b":50}}`, `{"users":{"@alice:a":50}}`, "10.9.1"},
		{"user: remove all", "", `{"users":{"@alice:a":50,"@bob:b":50}}`, `{}`, "10.9.1"},
		{"oneself: lower", "", `{%s}`, `{"users":{"@alice:a":1}}`, ""},
		{"oneself: remove", "", `{%s}`, `{}`, ""},
		{"oneself: raise", "", `{%s}`, `{"users":{"@alice:a":51}}`, "10.10.1"},

		{"same number, other form", old, `{"ban":"99","events":{"a":99},"users":{"@alice:a":50,"@bob:b":"99"}}`, `{"ban":99,"events":{"a":" +099 "},"users":{"@alice:a":"50","@bob:b":99}}`, ""},
		{"other number in a string", old, `{"ban":"9",%s}`, `{"ban":"99",%s}`, "10.6.2"},
		{"float cut", aliasOnes, `{"ban":99.9,%s}`, `{"ban":99,%s}`, ""},
	}
	for _, tt := range tests {
		versions := strings.Fields(tt.versions)
		if tt.versions == "" {
			versions = strings.Fields(before12 + " 12")
		}
		fill := func(s string) string {
			return strings.Replace(s, "%s", `"users":{"@alice:a":50}`, 1)
		}
		for _, v := range versions {
			t.Run(tt.name+" "+v, func(t *testing.T) {
				w := newWorld(t, v, "", member(alice, event.Join), as(creator, levels(fill(tt.old))))
				w.want(tt.rule, as(alice, levels(fill(tt.next))))
			})
		}
	}
}

// TestFirstPowerLevels checks that the first levels may be anything.
func TestFirstPowerLevels(t *testing.T) {
	for _, v := range matrix.Versions() {
		w := newWorld(t, v.ID, "", member(bob, event.Join))
		w.want("", levels(`{"ban":1000,"users":{"@bob:b":1000}}`))
		w.want("8", as(bob, levels(`{"users":{"@bob:b":1000}}`)))
	}
}

// TestCreators checks the creators of version 12, and the creator before it.
func TestCreators(t *testing.T) {
	const additional = `{"additional_creators":["@alice:a"]}`
	top := levels(fmt.Sprintf(`{"users":{"@bob:b":%d},"ban":%[1]d,"kick":%[1]d,"events":{"m.room.topic":%[1]d}}`, int64(1)<<53-1))
	w := newWorld(t, "12", additional, member(alice, event.Join), member(bob, event.Join), top)
	topic := st{typ: "m.room.topic", content: `{}`}
	for sender, rule := range map[string]string{creator: "", alice: "", bob: ""} {
		w.want(rule, as(sender, topic))
	}
	w.want("10.4", as(bob, levels(`{"users":{"@creator:a":1}}`)))
	w.want("10.4", as(bob, levels(`{"users":{"@alice:a":1}}`)))
	w.want("10.4", as(alice, levels(`{"users":{"@alice:a":100}}`)))
	w.want("", as(alice, levels(`{"users":{"@bob:b":1}}`)))
	w.want("", as(creator, levels(`{}`)))
	w.want("5.5.5", change(bob, alice, event.Leave))
	w.want("5.6.3", change(bob, creator, event.Ban))
	w.want("5.6.3", change(alice, creator, event.Ban))
	w.want("5.5.5", change(creator, alice, event.Leave))
	w.want("", change(alice, bob, event.Ban))
	w.want("", member(alice, event.Leave))

	first := newWorld(t, "12", additional, member(alice, event.Join), member(bob, event.Join))
	first.want("", as(alice, topic))
	first.want("8", as(bob, topic))
	first.want("10.4", levels(`{"users":{"@creator:a":100}}`))

	before := newWorld(t, "11", additional, member(alice, event.Join), levels(`{"users":{"@creator:a":50,"@alice:a":60}}`))
	before.want("", change(alice, creator, event.Ban))
	before.want("10.6.2", levels(`{"users":{"@creator:a":50,"@alice:a":60},"ban":51}`))
	none := newWorld(t, "11", additional, member(alice, event.Join))
	none.want("8", as(alice, topic))
	none.want("", as(creator, topic))
}

func TestParsePowerLevels(t *testing.T) {
	content := levels(`{"users":{"@bob:b":7},"users_default":1,"events":{"m.x":3},"events_default":4,"state_default":5,"ban":6,"redact":8,"kick":9,"invite":10,"notifications":{"room":11}}`)
	w := newWorld(t, "12", "", content)
	p, err := ParsePowerLevels(w.create, w.state.Event(event.TypePowerLevels, ""))
	if err != nil {
		t.Fatal(err)
	}
	none, err := ParsePowerLevels(w.create, nil)
	if err != nil {
		t.Fatal(err)
	}
	old := newWorld(t, "10", "", content)
	before, err := ParsePowerLevels(old.create, old.state.Event(event.TypePowerLevels, ""))
	if err != nil {
		t.Fatal(err)
	}
	noneBefore, err := ParsePowerLevels(old.create, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name      string
		got, want Level
	}{
		{"bob", p.User(bob), 7}, {"alice", p.User(alice), 1}, {"creator", p.User(creator), Infinite}, {"users_default", p.UsersDefault(), 1},
		{"m.x", p.Event("m.x", false), 3}, {"m.x as state", p.Event("m.x", true), 3}, {"m.y", p.Event("m.y", false), 4}, {"m.y as state", p.Event("m.y", true), 5},
		{"ban", p.Ban(), 6}, {"redact", p.Redact(), 8}, {"kick", p.Kick(), 9}, {"invite", p.Invite(), 10},
		{"room", p.Notification("room"), 11}, {"other notification", p.Notification("x"), 50},

		{"none: creator", none.User(creator), Infinite}, {"none: bob", none.User(bob), 0}, {"none: m.x", none.Event("m.x", false), 0},
		{"none: m.x as state", none.Event("m.x", true), 50}, {"none: ban", none.Ban(), 50}, {"none: redact", none.Redact(), 50},
		{"none: kick", none.Kick(), 50}, {"none: invite", none.Invite(), 0}, {"none: room", none.Notification("room"), 50},

		{"before: creator", before.User(creator), 1}, {"before: none: creator", noneBefore.User(creator), 100}, {"before: none: bob", noneBefore.User(bob), 0},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, tt.got, tt.want)
		}
	}
	if Infinite <= 1<<53 || Infinite.String() != "infinite" || Level(-5).String() != "-5" {
		t.Error("Infinite is not what it should be")
	}
}

// TestOldPowerLevels checks that a room of an old version lives on with levels
// that its rules let in.
func TestOldPowerLevels(t *testing.T) {
	w := newWorld(t, "5", "", member(bob, event.Join), member("@c:c", event.Join))
	pl := w.event(levels(`{"ban":"x","kick":" 0060 ","invite":[],"events":{"a":"+7","b":null},"users":{"@bob:b":"-5","@c:c":1e30,"@d:d":-99999999999999999999,"@e:e":-1e30,"@f:f":1e-3},"notifications":1,"redact":70.9,"state_default":-0.9}`))
	w.state[Key{event.TypePowerLevels, ""}] = pl
	p, err := ParsePowerLevels(w.create, pl)
	if err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string][2]Level{
		"ban": {p.Ban(), 50}, "kick": {p.Kick(), 60}, "invite": {p.Invite(), 0}, "a": {p.Event("a", false), 7}, "b": {p.Event("b", false), 0},
		"bob": {p.User(bob), -5}, "c": {p.User("@c:c"), Infinite - 1}, "d": {p.User("@d:d"), math.MinInt64}, "redact": {p.Redact(), 70},
		"e": {p.User("@e:e"), math.MinInt64}, "f": {p.User("@f:f"), 0},
		"state_default": {p.Event("s", true), 0},
	} {
		if l[0] != l[1] {
			t.Errorf("%s: %v, want %v", name, l[0], l[1])
		}
	}
	w.want("8", message(bob))
	w.want("", member("@c:c", event.Leave))
}

// kept is a State that keeps its power levels.
type kept struct {
	Set
	levels *PowerLevels
	asked  int
}

func (k *kept) PowerLevels() (*PowerLevels, error) {
	k.asked++
	return k.levels, nil
}

func TestKeptPowerLevels(t *testing.T) {
	w := newWorld(t, "12", "", member(bob, event.Join), levels(`{"events_default":100}`))
	lower, err := ParsePowerLevels(w.create, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &kept{Set: w.state, levels: lower}
	wantRule(t, "", Check(w.event(message(bob)), s))
	if s.asked != 1 {
		t.Errorf("asked %d times", s.asked)
	}
	wantRule(t, "8", Check(w.event(message(bob)), w.state))
}

// FuzzPowerLevels checks that whoever may change the levels of a room does not
// rise above what he had, nor touches who was not below him.
func FuzzPowerLevels(f *testing.F) {
	f.Add(`{"users":{"@alice:a":50,"@bob:b":50}}`, `{"users":{"@alice:a":50}}`)
	f.Add(`{"users":{"@alice:a":50},"ban":50,"events":{"a":1}}`, `{"users":{"@alice:a":50,"@bob:b":20},"kick":5}`)
	f.Fuzz(func(t *testing.T, old, next string) {
		w := newWorld(t, "12", "", member(alice, event.Join))
		build := func(content string) *event.PDU {
			key := ""
			p, err := event.Build(w.v, event.Draft{Room: w.room, Type: event.TypePowerLevels, Sender: alice, StateKey: &key,
				Content: []byte(content)}, "a", testKey(t))
			if err != nil {
				t.Skip()
			}
			return p
		}
		before, after := build(old), build(next)
		was, err := ParsePowerLevels(w.create, before)
		if err != nil {
			return
		}
		w.state[Key{event.TypePowerLevels, ""}] = before
		if Check(after, w.state) != nil {
			return
		}
		is, err := ParsePowerLevels(w.create, after)
		if err != nil {
			t.Fatalf("allowed, but: %v", err)
		}
		mine := was.User(alice)
		for user := range is.users {
			if is.User(user) > mine && is.User(user) != was.User(user) {
				t.Fatalf("%s rises from %v to %v, above %v", user, was.User(user), is.User(user), mine)
			}
		}
		for user := range was.users {
			if user != alice && was.User(user) >= mine && is.users[user] != was.users[user] {
				t.Fatalf("%s falls from %v to %v, though not below %v", user, was.User(user), is.User(user), mine)
			}
		}
	})
}

func benchmarkWorld(b *testing.B) *world {
	users := make([]string, 300)
	for i := range users {
		users[i] = fmt.Sprintf(`"@user%d:example.org":50`, i)
	}
	return newWorld(b, "12", "", member(bob, event.Join), rule("public"),
		levels(`{"events":{"m.room.name":50,"m.room.power_levels":100,"m.room.topic":50},"users":{`+strings.Join(users, ",")+`}}`))
}

func BenchmarkCheck300(b *testing.B) {
	w := benchmarkWorld(b)
	e := w.event(message(bob))
	p, err := ParsePowerLevels(w.create, w.state.Event(event.TypePowerLevels, ""))
	if err != nil {
		b.Fatal(err)
	}
	for name, s := range map[string]State{"parsed": w.state, "kept": &kept{Set: w.state, levels: p}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := Check(e, s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
