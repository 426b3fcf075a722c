package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// staticcheck is the linter at the version that everybody uses.
const staticcheck = "honnef.co/go/tools/cmd/staticcheck@v0.8.2"

// limit is how long the tests of a package may take, on a machine that does other
// things beside them.
const limit = "60m"

// tags are the build tags of a release.
const tags = "goolm"

// command prepares a program to run at the top of the checkout. An end of ctx
// is a SIGTERM for it and all that it started.
func (c *check) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.root
	cmd.Env = slices.Concat(c.env, []string{"CGO_ENABLED=0"})
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// single makes a tally of one thing that passed or failed.
func single(ok bool) tally {
	if ok {
		return tally{passed: 1}
	}
	return tally{failed: 1}
}

// lint runs gofmt, go vet and staticcheck. Each counts as one.
func lint(ctx context.Context, c *check) tally {
	var sum tally
	files, err := c.command(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.go").Output()
	if err != nil {
		c.out.line("lint", "git ls-files: "+err.Error())
		return tally{failed: 1}
	}
	names := slices.DeleteFunc(strings.Split(string(files), "\x00"), func(name string) bool {
		_, err := os.Stat(filepath.Join(c.root, name))
		return name == "" || err != nil
	})
	for _, l := range []struct {
		name string
		args []string
	}{
		{"gofmt", append([]string{"gofmt", "-l"}, names...)},
		{"go vet", []string{"go", "vet", "-tags", tags, "./..."}},
		{"staticcheck", []string{"go", "run", staticcheck, "-tags", tags, "./..."}},
	} {
		out, err := c.command(ctx, l.args[0], l.args[1:]...).CombinedOutput()
		ok := err == nil && len(bytes.TrimSpace(out)) == 0
		if l.name != "gofmt" {
			ok = err == nil // go says on stderr what it downloads
		}
		if ok {
			c.out.line("lint", "ok   "+l.name)
		} else {
			c.out.block("lint", fmt.Sprintf("FAIL %s\n%s", l.name, out))
			c.failed("lint", l.name)
		}
		sum = sum.plus(single(ok))
	}
	return sum
}

// test runs the tests of all packages.
func test(ctx context.Context, c *check) tally {
	return c.goTest(ctx, "test", tests{flags: []string{"-timeout", limit}, packages: []string{"./..."}})
}

// unraced are packages of libraries that the race detector leaves alone, for what
// their own goroutines do to each other. exsync: Event.GetChan notes for itself that
// somebody waits, under a lock that others share, and so two who wait at once both
// write the same true. whatsmeow: it counts its attempts to connect without a lock,
// its Logout forgets the device while the server's word that the device is gone
// makes it do the same, and its socket is told to stop while it closes by itself.
var unraced = []string{"go.mau.fi/util/exsync", "go.mau.fi/whatsmeow/..."}

// race runs the tests of the packages where goroutines meet, with the race
// detector. What runs a built program as a whole is not among them.
func race(ctx context.Context, c *check) tally {
	return c.detectRaces(ctx, "race", "./homeserver/...", "./appservices/...", "./voip/...", "./cmd/switchboard")
}

// bridgerace is race for the bridges.
func bridgerace(ctx context.Context, c *check) tally {
	return c.detectRaces(ctx, "bridgerace", "./bridges/...")
}

// detectRaces runs the tests of those packages where goroutines meet.
func (c *check) detectRaces(ctx context.Context, suite string, patterns ...string) tally {
	list, err := c.command(ctx, "go", append([]string{"list", "-tags", tags, "-f",
		`{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`}, patterns...)...).Output()
	if err != nil {
		c.out.line(suite, "go list: "+err.Error())
		return tally{failed: 1}
	}
	var packages []string
	for line := range strings.Lines(string(list)) {
		fields := strings.Fields(line)
		if slices.ContainsFunc(fields[1:], func(p string) bool { return p == "sync" || p == "sync/atomic" || p == "golang.org/x/sync/errgroup" }) {
			packages = append(packages, fields[0])
		}
	}
	flags := []string{"-race", "-timeout", limit}
	for _, p := range unraced {
		flags = append(flags, "-gcflags="+p+"=-race=false")
	}
	return c.goTest(ctx, suite, tests{env: []string{"CGO_ENABLED=1"}, flags: flags, packages: packages})
}

// tests is a run of "go test".
type tests struct {
	env, flags, packages []string
	apart                bool // a subtest needs nothing of those before it, and can be repeated by itself
}

// mostRepeated is how many tests of a package are run once more when they fail.
// Where more fail, something is broken.
const mostRepeated = 20

// goTest runs tests and prints a line for each package. What fails is run once
// more, by itself: a test that passes then counts as passed, and is named at the
// end for somebody to mend.
func (c *check) goTest(ctx context.Context, suite string, t tests) tally {
	r := c.goTestOnce(ctx, suite, t, true)
	for _, pkg := range slices.Sorted(maps.Keys(r.failed)) {
		f := r.failed[pkg]
		if len(f.tests) == 0 {
			c.failed(suite, pkg)
			continue
		}
		if !f.final && len(f.leaves) <= mostRepeated && ctx.Err() == nil {
			names := f.tests
			if t.apart {
				names = f.leaves
			}
			c.out.line(suite, "repeating "+pkg+" "+strings.Join(names, " "))
			again := c.goTestOnce(ctx, suite, tests{env: t.env, flags: append(slices.Clip(t.flags), "-count=1", "-run", pattern(names)), packages: []string{pkg}}, false)
			if again.sum.failed == 0 && again.sum.passed == len(f.tests) {
				r.sum.failed -= len(f.tests)
				r.sum.passed += len(f.tests)
				for _, name := range names {
					c.shaken(suite, pkg+" "+name)
				}
				continue
			}
		}
		for _, test := range f.tests {
			c.failed(suite, pkg+" "+test)
		}
	}
	return r.sum
}

// goTestOnce runs "go test -json".
func (c *check) goTestOnce(ctx context.Context, suite string, t tests, repeated bool) *results {
	cmd := c.command(ctx, "go", slices.Concat([]string{"test", "-json", "-vet=off", "-tags", tags}, t.flags, t.packages)...)
	cmd.Env = append(cmd.Env, t.env...)
	r := newResults(func(line string) { c.out.line(suite, line) }, func(output string) { c.out.block(suite, output) })
	r.repeated = repeated
	if err := c.stream(cmd, r.take); err != nil && r.sum.failed == 0 && ctx.Err() == nil {
		c.out.line(suite, "FAIL "+err.Error())
		r.sum.failed++
	}
	return r
}

// stream runs a command and calls take for each line that it prints.
func (c *check) stream(cmd *exec.Cmd, take func(line []byte)) error {
	pipe, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		w.Close()
		done <- err
	}()
	lines := bufio.NewReader(pipe)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			take(line)
		}
		if err != nil {
			return <-done
		}
	}
}

// conformance runs the tests of the ratchet.
func conformance(ctx context.Context, c *check) tally { return c.ratchet(ctx, "conformance") }

// mixed runs the tests of the ratchets in which the second homeserver is another.
func mixed(ctx context.Context, c *check) tally {
	return c.ratchet(ctx, "mixed", "-with", "dendrite").plus(c.ratchet(ctx, "mixed", "-with", "synapse"))
}

// ratchet runs the listed conformance tests. The last line has the counts.
func (c *check) ratchet(ctx context.Context, suite string, args ...string) tally {
	var sum tally
	counted := false
	cmd := c.command(ctx, "go", append([]string{"run", "./cmd/dev/conformance", "-listed", "-binary", c.binary}, args...)...)
	err := c.stream(cmd, func(line []byte) {
		text := strings.TrimRight(string(line), "\n")
		if _, err := fmt.Sscanf(text, "conformance ratchet: %d passed, %d failed", &sum.passed, &sum.failed); err == nil {
			counted = true
		}
		c.out.line(suite, text)
	})
	if !counted || err != nil && sum.failed == 0 {
		c.out.line(suite, fmt.Sprint("FAIL ", err))
		sum.failed++
	}
	return sum
}

// federation lets the program talk with other homeservers.
func federation(ctx context.Context, c *check) tally {
	return c.goTest(ctx, "federation", tests{env: []string{"SWITCHBOARD_TEST_PEERS=dendrite,synapse"}, flags: []string{"-count=1", "-timeout", limit, "-parallel", "8"}, packages: []string{"./cmd/dev/federate"}, apart: true})
}

// alone runs each bridge as a program of its own beside Synapse; that it runs
// beside our server is among the tests.
func alone(ctx context.Context, c *check) tally {
	return c.goTest(ctx, "alone", tests{env: []string{"SWITCHBOARD_TEST_PEERS=synapse"}, flags: []string{"-count=1", "-timeout", limit, "-run", "TestAlone/synapse"}, packages: []string{"./cmd/dev/alone"}, apart: true})
}

// toybridge runs a bridge with the main program of mautrix beside our server.
func toybridge(ctx context.Context, c *check) tally {
	return c.goTest(ctx, "toybridge", tests{env: []string{"SWITCHBOARD_TEST_TOYBRIDGE=1"}, flags: []string{"-count=1", "-timeout", limit}, packages: []string{"./cmd/dev/toybridge"}})
}

// calls lets browsers call each other.
func calls(ctx context.Context, c *check) tally {
	return c.inBrowser(ctx, "calls", "SWITCHBOARD_TEST_CALLS=1")
}

// browser lets people use an application in a browser.
func browser(ctx context.Context, c *check) tally {
	return c.inBrowser(ctx, "browser", "SWITCHBOARD_TEST_BROWSER=1")
}

// inBrowser runs the tests of a suite that needs libraries from npm for its page.
func (c *check) inBrowser(ctx context.Context, suite, env string) tally {
	var out []byte
	var err error
	for range 2 { // it downloads
		if out, err = c.command(ctx, "make", "--no-print-directory", "cmd/dev/"+suite+"/page/node_modules").CombinedOutput(); err == nil {
			break
		}
	}
	if err != nil {
		c.out.block(suite, fmt.Sprintf("FAIL make: %v\n%s", err, out))
		c.failed(suite, "make")
		return single(false)
	}
	return c.goTest(ctx, suite, tests{env: []string{env}, flags: []string{"-count=1", "-timeout", limit}, packages: []string{"./cmd/dev/" + suite}})
}

// demo runs the conversation with real clients, which counts as one, and once
// more when it fails.
func demo(ctx context.Context, c *check) tally {
	var err error
	for try := range 2 {
		cmd := c.command(ctx, "make", "--no-print-directory", "demo")
		if err = c.stream(cmd, func(line []byte) { c.out.line("demo", strings.TrimRight(string(line), "\n")) }); err == nil {
			if try > 0 {
				c.shaken("demo", "demo")
			}
			return single(true)
		}
		c.out.line("demo", []string{"again", "FAIL"}[try]+" "+err.Error())
	}
	c.failed("demo", err.Error())
	return single(false)
}
