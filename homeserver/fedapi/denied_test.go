package fedapi

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/media"
	"switchboard/homeserver/room"
)

// TestDeniedServer is one that the operator wants nothing to do with.
func TestDeniedServer(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		ours, theirs := a.public(alice, "12"), b.public(bob, "12")
		b.join(bob, ours, a)
		hello := b.say(bob, ours, "hello")
		file := media.Upload{Type: "text/plain", Name: "tea.txt", Length: 3, Body: strings.NewReader("tea")}
		id, err := a.media.Put(a.ctx(), alice, file)
		a.ok(err)

		a.close()
		a.deny = []string{"127.0.*"}
		a.open()
		a.front = a.api.Handler()
		for _, ask := range []struct{ method, path, body string }{
			{"PUT", "/_matrix/federation/v1/send/1", `{"origin":"b","origin_server_ts":1,"pdus":[` + string(hello.JSON) + `]}`},
			{"GET", "/_matrix/federation/v1/make_join/" + string(ours) + "/" + string(bob) + "?ver=12", ""},
			{"GET", "/_matrix/federation/v1/media/download/" + id, ""},
			{"GET", "/_matrix/federation/v1/query/profile?user_id=" + string(alice), ""},
		} {
			answer := b.want(a, 403, matrix.Forbidden, ask.method, ask.path, ask.body)
			if want := `"this server does not talk to ` + string(b.name) + `"`; string(answer["error"]) != want {
				t.Errorf("%s: b is told %s", ask.path, answer["error"])
			}
		}
		if got := a.texts(ours); got != "" {
			t.Errorf("a has %q", got)
		}
		var answer struct {
			Keys []json.RawMessage `json:"server_keys"`
		}
		status, got := b.request(a, "GET", "/_matrix/key/v2/query/"+string(b.name), "", "") // which anybody may ask
		a.ok(json.Unmarshal(got["server_keys"], &answer.Keys))
		if status != 200 || len(answer.Keys) != 0 {
			t.Errorf("a tells %d keys of b", len(answer.Keys))
		}

		asked := b.front
		b.front = nil // would panic
		defer func() { b.front = asked }()
		via := []matrix.ServerName{b.name}
		a.refused(a.fed.Join(a.ctx(), room.Change{Room: theirs, Actor: alice}, via), matrix.Forbidden)
		a.refused(a.fed.Knock(a.ctx(), room.Change{Room: theirs, Actor: alice}, via), matrix.Forbidden)
		a.refused(a.fed.Invite(a.ctx(), room.Change{Room: ours, Actor: alice, Target: "@carol:" + matrix.UserID(b.name)}), matrix.Forbidden)
		_, _, err = a.directory.Resolve(a.ctx(), "#tea:"+matrix.RoomAlias(b.name))
		a.refused(err, matrix.Forbidden)
		_, err = a.client.Download(a.ctx(), b.name, id, time.Second, 1<<20)
		a.refused(err, matrix.Forbidden)
		a.say(alice, ours, "alone")
		a.refused(a.client.Insisting().SendLeave(a.ctx(), b.name, hello), matrix.Forbidden)
	})
}
