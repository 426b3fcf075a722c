// Command check runs every suite of this checkout: the linters, the tests on
// SQLite and PostgreSQL, the race detector where goroutines live, the
// conformance ratchets, federation with other homeservers, bridges beside them,
// browsers and the demo. "make test" is this command.
//
//	go run ./cmd/dev/check [lint] [test] [race] [bridgerace] [conformance] [mixed] [federation] [alone] [toybridge] [calls] [browser] [demo]
//
// Programs that the suites need and the machine lacks are installed on Debian
// when it runs as root; otherwise they are named. A test that fails is repeated
// once by itself, and named at the end when it passes then. The last line counts
// what passed and failed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"switchboard/cmd/dev/checkout"
	"switchboard/cmd/dev/postgres"
)

// suite is one of the things that are checked.
type suite struct {
	name string
	run  func(context.Context, *check) tally

	// lane groups suites that run one after the other, beside those of other
	// lanes: what waits for servers goes with what keeps the processor busy. A
	// lane that has nothing left takes from the end of another one, but nothing
	// that is tied.
	lane int
	tied bool // its networks are those of the suite before
}

// suites lists all of them, in the order of a lane.
var suites = []suite{
	{name: "lint", run: lint, lane: 0},
	{name: "test", run: test, lane: 0},
	{name: "race", run: race, lane: 0},
	{name: "bridgerace", run: bridgerace, lane: 0},
	{name: "conformance", run: conformance, lane: 1},
	{name: "mixed", run: mixed, lane: 1, tied: true},
	{name: "federation", run: federation, lane: 1},
	{name: "alone", run: alone, lane: 1},
	{name: "toybridge", run: toybridge, lane: 1},
	{name: "calls", run: calls, lane: 1},
	{name: "browser", run: browser, lane: 1},
	{name: "demo", run: demo, lane: 1},
}

// tally counts what was checked.
type tally struct{ passed, failed, skipped int }

func (t tally) plus(u tally) tally {
	return tally{t.passed + u.passed, t.failed + u.failed, t.skipped + u.skipped}
}

// check is a run of some suites.
type check struct {
	root   string
	binary string // the program, built once for all
	env    []string
	out    *printer

	mu       sync.Mutex // tier 1; guards what follows
	left     []suite    // that have not begun
	failures []string   // names of what failed
	shaky    []string   // names of what failed once, and passed when repeated
}

// failed notes the name of something that failed, for the end.
func (c *check) failed(suite, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures = append(c.failures, "FAIL "+suite+": "+name)
}

// shaken notes the name of something that passed when it was repeated.
func (c *check) shaken(suite, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shaky = append(c.shaky, suite+": "+name+": passed when repeated; find out why it failed before")
}

// next takes the suite that a lane is to run: the first of its own, or the last
// one of another.
func (c *check) next(lane int) (suite, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.left, func(s suite) bool { return s.lane == lane })
	if i < 0 {
		for i = len(c.left) - 1; i >= 0 && c.left[i].tied; i-- {
		}
	}
	if i < 0 {
		return suite{}, false
	}
	s := c.left[i]
	c.left = slices.Delete(c.left, i, i+1)
	return s, true
}

func main() {
	names := make([]string, len(suites))
	for i, s := range suites {
		names[i] = s.name
	}
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: check [%s]\n", strings.Join(names, "] ["))
	}
	flag.Parse()
	wanted := flag.Args()
	for _, name := range wanted {
		if !slices.Contains(names, name) {
			flag.Usage()
			os.Exit(2)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	sum, err := run(ctx, wanted)
	stop()
	if err != nil {
		fmt.Println("check:", err)
		sum.failed++
	}
	fmt.Printf("%d passed, %d failed\n", sum.passed, sum.failed)
	if sum.failed > 0 {
		os.Exit(1)
	}
}

// run prepares the machine and runs the wanted suites, all of them for none.
func run(ctx context.Context, wanted []string) (tally, error) {
	root, err := checkout.Root()
	if err != nil {
		return tally{}, err
	}
	dir, err := os.MkdirTemp("", "switchboard-check-")
	if err != nil {
		return tally{}, err
	}
	defer os.RemoveAll(dir)
	c := &check{root: root, binary: filepath.Join(dir, "switchboard"), out: &printer{start: time.Now()}}
	if err := c.install(ctx); err != nil {
		return tally{}, err
	}
	c.out.line("check", "building")
	if err := checkout.Build(ctx, root, "./cmd/switchboard", c.binary); err != nil {
		return tally{}, err
	}
	c.env = append(os.Environ(), "SWITCHBOARD_BIN="+c.binary, "SWITCHBOARD_TEST_S3=1")
	if os.Getenv("SWITCHBOARD_TEST_POSTGRES") == "" {
		cluster, err := postgres.Start(ctx, postgres.Options{})
		if err != nil {
			return tally{}, err
		}
		defer cluster.Stop()
		c.env = append(c.env, "SWITCHBOARD_TEST_POSTGRES="+cluster.URL("postgres"))
	}
	sum := c.lanes(ctx, wanted)
	if ctx.Err() != nil {
		return sum, errors.New("interrupted")
	}
	return sum, nil
}

// lanes runs the suites, each lane on its own, and sums up.
func (c *check) lanes(ctx context.Context, wanted []string) tally {
	for _, s := range suites {
		if len(wanted) == 0 || slices.Contains(wanted, s.name) {
			c.left = append(c.left, s)
		}
	}
	var sum tally
	var table []string
	var group sync.WaitGroup
	for lane := range 2 {
		group.Go(func() {
			for ctx.Err() == nil {
				s, ok := c.next(lane)
				if !ok {
					return
				}
				c.out.line(s.name, "starts")
				start := time.Now()
				t := s.run(ctx, c)
				took := time.Since(start).Round(time.Second)
				c.out.line(s.name, fmt.Sprintf("%d passed, %d failed, %d skipped in %s", t.passed, t.failed, t.skipped, took))
				c.mu.Lock()
				sum = sum.plus(t)
				table = append(table, fmt.Sprintf("%-12s %5d passed %5d failed %5d skipped %8s", s.name, t.passed, t.failed, t.skipped, took))
				c.mu.Unlock()
			}
		})
	}
	group.Wait()
	fmt.Printf("\n%s\n\n", strings.Join(slices.Concat(table, c.shaky, c.failures), "\n"))
	return sum
}

// printer prints the progress of several suites line by line.
type printer struct {
	start time.Time
	mu    sync.Mutex // tier 1; guards standard output
}

// line prints a line of a suite, with the time since the start.
func (p *printer) line(suite, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	passed := time.Since(p.start)
	fmt.Printf("%02d:%02d %-11s %s\n", int(passed.Minutes()), int(passed.Seconds())%60, suite, text)
}

// block prints lines of a suite that belong together.
func (p *printer) block(suite, text string) {
	p.line(suite, "\n"+strings.TrimRight(text, "\n"))
}
