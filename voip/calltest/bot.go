package calltest

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/homeserver/matrix"
)

const (
	firstRestart = time.Second
	lastRestart  = 5 * time.Minute
	mostMembers  = 10              // of a room in which the bot stays
	freshness    = 2 * time.Minute // of messages that it answers
	repeatAfter  = 2 * time.Minute // before it says the same in a room again
	sendTimeout  = time.Minute
)

// Bot is a user of this server that answers calls. It is an ordinary client:
// it logs in, syncs and encrypts as any other does, only that its requests go
// through a wire in this process. What it knows of rooms and of keys lasts as
// long as the process; its cross-signing identity is made from Secret, so that
// people see the same one after a restart.
type Bot struct {
	// Calls are what it answers with.
	Calls *Service

	// User is its user ID, which belongs to the appservice of Token.
	User matrix.UserID

	// Token is the token of an appservice, by which the bot logs in.
	Token string

	// Wire carries its requests to the homeserver.
	Wire http.RoundTripper

	// Secret is what its cross-signing keys are made from. It never leaves the
	// process.
	Secret []byte

	// Page is the address of the page for the browser, to tell people; "" for
	// none.
	Page string

	user   id.UserID
	client *mautrix.Client
	rooms  mautrix.StateStore

	// The memory of mautrix gives away what it is going to change.
	state sync.RWMutex // tier 3; guards what rooms holds

	mu      sync.Mutex // tier 1; guards all below
	calls   map[id.RoomID]*call
	said    map[remark]time.Time
	stopped bool // nothing new is begun
	tasks   sync.WaitGroup
}

// remark is something that the bot said in a room.
type remark struct {
	room id.RoomID
	text string
}

// Run answers calls until ctx is done, and then hangs up. What goes wrong is
// logged and tried again, less and less often.
func (b *Bot) Run(ctx context.Context) error {
	// The debug lines of mautrix tell what people write.
	log := zerolog.Ctx(ctx)
	ctx = log.Level(max(log.GetLevel(), zerolog.InfoLevel)).WithContext(ctx)
	for wait := firstRestart; ; wait = min(2*wait, lastRestart) {
		err := b.runOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		zerolog.Ctx(ctx).Warn().Err(err).Str("user", string(b.User)).Dur("retry", wait).Msg("the bot of the call test does not run")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// runOnce logs in and syncs until something fails or ctx is done.
func (b *Bot) runOnce(ctx context.Context) error {
	b.user = id.UserID(b.User)
	client, err := mautrix.NewClient("http://homeserver.invalid", b.user, b.Token) // the wire never looks at it
	if err != nil {
		return err
	}
	client.Client.Transport = b.Wire
	b.client, b.rooms = client, mautrix.NewMemoryStateStore()
	client.StateStore = b.rooms
	b.mu.Lock()
	b.calls, b.said, b.stopped = map[id.RoomID]*call{}, map[remark]time.Time{}, false
	b.mu.Unlock()
	if err := b.logIn(ctx); err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	defer b.logOut(ctx)
	syncer := client.Syncer.(*mautrix.DefaultSyncer)
	syncer.FilterJSON = &mautrix.Filter{Room: &mautrix.RoomFilter{Timeline: &mautrix.FilterPart{Limit: 20}}}
	syncer.OnEvent(func(ctx context.Context, e *event.Event) {
		b.state.Lock()
		defer b.state.Unlock()
		client.StateStoreSyncHandler(ctx, e)
	})
	if err := b.encrypt(ctx); err != nil {
		return fmt.Errorf("encryption: %w", err)
	}
	b.listen(ctx, syncer)
	if err := client.SetDisplayName(ctx, "Call test"); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	log := zerolog.Ctx(ctx)
	log.Info().Str("user", string(b.user)).Msg("the bot of the call test is ready")
	return client.SyncWithContext(log.Level(zerolog.ErrorLevel).WithContext(ctx)) // which warns of its own end
}

// logIn makes a new device. Those of earlier runs are ended, since nobody has
// their keys any more.
func (b *Bot) logIn(ctx context.Context) error {
	_, _, err := b.client.Register(ctx, &mautrix.ReqRegister[any]{Username: b.user.Localpart(), Type: mautrix.AuthTypeAppservice, InhibitLogin: true})
	if err != nil && !errors.Is(err, mautrix.MUserInUse) {
		return err
	}
	for last := range 2 {
		b.client.AccessToken = b.Token
		if _, err := b.client.Login(ctx, &mautrix.ReqLogin{
			Type: mautrix.AuthTypeAppservice, Identifier: mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: b.user.Localpart()},
			InitialDeviceDisplayName: "Call test", StoreCredentials: true,
		}); err != nil {
			return err
		}
		if last == 0 {
			if _, err := b.client.LogoutAll(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// logOut hangs up, and ends the device.
func (b *Bot) logOut(ctx context.Context) {
	b.mu.Lock()
	b.stopped = true
	for _, c := range b.calls {
		c.hangUp("user_hangup", "The server stops.")
	}
	b.mu.Unlock()
	b.tasks.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
	defer cancel()
	b.client.LogoutAll(ctx) //nolint:errcheck // the next run does it again
}

// encrypt prepares for encrypted rooms. Keys that a conversation no longer
// needs are dropped, so that memory stays bounded.
func (b *Bot) encrypt(ctx context.Context) error {
	helper, err := cryptohelper.NewCryptoHelper(b.client, b.Secret, crypto.NewMemoryStore(nil))
	if err != nil {
		return err
	}
	helper.DecryptErrorCallback = func(e *event.Event, _ error) { b.unreadable(ctx, e) }
	if err := helper.Init(ctx); err != nil {
		return err
	}
	b.client.Crypto = helper
	mach := helper.Machine()
	mach.DeletePreviousKeysOnReceive, mach.DontStoreOutboundKeys, mach.DeleteKeysOnDeviceDelete = true, true, true
	return b.crossSign(ctx, mach)
}

// crossSign signs the device with the identity that Secret stands for: newer
// clients give no keys to devices whose owner does not vouch for them.
func (b *Bot) crossSign(ctx context.Context, mach *crypto.OlmMachine) error {
	var seeds crypto.CrossSigningSeeds
	for name, seed := range map[string]*[]byte{"master": (*[]byte)(&seeds.MasterKey), "self": (*[]byte)(&seeds.SelfSigningKey), "user": (*[]byte)(&seeds.UserSigningKey)} {
		key, err := hkdf.Key(sha256.New, b.Secret, nil, "switchboard call test "+name+" "+string(b.user), 32)
		if err != nil {
			return err
		}
		*seed = key
	}
	published, err := mach.GetCrossSigningPublicKeys(ctx, b.user)
	if err != nil {
		return err
	}
	if err := mach.ImportCrossSigningKeys(seeds); err != nil {
		return err
	}
	if published == nil || published.MasterKey != mach.CrossSigningKeys.MasterKey.PublicKey() {
		if err := mach.PublishCrossSigningKeys(ctx, mach.CrossSigningKeys, nil); err != nil {
			return err
		}
	}
	return mach.SignOwnDevice(ctx, mach.OwnIdentity())
}

// listen registers what the bot does when something happens.
func (b *Bot) listen(ctx context.Context, syncer *mautrix.DefaultSyncer) {
	on := func(t event.Type, do func(context.Context, *event.Event)) {
		syncer.OnEventType(t, func(_ context.Context, e *event.Event) {
			if e.Sender != b.user {
				do(ctx, e)
			}
		})
	}
	on(event.StateMember, b.member)
	on(event.EventMessage, b.message)
	on(event.CallInvite, b.invite)
	on(event.CallCandidates, b.candidates)
	on(event.CallSelectAnswer, b.selected)
	on(event.CallNegotiate, b.negotiate)
	on(event.CallHangup, b.hungUp)
	for _, t := range newerCalls {
		on(t, b.newerCall)
	}
}

// newerCalls are what clients send when they begin a call by MatrixRTC.
var newerCalls = []event.Type{
	{Type: "org.matrix.msc3401.call.member", Class: event.StateEventType},
	{Type: "org.matrix.msc4143.rtc.member", Class: event.StateEventType},
	{Type: "org.matrix.msc4075.call.notify", Class: event.MessageEventType},
	{Type: "org.matrix.msc4075.rtc.notification", Class: event.MessageEventType},
}

// task runs something that takes longer than a sync may wait.
func (b *Bot) task(ctx context.Context, room id.RoomID, what string, do func(context.Context) error) {
	b.begin(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
		defer cancel()
		if err := do(ctx); err != nil {
			zerolog.Ctx(ctx).Warn().Err(err).Str("room", string(room)).Msg("call test: " + what)
		}
	})
}

// begin runs something beside the rest, unless the bot stops.
func (b *Bot) begin(do func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopped {
		b.tasks.Go(do)
	}
}

// local tells whether somebody is a user of this server. Only they are served.
func (b *Bot) local(user id.UserID) bool { return user.Homeserver() == b.user.Homeserver() }

// member joins where the bot is invited, and leaves where nobody is left.
func (b *Bot) member(ctx context.Context, e *event.Event) {
	invited := e.Mautrix.EventSource&event.SourceInvite != 0
	gone := e.Mautrix.EventSource&event.SourceJoin != 0 && e.Content.AsMember().Membership.IsLeaveOrBan()
	if !invited && !gone {
		return
	}
	b.task(ctx, e.RoomID, "a room could not be joined or left", func(ctx context.Context) error {
		if invited && id.UserID(e.GetStateKey()) != b.user {
			return nil
		}
		if invited && !b.local(e.Sender) {
			return b.leave(ctx, e.RoomID)
		}
		members, err := b.enter(ctx, e.RoomID, invited)
		switch {
		case err != nil:
			return err
		case members > mostMembers:
			if invited {
				b.tell(ctx, e.RoomID, "This room has too many members for a call test. Start a chat with me alone, and call me there.")
			}
			return b.leave(ctx, e.RoomID)
		case members == 1 && gone:
			return b.leave(ctx, e.RoomID)
		case invited:
			return b.tell(ctx, e.RoomID, b.help())
		}
		return nil
	})
}

// enter joins a room, if it is to be joined, and counts its members.
func (b *Bot) enter(ctx context.Context, room id.RoomID, join bool) (int, error) {
	b.state.Lock()
	defer b.state.Unlock()
	if join {
		if _, err := b.client.JoinRoomByID(ctx, room); err != nil {
			return 0, err
		}
	}
	members, err := b.client.JoinedMembers(ctx, room)
	if err != nil {
		return 0, err
	}
	return len(members.Joined), nil
}

func (b *Bot) leave(ctx context.Context, room id.RoomID) error {
	b.state.Lock()
	defer b.state.Unlock()
	if _, err := b.client.LeaveRoom(ctx, room); err != nil {
		return err
	}
	_, err := b.client.ForgetRoom(ctx, room)
	return err
}

// message answers what people write with how to call.
func (b *Bot) message(ctx context.Context, e *event.Event) {
	if content := e.Content.AsMessage(); content.MsgType == event.MsgText && b.fresh(e) && b.alone(ctx, e.RoomID) {
		b.remark(ctx, e.RoomID, b.help())
	}
}

// unreadable says what to do when a message cannot be decrypted.
func (b *Bot) unreadable(ctx context.Context, e *event.Event) {
	if b.fresh(e) && b.alone(ctx, e.RoomID) {
		b.remark(ctx, e.RoomID, "I cannot read what you sent: your app did not give me the key. If that was a call, call once more now. "+
			"If it happens again, let your app send keys to devices that you have not verified (Element: Settings, Encryption), or invite me to a room without encryption."+b.orPage())
	}
}

// newerCall tells who calls by MatrixRTC that this is another kind of call.
func (b *Bot) newerCall(ctx context.Context, e *event.Event) {
	if b.fresh(e) && len(e.Content.VeryRaw) > 2 && b.alone(ctx, e.RoomID) { // {} ends such a call
		b.remark(ctx, e.RoomID, "Your app started a call of the newer kind (Element Call), which I cannot answer. "+
			"If it offers a classic or legacy call, take that one."+b.orPage())
	}
}

func (b *Bot) help() string {
	return "Call me, and you hear yourself after a second. When you hang up, I tell how good the line was." + b.orPage()
}

func (b *Bot) orPage() string {
	if b.Page == "" {
		return ""
	}
	return " There is also a test for the browser: " + b.Page
}

func (b *Bot) fresh(e *event.Event) bool {
	return time.Since(time.UnixMilli(e.Timestamp)) < freshness && b.local(e.Sender)
}

// alone tells whether a room has just one other member.
func (b *Bot) alone(ctx context.Context, room id.RoomID) bool {
	b.state.RLock()
	defer b.state.RUnlock()
	members, err := b.rooms.GetRoomJoinedOrInvitedMembers(ctx, room)
	return err == nil && len(members) <= 2
}

// remark says something in a room, but not again and again.
func (b *Bot) remark(ctx context.Context, room id.RoomID, text string) {
	now := time.Now()
	b.mu.Lock()
	for r, at := range b.said {
		if now.Sub(at) > repeatAfter {
			delete(b.said, r)
		}
	}
	key := remark{room, text}
	_, again := b.said[key]
	b.said[key] = now
	b.mu.Unlock()
	if !again {
		b.task(ctx, room, "a message could not be sent", func(ctx context.Context) error { return b.tell(ctx, room, text) })
	}
}

// tell writes into a room.
func (b *Bot) tell(ctx context.Context, room id.RoomID, text string) error {
	return b.send(ctx, room, event.EventMessage, &event.MessageEventContent{MsgType: event.MsgNotice, Body: text})
}

// send sends an event, encrypted if the room is.
func (b *Bot) send(ctx context.Context, room id.RoomID, t event.Type, content any) error {
	b.state.RLock()
	defer b.state.RUnlock()
	_, err := b.client.SendMessageEvent(ctx, room, t, content)
	return err
}
