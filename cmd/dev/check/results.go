package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// event is a line of "go test -json".
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64 // seconds

	ImportPath  string // what a build event is of
	FailedBuild string // the ImportPath that a package failed for
}

// results reads the events of "go test" and counts top-level tests.
type results struct {
	line  func(string) // prints progress
	block func(string) // prints the output of what failed

	repeated bool // what fails is to be run once more: it is not yet called a failure

	sum     tally
	outputs map[string]*strings.Builder // "package" or "package test" -> output
	running map[string]bool             // "package test", top-level
	failed  map[string]*failure         // by package
}

// failure is what failed in a package.
type failure struct {
	tests  []string // top-level ones; none when the package failed as a whole
	leaves []string // tests that failed with no failed test below them
	final  bool     // a second run would prove nothing
}

func newResults(line, block func(string)) *results {
	return &results{line: line, block: block, outputs: map[string]*strings.Builder{}, running: map[string]bool{}, failed: map[string]*failure{}}
}

// pattern is an argument of "go test -run" that picks tests by their paths.
func pattern(tests []string) string {
	var paths []string
	for _, test := range tests {
		names := strings.Split(test, "/")
		for i, name := range names {
			names[i] = "^" + regexp.QuoteMeta(name) + "$"
		}
		paths = append(paths, strings.Join(names, "/"))
	}
	return strings.Join(paths, "|")
}

// take reads one line. What is no event is go's own complaint and is printed.
func (r *results) take(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		r.line(strings.TrimRight(string(line), "\n"))
		return
	}
	top, _, isSub := strings.Cut(e.Test, "/")
	key := e.Package
	if top != "" {
		key += " " + top
	}
	switch e.Action {
	case "run":
		r.running[key] = true
	case "output":
		r.output(key).WriteString(e.Output)
	case "build-output":
		r.output("build " + e.ImportPath).WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Action == "fail" && e.Test != "" {
			r.fail(e)
		}
		switch {
		case isSub:
		case e.Test == "":
			r.endPackage(e)
		default:
			r.endTest(e, key)
		}
	}
}

// fail notes a failed test. Those below it have come before.
func (r *results) fail(e event) {
	f := r.failed[e.Package]
	if f == nil {
		f = new(failure)
		r.failed[e.Package] = f
	}
	if !slices.ContainsFunc(f.leaves, func(leaf string) bool { return strings.HasPrefix(leaf, e.Test+"/") }) {
		f.leaves = append(f.leaves, e.Test)
	}
	if !strings.Contains(e.Test, "/") {
		f.tests = append(f.tests, e.Test)
	}
}

func (r *results) output(key string) *strings.Builder {
	b := r.outputs[key]
	if b == nil {
		b = new(strings.Builder)
		r.outputs[key] = b
	}
	return b
}

// endTest counts a top-level test.
func (r *results) endTest(e event, key string) {
	switch e.Action {
	case "pass":
		r.sum.passed++
	case "skip":
		r.sum.skipped++
		r.line(fmt.Sprintf("skip %s %s", e.Package, e.Test))
	default:
		r.sum.failed++
		output := r.output(key).String()
		if fatal.MatchString(output) || slices.ContainsFunc(races.FindAllString(output, -1), own) {
			r.failed[e.Package].final = true
		} else if r.repeated {
			output = strings.ReplaceAll(output, "--- FAIL: ", "--- to be repeated: ")
		}
		r.block(shorten(output))
	}
	delete(r.outputs, key)
	delete(r.running, key)
}

// endPackage prints the line of a package. One that fails with no failed test
// did not build, or ended otherwise, and counts as a failure itself.
func (r *results) endPackage(e event) {
	switch e.Action {
	case "pass":
		r.line(fmt.Sprintf("ok   %s %.1fs", e.Package, e.Elapsed))
	case "fail":
		r.failPackage(e)
	}
	for key := range r.outputs {
		if key == e.Package || strings.HasPrefix(key, e.Package+" ") {
			delete(r.outputs, key)
			delete(r.running, key)
		}
	}
}

// failPackage says that a package failed. Where a test never ended, because the
// process did, not all others have run, and a second run of some proves nothing.
func (r *results) failPackage(e event) {
	f := r.failed[e.Package]
	whole := f == nil
	if whole {
		f = &failure{final: true}
		r.failed[e.Package] = f
		r.sum.failed++
	}
	var text strings.Builder
	if e.FailedBuild != "" {
		text.WriteString(r.output("build " + e.FailedBuild).String())
	}
	for key, out := range r.outputs {
		died := strings.HasPrefix(key, e.Package+" ") && r.running[key]
		f.final = f.final || died
		if died || whole && key == e.Package {
			text.WriteString(out.String())
		}
	}
	word := "FAIL"
	if r.repeated && !f.final {
		word = "again"
	}
	r.line(fmt.Sprintf("%s %s %.1fs", word, e.Package, e.Elapsed))
	if f.final {
		r.block(shorten(text.String()))
	}
}

// most is how many lines of a failed test are shown as they are.
const most = 120

// fatal are lines of the end of the process before its other tests, which a second
// run does not undo.
var fatal = regexp.MustCompile(`(?m)^(panic: |fatal error: )`)

// races are what the race detector says: where two met, each with its stack, and
// then where their goroutines come from.
var (
	races  = regexp.MustCompile(`(?ms)^WARNING: DATA RACE$.*?(^=====|\z)`)
	access = regexp.MustCompile(`(?mi)^(previous )?(atomic )?(read|write) at .*\n((?:  .*\n)*)`)
)

// own reports whether a race is one of this project: a second run does not undo
// it. It is not where both sides are code of libraries, below which our own is
// always somewhere, and one side is at the least where the other's stack is lost.
func own(race string) bool {
	foreign := false
	for _, side := range access.FindAllStringSubmatch(race, -1) {
		for frame := range strings.Lines(side[4]) {
			if strings.HasPrefix(frame, "   ") {
				continue // the file of the line before
			}
			host, _, _ := strings.Cut(strings.TrimSpace(frame), "/")
			if host == "switchboard" || strings.HasPrefix(host, "main.") {
				return true
			}
			if strings.Contains(host, ".") && !strings.ContainsAny(host, "([") { // else it is of the standard library
				foreign = true
				break
			}
		}
	}
	return !foreign
}

// telling are the lines that say what went wrong.
var telling = regexp.MustCompile(`^\s*(--- (FAIL|to be repeated): |\w+_test\.go:\d+: |panic: |fatal error: |WARNING: DATA RACE)`)

// shorten keeps the last lines of an output, and of those before only what says
// what went wrong.
func shorten(output string) string {
	lines := strings.SplitAfter(output, "\n")
	if len(lines) <= most {
		return output
	}
	var kept strings.Builder
	gap := 0
	for i, line := range lines {
		if i < len(lines)-most && !telling.MatchString(line) {
			gap++
			continue
		}
		if gap > 0 {
			fmt.Fprintf(&kept, "… %d lines\n", gap)
			gap = 0
		}
		kept.WriteString(line)
	}
	return kept.String()
}
