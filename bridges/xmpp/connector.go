package xmpp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.mau.fi/util/configupgrade"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/commands"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/event"

	"switchboard/bridges/xmpp/client"
)

// Connector is the XMPP side of a bridge. Make one with New for each start.
type Connector struct {
	br     *bridgev2.Bridge
	config Config
	dial   client.Dial
	web    *http.Client // for files

	uploads atomic.Int64 // what the homeserver takes, in bytes; 0 until that is known

	mu       sync.Mutex // tier 1; guards sessions
	sessions map[networkid.UserLoginID]*session
}

// all are the logins of this bridge.
func (c *Connector) all() []*session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.sessions))
}

var (
	_ bridgev2.NetworkConnector               = (*Connector)(nil)
	_ bridgev2.IdentifierValidatingNetwork    = (*Connector)(nil)
	_ bridgev2.PortalBridgeInfoFillingNetwork = (*Connector)(nil)
	_ bridgev2.MaxFileSizeingNetwork          = (*Connector)(nil)
)

// fileTimeout is how long a file may take to come or go.
const fileTimeout = 5 * time.Minute

// New returns a connector. All its connections are made by dial, but for those
// to the configured servers; nil is net.Dialer's. The configuration must have
// passed Check.
func New(config Config, dial client.Dial) *Connector {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return &Connector{config: config, dial: dial, sessions: make(map[networkid.UserLoginID]*session), web: &http.Client{
		Timeout:   fileTimeout,
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, TLSHandshakeTimeout: 20 * time.Second},
	}}
}

// Init implements bridgev2.NetworkConnector.
func (c *Connector) Init(br *bridgev2.Bridge) {
	c.br = br
	br.Commands.(*commands.Processor).AddHandlers(c.commands()...)
}

// Start implements bridgev2.NetworkConnector.
func (c *Connector) Start(context.Context) error { return nil }

// GetName implements bridgev2.NetworkConnector.
func (c *Connector) GetName() bridgev2.BridgeName {
	return bridgev2.BridgeName{
		DisplayName: "XMPP", NetworkURL: "https://xmpp.org", NetworkID: "xmpp",
		BeeperBridgeType: "xmpp", DefaultCommandPrefix: "!xmpp",
	}
}

// GetDBMetaTypes implements bridgev2.NetworkConnector.
func (c *Connector) GetDBMetaTypes() database.MetaTypes {
	return database.MetaTypes{
		Message:   func() any { return &MessageMetadata{} },
		UserLogin: func() any { return &LoginMetadata{} },
	}
}

// GetCapabilities implements bridgev2.NetworkConnector.
func (c *Connector) GetCapabilities() *bridgev2.NetworkGeneralCapabilities {
	return &bridgev2.NetworkGeneralCapabilities{
		Provisioning: bridgev2.ProvisioningCapabilities{
			ResolveIdentifier: bridgev2.ResolveIdentifierCapabilities{CreateDM: true, LookupUsername: true, ContactList: true},
		},
	}
}

// GetConfig implements bridgev2.NetworkConnector. The configuration is given to
// New instead.
func (c *Connector) GetConfig() (example string, data any, upgrader configupgrade.Upgrader) {
	return "", nil, nil
}

// GetBridgeInfoVersion implements bridgev2.NetworkConnector.
func (c *Connector) GetBridgeInfoVersion() (info, capabilities int) { return 1, 1 }

// FillPortalBridgeInfo implements bridgev2.PortalBridgeInfoFillingNetwork.
func (c *Connector) FillPortalBridgeInfo(p *bridgev2.Portal, content *event.BridgeEventContent) {
	content.Channel.ExternalURL = "xmpp:" + string(p.ID)
	if p.RoomType != database.RoomTypeDM {
		content.Channel.ExternalURL += "?join"
	}
}

// ValidateUserID implements bridgev2.IdentifierValidatingNetwork.
func (c *Connector) ValidateUserID(id networkid.UserID) bool {
	_, err := checkUserID(string(id))
	return err == nil
}

// SetMaxFileSize implements bridgev2.MaxFileSizeingNetwork: the homeserver's
// limit counts too.
func (c *Connector) SetMaxFileSize(size int64) { c.uploads.Store(size) }

// maxFileSize is the largest file that is carried.
func (c *Connector) maxFileSize() int64 {
	if n := c.uploads.Load(); n > 0 {
		return min(n, c.config.MaxFileSize)
	}
	return c.config.MaxFileSize
}

// LoadUserLogin implements bridgev2.NetworkConnector.
func (c *Connector) LoadUserLogin(_ context.Context, login *bridgev2.UserLogin) error {
	meta, ok := login.Metadata.(*LoginMetadata)
	if !ok {
		return errors.New("the login has no metadata")
	}
	s := &session{connector: c, login: login, lanes: make(map[string]*lane), roster: make(map[string]client.RosterItem)}
	config, err := c.config.client(parse(login.ID), meta.Password, c.dial)
	if err != nil {
		return fmt.Errorf("the server of %s: %w", login.ID, err)
	}
	s.client = client.New(config, s.onEvent)
	s.account, s.archive = &lane{session: s}, s.client.Archive
	login.Client = s
	c.mu.Lock()
	c.sessions[login.ID] = s
	c.mu.Unlock()
	return nil
}
