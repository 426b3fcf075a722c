package bridge_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mau.fi/util/configupgrade"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/commands"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/simplevent"
	"maunium.net/go/mautrix/bridgev2/status"
	"maunium.net/go/mautrix/event"

	"switchboard/bridges/bridge"
	"switchboard/bridges/bridge/bridgetest"
	"switchboard/homeserver/database/databasetest"
)

// mirror is a network on which every message comes back in capitals from the
// user "echo".
type mirror struct {
	br    *bridgev2.Bridge
	more  []commands.CommandHandler
	start func() error
	hold  func(body string) // called with each message, if set
	later chan func()       // if set, gets what says that a message arrived
}

func (m *mirror) Init(br *bridgev2.Bridge) {
	m.br = br
	br.Commands.(*commands.Processor).AddHandlers(m.more...)
}
func (m *mirror) Start(context.Context) error {
	if m.start != nil {
		return m.start()
	}
	return nil
}
func (m *mirror) GetName() bridgev2.BridgeName {
	return bridgev2.BridgeName{DisplayName: "Mirror", NetworkID: "mirror", BeeperBridgeType: "mirror", NetworkURL: "https://mirror.test"}
}
func (m *mirror) GetDBMetaTypes() database.MetaTypes { return database.MetaTypes{} }
func (m *mirror) GetCapabilities() *bridgev2.NetworkGeneralCapabilities {
	return &bridgev2.NetworkGeneralCapabilities{}
}
func (m *mirror) GetConfig() (string, any, configupgrade.Upgrader) { return "", nil, nil }
func (m *mirror) GetBridgeInfoVersion() (int, int)                 { return 1, 1 }
func (m *mirror) GetLoginFlows() []bridgev2.LoginFlow {
	return []bridgev2.LoginFlow{{ID: "look", Name: "Look"}}
}
func (m *mirror) LoadUserLogin(_ context.Context, l *bridgev2.UserLogin) error {
	l.Client = &face{m, l}
	return nil
}
func (m *mirror) CreateLogin(_ context.Context, u *bridgev2.User, _ string) (bridgev2.LoginProcess, error) {
	return &look{u}, nil
}

type look struct{ user *bridgev2.User }

func (l *look) Cancel() {}
func (l *look) Start(ctx context.Context) (*bridgev2.LoginStep, error) {
	ul, err := l.user.NewLogin(ctx, &database.UserLogin{ID: networkid.UserLoginID(l.user.MXID.Localpart()), RemoteName: "me"}, nil)
	if err != nil {
		return nil, err
	}
	ul.Client.Connect(ctx)
	return &bridgev2.LoginStep{
		Type: bridgev2.LoginStepTypeComplete, Instructions: "You look fine",
		CompleteParams: &bridgev2.LoginCompleteParams{UserLoginID: ul.ID, UserLogin: ul},
	}, nil
}

// face is a login.
type face struct {
	m *mirror
	l *bridgev2.UserLogin
}

func (f *face) Connect(context.Context) {
	bridge.Tell(f.l, status.BridgeState{StateEvent: status.StateConnected})
}
func (f *face) Disconnect()                  {}
func (f *face) IsLoggedIn() bool             { return true }
func (f *face) LogoutRemote(context.Context) {}
func (f *face) IsThisUser(_ context.Context, u networkid.UserID) bool {
	return string(u) == string(f.l.ID)
}
func (f *face) GetChatInfo(context.Context, *bridgev2.Portal) (*bridgev2.ChatInfo, error) {
	name, kind := "Mirror hall", database.RoomTypeDM
	return &bridgev2.ChatInfo{Name: &name, Type: &kind, Members: &bridgev2.ChatMemberList{IsFull: true, OtherUserID: "echo", MemberMap: bridgev2.ChatMemberMap{
		"me":   {EventSender: bridgev2.EventSender{IsFromMe: true}},
		"echo": {EventSender: bridgev2.EventSender{Sender: "echo"}},
	}}}, nil
}
func (f *face) GetUserInfo(context.Context, *bridgev2.Ghost) (*bridgev2.UserInfo, error) {
	name := "Echo"
	return &bridgev2.UserInfo{Name: &name}, nil
}
func (f *face) GetCapabilities(context.Context, *bridgev2.Portal) *event.RoomFeatures {
	return &event.RoomFeatures{Edit: event.CapLevelFullySupported}
}
func (f *face) ResolveIdentifier(_ context.Context, id string, _ bool) (*bridgev2.ResolveIdentifierResponse, error) {
	return &bridgev2.ResolveIdentifierResponse{UserID: "echo", Chat: &bridgev2.CreateChatResponse{
		PortalKey: networkid.PortalKey{ID: networkid.PortalID(id), Receiver: f.l.ID},
	}}, nil
}
func (f *face) HandleMatrixMessage(_ context.Context, m *bridgev2.MatrixMessage) (*bridgev2.MatrixMessageResponse, error) {
	if f.m.hold != nil {
		f.m.hold(m.Content.Body)
	}
	meta := simplevent.EventMeta{
		Type: bridgev2.RemoteEventMessage, PortalKey: m.Portal.PortalKey, Timestamp: time.Now(),
		Sender: bridgev2.EventSender{Sender: "echo"},
	}
	if f.m.later != nil {
		txn := networkid.TransactionID(m.Event.ID)
		m.AddPendingToSave(&database.Message{SenderID: "me"}, txn, nil)
		f.m.later <- func() {
			bridge.Queue(f.l, &simplevent.PreConvertedMessage{EventMeta: meta, ID: networkid.MessageID(m.Event.ID), TransactionID: txn})
		}
		return &bridgev2.MatrixMessageResponse{Pending: true}, nil
	}
	switch m.Content.Body {
	case "break":
		panic("broken mirror")
	case "from my phone":
		meta.Sender, meta.Timestamp = bridgev2.EventSender{IsFromMe: true}, longAgo
	}
	bridge.Queue(f.l, &simplevent.PreConvertedMessage{
		EventMeta: meta,
		ID:        networkid.MessageID("echo of " + m.Event.ID),
		Data: &bridgev2.ConvertedMessage{Parts: []*bridgev2.ConvertedMessagePart{{
			Type: event.EventMessage, Content: &event.MessageEventContent{MsgType: event.MsgText, Body: strings.ToUpper(m.Content.Body)},
		}}},
	})
	return &bridgev2.MatrixMessageResponse{DB: &database.Message{ID: networkid.MessageID(m.Event.ID), SenderID: "me"}}, nil
}

// longAgo is when the user wrote what comes from another client of the network.
var longAgo = time.Date(2020, 2, 20, 20, 20, 0, 0, time.UTC)

func (f *face) HandleMatrixMembership(_ context.Context, m *bridgev2.MatrixMembershipChange) (*bridgev2.MatrixMembershipResult, error) {
	if f.m.hold != nil && m.Type == bridgev2.Leave {
		f.m.hold("(leaves)")
	}
	return nil, nil
}

func (f *face) HandleMatrixEdit(_ context.Context, m *bridgev2.MatrixEdit) error {
	if f.m.hold != nil {
		f.m.hold(m.Content.Body)
	}
	return nil
}

// TestRoom looks at what the user's client shows of a chat without any command:
// own messages from the network are the user's own, at their time, and the room
// is a direct one, belongs to the bridge, and lies in the network's space.
func TestRoom(t *testing.T) {
	ctx := t.Context()
	s := bridgetest.Start(t, bridgetest.Options{
		ID: "mirror", Config: bridge.DefaultConfig(), Connector: func() bridgev2.NetworkConnector { return &mirror{} },
	})
	alice := s.User("alice")
	manage := alice.Manage(bridgetest.Bot("mirror"))
	alice.Ask(manage, "login", "You look fine")
	alice.Ask(manage, "start-chat hall", "Created chat")
	room := alice.Room("Mirror hall")
	alice.Say(room, "from my phone")
	if e := alice.Await("her own message", bridgetest.Message(room, "FROM MY PHONE")); e.Sender != alice.UserID || e.Timestamp != longAgo.UnixMilli() {
		t.Errorf("it is from %s, at %d", e.Sender, e.Timestamp)
	}
	bridgetest.Eventually(t, "the room is marked as direct", func() bool {
		var direct event.DirectChatsEventContent
		return alice.GetAccountData(ctx, event.AccountDataDirectChats.Type, &direct) == nil &&
			slices.Contains(direct[bridgetest.Ghost("mirror", "echo")], room)
	})
	state, err := alice.State(ctx, room)
	if err != nil {
		t.Fatal(err)
	}
	if len(state[event.StateBridge]) != 1 {
		t.Errorf("the room has %d m.bridge events", len(state[event.StateBridge]))
	}
	for _, e := range state[event.StateBridge] {
		if c := e.Content.AsBridge(); c.Protocol.ID != "mirror" || c.Channel.ID != "hall" || c.BridgeBot != bridgetest.Bot("mirror") {
			t.Errorf("m.bridge is %+v", c)
		}
	}
	space := alice.Room("Mirror (me)")
	bridgetest.Eventually(t, "the room is in the space", func() bool {
		var child event.SpaceChildEventContent
		return alice.StateEvent(ctx, space, event.StateSpaceChild, string(room), &child) == nil && len(child.Via) > 0
	})
}

// TestHost runs a conversation through a connector on both databases, with a
// panic in the middle and over a restart.
func TestHost(t *testing.T) {
	databasetest.EachURL(t, func(t *testing.T, url string) {
		s := bridgetest.Start(t, bridgetest.Options{
			ID: "mirror", Database: url, Connector: func() bridgev2.NetworkConnector { return &mirror{} },
		})
		alice := s.User("alice")
		manage := alice.Manage("@mirrorbot:switchboard.test")
		alice.Ask(manage, "login", "You look fine")
		alice.Ask(manage, "start-chat hall", "Created chat")
		room := alice.Room("Mirror hall")
		alice.Ask(room, "hello", "HELLO")
		broken := alice.Say(room, "break")
		alice.Await("that it failed", func(e *event.Event) bool {
			c, ok := e.Content.Parsed.(*event.BeeperMessageStatusEventContent)
			return ok && c.RelatesTo.EventID == broken && c.Status != event.MessageStatusSuccess
		})
		alice.Ask(room, "still here", "STILL HERE")

		before := s.Host.Registrations()
		s.Stop()
		s.Run()
		for i, reg := range s.Host.Registrations() {
			if reg.ASToken != before[i].ASToken || reg.HSToken != before[i].HSToken {
				t.Errorf("the tokens of %s changed", reg.ID)
			}
		}
		alice.Ask(room, "again", "AGAIN")
	})
}

// TestFaultyStart has a connector that fails, then panics, then works: the
// server goes on meanwhile, and the bridge comes up in the end.
func TestFaultyStart(t *testing.T) {
	var starts atomic.Int32
	s := bridgetest.Start(t, bridgetest.Options{ID: "mirror", Connector: func() bridgev2.NetworkConnector {
		return &mirror{start: func() error {
			switch starts.Add(1) {
			case 1:
				return errors.New("no glass")
			case 2:
				panic("seven years of bad luck")
			}
			return nil
		}}
	}})
	if starts.Load() != 3 {
		t.Errorf("%d starts", starts.Load())
	}
	alice := s.User("alice")
	manage := alice.Manage("@mirrorbot:switchboard.test")
	alice.Ask(manage, "login", "You look fine")
}

// TestAnswerAtOnce answers a question before it is noted that it was asked.
func TestAnswerAtOnce(t *testing.T) {
	heard := commands.MinimalCommandHandlerFunc(func(ce *commands.Event) { ce.Reply("You said %s", ce.RawArgs) })
	asking := &commands.FullHandler{Name: "ask", Func: func(ce *commands.Event) {
		ce.Reply("What is your name?")
		time.Sleep(300 * time.Millisecond)
		commands.StoreCommandState(ce.User, &commands.CommandState{Next: heard, Action: "Question"})
	}}
	s := bridgetest.Start(t, bridgetest.Options{ID: "mirror", Connector: func() bridgev2.NetworkConnector {
		return &mirror{more: []commands.CommandHandler{asking}}
	}})
	alice := s.User("alice")
	manage := alice.Manage(bridgetest.Bot("mirror"))
	alice.Ask(manage, "ask", "What is your name?")
	alice.Ask(manage, "Alice", "You said Alice")
}

// TestSave writes down a login while mautrix has written something else of it.
func TestSave(t *testing.T) {
	databasetest.EachURL(t, func(t *testing.T, url string) {
		m := &mirror{}
		s := bridgetest.Start(t, bridgetest.Options{ID: "mirror", Database: url, Connector: func() bridgev2.NetworkConnector { return m }})
		alice := s.User("alice")
		alice.Ask(alice.Manage(bridgetest.Bot("mirror")), "login", "You look fine")
		ctx, db := t.Context(), m.br.DB
		login := m.br.GetCachedUserLoginByID("alice")
		_, err := db.Exec(ctx, `UPDATE user_login SET space_room = '!space:a.test' WHERE id = 'alice'`)
		if err := errors.Join(err, bridge.Save(ctx, login), bridge.Rename(ctx, login, "somebody")); err != nil {
			t.Fatal(err)
		}
		kept, err := db.UserLogin.GetByID(ctx, "alice")
		if err != nil || kept.SpaceRoom != "!space:a.test" || kept.RemoteName != "somebody" {
			t.Errorf("kept is %+v, %v", kept, err)
		}
	})
}

func TestNotRunning(t *testing.T) {
	ctx := t.Context()
	place := bridge.Place{ID: "mirror", ServerName: "a.test", Database: databasetest.SQLite(t)}
	h, err := bridge.New(ctx, place, bridge.Config{}, func() bridgev2.NetworkConnector { return &mirror{} }, http.DefaultTransport)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for path, handler := range map[string]http.Handler{
		"/_matrix/app/v1/transactions/1": h.Handler(),
		place.MediaPath() + "x":          h.Media(),
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusServiceUnavailable && w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	regs := h.Registrations()
	if len(regs) != 2 || regs[0].URL != "" {
		t.Fatalf("registrations are %+v", regs)
	}
	for user, want := range map[string][2]bool{
		"@mirror_bob:a.test":         {true, true},
		"@mirrorbot:a.test":          {true, true},
		"@alice:a.test":              {false, false},
		"@mirror_bob:b.test":         {false, false},
		"@mirror_bob:a.test.evil.io": {false, false},
	} {
		if got := [2]bool{regs[0].CoversUser(user), regs[0].ExclusiveUser(user)}; got != want {
			t.Errorf("%s: covered and exclusive are %v, want %v", user, got, want)
		}
	}
	if !regs[1].CoversUser("@alice:a.test") || regs[1].ExclusiveUser("@alice:a.test") || regs[1].CoversUser("@alice:b.test") {
		t.Error("the registration for double puppets covers the wrong users")
	}
}

func TestWrongPlaces(t *testing.T) {
	for _, place := range []bridge.Place{
		{ID: "", Database: "sqlite:x"}, {ID: "Irc", Database: "sqlite:x"}, {ID: "irc/..", Database: "sqlite:x"},
		{ID: "irc", Database: ""}, {ID: "irc", Database: "mysql://user:secret@host"}, {ID: "irc", Database: "postgres://user:secret@\x00"},
	} {
		_, err := bridge.New(t.Context(), place, bridge.Config{}, func() bridgev2.NetworkConnector { return &mirror{} }, nil)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", place, err)
		}
	}
}

func TestConfigCheck(t *testing.T) {
	good := bridge.Config{Permissions: map[string]string{"*": "relay", "a.test": "user", "@admin:a.test": "admin"}, Bot: "irc.bot"}
	if err := good.Check("bridges.irc"); err != nil {
		t.Error(err)
	}
	bad := bridge.Config{Permissions: map[string]string{"*": "root", "@admin": "admin"}, Bot: "Bot", CommandPrefix: "! irc"}
	err := bad.Check("bridges.irc")
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	var missing []string
	for _, key := range []string{"bridges.irc.permissions.*:", "bridges.irc.permissions.@admin:", "bridges.irc.bot:", "bridges.irc.command_prefix:"} {
		if !strings.Contains(err.Error(), key) {
			missing = append(missing, key)
		}
	}
	if len(missing) > 0 {
		t.Errorf("%v are not named in: %v", missing, err)
	}
}
