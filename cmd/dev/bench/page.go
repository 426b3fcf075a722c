package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"switchboard/cmd/dev/load"
	"switchboard/cmd/dev/peers"
	"switchboard/cmd/dev/postgres"
)

// The figures stand between these lines; the rest of the page is written by
// hand and left alone.
const (
	beginMark = "<!-- Written by make bench; the text between these two marks is replaced. -->\n"
	endMark   = "<!-- End of what make bench writes. -->\n"

	beginJoinMark = "<!-- Written by make bench ARGS=\"-only join\"; the text between these two marks is replaced. -->\n"
	endJoinMark   = "<!-- End of what it writes about joins. -->\n"

	beginSyncMark = "<!-- Written by make bench ARGS=\"-only sync\"; the text between these two marks is replaced. -->\n"
	endSyncMark   = "<!-- End of what it writes about syncs. -->\n"

	beginTurnMark = "<!-- Written by make bench ARGS=\"-only turn\"; the text between these two marks is replaced. -->\n"
	endTurnMark   = "<!-- End of what it writes about TURN. -->\n"
)

// frame is a page that has nothing but the figures.
const frame = "# Performance\n\n" + beginMark + endMark + "\n" + beginJoinMark + endJoinMark + "\n" + beginSyncMark + endSyncMark + "\n" + beginTurnMark + endTurnMark

// page is what is written about a comparison.
type page struct {
	options
	results map[subject][]*load.Report
	joined  map[subject][]*joinReport
	synced  map[syncKey][]*syncReport
	crowded int64  // events of the crowd
	machine string // a line for each fact
}

// titles are the databases' names.
var titles = map[string]string{"sqlite": "SQLite", "postgres": "PostgreSQL"}

// write puts the figures into the page at path.
func (p page) write(path string) error {
	switch p.only {
	case "join":
		return replace(path, beginJoinMark, endJoinMark, p.figures())
	case "sync":
		return replace(path, beginSyncMark, endSyncMark, p.figures())
	}
	return replace(path, beginMark, endMark, p.figures())
}

// replace puts text between two marks of the page at path.
func replace(path, begin, end, figures string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = []byte(frame), os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the figures: it needs the lines\n%s%s", path, begin, end)
	}
	return os.WriteFile(path, []byte(before+begin+figures+end+after), 0o644)
}

// figures are the tables, in Markdown.
func (p page) figures() string {
	switch p.only {
	case "join":
		return p.joins()
	case "sync":
		return p.syncs()
	}
	var w strings.Builder
	fmt.Fprintf(&w, `
## Beside Dendrite

What a client sees and what the server process costs, under the load of
`+"`cmd/dev/hsload`"+`: %d messages from %d senders at once into 50 rooms, half as many
into one room, a room of %d members, syncs of all kinds. Rounds measured: %d;
each figure is the median. In a round the servers were measured in turn, each
with an empty database. The load generator runs on the same machine. A ratio is
how many times better Switchboard is.

`, p.sends, p.parallel, p.members, p.rounds)
	if p.date != "" {
		fmt.Fprintf(&w, "- measured on %s\n", p.date)
	}
	w.WriteString(p.machine)
	w.WriteString("- both servers: no rate limits, log level warn, otherwise as they configure themselves; every commit of PostgreSQL reaches the disk\n")
	w.WriteString("- to repeat: `make bench`\n")
	for _, database := range p.databases {
		p.table(&w, database)
	}
	return w.String() + "\n"
}

// table writes the table of one database.
func (p page) table(w *strings.Builder, database string) {
	ours, theirs := p.results[subject{"switchboard", database}], p.results[subject{"dendrite", database}]
	fmt.Fprintf(w, "\n### On %s\n\n", titles[database])
	w.WriteString("| phase | Switchboard /s | Dendrite /s | ratio | Switchboard p99 ms | Dendrite p99 ms | ratio | Switchboard CPU ms | Dendrite CPU ms | ratio |\n")
	w.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, name := range phases(ours, theirs) {
		fmt.Fprintf(w, "| %s |%s%s%s\n", name,
			row(ours, theirs, true, func(r *load.Report) float64 { return at(r, name).PerSec }),
			row(ours, theirs, false, func(r *load.Report) float64 { return at(r, name).P99 }),
			row(ours, theirs, false, func(r *load.Report) float64 {
				if at(r, name).PerSec == 0 {
					return 0 // what nobody was answered for has no price
				}
				return at(r, name).CPU
			}))
	}
	w.WriteString("\n| memory of the server process, MB | Switchboard | Dendrite | ratio |\n|---|--:|--:|--:|\n")
	for _, m := range []struct {
		name string
		of   func(*load.Report) float64
	}{
		{"before the first request", func(r *load.Report) float64 { return r.IdleRSS }},
		{"at the end", func(r *load.Report) float64 { return r.EndRSS }},
		{"at most", func(r *load.Report) float64 { return r.PeakRSS }},
	} {
		fmt.Fprintf(w, "| %s |%s\n", m.name, row(ours, theirs, false, m.of))
	}
	w.WriteString(failures("Switchboard", ours) + failures("Dendrite", theirs))
}

// failures is a sentence for each phase in which requests failed.
func failures(server string, rounds []*load.Report) string {
	var w strings.Builder
	for _, name := range phases(rounds) {
		var n, of int
		for _, r := range rounds {
			n, of = n+at(r, name).Failed, of+at(r, name).N
		}
		if n > 0 {
			fmt.Fprintf(&w, "\n%s failed %d of %d times in %s.\n", server, n, of, name)
		}
	}
	return w.String()
}

// phases returns the names of all phases, in order.
func phases(results ...[]*load.Report) []string {
	for _, rounds := range results {
		if len(rounds) > 0 {
			var names []string
			for _, p := range rounds[0].Phases {
				names = append(names, p.Name)
			}
			return names
		}
	}
	return nil
}

// at returns a phase of a report, an empty one if it is not there.
func at(r *load.Report, name string) load.Phase {
	if p := r.Phase(name); p != nil {
		return *p
	}
	return load.Phase{}
}

// row returns three cells: our median, theirs and the ratio. more is true where
// a higher figure is better.
func row(ours, theirs []*load.Report, more bool, of func(*load.Report) float64) string {
	a, b := median(ours, of), median(theirs, of)
	ratio := "–"
	if a > 0 && b > 0 {
		r := a / b
		if !more {
			r = b / a
		}
		ratio = figure(r) + "×"
	}
	return fmt.Sprintf(" %s | %s | %s |", figure(a), figure(b), ratio)
}

// median returns the middle one of a figure of all rounds.
func median[R any](rounds []R, of func(R) float64) float64 {
	var all []float64
	for _, r := range rounds {
		all = append(all, of(r))
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	if n := len(all); n%2 == 0 {
		return (all[n/2-1] + all[n/2]) / 2
	}
	return all[len(all)/2]
}

// figure writes a number with about three digits; 0 is not known.
func figure(f float64) string {
	switch {
	case f == 0:
		return "–"
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	default:
		return fmt.Sprintf("%.2f", f)
	}
}

// machine describes what everything ran on, in Markdown.
func machine(ctx context.Context, root string, cluster *postgres.Cluster) string {
	var w strings.Builder
	fmt.Fprintf(&w, "- machine: %s, %d cores, %s memory, %s/%s\n", cmp.Or(field("/proc/cpuinfo", "model name"), "unknown processor"),
		runtime.NumCPU(), cmp.Or(field("/proc/meminfo", "MemTotal"), "unknown"), runtime.GOOS, runtime.GOARCH)
	commit := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD")
	commit.Dir = root
	revision, err := commit.Output()
	if err != nil {
		revision = []byte("of this checkout")
	}
	fmt.Fprintf(&w, "- versions: Switchboard %s, Dendrite %s, %s", strings.TrimSpace(string(revision)), peers.DendriteVersion, runtime.Version())
	if cluster != nil {
		if v, err := cluster.Version(ctx); err == nil {
			fmt.Fprintf(&w, ", %s", v)
		}
	}
	w.WriteString("\n")
	return w.String()
}

// field returns the first value of a key in a file of /proc, "" if there is
// none.
func field(path, key string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
