package bridge

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/appservices"
	"switchboard/registrations"
)

// held are events about others of which it is not known yet what became of them,
// such as the edit of a message that waits for the network: mautrix knows of no such
// message before, and would refuse them. They are in the inbox meanwhile.
type held struct {
	mu     sync.Mutex                       // tier 2; held from a look into the inbox until what it says is noted; guards what follows
	events map[id.EventID][]json.RawMessage // by what they are about
}

// about is the event that an event changes, reacts to or takes back, or empty.
func (l *letter) about() id.EventID {
	if l.Type == event.EventRedaction.Type {
		target, _ := l.Content["redacts"].(string)
		return cmp.Or(l.Redacts, id.EventID(target))
	}
	relation, _ := l.Content["m.relates_to"].(map[string]any)
	switch relation["rel_type"] {
	case string(event.RelReplace), string(event.RelAnnotation), string(event.RelReference):
		target, _ := relation["event_id"].(string)
		return id.EventID(target)
	}
	return ""
}

// hold keeps back what is about events that are not settled, and returns the rest.
func (b *inbox) hold(ctx context.Context, events []json.RawMessage) (rest []json.RawMessage) {
	b.held.mu.Lock()
	defer b.held.mu.Unlock()
	for _, e := range events {
		var l letter
		waits := false
		if json.Unmarshal(e, &l) == nil && l.settles() && l.about() != "" {
			const ask = `SELECT EXISTS (SELECT 1 FROM bridge_inbox WHERE event = $1 AND settled = 0)
				AND EXISTS (SELECT 1 FROM bridge_inbox WHERE event = $2)`
			if err := b.db.QueryRow(ctx, ask, l.about(), l.ID).Scan(&waits); err != nil {
				zerolog.Ctx(ctx).Err(err).Str("event", string(l.ID)).Msg("an event does not wait for the one that it is about")
			}
		}
		if waits {
			b.held.events[l.about()] = append(b.held.events[l.about()], e)
		} else {
			rest = append(rest, e)
		}
	}
	return rest
}

// free returns what was held because of an event, which is settled now.
func (b *inbox) free(e id.EventID) []json.RawMessage {
	b.held.mu.Lock()
	defer b.held.mu.Unlock()
	events := b.held.events[e]
	delete(b.held.events, e)
	return events
}

// settle notes that it is known what became of an event, and lets the bridge handle
// what waited for that.
func (h *Host) settle(ctx context.Context, e id.EventID) error {
	if err := h.inbox.settle(ctx, e); err != nil {
		return err
	}
	run, events := h.starting.Load(), h.inbox.free(e)
	if run != nil && len(events) > 0 { // else the next run finds them in the inbox
		Go(ctx, "an event that waited for another", func() error { return h.again(ctx, run, events) })
	}
	return nil
}

// again lets the bridge handle events that have come before, but for what has to wait.
func (h *Host) again(ctx context.Context, run *runner, events []json.RawMessage) error {
	if events = h.inbox.hold(ctx, events); len(events) == 0 {
		return nil
	}
	body, err := json.Marshal(map[string]any{"events": events})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://bridge.invalid"+transactionPath+"inbox-"+registrations.Token(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+h.secrets.hsToken)
	answer, err := (&appservices.Wire{Handler: run.mx.AS.Router}).RoundTrip(r)
	if err != nil {
		return fmt.Errorf("handle again what was cut off: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("handle again what was cut off: %s", answer.Status)
	}
	return nil
}
