package bridgetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// stream is many numbered messages in both directions of a chat.
type stream struct {
	st    *stage
	chat  chat
	label string
	count int
	sent  []id.EventID // by alice
}

// write sends everything, bob and alice by turns, and calls at before each of
// their numbers. While the server is away alice tries again, as clients do.
func (s *stream) write(t *testing.T, at func(i int)) {
	t.Helper()
	for i := range s.count {
		at(i)
		s.st.bob.Write(s.chat.name, Post{Text: s.text("bob", i)})
		e, err := s.send(s.text("alice", i))
		if err != nil {
			t.Fatalf("alice's message %d: %v", i, err)
		}
		s.sent = append(s.sent, e)
	}
}

// send is Say which outlives a restart of the server.
func (s *stream) send(text string) (id.EventID, error) {
	alice := s.st.alice
	txn := alice.TxnID()
	var err error
	for end := time.Now().Add(2 * patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		resp, failed := alice.SendMessageEvent(context.Background(), s.chat.room, event.EventMessage,
			&event.MessageEventContent{MsgType: event.MsgText, Body: text}, mautrix.ReqSendEvent{TransactionID: txn})
		if err = failed; err == nil {
			return resp.EventID, nil
		}
	}
	return "", err
}

func (s *stream) text(who string, i int) string { return fmt.Sprintf("%s %s %04d", s.label, who, i) }

// arrived are the numbers of messages, in the order in which they came.
func (s *stream) arrived(who string, texts []string) []int {
	var out []int
	for _, text := range texts {
		var i int
		if _, err := fmt.Sscanf(text, s.label+" "+who+" %d", &i); err == nil {
			out = append(out, i)
		}
	}
	return out
}

// atBob and atAlice are what has come so far.
func (s *stream) atBob() []int {
	var texts []string
	for _, e := range s.st.bob.Seen() {
		if e.Kind == Said && e.Chat == s.chat.name {
			texts = append(texts, e.Text)
		}
	}
	return s.arrived("alice", texts)
}

func (s *stream) atAlice() []int {
	var texts []string
	for _, e := range s.st.alice.Events(Message(s.chat.room, s.label+" bob")) {
		texts = append(texts, e.Content.AsMessage().Body)
	}
	return s.arrived("bob", texts)
}

// failed reports whether the sender was told that a message may be lost.
func (s *stream) failed(i int) bool {
	of := s.sent[i]
	return len(s.st.alice.Events(Status(of, event.MessageStatusFail)))+len(s.st.alice.Events(Status(of, event.MessageStatusRetriable))) > 0
}

// check waits for everything and looks at the order. Exact says that nothing
// may be missing or come twice; twice, that what was under way may come again.
func (s *stream) check(t *testing.T, exactOut, exactIn, twice bool) {
	t.Helper()
	awaitLong(t, s.label+": alice's messages arrive", func() bool {
		got := s.atBob()
		if exactOut {
			return len(got) >= s.count
		}
		for i := range s.count {
			if !slices.Contains(got, i) && !s.failed(i) {
				return false
			}
		}
		return true
	})
	inOrder(t, s.label+" to the network", s.atBob(), s.count, exactOut, twice)
	if exactIn {
		awaitLong(t, s.label+": bob's messages arrive", func() bool { return len(s.atAlice()) >= s.count })
	}
	came := s.atAlice()
	if s.st.f.Jumbled {
		slices.Sort(came)
	}
	inOrder(t, s.label+" to Matrix", came, s.count, exactIn, twice)
}

// awaitLong is Eventually with more patience, for many messages.
func awaitLong(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(6 * patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Errorf("waited in vain: %s", what)
}

// inOrder looks at numbers that have come.
func inOrder(t *testing.T, what string, got []int, count int, exact, twice bool) {
	t.Helper()
	if exact {
		want := make([]int, count)
		for i := range want {
			want[i] = i
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %d of %d came: %s", what, len(got), count, ranges(got))
		}
		return
	}
	seen := make(map[int]bool)
	last := -1
	for _, i := range got {
		if i < last && !seen[i] || seen[i] && !twice {
			t.Errorf("%s: %d came too late, or again: %s", what, i, ranges(got))
		}
		seen[i], last = true, max(last, i)
	}
}

// ranges writes numbers as "0-4 6-9".
func ranges(list []int) string {
	var b strings.Builder
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		fmt.Fprintf(&b, " %d-%d", list[i], list[j])
		i = j + 1
	}
	return strings.TrimSpace(b.String())
}

func (st *stage) order(t *testing.T) {
	st.each(t, true, func(t *testing.T, c chat) {
		s := &stream{st: st, chat: c, label: "order " + c.kind, count: 50}
		s.write(t, func(int) {})
		s.check(t, true, true, false)
	})
}

func (st *stage) reconnect(t *testing.T) {
	st.each(t, true, func(t *testing.T, c chat) {
		s := &stream{st: st, chat: c, label: "reconnect " + c.kind, count: 30}
		s.write(t, func(i int) {
			if i%10 == 5 {
				st.network.Proxy().Cut()
			}
		})
		s.check(t, st.f.Exact, st.f.History, false)
	})
}

func (st *stage) restart(t *testing.T) {
	st.server.stop()
	st.network.Proxy().AwaitEnd(t)
	if st.f.History {
		for _, c := range st.chats {
			st.bob.Write(c.name, Post{Text: "while you were away: " + c.kind})
		}
	}
	st.server.run()
	st.each(t, true, func(t *testing.T, c chat) {
		if st.f.History {
			st.alice.Await("what bob wrote meanwhile", Message(c.room, "while you were away: "+c.kind))
		}
		st.awaitLink(t, c)
		st.out(t, c, "here again: "+c.kind)
	})
}

// awaitLink waits until something that bob writes from now on arrives.
func (st *stage) awaitLink(t *testing.T, c chat) {
	t.Helper()
	st.links++
	text := fmt.Sprintf("are you there? %d.", st.links)
	Eventually(t, "the bridge is connected again", func() bool {
		st.bob.Write(c.name, Post{Text: text})
		for end := time.Now().Add(patience / 100); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if len(st.alice.Events(Message(c.room, text))) > 0 {
				return true
			}
		}
		return false
	})
}

func (st *stage) kill(t *testing.T) {
	st.each(t, true, func(t *testing.T, c chat) {
		s := &stream{st: st, chat: c, label: "kill " + c.kind, count: 30}
		s.write(t, func(i int) {
			if i == 15 {
				st.server.kill()
				st.network.Proxy().AwaitEnd(t)
				st.server.run()
			}
		})
		s.check(t, st.f.Exact, st.f.History, true)
	})
}

// loss is the test by fire: 1,000 messages in each direction (200 with the race
// detector), 20 cuts of a connection that works.
func (st *stage) loss(t *testing.T) {
	cuts := make(map[int]bool)
	for len(cuts) < 20 {
		cuts[rand.IntN(lossCount-5)] = true //nolint:gosec // no secret
	}
	c := st.chats[0]
	s := &stream{st: st, chat: c, label: "loss", count: lossCount}
	s.write(t, func(i int) {
		if cuts[i] {
			st.awaitLink(t, c)
		}
		if cuts[i-3] { // by then some messages are under way
			st.network.Proxy().Cut()
		}
	})
	st.awaitLink(t, c)
	s.check(t, st.f.Exact, st.f.History, false)
}
