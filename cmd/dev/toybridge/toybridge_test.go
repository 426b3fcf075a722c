package toybridge

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/cmd/dev/instance"
	"switchboard/cmd/dev/peers"
	"switchboard/homeserver/database/databasetest"
)

// asked says that the suite is wanted: it takes minutes and a C compiler.
const asked = "SWITCHBOARD_TEST_TOYBRIDGE"

// past is how many messages the chat has before there is a bridge.
const past = 1000

// TestBridge runs the bridge with and without encryption.
func TestBridge(t *testing.T) {
	if os.Getenv(asked) == "" {
		t.Skip("run it with make toybridge")
	}
	switchboard, toy := peers.Switchboard(instance.Binary(t)), build(t)
	sealed := func(more object) object {
		e := object{"allow": true, "default": true, "require": true, "appservice": true, "pickle_key": "generate"}
		for k, v := range more {
			e[k] = v
		}
		return object{"encryption": e}
	}
	puppets := object{"double_puppet": object{"secrets": object{"localhost": "as_token:" + puppetToken}}, "matrix": object{"federate_rooms": false}}
	for _, tt := range []struct {
		name   string
		config object
		sealed bool
	}{
		{"open", puppets, false},
		{"sealed", sealed(nil), true},
		{"selfsigned", sealed(object{"msc4190": true, "self_sign": true}), true},
		{"synced", sealed(object{"appservice": false, "msc4190": true}), true}, // the bot has a sync of its own for keys
	} {
		for name, database := range map[string]func(testing.TB) string{
			"SQLite": func(testing.TB) string { return "" }, "PostgreSQL": databasetest.PostgreSQL,
		} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				story(t, switchboard, toy, database(t), tt.config, tt.sealed)
			})
		}
	}
}

// The registration with which a bridge acts for users who need not log in to it
// once more, as the documentation of mautrix has it.
const (
	puppetToken = "token-of-double-puppets"
	puppetFile  = `id: doublepuppet
url:
as_token: ` + puppetToken + `
hs_token: nobody-is-told-anything
sender_localpart: puppeteer
rate_limited: false
namespaces:
  users:
  - regex: '@.*:localhost'
    exclusive: false
`
)

// story is the life of a bridge: it is registered, started, fills a room with the
// past of a chat, carries messages in both directions, and goes on after it and the
// server were away.
func story(t *testing.T, switchboard peers.Program, toy, database string, config object, sealed bool) {
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "toy.yaml"), filepath.Join(dir, "doublepuppet.yaml")}
	if err := os.WriteFile(files[1], []byte(puppetFile), 0o600); err != nil {
		t.Fatal(err)
	}
	server, err := peers.New(t.Context(), switchboard, peers.Options{Dir: t.TempDir(), Database: database, Appservices: files})
	if err != nil {
		t.Fatal(err)
	}
	n := newNetwork(t)
	n.fill("club", past)
	n.fill("work", 3)
	b := newBridge(t, toy, server, n, config)
	b.register(files[0])
	start := func() {
		t.Helper()
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	start()
	t.Cleanup(func() {
		if err := server.Stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the server's log:\n%s", server.Log())
		}
	})
	b.start()
	alice := newPerson(t, server, "alice")
	b.logIn(string(alice.UserID))

	var club, work id.RoomID
	alice.until("the portals", func() bool {
		club, work = alice.named("Chat club"), alice.named("Chat work")
		return club != "" && work != ""
	})
	complete := func() {
		t.Helper()
		want := n.texts("club")
		var got []string
		alice.until("all messages of the chat", func() bool {
			got = got[:0]
			for _, l := range alice.timeline(club, sealed) {
				got = append(got, l.text)
			}
			return len(got) >= len(want)
		})
		if !slices.Equal(got, want) {
			same := 0
			for same < len(want) && got[same] == want[same] {
				same++
			}
			from := max(0, same-2)
			t.Errorf("the timeline has %d messages, the chat %d; from %d on, the timeline has %q and the chat %q",
				len(got), len(want), from, got[from:min(len(got), same+10)], want[from:min(len(want), same+10)])
		}
	}
	complete()
	checkPast(t, alice, club, sealed)

	alice.say(club, "hello toys", sealed)
	heard := []string{"hello toys"}
	await := func() {
		t.Helper()
		alice.until("the network hears", func() bool { return len(n.said()) >= len(heard) && b.noted(alice.said) })
		if got := n.said(); !slices.Equal(got, heard) {
			t.Errorf("the network heard %q, want %q", got, heard)
		}
	}
	await()

	b.stop(syscall.SIGTERM)
	n.say("club", "ann", "is the bridge away?", time.Now())
	alice.say(work, "while the bridge was away", sealed)
	if err := server.Stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.say("club", "ben", "and the server, too", time.Now())
	start()
	alice.say(work, "while it was still away", sealed)
	b.start()
	heard = append(heard, "while the bridge was away", "while it was still away")
	await()
	complete()

	b.stop(syscall.SIGKILL)
	n.say("club", "cem", "the end", time.Now())
	b.start()
	complete()
	if got := n.said(); !slices.Equal(got, heard) {
		t.Errorf("the network heard %q, want %q", got, heard)
	}
	if texts := len(alice.timeline(work, sealed)); texts != 5 {
		t.Errorf("%d messages are in the other room, want 5", texts)
	}
	checkTakenBack(t, alice, n, club, sealed)
}

// checkTakenBack takes back a message of the past, which the bridge knows by the ID
// that it made up.
func checkTakenBack(t *testing.T, alice *person, n *network, club id.RoomID, sealed bool) {
	t.Helper()
	const number = 500
	e := alice.timeline(club, sealed)[number-1].event
	n.takeBack("club", number)
	alice.until("the redaction", func() bool {
		now, err := alice.GetEvent(t.Context(), club, e.ID)
		return err == nil && now.Unsigned.RedactedBecause != nil
	})
}

// checkPast looks at who said what and when, and that nothing of it notifies.
func checkPast(t *testing.T, alice *person, club id.RoomID, sealed bool) {
	t.Helper()
	lines := alice.timeline(club, sealed)
	for i, l := range lines {
		if i > 0 && l.event.Timestamp-lines[i-1].event.Timestamp != time.Minute.Milliseconds() {
			t.Errorf("%q is not one minute behind the one before", l.text)
		}
		name := []string{"ann", "ben", "me", "cem"}[i%4]
		want := id.NewUserID("toy_"+name, alice.UserID.Homeserver())
		if name == "me" && !sealed { // there are double puppets
			want = alice.UserID
		}
		if l.event.Sender != want {
			t.Errorf("%q is by %s, want %s", l.text, l.event.Sender, want)
		}
	}
	profile := map[string]any{}
	if _, err := alice.MakeRequest(t.Context(), "GET", alice.BuildClientURL("v3", "profile", id.NewUserID("toy_ann", alice.UserID.Homeserver())), nil, &profile); err != nil {
		t.Error(err)
	}
	if profile["displayname"] != "Toy ann" || profile["com.beeper.bridge.remote_id"] != "ann" {
		t.Errorf("a ghost is %v", profile)
	}
	var encryption event.EncryptionEventContent
	err := alice.StateEvent(t.Context(), club, event.StateEncryption, "", &encryption)
	if (err == nil) != sealed {
		t.Errorf("is it encrypted? %v", err)
	}
}
