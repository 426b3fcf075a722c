package hostile

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"switchboard/cmd/dev/instance"
	"switchboard/homeserver/clientapi"
)

// forge makes requests.
type forge struct {
	*rand.Rand
	user        *instance.User
	room, event string
	routes      []clientapi.Route
}

// tokens is the kind of request in which only the access token is wrong.
const tokens = "token"

// kinds are the ways to be malformed, and how many requests are made of each.
var kinds = []struct {
	name string
	n    int
	make func(*forge) request
}{
	{"not JSON", 200, (*forge).notJSON},
	{"not an object", 100, (*forge).notObject},
	{"deep", 60, (*forge).deep},
	{"oversized", 6, (*forge).oversized},
	{"broken body", 100, (*forge).brokenBody},
	{"wrong type", 120, (*forge).wrongType},
	{"bad event", 60, (*forge).badEvent},
	{"identifier", 300, (*forge).badIdentifier},
	{"query", 120, (*forge).badQuery},
	{tokens, 120, (*forge).badToken},
	{"no route", 100, (*forge).noRoute},
	{"no HTTP", 100, (*forge).noHTTP},
	{"mutated", 600, (*forge).mutated},
}

// requests makes all of them, in an order that mixes the kinds.
func (f *forge) requests() []request {
	var all []request
	for _, k := range kinds {
		for range k.n {
			r := k.make(f)
			r.kind = k.name
			all = append(all, r)
		}
	}
	f.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func pick[T any](f *forge, list []T) T { return list[f.IntN(len(list))] }

// bodiless are the operations with POST or PUT that take no JSON.
var bodiless = []string{
	"createContent", "forgetRoom", "logout", "logout_all", "uploadContent", "uploadContentToMXC",
}

// fatal are the operations that would end the login with which everything here
// is done, or close its room. A mutation of them may come out as a good request.
var fatal = []string{
	"logout", "logout_all", "deactivateAccount", "changePassword", "deleteDevice", "deleteDevices", "leaveRoom", "forgetRoom", "upgradeRoom",
}

// withBody picks an operation that needs JSON.
func (f *forge) withBody() clientapi.Route {
	for {
		rt := pick(f, f.routes)
		if (rt.Method == "POST" || rt.Method == "PUT") && rt.Operation != "" && !slices.Contains(bodiless, rt.Operation) {
			return rt
		}
	}
}

var parameter = regexp.MustCompile(`\{([A-Za-z]+)(\.\.\.|\$)?\}`)

// good are values for the parameters of paths. What is not in it gets a word.
func (f *forge) good(name string) string {
	switch name {
	case "userId":
		return f.user.ID
	case "roomId", "roomIdOrAlias":
		return f.room
	case "eventId":
		return f.event
	case "roomAlias":
		return "#hostile:localhost"
	case "deviceId":
		return f.user.Device
	case "eventType", "type":
		return "m.room.message"
	case "receiptType":
		return "m.read"
	case "kind":
		return "override"
	case "serverName":
		return "localhost"
	case "txnId":
		return f.user.Transaction()
	}
	return "word"
}

// near makes a request for rt that is good but for its body.
func (f *forge) near(rt clientapi.Route, body []byte) request {
	return request{
		method: rt.Method, target: f.path(rt, nil), body: body, malformed: true,
		header: []string{"Authorization: Bearer " + f.user.Token, "Content-Type: application/json"},
	}
}

// path fills the parameters of rt's path; instead says what to take for some
// of them, already escaped.
func (f *forge) path(rt clientapi.Route, instead map[string]string) string {
	return parameter.ReplaceAllStringFunc(rt.Path, func(p string) string {
		name := parameter.FindStringSubmatch(p)[1]
		if name == "" {
			return ""
		}
		if bad, ok := instead[name]; ok {
			return bad
		}
		return url.PathEscape(f.good(name))
	})
}

func (f *forge) notJSON() request {
	body := pick(f, []string{
		"{", "}", "{}}", "{]", `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`, `{'a':1}`, "nul", "undefined", "\x00", "{\x00}",
		"\xff\xfe{\x00}\x00", "\xef\xbb\xbf{}", `{"a":"` + "\xff" + `"}`, `{"a":"` + "\n" + `"}`, `{"a":"\x"}`, `{"a":"\u12"}`,
		`{"a":01}`, `{"a":+1}`, `{"a":.5}`, `{"a":1.}`, `{"a":1e}`, `{"a":NaN}`, `{"a":-}`, `{"a":0x10}`, "user=a&password=b",
		"<xml/>", `{"a":1} {"b":2}`, `{"a":1}x`, `// comment`, `{"a":"`, `{"a":[1,2}`, `{"` + strings.Repeat("a", 5000),
	})
	return f.near(f.withBody(), []byte(body))
}

func (f *forge) notObject() request {
	body := pick(f, []string{
		"[]", "[{}]", `"text"`, "0", "-1", "1.5", "1e999", "true", "false", `[[[]]]`, `["a",{"b":1}]`, strings.Repeat("9", 4000),
	})
	return f.near(f.withBody(), []byte(body))
}

// deep nests deeper than any honest client.
func (f *forge) deep() request {
	n := 20_000 + f.IntN(80_000)
	open, closing := "[", "]"
	if f.IntN(2) == 0 {
		open, closing = `{"a":`, "}"
	}
	body := `{"a":` + strings.Repeat(open, n)
	if f.IntN(2) == 0 {
		body += "1" + strings.Repeat(closing, n) + "}"
	}
	return f.near(f.withBody(), []byte(body))
}

func (f *forge) oversized() request {
	return f.near(f.withBody(), fmt.Appendf(nil, `{"a":%q}`, strings.Repeat("x", 16<<20+f.IntN(1<<20))))
}

// brokenBody promises a body and sends another, or not all of it.
func (f *forge) brokenBody() request {
	r := f.near(f.withBody(), []byte(`{"a":"b"`))
	switch f.IntN(3) {
	case 0:
		r.header = append(r.header, fmt.Sprintf("Content-Length: %d", 9+f.IntN(1000)))
		r.cut = true
	case 1:
		r.header = append(r.header, "Transfer-Encoding: chunked")
		r.body = []byte(pick(f, []string{"zz\r\n{}\r\n0\r\n\r\n", "5\r\n{}", "-1\r\n{}\r\n", "2\r\n{}x\r\n0\r\n\r\n", "ffffffffffffffffff\r\n{}\r\n"}))
		r.cut = true
	case 2:
		r.header = append(r.header, "Content-Encoding: gzip")
		r.body = []byte("\x1f\x8b\x08\x00\x00\x00")
	}
	return r
}

// shapes are bodies whose fields have the wrong type, by operation.
var shapes = map[string][]string{
	"createRoom": {
		`{"preset":5}`, `{"invite":"@a:b"}`, `{"invite":[5]}`, `{"invite":["alice"]}`, `{"name":[]}`, `{"topic":{}}`, `{"initial_state":{}}`,
		`{"initial_state":[5]}`, `{"room_version":10}`, `{"room_version":"no such"}`, `{"creation_content":[]}`, `{"room_alias_name":7}`,
		`{"power_level_content_override":"all"}`, `{"preset":"no such"}`, `{"visibility":1}`, `{"is_direct":"yes"}`,
		`{"power_level_content_override":{"users":{"alice":100}}}`,
	},
	"login":            {`{"type":7}`, `{"type":"no such"}`, `{"type":"m.login.password","identifier":"alice","password":"x"}`, `{"type":"m.login.password","identifier":{"type":"m.id.user","user":5},"password":"x"}`, `{"type":"m.login.password","user":"mallory","password":["x"]}`, `{}`},
	"register":         {`{"username":5}`, `{"username":"UPPER CASE"}`, `{"password":{}}`, `{"auth":"dummy"}`, `{"auth":{"type":7}}`, `{"device_id":[]}`, `{"inhibit_login":"no"}`},
	"inviteUser":       {`{"user_id":5}`, `{"user_id":"alice"}`, `{"user_id":null}`, `{}`, `{"user_id":"@a:b","reason":{}}`},
	"kick":             {`{"user_id":5}`, `{"user_id":"alice"}`, `{}`},
	"ban":              {`{"user_id":[]}`, `{"user_id":""}`, `{}`},
	"setTyping":        {`{"typing":"yes"}`, `{"typing":true,"timeout":"long"}`, `{"typing":1}`},
	"uploadKeys":       {`{"device_keys":[]}`, `{"one_time_keys":"x"}`, `{"one_time_keys":{"no colon":5}}`, `{"device_keys":{"user_id":5}}`},
	"queryKeys":        {`{"device_keys":[]}`, `{"device_keys":{"@a:b":"x"}}`, `{"device_keys":"x"}`},
	"claimKeys":        {`{"one_time_keys":[]}`, `{"one_time_keys":{"@a:b":[]}}`, `{"one_time_keys":{"@a:b":{"D":5}}}`},
	"sendToDevice":     {`{"messages":[]}`, `{"messages":{"@a:b":[]}}`, `{"messages":{"@a:b":{"D":5}}}`},
	"defineFilter":     {`{"room":[]}`, `{"room":{"timeline":{"limit":"ten"}}}`, `{"event_fields":"x"}`, `{"room":{"rooms":5}}`},
	"setReadMarker":    {`{"m.fully_read":5}`, `{"m.read":[]}`},
	"setDisplayName":   {`{"displayname":5}`, `{"displayname":{}}`},
	"setPushRule":      {`{"actions":"notify"}`, `{"actions":[],"conditions":"x"}`, `{}`},
	"setPusher":        {`{"kind":5}`, `{"kind":"http","app_id":[]}`, `{}`},
	"setRoomAlias":     {`{"room_id":5}`, `{"room_id":"kitchen"}`, `{}`},
	"updateDevice":     {`{"display_name":5}`, `{"display_name":[]}`},
	"setPresence":      {`{"presence":5}`, `{"presence":"no such"}`, `{}`},
	"upgradeRoom":      {`{"new_version":5}`, `{"new_version":"no such"}`, `{}`},
	"queryPublicRooms": {`{"limit":"ten"}`, `{"filter":[]}`, `{"filter":{"generic_search_term":5}}`},
}

// wrongType sends fields of another type than the operation's.
func (f *forge) wrongType() request {
	for {
		rt := pick(f, f.routes)
		if bodies := shapes[rt.Operation]; bodies != nil {
			return f.near(rt, []byte(pick(f, bodies)))
		}
	}
}

// badEvent sends events that no room can hold.
func (f *forge) badEvent() request {
	contents := []string{
		`{"body":"a","body":"b"}`, `{"n":1.5}`, `{"n":1e400}`, `{"n":9007199254740993}`, `{"n":-9007199254740993}`, `{"a":` +
			strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, `{"body":"` + strings.Repeat("x", 70_000) + `"}`,
		`{"body":"` + "\xc3\x28" + `"}`, `{"` + strings.Repeat(`a":{"`, 300) + `b":1` + strings.Repeat("}", 301),
	}
	room := "/_matrix/client/v3/rooms/" + url.PathEscape(f.room)
	targets := []string{
		room + "/send/m.room.message/" + f.user.Transaction(), room + "/state/org.example.hostile/key", room + "/state/m.room.topic/",
	}
	r := f.near(clientapi.Route{Method: "PUT"}, []byte(pick(f, contents)))
	r.target = pick(f, targets)
	if f.IntN(4) == 0 { // or the content is good and the place is not
		r.body = []byte(pick(f, []string{`{"membership":5}`, `{"membership":"no such"}`, `{"users":{"@a:b":"x"}}`, `{"users":[]}`, `{}`}))
		r.target = room + pick(f, []string{
			"/state/m.room.create/", "/state/m.room.member/alice", "/state/m.room.member/@someone.else:localhost",
			"/state/m.room.power_levels/key", "/send/" + strings.Repeat("t", 300) + "/1", "/state/t/" + strings.Repeat("k", 300),
			"/send/m.room.create/" + f.user.Transaction(), "/state/org.example.hostile/@someone.else:localhost",
		})
		if strings.HasSuffix(r.target, "/key") {
			r.body = []byte(`{"users":[]}`)
		}
	}
	return r
}

// identifiers are none, already escaped.
var identifiers = []string{
	"!", "@", "%23", "$", ":", "!:", "@:", "@:localhost", "!room", "@user", "room:localhost", "%20", "%00", "%FF", "%C0%AF", "%0A", "%0D%0A",
	"..%2F..%2Fetc%2Fpasswd", "%2e%2e", "%2E", "!a%00b:localhost", "@a%00b:localhost", "@a%FFb:localhost", "!%F0%9F%92%A9:%F0%9F%92%A9", "@a:local%20host",
	"@a:localhost:99999999", "@a:[::1", "!a:localhost%2F..", "%252e%252e", "%7B%7D", "null", "undefined", "NaN", "-1", "0", "%E2%80%AE", "%ED%A0%80",
	"'%20OR%201=1--", "!x:localhost'--", "%3Cscript%3E", "%24%7Bjndi:ldap:%2F%2Fx%7D", "*", "%25", "%25%73", "$%24:localhost", "@A%20B:localhost",
}

// identified are the parameters that must be identifiers.
var identified = []string{"roomId", "userId", "eventId", "roomAlias", "roomIdOrAlias"}

// tolerant are the operations on a user's own notes about a room. They take
// every room ID, known or not, and a room ID is opaque behind its "!".
var tolerant = []string{"getRoomTags", "setRoomTag", "deleteRoomTag", "setAccountDataPerRoom", "getAccountDataPerRoom"}

// badIdentifier puts something else where an identifier belongs.
func (f *forge) badIdentifier() request {
	for {
		rt := pick(f, f.routes)
		var names []string
		for _, p := range parameter.FindAllStringSubmatch(rt.Path, -1) {
			if slices.Contains(identified, p[1]) {
				names = append(names, p[1])
			}
		}
		if len(names) == 0 || rt.Operation == "" {
			continue
		}
		id := pick(f, identifiers)
		switch f.IntN(8) {
		case 0:
			id = "!" + strings.Repeat("x", 300+f.IntN(5000)) + ":localhost"
		case 1:
			id = strings.Repeat(pick(f, identifiers), 1+f.IntN(50))
		}
		if strings.HasPrefix(id, "!") && slices.Contains(tolerant, rt.Operation) {
			continue
		}
		var body []byte
		if rt.Method == "POST" || rt.Method == "PUT" {
			body = []byte("{}")
		}
		r := f.near(rt, body)
		r.target = f.path(rt, map[string]string{pick(f, names): id})
		return r
	}
}

// queries are wrong whatever else is in the request; ROOM and EVENT stand for
// good identifiers.
var queries = []string{
	"/_matrix/client/v3/sync?since=garbage", "/_matrix/client/v3/sync?since=%00", "/_matrix/client/v3/sync?timeout=soon", "/_matrix/client/v3/sync?timeout=-1",
	"/_matrix/client/v3/sync?filter=%7B", "/_matrix/client/v3/sync?filter=no+such", "/_matrix/client/v3/sync?filter=%7B%22room%22%3A5%7D",
	"/_matrix/client/v3/sync?full_state=maybe", "/_matrix/client/v3/sync?set_presence=asleep", "/_matrix/client/v3/sync?since=" + strings.Repeat("9", 400),
	"/_matrix/client/v3/rooms/ROOM/messages?dir=x", "/_matrix/client/v3/rooms/ROOM/messages?dir=b&from=garbage",
	"/_matrix/client/v3/rooms/ROOM/messages?dir=b&limit=ten", "/_matrix/client/v3/rooms/ROOM/messages?dir=b&limit=-5",
	"/_matrix/client/v3/rooms/ROOM/messages?dir=b&limit=1e3", "/_matrix/client/v3/rooms/ROOM/messages?dir=b&filter=%7B%22limit%22",
	"/_matrix/client/v3/rooms/ROOM/context/EVENT?limit=many", "/_matrix/client/v3/rooms/ROOM/context/EVENT?filter=%5B%5D",
	"/_matrix/client/v3/rooms/ROOM/members?at=garbage",
	"/_matrix/client/v3/publicRooms?limit=x", "/_matrix/client/v3/publicRooms?since=garbage",
	"/_matrix/client/v3/notifications?limit=x", "/_matrix/client/v1/rooms/ROOM/hierarchy?limit=x", "/_matrix/client/v1/rooms/ROOM/hierarchy?from=garbage",
	"/_matrix/client/v1/rooms/ROOM/relations/EVENT?dir=x", "/_matrix/client/v1/rooms/ROOM/relations/EVENT?limit=x",
	"/_matrix/client/v1/rooms/ROOM/threads?include=some", "/_matrix/client/v1/rooms/ROOM/timestamp_to_event?ts=now&dir=f",
	"/_matrix/client/v1/rooms/ROOM/timestamp_to_event?ts=1&dir=x", "/_matrix/client/v3/keys/changes?from=garbage&to=garbage", "/_matrix/client/v3/keys/changes",
	"/_matrix/client/v1/media/thumbnail/localhost/word?width=x&height=1", "/_matrix/client/v1/media/thumbnail/localhost/word?width=-1&height=-1",
	"/_matrix/client/v1/media/thumbnail/localhost/word", "/_matrix/client/v1/media/download/localhost/..%2F..%2Fetc%2Fpasswd",
	"/_matrix/client/v1/media/download/localhost/word?timeout_ms=soon", "/_matrix/client/v1/media/preview_url", "/_matrix/client/v1/media/preview_url?url=%00",
	"/_matrix/client/v1/media/preview_url?url=file:%2F%2F%2Fetc%2Fpasswd", "/_matrix/client/v1/media/preview_url?url=http:%2F%2F127.0.0.1%2F",
	"/_matrix/client/v3/register/available", "/_matrix/client/v3/register/available?username=A%20B",
}

// badQuery asks for what is not a number, a token, a filter.
func (f *forge) badQuery() request {
	r := f.near(clientapi.Route{Method: "GET"}, nil)
	r.target = strings.NewReplacer("ROOM", url.PathEscape(f.room), "EVENT", url.PathEscape(f.event)).Replace(pick(f, queries))
	return r
}

// open are some of the operations that need a login.
func (f *forge) closed() clientapi.Route {
	needs := []string{
		"sync", "createRoom", "getTokenOwner", "joinRoomById", "sendMessage", "setRoomStateWithKey", "getRoomEvents", "getDevices", "uploadKeys",
		"getPushRules", "getCapabilities", "getJoinedRooms", "uploadContent", "getConfigAuthed", "setAccountData", "defineFilter",
	}
	for {
		if rt := pick(f, f.routes); slices.Contains(needs, rt.Operation) {
			return rt
		}
	}
}

// badToken is a good request of somebody who is not logged in.
func (f *forge) badToken() request {
	rt := f.closed()
	r := f.near(rt, nil)
	if rt.Method != "GET" {
		r.body = []byte("{}")
	}
	junk := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('!' + f.IntN('~'-'!'))
		}
		return string(b)
	}
	r.header = []string{pick(f, []string{
		"X-Nothing: here", "Authorization:", "Authorization: Bearer", "Authorization: Bearer ", "Authorization: Basic bWFsbG9yeTp4", "Authorization: " + f.user.Token,
		"Authorization: Bearer " + junk(30), "Authorization: Bearer " + junk(8000), "Authorization: Bearer \xff\xfe", "Authorization: Bearer " + f.user.Token + "x",
		"Authorization: Bearer " + strings.ToUpper(f.user.Token), "Authorization: X-Matrix origin=localhost,key=\"ed25519:1\",sig=\"x\"",
		"Authorization: Bearer ' OR 1=1 --", "Authorization: Bearer " + f.user.Token[:len(f.user.Token)-1],
	})}
	if f.IntN(4) == 0 {
		r.header = nil
		r.target += "?access_token=" + url.QueryEscape(junk(20))
	}
	return r
}

// noRoute asks for paths and methods that do not exist.
func (f *forge) noRoute() request {
	rt := pick(f, f.routes)
	r := f.near(rt, nil)
	switch f.IntN(4) {
	case 0:
		r.method = pick(f, []string{"PATCH", "BREW", "TRACE", "PROPFIND", "X"})
	case 1:
		r.target += pick(f, []string{"/no/such/thing/at/all/here", "//", "/%00/x/y/z/1/2/3"})
	case 2:
		r.target = pick(f, []string{"//", "/_matrix", "/_matrix/", "/_matrix/client", "/_matrix/client/v99/sync"}) + pick(f, []string{"", "/..", "/x", "//y", "?a=b"})
	case 3:
		r.target = strings.Replace(r.target, "/_matrix/client/", pick(f, []string{"/_matrix/client//", "/_matrix/../_matrix/client/", "/_matrix/client/./", "/_Matrix/client/"}), 1)
		if !strings.HasPrefix(rt.Path, "/_matrix/client/") {
			r.target = "/_matrix//client"
		}
	}
	return r
}

// noHTTP is refused before any of our code sees it.
func (f *forge) noHTTP() request {
	r := f.near(pick(f, f.routes), nil)
	r.wire = true
	switch f.IntN(5) {
	case 0:
		r.target = strings.Replace(r.target, "/_matrix/", "/_matrix/"+pick(f, []string{"%", "%z", "%zz", "%2", "%%30", "%u0041", "a b", "\x7f", "\x01"}), 1)
	case 1:
		r.header = append(r.header, pick(f, []string{"no colon", ": no name", "Bad Name: x", "X: \x00", "X: a\rb", "Content-Length: -5", "Content-Length: x"}))
	case 2:
		r.header = append(r.header, "Content-Length: 5", "Content-Length: 6")
		r.body = []byte("{}")
	case 3:
		r.header = append(r.header, "X-Long: "+strings.Repeat("x", 2<<20))
	case 4:
		r.method = pick(f, []string{"G\x00T", "GET /", "(", "{\"a\":1}", ""})
	}
	return r
}

// mutated changes some bytes of a good request's body, query or path. What
// comes out may be good, so all that counts is that no answer is 5xx.
func (f *forge) mutated() request {
	rt := pick(f, f.routes)
	for slices.Contains(fatal, rt.Operation) {
		rt = pick(f, f.routes)
	}
	body := `{"user_id":"@alice:localhost","reason":"x","type":"m.room.message","membership":"join","limit":5,"since":"1"}`
	if bodies := shapes[rt.Operation]; bodies != nil {
		body = pick(f, bodies)
	}
	r := f.near(rt, nil)
	r.malformed = false
	if rt.Method != "GET" {
		r.body = f.mutate([]byte(body))
	}
	if f.IntN(2) == 0 {
		r.target = f.path(rt, map[string]string{pick(f, identified): url.PathEscape(string(f.mutate([]byte(f.room))))})
	}
	if f.IntN(2) == 0 {
		r.target += "?" + url.QueryEscape(pick(f, []string{"limit", "from", "since", "filter", "dir", "user_id", "ts"})) + "=" + url.QueryEscape(string(f.mutate([]byte("12345"))))
	}
	if f.IntN(8) == 0 {
		r.header = append(r.header, pick(f, []string{"Range: bytes=9-1", "If-None-Match: *", "X-Forwarded-For: \xff, 999.1.1.1", "Content-Type: ;;;", "Accept: \xfe", "Origin: null"}))
	}
	return r
}

// mutate changes, inserts, removes and doubles bytes.
func (f *forge) mutate(b []byte) []byte {
	for range 1 + f.IntN(4) {
		i := f.IntN(len(b) + 1)
		switch f.IntN(4) {
		case 0:
			b = slices.Insert(b, i, byte(f.IntN(256)))
		case 1:
			b = slices.Insert(b, i, []byte(pick(f, []string{"\x00", "\xff", `"`, "{", "[", "null", "-1", "1e99", "\\u0000", "\\ud800", "💥", "9223372036854775808"}))...)
		case 2:
			b = slices.Delete(b, i, min(len(b), i+1+f.IntN(8)))
		case 3:
			b = append(bytes.Clone(b[:i]), b...)
		}
	}
	return b
}
