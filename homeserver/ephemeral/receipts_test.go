package ephemeral

import (
	"encoding/json"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

func thread(s string) *string { return &s }

func TestMarks(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.say(home, "$1", `{"body":"root"}`)
		w.say(home, "$2", `{"body":"in it","m.relates_to":{"rel_type":"m.thread","event_id":"$1"}}`)
		w.say(home, "$3", `{"m.relates_to":{"rel_type":"m.annotation","event_id":"$2"}}`)
		w.say(home, "$4", `{"m.relates_to":{"rel_type":"m.reference","event_id":"$unknown"}}`)
		w.say(home, "$5", `{"body":"last"}`)
		w.say(other, "$x", `{"body":"elsewhere"}`)
		tests := []struct {
			name string
			user matrix.UserID
			mark Mark
			want matrix.Code
		}{
			{"read", alice, Mark{Read, "$3", nil}, ""},
			{"older", alice, Mark{Read, "$2", nil}, ""},
			{"private", alice, Mark{ReadPrivate, "$5", nil}, ""},
			{"in the thread", alice, Mark{Read, "$2", thread("$1")}, ""},
			{"reaction in the thread", bob, Mark{Read, "$3", thread("$1")}, ""},
			{"root of the thread", bob, Mark{ReadPrivate, "$1", thread("$1")}, ""},
			{"main", bob, Mark{Read, "$4", thread("main")}, ""},
			{"fully read", alice, Mark{FullyRead, "$3", nil}, ""},
			{"fully read, older", alice, Mark{FullyRead, "$2", nil}, ""},

			{"reaction in a thread is not in main", bob, Mark{Read, "$3", thread("main")}, matrix.InvalidParam},
			{"not in the thread", alice, Mark{Read, "$5", thread("$1")}, matrix.InvalidParam},
			{"empty thread", alice, Mark{Read, "$5", thread("")}, matrix.InvalidParam},
			{"thread of fully read", alice, Mark{FullyRead, "$5", thread("main")}, matrix.InvalidParam},
			{"other type", alice, Mark{"m.other", "$5", nil}, matrix.InvalidParam},
			{"event of another room", alice, Mark{Read, "$x", nil}, matrix.NotFound},
			{"no such event", alice, Mark{Read, "$none", nil}, matrix.NotFound},
			{"no event ID", alice, Mark{Read, "none", nil}, matrix.InvalidParam},
			{"stranger", carol, Mark{Read, "$5", nil}, matrix.Forbidden},
		}
		since := w.Store.Position()
		for _, tt := range tests {
			if err := w.SetMarks(t.Context(), tt.user, home, tt.mark); code(t, err) != tt.want {
				t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
			}
		}
		sees := func(user matrix.UserID, want string) {
			t.Helper()
			list, err := w.Store.Receipts(t.Context(), user, []store.RoomNum{w.rooms[home].Num}, since, w.Store.Position())
			if err != nil {
				t.Fatal(err)
			}
			for i := range list {
				list[i].TS = 7
			}
			got, _ := json.Marshal(Contents(list))
			if string(got) != want {
				t.Errorf("%s sees %s, want %s", user, got, want)
			}
		}
		const public = `"m.read":{"@alice:a.test":{"ts":7}}}}`
		sees(alice, `[{"$3":{`+public[:len(public)-1]+`,"$5":{"m.read.private":{"@alice:a.test":{"ts":7}}}},`+
			`{"$2":{"m.read":{"@alice:a.test":{"ts":7,"thread_id":"$1"}}},"$3":{"m.read":{"@bob:a.test":{"ts":7,"thread_id":"$1"}}}},`+
			`{"$4":{"m.read":{"@bob:a.test":{"ts":7,"thread_id":"main"}}}}]`)
		sees(carol, `[{"$3":{`+public+`,{"$2":{"m.read":{"@alice:a.test":{"ts":7,"thread_id":"$1"}}},"$3":{"m.read":{"@bob:a.test":{"ts":7,"thread_id":"$1"}}}},`+
			`{"$4":{"m.read":{"@bob:a.test":{"ts":7,"thread_id":"main"}}}}]`)

		raw, ok, err := w.Store.AccountData(t.Context(), alice, home, FullyRead)
		if err != nil || !ok || string(raw) != `{"event_id":"$3"}` {
			t.Errorf("fully read %s, %v", raw, err)
		}
		all, err := w.Store.UserReceipts(t.Context(), bob, w.rooms[home].Num)
		if err != nil || len(all) != 3 {
			t.Errorf("bob's receipts: %v, %v", all, err)
		}
		log, err := w.Store.ReceiptLog(t.Context(), 0, 100)
		if err != nil || len(log) != 4 {
			t.Errorf("public receipts: %v, %v", log, err)
		}

		// Nothing new wakes nobody and writes nothing.
		before := w.Store.Position()
		ring := w.Bell.Listen(string(bob))
		if err := w.SetMarks(t.Context(), alice, home, Mark{Read, "$3", nil}, Mark{FullyRead, "$1", nil}); err != nil || rung(ring) || w.Store.Position() != before {
			t.Errorf("an old mark: %v", err)
		}
		if err := w.SetMarks(t.Context(), alice, home, Mark{ReadPrivate, "$5", thread("main")}); err != nil || rung(ring) {
			t.Errorf("a private receipt woke another: %v", err)
		}
		if err := w.SetMarks(t.Context(), alice, home, Mark{Read, "$5", nil}); err != nil || !rung(ring) {
			t.Errorf("a receipt woke nobody: %v", err)
		}
	})
}
