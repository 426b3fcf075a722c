package voip

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v3"
)

// TestRotation replaces the secret, and honours the old one for what it signed,
// and for nothing more.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := &memoryVault{}
		i := &issuer{vault: vault, realm: "a.test", lifetime: 12 * time.Hour}
		refresh := func() {
			t.Helper()
			if err := i.refresh(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		known := func(username, password string) bool {
			m := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername(username),
				stun.MessageIntegrity(longTermKey(username, "a.test", password)))
			return i.signed(m, username) != nil
		}
		refresh()
		first := i.secrets[0]
		time.Sleep(rotation - time.Hour)
		refresh()
		username, password := i.issue("@alice:a.test")
		time.Sleep(2 * time.Hour)
		refresh()
		if len(i.secrets) != 2 || string(i.secrets[0].Value) == string(first.Value) {
			t.Fatalf("the secret is not replaced: %d of them", len(i.secrets))
		}
		if !known(username, password) {
			t.Error("the old secret's credentials are not known any more")
		}
		if username, password := i.issue("@bob:a.test"); !known(username, password) {
			t.Error("the new secret's credentials are not known")
		}
		// Who got hold of the old secret cannot make lasting credentials of it.
		forged := restUsername("@mallory:a.test", time.Now().Add(24*time.Hour))
		if known(forged, restPassword(first.Value, forged)) {
			t.Error("the old secret signs new credentials")
		}
		time.Sleep(11 * time.Hour)
		if known(username, password) {
			t.Error("they are known after their end")
		}
		time.Sleep(rotation)
		refresh()
		if len(i.secrets) != 2 {
			t.Errorf("%d secrets are kept", len(i.secrets))
		}
		again := &issuer{vault: vault, realm: "a.test", lifetime: 12 * time.Hour}
		if err := again.refresh(context.Background()); err != nil || string(again.secrets[0].Value) != string(i.secrets[0].Value) {
			t.Errorf("another process has another secret, %v", err)
		}
	})
}

// TestLongLifetime honours credentials until their end that last longer than a
// secret is commonly used.
func TestLongLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const month = 30 * 24 * time.Hour
		i := &issuer{vault: &memoryVault{}, realm: "a.test", lifetime: month}
		var username, password string
		for began := time.Now(); time.Since(began) < 4*month; time.Sleep(time.Hour) {
			if err := i.refresh(context.Background()); err != nil {
				t.Fatal(err)
			}
			if _, ends, ok := parseUsername(username); !ok || !ends.After(time.Now()) {
				username, password = i.issue("@alice:a.test")
			}
			m := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername(username), stun.MessageIntegrity(longTermKey(username, "a.test", password)))
			if i.signed(m, username) == nil {
				t.Fatalf("credentials are not known any more after %s", time.Since(began))
			}
		}
		if len(i.secrets) != 2 {
			t.Errorf("%d secrets are kept", len(i.secrets))
		}
	})
}

// TestProviders asks each provider for credentials.
func TestProviders(t *testing.T) {
	config := func(change func(*Config)) Config {
		c := DefaultConfig()
		change(&c)
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Run("off", func(t *testing.T) {
		s := &Service{Config: config(func(c *Config) { c.Provider = "off" })}
		if c, err := s.Credentials(t.Context(), "@alice:a.test"); c != nil || err != nil {
			t.Errorf("%v, %v", c, err)
		}
	})
	t.Run("builtin, without a certificate for the only way to it", func(t *testing.T) {
		s := &Service{Relay: newRelay(t, func(o *Options) { o.Config.UDP, o.Config.TCP, o.Config.TLS = nil, nil, []string{"127.0.0.1:0"} })}
		defer s.Relay.Close()
		if c, err := s.Credentials(t.Context(), "@alice:a.test"); c != nil || err != nil {
			t.Errorf("%v, %v", c, err)
		}
	})
	t.Run("external", func(t *testing.T) {
		s := &Service{Config: config(func(c *Config) {
			c.Provider = "external"
			c.External = ExternalConfig{URIs: []string{"turn:turn.a.test"}, Secret: "north"}
		})}
		c, err := s.Credentials(t.Context(), "@alice:a.test")
		if err != nil || c.Password != restPassword([]byte("north"), c.Username) || !strings.HasSuffix(c.Username, ":@alice:a.test") || c.TTL != 12*time.Hour {
			t.Errorf("%+v, %v", c, err)
		}
		s.Config.External = ExternalConfig{URIs: []string{"turn:turn.a.test"}, Username: "all", Password: "us"}
		if c, err := s.Credentials(t.Context(), "@alice:a.test"); err != nil || c.Username != "all" || c.Password != "us" {
			t.Errorf("%+v, %v", c, err)
		}
	})
	t.Run("cloudflare", func(t *testing.T) {
		asked, broken := 0, false
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			if r.Method != "POST" || r.URL.Path != "/v1/turn/keys/key/credentials/generate-ice-servers" || r.Header.Get("Authorization") != "Bearer token" || broken {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			w.WriteHeader(http.StatusCreated)
			w.Write([]byte(`{"iceServers":[{"urls":["stun:stun.cloudflare.com:3478"]},{"urls":["turn:turn.cloudflare.com:3478?transport=udp",
				"turn:turn.cloudflare.com:53?transport=udp","turns:turn.cloudflare.com:443?transport=tcp"],"username":"u","credential":"p"}]}`))
		}))
		defer api.Close()
		s := &Service{Client: api.Client(), Config: config(func(c *Config) {
			c.Provider = "cloudflare"
			c.Cloudflare = CloudflareConfig{KeyID: "key", Token: "token", API: strings.Replace(api.URL, "localhost", "127.0.0.1", 1) + "/v1"}
		})}
		for range 3 {
			c, err := s.Credentials(t.Context(), "@alice:a.test")
			if err != nil || c.Username != "u" || c.Password != "p" || len(c.URIs) != 2 || c.TTL < 11*time.Hour {
				t.Fatalf("%+v, %v", c, err)
			}
		}
		if asked != 1 {
			t.Errorf("they were asked %d times", asked)
		}
		broken = true
		s.until = time.Now().Add(time.Hour) // old, but good
		if c, err := s.Credentials(t.Context(), "@alice:a.test"); err != nil || c.Username != "u" || c.TTL > time.Hour {
			t.Errorf("%+v, %v", c, err)
		}
		s.until = time.Time{}
		if _, err := s.Credentials(t.Context(), "@alice:a.test"); err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("without an answer: %v", err)
		}
	})
}

// TestConfig finds what is wrong.
func TestConfig(t *testing.T) {
	if c := DefaultConfig().TURN; c.UserQuota != 12 || c.TotalQuota != 1200 || c.MinPort != 49160 || c.MaxPort != 49660 || len(c.AllowPeers) != 0 || len(c.SharedSecrets) != 0 {
		t.Errorf("without a configuration: %+v", c)
	}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"as it is":          {func(*Config) {}, ""},
		"lifetime":          {func(c *Config) { c.Lifetime = time.Second }, "voip.lifetime"},
		"address":           {func(c *Config) { c.TURN.UDP = []string{"example.org:3478"} }, "voip.turn.udp[0]"},
		"two purposes":      {func(c *Config) { c.TURN.OnePort = 3478 }, "voip.turn.one_port"},
		"host with a port":  {func(c *Config) { c.TURN.Host = "turn.example.org:3478" }, "voip.turn.host"},
		"host, a page":      {func(c *Config) { c.TURN.Host = "https://turn.example.org" }, "voip.turn.host"},
		"host of IPv6":      {func(c *Config) { c.TURN.Host = "2001:db8::1" }, ""},
		"STUN without port": {func(c *Config) { c.TURN.STUNServers = []string{"stun.example.org"} }, "voip.turn.stun_servers[0]"},
		"STUN as a URI":     {func(c *Config) { c.TURN.STUNServers = []string{"stun:stun.example.org:3478"} }, "voip.turn.stun_servers[0]"},
		"STUN of IPv6":      {func(c *Config) { c.TURN.STUNServers = []string{"[2001:db8::1]:3478"} }, ""},
		"ports":             {func(c *Config) { c.TURN.MaxPort = 80 }, "voip.turn.min_port"},
		"a link's address":  {func(c *Config) { c.TURN.ExternalIPs = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")} }, "voip.turn.external_ips[0]"},
		"mapped, allowed":   {func(c *Config) { c.TURN.AllowPeers = []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")} }, "voip.turn.allow_peers[0]"},
		"mapped, denied":    {func(c *Config) { c.TURN.DenyPeers = []netip.Prefix{netip.MustParsePrefix("::ffff:9.9.9.9/128")} }, "voip.turn.deny_peers[0]"},
		"networks": {func(c *Config) {
			c.TURN.AllowPeers = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
		}, ""},
		"no way to it":      {func(c *Config) { c.TURN.UDP, c.TURN.TCP, c.TURN.TLS, c.TURN.HTTPS = nil, nil, nil, false }, "voip.turn"},
		"quota":             {func(c *Config) { c.TURN.UserQuota = 0 }, "voip.turn.user_quota"},
		"short secret":      {func(c *Config) { c.TURN.SharedSecrets = []string{"short"} }, "voip.turn.shared_secrets[0]"},
		"external, nowhere": {func(c *Config) { c.Provider = "external"; c.External.Secret = "x" }, "voip.external.uris"},
		"external, no word": {func(c *Config) {
			c.Provider = "external"
			c.External = ExternalConfig{URIs: []string{"turn:a.test"}, Username: "alice"}
		}, "voip.external"},
		"external, no key": {func(c *Config) { c.Provider = "external"; c.External.URIs = []string{"turn:a.test"} }, "voip.external"},
		"external, a page": {func(c *Config) { c.Provider = "external"; c.External.URIs = []string{"https://a.test"} }, "voip.external.uris[0]"},
		"external, slashes": {func(c *Config) {
			c.Provider = "external"
			c.External.Secret = "x"
			c.External.URIs = []string{"turn://a.test"}
		}, "voip.external.uris[0]"},
		"cloudflare, no key": {func(c *Config) { c.Provider = "cloudflare" }, "voip.cloudflare"},
	} {
		config := DefaultConfig()
		c.change(&config)
		err := config.Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want+": ") {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	for name, want := range map[string]bool{
		"example.org": true, "matrix.example.org:8448": true, "localhost": false, "hs1": false, "127.0.0.1": false, "192.0.2.1:8448": false,
		"[2001:db8::1]:8448": false, "server.local": false, "a.test": false, "box.lan": false,
	} {
		if got := PublicName(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
