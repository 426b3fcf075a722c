// Command fuzz runs every fuzz target of the module for some seconds, one after
// the other. A target that fails leaves its input in the package's testdata, as
// "go test" does, and the exit status is 1.
//
//	go run ./cmd/dev/fuzz [-for 10s] [-run regexp]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"switchboard/cmd/dev/checkout"
)

func main() {
	each := flag.Duration("for", 10*time.Second, "how long each target runs")
	match := regexp.MustCompile("")
	flag.Func("run", "only targets whose name matches this `regexp`", func(s string) (err error) {
		match, err = regexp.Compile(s)
		return err
	})
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, *each, match)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

// target is one fuzz function.
type target struct{ dir, name string }

// run fuzzes all targets and prints a line for each.
func run(ctx context.Context, each time.Duration, match *regexp.Regexp) error {
	root, err := checkout.Root()
	if err != nil {
		return err
	}
	targets, err := find(ctx, root)
	if err != nil {
		return err
	}
	passed, failed := 0, 0
	for _, t := range targets {
		if !match.MatchString(t.name) || ctx.Err() != nil {
			continue
		}
		cmd := exec.CommandContext(ctx, "go", "test", "-tags", "goolm", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", each.String(), ".")
		cmd.Dir = t.dir
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
		cmd.WaitDelay = 10 * time.Second
		out, err := cmd.CombinedOutput()
		if err != nil {
			failed++
			fmt.Printf("FAIL %s in %s\n%s", t.name, t.dir, out)
			continue
		}
		passed++
		fmt.Printf("ok   %s: %s\n", t.name, executions(string(out)))
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return errors.New("a property does not hold")
	}
	return ctx.Err()
}

// find lists the fuzz targets of all packages.
func find(ctx context.Context, root string) ([]target, error) {
	cmd := exec.CommandContext(ctx, "git", "grep", "--untracked", "-oE", "--full-name", `^func Fuzz[A-Z][A-Za-z0-9_]*\(`, "--", "*_test.go")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git grep: %w", err)
	}
	var found []target
	for line := range strings.Lines(string(out)) {
		file, code, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		name := strings.TrimSuffix(strings.TrimPrefix(code, "func "), "(")
		found = append(found, target{root + "/" + file[:strings.LastIndexByte(file, '/')], name})
	}
	return found, nil
}

// executions returns the last count that go test printed.
func executions(out string) string {
	counts := regexp.MustCompile(`execs: (\d+)`).FindAllStringSubmatch(out, -1)
	if len(counts) == 0 {
		return "no count"
	}
	return counts[len(counts)-1][1] + " runs"
}
