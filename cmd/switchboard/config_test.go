package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// write puts a configuration file into a folder of its own.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), configFile)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadConfig(t *testing.T) {
	path := write(t, `
server_name: example.org
memory: 512M
trusted_proxies: 10.0.0.0/8
listeners:
  - address: :8448
    serve: federation
    tls: {cert: a.pem, key: b.pem}
  - address: unix:/run/s.sock
http: {idle_timeout: 1d, grace: 0s}
rate_limits:
  enabled: false
  message: {per_second: 0.5}
registration:
`)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("postgres://u:p@db/x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := loadConfig(path, []string{
		"HOME=/root", "SWITCHBOARD_SERVER_NAME=example.com", "SWITCHBOARD_DATABASE_URL_FILE=" + secret, "SWITCHBOARD_ACME_DOMAINS=a.example, b.example",
		"SWITCHBOARD_REGISTRATION_MODE=open", "SWITCHBOARD_TEST_POSTGRES=x", "SWITCHBOARD_METRIC_ADDRESS=:1", "SWITCHBOARD_SERVICE_HOST=1",
		`SWITCHBOARD_SUPPORT_CONTACTS=[{email: a@b.c}]`,
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.ServerName != "example.com" || c.Memory != 512<<20 || c.Database.URL != "postgres://u:p@db/x" || c.Registration.Mode != "open" ||
		len(c.TrustedProxies) != 1 || c.HTTP.IdleTimeout != 24*time.Hour || c.RateLimits.Enabled || c.RateLimits.Message.PerSecond != 0.5 || c.RateLimits.Message.Burst != 50 ||
		!reflect.DeepEqual(c.ACME.Domains, []string{"a.example", "b.example"}) || len(c.Support.Contacts) != 1 || c.Support.Contacts[0].Role != "m.role.admin" {
		t.Errorf("wrong values: %+v", c.Config)
	}
	want := []ListenerConfig{
		{Address: ":8448", Serve: []string{"federation"}, TLS: ListenerTLSConfig{Cert: "a.pem", Key: "b.pem"}},
		{Address: "unix:/run/s.sock", Serve: []string{"client", "federation"}},
	}
	if !reflect.DeepEqual(c.Listeners, want) {
		t.Errorf("listeners: %+v", c.Listeners)
	}
	if len(c.warnings) != 1 || !strings.Contains(c.warnings[0], `did you mean "SWITCHBOARD_METRICS_ADDRESS"?`) {
		t.Errorf("warnings: %q", c.warnings)
	}
	if c.origins["server_name"] != "SWITCHBOARD_SERVER_NAME" || c.origins["memory"] != "switchboard.yaml:3" {
		t.Errorf("origins: %v", c.origins)
	}
}

func TestThreeLines(t *testing.T) {
	c, err := loadConfig(write(t, "server_name: example.org\nacme: {email: admin@example.org}\nregistration: {mode: token}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if l := c.listeners(); len(l) != 2 || l[0].Address != ":443" || l[1].Address != ":8448" || !l[0].TLS.ACME {
		t.Errorf("listeners: %+v", l)
	}
	if d := c.acmeDomains(); !reflect.DeepEqual(d, []string{"example.org"}) {
		t.Errorf("domains: %v", d)
	}
}

func TestNoFile(t *testing.T) {
	t.Chdir(t.TempDir())
	c, err := loadConfig("", nil)
	if err != nil {
		t.Fatal(err)
	}
	if l := c.listeners(); c.file != "" || c.DataDir != "data" || len(l) != 1 || l[0].Address != "127.0.0.1:8008" {
		t.Errorf("got %+v", c.Config)
	}
	if _, err := loadConfig("absent.yaml", nil); err == nil {
		t.Error("a file that was named and is absent is no mistake")
	}
}

func TestConfigMistakes(t *testing.T) {
	tests := []struct {
		name, file string
		env        []string
		want       []string // each mistake, in order
	}{
		{"unknown key", "server_nam: x", nil, []string{`switchboard.yaml:1: server_nam: unknown key; did you mean "server_name"?; known here: server_name, public_url`}},
		{"unknown inner key", "registration:\n  mode: open\n  shared_secrets: x", nil, []string{`switchboard.yaml:3: registration.shared_secrets: unknown key; did you mean "shared_secret"?`}},
		{"wrong word", "registration: {mode: opened}", nil, []string{`switchboard.yaml:1: registration.mode: must be one of closed, token, open, not "opened"; did you mean "open"?`}},
		{"wrong kinds", "memory: lots\nhttp:\n  grace: 5\nlisteners: 3\nlog: []\n", nil, []string{
			"switchboard.yaml:1: memory: must be a number of bytes, such as 512K, 50M or 2G",
			"switchboard.yaml:3: http.grace: must be a time, such as 30s, 5m, 12h or 7d",
			"switchboard.yaml:4: listeners: must be a list, not one value",
			"switchboard.yaml:5: log: must be keys and values, not a list",
		}},
		{"empty value", "server_name:", nil, []string{"switchboard.yaml:1: server_name: must be a text, not empty"}},
		{"port", "voip: {turn: {one_port: 70000}}", nil, []string{"switchboard.yaml:1: voip.turn.one_port: must be a whole number from 0 to 65535"}},
		{"network", "trusted_proxies: [127.0.0.1]", nil, []string{"switchboard.yaml:1: trusted_proxies[0]: must be a network, such as 10.0.0.0/8"}},
		{"twice", "memory: 1G\nmemory: 2G", nil, []string{"switchboard.yaml:2: memory: stands here a second time; the first is in line 1"}},
		{"no YAML", "a: [", nil, []string{"switchboard.yaml:1: not YAML: did not find expected node content"}},
		{"checks", "server_name: a b\ndatabase:\n  url: mysql://secret@x\npprof: {address: '0.0.0.0:1'}\nmedia: {max_upload: 1}", nil, []string{
			`switchboard.yaml:1: server_name: "a b" is not a host name`,
			"switchboard.yaml:3: database.url: must begin with postgres:// or sqlite:",
			"switchboard.yaml:5: media.max_upload: must be at least 1K",
			"switchboard.yaml:4: pprof.address: must be an address of this computer",
		}},
		{"misspelt and senseless", "presence: maybe\nhttp: {max_header: 1}\nacme: {emial: a@b.c, directory: x}\nlisteners: [{address: ':1', tls: {acme: true}}]", nil, []string{
			"switchboard.yaml:1: presence: must be",
			`switchboard.yaml:3: acme.emial: unknown key; did you mean "email"?`,
			"switchboard.yaml:2: http.max_header: must be at least 4K",
		}},
		{"misspelt section", "acmee: {email: a@b.c}\nlisteners: [{address: ':1', tls: {acme: true}}]", nil, []string{`switchboard.yaml:1: acmee: unknown key; did you mean "acme"?`}},
		{"policies", "moderation:\n  policy_lists: ['!a:b', '#a:b', '@a:b']\n  policy_server_key: short\nfederation:\n  max_join_complexity: -1", nil, []string{
			`switchboard.yaml:2: moderation.policy_lists[2]: "@a:b" is neither a room's ID`,
			"switchboard.yaml:3: moderation.policy_server_key: a key must be base64 of 32 bytes",
			"switchboard.yaml:5: federation.max_join_complexity: must not be negative",
		}},
		{"rates", "rate_limits:\n  message: {per_second: -1}\n  join: {burst: -1}\n  invite: {per_second: 1e-9, burst: 2}\n  create: {per_second: 1e-10, burst: 0}", nil, []string{
			"switchboard.yaml:2: rate_limits.message.per_second: must not be negative",
			"switchboard.yaml:3: rate_limits.join.burst: must not be negative",
			"switchboard.yaml:4: rate_limits.invite.burst: would take more than 30 years",
			"switchboard.yaml:5: rate_limits.create.per_second: must be at least",
		}},
		{"listeners", "listeners:\n- address: '1'\n  tls: {acme: true}\n- address: :1\n  serve: []\n- address: :1\n  tls: {cert: x}\n", nil, []string{
			"switchboard.yaml:3: listeners[0].tls.acme: needs acme.email",
			"switchboard.yaml:5: listeners[1].serve: must name client, federation or both",
			"switchboard.yaml:7: listeners[2].tls: needs both cert and key",
			`switchboard.yaml:2: listeners[0].address: "1" must be an address and a port`,
			"switchboard.yaml:6: listeners[2].address: is the same address as listeners[1].address",
		}},
		{"unused certificate", "listeners: [{address: ':1'}]\nacme: {email: a@b.c}", nil, []string{"switchboard.yaml:2: acme.email: is set, but no listener has tls: {acme: true}"}},
		{"variables", "", []string{"SWITCHBOARD_MEMORY=much", "SWITCHBOARD_DATABASE_URL=x", "SWITCHBOARD_DATABASE_URL_FILE=/nowhere"}, []string{
			"SWITCHBOARD_MEMORY: memory: must be a number of bytes",
			"SWITCHBOARD_DATABASE_URL_FILE: database.url: stands beside SWITCHBOARD_DATABASE_URL; only one of them may be set",
			"SWITCHBOARD_DATABASE_URL_FILE: database.url: open /nowhere:",
		}},
		{"checked variable", "", []string{"SWITCHBOARD_SERVER_NAME=a b"}, []string{"SWITCHBOARD_SERVER_NAME: server_name: "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := loadConfig(write(t, tt.file), tt.env)
			if err == nil {
				t.Fatal("accepted")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("got %d mistakes, want %d:\n%v", len(lines), len(tt.want), err)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("got  %s\nwant %s", lines[i], want)
				}
			}
		})
	}
}

// Two keys must not have the same variable.
func TestVariablesAreUnique(t *testing.T) {
	c := defaultConfig()
	seen := map[string]string{}
	walk("", reflect.ValueOf(&c).Elem(), func(key string, f field) {
		names := []string{variable(key)}
		if f.secret() {
			names = append(names, variable(key)+"_FILE")
		}
		for _, name := range names {
			if other, ok := seen[name]; ok {
				t.Errorf("%s and %s have the same variable %s", other, key, name)
			}
			seen[name] = key
		}
	})
}

func TestPrintConfig(t *testing.T) {
	c, err := loadConfig(write(t, "server_name: example.org\nregistration: {shared_secret: very-secret-indeed}\n"), []string{"SWITCHBOARD_LOG_LEVEL=debug"})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := printConfig(&out, c); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	for _, want := range []string{"server_name: example.org # switchboard.yaml:1\n", "  level: debug # SWITCHBOARD_LOG_LEVEL\n", `  shared_secret: "(not shown)" # switchboard.yaml:2`, "max_upload: 100M\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if strings.Contains(got, "very-secret") {
		t.Error("a secret is shown")
	}
	// What is printed can be read again.
	if _, err := loadConfig(write(t, got), nil); err != nil {
		t.Errorf("%v\n%s", err, got)
	}
}

// FuzzConfig checks that no file makes the loader panic, and that what it
// accepts is printed so that it comes back the same.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{sample, "a: &a [*a]", "listeners: [{address: :1}]", "memory: 1T\nhttp: {grace: 1w}", "registration: {terms: [{id: a, texts: {en: {name: x}}}]}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first := &loaded{Config: defaultConfig()}
		l := &loader{origins: map[string]string{}}
		l.read("f", []byte(s), &first.Config)
		if l.err() != nil {
			return
		}
		l.checked(first.Check(), nil)
		var out strings.Builder
		if err := printConfig(&out, first); err != nil {
			t.Fatal(err)
		}
		again := &loaded{Config: defaultConfig()}
		l = &loader{origins: map[string]string{}}
		l.read("f", []byte(strings.ReplaceAll(out.String(), `"(not shown)"`, "''")), &again.Config)
		if err := l.err(); err != nil {
			t.Fatalf("%v in\n%s", err, out.String())
		}
	})
}
