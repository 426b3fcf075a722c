package peers

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"

	"gopkg.in/yaml.v3"
)

// Switchboard is the path of a program that was built from this checkout.
type Switchboard string

// Name implements Program.
func (Switchboard) Name() string { return "switchboard" }

func (s Switchboard) command(ctx context.Context, p place) (*exec.Cmd, error) {
	listeners := []any{map[string]any{"address": p.client, "serve": []string{"client"}}}
	config := map[string]any{
		"server_name":  p.name,
		"data_dir":     filepath.Join(p.Dir, "data"),
		"database":     map[string]any{"url": p.Database},
		"registration": map[string]any{"mode": "open", "shared_secret": Secret},
		"rate_limits":  map[string]any{"enabled": false},
		"log":          map[string]any{"level": "warn"},
		"appservices":  map[string]any{"files": p.Appservices},
		"bridges":      p.Bridges,
	}
	if p.tls != nil {
		listeners = append(listeners, map[string]any{
			"address": p.tls.address(), "serve": []string{"federation"},
			"tls": map[string]any{"cert": p.tls.cert, "key": p.tls.key},
		})
		config["outbound"] = map[string]any{"allow": []string{"127.0.0.0/8"}}
		config["federation"] = map[string]any{
			"root_ca": p.tls.ca, "notaries": []any{}, "retry_first": "1s", "retry_most": "5s",
		}
	}
	config["listeners"] = listeners
	path := filepath.Join(p.Dir, "switchboard.yaml")
	if err := writeYAML(path, config); err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, string(s), "serve", "--config", path), nil
}

func writeYAML(path string, content any) error {
	text, err := yaml.Marshal(content)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}
