package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"switchboard/cmd/dev/checkout"
	"switchboard/cmd/dev/load"
	"switchboard/cmd/dev/peers"
)

// build builds a server by name.
func build(ctx context.Context, name, root, dir string) (peers.Program, error) {
	switch name {
	case "switchboard":
		s := peers.Switchboard(filepath.Join(dir, "switchboard"))
		return s, checkout.Build(ctx, root, "./cmd/switchboard", string(s))
	case "dendrite":
		return peers.InstallDendrite(ctx, root)
	case "synapse":
		return peers.InstallSynapse(ctx, root)
	default:
		return nil, fmt.Errorf("no server is called %q: there are switchboard, dendrite and synapse", name)
	}
}

// load puts the load on a server from a process of its own, whose memory and
// garbage collection are not the server's.
func (b *bench) load(ctx context.Context, s *peers.Server) (*load.Report, error) {
	cmd := exec.CommandContext(ctx, b.hsload, "-url", s.URL, "-secret", peers.Secret, "-pid", strconv.Itoa(s.PID()),
		"-sends", strconv.Itoa(b.sends), "-parallel", strconv.Itoa(b.parallel), "-members", strconv.Itoa(b.members))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	report := new(load.Report)
	return report, json.Unmarshal([]byte(out.String()), report)
}
