package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"go.mau.fi/util/configupgrade"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/simplevent"
	"maunium.net/go/mautrix/event"
)

// me is the user of the network who logs in.
const me = "me"

// message is a message of the network.
type message struct {
	Number int    `json:"number"` // 1 and up in its chat
	Sender string `json:"sender"`
	Text   string `json:"text"`
	Time   int64  `json:"time"` // ms
}

func (m message) id(chat string) networkid.MessageID {
	return networkid.MessageID(fmt.Sprintf("%s-%d", chat, m.Number))
}

func (m message) from() bridgev2.EventSender {
	return bridgev2.EventSender{Sender: networkid.UserID(m.Sender), IsFromMe: m.Sender == me}
}

func (m message) converted() *bridgev2.ConvertedMessage {
	return &bridgev2.ConvertedMessage{Parts: []*bridgev2.ConvertedMessagePart{{
		Type: event.EventMessage, Content: &event.MessageEventContent{MsgType: event.MsgText, Body: m.Text},
	}}}
}

// connector is the network.
type connector struct {
	bridge *bridgev2.Bridge
	config struct {
		Address string `yaml:"address"` // of the network, http://…
	}
}

func (c *connector) Init(b *bridgev2.Bridge)     { c.bridge = b }
func (c *connector) Start(context.Context) error { return nil }

func (c *connector) GetName() bridgev2.BridgeName {
	return bridgev2.BridgeName{
		DisplayName: "Toy", NetworkURL: "https://toy.invalid", NetworkID: "toy", BeeperBridgeType: "toy", DefaultPort: 29999,
	}
}

func (c *connector) GetConfig() (string, any, configupgrade.Upgrader) {
	return "address: http://127.0.0.1:1\n", &c.config, configupgrade.SimpleUpgrader(func(h configupgrade.Helper) {
		h.Copy(configupgrade.Str, "address")
	})
}

func (c *connector) GetDBMetaTypes() database.MetaTypes { return database.MetaTypes{} }

func (c *connector) GetCapabilities() *bridgev2.NetworkGeneralCapabilities {
	return &bridgev2.NetworkGeneralCapabilities{}
}

func (c *connector) GetBridgeInfoVersion() (int, int) { return 1, 1 }

func (c *connector) LoadUserLogin(_ context.Context, login *bridgev2.UserLogin) error {
	login.Client = &client{c, login, make(chan struct{})}
	return nil
}

func (c *connector) GetLoginFlows() []bridgev2.LoginFlow {
	return []bridgev2.LoginFlow{{ID: "nothing", Name: "Nothing", Description: "asks nothing"}}
}

func (c *connector) CreateLogin(_ context.Context, user *bridgev2.User, _ string) (bridgev2.LoginProcess, error) {
	return &process{user}, nil
}

// process is a login that asks nothing.
type process struct{ user *bridgev2.User }

func (p *process) Cancel() {}

func (p *process) Start(ctx context.Context) (*bridgev2.LoginStep, error) {
	login, err := p.user.NewLogin(ctx, &database.UserLogin{ID: me, RemoteName: me}, nil)
	if err != nil {
		return nil, err
	}
	login.Client.Connect(login.Log.WithContext(context.Background()))
	return &bridgev2.LoginStep{
		Type: bridgev2.LoginStepTypeComplete, StepID: "toy.complete", Instructions: "You are in.",
		CompleteParams: &bridgev2.LoginCompleteParams{UserLoginID: login.ID, UserLogin: login},
	}, nil
}

// client is the login, connected.
type client struct {
	*connector
	login *bridgev2.UserLogin
	ended chan struct{}
}

var _ bridgev2.BackfillingNetworkAPI = (*client)(nil)

// ask calls the network.
func (c *client) ask(ctx context.Context, method, path string, query url.Values, body, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, c.config.Address+path+"?"+query.Encode(), bytes.NewReader(b))
	if err != nil {
		return err
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return fmt.Errorf("the network says %s", a.Status)
	}
	return json.NewDecoder(a.Body).Decode(answer)
}

func (c *client) Connect(ctx context.Context) {
	go c.follow(ctx)
}

func (c *client) Disconnect()                                              { close(c.ended) }
func (c *client) IsLoggedIn() bool                                         { return true }
func (c *client) LogoutRemote(context.Context)                             {}
func (c *client) IsThisUser(_ context.Context, user networkid.UserID) bool { return user == me }
func (c *client) GetCapabilities(context.Context, *bridgev2.Portal) *event.RoomFeatures {
	return &event.RoomFeatures{}
}

// follow tells the bridge when a chat of the network has something new, and lets it
// fetch that.
func (c *client) follow(ctx context.Context) {
	newest, gone := map[string]message{}, 0
	for {
		var chats map[string]message
		if err := c.ask(ctx, http.MethodGet, "/chats", nil, nil, &chats); err != nil {
			c.login.Log.Err(err).Msg("the network cannot be asked")
		}
		for chat, last := range chats {
			if last == newest[chat] {
				continue
			}
			newest[chat] = last
			c.bridge.QueueRemoteEvent(c.login, &simplevent.ChatResync{
				EventMeta: simplevent.EventMeta{
					Type: bridgev2.RemoteEventChatResync, PortalKey: networkid.PortalKey{ID: networkid.PortalID(chat), Receiver: c.login.ID}, CreatePortal: true,
				},
				GetChatInfoFunc: c.GetChatInfo,
				LatestMessageTS: time.UnixMilli(last.Time),
			})
		}
		gone += c.forget(ctx, gone)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-c.ended:
			return
		}
	}
}

// forget takes back the messages that the network took back, but for the first ones,
// and gives their number.
func (c *client) forget(ctx context.Context, first int) int {
	var gone []struct {
		Chat    string  `json:"chat"`
		Message message `json:"message"`
	}
	if err := c.ask(ctx, http.MethodGet, "/gone", url.Values{"first": {strconv.Itoa(first)}}, nil, &gone); err != nil {
		c.login.Log.Err(err).Msg("the network cannot be asked")
	}
	for _, m := range gone {
		c.bridge.QueueRemoteEvent(c.login, &simplevent.MessageRemove{
			EventMeta: simplevent.EventMeta{
				Type: bridgev2.RemoteEventMessageRemove, PortalKey: networkid.PortalKey{ID: networkid.PortalID(m.Chat), Receiver: c.login.ID},
				Sender: m.Message.from(),
			},
			TargetMessage: m.Message.id(m.Chat),
		})
	}
	return len(gone)
}

func (c *client) GetChatInfo(_ context.Context, portal *bridgev2.Portal) (*bridgev2.ChatInfo, error) {
	name := "Chat " + string(portal.ID)
	members := []bridgev2.ChatMember{{EventSender: bridgev2.EventSender{Sender: me, IsFromMe: true}}}
	for _, name := range []string{"ann", "ben", "cem"} {
		members = append(members, bridgev2.ChatMember{EventSender: bridgev2.EventSender{Sender: networkid.UserID(name)}})
	}
	return &bridgev2.ChatInfo{Name: &name, CanBackfill: true, Members: &bridgev2.ChatMemberList{IsFull: true, Members: members}}, nil
}

func (c *client) GetUserInfo(_ context.Context, ghost *bridgev2.Ghost) (*bridgev2.UserInfo, error) {
	name := "Toy " + string(ghost.ID)
	return &bridgev2.UserInfo{Name: &name, Identifiers: []string{"toy:" + string(ghost.ID)}}, nil
}

func (c *client) FetchMessages(ctx context.Context, p bridgev2.FetchMessagesParams) (*bridgev2.FetchMessagesResponse, error) {
	chat := string(p.Portal.ID)
	query := url.Values{"chat": {chat}, "count": {strconv.Itoa(p.Count)}}
	if p.AnchorMessage != nil {
		var number int
		if _, err := fmt.Sscanf(string(p.AnchorMessage.ID), chat+"-%d", &number); err != nil {
			return nil, err
		}
		query.Set(map[bool]string{true: "after", false: "before"}[p.Forward], strconv.Itoa(number))
	}
	var found struct {
		Messages []message `json:"messages"`
		More     bool      `json:"more"`
	}
	if err := c.ask(ctx, http.MethodGet, "/history", query, nil, &found); err != nil {
		return nil, err
	}
	answer := &bridgev2.FetchMessagesResponse{HasMore: found.More, Forward: p.Forward, AggressiveDeduplication: true}
	for _, m := range found.Messages {
		answer.Messages = append(answer.Messages, &bridgev2.BackfillMessage{
			ConvertedMessage: m.converted(), Sender: m.from(), ID: m.id(chat), Timestamp: time.UnixMilli(m.Time), StreamOrder: int64(m.Number),
		})
	}
	return answer, nil
}

func (c *client) HandleMatrixMessage(ctx context.Context, m *bridgev2.MatrixMessage) (*bridgev2.MatrixMessageResponse, error) {
	chat := string(m.Portal.ID)
	var sent message
	if err := c.ask(ctx, http.MethodPost, "/send", url.Values{"chat": {chat}}, m.Content.Body, &sent); err != nil {
		return nil, err
	}
	return &bridgev2.MatrixMessageResponse{DB: &database.Message{
		ID: sent.id(chat), SenderID: me, Timestamp: time.UnixMilli(sent.Time),
	}}, nil
}
