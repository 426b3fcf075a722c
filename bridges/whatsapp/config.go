package whatsapp

import (
	"errors"
	"fmt"
	"time"

	"switchboard/bridges/bridge"
)

// Config is the section "bridges.whatsapp" of the configuration file. All of it
// but "enabled" may be left out.
type Config struct {
	bridge.Config `yaml:",inline"`

	// DeviceName is what the phone shows in its list of linked devices.
	DeviceName string `yaml:"device_name"`

	// History is how many old messages of each chat are taken over when a phone
	// is linked; 0 takes none.
	History int `yaml:"history"`

	// SendTimeout is how long a message waits for the connection to come back.
	SendTimeout time.Duration `yaml:"send_timeout"`

	// MaxFileSize is the largest file that is carried.
	MaxFileSize int64 `yaml:"max_file_size" unit:"bytes"`

	// Presence says when you are shown as online: "active" while you write and
	// read here, or "never". Where you are not online, WhatsApp does not tell
	// that others type, and your phone notifies you.
	Presence string `yaml:"presence" oneof:"active never"`

	// TestServer is the server of a test, used instead of WhatsApp's: host:port,
	// a blank, and the public key that vouches for it, in hexadecimal digits.
	TestServer string `yaml:"test_server"`
}

// SetDefaults fills in everything that may be left out.
func (c *Config) SetDefaults() {
	c.DeviceName = "Switchboard"
	c.History = 100
	c.SendTimeout = 2 * time.Minute
	c.MaxFileSize = 100 << 20
	c.Presence = presenceActive
}

const (
	presenceActive = "active"
	presenceNever  = "never"
)

// Check returns everything that is wrong.
func (c Config) Check() error {
	errs := []error{c.Config.Check("bridges.whatsapp")}
	if c.DeviceName == "" || len(c.DeviceName) > 50 {
		errs = append(errs, errors.New("bridges.whatsapp.device_name: must have 1 to 50 bytes"))
	}
	if c.History < 0 || c.SendTimeout < 0 {
		errs = append(errs, errors.New("bridges.whatsapp.history, send_timeout: must not be negative"))
	}
	if c.MaxFileSize <= 0 {
		errs = append(errs, errors.New("bridges.whatsapp.max_file_size: must be positive"))
	}
	if c.Presence != presenceActive && c.Presence != presenceNever {
		errs = append(errs, errors.New(`bridges.whatsapp.presence: must be "active" or "never"`))
	}
	if _, _, err := c.testServer(); c.TestServer != "" && err != nil {
		errs = append(errs, fmt.Errorf("bridges.whatsapp.test_server: %w", err))
	}
	return errors.Join(errs...)
}
