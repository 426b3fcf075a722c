package homeserver

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"switchboard/homeserver/account"
	"switchboard/homeserver/clientapi"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/federation"
	"switchboard/homeserver/mail"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/media"
	"switchboard/homeserver/notices"
	"switchboard/homeserver/signing"
)

// Config is the part of the configuration file that the homeserver itself
// needs. Its sections stand beside their code.
type Config struct {
	// ServerName is the part of user IDs behind the colon: in
	// @alice:example.org it is example.org. It can never be changed.
	ServerName matrix.ServerName `yaml:"server_name"`

	// PublicURL is the address that clients use, such as
	// https://matrix.example.org. Empty means https:// and the server name.
	PublicURL string `yaml:"public_url"`

	// Delegate is the host and port at which other servers reach this one, such
	// as matrix.example.org:443. It is told at /.well-known/matrix/server. Empty
	// means port 8448 of server_name.
	Delegate string `yaml:"delegate"`

	// DataDir is the folder of everything that the server keeps: the SQLite
	// database, the signing key, media and registrations of appservices. It is
	// made, readable by nobody else, if it does not exist.
	DataDir string `yaml:"data_dir"`

	// Memory is how much memory the process should take: Go's collector works
	// harder near it, and the caches get a quarter of it. 0 sets no limit, and
	// the caches get 64M.
	Memory int64 `yaml:"memory" unit:"bytes"`

	// Database is where events, rooms and accounts are kept.
	Database DatabaseConfig `yaml:"database"`

	// Registration is who may make an account, and what logins are like.
	Registration account.Config `yaml:"registration"`

	// Rooms holds what goes for new rooms.
	Rooms RoomsConfig `yaml:"rooms"`

	// Presence tells users who of the others is online.
	Presence bool `yaml:"presence"`

	// Media are files that users upload.
	Media media.Config `yaml:"media"`

	// Mail is how users are told by e-mail what they have left unread.
	Mail mail.Config `yaml:"mail"`

	// ServerNotices is as whom the server speaks with its users.
	ServerNotices notices.Config `yaml:"server_notices"`

	// Federation is how this server talks to others.
	Federation FederationConfig `yaml:"federation"`

	// Outbound is where this server may connect to.
	Outbound fedclient.OutboundConfig `yaml:"outbound"`

	// Moderation keeps out whom others have found to do harm.
	Moderation ModerationConfig `yaml:"moderation"`

	// RateLimits bound what one user or one address may ask.
	RateLimits RateLimitsConfig `yaml:"rate_limits"`

	// Support tells users whom to ask about the server.
	Support SupportConfig `yaml:"support"`
}

// DatabaseConfig is the section "database".
type DatabaseConfig struct {
	// URL is "postgres://user:password@host/name", or "sqlite:" and the path of
	// a file. Empty means an SQLite file in the data directory, which is right
	// for up to some hundred users.
	URL string `yaml:"url" secret:"true"`

	// Readers is how many queries may run at once. 0 means 8 on SQLite and 16
	// on PostgreSQL.
	Readers int `yaml:"readers"`
}

// RoomsConfig is the section "rooms".
type RoomsConfig struct {
	// DefaultVersion is the room version of new rooms where the client asks for
	// none.
	DefaultVersion string `yaml:"default_version"`
}

// ModerationConfig is the section "moderation".
type ModerationConfig struct {
	// PolicyLists are rooms with lists of users, servers and rooms that are
	// banned, by ID such as !abc:example.org, or by alias. Whom they ban may not
	// invite users of this server, nor join or knock here; nobody here joins a
	// room that they ban. Users of this server are never banned by them. A user
	// of this server must be in the room, or its rules do not come here. An ID is
	// surer than an alias, whose server is asked at each start.
	PolicyLists []string `yaml:"policy_lists"`

	// PolicyServerKey is the public key, in base64, of a policy server that runs
	// under the name of this server. It is told at
	// /.well-known/matrix/policy_server to clients that want it to guard a room.
	// /_matrix/policy/v1/sign must then lead to that policy server, which is
	// another program.
	PolicyServerKey string `yaml:"policy_server_key"`
}

// check calls bad for everything that is wrong.
func (c ModerationConfig) check(bad func(key, format string, args ...any)) {
	for i, name := range c.PolicyLists {
		_, noRoom := matrix.ParseRoomID(name)
		_, noAlias := matrix.ParseRoomAlias(name)
		if noRoom != nil && noAlias != nil {
			bad(fmt.Sprintf("moderation.policy_lists[%d]", i), "%q is neither a room's ID, such as !abc:example.org, nor an alias, such as #list:example.org", name)
		}
	}
	if _, err := signing.ParsePublicKey(c.PolicyServerKey); c.PolicyServerKey != "" && err != nil {
		bad("moderation.policy_server_key", "%v", err)
	}
}

// FederationConfig is the section "federation".
type FederationConfig struct {
	Asking fedclient.Config  `yaml:",inline"`
	Taking federation.Config `yaml:",inline"`
}

// RateLimitsConfig is the section "rate_limits".
type RateLimitsConfig struct {
	// Enabled turns all limits on or off.
	Enabled bool `yaml:"enabled"`

	clientapi.Rates `yaml:",inline"`
}

// SupportConfig is the section "support", shown at /.well-known/matrix/support.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixsupport
type SupportConfig struct {
	// Contacts are people to ask.
	Contacts []ContactConfig `yaml:"contacts"`

	// Page is the URL of a page with help.
	Page string `yaml:"page"`
}

// ContactConfig is one person or office to ask.
type ContactConfig struct {
	// MatrixID is a user ID.
	MatrixID string `yaml:"matrix_id"`

	// Email is an e-mail address.
	Email string `yaml:"email"`

	// Role says what to ask about.
	Role string `yaml:"role" oneof:"m.role.admin m.role.security"`
}

// SetDefaults fills in what a contact that is written down may leave out.
func (c *ContactConfig) SetDefaults() { c.Role = "m.role.admin" }

// DefaultConfig is a server on this computer alone, with closed registration.
func DefaultConfig() Config {
	return Config{
		ServerName:   "localhost",
		DataDir:      "data",
		Registration: account.DefaultConfig(),
		Rooms:        RoomsConfig{DefaultVersion: matrix.DefaultRoomVersion},
		Presence:     true,
		Media:        media.DefaultConfig(),
		Mail:         mail.DefaultConfig(),

		ServerNotices: notices.DefaultConfig(),
		Federation:    FederationConfig{fedclient.DefaultConfig(), federation.DefaultConfig()},
		Outbound:      fedclient.DefaultOutboundConfig(),
		RateLimits:    RateLimitsConfig{Enabled: true, Rates: clientapi.DefaultRates()},
	}
}

// Check returns everything that is wrong, not only the first thing. Each error
// begins with the key in the file.
func (c Config) Check() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if _, err := matrix.ParseServerName(string(c.ServerName)); err != nil {
		bad("server_name", "%q is not a host name, such as example.org", c.ServerName)
	}
	if c.PublicURL != "" && !webAddress(c.PublicURL) {
		bad("public_url", "must be a URL such as https://matrix.example.org")
	}
	if c.Delegate != "" {
		if _, err := matrix.ParseServerName(c.Delegate); err != nil {
			bad("delegate", "must be a host and a port, such as matrix.example.org:443")
		}
	}
	if c.DataDir == "" {
		bad("data_dir", "must not be empty")
	}
	if c.Memory != 0 && c.Memory < 64<<20 {
		bad("memory", "must be at least 64M, or 0 for no limit")
	}
	if u := c.Database.URL; u != "" && !strings.HasPrefix(u, "sqlite:") && !strings.HasPrefix(u, "postgres://") && !strings.HasPrefix(u, "postgresql://") {
		bad("database.url", "must begin with postgres:// or sqlite:") // the value may hold a password
	}
	if c.Database.Readers < 0 {
		bad("database.readers", "must not be negative")
	}
	if _, ok := matrix.Version(c.Rooms.DefaultVersion); !ok {
		bad("rooms.default_version", "there is no room version %q; known are 1 to %s", c.Rooms.DefaultVersion, matrix.DefaultRoomVersion)
	}
	c.Moderation.check(bad)
	for i, contact := range c.Support.Contacts {
		if contact.MatrixID == "" && contact.Email == "" {
			bad(fmt.Sprintf("support.contacts[%d]", i), "needs matrix_id or email")
		}
	}
	if c.Support.Page != "" && !webAddress(c.Support.Page) {
		bad("support.page", "must be a URL")
	}
	return errors.Join(append(errs, c.Registration.Check(), c.Media.Check(), c.Mail.Check(), c.ServerNotices.Check(c.ServerName), c.Federation.Asking.Check(), c.Federation.Taking.Check(), c.Outbound.Check(),
		c.RateLimits.Check())...)
}

func webAddress(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// BaseURL is the address that clients use, without a "/" at its end.
func (c Config) BaseURL() string {
	if c.PublicURL != "" {
		return strings.TrimRight(c.PublicURL, "/")
	}
	return "https://" + string(c.ServerName)
}

// advertised is the address that clients are told, "" for none.
func (c Config) advertised() string {
	if c.PublicURL == "" && c.ServerName == "localhost" {
		return "" // whatever they use is right
	}
	return c.BaseURL()
}

// shown is the section as the edge shows it.
func (c SupportConfig) shown() clientapi.Support {
	s := clientapi.Support{Page: c.Page}
	for _, contact := range c.Contacts {
		s.Contacts = append(s.Contacts, clientapi.Contact{MatrixID: contact.MatrixID, Email: contact.Email, Role: contact.Role})
	}
	return s
}

// databaseURL is where the database is.
func (c Config) databaseURL() string {
	if c.Database.URL != "" {
		return c.Database.URL
	}
	return "sqlite:" + filepath.Join(c.DataDir, "switchboard.db")
}

// cacheBytes is what the caches of the database and the store may take together;
// the connections of syncs may take a quarter of it besides.
func (c Config) cacheBytes() int64 {
	if c.Memory == 0 {
		return 64 << 20
	}
	return c.Memory / 4
}
