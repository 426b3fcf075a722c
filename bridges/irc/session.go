package irc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/status"
	"maunium.net/go/mautrix/event"

	"switchboard/bridges/bridge"
	"switchboard/bridges/irc/client"
)

// session is one login with its connection.
type session struct {
	network *network
	client  *client.Client
	login   *bridgev2.UserLogin // nil until the log-in is complete
	tasks   bridge.Line

	saving sync.Mutex // tier 2; held from a change of the login's metadata until it is written down
	out    sync.Mutex // tier 2; one text after the other is given to the connection

	mu      sync.Mutex // tier 1, taken before the network's and the client's; guards what follows
	cancel  context.CancelFunc
	done    chan struct{} // closed when run has ended; nil when it never ran
	refused error         // why the network does not want this login any more
	waiting map[string][]*outgoing
	order   uint64
	splits  map[string]*split
	leaving map[string]bool // folded channels that we are about to leave
	answer  time.Time       // when the next CTCP request may be answered
}

var (
	_ bridgev2.NetworkAPI                    = (*session)(nil)
	_ bridgev2.NetworkAPIWithUserID          = (*session)(nil)
	_ bridgev2.EditHandlingNetworkAPI        = (*session)(nil)
	_ bridgev2.MembershipHandlingNetworkAPI  = (*session)(nil)
	_ bridgev2.PowerLevelHandlingNetworkAPI  = (*session)(nil)
	_ bridgev2.RoomTopicHandlingNetworkAPI   = (*session)(nil)
	_ bridgev2.IdentifierResolvingNetworkAPI = (*session)(nil)
)

// newSession prepares a session without connecting.
func newSession(n *network, meta *LoginMetadata) (*session, error) {
	s := &session{
		network: n, waiting: make(map[string][]*outgoing),
		splits: make(map[string]*split), leaving: make(map[string]bool),
	}
	cfg, err := n.client(meta)
	if err != nil {
		return nil, err
	}
	s.client = client.New(cfg, s.onEvent)
	s.client.Want(meta.Channels)
	if meta.Casemapping != "" {
		n.setCasemapping(meta.Casemapping)
	}
	return s, nil
}

// attach makes the session that of a login.
func (s *session) attach(login *bridgev2.UserLogin) {
	s.login = login
	s.client.FallBack()
	login.Client = s
	s.network.mu.Lock()
	s.network.sessions[login.ID] = s
	s.network.mu.Unlock()
}

func (s *session) meta() *LoginMetadata { return s.login.Metadata.(*LoginMetadata) }

// relay reports whether the session is the configured relay, which is no
// person and does not appear in rooms.
func (s *session) relay() bool { return s.meta().Relay }

// context is for work that no caller waits for.
func (s *session) context() context.Context {
	return s.login.Log.WithContext(s.network.connector.br.BackgroundCtx)
}

// Connect implements bridgev2.NetworkAPI.
func (s *session) Connect(context.Context) {
	s.mu.Lock()
	if s.done != nil || s.refused != nil {
		s.mu.Unlock()
		return
	}
	ctx, cancel := context.WithCancel(s.context())
	done := make(chan struct{})
	s.cancel, s.done = cancel, done
	s.mu.Unlock()
	s.state(status.BridgeState{StateEvent: status.StateConnecting})
	bridge.Go(ctx, "the IRC session ended", func() error {
		defer close(done)
		return s.run(ctx)
	})
}

// run keeps the connection until ctx is done or the network wants no more.
func (s *session) run(ctx context.Context) error {
	if s.client.Online() { // from the log-in
		s.onEvent(client.Connected{Nick: s.client.Nick(), Wanted: s.client.Nick()})
		s.client.Rejoin()
	} else if err := s.network.turn(ctx); err != nil {
		return nil
	}
	err := s.client.Run(ctx)
	if err == nil {
		return nil
	}
	s.mu.Lock()
	s.refused = err
	s.mu.Unlock()
	s.failWaiting(err)
	s.state(status.BridgeState{
		StateEvent: status.StateBadCredentials, Error: "irc-refused",
		Message: fmt.Sprintf("%s does not let %s in: %v. Use relogin to try again.", s.network.Name, s.client.Nick(), err),
	})
	return err
}

// state tells the state of the login. Troubles of the relay go to the log only:
// bridgev2 would write them to the login's owner, and that is the bot itself.
func (s *session) state(st status.BridgeState) {
	if s.relay() && (st.StateEvent == status.StateBadCredentials || st.StateEvent == status.StateTransientDisconnect) {
		ctx := s.context()
		zerolog.Ctx(ctx).Warn().Str("state", string(st.StateEvent)).Msg(st.Message)
		return
	}
	bridge.Tell(s.login, st)
}

// drainTimeout is how long a stop waits for the rooms to get what has come.
const drainTimeout = 5 * time.Second

// Disconnect implements bridgev2.NetworkAPI.
func (s *session) Disconnect() {
	s.mu.Lock()
	cancel, done := s.cancel, s.done
	for _, sp := range s.splits {
		sp.stop()
	}
	clear(s.splits)
	s.mu.Unlock()
	if done == nil {
		return
	}
	cancel()
	<-done
	s.mu.Lock()
	s.cancel, s.done = nil, nil
	s.mu.Unlock()
	s.failWaiting(errors.New("the bridge is stopping"))
	s.tasks.Wait()
	bridge.Drain(s.login, drainTimeout)
}

// IsLoggedIn implements bridgev2.NetworkAPI. A lost connection does not end a
// login: messages wait for the next one.
func (s *session) IsLoggedIn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused == nil
}

// LogoutRemote implements bridgev2.NetworkAPI.
func (s *session) LogoutRemote(context.Context) {
	s.Disconnect()
	s.network.mu.Lock()
	if s.network.sessions[s.login.ID] == s {
		delete(s.network.sessions, s.login.ID)
	}
	s.network.mu.Unlock()
}

// IsThisUser implements bridgev2.NetworkAPI.
func (s *session) IsThisUser(_ context.Context, id networkid.UserID) bool { return id == s.GetUserID() }

// GetUserID implements bridgev2.NetworkAPIWithUserID.
func (s *session) GetUserID() networkid.UserID { return s.network.userID(s.client.Nick()) }

// GetCapabilities implements bridgev2.NetworkAPI.
func (s *session) GetCapabilities(context.Context, *bridgev2.Portal) *event.RoomFeatures {
	file := &event.FileFeatures{
		MimeTypes: map[string]event.CapabilitySupportLevel{"*/*": event.CapLevelPartialSupport},
		Caption:   event.CapLevelPartialSupport,
	}
	return &event.RoomFeatures{
		ID: "switchboard.irc.1",
		Formatting: event.FormattingFeatureMap{
			event.FmtBold: event.CapLevelFullySupported, event.FmtItalic: event.CapLevelFullySupported,
			event.FmtUnderline: event.CapLevelFullySupported, event.FmtStrikethrough: event.CapLevelFullySupported,
			event.FmtInlineCode: event.CapLevelFullySupported, event.FmtCodeBlock: event.CapLevelPartialSupport,
			event.FmtUserLink: event.CapLevelFullySupported, event.FmtInlineLink: event.CapLevelPartialSupport,
			event.FmtTextForegroundColor: event.CapLevelPartialSupport, event.FmtTextBackgroundColor: event.CapLevelPartialSupport,
			event.FmtSpoiler: event.CapLevelPartialSupport, event.FmtBlockquote: event.CapLevelPartialSupport,
			event.FmtUnorderedList: event.CapLevelPartialSupport, event.FmtOrderedList: event.CapLevelPartialSupport,
		},
		File: event.FileFeatureMap{
			event.MsgImage: file, event.MsgVideo: file, event.MsgAudio: file, event.MsgFile: file,
			event.CapMsgVoice: file, event.CapMsgGIF: file, event.CapMsgSticker: file,
		},
		State: event.StateFeatureMap{
			event.StateTopic.Type: {Level: event.CapLevelFullySupported},
		},
		MemberActions: event.MemberFeatureMap{
			event.MemberActionKick: event.CapLevelFullySupported, event.MemberActionBan: event.CapLevelPartialSupport,
			event.MemberActionInvite: event.CapLevelFullySupported, event.MemberActionLeave: event.CapLevelFullySupported,
		},
		LocationMessage:        event.CapLevelPartialSupport,
		Reply:                  event.CapLevelPartialSupport,
		Edit:                   event.CapLevelPartialSupport,
		Reaction:               event.CapLevelRejected,
		Delete:                 event.CapLevelRejected,
		PerMessageProfileRelay: true, // the name goes before each line, see HandleMatrixMessage
	}
}

// saveChannels keeps the list of channels to enter after a restart.
func (s *session) saveChannels() {
	s.update(func(meta *LoginMetadata) bool {
		list := s.client.Wanted()
		if slices.Equal(meta.Channels, list) {
			return false
		}
		meta.Channels = list
		return true
	})
}

// update changes what is kept of the login and, if change says so, saves it.
func (s *session) update(change func(*LoginMetadata) bool) {
	s.saving.Lock()
	defer s.saving.Unlock()
	m := s.meta()
	m.mu.Lock()
	changed := change(m)
	m.mu.Unlock()
	if !changed {
		return
	}
	ctx := s.context()
	if err := bridge.Save(ctx, s.login); err != nil {
		zerolog.Ctx(ctx).Err(err).Msg("the login could not be saved")
	}
}
