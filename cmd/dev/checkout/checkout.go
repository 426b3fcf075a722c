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
	"path"
	"path/filepath"
	"syscall"
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

// Install fills dir with what make puts there, unless that has been done. It
// begins anew if it was interrupted, and waits for another process that does it.
func Install(dir string, make func() error) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	lock, err := os.Create(dir + ".lock")
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	done := filepath.Join(dir, "installed")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := make(); err != nil {
		return err
	}
	return os.WriteFile(done, nil, 0o644)
}

// InstallModule builds programs of another module at a version into .cache of
// the checkout, unless that has been done, and returns their folder. Programs
// are paths below the module. It goes through a module of its own, because "go
// install" wants a list of versions that the proxy does not always have. With
// cgo the programs need a C compiler.
func InstallModule(ctx context.Context, root, module, version string, cgo bool, programs ...string) (string, error) {
	dir := filepath.Join(root, ".cache", path.Base(module)+"-"+version)
	return dir, Install(dir, func() error {
		source := filepath.Join(dir, "module")
		if err := os.MkdirAll(source, 0o755); err != nil {
			return err
		}
		text := "module build\n\ngo 1.26.0\n\nrequire " + module + " " + version + "\n"
		if err := os.WriteFile(filepath.Join(source, "go.mod"), []byte(text), 0o644); err != nil {
			return err
		}
		for _, program := range programs {
			cmd := exec.CommandContext(ctx, "go", "build", "-mod=mod", "-trimpath", "-o", filepath.Join(dir, path.Base(program)), module+"/"+program)
			cmd.Dir = source
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if cgo {
				cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("build %s: %w\n%s", program, err, out)
			}
		}
		return nil
	})
}
