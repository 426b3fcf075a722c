package peers

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"gopkg.in/yaml.v3"

	"switchboard/cmd/dev/checkout"
)

// DendriteVersion is the Dendrite that we compare with.
const DendriteVersion = "v0.15.2"

// Dendrite is the directory of Dendrite's programs.
type Dendrite string

// InstallDendrite builds Dendrite into .cache of the checkout, unless that has
// been done. Its SQLite needs a C compiler.
func InstallDendrite(ctx context.Context, root string) (Dendrite, error) {
	dir, err := checkout.InstallModule(ctx, root, "github.com/element-hq/dendrite", DendriteVersion, true, "cmd/generate-config", "cmd/generate-keys", "cmd/dendrite")
	return Dendrite(dir), err
}

// Name implements Program.
func (Dendrite) Name() string { return "dendrite" }

// command takes the configuration that Dendrite generates itself, and changes
// what must be otherwise.
func (d Dendrite) command(ctx context.Context, p place) (*exec.Cmd, error) {
	args := []string{"-server", p.name, "-dir", p.Dir}
	if p.Database != "" {
		args = append(args, "-db", p.Database)
	}
	text, err := output(exec.CommandContext(ctx, filepath.Join(string(d), "generate-config"), args...))
	if err != nil {
		return nil, err
	}
	// Dendrite answers 500 where one of its databases is locked for five seconds,
	// which happens on a busy machine. It cuts options off, unless they look like
	// a part of the file's name; its driver sees them.
	text = bytes.ReplaceAll(text, []byte(".db\n"), []byte(".db%3F_busy_timeout=60000\n"))
	config := map[string]any{}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return nil, err
	}
	for section, options := range map[string]map[string]any{
		"client_api":     {"registration_shared_secret": Secret, "rate_limiting": map[string]any{"enabled": false}},
		"federation_api": {"deny_networks": []string{}, "key_perspectives": []any{}},
	} {
		for key, value := range options {
			if err := set(config, value, section, key); err != nil {
				return nil, err
			}
		}
	}
	if err := set(config, map[string]any{"enable_inbound": true, "enable_outbound": true}, "global", "presence"); err != nil {
		return nil, err
	}
	config["logging"] = []any{map[string]any{"type": "std", "level": "warn"}}
	if err := writeYAML(filepath.Join(p.Dir, "dendrite.yaml"), config); err != nil {
		return nil, err
	}
	key := exec.CommandContext(ctx, filepath.Join(string(d), "generate-keys"), "--private-key", "matrix_key.pem")
	key.Dir = p.Dir
	if _, err := output(key); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(string(d), "dendrite"), "--config", "dendrite.yaml", "--http-bind-address", p.client)
	if p.tls != nil {
		cmd.Args = append(cmd.Args, "--https-bind-address", p.tls.address(), "--tls-cert", p.tls.cert, "--tls-key", p.tls.key)
		cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+p.tls.ca)
	}
	return cmd, nil
}

// set replaces a value that is there in a section of a configuration.
func set(config map[string]any, value any, section, key string) error {
	options, ok := config[section].(map[string]any)
	if _, known := options[key]; !ok || !known {
		return fmt.Errorf("the generated configuration has no %s.%s", section, key)
	}
	options[key] = value
	return nil
}
