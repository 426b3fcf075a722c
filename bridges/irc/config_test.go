package irc

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"switchboard/bridges/bridge"
	"switchboard/bridges/irc/client"
)

func TestConfigCheck(t *testing.T) {
	good := Config{Config: bridge.Config{Enabled: true}, Networks: []Network{
		{ID: "libera", Address: "irc.libera.chat", Channels: []string{"#go-*"}},
		{ID: "local-1", Address: "127.0.0.1:6667", TLS: "off", Relay: &Relay{Nick: "matrix"}},
	}}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	bad := Config{Config: bridge.Config{Enabled: true, Bot: "X"}, Networks: []Network{
		{ID: "Libera", TLS: "yes", CAFile: "/nowhere", Channels: []string{"[#"}, Burst: -1},
		{ID: "a", Address: "x", Relay: &Relay{Nick: "1", Account: "a"}},
		{ID: "a", Address: "x"},
	}}
	err := bad.Check()
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for _, key := range []string{
		"bridges.irc.bot:", "networks[0].id:", "networks[0].address:", "networks[0].tls:", "networks[0].ca_file:", "networks[0].channels:",
		"networks[0].burst,", "networks[1].relay.nick:", "networks[1].relay.account,", "networks[2].id:",
	} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("%s is not named", key)
		}
	}
	if err := (Config{Config: bridge.Config{Enabled: true}}).Check(); err == nil {
		t.Error("a bridge without networks is enabled")
	}
}

func TestNetworkDefaults(t *testing.T) {
	for in, want := range map[string]string{"irc.a.test": "irc.a.test:6697", "irc.a.test:7000": "irc.a.test:7000", "::1": "[::1]:6697", "[::1]:1": "[::1]:1"} {
		n := Network{ID: "a", Address: in}.complete()
		if n.Address != want || n.Name != "a" || n.TLS != "verify" || n.Interval != time.Second {
			t.Errorf("%q became %+v", in, n)
		}
	}
	if n := (Network{Address: "a.test", TLS: "off"}).complete(); n.Address != "a.test:6667" {
		t.Errorf("plain text goes to %s", n.Address)
	}
	n := Network{ID: "a"}.complete()
	for in, want := range map[string]string{"alice": "alice[m]", "al.ice=x": "al_ice_x[m]", "1alice": "m_1alice[m]"} {
		if got := n.proposal(in); got != want {
			t.Errorf("%q gets the nick %q, want %q", in, got, want)
		}
	}
	limited := Network{Channels: []string{"#go-*", "#Rust"}}
	for name, want := range map[string]bool{"#go-nuts": true, "#GO-nuts": true, "#rust": true, "#c": false} {
		if limited.allows(name) != want {
			t.Errorf("%s allowed: %v", name, !want)
		}
	}
}

func TestCheckNick(t *testing.T) {
	for _, good := range []string{"alice", "[m]", "a-b_c|d", "Ä", "x1"} {
		if err := checkNick(good, 0); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "1a", "-a", "a b", "a\r\nQUIT", "a!b", "a@b", "#a", "a,b", "a\x00", ":a", strings.Repeat("x", 65)} {
		if checkNick(bad, 0) == nil {
			t.Errorf("%q passed", bad)
		}
	}
	if checkNick("alice", 4) == nil {
		t.Error("a nick longer than the network allows passed")
	}
}

func TestCorrection(t *testing.T) {
	tests := []struct{ old, new, want string }{
		{"I liek Go", "I like Go", "s/liek/like/"},
		{"one two three", "one three", "s/two//"},
		{"one three", "one two three", "s/one/one two/"},
		{"hello", "hullo", "s/hello/hullo/"},
		{"a b", "c d", "* c d"},
		{"", "new", "* new"},
		{"the the cat", "the then cat", "* the then cat"},
		{"see a/b", "see a/c", "* see a/c"},
		{"1 2 3 4 5 6 7 8", "1 x y z u v w 8", "* 1 x y z u v w 8"},
	}
	for _, tt := range tests {
		if got := correction(tt.old, tt.new, tt.new); got != tt.want {
			t.Errorf("%q to %q: got %q, want %q", tt.old, tt.new, got, tt.want)
		}
	}
}

func TestContainsWord(t *testing.T) {
	for text, want := range map[string]bool{
		"bob": true, "bob: hi": true, "hi bob!": true, "(bob)": true, "bobby": false, "xbob": false, "bob_": false, "bobby bob": true, "": false,
	} {
		if containsWord(text, "bob") != want {
			t.Errorf("%q names bob: %v", text, !want)
		}
	}
	if containsWord("x", "") {
		t.Error("the empty word is everywhere")
	}
}

func TestModeOf(t *testing.T) {
	for level, want := range map[int]byte{100: 'q', 95: 'q', 75: 'a', 50: 'o', 40: 'h', 10: 'v', 1: 'v', 0: 0, -1: 0} {
		if got := modeOf(level, "qaohv"); got != want {
			t.Errorf("level %d is %q, want %q", level, got, want)
		}
	}
	if modeOf(100, "ov") != 'o' {
		t.Error("a network without owners has ops")
	}
	for _, m := range "qaohv" {
		if modeOf(levelOf(string(m)), "qaohv") != byte(m) {
			t.Errorf("%c does not come back", m)
		}
	}
}

// TestLoginMetadata writes down what is kept of a login, and reads it again.
func TestLoginMetadata(t *testing.T) {
	m := &LoginMetadata{loginData: loginData{Network: "a", Nick: "b", Channels: []client.Wanted{{Name: "#c", Key: "d"}}}}
	text, err := json.Marshal(m)
	if want := `{"network":"a","nick":"b","user":"","real_name":"","channels":[{"Name":"#c","Key":"d"}]}`; err != nil || string(text) != want {
		t.Errorf("%s, %v, want %s", text, err, want)
	}
	var again LoginMetadata
	if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(again.loginData, m.loginData) {
		t.Errorf("it reads as %+v, %v", again.loginData, err)
	}
}
