package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"switchboard/cmd/dev/load"
)

// TestPage writes a comparison twice into a page that has text of its own.
func TestPage(t *testing.T) {
	report := func(perSec, p99, rss float64, failed int) *load.Report {
		return &load.Report{Phases: []load.Phase{{Name: "send_serial", N: 10, Failed: failed, PerSec: perSec, P99: p99}}, PeakRSS: rss}
	}
	p := page{
		options: options{databases: []string{"sqlite"}, date: "2026-01-31", rounds: 3},
		results: map[subject][]*load.Report{
			{"switchboard", "sqlite"}: {report(2000, 2, 50, 0), report(9000, 1, 50, 0), report(1000, 8, 40, 0)},
			{"dendrite", "sqlite"}:    {report(80, 30, 400, 1), report(100, 20, 500, 0), report(120, 40, 600, 2)},
		},
		machine: "- machine: a small one\n",
	}
	path := filepath.Join(t.TempDir(), "docs", "performance.md")
	if err := p.write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| send_serial | 2000 | 100 | 20.0× | 2.00 | 30.0 | 15.0× | – | – | – |\n",
		"| at most | 50.0 | 500 | 10.0× |\n",
		"Dendrite failed 3 of 30 times in send_serial.\n",
		"- measured on 2026-01-31\n- machine: a small one\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}

	own := strings.Replace(string(text), frame[:len("# Performance\n")], "# Performance\n\nBy hand.\n", 1) + "More by hand.\n"
	if err := os.WriteFile(path, []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.write(path); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(path); err != nil || string(again) != own {
		t.Errorf("%v: writing again changed the page to\n%s", err, again)
	}
	if err := os.WriteFile(path, []byte("# Performance\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.write(path); err == nil {
		t.Error("a page without a place was written into")
	}
}

// TestJoinPage writes what was measured of joins beside the other figures.
func TestJoinPage(t *testing.T) {
	report := func(join, verify time.Duration, bytes float64) *joinReport {
		return &joinReport{Join: join, Verify: verify, StateBytes: bytes}
	}
	p := page{
		options: options{only: "join", servers: []string{"switchboard", "dendrite", "synapse"}, databases: []string{"sqlite"}, rounds: 1},
		joined: map[subject][]*joinReport{
			{"switchboard", "sqlite"}: {report(4*time.Second, 2*time.Second, 700)},
			{"dendrite", "sqlite"}:    {report(40*time.Second, 2*time.Second, 3000)},
		},
	}
	path := filepath.Join(t.TempDir(), "performance.md")
	if err := p.write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		beginMark + endMark + "\n" + beginJoinMark, "| | Switchboard | Dendrite |\n|---|--:|--:|\n",
		"| join / verifying | 2.00 | 20.0 |\n", "| stored bytes per state event | 700 | 3000 |\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestSyncPage writes what was measured of syncs beside the other figures.
func TestSyncPage(t *testing.T) {
	ours, theirs := subject{"switchboard", "postgres"}, subject{"dendrite", "postgres"}
	p := page{
		options: options{only: "sync", servers: []string{"switchboard", "dendrite"}, databases: []string{"sqlite", "postgres"}, rounds: 1, sync: syncOptions{rooms: 2000}},
		synced: map[syncKey][]*syncReport{
			{ours, "made"}: {{Initial: 300}}, {theirs, "made"}: {{Initial: 9000}}, {ours, "crowd"}: {{List: 9.5, Wakes: [4]float64{0.1, 0.2, 0.3, 0.4}}},
		},
	}
	path := filepath.Join(t.TempDir(), "performance.md")
	if err := p.write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		beginSyncMark + "\n## An account in many rooms", "| | Switchboard, PostgreSQL | Dendrite, PostgreSQL |\n|---|--:|--:|\n", "| initial /sync, ms | 300 | 9000 |\n",
		"| | Switchboard, PostgreSQL |\n", "| first 20 rooms by sliding sync, ms | 9.50 |\n", "looking at all | 0.40 |\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestMedian takes the middle, whatever the order.
func TestMedian(t *testing.T) {
	of := func(r *load.Report) float64 { return r.CPU }
	for _, tt := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 4}, 4}, {[]float64{1, 2, 10, 4}, 3}} {
		var rounds []*load.Report
		for _, c := range tt.in {
			rounds = append(rounds, &load.Report{CPU: c})
		}
		if got := median(rounds, of); got != tt.want {
			t.Errorf("median of %v is %v, want %v", tt.in, got, tt.want)
		}
	}
}
