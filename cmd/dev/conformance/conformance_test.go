package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"switchboard/cmd/dev/checkout"
)

// TestCollect takes the results out of what test2json prints, with a process
// that dies in its last test.
func TestCollect(t *testing.T) {
	const events = `{"Action":"start"}
{"Action":"output","Output":"making a certificate authority\n"}
{"Action":"run","Test":"TestLogin"}
{"Action":"run","Test":"TestLogin/parallel"}
{"Action":"run","Test":"TestLogin/parallel/wrong_password"}
{"Action":"output","Test":"TestLogin/parallel/wrong_password","Output":"got 200\n"}
{"Action":"fail","Test":"TestLogin/parallel/wrong_password","Elapsed":0.1}
{"Action":"fail","Test":"TestLogin/parallel","Elapsed":0.2}
{"Action":"fail","Test":"TestLogin","Elapsed":0.3}
{"Action":"run","Test":"TestLogout"}
{"Action":"run","Test":"TestLogout/all"}
{"Action":"pass","Test":"TestLogout/all","Elapsed":0.1}
{"Action":"pass","Test":"TestLogout","Elapsed":1.5}
{"Action":"run","Test":"TestServerNotices"}
{"Action":"skip","Test":"TestServerNotices","Elapsed":0}
{"Action":"run","Test":"TestSync"}
{"Action":"output","Test":"TestSync","Output":"panic: deep inside\n"}
{"Action":"fail"}
`
	c := newCollector()
	var got []string
	dec := json.NewDecoder(strings.NewReader(events))
	for dec.More() {
		var e event
		if err := dec.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if r := c.take(e); r != nil {
			got = append(got, r.outcome.mark()+" "+r.name)
			if r.name == "TestLogin" && (len(r.sub) != 2 || r.output.String() != "got 200\n" || r.seconds != 0.3) {
				t.Errorf("TestLogin: %d subtests, output %q, %v s", len(r.sub), r.output.String(), r.seconds)
			}
		}
	}
	if want := []string{"FAIL TestLogin", "ok   TestLogout", "skip TestServerNotices"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if c.loose.String() != "making a certificate authority\n" {
		t.Errorf("loose output: %q", c.loose.String())
	}
	if c.open["TestSync"] == nil {
		t.Error("the unfinished test is forgotten")
	}
}

// TestJudge compares a run with a list.
func TestJudge(t *testing.T) {
	results := map[string]*result{
		"TestA": {outcome: passed}, "TestB": {outcome: failed}, "TestC": {outcome: passed}, "TestD": {outcome: failed}, "TestE": {outcome: skipped},
	}
	list := ratchet{"TestA", "TestB", "TestE", "TestGone", "TestOther"}
	v := list.judge(results, []string{"TestA", "TestB", "TestC", "TestD", "TestE", "TestGone"})
	for what, pair := range map[string][2][]string{
		"kept":   {v.kept, {"TestA"}},
		"lost":   {v.lost, {"TestB", "TestE", "TestGone"}}, // a test that skips itself does not pass
		"gained": {v.gained, {"TestC"}},
	} {
		if !slices.Equal(pair[0], pair[1]) {
			t.Errorf("%s: %q, want %q", what, pair[0], pair[1])
		}
	}

	s := &suite{packageOf: map[string]*testPackage{"TestA": {}, "TestB": {}}, complete: true}
	listed, unknown := list.known(s, []string{"TestA"})
	if !slices.Equal(listed, ratchet{"TestA"}) || !slices.Equal(unknown, []string{"TestE", "TestGone", "TestOther"}) {
		t.Errorf("listed %q, unknown %q", listed, unknown)
	}
}

// TestParse finds the tests that need two homeservers.
func TestParse(t *testing.T) {
	dir := t.TempDir()
	const source = `package x
func TestMain(m *testing.M) {}
func TestOne(t *testing.T) { deploy(t, "hs1") }
func TestTwo(t *testing.T) { t.Run("x", func(t *testing.T) { knock(t) }) }
func knock(t *testing.T) { federate(t) }
func federate(t *testing.T) { deploy(t, "hs2") }
func deploy(t *testing.T, name string) {}
func TestThree(t *testing.T) { deploy(t, "hs2") }
`
	if err := os.WriteFile(filepath.Join(dir, "x_test.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	functions, err := parse(dir, []string{"x_test.go"})
	if err != nil {
		t.Fatal(err)
	}
	var tests, pairs []string
	for _, f := range functions {
		if f.test {
			tests = append(tests, f.name)
		}
		if f.test && f.pair {
			pairs = append(pairs, f.name)
		}
	}
	if !slices.Equal(tests, []string{"TestOne", "TestTwo", "TestThree"}) || !slices.Equal(pairs, []string{"TestTwo", "TestThree"}) {
		t.Errorf("tests %q, pairs %q", tests, pairs)
	}
}

// TestContradicted wants each test that the specification contradicts to be on
// no list and to name an existing section.
func TestContradicted(t *testing.T) {
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "cmd/dev/complement")
	reasons, err := readContradicted(filepath.Join(dir, "contradicted.txt"))
	if err != nil || len(reasons) == 0 {
		t.Fatalf("%d tests, %v", len(reasons), err)
	}
	anchors, err := os.ReadFile(filepath.Join(root, "cmd/switchboard/testdata/anchors.txt"))
	if err != nil {
		t.Fatal(err)
	}
	lists, err := filepath.Glob(filepath.Join(dir, "passing*.txt"))
	if err != nil || len(lists) == 0 {
		t.Fatalf("%d lists, %v", len(lists), err)
	}
	for name, reason := range reasons {
		url, why, _ := strings.Cut(reason, " ")
		page, section, _ := strings.Cut(url, "#")
		if !strings.HasPrefix(page, "https://spec.matrix.org/v1.") || !strings.Contains(string(anchors), "\n "+section+"\n") || why == "" {
			t.Errorf("%s: no section and reason: %s", name, reason)
		}
		for _, path := range lists {
			if list, err := readRatchet(path); err != nil || slices.Contains(list, name) {
				t.Errorf("%s is in %s, %v", name, path, err)
			}
		}
	}
}

// TestRatchetFile rewrites a list the way each flag may.
func TestRatchetFile(t *testing.T) {
	v := verdict{kept: []string{"TestB"}, lost: []string{"TestD"}, gained: []string{"TestC", "TestA"}}
	tests := []struct {
		name string
		opts options
		want ratchet
	}{
		{"no flag", options{}, ratchet{"TestB", "TestD"}},
		{"update", options{update: true}, ratchet{"TestA", "TestB", "TestC", "TestD"}},
		{"remove", options{remove: true}, ratchet{"TestB"}},
		{"another second homeserver", options{update: true, with: "dendrite"}, ratchet{"TestA", "TestB", "TestC", "TestD"}},
		{"another homeserver", options{update: true, remove: true, image: "launch.sh"}, ratchet{"TestB", "TestD"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "passing.txt")
			if err := (ratchet{"TestD", "TestB", "TestB"}).write(path, tt.opts.with); err != nil {
				t.Fatal(err)
			}
			if err := rewrite(path, tt.opts, v); err != nil {
				t.Fatal(err)
			}
			got, err := readRatchet(path)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	path := filepath.Join(t.TempDir(), "unsorted.txt")
	if err := os.WriteFile(path, []byte("TestB\nTestA\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readRatchet(path); err == nil {
		t.Error("an unsorted list was read")
	}
}

// TestMark: a listed test that fails is called a failure when it is not repeated
// any more.
func TestMark(t *testing.T) {
	s := &suite{listed: ratchet{"TestA"}}
	for _, tt := range []struct {
		left  int
		name  string
		ended outcome
		want  string
	}{{1, "TestA", failed, "again"}, {0, "TestA", failed, "FAIL"}, {1, "TestB", failed, "FAIL"}, {1, "TestA", passed, "ok  "}} {
		if s.left = tt.left; s.mark(&result{name: tt.name, outcome: tt.ended}) != tt.want {
			t.Errorf("%+v", tt)
		}
	}
}

// TestLastWords gives up when one homeserver after the other does not start, and
// not for some of many.
func TestLastWords(t *testing.T) {
	s := &suite{results: map[string]*result{"TestDead": {name: "TestDead"}, "TestAlive": {name: "TestAlive"}}}
	s.results["TestDead"].output.WriteString(notUp)
	for i, tt := range []struct {
		tests []string
		dead  bool
	}{{[]string{"TestDead", "TestDead"}, false}, {[]string{"TestAlive"}, false}, {[]string{"TestDead", "TestNone"}, false}, {[]string{"TestDead", "TestDead"}, true}} {
		if got := s.lastWords(tt.tests); (got != "") != tt.dead {
			t.Errorf("%d: %q", i, got)
		}
	}
}
