package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"switchboard/cmd/dev/checkout"
)

const (
	// complement is the module path of the suite.
	complement = "github.com/matrix-org/complement"

	// share is the prefix of variables that Complement passes on to the
	// homeservers, without the prefix.
	share = "SWITCHBOARD_COMPLEMENT_"

	// chunk is how many tests run in one process of the suite. They share
	// nothing, but each process has a certificate authority to make.
	chunk = 3

	// limit is how long one process of the suite may take.
	limit = 10 * time.Minute

	// repeats is how often listed tests that fail are repeated: Complement gives a
	// homeserver five seconds for everything, whatever else the machine does.
	repeats = 2
)

// testPackage is a package of Complement, compiled.
type testPackage struct {
	path    string // import path
	dir     string // of its source, where its tests expect to run
	program string
}

// suite is everything that a run needs, and its results.
type suite struct {
	dockerless string
	image      string // launch script
	env        []string
	logs       string // "" keeps none
	verbose    bool
	workers    int
	names      []string // of all top-level tests, in the order of the source
	packageOf  map[string]*testPackage
	complete   bool // no package that the list covers is left out
	pairs      bool // only tests with two homeservers

	listed ratchet // what is repeated when it fails
	left   int     // how often that is still done; changed only while nothing runs

	mu      sync.Mutex // tier 1; guards what follows
	results map[string]*result
	chunks  int // processes so far, for the names of log directories
	dead    int // tests in a row for which no homeserver started
}

const (
	// notUp is what Complement says when a homeserver does not answer in time.
	notUp = "failed to check server is up"

	// maxDead is how often that may happen before the run is given up: each time
	// takes half a minute.
	maxDead = 3
)

// prepare builds everything that a run needs in dir. It downloads Complement
// and its modules, which a run could not do: it has no network.
func prepare(ctx context.Context, root, dir string, opts options) (*suite, error) {
	s := &suite{
		dockerless: filepath.Join(dir, "dockerless"),
		logs:       opts.logs,
		verbose:    opts.verbose,
		workers:    max(opts.workers, 1),
		packageOf:  map[string]*testPackage{},
		complete:   !slices.ContainsFunc(allPackages, func(p string) bool { return !slices.Contains(opts.packages, p) }),
		pairs:      opts.with != "",
		results:    map[string]*result{},
	}
	if s.logs != "" { // the tests run in other directories than this program
		abs, err := filepath.Abs(s.logs)
		if err != nil {
			return nil, err
		}
		s.logs = abs
		if err := os.MkdirAll(s.logs, 0o755); err != nil {
			return nil, err
		}
	}
	fmt.Println("conformance: building")
	if err := checkout.Build(ctx, root, "./cmd/dev/dockerless", s.dockerless); err != nil {
		return nil, err
	}
	if err := s.homeservers(ctx, root, dir, opts); err != nil {
		return nil, err
	}
	for i, name := range opts.packages {
		if err := s.load(ctx, filepath.Join(root, "cmd/dev/complement"), complement+"/"+name, filepath.Join(dir, fmt.Sprintf("suite%d.test", i))); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// load compiles a package of the suite and lists its tests.
func (s *suite) load(ctx context.Context, module, path, program string) error {
	gotool := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = module
		// The checksum database has no entry for this version; go.sum pins it.
		cmd.Env = append(os.Environ(), "GONOSUMDB="+complement, "CGO_ENABLED=0")
		out, err := cmd.Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, exit.Stderr)
		}
		return out, err
	}
	if _, err := gotool("test", "-c", "-o", program, path); err != nil {
		return err
	}
	text, err := gotool("list", "-json=Dir,TestGoFiles,XTestGoFiles", path)
	if err != nil {
		return err
	}
	var p struct {
		Dir                       string
		TestGoFiles, XTestGoFiles []string
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	pkg := &testPackage{path: path, dir: p.Dir, program: program}
	functions, err := parse(p.Dir, slices.Concat(p.TestGoFiles, p.XTestGoFiles))
	if err != nil {
		return err
	}
	for _, f := range functions {
		if f.test && (!s.pairs || f.pair) {
			s.names = append(s.names, f.name)
		}
		if f.test {
			s.packageOf[f.name] = pkg
		}
	}
	return nil
}

// tests returns the names of the tests that match, all of them for nil.
func (s *suite) tests(match *regexp.Regexp) []string {
	var names []string
	for _, name := range s.names {
		if match == nil || match.MatchString(name) {
			names = append(names, name)
		}
	}
	return names
}

// runAll runs tests, some at once, and prints each result as it comes.
func (s *suite) runAll(ctx context.Context, tests []string) error {
	var chunks [][]string
	for _, group := range s.byPackage(tests) {
		chunks = slices.AppendSeq(chunks, slices.Chunk(group, chunk))
	}
	fmt.Printf("conformance: %d tests\n", len(tests))
	return s.runChunks(ctx, chunks)
}

// repeat runs listed tests that failed again, each alone. So it does with tests
// that have no result, because another one took their process down.
func (s *suite) repeat(ctx context.Context, tests []string) error {
	for s.left > 0 {
		again := s.failures(tests)
		if len(again) == 0 {
			break
		}
		s.left--
		fmt.Printf("conformance: repeating %d tests\n", len(again))
		if err := s.runChunks(ctx, again); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// failures forgets the results of what is to be repeated, and gives the tests,
// each in a chunk of its own.
func (s *suite) failures(tests []string) [][]string {
	var again [][]string
	for _, name := range tests {
		r := s.results[name]
		if r == nil || r.outcome != passed && slices.Contains(s.listed, name) {
			again = append(again, []string{name})
			delete(s.results, name)
		}
	}
	return again
}

// byPackage divides tests by the package that they are in.
func (s *suite) byPackage(tests []string) [][]string {
	var groups [][]string
	at := map[*testPackage]int{}
	for _, name := range tests {
		p := s.packageOf[name]
		i, ok := at[p]
		if !ok {
			i = len(groups)
			at[p] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], name)
	}
	return groups
}

// runChunks runs each chunk in a process of its own, as many at once as there
// are workers.
func (s *suite) runChunks(ctx context.Context, chunks [][]string) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	work := make(chan []string)
	var group sync.WaitGroup
	for range s.workers {
		group.Go(func() {
			for tests := range work {
				if err := s.runChunk(ctx, tests); err != nil && ctx.Err() == nil {
					fmt.Printf("conformance: %s: %v\n", strings.Join(tests, " "), err)
				}
				if text := s.lastWords(tests); text != "" {
					giveUp(fmt.Errorf("the homeserver does not start:\n%s", text))
				}
			}
		})
	}
	for _, c := range chunks {
		work <- c
	}
	close(work)
	group.Wait()
	return context.Cause(ctx)
}

// lastWords returns what the homeserver of one of the tests said, if it is time
// to give up because none starts.
func (s *suite) lastWords(tests []string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := ""
	for _, name := range tests {
		switch r := s.results[name]; {
		case r == nil:
		case strings.Contains(r.output.String(), notUp):
			s.dead++
			text = r.output.String()
		default:
			s.dead = 0
		}
	}
	if s.dead < maxDead {
		return ""
	}
	return text
}

// mark is the word at the start of a result's line. What is to be repeated is not
// yet called a failure.
func (s *suite) mark(r *result) string {
	if r.outcome != passed && s.left > 0 && slices.Contains(s.listed, r.name) {
		return "again"
	}
	return r.outcome.mark()
}

// runChunk runs tests of one package in one process. That a test fails is no
// error; that the process ends otherwise than by failing is.
func (s *suite) runChunk(ctx context.Context, tests []string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	pkg := s.packageOf[tests[0]]
	s.mu.Lock()
	s.chunks++
	logs := filepath.Join(s.logs, fmt.Sprintf("servers-%02d", s.chunks))
	s.mu.Unlock()

	args := []string{"tool", "test2json", "-t", s.dockerless, "-image", s.image}
	if s.logs != "" {
		args = append(args, "-logs", logs)
	}
	args = append(args, "--", pkg.program, "-test.v=test2json", "-test.count=1", "-test.timeout="+limit.String(),
		"-test.run=^("+strings.Join(tests, "|")+")$")
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = pkg.dir
	cmd.Env = append(os.Environ(), s.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// dockerless cleans up at SIGTERM; test2json alone would not pass it on.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	loose, err := s.collect(out, len(tests))
	status := cmd.Wait()
	if err != nil {
		return err
	}
	var exit *exec.ExitError
	if status != nil && (!errors.As(status, &exit) || exit.ExitCode() != 1) {
		return fmt.Errorf("%w\n%s", status, loose)
	}
	for _, name := range tests {
		if s.result(name) == nil {
			return fmt.Errorf("no result for %s\n%s", name, loose)
		}
	}
	return nil
}

// result returns what is known of a test, nil for nothing yet.
func (s *suite) result(name string) *result {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.results[name]
}

// collect reads the events of one process until its end, and takes and prints
// the results. It returns the output that belongs to no test.
func (s *suite) collect(events io.Reader, n int) (loose string, err error) {
	c := newCollector()
	dec := json.NewDecoder(events)
	for {
		var e event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return c.loose.String(), nil
		} else if err != nil {
			return c.loose.String(), err
		}
		r := c.take(e)
		if r == nil {
			continue
		}
		s.mu.Lock()
		s.results[r.name] = r
		s.mu.Unlock()
		fmt.Printf("%s %s (%.1fs)\n", s.mark(r), r.name, r.seconds)
		if s.logs != "" {
			if err := os.WriteFile(filepath.Join(s.logs, r.name+".log"), []byte(r.output.String()), 0o644); err != nil {
				return "", err
			}
		}
	}
}
