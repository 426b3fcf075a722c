// Command fuzz runs every fuzz target of the module, one after the other: a minute
// each those of what reads or judges the events of other servers, some seconds
// each of the others. It says first how long that takes. A target that fails
// leaves its input in the package's testdata, as "go test" does, and the exit
// status is 1.
//
//	go run ./cmd/dev/fuzz [-for 10s] [-run regexp]
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"switchboard/cmd/dev/checkout"
)

// hostile are the packages that meet the events of other servers first: canonical
// JSON, parsing, authorization, transactions; and the one that meets anybody's
// packets.
var hostile = []string{"homeserver/canonjson", "homeserver/event", "homeserver/eventauth", "homeserver/fedapi", "voip"}

// How long a target runs where -for does not say it.
const (
	hostileTime = time.Minute
	otherTime   = 10 * time.Second
)

func main() {
	each := flag.Duration("for", 0, "how long each target runs; 0: a minute for those that meet other servers' events, 10s for the others")
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
type target struct {
	dir, name string // the directory is relative to the module
	time      time.Duration
}

// run fuzzes the targets that match and prints a line for each. Each is 0, or how
// long every one runs.
func run(ctx context.Context, each time.Duration, match *regexp.Regexp) error {
	root, err := checkout.Root()
	if err != nil {
		return err
	}
	targets, err := find(ctx, root)
	if err != nil {
		return err
	}
	targets = slices.DeleteFunc(targets, func(t target) bool { return !match.MatchString(t.name) })
	var total time.Duration
	for i, t := range targets {
		targets[i].time = cmp.Or(each, t.time)
		total += targets[i].time
	}
	fmt.Printf("%d targets, %s and the time to build them\n", len(targets), total)
	passed, failed := 0, 0
	for _, t := range targets {
		if ctx.Err() != nil {
			break
		}
		// A target with a server behind it would spend its time on making inputs small.
		cmd := exec.CommandContext(ctx, "go", "test", "-tags", "goolm", "-run", "^$", "-fuzz", "^"+t.name+"$",
			"-fuzztime", t.time.String(), "-fuzzminimizetime", "100x", ".")
		cmd.Dir = filepath.Join(root, t.dir)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
		cmd.WaitDelay = 10 * time.Second
		out, err := cmd.CombinedOutput()
		if err != nil {
			failed++
			fmt.Printf("FAIL %s %s\n%s", t.dir, t.name, out)
			continue
		}
		passed++
		fmt.Printf("ok   %s %s: %s in %s\n", t.dir, t.name, executions(string(out)), t.time)
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
		t := target{path.Dir(file), name, otherTime}
		if slices.Contains(hostile, t.dir) {
			t.time = hostileTime
		}
		found = append(found, t)
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
