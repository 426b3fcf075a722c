// Command conformance runs Complement, the conformance suite for Matrix
// homeservers, against this checkout's Switchboard on SQLite, and compares the
// tests that pass with a list of those that must (the ratchet).
//
//	go run ./cmd/dev/conformance [-run regexp] [-logs directory] [-update]
//	go run ./cmd/dev/conformance -with dendrite|synapse ...
//
// In the second form the other homeserver of each test that has two is Dendrite
// or Synapse, and each has a list of its own. A listed test that fails is
// repeated, alone, once or twice. The exit status is 1 when it never passes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"switchboard/cmd/dev/checkout"
)

// options are the command line.
type options struct {
	run      *regexp.Regexp // which top-level tests; nil for all
	packages []string       // of Complement, below its module path
	image    string         // another homeserver instead of ours, by name or launch script
	with     string         // another homeserver as the second one, "" for ours
	binary   string         // a built Switchboard
	logs     string         // where to keep outputs
	listed   bool           // only tests of the ratchet
	update   bool
	remove   bool
	verbose  bool
	workers  int
}

func main() {
	opts := parseFlags()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ok, err := conform(ctx, opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
	}
	if !ok || err != nil {
		stop()
		os.Exit(1)
	}
}

func parseFlags() options {
	var opts options
	flag.Func("run", "only top-level tests whose name matches this `regexp`", func(s string) (err error) {
		opts.run, err = regexp.Compile(s)
		return err
	})
	packages := flag.String("packages", strings.Join(allPackages, ","), "packages of Complement to run, with commas between them")
	flag.StringVar(&opts.image, "image", "", "test another `homeserver`, dendrite, synapse or a launch script, to see what that one passes; the list is left alone")
	flag.Func("with", "make another `homeserver`, dendrite or synapse, the second one of the tests that have two, and run only these", func(s string) error {
		if s != "dendrite" && s != "synapse" {
			return errors.New("there are dendrite and synapse")
		}
		opts.with = s
		return nil
	})
	flag.StringVar(&opts.binary, "binary", "", "test this built `program` instead of building one")
	flag.StringVar(&opts.logs, "logs", "", "keep the output of every test and homeserver in this `directory`")
	flag.BoolVar(&opts.listed, "listed", false, "run only the tests of the list")
	flag.BoolVar(&opts.update, "update", false, "add tests that newly pass to the list")
	flag.BoolVar(&opts.remove, "remove", false, "take tests that never pass off the list")
	flag.BoolVar(&opts.verbose, "v", false, "print the output of every test that fails, not only of listed ones")
	flag.IntVar(&opts.workers, "workers", min(runtime.NumCPU(), 4), "how many tests run at once")
	flag.Parse()
	opts.packages = strings.Split(*packages, ",")
	return opts
}

// conform does the whole run. It is false when a listed test never passes.
func conform(ctx context.Context, opts options) (bool, error) {
	root, err := checkout.Root()
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "switchboard-conformance-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	s, err := prepare(ctx, root, dir, opts)
	if err != nil {
		return false, err
	}
	path := filepath.Join(root, "cmd/dev/complement", opts.list())
	list, err := readRatchet(path)
	if err != nil {
		return false, err
	}
	contradicted, err := readContradicted(filepath.Join(root, "cmd/dev/complement/contradicted.txt"))
	if err != nil {
		return false, err
	}
	if opts.image != "" {
		list = nil
	}
	tests := s.tests(opts.run)
	list, unknown := list.known(s, tests)
	if opts.listed {
		tests = list
	}
	s.listed, s.left = list, repeats
	began := time.Now()
	if err := s.runAll(ctx, tests); err != nil {
		return false, err
	}
	if err := s.repeat(ctx, tests); err != nil {
		return false, err
	}
	verdict := list.judge(s.results, tests)
	s.report(verdict, contradicted, time.Since(began))
	for _, name := range unknown {
		fmt.Printf("LISTED, BUT NOT IN THE SUITE: %s\n", name)
	}
	if err := rewrite(path, opts, verdict); err != nil {
		return false, err
	}
	if opts.image == "" {
		fmt.Printf("conformance ratchet: %d passed, %d failed\n", len(verdict.kept), len(verdict.lost)+len(unknown))
	}
	return len(verdict.lost)+len(unknown) == 0, nil
}

// list is the name of the ratchet's file.
func (o options) list() string {
	if o.with == "" {
		return "passing.txt"
	}
	return "passing-" + o.with + ".txt"
}

// rewrite changes the list as the options allow. Nothing else may.
func rewrite(path string, opts options, v verdict) error {
	if opts.image != "" || !opts.update && !opts.remove {
		return nil
	}
	all, err := readRatchet(path)
	if err != nil {
		return err
	}
	if opts.update {
		all = append(all, v.gained...)
	}
	if opts.remove {
		all = slices.DeleteFunc(all, func(name string) bool { return slices.Contains(v.lost, name) })
	}
	return all.write(path, opts.with)
}
