package xmpp

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestConfirmedFirst lets an answer come right behind the server's confirmation of
// what it answers: a reaction, or that it was read. It is nothing before the
// message is known to be there.
func TestConfirmedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lane{session: &session{ctx: t.Context()}}
		var seen []string
		l.out = []*outgoing{{id: "m", timer: time.NewTimer(time.Hour), done: func(result) {
			time.Sleep(time.Second)
			seen = append(seen, "message")
		}}}
		l.confirmed(l.out[0], nil)
		l.add(false, func(context.Context) { seen = append(seen, "answer") })
		l.session.work.Wait()
		l.settled.Wait()
		if want := []string{"message", "answer"}; !slices.Equal(seen, want) {
			t.Errorf("handled were %q, want %q", seen, want)
		}
	})
}
