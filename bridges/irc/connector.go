package irc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.mau.fi/util/configupgrade"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/commands"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/status"
	"maunium.net/go/mautrix/event"

	"switchboard/bridges/irc/client"
)

// Connector is the IRC side of a bridge. Make one with New for each start.
type Connector struct {
	br       *bridgev2.Bridge
	networks []*network // in the order of the configuration
}

var (
	_ bridgev2.NetworkConnector               = (*Connector)(nil)
	_ bridgev2.IdentifierValidatingNetwork    = (*Connector)(nil)
	_ bridgev2.PortalBridgeInfoFillingNetwork = (*Connector)(nil)
)

// New returns a connector for the configured networks. The configuration must
// have passed Check.
func New(config Config) *Connector {
	c := new(Connector)
	for _, n := range config.Networks {
		c.networks = append(c.networks, &network{
			Network: n.complete(), connector: c,
			sessions: make(map[networkid.UserLoginID]*session),
			speakers: make(map[string]*session),
		})
	}
	return c
}

// network is an IRC network with the sessions of all logins there.
type network struct {
	Network
	connector *Connector

	mu          sync.Mutex // tier 1; guards what follows
	sessions    map[networkid.UserLoginID]*session
	speakers    map[string]*session // by folded channel: whose view of it counts
	casemapping client.Casemapping
	nextConnect time.Time
}

func (n *network) fold(name string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.casemapping.Fold(name)
}

func (n *network) setCasemapping(m client.Casemapping) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.casemapping = m
}

// speaks reports whether the events of a channel are to be taken from s. All
// logins in a channel see the same; one of them speaks for it.
func (n *network) speaks(s *session, channel string) bool {
	key := n.fold(channel)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.speakers[key] == nil {
		n.speakers[key] = s
	}
	return n.speakers[key] == s
}

// hush ends that s speaks for a channel and returns another session that can,
// or nil.
func (n *network) hush(s *session, channel string) *session {
	key := n.fold(channel)
	n.mu.Lock()
	if n.speakers[key] != s {
		n.mu.Unlock()
		return nil
	}
	delete(n.speakers, key)
	n.mu.Unlock()
	for _, other := range n.all() {
		if _, in := other.client.Channel(channel); other != s && in {
			return other
		}
	}
	return nil
}

func (n *network) all() []*session {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*session
	for _, s := range n.sessions {
		out = append(out, s)
	}
	return out
}

// byNick returns the session that has a nick at present, or nil.
func (n *network) byNick(nick string) *session {
	key := n.fold(nick)
	for _, s := range n.all() {
		if n.fold(s.client.Nick()) == key {
			return s
		}
	}
	return nil
}

// turn waits until it is time for another connection.
func (n *network) turn(ctx context.Context) error {
	n.mu.Lock()
	now := time.Now()
	at := n.nextConnect
	if at.Before(now) {
		at = now
	}
	n.nextConnect = at.Add(n.Gap)
	n.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(at)):
		return nil
	}
}

// network returns a network by its ID, or nil.
func (c *Connector) network(id string) *network {
	for _, n := range c.networks {
		if n.ID == id {
			return n
		}
	}
	return nil
}

// Init implements bridgev2.NetworkConnector.
func (c *Connector) Init(br *bridgev2.Bridge) {
	c.br = br
	br.Commands.(*commands.Processor).AddHandlers(c.commands()...)
}

// Start implements bridgev2.NetworkConnector: it makes the logins of the
// configured relays.
func (c *Connector) Start(ctx context.Context) error {
	for _, n := range c.networks {
		if err := c.setRelay(ctx, n); err != nil {
			return fmt.Errorf("relay of %s: %w", n.ID, err)
		}
	}
	return nil
}

// relayID is the login of a network's configured relay.
func (n *network) relayID() networkid.UserLoginID { return networkid.UserLoginID(n.ID + ".relay") }

// setRelay makes, changes or removes the login of a network's relay. It
// belongs to the bot, so that no person appears in its place.
func (c *Connector) setRelay(ctx context.Context, n *network) error {
	bot, err := c.br.GetUserByMXID(ctx, c.br.Bot.GetMXID())
	if err != nil {
		return err
	}
	login, err := c.br.GetExistingUserLoginByID(ctx, n.relayID())
	if err != nil {
		return err
	}
	r := n.Relay
	if r == nil {
		if login != nil && login.Metadata.(*LoginMetadata).Relay {
			login.Delete(ctx, status.BridgeState{}, bridgev2.DeleteOpts{LogoutRemote: true})
		}
		return nil
	}
	if login != nil && login.UserMXID != bot.MXID {
		return fmt.Errorf("the login %s belongs to %s", login.ID, login.UserMXID)
	}
	meta := &LoginMetadata{loginData: loginData{
		Network: n.ID, Nick: r.Nick, User: "matrix", RealName: "Matrix relay",
		Account: r.Account, Password: r.Password, Relay: true,
	}}
	if login != nil {
		meta.Channels, meta.Casemapping = login.Metadata.(*LoginMetadata).Channels, login.Metadata.(*LoginMetadata).Casemapping
	}
	for _, name := range r.Channels {
		if !hasChannel(meta.Channels, meta.Casemapping, name) {
			meta.Channels = append(meta.Channels, client.Wanted{Name: name})
		}
	}
	if _, err := bot.NewLogin(ctx, &database.UserLogin{ID: n.relayID(), RemoteName: r.Nick, Metadata: meta}, nil); err != nil {
		return err
	}
	c.br.Config.Relay.DefaultRelays = append(c.br.Config.Relay.DefaultRelays, n.relayID())
	return nil
}

func hasChannel(list []client.Wanted, m client.Casemapping, name string) bool {
	for _, w := range list {
		if m.Fold(w.Name) == m.Fold(name) {
			return true
		}
	}
	return false
}

// GetName implements bridgev2.NetworkConnector.
func (c *Connector) GetName() bridgev2.BridgeName {
	return bridgev2.BridgeName{
		DisplayName: "IRC", NetworkURL: "https://modern.ircdocs.horse", NetworkID: "irc",
		BeeperBridgeType: "irc", DefaultCommandPrefix: "!irc",
	}
}

// GetDBMetaTypes implements bridgev2.NetworkConnector.
func (c *Connector) GetDBMetaTypes() database.MetaTypes {
	return database.MetaTypes{
		Portal:    func() any { return &PortalMetadata{} },
		Message:   func() any { return &MessageMetadata{} },
		UserLogin: func() any { return &LoginMetadata{} },
	}
}

// GetCapabilities implements bridgev2.NetworkConnector.
func (c *Connector) GetCapabilities() *bridgev2.NetworkGeneralCapabilities {
	return &bridgev2.NetworkGeneralCapabilities{
		Provisioning: bridgev2.ProvisioningCapabilities{
			ResolveIdentifier: bridgev2.ResolveIdentifierCapabilities{CreateDM: true, LookupUsername: true},
		},
	}
}

// GetConfig implements bridgev2.NetworkConnector. The configuration is given
// to New instead.
func (c *Connector) GetConfig() (example string, data any, upgrader configupgrade.Upgrader) {
	return "", nil, nil
}

// GetBridgeInfoVersion implements bridgev2.NetworkConnector.
func (c *Connector) GetBridgeInfoVersion() (info, capabilities int) { return 1, 1 }

// FillPortalBridgeInfo implements bridgev2.PortalBridgeInfoFillingNetwork: it
// names the IRC network of a room.
func (c *Connector) FillPortalBridgeInfo(p *bridgev2.Portal, content *event.BridgeEventContent) {
	id, name := splitID(string(p.ID))
	n := c.network(id)
	if n == nil {
		return
	}
	host, _, _ := strings.Cut(n.Address, ":")
	content.Network = &event.BridgeInfoSection{ID: n.ID, DisplayName: n.Name, ExternalURL: "irc://" + host}
	if meta, ok := p.Metadata.(*PortalMetadata); ok && meta.Name != "" {
		name = meta.Name
	}
	content.Channel.ID, content.Channel.DisplayName = name, name
}

// ValidateUserID implements bridgev2.IdentifierValidatingNetwork.
func (c *Connector) ValidateUserID(id networkid.UserID) bool {
	n, nick := splitID(string(id))
	return c.network(n) != nil && checkNick(nick, 0) == nil
}

// LoadUserLogin implements bridgev2.NetworkConnector.
func (c *Connector) LoadUserLogin(_ context.Context, login *bridgev2.UserLogin) error {
	meta, ok := login.Metadata.(*LoginMetadata)
	if !ok {
		return errors.New("the login has no metadata")
	}
	n := c.network(meta.Network)
	if n == nil {
		return fmt.Errorf("the network %q is not configured any more", meta.Network)
	}
	s, err := newSession(n, meta)
	if err != nil {
		return err
	}
	s.attach(login)
	return nil
}
