package registrations

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

const irc = `# of the specification
id: "IRC Bridge"
url: "http://127.0.0.1:1234/"
as_token: "30c05ae90a248a4188e620216fa72e349803310ec83e2a77b34fe90be6081f46"
hs_token: "312df522183efd404ec1cd22d2ffa4bbc76a8c1ccf541dd692eef281356bb74e"
sender_localpart: "_irc_bot" # Will result in @_irc_bot:example.org
namespaces:
  users:
    - exclusive: true
      regex: "@_irc_bridge_.*"
  aliases:
    - exclusive: false
      regex: "#_irc_bridge_.*"
  rooms: []
`

func TestParse(t *testing.T) {
	r, err := Parse("irc.yaml", []byte(irc))
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != "IRC Bridge" || r.URL != "http://127.0.0.1:1234" || !r.RateLimited || r.ReceiveEphemeral || r.Sender("a.test") != "@_irc_bot:a.test" {
		t.Errorf("wrong values: %+v", r)
	}
	if !r.ExclusiveUser("@_irc_bridge_x:a.test") || r.CoversUser("@x_irc_bridge_x:a.test") || r.CoversRoom("!a:a.test") {
		t.Error("wrong users namespace")
	}
	if !r.CoversAlias("#_irc_bridge_x:a.test") || r.ExclusiveAlias("#_irc_bridge_x:a.test") {
		t.Error("wrong aliases namespace")
	}
}

func TestParseOptions(t *testing.T) {
	more := strings.Replace(irc, `url: "http://127.0.0.1:1234/"`, `url: null`, 1) + `
rate_limited: false
protocols: [irc, "xmpp"]
de.sorunome.msc2409.push_ephemeral: true
receive_ephemeral: false
org.matrix.msc3202: true
io.element.msc4190: true
com.example.more: {a: 1}
`
	r, err := Parse("irc.yaml", []byte(more))
	if err != nil {
		t.Fatal(err)
	}
	if r.URL != "" || r.RateLimited || !r.Serves("xmpp") || r.Serves("whatsapp") || !r.ReceiveEphemeral || !r.MSC3202 || !r.MSC4190 {
		t.Errorf("wrong values: %+v", r)
	}
	if !reflect.DeepEqual(r.Unknown, []string{"com.example.more"}) {
		t.Errorf("unknown keys: %q", r.Unknown)
	}
}

// TestParseOldSender takes a name with capital letters, such as mautrix makes.
func TestParseOldSender(t *testing.T) {
	r, err := Parse("toy.yaml", []byte(strings.Replace(irc, `"_irc_bot"`, "jq02bKHwagdibH7BfvAhJlSVOO44LOgl", 1)))
	if err != nil || r.Sender("a.test") != "@jq02bKHwagdibH7BfvAhJlSVOO44LOgl:a.test" {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestParseMistakes(t *testing.T) {
	with := func(old, new string) string { return strings.Replace(irc, old, new, 1) }
	tests := []struct {
		name, file string
		want       []string // each mistake, in order
	}{
		{"empty", "", []string{"f.yaml: the file is empty"}},
		{"no YAML", "a: [", []string{"f.yaml:1: not YAML: did not find expected node content"}},
		{"no keys", "{}", []string{"id is missing", "url is missing", "as_token is missing", "hs_token is missing", "sender_localpart is missing", "namespaces is missing"}},
		{"list", "- a", []string{"f.yaml:1: must be a list of keys and values, not a list"}},
		{"number as token", with(`"30c05ae90a248a4188e620216fa72e349803310ec83e2a77b34fe90be6081f46"`, "12345"),
			[]string{"f.yaml:4: as_token must be a text, not a number"}},
		{"equal tokens", with("30c05ae90a248a4188e620216fa72e349803310ec83e2a77b34fe90be6081f46", "312df522183efd404ec1cd22d2ffa4bbc76a8c1ccf541dd692eef281356bb74e"),
			[]string{"f.yaml:5: hs_token must differ from as_token"}},
		{"token with a line break", with("30c05ae9", `a\nb`), []string{"f.yaml:4: as_token must be printable ASCII"}},
		{"sender as user ID", with(`"_irc_bot"`, `"@_irc_bot:a.test"`), []string{"f.yaml:6: sender_localpart "}},
		{"address", with("http://127.0.0.1:1234/", "127.0.0.1:1234"), []string{"f.yaml:3: url "}},
		{"no URL", with("url:", "uri:"), []string{"f.yaml: url is missing"}},
		{"bad expression", with("@_irc_bridge_.*", "@_irc_(.*"), []string{"f.yaml:10: namespaces.users[0].regex missing closing )"}},
		{"split brackets", with("@_irc_bridge_.*", "a)|(b"), []string{"f.yaml:10: namespaces.users[0].regex unexpected )"}},
		{"look-ahead", with("@_irc_bridge_.*", "@(?!x).*"), []string{"look-ahead and look-behind are not supported"}},
		{"twice", irc + "id: again\n", []string{"f.yaml:15: id stands here a second time"}},
		{"no exclusive", with("    - exclusive: true\n      regex", "    - regex"), []string{"f.yaml:9: namespaces.users[0].exclusive is missing"}},
		{"all at once", "id: 1\nurl: ftp://x\nas_token: a\nrate_limited: maybe\nnamespaces: {users: [{regex: '['}]}\n", []string{
			"f.yaml: hs_token is missing", "f.yaml: sender_localpart is missing",
			"f.yaml:1: id must be a text", "f.yaml:2: url must begin with http", "f.yaml:4: rate_limited must be true or false",
			"f.yaml:5: namespaces.users[0].exclusive is missing", "f.yaml:5: namespaces.users[0].regex missing closing ]",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(tt.file))
			if err == nil {
				t.Fatal("accepted")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("got %d mistakes, want %d:\n%v", len(lines), len(tt.want), err)
			}
			for i, want := range tt.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("got  %s\nwant %s", lines[i], want)
				}
			}
			var m *Mistake
			if !errors.As(err, &m) || m.File != "f.yaml" {
				t.Error("the error is no Mistake")
			}
		})
	}
}

// Tokens must not appear in messages, which end up in logs.
func TestMistakesShowNoTokens(t *testing.T) {
	_, err := Parse("f.yaml", []byte(strings.Replace(irc, "30c05ae9", "sec ret", 1)))
	if err == nil || strings.Contains(err.Error(), "sec ret") {
		t.Errorf("got %v", err)
	}
}

func TestGenerate(t *testing.T) {
	r, err := Generate(Registration{
		ID: "irc", SenderLocalpart: "ircbot", Users: []Namespace{{Regex: "@irc_.*:a.test", Exclusive: true}},
		Protocols: []string{"irc"}, ReceiveEphemeral: true, MSC3202: true, MSC4190: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.ASToken) != 64 || len(r.HSToken) != 64 || r.ASToken == r.HSToken || !r.ExclusiveUser("@irc_a:a.test") {
		t.Errorf("wrong registration: %+v", r)
	}
	file, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("irc.yaml", file)
	if err != nil {
		t.Fatalf("%v\n%s", err, file)
	}
	if a, b := plain(r), plain(again); !reflect.DeepEqual(a, b) {
		t.Errorf("came back as %+v\nwas          %+v", b, a)
	}
	if _, err := Generate(Registration{Users: []Namespace{{Regex: "("}}}); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want three mistakes, got %v", err)
	}
}

// plain is r without compiled expressions, to be compared.
func plain(r *Registration) Registration {
	p := *r
	for _, list := range []*[]Namespace{&p.Users, &p.Rooms, &p.Aliases} {
		var out []Namespace
		for _, n := range *list {
			out = append(out, Namespace{Regex: n.Regex, Exclusive: n.Exclusive})
		}
		*list = out
	}
	return p
}

func TestNamespaceMatches(t *testing.T) {
	tests := []struct {
		regex, in string
		want      bool
	}{
		{"@irc_", "@irc_bob:a.test", true}, // the end is open
		{"irc_", "@irc_bob:a.test", false}, // the start is not
		{"^@irc_.*:a\\.test$", "@irc_bob:a.test", true},
		{"^@irc_.*:a\\.test$", "@irc_bob:b.test", false},
		{"@a|@b", "@b:a.test", true},
		{"@a|@b", "x@b:a.test", false}, // both sides of | are bound to the start
		{"(?m)^@a", "x\n@a", false},
	}
	for _, tt := range tests {
		n := Namespace{Regex: tt.regex}
		if err := n.compile(); err != nil {
			t.Fatal(err)
		}
		if got := n.Matches(tt.in); got != tt.want {
			t.Errorf("%q on %q: got %v", tt.regex, tt.in, got)
		}
	}
	if (Namespace{Regex: ".*"}).Matches("x") {
		t.Error("a namespace that is not compiled matches")
	}
}

// FuzzParse checks that what is accepted is usable, and comes back the same
// when it is written and read again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{irc, "", "a: &a [*a]", "id: [", "id: x\nnamespaces: &n {users: [*n]}", "- - -\n? :\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse("f", []byte(s))
		if err != nil {
			return
		}
		r.CoversUser("@a:b")
		file, err := r.YAML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("f", file)
		if err != nil {
			t.Fatalf("%v in %s", err, file)
		}
		a, b := plain(r), plain(again)
		a.Unknown = nil
		if len(a.Protocols) == 0 {
			a.Protocols = nil
		}
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%+v came back as %+v", a, b)
		}
	})
}
