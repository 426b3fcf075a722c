package peers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"gopkg.in/yaml.v3"
)

// DendriteVersion is the Dendrite that we compare with.
const DendriteVersion = "v0.15.2"

// Dendrite is the directory of Dendrite's programs.
type Dendrite string

// InstallDendrite builds Dendrite into .cache of the checkout, unless that has
// been done. It goes through a module of its own, because "go install" wants a
// list of versions that the proxy does not have. Its SQLite needs a C compiler.
func InstallDendrite(ctx context.Context, root string) (Dendrite, error) {
	const programs = "github.com/element-hq/dendrite/cmd/"
	dir := filepath.Join(root, ".cache", "dendrite-"+DendriteVersion)
	return Dendrite(dir), install(dir, func() error {
		source := filepath.Join(dir, "module")
		if err := os.MkdirAll(source, 0o755); err != nil {
			return err
		}
		text := "module build\n\ngo 1.26.0\n\nrequire github.com/element-hq/dendrite " + DendriteVersion + "\n"
		if err := os.WriteFile(filepath.Join(source, "go.mod"), []byte(text), 0o644); err != nil {
			return err
		}
		for _, name := range []string{"generate-config", "generate-keys", "dendrite"} {
			cmd := exec.CommandContext(ctx, "go", "build", "-mod=mod", "-trimpath", "-o", filepath.Join(dir, name), programs+name)
			cmd.Dir = source
			cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("build %s: %w\n%s", name, err, out)
			}
		}
		return nil
	})
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
