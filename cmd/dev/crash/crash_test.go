package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"switchboard/cmd/dev/instance"
	"switchboard/homeserver/database/databasetest"
)

const (
	senders = 16
	rooms   = 4
	rounds  = 4
)

// TestKill kills the server several times while sixteen people send.
func TestKill(t *testing.T) {
	binary := instance.Binary(t)
	databasetest.EachURL(t, func(t *testing.T, url string) { kill(t, instance.New(t, binary, url)) })
}

// kill runs the rounds against one server.
func kill(t *testing.T, s *instance.Server) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	s.Start()
	people := gather(s)
	for round := range rounds {
		crash := time.Duration(100+random.IntN(900)) * time.Millisecond
		before := acknowledged(people)
		load(t, s, people, crash)
		t.Logf("round %d: killed after %v, %d messages acknowledged", round+1, crash, acknowledged(people)-before)
		if acknowledged(people) == before {
			t.Error("no message was acknowledged before the server was killed")
		}
		s.Start()
		for _, p := range people {
			p.settle(t)
		}
		check(t, people)
	}
	s.Stop() // and it still ends well
	s.Start()
	check(t, people)
}

// person is a sender, what they sent and what the server said to it.
type person struct {
	*instance.User
	room     string
	next     int
	acked    map[string]string // transaction ID -> event ID
	fresh    []string          // transactions acknowledged since the last check
	pending  string            // the transaction that the kill cut off, "" if none
	messages map[string]string // transaction ID -> text
}

// gather makes the rooms and their members.
func gather(s *instance.Server) []*person {
	var people []*person
	for i := range senders {
		p := &person{
			User: s.Register(fmt.Sprintf("sender%d", i)), acked: map[string]string{}, messages: map[string]string{},
		}
		if i < rooms {
			p.room = p.CreateRoom()
		} else {
			p.room = people[i%rooms].room
			p.Join(p.room)
		}
		people = append(people, p)
	}
	return people
}

// load lets everybody send, one message after the other, until the server is
// killed, a while after it acknowledged the first.
func load(t *testing.T, s *instance.Server, people []*person, crash time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), crash+10*time.Minute)
	defer cancel()
	var group sync.WaitGroup
	begun := make(chan struct{}, len(people))
	for _, p := range people {
		group.Go(func() {
			if err := p.sendUntilCut(ctx, begun); err != nil {
				t.Error(err)
			}
		})
	}
	<-begun
	time.Sleep(crash)
	s.Kill()
	group.Wait()
}

// sendUntilCut sends until the connection breaks, and says when the first message
// is acknowledged, or none is. A refusal is an error.
func (p *person) sendUntilCut(ctx context.Context, begun chan<- struct{}) error {
	tell := sync.OnceFunc(func() { begun <- struct{}{} })
	defer tell()
	for {
		transaction := p.Transaction()
		text := fmt.Sprintf("message %06d", p.next)
		p.next++
		p.messages[transaction] = text
		id, err := p.Send(ctx, p.room, transaction, text)
		var refusal *instance.Refusal
		switch {
		case errors.As(err, &refusal):
			return fmt.Errorf("%s sends %s: %w", p.ID, transaction, err)
		case err != nil:
			p.pending = transaction
			return nil
		}
		p.acknowledge(transaction, id)
		tell()
	}
}

// acknowledge notes the server's word that it has a message.
func (p *person) acknowledge(transaction, id string) {
	p.acked[transaction] = id
	p.fresh = append(p.fresh, transaction)
}

// settle does what a client does after a lost connection: it repeats the
// transaction that was cut off. It repeats the last acknowledged one too, which
// must have the same event.
func (p *person) settle(t *testing.T) {
	t.Helper()
	if n := len(p.fresh); n > 0 {
		last := p.fresh[n-1]
		again, err := p.Send(t.Context(), p.room, last, p.messages[last])
		if err != nil || again != p.acked[last] {
			t.Errorf("%s repeats %s: got %q, %v, want the event %s", p.ID, last, again, err, p.acked[last])
		}
	}
	if p.pending != "" {
		id, err := p.Send(t.Context(), p.room, p.pending, p.messages[p.pending])
		if err != nil {
			t.Fatalf("%s repeats %s: %v", p.ID, p.pending, err)
		}
		p.acknowledge(p.pending, id)
		p.pending = ""
	}
}

// check compares what the server has with what it acknowledged.
func check(t *testing.T, people []*person) {
	t.Helper()
	timelines := map[string][]instance.Event{}
	for _, p := range people[:rooms] {
		timelines[p.room] = p.Timeline(p.room)
	}
	for _, p := range people {
		p.checkTimeline(t, timelines[p.room])
		for _, transaction := range p.fresh {
			id, text := p.acked[transaction], p.messages[transaction]
			if e := p.Event(p.room, id); e.Content.Body != text || e.Sender != p.ID {
				t.Errorf("%s: event %s is %q of %s, want %q", p.ID, id, e.Content.Body, e.Sender, text)
			}
		}
		p.fresh = nil
	}
}

// checkTimeline checks that a person's acknowledged messages, and nothing
// else of theirs, stand in the timeline once each and in order.
func (p *person) checkTimeline(t *testing.T, timeline []instance.Event) {
	t.Helper()
	texts := map[string]string{} // event ID -> text, of what is not found yet
	for transaction, id := range p.acked {
		if other, twice := texts[id]; twice {
			t.Errorf("%s: %q and %q have the same event %s", p.ID, other, p.messages[transaction], id)
		}
		texts[id] = p.messages[transaction]
	}
	newest := ""
	for _, e := range timeline {
		if e.Sender != p.ID || e.Type != "m.room.message" {
			continue
		}
		text, expected := texts[e.ID]
		switch {
		case !expected:
			t.Errorf("%s: %q (%s) stands in the room twice or was never sent", p.ID, e.Content.Body, e.ID)
		case text != e.Content.Body:
			t.Errorf("%s: %s says %q, want %q", p.ID, e.ID, e.Content.Body, text)
		case text <= newest:
			t.Errorf("%s: %q stands after %q", p.ID, text, newest)
		}
		delete(texts, e.ID)
		newest = text
	}
	for id, text := range texts {
		t.Errorf("%s: %q (%s) was acknowledged and is gone", p.ID, text, id)
	}
}

func acknowledged(people []*person) int {
	n := 0
	for _, p := range people {
		n += len(p.acked)
	}
	return n
}
