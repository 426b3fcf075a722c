package bridge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"maunium.net/go/mautrix/bridgev2/bridgeconfig"
)

// Config are the settings that every bridge has. A network's own section
// embeds them.
type Config struct {
	// Enabled switches the bridge on.
	Enabled bool `yaml:"enabled"`

	// Permissions says who may do what: the key is a user ID, a server name or
	// "*" for everybody, the value is "block" (nothing), "relay" (be relayed by
	// the login of somebody else), "commands" (talk with the bot, too), "user"
	// (log in) or "admin". The most exact key counts. When empty, users of this
	// server may log in and all others may be relayed.
	Permissions map[string]string `yaml:"permissions"`

	// Bot is the localpart of the bridge's own user. When empty it is the name
	// of the bridge and "bot", such as @ircbot.
	Bot string `yaml:"bot"`

	// CommandPrefix begins a command to the bot in rooms other than the
	// management room. When empty it is "!" and the name of the bridge.
	CommandPrefix string `yaml:"command_prefix"`

	// Relays are the IDs of logins that may relay in rooms where nobody who is
	// logged in offers to, besides those the network's section configures.
	Relays []string `yaml:"relays"`

	// Spaces collects the rooms of each login in a space of its network.
	Spaces bool `yaml:"spaces"`
}

// DefaultConfig is what holds where nothing else is said.
func DefaultConfig() Config { return Config{Spaces: true} }

// levels are the permissions by their name in the config file.
func levels() map[string]bridgeconfig.Permissions {
	return map[string]bridgeconfig.Permissions{
		"block":    bridgeconfig.PermissionLevelBlock,
		"relay":    bridgeconfig.PermissionLevelRelay,
		"commands": bridgeconfig.PermissionLevelCommands,
		"user":     bridgeconfig.PermissionLevelUser,
		"admin":    bridgeconfig.PermissionLevelAdmin,
	}
}

// Check returns everything that is wrong. Section is the config section's name,
// such as "bridges.irc".
func (c Config) Check(section string) error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s.%s: %s", section, key, fmt.Sprintf(format, args...)))
	}
	known := levels()
	for _, who := range slices.Sorted(maps.Keys(c.Permissions)) {
		if _, ok := known[c.Permissions[who]]; !ok {
			bad("permissions."+who, "is %q, must be one of block, relay, commands, user, admin", c.Permissions[who])
		}
		if strings.HasPrefix(who, "@") && !strings.Contains(who, ":") {
			bad("permissions."+who, "must be a whole user ID like @alice:example.org, a server name or \"*\"")
		}
	}
	if strings.ContainsFunc(c.Bot, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("._=-/", r))
	}) {
		bad("bot", "%q may hold only a-z, 0-9 and ._=-/", c.Bot)
	}
	if strings.ContainsAny(c.CommandPrefix, " \t\n") {
		bad("command_prefix", "must not contain blanks")
	}
	return errors.Join(errs...)
}

// permissions translates the section for bridgev2.
func (c Config) permissions(server string) bridgeconfig.PermissionConfig {
	named := c.Permissions
	if len(named) == 0 {
		named = map[string]string{"*": "relay", server: "user"}
	}
	known, out := levels(), make(bridgeconfig.PermissionConfig, len(named))
	for who, level := range named {
		p := known[level]
		out[who] = &p
	}
	return out
}

// Place says where a bridge runs.
type Place struct {
	// ID names the bridge, such as "irc". It is part of the user IDs of its
	// ghosts and of the names of its database and registration, so it can not
	// be changed later. Letters a-z only.
	ID string

	// ServerName is the homeserver's.
	ServerName string

	// PublicURL is the address under which clients reach the homeserver,
	// without a slash at the end. It is needed for links to media; without it
	// there are none.
	PublicURL string

	// Database is "sqlite:" and the path of a file that only this bridge uses,
	// or a "postgres://" URL, where the bridge uses the schema "bridge_" + ID.
	Database string

	// URL is where a homeserver that is another program reaches Host.Handler,
	// without a slash at the end. It is empty when that is in this process.
	URL string

	// Ephemeral asks the homeserver for typing, receipts and presence.
	Ephemeral bool

	// Dial makes connections to hosts whose names anybody can choose, as far as
	// the operator allows their addresses. Nil allows all.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// MediaPath is where Host.Media must be mounted.
func (p Place) MediaPath() string { return "/_switchboard/bridges/" + p.ID + "/media/" }
