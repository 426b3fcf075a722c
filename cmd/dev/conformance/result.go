package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// outcome is how a test ended.
type outcome int

const (
	failed outcome = iota
	passed
	skipped
)

// outcomes are test2json's words for the ends of a test.
var outcomes = map[string]outcome{"pass": passed, "fail": failed, "skip": skipped}

// mark is the word at the start of a result's line.
func (o outcome) mark() string {
	switch o {
	case passed:
		return "ok  "
	case skipped:
		return "skip"
	default:
		return "FAIL"
	}
}

// result is what became of one top-level test.
type result struct {
	name    string
	outcome outcome
	seconds float64
	output  strings.Builder // of the test and its subtests
	sub     map[string]outcome
}

// event is a line of test2json.
type event struct {
	Action  string
	Test    string // "TestX" or "TestX/sub"; "" for the process
	Output  string
	Elapsed float64 // seconds
}

// collector makes results of events.
type collector struct {
	open  map[string]*result
	loose strings.Builder // output outside of tests
}

func newCollector() *collector { return &collector{open: map[string]*result{}} }

// take adds one event, and returns a test's result when that event ends it.
func (c *collector) take(e event) *result {
	if e.Test == "" {
		c.loose.WriteString(e.Output)
		return nil
	}
	top, _, isSub := strings.Cut(e.Test, "/")
	r := c.open[top]
	if r == nil {
		r = &result{name: top, sub: map[string]outcome{}}
		c.open[top] = r
	}
	r.output.WriteString(e.Output)
	how, ended := outcomes[e.Action]
	switch {
	case !ended:
		return nil
	case isSub:
		r.sub[e.Test] = how
		return nil
	}
	delete(c.open, top)
	r.outcome, r.seconds = how, e.Elapsed
	return r
}

// report prints the counts of the run, what failed and what is new.
func (s *suite) report(v verdict, contradicted map[string]string, took time.Duration) {
	var top, sub [3]int
	for _, name := range slices.Sorted(maps.Keys(contradicted)) {
		if s.results[name] != nil {
			fmt.Printf("the specification contradicts %s: %s\n", name, contradicted[name])
		}
	}
	for _, r := range s.results {
		top[r.outcome]++
		for _, o := range r.sub {
			sub[o]++
		}
	}
	for _, name := range v.lost {
		fmt.Printf("\n--- a listed test fails again and again: %s\n", name)
		if r := s.results[name]; r != nil {
			fmt.Println(r.output.String())
		}
	}
	for name, r := range s.results {
		if s.verbose && r.outcome == failed && !slices.Contains(v.lost, name) {
			fmt.Printf("\n--- %s\n%s\n", name, r.output.String())
		}
	}
	if len(v.gained) > 0 {
		fmt.Printf("\nnot on the list, and they pass (-update adds them):\n  %s\n", strings.Join(v.gained, "\n  "))
	}
	fmt.Printf("\ntop-level tests: %d passed, %d failed, %d skipped\n", top[passed], top[failed], top[skipped])
	fmt.Printf("subtests:        %d passed, %d failed, %d skipped\n", sub[passed], sub[failed], sub[skipped])
	fmt.Printf("time:            %s\n", took.Round(time.Second))
}
