package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
)

// ratchet is the list of the top-level tests that must pass, sorted.
type ratchet []string

// ratchetHead is the first line of the file, by the other homeserver.
func ratchetHead(with string) string {
	if with == "" {
		return "# Tests of Complement that must pass. Written by: make conformance ARGS=-update\n"
	}
	return fmt.Sprintf("# Tests of Complement that must pass with %[1]s as hs2. Written by: make conformance ARGS=\"-with %[1]s -update\"\n", with)
}

// readRatchet reads a list: a name on each line, and comments with #.
func readRatchet(path string) (ratchet, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list ratchet
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if name := strings.TrimSpace(lines.Text()); name != "" && !strings.HasPrefix(name, "#") {
			list = append(list, name)
		}
	}
	if !slices.IsSorted(list) {
		return nil, fmt.Errorf("%s is not sorted", path)
	}
	return list, nil
}

// write sorts the list, drops doubles and writes it to the file for another
// homeserver, "" for none.
func (l ratchet) write(path, with string) error {
	l = slices.Clone(l)
	slices.Sort(l)
	l = slices.Compact(l)
	var text strings.Builder
	text.WriteString(ratchetHead(with))
	for _, name := range l {
		fmt.Fprintln(&text, name)
	}
	return os.WriteFile(path, []byte(text.String()), 0o644)
}

// known returns the listed tests among those selected, and those listed that
// no loaded package has any more. What belongs to a package that is not loaded
// can not be told from the latter, so unknown names count only when all
// packages of the list are there.
func (l ratchet) known(s *suite, selected []string) (listed ratchet, unknown []string) {
	for _, name := range l {
		switch {
		case slices.Contains(selected, name):
			listed = append(listed, name)
		case s.packageOf[name] == nil && s.complete:
			unknown = append(unknown, name)
		}
	}
	return listed, unknown
}

// verdict compares a run with the list.
type verdict struct {
	kept   []string // listed, and they pass
	lost   []string // listed, and they fail
	gained []string // not listed, and they pass
}

// readContradicted reads the tests that the specification contradicts: on each
// line a name, the URL of the section and the reason.
func readContradicted(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	reasons := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, _ := strings.Cut(line, " ")
		reasons[name] = reason
	}
	return reasons, nil
}

// judge compares the results of the tests that ran with the list.
func (l ratchet) judge(results map[string]*result, ran []string) verdict {
	var v verdict
	for _, name := range ran {
		r := results[name]
		passed := r != nil && r.outcome == passed
		switch listed := slices.Contains(l, name); {
		case listed && passed:
			v.kept = append(v.kept, name)
		case listed:
			v.lost = append(v.lost, name)
		case passed:
			v.gained = append(v.gained, name)
		}
	}
	return v
}
