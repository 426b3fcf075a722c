// Package checkout finds the developer's copy of the source and builds programs
// from it. It knows where things stand in the tree, and nothing of what they
// do.
package checkout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// module is the first line of the go.mod that marks the top of the tree.
const module = "module switchboard\n"

// Root returns the top directory of the checkout that the working directory is
// in.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(text, []byte(module)) {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not inside a checkout of Switchboard")
		}
		dir = parent
	}
}

// Build compiles a package of the checkout, such as "./cmd/switchboard", to the
// program out, as a release does: static and with no paths of this machine.
func Build(ctx context.Context, root, pkg, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "goolm", "-o", out, pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return nil
}
