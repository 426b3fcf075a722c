package main

import (
	"strings"
	"testing"
)

// TestResults counts the events of four packages: one that passes, one with a
// failed test, one that does not build and one that dies in a test.
func TestResults(t *testing.T) {
	const events = `go: downloading example.org v1.0.0
{"Action":"start","Package":"a"}
{"Action":"run","Package":"a","Test":"TestOne"}
{"Action":"output","Package":"a","Test":"TestOne/sub","Output":"quiet\n"}
{"Action":"pass","Package":"a","Test":"TestOne/sub","Elapsed":0.1}
{"Action":"pass","Package":"a","Test":"TestOne","Elapsed":0.1}
{"Action":"skip","Package":"a","Test":"TestPeer","Elapsed":0}
{"Action":"pass","Package":"a","Elapsed":0.5}
{"Action":"output","Package":"b","Test":"TestTwo/sub","Output":"got 1, want 2\n"}
{"Action":"fail","Package":"b","Test":"TestTwo/sub","Elapsed":0.1}
{"Action":"fail","Package":"b","Test":"TestTwo","Elapsed":0.1}
{"Action":"fail","Package":"b","Elapsed":0.5}
{"ImportPath":"c_test [c.test]","Action":"build-output","Output":"c.go:1: undefined: x\n"}
{"ImportPath":"c_test [c.test]","Action":"build-fail"}
{"Action":"fail","Package":"c","Elapsed":0,"FailedBuild":"c_test [c.test]"}
{"Action":"skip","Package":"empty","Elapsed":0}
{"Action":"run","Package":"d","Test":"TestFour"}
{"Action":"output","Package":"d","Test":"TestFour","Output":"panic: four\n"}
{"Action":"fail","Package":"d","Elapsed":0.5}
`
	var lines, blocks []string
	r := newResults(func(s string) { lines = append(lines, s) }, func(name, s string) { blocks = append(blocks, name+": "+s) })
	for line := range strings.Lines(events) {
		r.take([]byte(line))
	}
	if want := (tally{passed: 1, failed: 3, skipped: 1}); r.sum != want {
		t.Errorf("counted %+v, want %+v", r.sum, want)
	}
	if got, want := strings.Join(blocks, "|"), "b TestTwo: got 1, want 2\n|c: c.go:1: undefined: x\n|d: panic: four\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	if got, want := strings.Join(lines, "\n"), "go: downloading example.org v1.0.0\nskip a TestPeer\nok   a 0.5s\nFAIL b 0.5s\nFAIL c 0.0s\nFAIL d 0.5s"; got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
	if len(r.outputs) != 1 { // of the build, which other packages may fail for, too
		t.Errorf("kept %d outputs", len(r.outputs))
	}
}

// TestShorten cuts a long output and keeps what matters of it.
func TestShorten(t *testing.T) {
	noise := strings.Repeat("noise\n", most)
	for in, want := range map[string]string{
		"": "", "a\nb\n": "a\nb\n",
		noise + "    x_test.go:7: broken\n" + noise + "end":  "… 120 lines\n    x_test.go:7: broken\n… 1 lines\n" + strings.Repeat("noise\n", most-1) + "end",
		"--- FAIL: TestX (0.1s)\n" + noise + noise + "end\n": "--- FAIL: TestX (0.1s)\n… 122 lines\n" + strings.Repeat("noise\n", most-2) + "end\n",
	} {
		if got := shorten(in); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

// TestNext lets two lanes take suites: their own first, then from the end.
func TestNext(t *testing.T) {
	c := &check{left: []suite{{name: "a", lane: 0}, {name: "x", lane: 1}, {name: "y", lane: 1, tied: true}, {name: "z", lane: 1}}}
	var order string
	for _, lane := range []int{0, 1, 0, 0, 1, 1} {
		s, ok := c.next(lane)
		if !ok {
			s.name = "-"
		}
		order += s.name
	}
	if order != "axz-y-" {
		t.Errorf("the order is %s", order)
	}
}
