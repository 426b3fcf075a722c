package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/cmd/dev/instance"
	"switchboard/cmd/dev/peers"
	"switchboard/homeserver/database/databasetest"
)

// bringer is the registration of an appservice that brings the past of a room.
const bringer = `id: bringer
url:
as_token: token-of-the-bringer
hs_token: nobody-is-told-anything
sender_localpart: bringer
rate_limited: false
namespaces:
  users:
  - regex: '@past_.*:localhost'
    exclusive: true
`

// batchSize is how many events one batch has.
const batchSize = 400

// TestKillBatch kills the server while an appservice brings batches: each of them is
// there as a whole or not at all, and can be brought again.
func TestKillBatch(t *testing.T) {
	binary := peers.Switchboard(instance.Binary(t))
	databasetest.EachURL(t, func(t *testing.T, url string) {
		file := filepath.Join(t.TempDir(), "bringer.yaml")
		if err := os.WriteFile(file, []byte(bringer), 0o600); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(url, "sqlite:") {
			url = ""
		}
		s, err := peers.New(t.Context(), binary, peers.Options{Dir: t.TempDir(), Database: url, Appservices: []string{file}})
		if err != nil {
			t.Fatal(err)
		}
		killBatches(t, s)
	})
}

func killBatches(t *testing.T, s *peers.Server) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	start := func() {
		t.Helper()
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	start()
	t.Cleanup(func() { s.Stop(syscall.SIGKILL) })
	b := &batches{t: t}
	var err error
	if b.client, err = mautrix.NewClient(s.URL, "", "token-of-the-bringer"); err != nil {
		t.Fatal(err)
	}
	room, err := b.client.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{})
	if err != nil {
		t.Fatal(err)
	}
	b.room = room.RoomID
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil && b.send(ctx, b.sent, true) == nil {
				b.sent++
			}
		}()
		time.Sleep(time.Duration(200+random.IntN(800)) * time.Millisecond)
		if err := s.Stop(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		cancel()
		<-done
		start()
		b.check(b.sent, b.sent+1)
		if err := b.send(t.Context(), b.sent, false); err != nil {
			t.Fatal(err)
		}
		b.sent++
		b.check(b.sent, b.sent)
	}
	t.Logf("%d batches", b.sent)
}

// batches are what an appservice has brought into a room. Those of even number go to
// the end, the others before all.
type batches struct {
	t      *testing.T
	client *mautrix.Client
	room   id.RoomID
	sent   int
}

// eventID is that of one event of a batch.
func eventID(batch, i int) id.EventID { return id.EventID(fmt.Sprintf("$%d-%d:past.test", batch, i)) }

// send brings a batch; once alone, since the library repeats requests that fail.
func (b *batches) send(ctx context.Context, batch int, once bool) error {
	req := &mautrix.ReqBeeperBatchSend{Forward: batch%2 == 0}
	for i := range batchSize {
		req.Events = append(req.Events, &event.Event{
			Type: event.EventMessage, Sender: "@past_x:localhost", ID: eventID(batch, i), Timestamp: 1000,
			Content: event.Content{Parsed: &event.MessageEventContent{MsgType: event.MsgText, Body: "x"}},
		})
	}
	b.client.DefaultHTTPRetries = 3
	if once {
		b.client.DefaultHTTPRetries = 0
	}
	_, err := b.client.BeeperBatchSend(ctx, b.room, req)
	return err
}

// check wants so many of the batches in the room, at least and at most, each of them
// whole and in its place.
func (b *batches) check(least, most int) {
	b.t.Helper()
	var got []id.EventID
	for from := ""; ; {
		page, err := b.client.Messages(b.t.Context(), b.room, from, "", mautrix.DirectionForward, nil, 1000)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, e := range page.Chunk {
			if e.StateKey == nil {
				got = append(got, e.ID)
			}
		}
		if from = page.End; from == "" {
			break
		}
	}
	n := len(got) / batchSize
	if n < least || n > most || len(got)%batchSize != 0 {
		b.t.Fatalf("%d events are there, of %d or %d batches", len(got), least, most)
	}
	var want []id.EventID
	for batch := range n {
		var part []id.EventID
		for i := range batchSize {
			part = append(part, eventID(batch, i))
		}
		if batch%2 == 0 {
			want = append(want, part...)
		} else {
			want = append(part, want...)
		}
	}
	if !slices.Equal(got, want) {
		b.t.Fatal("the events are not in the order of the batches")
	}
}
