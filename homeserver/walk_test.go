package homeserver_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"switchboard/homeserver"
	"switchboard/homeserver/account"
	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/clientapi"
	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/fedapi"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/fedclient/fedclienttest"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
	"switchboard/registrations"
)

// walkFile says what everybody gets at each route who is not the one whose things
// the route is asked for.
const walkFile = "testdata/walk.txt"

var walkUpdate = flag.Bool("update", false, "write testdata/walk.txt anew; every line that changes is to be looked at")

// secret stands in everything that is nobody's business but alice's.
const secret = "s3cr3t"

// TestWalk asks every route of the server for the things of alice: with no token,
// a wrong one, one that was logged out, those of a stranger, a guest and an
// appservice, and for the federation without a signature, with a wrong one and with
// that of a server that is in none of the rooms. The answers are those of walkFile,
// none of them is the server's fault, none shows what is alice's alone, and in the
// end all of that is as it was.
func TestWalk(t *testing.T) {
	databasetest.EachURL(t, func(t *testing.T, database string) {
		w := newWalk(t, database)
		before := w.snapshot()
		got := slices.Concat(w.clients(), w.servers())
		if after := w.snapshot(); after != before {
			t.Errorf("the walk has changed what is alice's\n%s\nwas\n%s", after, before)
		}
		head := "# What those get who ask for the things of another user: see TestWalk. A route of clients: without a token, with one that is wrong or\n" +
			"# was logged out, a stranger, a guest, an appservice for a user of its own, and for one who is not. A route of servers:\n" +
			"# without a signature, with a wrong one, and with that of a server that is in none of the rooms.\n"
		text := head + strings.Join(got, "\n") + "\n"
		if *walkUpdate {
			w.ok(os.WriteFile(walkFile, []byte(text), 0o644))
		}
		raw, err := os.ReadFile(walkFile)
		w.ok(err)
		want := map[string]bool{}
		for line := range strings.Lines(string(raw)) {
			want[strings.TrimSuffix(line, "\n")] = true
		}
		for line := range strings.Lines(text) {
			if line = strings.TrimSuffix(line, "\n"); !want[line] {
				t.Errorf("%s does not have this line: is the answer right, it belongs there\n%s", walkFile, line)
			}
			delete(want, line)
		}
		for line := range want {
			t.Errorf("%s has this line, which is wrong or of no route\n%s", walkFile, line)
		}
	})
}

// walk is a server with alice and her things.
type walk struct {
	*testing.T
	*homeserver.Server
	client, federation http.Handler
	places             map[string]string // of paths, by the names of their parameters
	alice              string            // token
	out                string            // token that was logged out
	as                 string            // token
	eve                matrix.ServerName // another server
	eveKey             signing.Key
	n                  int
}

func (w *walk) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func newWalk(t *testing.T, database string) *walk {
	t.Helper()
	w := &walk{T: t}
	var err error
	w.eveKey, err = signing.Generate()
	w.ok(err)
	w.eve = fedclienttest.Server(t, http.HandlerFunc(w.publish))
	c := homeserver.DefaultConfig()
	c.ServerName, c.DataDir, c.Database.URL = "a.test", t.TempDir(), database
	c.RateLimits.Enabled = false
	c.Registration.Hash, c.Registration.Guests = account.Argon2{Memory: 64, Time: 1, Threads: 1}, true // cheap
	c.Media.Unauthenticated = false
	w.neighbours(&c)
	set := registrations.NewSet("a.test")
	reg, err := registrations.Generate(registrations.Registration{
		ID: "irc", SenderLocalpart: "ircbot", Protocols: []string{"irc"}, Users: []registrations.Namespace{{Regex: "@irc_.*", Exclusive: true}},
	})
	w.ok(err)
	w.ok(set.Replace([]*registrations.Registration{reg}))
	w.as = reg.ASToken
	w.Server, err = homeserver.New(t.Context(), c, set)
	w.ok(err)
	t.Cleanup(func() { w.Close() })
	w.client, w.federation = w.Handlers().Client, w.Handlers().Federation
	for _, name := range []string{"alice", "stranger"} {
		_, err := w.Accounts.CreateUser(t.Context(), account.NewUser{Localpart: name, Password: "correct horse"})
		w.ok(err)
	}
	w.out = w.login("stranger")
	w.must("POST", "/_matrix/client/v3/logout", w.out, "{}")
	w.furnish()
	return w
}

// neighbours lets a server reach other servers on this computer, however busy that
// is, and nobody else.
func (w *walk) neighbours(c *homeserver.Config) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	c.Federation.Asking.RootCA = filepath.Join(w.TempDir(), "ca.pem") // all of httptest have one certificate
	w.ok(os.WriteFile(c.Federation.Asking.RootCA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	c.Federation.Asking.Notaries = []fedclient.NotaryConfig{}
	c.Federation.Asking.Timeout = 2 * time.Minute
	c.Outbound.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	c.Outbound.ConnectTimeout = time.Minute
}

// publish is the other server, which has nothing but a key.
func (w *walk) publish(rw http.ResponseWriter, _ *http.Request) {
	raw, err := json.Marshal(map[string]any{
		"server_name": w.eve, "old_verify_keys": map[string]any{}, "valid_until_ts": time.Now().Add(24 * time.Hour).UnixMilli(),
		"verify_keys": map[string]any{w.eveKey.ID: map[string]string{"key": signing.EncodeBase64(w.eveKey.Public())}},
	})
	if err == nil {
		raw, err = signing.SignJSON(raw, w.eve, w.eveKey)
	}
	if err != nil {
		rw.WriteHeader(http.StatusInternalServerError)
	}
	rw.Write(raw)
}

// login is a new session of somebody.
func (w *walk) login(name string) string {
	w.Helper()
	t, err := w.Accounts.LoginPassword(w.Context(), account.Credentials{User: name, Password: "correct horse"}, account.Login{}, account.Client{})
	w.ok(err)
	return t.Access
}

// ask makes a request of a client.
func (w *walk) ask(method, path, token, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(w.Context(), method, path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	a := httptest.NewRecorder()
	w.client.ServeHTTP(a, r)
	return a
}

// must asks for what has to work, and gives the answer.
func (w *walk) must(method, path, token, body string) map[string]any {
	w.Helper()
	a := w.ask(method, path, token, body)
	var answer map[string]any
	if a.Code != http.StatusOK || json.Unmarshal(a.Body.Bytes(), &answer) != nil {
		w.Fatalf("%s %s: %d %s", method, path, a.Code, a.Body)
	}
	return answer
}

// furnish gives alice one of everything.
func (w *walk) furnish() {
	const v3, user = "/_matrix/client/v3/", "/_matrix/client/v3/user/@alice:a.test/"
	w.alice = w.login("alice")
	do := func(method, path, body string) map[string]any { w.Helper(); return w.must(method, path, w.alice, body) }
	text := func(m map[string]any, key string) string { s, _ := m[key].(string); return s }

	id := text(do("POST", v3+"createRoom", `{"preset":"private_chat","name":"`+secret+`","topic":"`+secret+`","room_alias_name":"tea"}`), "room_id")
	room := v3 + "rooms/" + url.PathEscape(id)
	event := text(do("PUT", room+"/send/m.room.message/1", `{"msgtype":"m.text","body":"`+secret+`"}`), "event_id")
	do("PUT", room+"/state/m.secret/k", `{"x":"`+secret+`"}`)
	delay := text(do("PUT", room+"/delayed_event/m.room.message/2", `{"delay":3600000,"content":{"body":"`+secret+`"}}`), "delay_id")
	device := text(do("GET", v3+"account/whoami", ""), "device_id")
	do("PUT", v3+"devices/"+device, `{"display_name":"`+secret+`"}`)
	do("PUT", user+"account_data/m.secret", `{"x":"`+secret+`"}`)
	do("PUT", user+"rooms/"+url.PathEscape(id)+"/account_data/m.secret", `{"x":"`+secret+`"}`)
	do("PUT", user+"rooms/"+url.PathEscape(id)+"/tags/u."+secret, `{"order":0.5}`)
	filter := text(do("POST", user+"filter", `{"room":{"rooms":["!`+secret+`:a.test"]}}`), "filter_id")
	backup := text(do("POST", v3+"room_keys/version", `{"algorithm":"m.megolm_backup.v1.curve25519-aes-sha2","auth_data":{"public_key":"`+secret+`"}}`), "version")
	session := `{"first_message_index":0,"forwarded_count":0,"is_verified":true,"session_data":{"ciphertext":"` + secret + `"}}`
	do("PUT", v3+"room_keys/keys/"+url.PathEscape(id)+"/session?version="+backup, session)
	do("PUT", v3+"pushrules/global/override/"+secret, `{"actions":["notify"],"conditions":[]}`)
	do("POST", v3+"pushers/set", `{"pushkey":"`+secret+`","kind":"http","app_id":"x","app_display_name":"x","device_display_name":"x","lang":"en","data":{"url":"https://push.invalid/_matrix/push/v1/notify"}}`)
	do("PUT", v3+"profile/@alice:a.test/displayname", `{"displayname":"Alice"}`)
	file := strings.TrimPrefix(text(do("POST", "/_matrix/media/v3/upload", "a file"), "content_uri"), "mxc://a.test/")
	waiting := strings.TrimPrefix(text(do("POST", "/_matrix/media/v1/create", ""), "content_uri"), "mxc://a.test/")
	w.places = map[string]string{
		"roomId": id, "roomIdOrAlias": id, "roomAlias": "#tea:a.test", "eventId": event, "userId": "@alice:a.test", "deviceId": device, "delayId": delay,
		"action": "restart", "version": backup, "sessionId": "session", "filterId": filter, "tag": "u." + secret, "type": "m.secret", "eventType": "m.secret",
		"stateKey": "k", "relType": "m.thread", "kind": "override", "ruleId": secret, "appserviceId": "irc", "networkId": "net", "keyName": "displayname",
		"receiptType": "m.read", "protocol": "irc", "serverName": "a.test", "mediaId": file, "waiting": waiting, "fileName": "x.txt", "keyId": "", "queryType": "none",
	}
}

// filled is a path with alice's things in the place of its parameters.
func (w *walk) filled(operation, path string) string {
	w.n++
	for name, value := range w.places {
		if operation == "uploadContentToMXC" && name == "mediaId" {
			value = w.places["waiting"]
		}
		path = strings.NewReplacer("{"+name+"}", url.PathEscape(value), "{"+name+"...}", url.PathEscape(value)).Replace(path)
	}
	path = strings.NewReplacer("{$}", "", "{txnId}", fmt.Sprint("t", w.n)).Replace(path)
	if strings.Contains(path, "{") {
		w.Errorf("%s: the walk knows nothing to put in the place of its parameters: see furnish", path)
	}
	return path
}

// asked are the queries and bodies without which a route would not come to look who
// asks, by operations or,
// where a route has none, ends of paths.
var asked = map[string]struct{ query, body string }{
	"getEventByTimestamp":                {query: "ts=1&dir=f"},
	"getMutualRooms":                     {query: "user_id=@alice:a.test"},
	"/user/mutual_rooms":                 {query: "user_id=@alice:a.test"},
	"getKeysChanges":                     {query: "from=s0&to=s9"},
	"peekEvents":                         {query: "timeout=0&room_id={roomId}"},
	"sync":                               {query: "timeout=0&full_state=true"},
	"queryUserByID":                      {query: "userid=@alice:a.test"},
	"queryLocationByAlias":               {query: "alias=%23tea:a.test"},
	"getUrlPreview":                      {query: "url=http://127.0.0.1/"},
	"getUrlPreviewAuthed":                {query: "url=http://127.0.0.1/"},
	"getContentThumbnail":                {query: "width=1&height=1"},
	"getContentThumbnailAuthed":          {query: "width=1&height=1"},
	"checkUsernameAvailability":          {query: "username=alice"},
	"registrationTokenValidity":          {query: "token=x"},
	"getRoomKeys":                        {query: "version={version}"},
	"getRoomKeysByRoomId":                {query: "version={version}"},
	"getRoomKeyBySessionId":              {query: "version={version}"},
	"deleteRoomKeys":                     {query: "version={version}"},
	"deleteRoomKeysByRoomId":             {query: "version={version}"},
	"deleteRoomKeyBySessionId":           {query: "version={version}"},
	"putRoomKeys":                        {"version={version}", `{"rooms":{}}`},
	"putRoomKeysByRoomId":                {"version={version}", `{"sessions":{}}`},
	"putRoomKeyBySessionId":              {"version={version}", `{"first_message_index":0,"forwarded_count":0,"is_verified":true,"session_data":{}}`},
	"putRoomKeysVersion":                 {body: `{"algorithm":"m.megolm_backup.v1.curve25519-aes-sha2","auth_data":{},"version":"{version}"}`},
	"setRoomAlias":                       {body: `{"room_id":"{roomId}"}`},
	"deleteDevices":                      {body: `{"devices":["{deviceId}"]}`},
	"inviteUser":                         {body: `{"user_id":"@stranger:a.test"}`},
	"kick":                               {body: `{"user_id":"@alice:a.test"}`},
	"ban":                                {body: `{"user_id":"@alice:a.test"}`},
	"unban":                              {body: `{"user_id":"@alice:a.test"}`},
	"upgradeRoom":                        {body: `{"new_version":"12"}`},
	"postPusher":                         {body: `{"pushkey":"x","kind":null,"app_id":"x"}`},
	"uploadCrossSigningSignatures":       {body: `{"@alice:a.test":{"{deviceId}":{"user_id":"@alice:a.test","device_id":"{deviceId}","signatures":{}}}}`},
	"setTyping":                          {body: `{"typing":true}`},
	"setPresence":                        {body: `{"presence":"online"}`},
	"setProfileField":                    {body: `{"displayname":"Mallory"}`},
	"msc4133/profile/{userId}/{keyName}": {body: `{"displayname":"Mallory"}`},
	"setRoomTag":                         {body: `{"order":0.1}`},
	"setReadMarker":                      {body: `{"m.fully_read":"{eventId}"}`},
	"search":                             {body: `{"search_categories":{"room_events":{"search_term":"` + secret + `","filter":{"rooms":["{roomId}"]}}}}`},
	"searchUserDirectory":                {body: `{"search_term":"alice"}`},
	"queryKeys":                          {body: `{"device_keys":{"@alice:a.test":[]}}`},
	"claimKeys":                          {body: `{"one_time_keys":{"@alice:a.test":{"{deviceId}":"signed_curve25519"}}}`},
	"sendToDevice":                       {body: `{"messages":{"@alice:a.test":{"*":{"x":1}}}}`},
	"setPushRule":                        {body: `{"actions":[],"conditions":[]}`},
	"setPushRuleEnabled":                 {body: `{"enabled":false}`},
	"setPushRuleActions":                 {body: `{"actions":[]}`},
	"setAdminLockUser":                   {body: `{"locked":true}`},
	"setAdminSuspendUser":                {body: `{"suspended":true}`},
	"refresh":                            {body: `{"refresh_token":"x"}`},
	"/delayed_event/{eventType}/{txnId}": {body: `{"delay":3600000,"content":{}}`},
	"/delayed_events/{delayId}":          {body: `{"action":"restart"}`},
	"/v4/sync":                           {body: `{"lists":{"a":{"range":[0,9],"timeline_limit":5,"required_state":{"include":[{"type":"*","state_key":"*"}]}}},"room_subscriptions":{"{roomId}":{"timeline_limit":5,"required_state":{"include":[{"type":"*","state_key":"*"}]}}}}`},
	"simplified_msc3575/sync":            {body: `{"lists":{"a":{"ranges":[[0,9]],"timeline_limit":5,"required_state":[["*","*"]]}},"room_subscriptions":{"{roomId}":{"timeline_limit":5,"required_state":[["*","*"]]}}}`},
	"exchangeOpenIdToken":                {query: "access_token=x"},
	"makeJoin":                           {query: "ver=12"},
	"makeKnock":                          {query: "ver=12"},
	"backfillRoom":                       {query: "limit=10&v={eventId}"},
	"getMissingPreviousEvents":           {body: `{"earliest_events":[],"latest_events":["{eventId}"],"limit":10}`},
	"getRoomState":                       {query: "event_id={eventId}"},
	"getRoomStateIds":                    {query: "event_id={eventId}"},
	"queryProfile":                       {query: "user_id=@alice:a.test"},
	"queryRoomDirectory":                 {query: "room_alias=%23tea:a.test"},
	"sendTransaction":                    {body: `{"origin":"{eve}","origin_server_ts":1,"pdus":[],"edus":[{"edu_type":"m.typing","content":{"room_id":"{roomId}","user_id":"@alice:a.test","typing":true}}]}`},
	"queryUserEncryptionKeys":            {body: `{"device_keys":{"@alice:a.test":[]}}`},
	"claimUserEncryptionKeys":            {body: `{"one_time_keys":{"@alice:a.test":{"{deviceId}":"signed_curve25519"}}}`},
	"bulkPerspectivesKeyQuery":           {body: `{"server_keys":{"a.test":{}}}`},
	"onBindThirdPartyIdentifier":         {body: `{"address":"x@y.test","medium":"email","mxid":"@alice:a.test","invites":[]}`},
}

// request is what a route is asked, with "{}" for a body where nothing else is said.
func (w *walk) request(operation, path string) (target, body string) {
	as, known := asked[operation]
	for end, a := range asked {
		if !known && strings.HasSuffix(path, end) {
			as = a
		}
	}
	in := func(s string, escape func(string) string) string {
		for name, value := range w.places {
			s = strings.ReplaceAll(s, "{"+name+"}", escape(value))
		}
		return strings.ReplaceAll(s, "{eve}", string(w.eve))
	}
	target = w.filled(operation, path)
	if as.query != "" {
		target += "?" + in(as.query, url.QueryEscape)
	}
	if as.body == "" {
		as.body = "{}"
	}
	return target, in(as.body, func(s string) string { return s })
}

// line is a line of walkFile.
func (w *walk) line(operation, method, path string, answers []*httptest.ResponseRecorder) string {
	line := fmt.Sprintf("%-6s %s", method, path)
	for i, a := range answers {
		if a.Code >= 500 {
			w.Errorf("%s: answer %d is %d %s", line, i, a.Code, a.Body)
		}
		if strings.Contains(a.Body.String(), secret) {
			w.Errorf("%s: answer %d shows what is alice's alone: %s", line, i, a.Body)
		}
	}
	codes := make([]string, len(answers))
	for i, a := range answers {
		codes[i] = fmt.Sprint(a.Code)
	}
	return line + " " + strings.Join(codes, " ")
}

// clients walks over the routes of clients.
func (w *walk) clients() []string {
	var lines []string
	for _, rt := range clientapi.Routes() {
		target, body := w.request(rt.Operation, rt.Path)
		ask := func(token, more string) *httptest.ResponseRecorder {
			to := target
			if more != "" {
				to += map[bool]string{true: "&", false: "?"}[strings.Contains(to, "?")] + more
			}
			return w.ask(rt.Method, to, token, body)
		}
		guest, err := w.Accounts.RegisterGuest(w.Context(), "browser", account.Client{})
		w.ok(err)
		puppet, err := w.Accounts.CreateUser(w.Context(), account.NewUser{Localpart: fmt.Sprint("irc_", w.n)})
		w.ok(err)
		lines = append(lines, w.line(rt.Operation, rt.Method, rt.Path, []*httptest.ResponseRecorder{
			ask("", ""), ask("syt_wrong", ""), ask(w.out, ""), ask(w.login("stranger"), ""), ask(guest.Access, ""), ask(w.as, "user_id="+string(puppet)), ask(w.as, "user_id=@alice:a.test"),
		}))
	}
	return lines
}

// servers walks over the routes of the federation.
func (w *walk) servers() []string {
	other, err := signing.Generate()
	w.ok(err)
	wrong := signing.Key{ID: w.eveKey.ID, Private: other.Private}
	var lines []string
	for _, rt := range fedapi.Routes() {
		target, body := w.request(rt.Operation, rt.Path)
		if strings.Contains(rt.Path, "{userId}") && strings.Contains(rt.Path, "make_") {
			target = strings.ReplaceAll(target, url.PathEscape("@alice:a.test"), "@eve:"+string(w.eve))
		}
		ask := func(key *signing.Key) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(w.Context(), rt.Method, target, strings.NewReader(body))
			if rt.Method == "GET" {
				r.Body, r.ContentLength = http.NoBody, 0
			}
			if key != nil {
				r.Header.Set("Authorization", w.signature(*key, rt.Method, target, body))
			}
			a := httptest.NewRecorder()
			w.federation.ServeHTTP(a, r)
			return a
		}
		lines = append(lines, w.line(rt.Operation, rt.Method, rt.Path, []*httptest.ResponseRecorder{ask(nil), ask(&wrong), ask(&w.eveKey)}))
	}
	return lines
}

// signature is the header of a request of the other server. What cannot be signed
// gets the signature of another body.
func (w *walk) signature(key signing.Key, method, uri, body string) string {
	object := map[string]any{"method": method, "uri": uri, "origin": w.eve, "destination": "a.test"}
	if method != "GET" {
		canonical, err := canonjson.Canonical([]byte(body))
		if err != nil {
			canonical = []byte("{}")
		}
		object["content"] = json.RawMessage(canonical)
	}
	raw, err := json.Marshal(object)
	w.ok(err)
	signed, err := signing.SignJSON(raw, w.eve, key)
	w.ok(err)
	var s struct {
		Signatures map[matrix.ServerName]map[string]string
	}
	w.ok(json.Unmarshal(signed, &s))
	return fmt.Sprintf(`X-Matrix origin="%s",destination="a.test",key="%s",sig="%s"`, w.eve, key.ID, s.Signatures[w.eve][key.ID])
}

// snapshot is all that is alice's, but for what time changes.
func (w *walk) snapshot() string {
	const v3, user = "/_matrix/client/v3/", "/_matrix/client/v3/user/@alice:a.test/"
	room := "rooms/" + url.PathEscape(w.places["roomId"])
	var b bytes.Buffer
	for _, path := range []string{
		v3 + room + "/state", v3 + room + "/messages?dir=b&limit=100", v3 + room + "/aliases", v3 + "directory/list/room/" + url.PathEscape(w.places["roomId"]),
		user + "account_data/m.secret", user + room + "/account_data/m.secret", user + room + "/tags", user + "filter/" + w.places["filterId"],
		v3 + "room_keys/keys?version=" + w.places["version"], v3 + "room_keys/version", v3 + "pushrules/", v3 + "pushers", v3 + "profile/@alice:a.test",
		v3 + "account/3pid", v3 + "joined_rooms", v3 + "devices/" + w.places["deviceId"], v3 + "presence/@alice:a.test/status",
	} {
		a := w.ask("GET", path, w.alice, "")
		var answer any
		if a.Code != http.StatusOK || json.Unmarshal(a.Body.Bytes(), &answer) != nil {
			w.Fatalf("%s: %d %s", path, a.Code, a.Body)
		}
		raw, err := json.Marshal(steady(answer))
		w.ok(err)
		fmt.Fprintf(&b, "%s %s\n", path, raw)
	}
	return b.String()
}

// steady is a JSON value without what time changes.
func steady(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range []string{"age", "last_seen_ts", "last_active_ago", "currently_active"} {
			delete(v, key)
		}
		for _, x := range v {
			steady(x)
		}
	case []any:
		for _, x := range v {
			steady(x)
		}
	}
	return v
}
