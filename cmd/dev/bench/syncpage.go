package main

import (
	"fmt"
	"strings"
)

// syncFigures are the rows of the tables about syncs: first those of the account
// whose rooms are made through the API.
var syncFigures = map[string][]struct {
	name string
	of   func(*syncReport) float64
}{
	"made": {
		{"initial /sync, ms", func(r *syncReport) float64 { return r.Initial }},
		{"the first one after a start, ms", func(r *syncReport) float64 { return r.Cold }},
		{"processor time of the server for one, ms", func(r *syncReport) float64 { return r.InitialCPU }},
	},
	"crowd": {
		{"first 20 rooms by sliding sync, ms", func(r *syncReport) float64 { return r.List }},
		{"the first time after a start and an initial /sync, ms", func(r *syncReport) float64 { return r.ColdList }},
		{"processor time of the server for them, ms", func(r *syncReport) float64 { return r.ListCPU }},
		{"initial /sync, ms", func(r *syncReport) float64 { return r.Initial }},
		{"the first one after a start, ms", func(r *syncReport) float64 { return r.Cold }},
		{"wake-up, CPU ms: " + wakeKinds[0], func(r *syncReport) float64 { return r.Wakes[0] }},
		{"wake-up, CPU ms: " + wakeKinds[1], func(r *syncReport) float64 { return r.Wakes[1] }},
		{"wake-up, CPU ms: " + wakeKinds[2], func(r *syncReport) float64 { return r.Wakes[2] }},
		{"wake-up, CPU ms: " + wakeKinds[3], func(r *syncReport) float64 { return r.Wakes[3] }},
		{"memory of the server at the end, MB", func(r *syncReport) float64 { return r.Memory }},
	},
}

// syncs are the tables about syncs, in Markdown.
func (p page) syncs() string {
	var w strings.Builder
	fmt.Fprintf(&w, `
## An account in many rooms

An account in %d rooms syncs. Rounds measured: %d; each figure is the median. In a
round each server is started anew over the same data; each time is that of the
client, on the same machine. The members of rooms load lazily, and timelines have up
to 20 events. A wake-up is one answer to a client that waits: the processor time of
the server, without PostgreSQL's, for sending %d messages to %d clients that wait, or
%d of the account in many rooms, less that for as many messages that nobody waits for.

`, p.sync.rooms, p.rounds, p.sync.sends, waiters, wideWaiters)
	if p.date != "" {
		fmt.Fprintf(&w, "- measured on %s\n", p.date)
	}
	w.WriteString(p.machine)
	w.WriteString("- to repeat: `make bench ARGS=\"-only sync\"`\n\n")
	fmt.Fprintf(&w, "The same rooms on each server, made through the client API: a name and %d messages in each.\n\n", p.sync.messages)
	p.syncTable(&w, "made")
	fmt.Fprintf(&w, "\nSwitchboard alone, with 10 to 300 members and 10 to 100 messages in each room, some %d events:\n\n", p.crowded)
	p.syncTable(&w, "crowd")
	return w.String() + "\n"
}

// syncTable writes the table of one kind of data.
func (p page) syncTable(w *strings.Builder, data string) {
	w.WriteString("| |")
	var columns [][]*syncReport
	for _, database := range p.databases {
		for _, name := range p.servers {
			if reports := p.synced[syncKey{subject{name, database}, data}]; len(reports) > 0 {
				fmt.Fprintf(w, " %s, %s |", strings.ToUpper(name[:1])+name[1:], titles[database])
				columns = append(columns, reports)
			}
		}
	}
	w.WriteString("\n|---|" + strings.Repeat("--:|", len(columns)) + "\n")
	for _, f := range syncFigures[data] {
		fmt.Fprintf(w, "| %s |", f.name)
		for _, reports := range columns {
			fmt.Fprintf(w, " %s |", figure(median(reports, f.of)))
		}
		w.WriteString("\n")
	}
}
