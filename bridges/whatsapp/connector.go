package whatsapp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"go.mau.fi/util/configupgrade"
	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waCompanionReg"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/store/sqlstore"
	"go.mau.fi/whatsmeow/store/sqlstore/upgrades"
	"google.golang.org/protobuf/proto"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/commands"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
)

// Connector is the WhatsApp side of a bridge. Make one with New for each start.
type Connector struct {
	config       Config
	web          *http.Client // makes all connections to WhatsApp, unless it is nil
	codeTime     time.Duration
	historyPause time.Duration
	br           *bridgev2.Bridge
	store        *sqlstore.Container

	uploads atomic.Int64 // what the homeserver takes; 0 until that is known
}

var (
	_ bridgev2.NetworkConnector            = (*Connector)(nil)
	_ bridgev2.IdentifierValidatingNetwork = (*Connector)(nil)
	_ bridgev2.MaxFileSizeingNetwork       = (*Connector)(nil)
)

// New returns a connector. The configuration must have passed Check.
func New(config Config) *Connector {
	return &Connector{config: config, web: config.web(), codeTime: codeTime, historyPause: historyPause}
}

// Init implements bridgev2.NetworkConnector.
func (c *Connector) Init(br *bridgev2.Bridge) {
	c.br = br
	c.store = sqlstore.NewWithWrappedDB(br.DB.Child("whatsmeow_version", upgrades.Table, br.DB.Log), library{br.Log})
	br.Commands.(*commands.Processor).AddHandlers(c.commands()...)
}

// nameDevices tells whatsmeow, which keeps it in a variable, what devices are
// called.
var nameDevices sync.Once

// Start implements bridgev2.NetworkConnector: it brings the database up to date.
// The keys of linked devices lie in the bridge's own.
func (c *Connector) Start(ctx context.Context) error {
	nameDevices.Do(func() {
		store.DeviceProps.Os = proto.String(c.config.DeviceName)
		store.DeviceProps.PlatformType = waCompanionReg.DeviceProps_CHROME.Enum()
	})
	if err := c.store.Upgrade(ctx); err != nil {
		return fmt.Errorf("bring the database of devices up to date: %w", err)
	}
	if _, err := c.br.DB.Exec(ctx, historyTable); err != nil {
		return fmt.Errorf("create the table of old messages: %w", err)
	}
	return nil
}

// GetName implements bridgev2.NetworkConnector.
func (c *Connector) GetName() bridgev2.BridgeName {
	return bridgev2.BridgeName{
		DisplayName: "WhatsApp", NetworkURL: "https://whatsapp.com", NetworkID: "whatsapp",
		BeeperBridgeType: "whatsapp", DefaultCommandPrefix: "!whatsapp",
	}
}

// GetDBMetaTypes implements bridgev2.NetworkConnector.
func (c *Connector) GetDBMetaTypes() database.MetaTypes {
	return database.MetaTypes{
		Ghost:     func() any { return &GhostMetadata{} },
		Message:   func() any { return &MessageMetadata{} },
		UserLogin: func() any { return &LoginMetadata{} },
	}
}

// GetCapabilities implements bridgev2.NetworkConnector.
func (c *Connector) GetCapabilities() *bridgev2.NetworkGeneralCapabilities {
	return &bridgev2.NetworkGeneralCapabilities{
		Provisioning: bridgev2.ProvisioningCapabilities{
			ResolveIdentifier: bridgev2.ResolveIdentifierCapabilities{CreateDM: true, LookupPhone: true, ContactList: true},
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

// ValidateUserID implements bridgev2.IdentifierValidatingNetwork.
func (c *Connector) ValidateUserID(id networkid.UserID) bool { return isLID(string(id)) }

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
func (c *Connector) LoadUserLogin(ctx context.Context, login *bridgev2.UserLogin) error {
	meta, ok := login.Metadata.(*LoginMetadata)
	if !ok {
		return errors.New("the login has no metadata")
	}
	s := &session{connector: c, login: login}
	if !meta.Device.IsEmpty() {
		device, err := c.store.GetDevice(ctx, meta.Device)
		if err != nil {
			return fmt.Errorf("load the keys of the device: %w", err)
		}
		if device != nil {
			if device.PushName == "" {
				device.PushName = login.RemoteName // it must not be empty; the phone sends the true one later
			}
			s.client = c.client(guard(device), login.Log)
		}
	}
	login.Client = s
	return nil
}

// longestWait bounds the time between two attempts to connect.
const longestWait = time.Minute

// client makes a client for a device.
func (c *Connector) client(device *store.Device, log zerolog.Logger) *whatsmeow.Client {
	cli := whatsmeow.NewClient(device, library{log})
	if c.web != nil {
		cli.SetPreLoginHTTPClient(c.web)
		cli.SetWebsocketHTTPClient(c.web)
		cli.SetMediaHTTPClient(c.web)
	}
	cli.SynchronousAck, cli.EnableDecryptedEventBuffer = true, true
	cli.UseRetryMessageStore, cli.AutomaticMessageRerequestFromPhone = true, true
	cli.InitialAutoReconnect = true
	cli.ManualHistorySyncDownload = true
	cli.EmitAppStateEventsOnFullSync = false
	cli.AutoReconnectHook = func(error) bool {
		cli.AutoReconnectErrors = min(cli.AutoReconnectErrors, int(longestWait/(2*time.Second)))
		return true
	}
	return cli
}
