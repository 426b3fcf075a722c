package calltest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pion/webrtc/v4"
	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/homeserver/matrix"
)

const (
	voiceDelay  = time.Second
	callLife    = 10 * time.Minute
	maxLifetime = 2 * time.Minute // of an invitation
	sampling    = time.Second
)

// callContent is what events of calls hold, each a part of it.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#voice-over-ip
type callContent struct {
	CallID      string            `json:"call_id"`
	PartyID     string            `json:"party_id"`
	Version     event.CallVersion `json:"version"` // 0, or "1"
	Lifetime    int64             `json:"lifetime"`
	Invitee     id.UserID         `json:"invitee"`
	Offer       description       `json:"offer"`
	Description description       `json:"description"`
	Selected    string            `json:"selected_party_id"`
	Candidates  []struct {
		Candidate string  `json:"candidate"`
		Mid       *string `json:"sdpMid"`
		Line      *uint16 `json:"sdpMLineIndex"`
	} `json:"candidates"`
}

type description struct {
	Type string `json:"type"`
	SDP  string `json:"sdp"`
}

// call is one that the bot answers.
type call struct {
	bot     *Bot
	room    id.RoomID
	caller  id.UserID
	content callContent // of the invitation
	party   string      // that the bot is
	began   time.Time

	peer    *peer // nil until it is answered; guarded by Bot.mu
	pending []webrtc.ICECandidateInit
	end     chan ending // holds one
}

// ending is why a call is over.
type ending struct {
	reason string // that the caller is told; "" if it was the caller who ended it
	words  string // for people; may be ""
}

// over ends the call, unless it has ended already.
func (c *call) over(e ending) {
	select {
	case c.end <- e:
	default:
	}
}

func (c *call) hangUp(reason, words string) { c.over(ending{reason, words}) }

// read decodes the content of an event of a call.
func read(e *event.Event) (c callContent, ok bool) {
	err := json.Unmarshal(e.Content.VeryRaw, &c)
	return c, err == nil && c.CallID != "" && len(c.CallID) <= 255 && len(c.PartyID) <= 255
}

// one reports whether the caller speaks version 1, where the parties have names.
func (c callContent) one() bool { return c.Version != "0" && c.Version != "" }

// invite answers a call, or says why not.
func (b *Bot) invite(ctx context.Context, e *event.Event) {
	content, ok := read(e)
	life := time.Duration(content.Lifetime) * time.Millisecond
	if !ok || time.Since(time.UnixMilli(e.Timestamp)) > min(max(life, 10*time.Second), maxLifetime) || !b.local(e.Sender) {
		return
	}
	if content.Invitee != "" && content.Invitee != b.user || content.Invitee == "" && !b.alone(ctx, e.RoomID) {
		return
	}
	c := &call{bot: b, room: e.RoomID, caller: e.Sender, content: content, party: "calltest", began: time.Now(), end: make(chan ending, 1)}
	if !b.add(c) {
		b.task(ctx, c.room, "a call could not be refused", c.refuse)
		return
	}
	b.begin(func() { c.run(context.WithoutCancel(ctx)) })
}

// add enters a call into the list. It reports false for who calls already.
func (b *Bot) add(c *call) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, other := range b.calls {
		if other.room == c.room || other.caller == c.caller {
			return false
		}
	}
	b.calls[c.room] = c
	return true
}

// find gives the call that an event is about, if it comes from the caller.
func (b *Bot) find(e *event.Event) (*call, callContent) {
	content, ok := read(e)
	if !ok {
		return nil, content
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.calls[e.RoomID]
	if c == nil || c.content.CallID != content.CallID || c.caller != e.Sender || c.content.one() && c.content.PartyID != content.PartyID {
		return nil, content
	}
	return c, content
}

// candidates takes further addresses of the caller.
func (b *Bot) candidates(_ context.Context, e *event.Event) {
	c, content := b.find(e)
	if c == nil {
		return
	}
	for _, x := range content.Candidates {
		if x.Candidate == "" { // there are no more
			continue
		}
		init := webrtc.ICECandidateInit{Candidate: x.Candidate, SDPMid: x.Mid, SDPMLineIndex: x.Line}
		b.mu.Lock()
		p := c.peer
		if p == nil && len(c.pending) < maxCandidates {
			c.pending = append(c.pending, init)
		}
		b.mu.Unlock()
		if p != nil {
			p.addCandidate(init) //nolint:errcheck // one that makes no sense is as good as none
		}
	}
}

// selected ends the call if another one has answered it.
func (b *Bot) selected(_ context.Context, e *event.Event) {
	if c, content := b.find(e); c != nil && content.Selected != c.party {
		c.over(ending{})
	}
}

// hungUp ends the call that the caller has ended.
func (b *Bot) hungUp(_ context.Context, e *event.Event) {
	if c, _ := b.find(e); c != nil {
		c.over(ending{})
	}
}

// negotiate answers a change of the call, such as that it is held.
func (b *Bot) negotiate(ctx context.Context, e *event.Event) {
	c, content := b.find(e)
	if c == nil || content.Description.Type != "offer" {
		return
	}
	b.mu.Lock()
	p := c.peer
	b.mu.Unlock()
	if p == nil {
		return
	}
	b.task(ctx, c.room, "a change of a call could not be answered", func(ctx context.Context) error {
		answer, err := p.renegotiate(ctx, content.Description.SDP)
		if err != nil {
			return err
		}
		return c.send(ctx, event.CallNegotiate, map[string]any{"description": description{"answer", answer}, "lifetime": maxLifetime.Milliseconds()})
	})
}

// send sends an event of the call.
func (c *call) send(ctx context.Context, t event.Type, content map[string]any) error {
	content["call_id"] = c.content.CallID
	content["version"] = 0
	if c.content.one() {
		content["version"], content["party_id"] = "1", c.party
	}
	return c.bot.send(ctx, c.room, t, content)
}

// refuse tells the caller that the bot is busy.
func (c *call) refuse(ctx context.Context) error {
	if c.content.one() {
		return c.send(ctx, event.CallReject, map[string]any{"reason": "user_busy"})
	}
	return c.send(ctx, event.CallHangup, map[string]any{"reason": "user_busy"})
}

// run answers a call, waits until it is over, and tells how it was.
func (c *call) run(ctx context.Context) {
	b := c.bot
	log := zerolog.Ctx(ctx).With().Str("room", string(c.room)).Str("user", string(c.caller)).Logger()
	p, err := c.answer(ctx)
	if err != nil {
		log.Info().Err(err).Msg("call test: a call could not be answered")
		words := "I could not answer your call."
		if known := new(matrix.Error); errors.As(err, &known) && known.Cause == nil {
			words += " The reason: " + known.Text + "."
		}
		c.finish(ctx, ending{"unknown_error", words})
		return
	}
	var q quality
	why := ending{reason: "ice_failed"}
	tick := time.NewTicker(sampling)
	defer tick.Stop()
wait:
	for {
		select {
		case why = <-c.end:
			break wait
		case <-p.gone:
			if time.Since(c.began) >= callLife {
				why = ending{"user_hangup", fmt.Sprintf("I end calls after %d minutes.", callLife/time.Minute)}
			}
			break wait
		case <-tick.C:
			q = later(q, p.quality())
		}
	}
	q = later(q, p.quality())
	length := time.Since(c.began)
	p.close()
	log.Info().Str("path", q.theirs).Str("codec", q.codec).Int64("received", q.received).Int64("lost", q.lost).Dur("length", length).Msg("call test: a call ended")
	why.words = strings.TrimSpace(why.words + "\n" + q.report(length, b.Page))
	c.finish(ctx, why)
}

// answer connects with the caller.
func (c *call) answer(ctx context.Context) (*peer, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	p, answer, err := c.bot.Calls.open(ctx, c.content.Offer.SDP, voiceDelay, callLife)
	if err != nil {
		return nil, err
	}
	err = c.send(ctx, event.CallAnswer, map[string]any{
		"answer":       description{"answer", answer},
		"capabilities": map[string]bool{"m.call.transferee": false, "m.call.dtmf": false},
	})
	if err != nil {
		p.close()
		return nil, err
	}
	c.bot.mu.Lock()
	c.peer = p
	pending := c.pending
	c.pending = nil
	c.bot.mu.Unlock()
	for _, init := range pending {
		p.addCandidate(init) //nolint:errcheck // one that makes no sense is as good as none
	}
	return p, nil
}

// finish ends the call for the caller, too, and says what is to be said. Before
// that the call leaves the list: who reads it may call again at once.
func (c *call) finish(ctx context.Context, why ending) {
	c.bot.mu.Lock()
	delete(c.bot.calls, c.room)
	c.bot.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	var errs []error
	if why.reason != "" {
		errs = append(errs, c.send(ctx, event.CallHangup, map[string]any{"reason": why.reason}))
	}
	if why.words != "" {
		errs = append(errs, c.bot.tell(ctx, c.room, why.words))
	}
	if err := errors.Join(errs...); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Str("room", string(c.room)).Msg("call test: the end of a call could not be told")
	}
}
