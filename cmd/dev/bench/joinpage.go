package main

import (
	"fmt"
	"strings"
)

// joinFigures are the rows of the table about joins.
var joinFigures = []struct {
	name string
	of   func(*joinReport) float64
}{
	{"join, s", func(r *joinReport) float64 { return r.Join.Seconds() }},
	{"verifying its signatures alone, right before, s", func(r *joinReport) float64 { return r.Verify.Seconds() }},
	{"join / verifying", func(r *joinReport) float64 { return r.Join.Seconds() / r.Verify.Seconds() }},
	{"CPU of the server that joins, s", func(r *joinReport) float64 { return r.CPU.Seconds() }},
	{"CPU of the Switchboard that lets it in, s", func(r *joinReport) float64 { return r.ResidentCPU.Seconds() }},
	{"CPU of verifying, s", func(r *joinReport) float64 { return r.VerifyCPU.Seconds() }},
	{"memory of the server that joins at most, MB", func(r *joinReport) float64 { return r.Peak }},
	{"memory of the Switchboard that lets it in at most, MB", func(r *joinReport) float64 { return r.ResidentPeak }},
	{"stored bytes per state event", func(r *joinReport) float64 { return r.StateBytes }},
	{"stored bytes per message", func(r *joinReport) float64 { return r.MessageBytes }},
}

// joins are the tables about joins, in Markdown.
func (p page) joins() string {
	var w strings.Builder
	fmt.Fprintf(&w, `
## Joining a big room

A room of version %s with %d members on %d servers and %d events of state, served
by a Switchboard that was just started, is joined by a user of a fresh server;
then %d messages are sent in it. Everything runs on one machine: the server that
joins, the one that lets it in, those of the members, which publish their keys.
Verifying is one pass over the signatures of all events on all cores, with
nothing else running. Stored bytes are what the files of the database grow by,
indexes and all that belongs to it included. Rounds measured: %d; each figure is
the median.

`, p.join.version, p.join.members, puppetServers, p.join.state, p.join.messages, p.rounds)
	if p.date != "" {
		fmt.Fprintf(&w, "- measured on %s\n", p.date)
	}
	w.WriteString(p.machine)
	w.WriteString("- to repeat: `make bench ARGS=\"-only join\"`\n")
	for _, database := range p.databases {
		p.joinTable(&w, database)
	}
	return w.String() + "\n"
}

// joinTable writes the table of one database.
func (p page) joinTable(w *strings.Builder, database string) {
	fmt.Fprintf(w, "\n### On %s\n\n| |", titles[database])
	var columns [][]*joinReport
	for _, name := range p.servers {
		if reports := p.joined[subject{name, database}]; len(reports) > 0 {
			fmt.Fprintf(w, " %s |", strings.ToUpper(name[:1])+name[1:])
			columns = append(columns, reports)
		}
	}
	w.WriteString("\n|---|" + strings.Repeat("--:|", len(columns)) + "\n")
	for _, f := range joinFigures {
		fmt.Fprintf(w, "| %s |", f.name)
		for _, reports := range columns {
			fmt.Fprintf(w, " %s |", figure(median(reports, f.of)))
		}
		w.WriteString("\n")
	}
	for _, name := range p.servers {
		for _, r := range p.joined[subject{name, database}] {
			if r.Late != "" {
				fmt.Fprintf(w, "\n%s did not %s within %s.\n", strings.ToUpper(name[:1])+name[1:], r.Late, p.join.limit)
			}
		}
	}
}
