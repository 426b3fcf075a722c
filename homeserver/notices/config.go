package notices

import (
	"errors"
	"fmt"
	"strings"

	"switchboard/homeserver/matrix"
)

// Config is the section "server_notices" of the configuration file: as whom the
// server speaks with its users (switchboard notice send).
type Config struct {
	// Localpart is the name of the server's own user: server in
	// @server:example.org. Nobody else can have it. Names that begin with _ are
	// free on every server.
	Localpart string `yaml:"localpart"`

	// DisplayName is what people see as the sender.
	DisplayName string `yaml:"display_name"`

	// Avatar is the mxc:// address of the sender's picture, and of the room's.
	Avatar string `yaml:"avatar"`

	// RoomName is the name of the room that each user has with the server.
	RoomName string `yaml:"room_name"`
}

// DefaultConfig speaks as @_server.
func DefaultConfig() Config {
	return Config{Localpart: "_server", DisplayName: "Server", RoomName: "Server notices"}
}

// Check returns everything that is wrong, not only the first thing. ServerName
// is that of this server.
func (c Config) Check(server matrix.ServerName) error {
	var errs []error
	if !matrix.ValidLocalpart(c.Localpart, server) {
		errs = append(errs, fmt.Errorf("server_notices.localpart: %q may hold only a-z, 0-9 and ._=-/+", c.Localpart))
	}
	if c.Avatar != "" && !strings.HasPrefix(c.Avatar, "mxc://") {
		errs = append(errs, errors.New("server_notices.avatar: must begin with mxc:// and name a file of this server"))
	}
	if c.RoomName == "" {
		errs = append(errs, errors.New("server_notices.room_name: must not be empty"))
	}
	return errors.Join(errs...)
}
