package fedsender

import (
	"testing"

	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/store"
)

// TestQueueFails looks at what is left of ephemeral messages when their server
// does not answer.
func TestQueueFails(t *testing.T) {
	edu := fedclient.EDU{Type: "m.test"}
	lasting := func(q *queue) { q.keep([]fedclient.EDU{edu}, 10) }
	fleeting := func(q *queue) { q.tell(edu) }
	sent := func(n int) func(q *queue) { return func(q *queue) { q.done(0, n) } }
	for _, c := range []struct {
		name   string
		steps  []func(q *queue)
		behind bool
		sent   int64
	}{
		{"fleeting", []func(*queue){fleeting}, false, 0},
		{"lasting", []func(*queue){lasting}, true, 9},
		{"both", []func(*queue){fleeting, lasting, sent(1)}, true, 9},
		{"sent", []func(*queue){lasting, fleeting, sent(2), fleeting}, false, 9},
		{"behind already", []func(*queue){func(q *queue) { q.fallBehind(5) }, lasting}, true, 5},
	} {
		q := &queue{}
		for _, step := range c.steps {
			step(q)
		}
		q.fail()
		if len(q.edus) != 0 || q.behind != c.behind || q.sent != c.sent {
			t.Errorf("%s: %d messages are left, behind %v, sent up to %d", c.name, len(q.edus), q.behind, q.sent)
		}
	}
}

// TestQueueCatchesUp has the reader of the log come late with what the server
// found in the store.
func TestQueueCatchesUp(t *testing.T) {
	q := &queue{}
	q.fallBehind(5)
	q.add(&store.Event{Pos: 6})
	q.caughtUp(8, true) // which another look must follow
	q.take()
	q.caughtUp(8, true)
	for pos := range int64(4) {
		q.add(&store.Event{Pos: 7 + pos})
	}
	if events, _, behind, _ := q.take(); behind || len(events) != 2 || events[0].Pos != 9 {
		t.Errorf("behind %v, %d events, want those at 9 and 10", behind, len(events))
	}
}
