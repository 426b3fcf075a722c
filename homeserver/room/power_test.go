package room

import (
	"encoding/json"
	"fmt"
	"testing"

	"switchboard/homeserver/matrix"
)

// TestPowerLevels checks who may do what by their power, in the versions in
// which creators have levels like others and in which they stand above all.
func TestPowerLevels(t *testing.T) {
	each(t, func(w world) {
		ctx := w.ctx()
		for _, version := range []string{"10", "11", "12"} {
			id := w.create(Creation{Version: version, Preset: "public_chat"})
			w.ok(w.Join(ctx, Change{Room: id, Actor: bob}))
			w.ok(w.Join(ctx, Change{Room: id, Actor: carol}))
			levels := func(actor matrix.UserID, content string) error {
				return w.state(actor, id, "m.room.power_levels", "", content)
			}
			users := func(list string) string {
				if version != "12" {
					list += `,"@alice:a.test":100`
				}
				return `{"users":{` + list + `},"events":{"m.room.topic":60,"m.talk":20},"events_default":0,"state_default":50,"kick":50,"ban":50,"redact":50,"invite":0}`
			}
			w.ok(levels(alice, users(`"@bob:a.test":50`)))
			w.refused(w.state(bob, id, "m.room.topic", "", `{"topic":"x"}`), matrix.Forbidden)
			w.ok(w.state(bob, id, "m.room.avatar", "", `{}`))
			w.refused(w.state(carol, id, "m.room.avatar", "", `{"url":"x"}`), matrix.Forbidden)
			_, err := w.Send(ctx, Sending{User: carol, Room: id, Type: "m.talk", Content: json.RawMessage(`{}`)})
			w.refused(err, matrix.Forbidden)
			w.refused(levels(carol, users(`"@carol:a.test":50`)), matrix.Forbidden)
			w.refused(levels(bob, users(`"@bob:a.test":60`)), matrix.Forbidden)                    // above oneself
			w.refused(levels(bob, users(`"@bob:a.test":50,"@carol:a.test":51`)), matrix.Forbidden) // above oneself
			w.refused(w.Kick(ctx, Change{Room: id, Actor: bob, Target: alice}), matrix.Forbidden)
			w.refused(w.Ban(ctx, Change{Room: id, Actor: bob, Target: alice}), matrix.Forbidden)
			w.refused(levels(alice, `{"users":{"@bob:a.test":"50"}}`), matrix.Forbidden) // no strings from version 10 on
			if version == "12" {
				w.refused(levels(alice, `{"users":{"@alice:a.test":100}}`), matrix.Forbidden) // creators have no level
				w.ok(levels(alice, `{"users":{"@bob:a.test":9007199254740991},"ban":50,"kick":50}`))
				w.refused(w.Kick(ctx, Change{Room: id, Actor: bob, Target: alice}), matrix.Forbidden) // not even so
				w.ok(levels(alice, `{"users":{},"ban":50}`))
			} else {
				w.ok(levels(alice, users(`"@bob:a.test":50`)+""))
			}
			w.ok(w.Kick(ctx, Change{Room: id, Actor: alice, Target: bob}))
		}
	})
}

// TestCreators checks that all creators of a room of version 12 stand above
// everybody, and nobody else.
func TestCreators(t *testing.T) {
	each(t, func(w world) {
		ctx := w.ctx()
		id := w.create(Creation{Preset: "trusted_private_chat", Invite: []matrix.UserID{bob}})
		w.ok(w.Join(ctx, Change{Room: id, Actor: bob}))
		w.ok(w.state(bob, id, "m.room.tombstone", "", `{"body":"x","replacement_room":"!x:a.test"}`))
		w.ok(w.Invite(ctx, Change{Room: id, Actor: alice, Target: carol}))
		w.ok(w.Join(ctx, Change{Room: id, Actor: carol}))
		w.ok(w.state(alice, id, "m.room.power_levels", "", `{"users":{"@carol:a.test":100},"events":{"m.room.tombstone":150}}`))
		w.refused(w.state(carol, id, "m.room.tombstone", "", `{"body":"y"}`), matrix.Forbidden)
		w.refused(w.Kick(ctx, Change{Room: id, Actor: carol, Target: bob}), matrix.Forbidden)
		w.refused(w.Kick(ctx, Change{Room: id, Actor: alice, Target: bob}), matrix.Forbidden) // equals
		r, err := w.Store.Room(ctx, id)
		w.ok(err)
		l, err := w.Levels(ctx, r)
		w.ok(err)
		if l.User(alice) != l.User(bob) || l.User(carol) != 100 || l.User(alice) <= l.User(carol) {
			t.Errorf("levels %v, %v, %v", l.User(alice), l.User(bob), l.User(carol))
		}
	})
}

// TestRedactionRights checks who may redact whose events.
func TestRedactionRights(t *testing.T) {
	each(t, func(w world) {
		ctx := w.ctx()
		for _, version := range []string{"10", "11", "12"} {
			id := w.create(Creation{Version: version, Preset: "public_chat"})
			other := w.create(Creation{Version: version, Preset: "public_chat"})
			for _, u := range []matrix.UserID{bob, carol} {
				w.ok(w.Join(ctx, Change{Room: id, Actor: u}))
			}
			content := `{"users":{"@bob:a.test":50},"redact":50}`
			if version != "12" {
				content = `{"users":{"@alice:a.test":100,"@bob:a.test":50},"redact":50}`
			}
			w.ok(w.state(alice, id, "m.room.power_levels", "", content))
			redact := func(actor matrix.UserID, e matrix.EventID) error {
				_, err := w.Redact(ctx, Sending{User: actor, Room: id, Redacts: e}, nil)
				return err
			}
			hers, his, carols := w.say(alice, id, "hers"), w.say(bob, id, "his"), w.say(carol, id, "carol's")
			w.refused(redact(carol, his), matrix.Forbidden)
			w.ok(redact(carol, carols))
			w.ok(redact(bob, hers)) // a moderator, even what the creator wrote
			w.ok(redact(alice, his))
			w.ok(redact(alice, his)) // again
			w.refused(redact(alice, w.say(alice, other, "elsewhere")), matrix.NotFound)
			w.refused(redact(alice, "$unknown"), matrix.NotFound)
			_, err := w.Redact(ctx, Sending{User: bob, Room: id, Redacts: w.say(alice, id, "x"), Suspended: true}, nil)
			w.refused(err, matrix.UserSuspended)

			// State stays what it was where the version keeps it.
			r, err := w.Store.Room(ctx, id)
			w.ok(err)
			e, err := w.StateEvent(ctx, r.Current, "m.room.power_levels", "")
			w.ok(err)
			w.ok(redact(alice, e.PDU.ID))
			w.refused(w.state(carol, id, "m.room.topic", "", `{"topic":"x"}`), matrix.Forbidden)
			w.ok(w.state(bob, id, "m.room.topic", "", fmt.Sprintf(`{"topic":%q}`, version)))
			e, err = w.StateEvent(ctx, r.Current, "m.room.member", string(carol))
			w.ok(err)
			w.ok(redact(alice, e.PDU.ID))
			w.say(carol, id, "still here")
			if m := w.Store.Membership(carol, r.Num); m.Membership != "join" {
				t.Errorf("version %s: the membership is %q", version, m.Membership)
			}
		}
	})
}

// TestRedactedPowerLevels checks that what a redaction takes out of the power
// levels is gone at once, not only after a restart.
func TestRedactedPowerLevels(t *testing.T) {
	each(t, func(w world) {
		ctx := w.ctx()
		id := w.create(Creation{Version: "10", Preset: "private_chat"}) // "invite" is kept from version 11 on
		w.ok(w.state(alice, id, "m.room.power_levels", "", `{"users":{"@alice:a.test":100},"invite":50}`))
		w.ok(w.Invite(ctx, Change{Room: id, Actor: alice, Target: bob}))
		w.ok(w.Join(ctx, Change{Room: id, Actor: bob}))
		w.refused(w.Invite(ctx, Change{Room: id, Actor: bob, Target: carol}), matrix.Forbidden)
		r, err := w.Store.Room(ctx, id)
		w.ok(err)
		e, err := w.StateEvent(ctx, r.Current, "m.room.power_levels", "")
		w.ok(err)
		_, err = w.Redact(ctx, Sending{User: alice, Room: id, Redacts: e.PDU.ID}, nil)
		w.ok(err)
		w.ok(w.Invite(ctx, Change{Room: id, Actor: bob, Target: carol})) // the default is 0
	})
}
