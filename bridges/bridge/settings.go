package bridge

import (
	"fmt"
	"math"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
	"maunium.net/go/mautrix/bridgev2/bridgeconfig"
	"maunium.net/go/mautrix/bridgev2/networkid"

	"switchboard/registrations"
)

// registration makes the two registrations of a bridge. The second lets the
// bridge act as a local user who is logged in to the network ("double
// puppeting"); it is separate and is never called, so that the bridge hears
// only of rooms in which it is.
func (h *Host) registrations() ([]*registrations.Registration, error) {
	server := regexp.QuoteMeta(h.place.ServerName)
	main, err := registrations.Generate(registrations.Registration{
		ID: "switchboard-" + h.place.ID, URL: h.place.URL, ASToken: h.secrets.asToken, HSToken: h.secrets.hsToken,
		SenderLocalpart: h.bot(),
		Users: []registrations.Namespace{
			{Regex: "@" + regexp.QuoteMeta(h.bot()) + ":" + server + "$", Exclusive: true},
			{Regex: "@" + h.place.ID + "_.*:" + server + "$", Exclusive: true},
		},
		Protocols:        []string{h.place.ID},
		ReceiveEphemeral: h.place.Ephemeral,
	})
	if err != nil {
		return nil, fmt.Errorf("registration of bridge %s: %w", h.place.ID, err)
	}
	puppets, err := registrations.Generate(registrations.Registration{
		ID: "switchboard-" + h.place.ID + "-puppets", ASToken: h.secrets.puppetToken, HSToken: h.secrets.puppetHS,
		SenderLocalpart: h.bot() + "-puppets",
		Users:           []registrations.Namespace{{Regex: "@.*:" + server + "$"}},
	})
	if err != nil {
		return nil, fmt.Errorf("registration of bridge %s: %w", h.place.ID, err)
	}
	return []*registrations.Registration{main, puppets}, nil
}

func (h *Host) bot() string {
	if h.config.Bot != "" {
		return h.config.Bot
	}
	return h.place.ID + "bot"
}

func (h *Host) commandPrefix() string {
	if h.config.CommandPrefix != "" {
		return h.config.CommandPrefix
	}
	return "!" + h.place.ID
}

// relaySection is read as YAML, because only its decoder compiles the
// templates. Names of users may hold anything, so they are escaped.
const relaySection = `
enabled: true
displayname_format: "{{ .DisambiguatedName }}"
message_formats:
  m.text: "<b>{{ .Sender.DisambiguatedName | html }}</b>: {{ .Message }}"
  m.notice: "<b>{{ .Sender.DisambiguatedName | html }}</b>: {{ .Message }}"
  m.emote: "* <b>{{ .Sender.DisambiguatedName | html }}</b> {{ .Message }}"
  m.file: "<b>{{ .Sender.DisambiguatedName | html }}</b> sent a file{{ if .Caption }}: {{ .Caption }}{{ end }}"
  m.image: "<b>{{ .Sender.DisambiguatedName | html }}</b> sent an image{{ if .Caption }}: {{ .Caption }}{{ end }}"
  m.audio: "<b>{{ .Sender.DisambiguatedName | html }}</b> sent an audio file{{ if .Caption }}: {{ .Caption }}{{ end }}"
  m.video: "<b>{{ .Sender.DisambiguatedName | html }}</b> sent a video{{ if .Caption }}: {{ .Caption }}{{ end }}"
  m.location: "<b>{{ .Sender.DisambiguatedName | html }}</b> sent a location{{ if .Caption }}: {{ .Caption }}{{ end }}"
`

// settings is what bridgev2 wants to know.
func (h *Host) settings() (*bridgeconfig.Config, error) {
	c := &bridgeconfig.Config{}
	c.Homeserver.Address = "http://homeserver.invalid" // the round tripper never looks at it
	c.Homeserver.Domain = h.place.ServerName
	c.Homeserver.Software = bridgeconfig.SoftwareStandard
	c.Homeserver.RetryLimit = 4

	a := &c.AppService
	a.NoServer = true
	a.ID = "switchboard-" + h.place.ID
	a.ASToken, a.HSToken = h.secrets.asToken, h.secrets.hsToken
	a.Bot.Username, a.Bot.Displayname = h.bot(), h.name
	a.UsernameTemplate = h.place.ID + "_{{.}}"
	a.EphemeralEvents = h.place.Ephemeral
	a.PublicAddress = strings.TrimSuffix(h.place.PublicURL, "/")

	b := &c.Bridge
	b.CommandPrefix = h.commandPrefix()
	b.Permissions = h.config.permissions(h.place.ServerName)
	b.PersonalFilteringSpaces = h.config.Spaces
	b.PortalEventBuffer = 64
	b.BridgeStatusNotices = "none" // Tell does that
	b.BridgeMatrixLeave, b.BridgeNotices = true, true
	b.DeduplicateMatrixMessages, b.RevertFailedStateChanges = true, true
	b.TagOnlyOnCreate, b.MuteOnlyOnCreate = true, true
	// How many old messages there are is each connector's own business.
	b.Backfill = bridgeconfig.BackfillConfig{Enabled: true, MaxInitialMessages: math.MaxInt32, MaxCatchupMessages: math.MaxInt32}
	if err := yaml.Unmarshal([]byte(relaySection), &b.Relay); err != nil {
		return nil, fmt.Errorf("relay settings: %w", err)
	}
	for _, login := range h.config.Relays {
		b.Relay.DefaultRelays = append(b.Relay.DefaultRelays, networkid.UserLoginID(login))
	}

	c.Matrix = bridgeconfig.MatrixConfig{
		MessageStatusEvents: true, MessageErrorNotices: true, DeliveryReceipts: true,
		SyncDirectChatList: true, FederateRooms: true, UploadFileThreshold: 5 << 20,
	}
	c.DoublePuppet.Secrets = map[string]string{h.place.ServerName: "as_token:" + h.secrets.puppetToken}
	if a.PublicAddress != "" {
		c.PublicMedia = bridgeconfig.PublicMediaConfig{
			Enabled: true, UseDatabase: true, SigningKey: h.secrets.mediaKey, HashLength: 12,
			PathPrefix: strings.TrimSuffix(h.place.MediaPath(), "/"),
		}
	}
	return c, nil
}
