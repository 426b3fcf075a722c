package room

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// content reads one state event's content; "" if there is none.
func (w world) content(room matrix.RoomID, typ, key string) string {
	w.Helper()
	r, err := w.Store.Room(w.ctx(), room)
	w.ok(err)
	e, err := w.StateEvent(w.ctx(), r.Current, typ, key)
	w.ok(err)
	if e == nil {
		return ""
	}
	return string(e.PDU.Content)
}

func (w world) upgrade(u Upgrade) matrix.RoomID {
	w.Helper()
	id, err := w.Upgrade(w.ctx(), u)
	w.ok(err)
	return id
}

// TestUpgrade upgrades from each version to each of the newer ones.
func TestUpgrade(t *testing.T) {
	each(t, func(w world) {
		for _, step := range [][2]string{{"1", "2"}, {"2", "6"}, {"5", "10"}, {"9", "11"}, {"10", "12"}, {"11", "12"}, {"12", "12"}, {"12", "11"}} {
			from, to := step[0], step[1]
			name := "Tea"
			old := w.create(Creation{Version: from, Preset: "public_chat", Visibility: "public", Name: &name, AliasName: "tea" + from + to,
				CreationContent: map[string]json.RawMessage{"type": json.RawMessage(`"m.space"`), "org.x": json.RawMessage(`1`)}})
			alias := "#tea" + from + to + ":a.test"
			w.ok(w.Join(w.ctx(), Change{Room: old, Actor: bob}))
			w.ok(w.Join(w.ctx(), Change{Room: old, Actor: carol}))
			reason := "spam"
			w.ok(w.Ban(w.ctx(), Change{Room: old, Actor: alice, Target: carol, Reason: &reason}))
			for typ, content := range map[string]string{
				"m.room.server_acl":  `{"allow":["*"],"deny":["evil.test"]}`,
				"m.room.topic":       `{"topic":"Leaves"}`,
				"m.room.avatar":      `{"url":"mxc://a.test/x"}`,
				"m.room.encryption":  `{"algorithm":"m.megolm.v1.aes-sha2"}`,
				"org.example.secret": `{"x":1}`,
			} {
				w.ok(w.state(alice, old, typ, "", content))
			}
			w.ok(w.state(alice, old, "m.space.child", "!kid:a.test", `{"via":["a.test"]}`))
			w.ok(w.state(alice, old, "m.space.child", "!gone:a.test", `{}`))
			w.ok(w.state(alice, old, "m.room.canonical_alias", "", `{"alias":"`+alias+`"}`))

			id := w.upgrade(Upgrade{Room: old, User: alice, Version: to})
			if again := w.upgrade(Upgrade{Room: old, User: alice, Version: to}); again != id {
				t.Errorf("%s to %s: a repeated wish made another room", from, to)
			}
			for key, want := range map[string]string{
				"m.room.name ": `{"name":"Tea"}`, "m.room.server_acl ": `{"allow":["*"],"deny":["evil.test"]}`,
				"m.room.topic ": `{"topic":"Leaves"}`, "m.room.avatar ": `{"url":"mxc://a.test/x"}`,
				"m.room.encryption ": `{"algorithm":"m.megolm.v1.aes-sha2"}`, "m.room.join_rules ": `{"join_rule":"public"}`,
				"m.room.history_visibility ": `{"history_visibility":"shared"}`, "org.example.secret ": "",
				"m.room.member @bob:a.test": "", "m.room.member @carol:a.test": `{"membership":"ban","reason":"spam"}`,
				"m.space.child !kid:a.test": `{"via":["a.test"]}`, "m.space.child !gone:a.test": "",
				"m.room.canonical_alias ": `{"alias":"` + alias + `"}`, "m.room.member @alice:a.test": `{"membership":"join"}`,
			} {
				typ, stateKey, _ := strings.Cut(key, " ")
				if got := w.content(id, typ, stateKey); got != want {
					t.Errorf("%s to %s: %s is %s, want %s", from, to, key, got, want)
				}
			}
			tombstone := w.content(old, "m.room.tombstone", "")
			if want := fmt.Sprintf(`{"body":"This room has been replaced","replacement_room":%q}`, id); tombstone != want {
				t.Errorf("%s to %s: tombstone %s", from, to, tombstone)
			}
			if got := w.content(old, "m.room.canonical_alias", ""); got != `{}` {
				t.Errorf("%s to %s: the old room still has the name %s", from, to, got)
			}
			w.checkCreation(old, id, to)
			w.checkDirectory(old, id, alias)

			w.ok(w.Join(w.ctx(), Change{Room: id, Actor: bob}))
			w.refused(w.Join(w.ctx(), Change{Room: id, Actor: carol}), matrix.Forbidden)
			w.say(bob, id, "hello")
			w.say(alice, old, "moderators still speak here")
			_, err := w.Send(w.ctx(), Sending{User: bob, Room: old, Type: "m.room.message", Content: json.RawMessage(`{}`)})
			w.refused(err, matrix.Forbidden)
			w.refused(w.Invite(w.ctx(), Change{Room: old, Actor: bob, Target: "@dora:a.test"}), matrix.Forbidden)
			w.ok(w.state(alice, id, "m.room.name", "", `{"name":"Coffee"}`))
		}
	})
}

// checkCreation compares the create event of a replacement.
func (w world) checkCreation(old, id matrix.RoomID, version string) {
	w.Helper()
	r, err := w.Store.Room(w.ctx(), old)
	w.ok(err)
	tombstone, err := w.StateEvent(w.ctx(), r.Current, "m.room.tombstone", "")
	w.ok(err)
	predecessor := fmt.Sprintf(`{"event_id":%q,"room_id":%q}`, tombstone.PDU.ID, old)
	creator := `"creator":"@alice:a.test",`
	switch version {
	case "12":
		predecessor = fmt.Sprintf(`{"room_id":%q}`, old)
		creator = ""
	case "11":
		creator = ""
	}
	want := fmt.Sprintf(`{%s"predecessor":%s,"room_version":%q,"type":"m.space"}`, creator, predecessor, version)
	if got := w.content(id, "m.room.create", ""); got != want {
		w.Errorf("create event\ngot  %s\nwant %s", got, want)
	}
}

// checkDirectory checks that the names and the place in the list have moved.
func (w world) checkDirectory(old, id matrix.RoomID, alias string) {
	w.Helper()
	was, err := w.Store.Room(w.ctx(), old)
	w.ok(err)
	is, err := w.Store.Room(w.ctx(), id)
	w.ok(err)
	a, err := w.Store.Alias(w.ctx(), matrix.RoomAlias(alias))
	w.ok(err)
	left, err := w.Store.Published(w.ctx(), "", was.Num)
	w.ok(err)
	listed, err := w.Store.Published(w.ctx(), "", is.Num)
	w.ok(err)
	if a.Room != is.Num || left || !listed {
		w.Errorf("%s leads to room %d, which is listed: %v; the old one is listed: %v", alias, a.Room, listed, left)
	}
}

func TestUpgradeRefused(t *testing.T) {
	each(t, func(w world) {
		old := w.create(Creation{Version: "11", Preset: "public_chat"})
		w.ok(w.Join(w.ctx(), Change{Room: old, Actor: bob}))
		for _, tt := range []struct {
			Upgrade
			code matrix.Code
		}{
			{Upgrade{Room: old, User: bob, Version: "12"}, matrix.Forbidden},
			{Upgrade{Room: old, User: bob, Version: "11"}, matrix.Forbidden},
			{Upgrade{Room: old, User: carol, Version: "12"}, matrix.Forbidden},
			{Upgrade{Room: "!none:a.test", User: alice, Version: "12"}, matrix.Forbidden},
			{Upgrade{Room: old, User: alice, Version: "x"}, matrix.UnsupportedRoomVersion},
			{Upgrade{Room: old, User: alice}, matrix.MissingParam},
			{Upgrade{Room: old, User: alice, Version: "12", Creators: []matrix.UserID{"bob"}}, matrix.InvalidParam},
		} {
			_, err := w.Upgrade(w.ctx(), tt.Upgrade)
			w.refused(err, tt.code)
		}
		if got := w.content(old, "m.room.tombstone", ""); got != "" {
			t.Errorf("the room has a tombstone: %s", got)
		}
		rooms, err := w.JoinedRooms(w.ctx(), alice)
		w.ok(err)
		if !slices.Equal(rooms, []matrix.RoomID{old}) {
			t.Errorf("rooms were left behind: %v", rooms)
		}
	})
}

func TestUpgradePowerLevels(t *testing.T) {
	const moderator = `"users":{"@alice:a.test":100,"@bob:a.test":50,"@carol:a.test":70}`
	tests := []struct {
		name, from, to string
		levels         string // of the old room
		user           matrix.UserID
		creators       []matrix.UserID
		want, shut     string // of the new and the old room
	}{
		{"a moderator stays one", "10", "11",
			`{` + moderator + `,"events":{"m.room.tombstone":50,"m.room.power_levels":100},"state_default":50}`, bob, nil,
			`{"events":{"m.room.power_levels":100,"m.room.tombstone":50},"state_default":50,` + moderator + `}`,
			``},
		{"creators have no level", "11", "12",
			`{` + moderator + `,"events":{"m.room.tombstone":100}}`, alice, []matrix.UserID{carol, alice, carol},
			`{"events":{"m.room.tombstone":100},"users":{"@bob:a.test":50}}`,
			`{"events":{"m.room.tombstone":100},"events_default":50,"invite":50,` + moderator + `}`},
		{"a tombstone takes more than other state", "11", "12", `{` + moderator + `,"state_default":60}`, alice, nil,
			`{"events":{"m.room.tombstone":150},"state_default":60,"users":{"@bob:a.test":50,"@carol:a.test":70}}`,
			`{"events_default":50,"invite":50,"state_default":60,` + moderator + `}`},
		{"texts and floats become numbers", "5", "10",
			`{"users":{"@alice:a.test":"100","@bob:a.test":" 40 "},"users_default":"60","events":{"m.room.message":0,"m.room.redaction":0}}`, alice, nil,
			`{"events":{"m.room.message":0,"m.room.redaction":0},"users":{"@alice:a.test":100,"@bob:a.test":40},"users_default":60}`,
			``},
		{"those who had infinite power get the highest", "12", "11", `{"users":{"@bob:a.test":120}}`, alice, nil,
			`{"users":{"@alice:a.test":120,"@bob:a.test":120}}`,
			`{"events_default":50,"invite":50,"users":{"@bob:a.test":120}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			each(t, func(w world) {
				old := w.create(Creation{Version: tt.from, Preset: "public_chat"})
				for _, u := range []matrix.UserID{bob, carol} {
					w.ok(w.Join(w.ctx(), Change{Room: old, Actor: u}))
				}
				w.ok(w.state(alice, old, "m.room.power_levels", "", tt.levels))
				id := w.upgrade(Upgrade{Room: old, User: tt.user, Version: tt.to, Creators: tt.creators})
				if got := w.content(id, "m.room.power_levels", ""); got != tt.want {
					w.Errorf("new room\ngot  %s\nwant %s", got, tt.want)
				}
				if tt.shut == "" {
					return
				}
				if got := w.content(old, "m.room.power_levels", ""); got != tt.shut {
					w.Errorf("old room\ngot  %s\nwant %s", got, tt.shut)
				}
			})
		})
	}
}

// TestInherit checks that settings follow into the new room, for whoever comes there.
func TestInherit(t *testing.T) {
	each(t, func(w world) {
		old := w.create(Creation{Version: "11", Preset: "public_chat"})
		w.ok(w.Join(w.ctx(), Change{Room: old, Actor: bob}))
		set := func(room matrix.RoomID, typ, content string) {
			w.ok(w.Store.Update(w.ctx(), func(tx *store.Tx) error {
				_, err := tx.PutAccountData(w.ctx(), store.AccountData{User: bob, Room: room, Type: typ, Content: json.RawMessage(content)})
				return err
			}))
		}
		get := func(room matrix.RoomID, typ string) string {
			content, _, err := w.Store.AccountData(w.ctx(), bob, room, typ)
			w.ok(err)
			return string(content)
		}
		set(old, "m.tag", `{"tags":{"m.favourite":{}}}`)
		set("", "m.direct", fmt.Sprintf(`{"@alice:a.test":[%q],"@carol:a.test":["!x:a.test"]}`, old))
		set("", "m.push_rules", fmt.Sprintf(`{"global":{"room":[{"rule_id":%q,"default":false,"enabled":true,"actions":[]}]}}`, old))

		stranger := w.create(Creation{Preset: "public_chat", CreationContent: map[string]json.RawMessage{
			"predecessor": json.RawMessage(fmt.Sprintf(`{"room_id":%q}`, old)),
		}})
		w.ok(w.Join(w.ctx(), Change{Room: stranger, Actor: bob}))
		if got := get(stranger, "m.tag"); got != "" {
			t.Errorf("a room that only claims to replace another got its tags: %s", got)
		}

		id := w.upgrade(Upgrade{Room: old, User: alice, Version: "12"})
		w.ok(w.Join(w.ctx(), Change{Room: id, Actor: bob}))
		if got := get(id, "m.tag"); got != `{"tags":{"m.favourite":{}}}` {
			t.Errorf("tags: %s", got)
		}
		if got, want := get("", "m.direct"), fmt.Sprintf(`{"@alice:a.test":[%q,%q],"@carol:a.test":["!x:a.test"]}`, old, id); got != want {
			t.Errorf("direct chats\ngot  %s\nwant %s", got, want)
		}
		if got := get("", "m.push_rules"); strings.Count(got, string(id)) != 1 || strings.Count(got, string(old)) != 1 {
			t.Errorf("push rules: %s", got)
		}
		set(id, "m.tag", `{"tags":{}}`)
		w.ok(w.Leave(w.ctx(), Change{Room: id, Actor: bob}))
		w.ok(w.Join(w.ctx(), Change{Room: id, Actor: bob}))
		if got := get(id, "m.tag"); got != `{"tags":{}}` {
			t.Errorf("tags of one's own were replaced: %s", got)
		}
	})
}
