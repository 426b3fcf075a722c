package bridge

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/commands"
	"maunium.net/go/mautrix/bridgev2/matrix"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/status"
	"maunium.net/go/mautrix/event"
)

// states are how the logins are. The queue that mautrix has for this is read
// while it is written, so it stays empty.
type states struct {
	mu sync.Mutex // tier 1; guards what follows
	of map[networkid.UserLoginID]*state
}

// state is how a login is.
type state struct {
	status.BridgeState
	warned bool        // the owner knows of a trouble
	late   *time.Timer // warns of a connection that does not come back; nil while there is one
	notes  Line        // to the owner, in order
}

// lateAfter is how long a connection may be away before its owner is told.
const lateAfter = 3 * time.Minute

// Tell notes how a login is, for its owner and for Health. Its owner reads the
// message of a trouble that does not go away by itself, at once, of a connection
// that is lost, after some minutes, and that all is well again. Connectors call
// it instead of the login's own BridgeState.
func Tell(login *bridgev2.UserLogin, st status.BridgeState) {
	all := &sideOf(login.Bridge).states
	all.mu.Lock()
	defer all.mu.Unlock()
	s := all.of[login.ID]
	if s == nil {
		s = new(state)
		all.of[login.ID] = s
	}
	if st.RemoteName == "" {
		st.RemoteName = s.RemoteName
	}
	same := s.StateEvent == st.StateEvent && s.Error == st.Error && s.Message == st.Message
	s.BridgeState = st
	switch st.StateEvent {
	case status.StateBadCredentials, status.StateUnknownError:
		s.settle()
		if !same {
			s.note(login, st.Message)
		}
	case status.StateTransientDisconnect:
		if s.late == nil {
			s.late = time.AfterFunc(lateAfter, func() { all.warn(login) })
		}
	case status.StateConnected:
		s.settle()
		if s.warned {
			s.note(login, "All is well again.")
		}
		s.warned = false
	}
}

// settle ends the waiting for a connection. The caller holds the states' mu.
func (s *state) settle() {
	if s.late != nil {
		s.late.Stop()
		s.late = nil
	}
}

// note writes to the login's owner. The caller holds the states' mu.
func (s *state) note(login *bridgev2.UserLogin, text string) {
	s.warned = true
	name := s.RemoteName
	if name == "" {
		name = string(login.ID)
	}
	ctx := login.Log.WithContext(login.Bridge.BackgroundCtx)
	s.notes.Add(ctx, func() { Note(ctx, login, "%s: %s", name, text) })
}

// warn tells that a connection has not come back.
func (all *states) warn(login *bridgev2.UserLogin) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if s := all.of[login.ID]; s != nil && s.StateEvent == status.StateTransientDisconnect {
		s.late = nil
		s.note(login, s.Message)
	}
}

// last is what was told last of a login.
func (all *states) last(id networkid.UserLoginID) status.BridgeState {
	all.mu.Lock()
	defer all.mu.Unlock()
	if s := all.of[id]; s != nil {
		return s.BridgeState
	}
	return status.BridgeState{StateEvent: status.StateStarting}
}

// forget drops what is known of a login that is gone.
func (all *states) forget(id networkid.UserLoginID) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if s := all.of[id]; s != nil {
		s.settle()
		delete(all.of, id)
	}
}

// stop ends all waiting, and waits for the notes that are on their way.
func (all *states) stop() {
	all.mu.Lock()
	of := maps.Clone(all.of)
	for _, s := range of {
		s.settle()
	}
	all.mu.Unlock()
	for _, s := range of {
		s.notes.Wait()
	}
}

// Note writes to a login's owner, in the management room.
func Note(ctx context.Context, login *bridgev2.UserLogin, format string, args ...any) {
	room, err := login.User.GetManagementRoom(ctx)
	if err == nil {
		content := &event.Content{Parsed: &event.MessageEventContent{MsgType: event.MsgNotice, Body: fmt.Sprintf(format, args...)}}
		_, err = login.Bridge.Bot.SendMessage(ctx, room, event.EventMessage, content, nil)
	}
	if err != nil {
		zerolog.Ctx(ctx).Err(err).Str("user", string(login.UserMXID)).Msg("a notice could not be sent to the user")
	}
}

// list names a user's logins and how they are.
func (s *side) list(user *bridgev2.User) string {
	var lines []string
	for _, login := range user.GetUserLogins() {
		st := s.states.last(login.ID)
		name := st.RemoteName
		if name == "" {
			name = login.RemoteName
		}
		lines = append(lines, fmt.Sprintf("* `%s` (%s): `%s`", login.ID, name, st.StateEvent))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// commands are those of mautrix that list logins, or that know no Matrix side
// but mautrix' own.
func (s *side) commands() []commands.CommandHandler {
	listing := *commands.CommandListLogins
	listing.Func = func(ce *commands.Event) {
		if list := s.list(ce.User); list != "" {
			ce.Reply("%s", list)
			return
		}
		ce.Reply("You're not logged in")
	}
	discard := *matrix.CommandDiscardMegolmSession
	discard.Func = func(ce *commands.Event) { ce.Reply("This bridge does not encrypt.") }
	out := []commands.CommandHandler{&listing, &discard}
	for _, of := range []*commands.FullHandler{commands.CommandLogout, commands.CommandRelogin, commands.CommandSetPreferredLogin} {
		own := *of
		own.Func = func(ce *commands.Event) {
			if len(ce.Args) == 0 {
				ce.Reply("Usage: `$cmdprefix %s <login ID>`\n\nYour logins:\n\n%s", of.Name, s.list(ce.User))
				return
			}
			of.Func(ce)
		}
		out = append(out, &own)
	}
	return out
}
