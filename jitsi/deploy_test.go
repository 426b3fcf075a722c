package jitsi

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestDeploy holds the files for operators to what the code does: they name this
// API, announce this authentication, and every variable is explained.
func TestDeploy(t *testing.T) {
	const folder = "../deploy/jitsi/"
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(folder + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	var told map[string]string
	if err := json.Unmarshal([]byte(read(strings.TrimPrefix(WellKnownPath, "/."))), &told); err != nil || told["auth"] != Authentication {
		t.Errorf("clients are told %v, %v", told, err)
	}
	var compose struct {
		Services map[string]struct {
			Volumes     []string
			Environment map[string]string
		}
	}
	text := read("compose.yaml")
	if err := yaml.Unmarshal([]byte(text), &compose); err != nil {
		t.Fatal(err)
	}
	prosody := compose.Services["prosody"].Environment
	for name, want := range map[string]string{
		"ENABLE_AUTH": "1", "ENABLE_GUESTS": "0", "AUTH_TYPE": "${AUTH_TYPE:-matrix}", "MATRIX_UVS_SYNC_POWER_LEVELS": "1",
		"MATRIX_UVS_URL": "${HOMESERVER_URL:?see env.example}" + Path,
	} {
		if prosody[name] != want {
			t.Errorf("%s is %q, want %q", name, prosody[name], want)
		}
	}
	if v := compose.Services["web"].Volumes; len(v) != 1 || v[0] != "./well-known:/usr/share/jitsi-meet/.well-known:ro" {
		t.Errorf("the pages have the volumes %q", v)
	}
	example := read("env.example")
	for _, needed := range regexp.MustCompile(`\$\{(\w+):\?`).FindAllStringSubmatch(text, -1) {
		if !strings.Contains(example, "\n"+needed[1]+"=") {
			t.Errorf("env.example does not explain %s", needed[1])
		}
	}
}
