package bridge

import (
	"context"
	"errors"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/matrix"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/status"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// side is mautrix' connector to the homeserver, with what this package does
// itself: there mautrix reads in one goroutine what it writes in another, or
// sends requests that the host's wire never sees.
type side struct {
	*matrix.Connector
	states   states
	openings openings
	ghosts   ghosts
	telling  telling
}

func newSide(mx *matrix.Connector) *side {
	return &side{
		Connector: mx,
		states:    states{of: make(map[networkid.UserLoginID]*state)},
		openings:  openings{waiting: make(map[networkid.PortalKey][]queued), touched: make(map[networkid.UserLoginID]map[networkid.PortalKey]bool)},
		ghosts:    ghosts{seed: maphash.MakeSeed(), introduced: make(map[networkid.UserID]bool)},
		telling:   telling{lines: make(map[id.RoomID]*Line)},
	}
}

// sideOf is the side of the bridge that a login belongs to, which must run in a
// Host.
func sideOf(br *bridgev2.Bridge) *side { return br.Matrix.(*side) }

// GenerateReactionEventID implements bridgev2.MatrixConnector: a reaction of the
// past that comes again has the same ID. Mautrix makes up another one.
func (s *side) GenerateReactionEventID(room id.RoomID, to *database.Message, sender networkid.UserID, emoji networkid.EmojiID) id.EventID {
	what := strings.Join([]string{"reaction", string(to.PartID), string(sender), string(emoji)}, "\n")
	return s.GenerateDeterministicEventID(room, to.Room, to.ID, networkid.PartID(what))
}

// withoutCheckpoints keeps mautrix from noting that an event has come, which it
// does nothing with here, but reads the event for while others change it.
func (s *side) withoutCheckpoints() {
	for kind := range status.CheckpointTypes {
		s.EventProcessor.PrependHandler(kind, func(_ context.Context, e *event.Event) { e.Mautrix.CheckpointSent = true })
	}
}

// telling are the message statuses on their way, one after the other in each
// room.
type telling struct {
	mu    sync.Mutex // tier 1; guards lines
	lines map[id.RoomID]*Line
}

// tellTimeout is how long it may take to tell what became of an event.
const tellTimeout = time.Minute

// SendMessageStatus implements bridgev2.MatrixConnector: it tells a user what
// became of an event, by a status event, a receipt of the bot if it arrived, and
// a notice if it failed in a way that the user must know of.
func (s *side) SendMessageStatus(ctx context.Context, st *bridgev2.MessageStatus, about *bridgev2.MessageStatusEventInfo) {
	if about.EventType.IsEphemeral() || about.SourceEventID == "" {
		return
	}
	s.telling.mu.Lock()
	defer s.telling.mu.Unlock()
	line := s.telling.lines[about.RoomID]
	if line == nil {
		line = new(Line)
		s.telling.lines[about.RoomID] = line
	}
	told := *st
	ctx = context.WithoutCancel(ctx) // the bridge finishes this while it stops
	line.Add(ctx, func() {
		ctx, cancel := context.WithTimeout(ctx, tellTimeout)
		defer cancel()
		if err := s.tellStatus(ctx, &told, about); err != nil {
			zerolog.Ctx(ctx).Warn().Err(err).Str("room", string(about.RoomID)).Str("event", string(about.SourceEventID)).
				Msg("what became of an event could not be told")
		}
	})
}

func (s *side) tellStatus(ctx context.Context, st *bridgev2.MessageStatus, about *bridgev2.MessageStatusEventInfo) error {
	if errors.Is(st.InternalError, bridgev2.ErrNotLoggedIn) {
		if why := s.whyLost(ctx, about); why != "" {
			st.Message, st.ErrorAsMessage = why, false
		}
	}
	failed := st.Status == event.MessageStatusFail || st.Status == event.MessageStatusRetriable
	var errs []error
	if !st.DisableMSS {
		_, err := s.Bot.SendMessageEvent(ctx, about.RoomID, event.BeeperMessageStatus, st.ToMSSEvent(about))
		errs = append(errs, err)
	}
	if failed && st.SendNotice && about.MessageType != event.MsgNotice {
		_, err := s.Bot.SendMessageEvent(ctx, about.RoomID, event.EventMessage, st.ToNoticeEvent(about))
		errs = append(errs, err)
	}
	if st.Status == event.MessageStatusSuccess {
		errs = append(errs, s.Bot.SendReceipt(ctx, about.RoomID, about.SourceEventID, event.ReceiptTypeRead, nil))
	}
	return errors.Join(errs...)
}

// whyLost is what the user was told when the login ended that an event was for,
// or empty.
func (s *side) whyLost(ctx context.Context, about *bridgev2.MessageStatusEventInfo) string {
	user, err := s.Bridge.GetUserByMXID(ctx, about.Sender)
	if err != nil || user == nil {
		return ""
	}
	for _, login := range user.GetUserLogins() {
		if st := s.states.last(login.ID); st.StateEvent == status.StateBadCredentials && st.Message != "" {
			return st.Message
		}
	}
	return ""
}

// wait waits until everything is told, for a while.
func (t *telling) wait(timeout time.Duration) {
	t.mu.Lock()
	lines := slices.Collect(maps.Values(t.lines))
	t.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, l := range lines {
			l.Wait()
		}
	}()
	select {
	case <-done:
	case <-time.After(timeout):
	}
}

// SendBridgeStatus implements bridgev2.MatrixConnector. mautrix would tell an
// endpoint, by a client of its own; here states go no further than this process.
func (s *side) SendBridgeStatus(_ context.Context, st *status.BridgeState) error {
	if st.StateEvent == status.StateLoggedOut {
		s.states.forget(st.RemoteID)
	} else if login := s.Bridge.GetCachedUserLoginByID(st.RemoteID); login != nil {
		Tell(login, *st)
	}
	return nil
}
