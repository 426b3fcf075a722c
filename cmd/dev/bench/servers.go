package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gopkg.in/yaml.v3"

	"switchboard/cmd/dev/checkout"
	"switchboard/cmd/dev/child"
	"switchboard/cmd/dev/load"
)

// secret opens registration on every server that is measured.
const secret = "bench-secret"

// dendriteVersion is the Dendrite that we compare with.
const dendriteVersion = "v0.15.2"

// homeserver is a server program that can be measured.
type homeserver interface {
	// name is how the tables call it.
	name() string

	// command writes a configuration into dir and returns the command that
	// serves the client API on a port of the loopback interface, with no rate
	// limits. The database is a PostgreSQL URL, or "" for SQLite in dir.
	command(ctx context.Context, dir string, port int, database string) (*exec.Cmd, error)
}

// build builds a server by name.
func build(ctx context.Context, name, root, dir string) (homeserver, error) {
	switch name {
	case "switchboard":
		s := switchboard{filepath.Join(dir, "switchboard")}
		return s, checkout.Build(ctx, root, "./cmd/switchboard", s.program)
	case "dendrite":
		d := dendrite{filepath.Join(root, ".cache", "dendrite-"+dendriteVersion)}
		return d, d.build(ctx)
	default:
		return nil, fmt.Errorf("no server is called %q: there are switchboard and dendrite", name)
	}
}

// switchboard is the program of this checkout.
type switchboard struct{ program string }

func (switchboard) name() string { return "switchboard" }

func (s switchboard) command(ctx context.Context, dir string, port int, database string) (*exec.Cmd, error) {
	config, err := yaml.Marshal(map[string]any{
		"server_name":  "localhost",
		"data_dir":     filepath.Join(dir, "data"),
		"database":     map[string]any{"url": database},
		"listeners":    []any{map[string]any{"address": loopback(port), "serve": []string{"client"}}},
		"registration": map[string]any{"mode": "open", "shared_secret": secret},
		"rate_limits":  map[string]any{"enabled": false},
		"log":          map[string]any{"level": "warn"},
	})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "switchboard.yaml")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, s.program, "serve", "--config", path), nil
}

func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// dendrite is Dendrite with the configuration that it generates itself. dir has
// its programs.
type dendrite struct{ dir string }

func (dendrite) name() string { return "dendrite" }

// build compiles Dendrite, unless that has been done. It goes through a module
// of its own, because "go install" wants a list of versions that the proxy does
// not have.
func (d dendrite) build(ctx context.Context) error {
	const programs = "github.com/element-hq/dendrite/cmd/"
	if _, err := os.Stat(filepath.Join(d.dir, "dendrite")); err == nil {
		return nil
	}
	fmt.Println("bench: building Dendrite", dendriteVersion)
	source := filepath.Join(d.dir, "module")
	if err := os.MkdirAll(source, 0o755); err != nil {
		return err
	}
	text := "module build\n\ngo 1.26.0\n\nrequire github.com/element-hq/dendrite " + dendriteVersion + "\n"
	if err := os.WriteFile(filepath.Join(source, "go.mod"), []byte(text), 0o644); err != nil {
		return err
	}
	// The last of these is the one that is looked for above.
	for _, name := range []string{"generate-config", "generate-keys", "dendrite"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-mod=mod", "-trimpath", "-o", filepath.Join(d.dir, name), programs+name)
		cmd.Dir = source
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return nil
}

func (d dendrite) command(ctx context.Context, dir string, port int, database string) (*exec.Cmd, error) {
	args := []string{"-server", "localhost", "-dir", dir}
	if database != "" {
		args = append(args, "-db", database)
	}
	text, err := output(exec.CommandContext(ctx, filepath.Join(d.dir, "generate-config"), args...))
	if err != nil {
		return nil, err
	}
	config := map[string]any{}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return nil, err
	}
	api, ok := config["client_api"].(map[string]any)
	if !ok {
		return nil, errors.New("the generated configuration has no client_api")
	}
	api["registration_shared_secret"] = secret
	api["rate_limiting"] = map[string]any{"enabled": false}
	config["logging"] = []any{map[string]any{"type": "std", "level": "warn"}}
	if text, err = yaml.Marshal(config); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "dendrite.yaml"), text, 0o600); err != nil {
		return nil, err
	}
	key := exec.CommandContext(ctx, filepath.Join(d.dir, "generate-keys"), "--private-key", "matrix_key.pem")
	key.Dir = dir
	if _, err := output(key); err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, filepath.Join(d.dir, "dendrite"), "--config", "dendrite.yaml", "--http-bind-address", loopback(port)), nil
}

// output runs a command and returns what it prints; its complaints are part of
// the error.
func output(cmd *exec.Cmd) ([]byte, error) {
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, exit.Stderr)
	}
	return out, err
}

// running is a server that answers.
type running struct {
	process *child.Process
	url     string
}

// start starts a server and returns once it answers.
func start(ctx context.Context, s homeserver, dir, database string) (*running, error) {
	port, err := child.FreePort()
	if err != nil {
		return nil, err
	}
	cmd, err := s.command(ctx, dir, port, database)
	if err != nil {
		return nil, err
	}
	var log bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &log, &log
	process, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	r := &running{process, "http://" + loopback(port)}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		resp, err := http.Get(r.url + "/_matrix/client/versions")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return r, nil
			}
		}
		select {
		case <-process.Exited():
			return nil, fmt.Errorf("the server ended: %w\n%s", process.Err(), log.String())
		case <-ctx.Done():
			process.Stop(syscall.SIGTERM, time.Second)
			return nil, fmt.Errorf("the server does not answer: %w\n%s", ctx.Err(), log.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// load puts the load on a server from a process of its own, whose memory and
// garbage collection are not the server's.
func (b *bench) load(ctx context.Context, r *running) (*load.Report, error) {
	cmd := exec.CommandContext(ctx, b.hsload, "-url", r.url, "-secret", secret, "-pid", strconv.Itoa(r.process.PID),
		"-sends", strconv.Itoa(b.sends), "-parallel", strconv.Itoa(b.parallel), "-members", strconv.Itoa(b.members))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	report := new(load.Report)
	return report, json.Unmarshal([]byte(out.String()), report)
}
