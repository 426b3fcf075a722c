package fedapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// target is a server that a hostile one sends whatever the fuzzer finds. Both
// live as long as the process: each room is made when it is first needed.
type target struct {
	*host   // who is sent to
	hostile *host
	alice   matrix.UserID // who makes the rooms
	eve     matrix.UserID // of the hostile server
	rooms   map[string]matrix.RoomID
	sent    int
}

func newTarget(f *testing.F) *target {
	x := &target{host: newHost(f, databasetest.SQLite(f)), hostile: newHost(f, databasetest.SQLite(f)), rooms: map[string]matrix.RoomID{}}
	f.Cleanup(func() { x.TB, x.hostile.TB = f, f }) // before the servers are closed
	x.fed.Config.RequestsPerSecond = 1e9
	x.alice, x.eve = x.user("alice"), x.hostile.user("eve")
	return x
}

// room is one of the given version that both servers are in.
func (x *target) room(version string) *store.Room {
	x.Helper()
	id, ok := x.rooms[version]
	if !ok || x.membership(x.eve, id) != event.Join {
		id = x.public(x.alice, version)
		x.hostile.join(x.eve, id, x.host)
		x.rooms[version] = id
	}
	return x.known(id)
}

func (x *target) known(id matrix.RoomID) *store.Room {
	x.Helper()
	r, err := x.st.Room(x.ctx(), id)
	x.ok(err)
	return r
}

// next is an event of the hostile server that could be the next one of a room
// but for what change does, nil if it would be none.
func (x *target) next(r *store.Room, change func(d *event.Draft)) *event.PDU {
	x.Helper()
	template, err := x.host.rooms.Template(x.ctx(), r.ID, x.eve, event.Leave, nil)
	x.ok(err)
	var like struct {
		Prev  []json.RawMessage `json:"prev_events"`
		Auth  []json.RawMessage `json:"auth_events"`
		Depth int64             `json:"depth"`
	}
	x.ok(json.Unmarshal(template.Event, &like))
	d := event.Draft{Room: r.ID, Sender: x.eve, Depth: like.Depth, OriginServerTS: 1, Hashes: map[matrix.EventID]string{}}
	d.PrevEvents, d.AuthEvents = x.references(like.Prev, d.Hashes), x.references(like.Auth, d.Hashes)
	change(&d)
	p, err := event.Build(r.Version, d, x.hostile.name, x.hostile.key)
	if err != nil {
		return nil
	}
	return p
}

// references reads the events that another one names: IDs, before room version 3
// each with hashes.
func (x *target) references(list []json.RawMessage, hashes map[matrix.EventID]string) (ids []matrix.EventID) {
	x.Helper()
	for _, raw := range list {
		var id matrix.EventID
		if json.Unmarshal(raw, &id) != nil {
			var hash struct {
				SHA256 string `json:"sha256"`
			}
			x.ok(json.Unmarshal(raw, &[]any{&id, &hash}))
			hashes[id] = hash.SHA256
		}
		ids = append(ids, id)
	}
	return ids
}

// send pushes a body as a transaction and checks what is answered.
func (x *target) send(body string) {
	x.Helper()
	x.sent++
	path := fmt.Sprint("/_matrix/federation/v1/send/", x.sent)
	r := httptest.NewRequestWithContext(x.ctx(), http.MethodPut, path, strings.NewReader(body))
	r.Header.Set("Authorization", x.hostile.header(x.host, http.MethodPut, path, body))
	w := httptest.NewRecorder()
	x.front.ServeHTTP(w, r)
	var answer struct {
		PDUs map[matrix.EventID]struct{ Error string }
		Code matrix.Code `json:"errcode"`
	}
	x.ok(json.Unmarshal(w.Body.Bytes(), &answer))
	again := w.Code == http.StatusServiceUnavailable && w.Header().Get("Retry-After") != "" // as what it refers to cannot be had
	if w.Code == http.StatusOK && answer.PDUs == nil || w.Code != http.StatusOK && answer.Code == "" || w.Code >= 500 && !again {
		x.Fatalf("%d %s", w.Code, w.Body)
	}
	for id, p := range answer.PDUs {
		if p.Error == "internal server error" {
			x.Fatalf("%s: %s", id, p.Error)
		}
	}
}

// unharmed checks that nothing came into a room but what the hostile server signed.
func (x *target) unharmed(before *store.Room) {
	x.Helper()
	after := x.known(before.ID)
	list, err := x.st.Newest(x.ctx(), after.Num, before.Last, after.Last, 100)
	x.ok(err)
	old, err := x.host.rooms.StateEvents(x.ctx(), before.Current)
	x.ok(err)
	state, err := x.host.rooms.StateEvents(x.ctx(), after.Current)
	x.ok(err)
	if len(state) < len(old) {
		x.Fatalf("of %d events of the state %d are left", len(old), len(state))
	}
	known := map[store.EventNum]bool{}
	for _, e := range old {
		known[e.Num] = true
	}
	for _, e := range append(list, state...) {
		if !known[e.Num] && e.PDU.Sender.Server() != x.hostile.name {
			x.Fatalf("came in: %s", e.PDU.JSON)
		}
	}
}

// FuzzTransaction has a server push anything at all, and an event that it signed
// of anything at all: the answer is JSON and no failure of this server's, and the
// room stays as it is, but for what that server's user may do.
func FuzzTransaction(f *testing.F) {
	const eve = "" // stands for her ID, which differs from process to process
	for _, body := range []string{
		`{"pdus":[{}],"edus":[{"edu_type":"m.typing","content":{}}]}`,
		`{"pdus":[null],"edus":[{"edu_type":"m.receipt","content":{"ROOM":{"m.read":{"EVE":{"event_ids":["$a"],"data":{"ts":1}}}}}}]}`,
		`{"pdus":[{"room_id":"ROOM","type":"m.room.message","sender":"ALICE","content":{},"prev_events":[],"auth_events":[],"depth":1,"origin_server_ts":1,"hashes":{"sha256":"x"},"signatures":{}}]}`,
		`{"edus":[{"edu_type":"m.device_list_update","content":{"user_id":"EVE","device_id":"D","stream_id":1,"prev_id":[0]}}]}`,
		`{"edus":[{"edu_type":"m.direct_to_device","content":{"sender":"EVE","type":"t","message_id":"1","messages":{"ALICE":{"*":{}}}}}]}`,
		`{"edus":[{"edu_type":"m.presence","content":{"push":[{"user_id":"EVE","presence":"online"}]}}]}`,
		`{"edus":[{"edu_type":"m.typing","content":{"room_id":"ROOM","user_id":"EVE","typing":true}}]}`,
		`{"edus":[{"edu_type":"m.signing_key_update","content":{"user_id":"EVE","master_key":{"keys":{}}}}]}`,
	} {
		f.Add(body, byte(9), "m.room.message", eve, "", false, `{"body":"x"}`, "", int64(0))
	}
	for version := range byte(12) {
		f.Add(`{}`, version, "m.room.message", "", "", false, `{"body":"x","m.relates_to":{"rel_type":"m.thread","event_id":"$x"}}`, "", int64(0))
		f.Add(`{}`, version, "m.room.member", eve, eve, true, `{"membership":"join","displayname":"E"}`, "", int64(0))
		f.Add(`{}`, version, "m.room.power_levels", eve, "", true, `{"users":{"EVE":100}}`, "", int64(0))
		f.Add(`{}`, version, "m.room.redaction", eve, "", false, `{"redacts":"$x"}`, "", int64(1<<53-100))
	}
	f.Add(`{}`, byte(9), "m.room.member", eve, "@bob:b", true, `{"membership":"invite"}`, "", int64(0))
	f.Add(`{}`, byte(9), "m.room.message", "ALICE", "", false, `{"body":"x"}`, "", int64(0))
	f.Add(`{}`, byte(9), "m.room.message", eve, "", false, `{"body":"x"}`, "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", int64(-1))
	x := newTarget(f)
	f.Fuzz(func(t *testing.T, body string, version byte, typ, sender, key string, isState bool, content, prev string, depth int64) {
		x.TB, x.hostile.TB = t, t
		r := x.room(matrix.Versions()[int(version)%len(matrix.Versions())].ID)
		names := strings.NewReplacer("ROOM", string(r.ID), "EVE", string(x.eve), "ALICE", string(x.alice))
		fill := func(user string) string {
			if user == eve {
				return string(x.eve)
			}
			return names.Replace(user)
		}
		x.send(names.Replace(body))
		p := x.next(r, func(d *event.Draft) {
			d.Type, d.Sender, d.Content = typ, matrix.UserID(fill(sender)), json.RawMessage(names.Replace(content))
			if isState {
				if key = names.Replace(key); typ == event.TypeMember {
					key = fill(key)
				}
				d.StateKey = &key
			}
			if prev != "" {
				d.PrevEvents = []matrix.EventID{matrix.EventID(prev)}
				d.Hashes[matrix.EventID(prev)] = "x"
			}
			d.Depth += depth
		})
		if p != nil {
			x.send(`{"pdus":[` + string(p.JSON) + `]}`)
		}
		x.unharmed(r)
	})
}
