package fedclient

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// operations is a server that answers each operation of the specification, by
// method and path, and remembers which were asked.
type operations struct {
	t       *testing.T
	answers map[string]string // by operation ID
	mux     *http.ServeMux

	mu    sync.Mutex
	asked map[string]string // operation ID -> the request as text
}

// specified are the operations of the server-server API: ID -> method and path.
func specified(t *testing.T) (routes map[string]string, signed map[string]bool) {
	t.Helper()
	text, err := os.ReadFile("../../cmd/switchboard/testdata/endpoints.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []struct {
		API, Method, Path, Op string
		Auth                  bool
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	routes, signed = map[string]string{}, map[string]bool{}
	for _, e := range list {
		if e.API == "server-server" {
			routes[e.Op], signed[e.Op] = e.Method+" "+e.Path, e.Auth
		}
	}
	routes["complexity"], signed["complexity"] = "GET /_matrix/federation/unstable/rooms/{roomId}/complexity", true // Synapse's
	return routes, signed
}

func newOperations(t *testing.T) *operations {
	o := &operations{t: t, answers: map[string]string{}, mux: http.NewServeMux(), asked: map[string]string{}}
	routes, signed := specified(t)
	for op, pattern := range routes {
		o.mux.HandleFunc(regexp.MustCompile(`\{(\w+)\}`).ReplaceAllString(pattern, `{$1}`), func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			if (r.Header.Get("Authorization") != "") != signed[op] {
				t.Errorf("%s: signed %v", op, !signed[op])
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			o.asked[op] = strings.TrimSpace(r.Method + " " + r.URL.RequestURI() + " " + string(body))
			answer, ok := o.answers[op]
			if !ok {
				w.WriteHeader(http.StatusNotFound)
				answer = `{"errcode":"M_UNRECOGNIZED"}`
			}
			if strings.HasPrefix(answer, "--") {
				w.Header().Set("Content-Type", `multipart/mixed; boundary=x`)
			}
			_, _ = io.WriteString(w, answer)
		})
	}
	return o
}

// want compares what was asked.
func (o *operations) want(op, request string) {
	o.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.asked[op] != request {
		o.t.Errorf("%s:\n got %s\nwant %s", op, o.asked[op], request)
	}
}

const multipartFile = "--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x\r\nContent-Type: image/png\r\nContent-Disposition: inline; filename=a\r\n\r\nPNG\r\n--x--\r\n"

// TestOperations asks a server with every call, and compares with the
// specification's list that none is missing.
func TestOperations(t *testing.T) {
	n := newInternet(t)
	n.host("b.test", "5.5.5.1")
	o := newOperations(t)
	n.serve("5.5.5.1:443", o.mux, "b.test")
	n.serve("5.5.5.1:8448", o.mux, "b.test")
	c := n.client(sqlite(t), n.config())
	b, ctx := newKey(t), t.Context()
	join := testJoin(t, c)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	equal := func(got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}

	// Membership.
	template := `{"room_version":"11","event":{"type":"m.room.member","room_id":"!r:b.test","sender":"@alice:us.test","state_key":"@alice:us.test",
		"content":{"membership":"%s","join_authorised_via_users_server":"@x:b.test"},"depth":7,"prev_events":["$p"],"auth_events":["$a","$b"],"origin":"b.test"}}`
	for op, membership := range map[string]string{"makeJoin": "join", "makeKnock": "knock", "makeLeave": "leave"} {
		o.answers[op] = fmt.Sprintf(template, membership)
	}
	made, err := c.MakeJoin(ctx, "b.test", "!r:b.test", "@alice:us.test", []string{"1", "11"})
	must(err)
	o.want("makeJoin", "GET /_matrix/federation/v1/make_join/%21r:b.test/@alice:us.test?ver=1&ver=11")
	if d := made.Draft; made.Version.ID != "11" || d.Depth != 7 || len(d.PrevEvents) != 1 || len(d.AuthEvents) != 2 || time.Since(time.UnixMilli(d.OriginServerTS)) > time.Minute {
		t.Errorf("%+v", made)
	}
	_, err = c.MakeKnock(ctx, "b.test", "!r:b.test", "@alice:us.test", []string{"11"})
	must(err)
	o.want("makeKnock", "GET /_matrix/federation/v1/make_knock/%21r:b.test/@alice:us.test?ver=11")
	_, err = c.MakeLeave(ctx, "b.test", "!r:b.test", "@alice:us.test")
	must(err)
	o.want("makeLeave", "GET /_matrix/federation/v1/make_leave/%21r:b.test/@alice:us.test")
	o.answers["sendJoinV2"] = `{"state":[],"auth_chain":[]}`
	_, err = c.SendJoin(ctx, "b.test", join, false, nil)
	must(err)
	id := string(join.ID)
	o.want("sendJoinV2", "PUT /_matrix/federation/v2/send_join/%21r:b.test/"+id+" "+string(join.JSON))
	o.answers["sendKnock"] = `{"knock_room_state":[{"type":"m.room.create"}]}`
	knocked, err := c.SendKnock(ctx, "b.test", join)
	must(err)
	equal(len(knocked), 1)
	o.want("sendKnock", "PUT /_matrix/federation/v1/send_knock/%21r:b.test/"+id+" "+string(join.JSON))
	o.answers["sendLeaveV2"] = `{}`
	must(c.SendLeave(ctx, "b.test", join))
	o.want("sendLeaveV2", "PUT /_matrix/federation/v2/send_leave/%21r:b.test/"+id+" "+string(join.JSON))
	signed, err := join.Sign("b.test", b)
	must(err)
	o.answers["sendInviteV2"] = fmt.Sprintf(`{"event":%s}`, signed.JSON)
	invited, err := c.Invite(ctx, "b.test", join, nil)
	must(err)
	equal(string(invited.JSON), string(signed.JSON))
	o.want("sendInviteV2", "PUT /_matrix/federation/v2/invite/%21r:b.test/"+id+` {"event":`+string(join.JSON)+`,"invite_room_state":[],"room_version":"11"}`)
	key := "@bob:b.test"
	oldInvite := built(t, "1", event.Draft{
		Room: "!r:b.test", Type: event.TypeMember, Sender: "@alice:us.test", StateKey: &key, Content: json.RawMessage(`{"membership":"invite"}`),
	}, us, c.key)
	if signed, err = oldInvite.Sign("b.test", b); err != nil {
		t.Fatal(err)
	}
	for _, answer := range []string{`[200,{"event":%s}]`, `{"event":%s}`} {
		delete(o.answers, "sendInviteV2")
		o.answers["sendInviteV1"] = fmt.Sprintf(answer, signed.JSON)
		invited, err = c.Invite(ctx, "b.test", oldInvite, []json.RawMessage{json.RawMessage(`{"type":"x"}`)})
		must(err)
		equal(string(invited.JSON), string(signed.JSON))
	}
	body := strings.TrimPrefix(o.asked["sendInviteV1"], "PUT /_matrix/federation/v1/invite/%21r:b.test/"+strings.ReplaceAll(string(oldInvite.ID), "/", "%2F")+" ")
	parsed, err := event.Parse(oldInvite.Version, []byte(body))
	if err != nil || parsed.ID != oldInvite.ID || !strings.Contains(body, `"unsigned":{"invite_room_state":[{"type":"x"}]}`) {
		t.Errorf("%s: %v", body, err)
	}
	o.answers["exchangeThirdPartyInvite"] = `{}`
	must(c.ThirdPartyInvite(ctx, "b.test", "!r:b.test", json.RawMessage(`{"type":"m.room.member"}`)))
	o.want("exchangeThirdPartyInvite", `PUT /_matrix/federation/v1/exchange_third_party_invite/%21r:b.test {"type":"m.room.member"}`)

	// Events.
	o.answers["backfillRoom"] = `{"pdus":[{"a":1},{"a":2},{"a":3}]}`
	list, err := c.Backfill(ctx, "b.test", "!r:b.test", []matrix.EventID{"$1", "$2"}, 2)
	must(err)
	equal(len(list), 2)
	o.want("backfillRoom", "GET /_matrix/federation/v1/backfill/%21r:b.test?limit=2&v=%241&v=%242")
	o.answers["getMissingPreviousEvents"] = `{"events":[{},{}]}`
	list, err = c.MissingEvents(ctx, "b.test", "!r:b.test", Gap{Latest: []matrix.EventID{"$l"}, Limit: 1, MinDepth: 3})
	must(err)
	equal(len(list), 1)
	o.want("getMissingPreviousEvents", `POST /_matrix/federation/v1/get_missing_events/%21r:b.test {"earliest_events":[],"latest_events":["$l"],"limit":1,"min_depth":3}`)
	o.answers["getEvent"] = `{"pdus":[{"a":1}]}`
	raw, err := c.Event(ctx, "b.test", "$e")
	must(err)
	equal(string(raw), `{"a":1}`)
	var parts []Part
	each := func(p Part, _ json.RawMessage) error { parts = append(parts, p); return nil }
	o.answers["getEventAuth"] = `{"auth_chain":[{}]}`
	must(c.EventAuth(ctx, "b.test", "!r:b.test", "$e", each))
	o.want("getEventAuth", "GET /_matrix/federation/v1/event_auth/%21r:b.test/$e")
	o.answers["getRoomState"] = `{"pdus":[{}],"auth_chain":[{}]}`
	must(c.RoomState(ctx, "b.test", "!r:b.test", "$e", each))
	equal(parts, []Part{AuthChain, State, AuthChain})
	o.want("getRoomState", "GET /_matrix/federation/v1/state/%21r:b.test?event_id=%24e")
	o.answers["getRoomStateIds"] = `{"pdu_ids":["$a"],"auth_chain_ids":["$b"]}`
	ids, auth, err := c.RoomStateIDs(ctx, "b.test", "!r:b.test", "$e")
	must(err)
	equal(append(ids, auth...), []matrix.EventID{"$a", "$b"})
	o.want("getRoomStateIds", "GET /_matrix/federation/v1/state_ids/%21r:b.test?event_id=%24e")
	o.answers["getEventByTimestamp"] = `{"event_id":"$e","origin_server_ts":5}`
	found, ts, err := c.EventByTimestamp(ctx, "b.test", "!r:b.test", 6, true)
	must(err)
	equal([]any{found, ts}, []any{matrix.EventID("$e"), int64(5)})
	o.want("getEventByTimestamp", "GET /_matrix/federation/v1/timestamp_to_event/%21r:b.test?dir=b&ts=6")
	o.answers["sendTransaction"] = `{"pdus":{}}`
	_, err = c.Send(ctx, "b.test", Transaction{ID: "7", OriginServerTS: 8})
	must(err)
	o.want("sendTransaction", `PUT /_matrix/federation/v1/send/7 {"origin":"us.test","origin_server_ts":8,"pdus":[]}`)
	o.answers["complexity"] = `{"v1":0.5}`
	complexity, err := c.Complexity(ctx, "b.test", "!r:b.test")
	must(err)
	equal(complexity, 0.5)
	o.want("complexity", "GET /_matrix/federation/unstable/rooms/%21r:b.test/complexity")
	o.answers["askPolicyServerToSign"] = `{"b.test":{"ed25519:policy_server":"c2ln"}}`
	vetted, err := c.PolicySign(ctx, "b.test", join)
	must(err)
	for keyID := range signing.Signatures(vetted.Signatures(), "b.test") {
		equal(keyID, signing.PolicyKeyID)
	}
	o.want("askPolicyServerToSign", "POST /_matrix/policy/v1/sign "+string(join.JSON))

	// Users, directories, media, servers.
	o.answers["queryProfile"] = `{"displayname":"B","avatar_url":null}`
	profile, err := c.Profile(ctx, "@bob:b.test", "displayname")
	must(err)
	equal(profile, map[string]json.RawMessage{"displayname": json.RawMessage(`"B"`)})
	o.want("queryProfile", "GET /_matrix/federation/v1/query/profile?field=displayname&user_id=%40bob%3Ab.test")
	o.answers["queryRoomDirectory"] = `{"room_id":"!r:b.test","servers":["b.test","no name"]}`
	room, servers, err := c.RoomAlias(ctx, "#r:b.test")
	must(err)
	equal([]any{room, servers}, []any{matrix.RoomID("!r:b.test"), []matrix.ServerName{"b.test"}})
	o.answers["queryInfo"] = `{"x":1}`
	raw, err = c.Query(ctx, "b.test", "org.x", "a", "b c")
	must(err)
	equal(string(raw), `{"x":1}`)
	o.want("queryInfo", "GET /_matrix/federation/v1/query/org.x?a=b+c")
	o.answers["getUserDevices"] = `{"user_id":"@bob:b.test","stream_id":5,"devices":[{"device_id":"D","keys":{"a":1},"device_display_name":"phone"}],"master_key":{}}`
	devices, err := c.UserDevices(ctx, "@bob:b.test")
	must(err)
	equal(*devices, UserDevices{User: "@bob:b.test", StreamID: 5, Devices: []UserDevice{{"D", json.RawMessage(`{"a":1}`), "phone"}}, MasterKey: json.RawMessage(`{}`)})
	o.answers["queryUserEncryptionKeys"] = `{"device_keys":{"@bob:b.test":{"D":{}},"@alice:us.test":{"X":{}}},"master_keys":{"@eve:c.test":{}}}`
	keys, err := c.QueryKeys(ctx, "b.test", map[matrix.UserID][]matrix.DeviceID{"@bob:b.test": nil})
	must(err)
	equal([]int{len(keys.DeviceKeys), len(keys.MasterKeys)}, []int{1, 0})
	o.want("queryUserEncryptionKeys", `POST /_matrix/federation/v1/user/keys/query {"device_keys":{"@bob:b.test":[]}}`)
	o.answers["claimUserEncryptionKeys"] = `{"one_time_keys":{"@bob:b.test":{"D":{"signed_curve25519:A":{"key":"k"}}},"@alice:us.test":{}}}`
	claimed, err := c.ClaimKeys(ctx, "b.test", map[matrix.UserID]map[matrix.DeviceID]string{"@bob:b.test": {"D": "signed_curve25519"}})
	must(err)
	equal(claimed, OneTimeKeys{"@bob:b.test": {"D": {"signed_curve25519:A": json.RawMessage(`{"key":"k"}`)}}})
	o.answers["exchangeOpenIdToken"] = `{"sub":"@bob:b.test"}`
	user, err := c.OpenIDUser(ctx, "b.test", "t&o")
	must(err)
	equal(user, matrix.UserID("@bob:b.test"))
	o.want("exchangeOpenIdToken", "GET /_matrix/federation/v1/openid/userinfo?access_token=t%26o")
	o.answers["onBindThirdPartyIdentifier"] = `{}`
	must(c.Bind(ctx, Binding{"email", "b@b.test", "@bob:b.test", nil}))
	o.want("onBindThirdPartyIdentifier", `PUT /_matrix/federation/v1/3pid/onbind {"address":"b@b.test","invites":[],"medium":"email","mxid":"@bob:b.test"}`)
	rooms := `{"chunk":[{"room_id":"!a:b.test","num_joined_members":3,"room_type":null},{"room_id":5},{"room_id":"x"}],"next_batch":"n","total_room_count_estimate":9}`
	o.answers["getPublicRooms"], o.answers["queryPublicRooms"] = rooms, rooms
	page, err := c.PublicRooms(ctx, "b.test", PublicRoomsQuery{Limit: 10, Since: "s", Network: "irc"})
	must(err)
	if len(page.Rooms) != 1 || page.Rooms[0].Members != 3 || page.NextBatch != "n" || *page.Estimate != 9 {
		t.Errorf("%+v", page)
	}
	o.want("getPublicRooms", "GET /_matrix/federation/v1/publicRooms?limit=10&since=s&third_party_instance_id=irc")
	_, err = c.PublicRooms(ctx, "b.test", PublicRoomsQuery{AllNetworks: true, Filter: json.RawMessage(`{"generic_search_term":"x"}`)})
	must(err)
	o.want("queryPublicRooms", `POST /_matrix/federation/v1/publicRooms {"filter":{"generic_search_term":"x"},"include_all_networks":true}`)
	o.answers["getSpaceHierarchy"] = `{"room":{"room_id":"!r:b.test","children_state":[{}]},"children":[{"room_id":"!a:b.test","allowed_room_ids":["!r:b.test"]},{}],"inaccessible_children":["!x"]}`
	space, err := c.Hierarchy(ctx, "b.test", "!r:b.test", true)
	must(err)
	if len(space.Children) != 1 || len(space.Room.Children) != 1 || len(space.Inaccessible) != 1 || len(space.Children[0].AllowedRooms) != 1 {
		t.Errorf("%+v", space)
	}
	o.want("getSpaceHierarchy", "GET /_matrix/federation/v1/hierarchy/%21r:b.test?suggested_only=true")
	o.answers["getVersion"] = `{"server":{"name":"B","version":"1"}}`
	v, err := c.Version(ctx, "b.test")
	must(err)
	equal(v, Version{"B", "1"})
	o.answers["getServerKey"] = `{"server_name":"b.test"}`
	raw, err = c.ServerKeys(ctx, "b.test")
	must(err)
	equal(string(raw), `{"server_name":"b.test"}`)
	o.answers["bulkPerspectivesKeyQuery"], o.answers["perspectivesKeyQuery"] = `{"server_keys":[{}]}`, `{"server_keys":[{},{}]}`
	list, err = c.NotaryKeys(ctx, "b.test", map[matrix.ServerName]map[string]int64{"x.test": {"ed25519:1": 5}})
	must(err)
	equal(len(list), 1)
	o.want("bulkPerspectivesKeyQuery", `POST /_matrix/key/v2/query {"server_keys":{"x.test":{"ed25519:1":{"minimum_valid_until_ts":5}}}}`)
	list, err = c.NotaryServerKeys(ctx, "b.test", "x.test")
	must(err)
	equal(len(list), 2)
	o.want("perspectivesKeyQuery", "GET /_matrix/key/v2/query/x.test")
	o.answers["getContent"], o.answers["getContentThumbnail"] = multipartFile, multipartFile
	file, err := c.Download(ctx, "b.test", "id", 2*time.Second, 100)
	must(err)
	content, err := io.ReadAll(file)
	must(err)
	must(file.Close())
	equal([]string{string(content), file.Type, file.Disposition}, []string{"PNG", "image/png", "inline; filename=a"})
	o.want("getContent", "GET /_matrix/federation/v1/media/download/id?timeout_ms=2000")
	file, err = c.Thumbnail(ctx, "b.test", "id", ThumbnailSize{32, 16, "crop", true}, time.Second, 100)
	must(err)
	must(file.Close())
	o.want("getContentThumbnail", "GET /_matrix/federation/v1/media/thumbnail/id?animated=true&height=16&method=crop&timeout_ms=1000&width=32")

	routes, _ := specified(t)
	for op, pattern := range routes {
		if o.asked[op] == "" {
			t.Errorf("%s (%s) was not asked", op, pattern)
		}
	}
	if len(routes) < 35 {
		t.Errorf("only %d operations in the list", len(routes))
	}
}

// TestBadAnswers has answers that are not what was asked for.
func TestBadAnswers(t *testing.T) {
	n := newInternet(t)
	n.host("b.test", "5.5.5.1")
	o := newOperations(t)
	n.serve("5.5.5.1:8448", o.mux, "b.test")
	c := n.client(sqlite(t), n.config())
	ctx, join := t.Context(), testJoin(t, c)
	template := func(change string) string {
		fields := map[string]string{
			"type": `"m.room.member"`, "room_id": `"!r:b.test"`, "sender": `"@alice:us.test"`, "state_key": `"@alice:us.test"`, "content": `{"membership":"join"}`,
		}
		if name, value, ok := strings.Cut(change, "="); ok {
			fields[name] = value
		}
		var list []string
		for name, value := range fields {
			list = append(list, fmt.Sprintf("%q:%s", name, value))
		}
		return `{"room_version":"11","event":{` + strings.Join(list, ",") + `}}`
	}
	makeJoin := func() error {
		_, err := c.MakeJoin(ctx, "b.test", "!r:b.test", "@alice:us.test", nil)
		return err
	}
	o.answers["makeJoin"] = template("")
	if err := makeJoin(); err != nil {
		t.Errorf("a good template: %v", err)
	}
	event := func() error { _, err := c.Event(ctx, "b.test", "$e"); return err }
	tests := []struct {
		op, answer string
		call       func() error
	}{
		{"makeJoin", template(`type="m.room.message"`), makeJoin},
		{"makeJoin", template(`room_id="!other:b.test"`), makeJoin},
		{"makeJoin", template(`sender="@bob:us.test"`), makeJoin},
		{"makeJoin", template(`state_key="@bob:us.test"`), makeJoin},
		{"makeJoin", template(`state_key=null`), makeJoin},
		{"makeJoin", template(`content={"membership":"leave"}`), makeJoin},
		{"makeJoin", template(`content=[]`), makeJoin},
		{"makeJoin", template(`content=null`), makeJoin},
		{"makeJoin", template(`prev_events=["x"]`), makeJoin},
		{"makeJoin", template(`prev_events=[["$x",{}]]`), makeJoin},
		{"makeJoin", template(`depth="1"`), makeJoin},
		{"makeJoin", `{"room_version":"11"}`, makeJoin},
		{"makeJoin", `{"room_version":11,"event":{}}`, makeJoin},
		{"getEvent", `{"pdus":[]}`, event},
		{"getEvent", `{"pdus":[{},{}]}`, event},
		{"getEventByTimestamp", `{"event_id":"e"}`, func() error { _, _, err := c.EventByTimestamp(ctx, "b.test", "!r:b.test", 1, false); return err }},
		{"sendInviteV2", `{"event":{}}`, func() error { _, err := c.Invite(ctx, "b.test", join, nil); return err }},
		{"sendInviteV2", fmt.Sprintf(`{"event":%s}`, join.JSON), func() error { _, err := c.Invite(ctx, "b.test", join, nil); return err }},
		{"askPolicyServerToSign", `{}`, func() error { _, err := c.PolicySign(ctx, "b.test", join); return err }},
		{"askPolicyServerToSign", `{"b.test":{"ed25519:1":"x"}}`, func() error { _, err := c.PolicySign(ctx, "b.test", join); return err }},
		{"queryRoomDirectory", `{"room_id":"x"}`, func() error { _, _, err := c.RoomAlias(ctx, "#a:b.test"); return err }},
		{"getUserDevices", `{"user_id":"@eve:b.test"}`, func() error { _, err := c.UserDevices(ctx, "@bob:b.test"); return err }},
		{"exchangeOpenIdToken", `{"sub":"@alice:us.test"}`, func() error { _, err := c.OpenIDUser(ctx, "b.test", "t"); return err }},
		{"exchangeOpenIdToken", `{"sub":"bob"}`, func() error { _, err := c.OpenIDUser(ctx, "b.test", "t"); return err }},
		{"getSpaceHierarchy", `{"room":{"room_id":"!other:b.test"}}`, func() error { _, err := c.Hierarchy(ctx, "b.test", "!r:b.test", false); return err }},
		{"getServerKey", `"` + strings.Repeat("x", maxKeyAnswer) + `"`, func() error { _, err := c.ServerKeys(ctx, "b.test"); return err }},
	}
	for _, tt := range tests {
		o.mu.Lock()
		o.answers[tt.op] = tt.answer
		o.mu.Unlock()
		var bad *AnswerError
		if err := tt.call(); !errors.As(err, &bad) || bad.Server != "b.test" || !strings.HasPrefix(err.Error(), tt.op+": ") {
			t.Errorf("%s %.100s: %v", tt.op, tt.answer, err)
		}
	}
	o.answers["makeJoin"] = strings.Replace(template(""), `"11"`, `"99"`, 1)
	var e *matrix.Error
	if err := makeJoin(); !errors.As(err, &e) || e.Code != matrix.IncompatibleRoomVersion {
		t.Errorf("an unknown room version: %v", err)
	}

	// Room versions 1 and 2, which refer to events by ID and hash.
	o.answers["makeJoin"] = strings.Replace(template(`prev_events=[["$x:b.test",{"sha256":"aGFzaA"}]]`), `"room_version":"11",`, "", 1)
	made, err := c.MakeJoin(ctx, "b.test", "!r:b.test", "@alice:us.test", nil)
	if err != nil || made.Version.ID != "1" || made.Draft.Hashes["$x:b.test"] != "aGFzaA" {
		t.Errorf("%+v, %v", made, err)
	}
}
