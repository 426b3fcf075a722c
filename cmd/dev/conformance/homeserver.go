package main

import (
	"context"
	"path/filepath"

	"switchboard/cmd/dev/checkout"
	"switchboard/cmd/dev/peers"
)

// allPackages are the packages of Complement that the list covers.
var allPackages = []string{"tests", "tests/csapi"}

// homeservers makes ready what the tests run against.
func (s *suite) homeservers(ctx context.Context, root, dir string, opts options) error {
	s.env = append(s.env, "COMPLEMENT_SHARE_ENV_PREFIX="+share)
	if opts.image == "" {
		opts.image = "launch.sh"
		binary := opts.binary
		if binary == "" {
			binary = filepath.Join(dir, "switchboard")
			if err := checkout.Build(ctx, root, "./cmd/switchboard", binary); err != nil {
				return err
			}
		}
		binary, err := filepath.Abs(binary)
		if err != nil {
			return err
		}
		s.env = append(s.env, share+"SWITCHBOARD_BIN="+binary)
	}
	image, err := s.homeserver(ctx, root, opts.image)
	if err != nil {
		return err
	}
	s.image = image
	if opts.with == "" {
		return nil
	}
	if image, err = s.homeserver(ctx, root, opts.with); err == nil {
		s.env = append(s.env, "COMPLEMENT_BASE_IMAGE_hs2="+image)
	}
	return err
}

// homeserver gives the launch script of a homeserver, and installs it if it is
// known by name.
func (s *suite) homeserver(ctx context.Context, root, name string) (script string, err error) {
	scripts := filepath.Join(root, "cmd/dev/complement")
	switch name {
	case "launch.sh":
		return filepath.Join(scripts, name), nil
	case "dendrite":
		dir, err := peers.InstallDendrite(ctx, root)
		s.env = append(s.env, share+"DENDRITE_DIR="+string(dir))
		return filepath.Join(scripts, "dendrite.sh"), err
	case "synapse":
		dir, err := peers.InstallSynapse(ctx, root)
		s.env = append(s.env, share+"SYNAPSE_DIR="+string(dir))
		return filepath.Join(scripts, "synapse.sh"), err
	}
	return filepath.Abs(name)
}
