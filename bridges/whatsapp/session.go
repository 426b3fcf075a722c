package whatsapp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/status"

	"switchboard/bridges/bridge"
)

// session is one login with its connection.
type session struct {
	connector *Connector
	login     *bridgev2.UserLogin
	client    *whatsmeow.Client // nil when the device is linked no more
	history   history

	mu       sync.Mutex // tier 1; guards what follows
	ctx      context.Context
	cancel   context.CancelFunc
	work     sync.WaitGroup // goroutines; added to only while ctx is alive
	ended    bool           // WhatsApp wants this device no more
	obstacle string         // why there will be no connection, for the user, or nothing
	blocks   int            // how often there was one; the last says whether to connect again
	active   *time.Timer    // ends that we are shown as online

	telling sync.Mutex // tier 2; held from a look at the obstacle until the state is told
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
	_ bridgev2.PowerLevelHandlingNetworkAPI  = (*session)(nil)
	_ bridgev2.RoomNameHandlingNetworkAPI    = (*session)(nil)
	_ bridgev2.RoomTopicHandlingNetworkAPI   = (*session)(nil)
	_ bridgev2.RoomAvatarHandlingNetworkAPI  = (*session)(nil)
	_ bridgev2.IdentifierResolvingNetworkAPI = (*session)(nil)
	_ bridgev2.GhostDMCreatingNetworkAPI     = (*session)(nil)
	_ bridgev2.ContactListingNetworkAPI      = (*session)(nil)
	_ bridgev2.BackfillingNetworkAPI         = (*session)(nil)
)

// Connect implements bridgev2.NetworkAPI.
func (s *session) Connect(context.Context) {
	if s.client == nil {
		s.lose(textUnlinked)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil || s.ended {
		return
	}
	s.obstacle = ""
	s.ctx, s.cancel = context.WithCancel(s.login.Log.WithContext(s.connector.br.BackgroundCtx))
	s.client.BackgroundEventCtx = s.ctx
	s.client.RemoveEventHandlers()
	ctx := s.ctx
	s.client.AddEventHandlerWithSuccessStatus(func(e any) bool { return s.handle(ctx, e) })
	bridge.Tell(s.login, status.BridgeState{StateEvent: status.StateConnecting})
	s.start("connect to WhatsApp", s.dial)
}

// dial connects.
func (s *session) dial(ctx context.Context) error {
	if err := s.client.ConnectContext(ctx); err != nil && ctx.Err() == nil {
		s.state(status.StateUnknownError, "whatsapp-unreachable", fmt.Sprintf("WhatsApp can not be reached: %v", err))
	}
	return nil
}

// start runs f in a goroutine that Disconnect waits for. The caller holds mu.
func (s *session) start(what string, f func(context.Context) error) {
	ctx := s.ctx
	s.work.Add(1)
	bridge.Go(ctx, what, func() error {
		defer s.work.Done()
		return f(ctx)
	})
}

// Disconnect implements bridgev2.NetworkAPI.
func (s *session) Disconnect() {
	s.mu.Lock()
	cancel := s.cancel
	s.cancel = nil
	if s.active != nil {
		s.active.Stop()
		s.active = nil
	}
	s.mu.Unlock()
	if cancel == nil {
		return
	}
	cancel()
	s.client.Disconnect()
	s.work.Wait()
	s.history.stop()
}

// hindrance is why there will be no connection, or nothing.
func (s *session) hindrance() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.obstacle
}

// IsLoggedIn implements bridgev2.NetworkAPI. A lost connection does not end a
// login: messages wait for the next one.
func (s *session) IsLoggedIn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client != nil && !s.ended
}

// logoutTimeout is how long WhatsApp may take to forget a device.
const logoutTimeout = 10 * time.Second

// LogoutRemote implements bridgev2.NetworkAPI.
func (s *session) LogoutRemote(ctx context.Context) {
	if s.client == nil {
		return
	}
	short, cancel := context.WithTimeout(ctx, logoutTimeout)
	defer cancel()
	if err := s.client.Logout(short); err != nil && !errors.Is(err, whatsmeow.ErrNotLoggedIn) {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("the phone will list a device that is not there any more")
		if err := s.client.Store.Delete(ctx); err != nil {
			zerolog.Ctx(ctx).Err(err).Msg("the keys of a device could not be deleted")
		}
	}
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.Disconnect()
	s.dropHistory(ctx)
}

// replaced ends a session whose login was linked anew, as another device.
func (s *session) replaced(ctx context.Context, by types.JID) {
	if s.client != nil && s.client.Store.ID != nil && *s.client.Store.ID != by {
		s.LogoutRemote(ctx)
		return
	}
	s.Disconnect()
}

// own is the LID of the account.
func (s *session) own() types.JID { return lidOf(networkid.UserID(s.login.ID)) }

// GetUserID implements bridgev2.NetworkAPIWithUserID.
func (s *session) GetUserID() networkid.UserID { return networkid.UserID(s.login.ID) }

// IsThisUser implements bridgev2.NetworkAPI.
func (s *session) IsThisUser(_ context.Context, id networkid.UserID) bool { return id == s.GetUserID() }

// What the user is told when a login ends or waits.
const (
	textUnlinked = "This device is not linked to your WhatsApp account any more. Say `login qr` to link it again."
	textByPhone  = "Your phone has unlinked this bridge (in WhatsApp: Settings, Linked devices). Nothing arrives here any more. " +
		"Say `login qr` to link it again."
	textLocked = "WhatsApp has locked your account or logged your phone out. Open WhatsApp on your phone to see why; then say `login qr`."
	textBanned = "WhatsApp has banned your account. Open WhatsApp on your phone to see why and to ask for a review. " +
		"When it is free again, say `login qr`."
	textOutdated = "This version of the bridge is too old for WhatsApp. Whoever runs this server must update it; you need not log in again."
	textReplaced = "Somebody else uses the keys of this device: is a copy of this server running? Nothing arrives here until it is stopped " +
		"and this server restarted."
	textWaiting = "The connection to WhatsApp is lost. The bridge tries again by itself; what you write waits."
)

func banText(e *events.TemporaryBan) string {
	text := "WhatsApp has blocked your account for some time"
	if e.Expire > 0 {
		text += ", until " + time.Now().Add(e.Expire).UTC().Format("2 January 15:04 UTC")
	}
	return text + ": " + banReason(e.Code) + "."
}

func banReason(code events.TempBanReason) string {
	switch code {
	case events.TempBanSentToTooManyPeople:
		return "too many messages to people who do not know you"
	case events.TempBanBlockedByUsers:
		return "too many people have blocked you"
	case events.TempBanCreatedTooManyGroups:
		return "too many groups with people who do not know you"
	case events.TempBanSentTooManySameMessage:
		return "the same message to too many people"
	case events.TempBanBroadcastList:
		return "too many messages to a broadcast list"
	default:
		return fmt.Sprintf("its terms of service (reason %d)", int(code))
	}
}

// state tells a state of the login; bridgev2 writes it to the user.
func (s *session) state(state status.BridgeStateEvent, code status.BridgeStateErrorCode, text string) {
	bridge.Tell(s.login, status.BridgeState{StateEvent: state, Error: code, Message: text})
}

// block ends the connection and tells why there will be none, so that nothing
// waits for it. With a time, it connects again after that.
func (s *session) block(code status.BridgeStateErrorCode, text string, retry time.Duration) {
	s.mu.Lock()
	s.obstacle = text
	s.blocks++
	if this := s.blocks; s.cancel != nil {
		s.start("connect to WhatsApp again", func(ctx context.Context) error { return s.rest(ctx, this, retry) })
	}
	s.mu.Unlock()
	s.state(status.StateUnknownError, code, text)
}

// rest ends the connection, and with a time connects again after that, unless
// something else has come up since a block.
func (s *session) rest(ctx context.Context, block int, retry time.Duration) error {
	s.client.Disconnect() // also from trying again by itself
	if retry <= 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(retry):
	}
	s.mu.Lock()
	last := s.blocks == block
	if last {
		s.obstacle = ""
	}
	s.mu.Unlock()
	if !last {
		return nil
	}
	return s.dial(ctx)
}

// lose ends a login that WhatsApp does not want any more.
func (s *session) lose(text string) {
	s.mu.Lock()
	s.ended, s.obstacle = true, text
	s.blocks++
	s.mu.Unlock()
	s.state(status.StateBadCredentials, "whatsapp-logged-out", text)
}

// onConnection handles what happens to the connection. It is false for other
// events. Whatsmeow tells each in a goroutine of its own, so in any order, and
// tells of a connection, too, that was lost before all was done with which it
// begins.
func (s *session) onConnection(e any) bool {
	switch e.(type) {
	case *events.Connected, *events.KeepAliveRestored:
		if !s.client.IsConnected() {
			return true
		}
	}
	s.telling.Lock()
	defer s.telling.Unlock()
	switch e.(type) {
	case *events.Connected, *events.KeepAliveRestored, *events.Disconnected, *events.KeepAliveTimeout:
		if s.hindrance() != "" {
			return true
		}
	}
	switch e := e.(type) {
	case *events.Connected:
		bridge.Tell(s.login, status.BridgeState{StateEvent: status.StateConnected})
		s.connected()
	case *events.KeepAliveRestored:
		bridge.Tell(s.login, status.BridgeState{StateEvent: status.StateConnected})
	case *events.Disconnected, *events.KeepAliveTimeout:
		s.state(status.StateTransientDisconnect, "whatsapp-disconnected", textWaiting)
	case *events.LoggedOut:
		s.lose(logoutText(e))
	case *events.ClientOutdated:
		s.block("whatsapp-outdated", textOutdated, 0)
	case *events.TemporaryBan:
		s.block("whatsapp-temporary-ban", banText(e)+" The bridge tries again then, or when the server is restarted.", e.Expire)
	case *events.StreamReplaced:
		s.block("whatsapp-replaced", textReplaced, 0)
	case *events.ConnectFailure:
		s.block("whatsapp-refused", fmt.Sprintf("WhatsApp refuses the connection: %s", e.Reason), retryRefused)
	case *events.StreamError:
		s.state(status.StateTransientDisconnect, "whatsapp-stream-error", fmt.Sprintf("WhatsApp has ended the connection (%s).", e.Code))
	default:
		return false
	}
	return true
}

func logoutText(e *events.LoggedOut) string {
	switch {
	case e.OnConnect && e.Reason == events.ConnectFailureMainDeviceGone:
		return textLocked
	case e.OnConnect && e.Reason == events.ConnectFailureUnknownLogout:
		return textBanned
	default:
		return textByPhone
	}
}

// retryRefused is when to try again after a refusal without a reason.
const retryRefused = 10 * time.Minute

// connected does what is due with each connection.
func (s *session) connected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel == nil {
		return
	}
	s.start("after connecting", func(ctx context.Context) error {
		s.present(ctx, types.PresenceUnavailable)
		s.seekHistory(ctx)
		return nil
	})
}

// activeTime is how long somebody is shown as online after the last sign of it.
const activeTime = 2 * time.Minute

// stir shows the user as online, for a while. Others' typing is told only then.
func (s *session) stir() {
	if s.connector.config.Presence != presenceActive {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel == nil {
		return
	}
	if s.active != nil && s.active.Reset(activeTime) {
		return
	}
	ctx := s.ctx
	s.active = time.AfterFunc(activeTime, func() { s.present(ctx, types.PresenceUnavailable) })
	s.start("show that the user is online", func(ctx context.Context) error {
		s.present(ctx, types.PresenceAvailable)
		return nil
	})
}

// present tells WhatsApp whether the user is online.
func (s *session) present(ctx context.Context, p types.Presence) {
	if err := s.client.SendPresence(ctx, p); err != nil && ctx.Err() == nil {
		zerolog.Ctx(ctx).Debug().Err(err).Msg("tell whether the user is online")
	}
}
