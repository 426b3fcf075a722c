package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestLicences is what NOTICE and the command version promise: the GPL comes
// with the WhatsApp bridge alone, and a tag leaves both out.
func TestLicences(t *testing.T) {
	for tags, want := range map[string][]string{"goolm": {"go.mau.fi/libsignal"}, "goolm,nowhatsapp": nil} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags", tags, "-f", "{{with .Module}}{{.Path}} {{.Dir}}{{end}}", ".").Output()
		if err != nil {
			t.Fatal(err)
		}
		modules := strings.Fields(string(out))
		seen := map[string]bool{module: true}
		var gpl []string
		for i := 0; i+1 < len(modules); i += 2 {
			if path := modules[i]; !seen[path] {
				seen[path] = true
				if underGPL(t, path, modules[i+1]) {
					gpl = append(gpl, path)
				}
			}
		}
		if !slices.Equal(gpl, want) || len(seen) < 20 {
			t.Errorf("-tags %s: %d modules, under the GPL %v, want %v", tags, len(seen), gpl, want)
		}
	}
}

// underGPL reports whether a library is under the GPL, AGPL or LGPL.
func underGPL(t *testing.T, path, dir string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "[LlCc][IiOo][CcPp][EeYy]*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no licence in %s: %v", path, dir, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	head := bytes.ToUpper(text[:min(len(text), 300)]) // the Mozilla licence names them further down
	return bytes.Contains(head, []byte("GENERAL PUBLIC LICENSE"))
}

// TestWithoutWhatsApp builds the program without that bridge.
func TestWithoutWhatsApp(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "switchboard")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "goolm,nowhatsapp", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the other tests, also under the race detector
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, c := range []struct {
		args []string
		fail bool
		text string
	}{
		{[]string{"version"}, false, "bridges: irc, xmpp\nlicence: Apache License 2.0\n"},
		{[]string{"config", "check"}, true, "bridges.whatsapp.enabled: this program was built with -tags nowhatsapp"},
		{[]string{"bridge", "run", "whatsapp", "--homeserver", "http://localhost"}, true, "built with -tags nowhatsapp"},
	} {
		cmd := exec.CommandContext(t.Context(), binary, c.args...)
		cmd.Dir = t.TempDir()
		cmd.Env = append(os.Environ(), "SWITCHBOARD_BRIDGES_WHATSAPP_ENABLED=true")
		if out, err := cmd.CombinedOutput(); (err != nil) != c.fail || !strings.Contains(string(out), c.text) {
			t.Errorf("%v: %v\n%s", c.args, err, out)
		}
	}
	if _, out, _ := command(t, "", "version"); slices.Contains(buildBridges(), "whatsapp") != strings.Contains(out, "General Public") {
		t.Errorf("with %v: %s", buildBridges(), out)
	}
}
