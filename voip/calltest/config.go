package calltest

import (
	"errors"
	"fmt"
	"strings"
)

// Config is the section "call_test": a page at /calltest and a bot, by which
// people find out whether calls work.
type Config struct {
	// Enabled says whether there are the page and the bot.
	Enabled bool `yaml:"enabled"`

	// Peers is how many test calls there may be at once, of everybody
	// together. Each one of the page takes a few for some seconds, each call
	// of the bot takes one.
	Peers int `yaml:"peers"`

	// Bot is the name of the bot that users call to hear themselves, calltest
	// of @calltest:example.org. Empty turns it off.
	Bot string `yaml:"bot"`
}

// DefaultConfig has both, for a server of a family or a club.
func DefaultConfig() Config { return Config{Enabled: true, Peers: 32, Bot: "calltest"} }

// Check returns everything that is wrong. Each error begins with the key in
// the file.
func (c Config) Check() error {
	var errs []error
	if c.Peers < 1 {
		errs = append(errs, errors.New("call_test.peers: must be at least 1; call_test.enabled turns the test off"))
	}
	if strings.ContainsFunc(c.Bot, func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789._=-/", r) }) {
		errs = append(errs, fmt.Errorf("call_test.bot: %q must be a name of a-z, 0-9 and ._=-/, without @ and server", c.Bot))
	}
	return errors.Join(errs...)
}
