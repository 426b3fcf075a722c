// Package search finds events by their text: it follows the log and keeps the
// store's index of words, and answers what clients search for. The index knows
// which events may fit; whether they do, and whether the user may see them, is
// looked at again for each of them. It finds no people and no rooms.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-search
package search

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/event"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
	"switchboard/homeserver/words"
)

// Service searches. Its methods may be called from several goroutines.
type Service struct {
	Store *store.Store
	Rooms *room.Service
	Bell  *notify.Bell

	mu sync.Mutex // tier 2; held while the index is written
}

const (
	// together is how many events are put into the index by one transaction: large
	// ones write less, and hold up those who send.
	together = 200

	// rest is how long the index waits for more of the log. Who searches does not.
	rest = time.Second

	// pastRest is how long it waits between transactions about the past.
	pastRest = 20 * time.Millisecond
)

// Run keeps the index up to date until ctx is done. What was stored before there
// was an index follows when there is nothing else to do, the newest of it first.
func (s *Service) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		rung := s.Bell.Listen(store.LogBell)
		err := s.catchUp(ctx)
		past := false
		if err == nil {
			past, err = s.lookBack(ctx)
		}
		switch {
		case ctx.Err() != nil:
		case err != nil:
			zerolog.Ctx(ctx).Err(err).Msg("the index of words could not be written; trying again")
			pause(ctx, time.Minute)
		case past:
			pause(ctx, pastRest)
		default:
			select {
			case <-rung:
			case <-ctx.Done():
			}
			pause(ctx, rest)
		}
	}
	return nil
}

// pause waits for a while or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// catchUp brings the index to the end of the log.
func (s *Service) catchUp(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	span, err := s.Store.Span(ctx)
	if err != nil {
		return err
	}
	for upto := store.EventNum(s.Store.Position()); span.Above < upto; {
		nums, err := s.Store.StoredAfter(ctx, span.Above, upto, together)
		if err != nil {
			return err
		}
		if span.Above = upto; len(nums) == together {
			span.Above = nums[len(nums)-1]
		}
		if err := s.put(ctx, nums, span); err != nil {
			return err
		}
	}
	for {
		nums, err := s.Store.Again(ctx, together)
		if err != nil || len(nums) == 0 {
			return err
		}
		if err := s.putAgain(ctx, nums); err != nil {
			return err
		}
	}
}

// lookBack puts some events into the index that were stored before there was one,
// and tells whether there are more.
func (s *Service) lookBack(ctx context.Context) (more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	span, err := s.Store.Span(ctx)
	if err != nil || span.Below == 0 {
		return false, err
	}
	nums, err := s.Store.StoredBefore(ctx, span.Below, together)
	if err != nil {
		return false, err
	}
	if span.Below = 0; len(nums) == together {
		span.Below = nums[len(nums)-1] - 1
	}
	return span.Below > 0, s.put(ctx, nums, span)
}

// put writes the words of events, and how far the index goes with them. Where there
// is nothing to write, the index goes as far without.
func (s *Service) put(ctx context.Context, nums []store.EventNum, span store.Span) error {
	found, err := s.Store.EventsByNum(ctx, nums)
	if err != nil {
		return err
	}
	var list []store.Indexed
	for _, n := range nums {
		if i, ok := indexed(found[n]); ok {
			list = append(list, i)
		}
	}
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.PutSpan(ctx, span); err != nil {
			return err
		}
		return tx.PutWords(ctx, list)
	})
}

// putAgain writes the words of events anew. One that changes just now loses nothing
// by it: what the index says is looked at again where it is asked.
func (s *Service) putAgain(ctx context.Context, nums []store.EventNum) error {
	found, err := s.Store.EventsByNum(ctx, nums)
	if err != nil {
		return err
	}
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		for _, n := range nums {
			if err := tx.DropAgain(ctx, n); err != nil {
				return err
			}
			e := found[n]
			if e == nil || e.Pos == 0 {
				continue
			}
			if err := tx.DropWords(ctx, e.Pos); err != nil {
				return err
			}
			if i, ok := indexed(e); ok {
				if err := tx.PutWords(ctx, []store.Indexed{i}); err != nil {
					return fmt.Errorf("index %s again: %w", e.PDU.ID, err)
				}
			}
		}
		return nil
	})
}

// indexed is what of an event goes into the index, and whether anything does.
func indexed(e *store.Event) (store.Indexed, bool) {
	if e == nil || e.Pos == 0 || e.Status != store.Accepted || e.RedactedBy != 0 {
		return store.Indexed{}, false
	}
	key, text := textOf(e.PDU)
	i := store.Indexed{Event: e, Key: key, Words: words.Keys(text)}
	return i, len(i.Words) > 0
}

// textOf is the text by which an event is found, and under which key of its content
// it stands. An event that replaces another has the text that it puts there.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#room_events
func textOf(p *event.PDU) (key, text string) {
	switch {
	case p.Is("m.room.name", ""):
		return "name", p.ContentString("name")
	case p.Is("m.room.topic", ""):
		text = p.ContentString("topic")
		if plain := plainTopic(p); plain != text {
			text += "\n" + plain
		}
		return "topic", text
	case p.Type == "m.room.message" && !p.IsState():
		if changed := p.ContentValue("m.new_content"); changed != nil && replacing(p) {
			var c struct {
				Body string `json:"body"`
			}
			if json.Unmarshal(changed, &c) != nil {
				return "", ""
			}
			return "body", c.Body
		}
		return "body", p.ContentString("body")
	}
	return "", ""
}

// replacing tells whether an event is to replace another.
func replacing(p *event.PDU) bool {
	var c struct {
		Type string `json:"rel_type"`
	}
	return json.Unmarshal(p.ContentValue("m.relates_to"), &c) == nil && c.Type == store.Replacing
}

// plainTopic is the text of a topic without markup.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mroomtopic
func plainTopic(p *event.PDU) string {
	var c struct {
		Texts []struct {
			Body string  `json:"body"`
			Mime *string `json:"mimetype"`
		} `json:"m.text"`
	}
	if json.Unmarshal(p.ContentValue("m.topic"), &c) != nil {
		return ""
	}
	for _, t := range c.Texts {
		if t.Mime == nil || *t.Mime == "text/plain" {
			return t.Body
		}
	}
	return ""
}
