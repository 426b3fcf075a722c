package jitsi

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"switchboard/homeserver/matrix"
)

// Config is the section "jitsi" of the configuration file.
type Config struct {
	// Domain is the host of a Jitsi Meet server, such as meet.example.org. Clients
	// hold group calls there. Empty offers none. deploy/jitsi has one that lets
	// only members of a room into its call; "switchboard jitsi check" looks
	// whether all is well.
	Domain string `yaml:"domain"`

	// OneToOne makes clients use Jitsi for calls between two users, too.
	OneToOne bool `yaml:"one_to_one"`

	// Token is the secret that Jitsi shows when it asks who may join a call, its
	// MATRIX_UVS_AUTH_TOKEN. Without one everybody may ask who has the OpenID
	// token of a user.
	Token string `yaml:"token" secret:"true"`

	// Page is the page that shows a call in a client which has none of its own:
	// jitsi.html of an Element Web.
	Page string `yaml:"page"`
}

// DefaultConfig offers no calls.
func DefaultConfig() Config { return Config{Page: "https://app.element.io/jitsi.html"} }

// Check returns everything that is wrong, not only the first thing.
func (c Config) Check() error {
	var errs []error
	if _, err := matrix.ParseServerName(c.Domain); c.Domain != "" && err != nil {
		errs = append(errs, fmt.Errorf("jitsi.domain: %q is no host, such as meet.example.org", c.Domain))
	}
	if u, err := url.Parse(c.Page); err != nil || u.Scheme != "https" || u.Host == "" || strings.ContainsAny(c.Page, "?#") {
		errs = append(errs, errors.New("jitsi.page: must be an https:// address without ? and #"))
	}
	return errors.Join(errs...)
}

// Preference is what clients read about Jitsi.
type Preference struct {
	Domain   string `json:"preferredDomain"`
	OneToOne bool   `json:"useFor1To1Calls,omitempty"`
}

// WellKnown is what clients find in /.well-known/matrix/client, by key: that of
// today and that of older clients. Nil: no calls are offered.
func (c Config) WellKnown() map[string]any {
	if c.Domain == "" {
		return nil
	}
	p := Preference{c.Domain, c.OneToOne}
	return map[string]any{"io.element.jitsi": p, "im.vector.riot.jitsi": p}
}
