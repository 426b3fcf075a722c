package xmpp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/simplevent"
	"maunium.net/go/mautrix/bridgev2/status"
	"mellium.im/xmpp/jid"

	"switchboard/bridges/bridge"
	"switchboard/bridges/xmpp/client"
)

// session is one login with its connection.
type session struct {
	connector *Connector
	client    *client.Client
	login     *bridgev2.UserLogin
	account   *lane // of all chats between two
	archive   func(context.Context, client.Query) (client.Page, error)

	saving sync.Mutex // tier 2; guards saved
	saved  time.Time  // when the login's metadata was last saved
	work   sync.WaitGroup
	looks  atomic.Int64 // at the archive, see lookAgain

	mu      sync.Mutex // tier 1; guards what follows
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{} // closed when run has ended; nil when it never ran
	refused error         // why the server does not want this login any more
	lanes   map[string]*lane
	roster  map[string]client.RosterItem
}

var (
	_ bridgev2.NetworkAPI                    = (*session)(nil)
	_ bridgev2.NetworkAPIWithUserID          = (*session)(nil)
	_ bridgev2.EditHandlingNetworkAPI        = (*session)(nil)
	_ bridgev2.ReactionHandlingNetworkAPI    = (*session)(nil)
	_ bridgev2.RedactionHandlingNetworkAPI   = (*session)(nil)
	_ bridgev2.ReadReceiptHandlingNetworkAPI = (*session)(nil)
	_ bridgev2.TypingHandlingNetworkAPI      = (*session)(nil)
	_ bridgev2.MembershipHandlingNetworkAPI  = (*session)(nil)
	_ bridgev2.RoomTopicHandlingNetworkAPI   = (*session)(nil)
	_ bridgev2.PowerLevelHandlingNetworkAPI  = (*session)(nil)
	_ bridgev2.IdentifierResolvingNetworkAPI = (*session)(nil)
	_ bridgev2.ContactListingNetworkAPI      = (*session)(nil)
)

func (s *session) meta() *LoginMetadata { return s.login.Metadata.(*LoginMetadata) }

// Connect implements bridgev2.NetworkAPI.
func (s *session) Connect(context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done != nil || s.refused != nil {
		return
	}
	s.ctx, s.cancel = context.WithCancel(s.login.Log.WithContext(s.connector.br.BackgroundCtx))
	ctx, done := s.ctx, make(chan struct{})
	s.done = done
	bridge.Tell(s.login, status.BridgeState{StateEvent: status.StateConnecting})
	s.work.Add(1)
	bridge.Go(ctx, "rooms are not asked any more", func() error { defer s.work.Done(); s.watch(ctx); return nil })
	bridge.Go(ctx, "the XMPP session ended", func() error {
		defer close(done)
		return s.run(ctx)
	})
}

// run keeps the connection until ctx is done or the server wants no more.
func (s *session) run(ctx context.Context) error {
	err := s.client.Run(ctx)
	if err == nil {
		return nil
	}
	s.mu.Lock()
	s.refused = err
	s.mu.Unlock()
	s.failAll(err)
	bridge.Tell(s.login, status.BridgeState{
		StateEvent: status.StateBadCredentials, Error: "xmpp-refused",
		Message: fmt.Sprintf("%v. Was the password of %s changed? Say `login` to log in again.", err, s.login.ID),
	})
	return err
}

// context is for work that no caller waits for.
func (s *session) context() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx != nil {
		return s.ctx
	}
	return s.login.Log.WithContext(s.connector.br.BackgroundCtx)
}

// Disconnect implements bridgev2.NetworkAPI.
func (s *session) Disconnect() {
	s.mu.Lock()
	cancel, done := s.cancel, s.done
	s.mu.Unlock()
	if done == nil {
		return
	}
	cancel()
	<-done
	s.work.Wait()
	if s.connector.br.IsStopping() {
		s.abandon()
	} else {
		s.failAll(errors.New("you have logged out"))
	}
	s.save(true)
	s.mu.Lock()
	s.cancel, s.done = nil, nil
	s.mu.Unlock()
}

// IsLoggedIn implements bridgev2.NetworkAPI. A lost connection does not end a
// login: messages wait for the next one.
func (s *session) IsLoggedIn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused == nil
}

// LogoutRemote implements bridgev2.NetworkAPI.
func (s *session) LogoutRemote(context.Context) { s.Disconnect() }

// GetUserID implements bridgev2.NetworkAPIWithUserID.
func (s *session) GetUserID() networkid.UserID { return networkid.UserID(s.login.ID) }

// IsThisUser implements bridgev2.NetworkAPI.
func (s *session) IsThisUser(_ context.Context, id networkid.UserID) bool { return id == s.GetUserID() }

// update reads or changes what is kept of the login; save writes it down.
func (s *session) update(change func(*LoginMetadata)) {
	m := s.meta()
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
}

// room is what is kept of a room.
func (s *session) room(room jid.JID) (st RoomState, ok bool) {
	s.update(func(m *LoginMetadata) { st, ok = m.Rooms[room.String()] })
	return st, ok
}

func (s *session) setRoom(room jid.JID, change func(*RoomState)) {
	s.update(func(m *LoginMetadata) {
		if m.Rooms == nil {
			m.Rooms = make(map[string]RoomState)
		}
		st := m.Rooms[room.String()]
		change(&st)
		m.Rooms[room.String()] = st
	})
}

// changeRoom is setRoom for a room that was not left meanwhile.
func (s *session) changeRoom(room jid.JID, change func(*RoomState)) {
	s.update(func(m *LoginMetadata) {
		if st, ok := m.Rooms[room.String()]; ok {
			change(&st)
			m.Rooms[room.String()] = st
		}
	})
}

func (s *session) dropRoom(room jid.JID) {
	s.update(func(m *LoginMetadata) { delete(m.Rooms, room.String()) })
	s.save(true)
}

// saveGap is how often a position in an archive is written down. After a kill
// what came later is read again, and known to be there.
const saveGap = 5 * time.Second

func (s *session) save(now bool) {
	s.saving.Lock()
	defer s.saving.Unlock()
	if !now && time.Since(s.saved) < saveGap {
		return
	}
	s.saved = time.Now()
	ctx := s.login.Log.WithContext(s.connector.br.BackgroundCtx)
	if err := bridge.Save(ctx, s.login); err != nil {
		s.login.Log.Err(err).Msg("the login could not be saved")
	}
}

// about is what an event says of itself.
func (s *session) about(t bridgev2.RemoteEventType, chat jid.JID, sender bridgev2.EventSender, at time.Time) simplevent.EventMeta {
	if at.IsZero() {
		at = time.Now()
	}
	return simplevent.EventMeta{Type: t, PortalKey: s.key(chat), Sender: sender, Timestamp: at}
}

// exists reports whether a chat has a room.
func (s *session) exists(ctx context.Context, chat jid.JID) bool {
	return bridge.Exists(ctx, s.login, s.key(chat))
}
