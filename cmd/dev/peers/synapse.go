package peers

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"switchboard/cmd/dev/checkout"
)

// requirements names Synapse and all that it needs, as pip reads it.
//
//go:embed synapse.txt
var requirements string

// Synapse is the directory of a Python environment that has Synapse.
type Synapse string

// InstallSynapse puts Synapse from PyPI into .cache of the checkout, unless
// that has been done. It needs Python 3 with venv and the network.
func InstallSynapse(ctx context.Context, root string) (Synapse, error) {
	_, rest, _ := strings.Cut(requirements, "matrix-synapse==")
	version, _, _ := strings.Cut(rest, "\n")
	dir := filepath.Join(root, ".cache", "synapse-"+version)
	return Synapse(dir), checkout.Install(dir, func() error {
		list := filepath.Join(dir, "synapse.txt")
		if err := os.WriteFile(list, []byte(requirements), 0o644); err != nil {
			return err
		}
		for _, args := range [][]string{
			{"python3", "-m", "venv", dir},
			{filepath.Join(dir, "bin", "pip"), "install", "--disable-pip-version-check", "--no-input", "--only-binary=:all:", "-r", list},
		} {
			if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("install Synapse: %s: %w\n%s", filepath.Base(args[0]), err, out)
			}
		}
		return nil
	})
}

// Name implements Program.
func (Synapse) Name() string { return "synapse" }

// limits are Synapse's rate limits; some are in a section.
var limits = []string{
	"rc_message", "rc_registration", "rc_login.address", "rc_login.account", "rc_login.failed_attempts",
	"rc_joins.local", "rc_joins.remote", "rc_joins_per_room", "rc_invites.per_room", "rc_invites.per_user",
	"rc_invites.per_issuer", "rc_key_requests", "rc_presence.per_user", "rc_media_create", "rc_room_creation",
	"rc_user_directory", "rc_profile", "rc_admin_redaction",
}

func (s Synapse) command(ctx context.Context, p place) (*exec.Cmd, error) {
	log := map[string]any{
		"version": 1, "disable_existing_loggers": false,
		"formatters": map[string]any{"line": map[string]any{"format": "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"}},
		"handlers":   map[string]any{"out": map[string]any{"class": "logging.StreamHandler", "formatter": "line"}},
		"root":       map[string]any{"level": "WARNING", "handlers": []string{"out"}},
	}
	if err := writeYAML(filepath.Join(p.Dir, "log.yaml"), log); err != nil {
		return nil, err
	}
	config, err := s.configuration(p)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(p.Dir, "homeserver.yaml")
	if err := writeYAML(path, config); err != nil {
		return nil, err
	}
	python := filepath.Join(string(s), "bin", "python")
	if _, err := output(exec.CommandContext(ctx, python, "-m", "synapse.app.homeserver", "-c", path, "--generate-keys")); err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, python, "-m", "synapse.app.homeserver", "-c", path), nil
}

// configuration is the content of homeserver.yaml.
func (Synapse) configuration(p place) (map[string]any, error) {
	client, err := synapseListener(p.client, "client", false)
	if err != nil {
		return nil, err
	}
	listeners := []any{client}
	config := map[string]any{
		"server_name":                              p.name,
		"report_stats":                             false,
		"signing_key_path":                         filepath.Join(p.Dir, "signing.key"),
		"media_store_path":                         filepath.Join(p.Dir, "media"),
		"pid_file":                                 filepath.Join(p.Dir, "pid"),
		"log_config":                               filepath.Join(p.Dir, "log.yaml"),
		"database":                                 map[string]any{"name": "sqlite3", "args": map[string]any{"database": filepath.Join(p.Dir, "synapse.db")}},
		"registration_shared_secret":               Secret,
		"trusted_key_servers":                      []any{},
		"room_list_publication_rules":              []any{map[string]any{"action": "allow"}},
		"allow_public_rooms_over_federation":       true,
		"allow_device_name_lookup_over_federation": true,
		"app_service_config_files":                 p.Appservices,
	}
	if p.Database != "" {
		config["database"] = map[string]any{"name": "psycopg2", "allow_unsafe_locale": true, "args": map[string]any{"dsn": p.Database}}
	}
	for _, name := range limits {
		section := config
		if outer, inner, ok := strings.Cut(name, "."); ok {
			if config[outer] == nil {
				config[outer] = map[string]any{}
			}
			section, name = config[outer].(map[string]any), inner
		}
		section[name] = map[string]any{"per_second": 10000, "burst_count": 10000}
	}
	if p.tls != nil {
		federation, err := synapseListener(p.tls.address(), "federation", true)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, federation)
		config["tls_certificate_path"], config["tls_private_key_path"] = p.tls.cert, p.tls.key
		config["federation_custom_ca_list"] = []string{p.tls.ca}
		config["ip_range_blacklist"], config["federation_ip_range_blacklist"] = []string{}, []string{}
		config["rc_federation"] = map[string]any{"sleep_limit": 10000, "reject_limit": 10000, "concurrent": 100}
		config["federation"] = map[string]any{"destination_min_retry_interval": "1s", "destination_max_retry_interval": "5s"}
	}
	config["listeners"] = listeners
	return config, nil
}

// synapseListener describes a listener for one of Synapse's resources.
func synapseListener(address, resource string, tls bool) (map[string]any, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	return map[string]any{
		"type": "http", "port": number, "bind_addresses": []string{host}, "tls": tls,
		"resources": []any{map[string]any{"names": []string{resource}}},
	}, err
}
