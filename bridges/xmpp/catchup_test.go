package xmpp

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"mellium.im/xmpp/jid"

	"switchboard/bridges/xmpp/client"
)

// TestRecall has a server that gave a stream up and still handles what it had read
// of it: what appears in the archive is not sent again, however late it does, and
// what never appears is.
func TestRecall(t *testing.T) {
	const silent = -1 // the archive does not answer
	for name, tt := range map[string]struct {
		looks   []int // how many messages each look finds; the last one stays
		waiting []string
	}{
		"at once":           {[]int{3}, nil},
		"nothing":           {[]int{0}, []string{"1", "2", "3"}},
		"late":              {[]int{0, 3}, nil},
		"one by one":        {[]int{0, 1, 2, 3}, nil},
		"not all":           {[]int{1, 2}, []string{"3"}},
		"no answer":         {[]int{silent, silent, 3}, nil},
		"no answer, and no": {[]int{1, silent, 1}, []string{"2", "3"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				me := jid.MustParse("a@b.test")
				s := &session{
					ctx: t.Context(), client: client.New(client.Config{JID: me}, nil),
					login: &bridgev2.UserLogin{UserLogin: &database.UserLogin{ID: "a@b.test", Metadata: &LoginMetadata{}}},
				}
				l := &lane{session: s, ready: true}
				s.account = l
				look := 0
				s.archive = func(ctx context.Context, _ client.Query) (client.Page, error) {
					n := tt.looks[min(look, len(tt.looks)-1)]
					look++
					if n == silent {
						<-ctx.Done()
						return client.Page{}, ctx.Err()
					}
					page := client.Page{Complete: true}
					for _, o := range []string{"1", "2", "3"}[:n] {
						page.Messages = append(page.Messages, &client.Message{Type: "chat", ID: o, From: me, Sent: true})
					}
					return page, nil
				}
				var settled []string
				for _, id := range []string{"1", "2", "3"} {
					o := &outgoing{id: id, stanza: &client.Element{}, timer: time.NewTimer(time.Hour), done: func(result) { settled = append(settled, id) }}
					o.state.Store(unsure)
					l.out = append(l.out, o)
				}
				_ = s.recall(t.Context(), l, true)
				time.Sleep(10 * time.Minute) // until it was asked again
				s.work.Wait()
				var left []string
				for _, o := range l.out {
					if o.state.Load() != waiting {
						t.Errorf("%s is still doubtful", o.id)
					}
					left = append(left, o.id)
				}
				if !slices.Equal(left, tt.waiting) || len(settled)+len(left) != 3 {
					t.Errorf("to send again are %q, arrived are %q", left, settled)
				}
			})
		})
	}
}
