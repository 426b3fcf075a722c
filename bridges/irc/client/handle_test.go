package client

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
)

// TestEvents sends lines into a channel with alice (us) and bob and compares
// the events, without their times.
func TestEvents(t *testing.T) {
	bob := Source{NUH: ircmsg.NUH{Name: "bob", User: "b", Host: "h"}}
	us := Source{NUH: ircmsg.NUH{Name: "alice", User: "ident", Host: "h"}, Own: true}
	acc := bob
	acc.Account = "bobacc"
	tests := []struct {
		name  string
		lines []string
		want  []Event
	}{
		{"text", []string{"@msgid=1;account=bobacc :bob!b@h PRIVMSG #C :hi"}, []Event{Message{Source: acc, Channel: "#c", Text: "hi", ID: "1"}}},
		{"reply", []string{"@+draft/reply=7 :bob!b@h PRIVMSG #c :hi"}, []Event{Message{Source: bob, Channel: "#c", Text: "hi", ReplyTo: "7"}}},
		{"action", []string{":bob!b@h PRIVMSG #c :\x01ACTION waves\x01"}, []Event{Message{Source: bob, Channel: "#c", Kind: Action, Text: "waves"}}},
		{"notice", []string{":bob!b@h NOTICE @#c :psst"}, []Event{Message{Source: bob, Channel: "#c", Kind: Notice, Text: "psst"}}},
		{"private", []string{":bob!b@h PRIVMSG alice :hi"}, []Event{Message{Source: bob, Peer: "bob", Text: "hi"}}},
		{"private from our other client", []string{":alice!ident@h PRIVMSG bob :hi"}, []Event{Message{Source: us, Peer: "bob", Text: "hi"}}},
		{"latin-1", []string{":bob!b@h PRIVMSG #c :gr\xfc\xdfe"}, []Event{Message{Source: bob, Channel: "#c", Text: "grüße"}}},
		{"ctcp", []string{":bob!b@h PRIVMSG alice :\x01VERSION\x01"}, []Event{CTCP{Source: bob, Command: "VERSION"}}},
		{"ctcp answer", []string{":bob!b@h NOTICE alice :\x01VERSION x 1\x01"}, []Event{CTCP{Source: bob, Command: "VERSION", Args: "x 1", Reply: true}}},
		{"server text", []string{":irc.test NOTICE alice :maintenance"}, []Event{ServerText{Code: "NOTICE", Text: "maintenance"}}},
		{"join, nick, part", []string{":eve!e@h JOIN #c", ":eve!e@h NICK mallory", ":mallory!e@h PART #c :bye"}, []Event{
			Joined{Source: Source{NUH: ircmsg.NUH{Name: "eve", User: "e", Host: "h"}}, Channel: "#c"},
			Renamed{Source: Source{NUH: ircmsg.NUH{Name: "eve", User: "e", Host: "h"}}, Nick: "mallory", Channels: []string{"#c"}},
			Parted{Source: Source{NUH: ircmsg.NUH{Name: "mallory", User: "e", Host: "h"}}, Channel: "#c", Reason: "bye"},
		}},
		{"kick", []string{":bob!b@h KICK #c ALICE :out"}, []Event{Kicked{Source: bob, Nick: "alice", Own: true, Channel: "#c", Reason: "out"}}},
		{"quit", []string{":bob!b@h QUIT :Ping timeout"}, []Event{Quit{Source: bob, Channels: []string{"#c"}, Reason: "Ping timeout"}}},
		{"quit in another channel", []string{":eve!e@h QUIT :bye"}, []Event{Quit{Source: Source{NUH: ircmsg.NUH{Name: "eve", User: "e", Host: "h"}}, Reason: "bye"}}},
		{"topic", []string{":bob!b@h TOPIC #c :new"}, []Event{TopicChanged{Source: bob, Channel: "#c", Topic: "new"}}},
		{"modes", []string{":bob!b@h MODE #c +ovk-l+b bob alice secret x!*@*"}, []Event{ModeChanged{Source: bob, Channel: "#c", Changes: []ModeChange{
			{true, 'o', "bob"}, {true, 'v', "alice"}, {true, 'k', "secret"}, {false, 'l', ""}, {true, 'b', "x!*@*"},
		}}}},
		{"invite", []string{":bob!b@h INVITE alice #other", ":bob!b@h INVITE eve #other"}, []Event{Invited{Source: bob, Channel: "#other"}}},
		{"split in a batch", []string{":irc.test BATCH +n netsplit a.test b.test", "@batch=n :bob!b@h QUIT :a.test b.test", ":irc.test BATCH -n"},
			[]Event{NetSplit{Servers: [2]string{"a.test", "b.test"}, Nicks: map[string][]string{"#c": {"bob"}}}}},
		{"split without a batch", []string{":bob!b@h QUIT :*.net *.split"},
			[]Event{NetSplit{Servers: [2]string{"*.net", "*.split"}, Nicks: map[string][]string{"#c": {"bob"}}}}},
		{"healed", []string{":irc.test BATCH +n netjoin a.test b.test", "@batch=n :eve!b@h JOIN #c", ":irc.test BATCH -n"},
			[]Event{NetSplit{Servers: [2]string{"a.test", "b.test"}, Healed: true, Nicks: map[string][]string{"#c": {"eve"}}}}},
		{"host, name, account", []string{":bob!b@h CHGHOST x y", ":bob!b@h SETNAME :Bob B", ":bob!b@h ACCOUNT bobacc"}, []Event{
			Profile{Source: Source{NUH: ircmsg.NUH{Name: "bob", User: "x", Host: "y"}}},
			Profile{Source: bob, RealName: "Bob B"}, Profile{Source: acc},
		}},
		{"nonsense", []string{"", ":", "@", "@a", ": x", "BATCH", "BATCH +", "BATCH -x", "CAP", "JOIN", "KICK #c", "MODE #c", "353 alice", "AUTHENTICATE", ":bob!b@h NICK", ":bob PRIVMSG"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{})
				w.run()
				s := <-w.accept
				s.welcome(allCaps)
				s.send(":alice!ident@h JOIN #c")
				s.want("MODE #c")
				s.send(":irc.test 353 alice = #c :alice bob")
				s.send(":irc.test 366 alice #c :end")
				take[Connected](w)
				for _, l := range tt.lines {
					s.send("%s", l)
				}
				got := take[Event](w)
				for i := range got {
					got[i] = untimed(got[i])
				}
				if !reflect.DeepEqual(got, tt.want) {
					t.Errorf("got  %+v\nwant %+v", got, tt.want)
				}
				w.stop(s)
			})
		})
	}
}

// untimed clears an event's time.
func untimed(e Event) Event {
	v := reflect.New(reflect.TypeOf(e)).Elem()
	v.Set(reflect.ValueOf(e))
	if f := v.FieldByName("Time"); f.IsValid() {
		f.Set(reflect.ValueOf(time.Time{}))
	}
	return v.Interface().(Event)
}

func TestServerTime(t *testing.T) {
	l := &link{}
	m, err := ircmsg.ParseLine("@time=2001-02-03T04:05:06.789Z PING")
	if err != nil {
		t.Fatal(err)
	}
	if got := l.time(&m).UTC().Format(time.RFC3339Nano); got != "2001-02-03T04:05:06.789Z" {
		t.Error(got)
	}
	m.SetTag("time", "2999-01-01T00:00:00.000Z")
	if d := time.Since(l.time(&m)); d < 0 || d > time.Minute {
		t.Errorf("a time in the future was believed: %v", d)
	}
}

// FuzzLines feeds a client arbitrary lines: it must survive them, and the
// state it keeps must agree with itself.
func FuzzLines(f *testing.F) {
	f.Add(":bob!b@h JOIN #c\n:bob!b@h NICK eve\n:eve!b@h MODE #c +ov-o eve eve eve\nBATCH +x netsplit a b\n@batch=x :eve QUIT :a b\nBATCH -x")
	f.Add(":alice!i@h NICK [x]\n:{X}!i@h PART #c\n:irc 005 a CASEMAPPING=ascii PREFIX=(qaohv)~&@%+ x\n:irc 353 a = #c :~&bob!u@h @eve\n:irc 366 a #c")
	f.Add("@label=sb1 :irc FAIL PRIVMSG X :no\n:irc 404 alice #c :no\n:irc PONG x :sb2\nCAP * LS :a=b sasl\nCAP x ACK :batch\nERROR :bye")
	f.Fuzz(func(t *testing.T, lines string) {
		cfg := &Config{Nick: "alice"}
		l := &link{cfg: cfg, wanted: &wanted{}, caps: caps{offered: map[string]string{}, enabled: map[string]bool{}},
			channels: map[string]*channel{"#c": {name: "#c", modes: map[byte]string{}, members: map[string]*Member{"alice": {Nick: "alice"}, "bob": {Nick: "bob"}}}},
			batches:  map[string]*batch{}, registered: true, ready: true}
		l.self.Name = "alice"
		calls := 0
		for _, command := range []string{"PRIVMSG", "TOPIC"} {
			r, err := l.newRequest(ircmsg.MakeMessage(nil, "", command, "#c", "x"), func(Outcome) { calls++ })
			if err != nil {
				t.Fatal(err)
			}
			l.inflight = append(l.inflight, r)
		}
		for line := range bytesLines(lines) {
			m, err := parse(line)
			if err != nil {
				continue
			}
			fx := effects{handle: func(Event) {}}
			l.apply(&m, &fx)
			for _, out := range fx.lines {
				if b, err := out.LineBytesStrict(true, 0); err == nil && len(b) < 3 {
					t.Errorf("empty answer to %q", line)
				}
			}
		}
		if calls+len(l.inflight) > 2 {
			t.Errorf("%d outcomes of 2 requests, %d in flight", calls, len(l.inflight))
		}
		for key, ch := range l.channels {
			if key != l.fold(ch.name) {
				t.Errorf("channel %q is kept as %q", ch.name, key)
			}
			for key, u := range ch.members {
				if key != l.fold(u.Nick) {
					t.Errorf("%q is kept as %q", u.Nick, key)
				}
			}
		}
	})
}

func bytesLines(s string) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		start := 0
		for i := range len(s) + 1 {
			if i == len(s) || s[i] == '\n' {
				if !yield([]byte(s[start:i])) {
					return
				}
				start = i + 1
			}
		}
	}
}

func TestCasemapping(t *testing.T) {
	tests := []struct {
		m        Casemapping
		in, want string
	}{
		{ASCII, `AZ[]\^a`, `az[]\^a`},
		{RFC1459, `AZ[]\^a_`, `az{}|~a_`},
		{RFC1459Strict, `AZ[]\^a`, `az{}|^a`},
		{parseCasemapping(""), "[", "{"},
		{parseCasemapping("strict-rfc1459"), "^[", "^{"},
		{parseCasemapping("rfc8265"), "ÄB", "äb"},
	}
	for _, tt := range tests {
		if got := tt.m.Fold(tt.in); got != tt.want || tt.m.Fold(got) != got {
			t.Errorf("%s: %q became %q, want %q", tt.m, tt.in, got, tt.want)
		}
	}
}
