// Command bench compares this checkout's Switchboard with Dendrite: the same
// load on both, in turn, on the same machine, on SQLite and on PostgreSQL. It
// writes the medians of several rounds into docs/performance.md. With -only join
// it lets them, and Synapse, join a big room that a Switchboard serves instead.
// With -only sync it measures the syncs of an account in many rooms. With -only
// turn it compares the relay of calls with coturn's.
//
//	go run ./cmd/dev/bench [-rounds 3] [-date 2026-01-31] [-o file] [-only join|sync|turn]
//
// Dendrite is built from the Go module proxy, once, into .cache of the
// checkout. Its SQLite needs a C compiler.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"switchboard/cmd/dev/checkout"
	"switchboard/cmd/dev/load"
	"switchboard/cmd/dev/peers"
	"switchboard/cmd/dev/postgres"
)

// options are the command line.
type options struct {
	rounds    int
	servers   []string
	databases []string
	out       string
	date      string
	sends     int
	parallel  int
	members   int
	only      string
	join      joinOptions
	sync      syncOptions
}

func main() {
	var opts options
	flag.IntVar(&opts.rounds, "rounds", 3, "how often everything is measured")
	flag.StringVar(&opts.only, "only", "load", "`what` to measure: load, join, sync, or turn")
	servers := flag.String("servers", "", "which servers of switchboard, dendrite and synapse, the last one only for the join; with one alone, nothing is written")
	databases := flag.String("databases", "sqlite,postgres", "on which databases")
	flag.StringVar(&opts.out, "o", "docs/performance.md", "`file` to write into")
	flag.StringVar(&opts.date, "date", "", "`date` to write beside the figures")
	flag.IntVar(&opts.sends, "sends", 4000, "messages in the largest send phase")
	flag.IntVar(&opts.parallel, "parallel", 32, "concurrent senders")
	flag.IntVar(&opts.members, "members", 300, "members of the big room")
	flag.IntVar(&opts.join.members, "join-members", 20_000, "members of the room that is joined")
	flag.IntVar(&opts.join.state, "join-state", 60_000, "events of its state, members included")
	flag.IntVar(&opts.join.messages, "join-messages", 10_000, "messages that follow")
	flag.StringVar(&opts.join.version, "join-version", "11", "its `version`")
	flag.DurationVar(&opts.join.limit, "join-limit", 20*time.Minute, "how long one join may take, and its messages")
	flag.IntVar(&opts.sync.rooms, "sync-rooms", 2000, "rooms of the account that syncs")
	flag.IntVar(&opts.sync.messages, "sync-messages", 1, "messages in each, where they are made through the API")
	flag.IntVar(&opts.sync.sends, "sync-sends", 100, "messages that wake clients")
	flag.Parse()
	if *servers == "" {
		*servers = map[string]string{"load": "switchboard,dendrite", "sync": "switchboard,dendrite", "join": "switchboard,dendrite,synapse"}[opts.only]
	}
	opts.servers, opts.databases = strings.Split(*servers, ","), strings.Split(*databases, ",")

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, opts)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures and writes.
func run(ctx context.Context, opts options) error {
	root, err := checkout.Root()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "switchboard-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if opts.only == "turn" {
		return compareTURN(ctx, opts, root, dir)
	}
	b := &bench{
		options: opts, dir: dir, hsload: filepath.Join(dir, "hsload"),
		results: map[subject][]*load.Report{}, joined: map[subject][]*joinReport{}, synced: map[syncKey][]*syncReport{},
	}
	if err := checkout.Build(ctx, root, "./cmd/dev/hsload", b.hsload); err != nil {
		return err
	}
	for _, name := range opts.servers {
		s, err := build(ctx, name, root, dir)
		if err != nil {
			return err
		}
		b.servers = append(b.servers, s)
	}
	if slices.Contains(opts.databases, "postgres") {
		b.cluster, err = postgres.Start(ctx, postgres.Options{Durable: opts.only != "sync"})
		if err != nil {
			return err
		}
		defer b.cluster.Stop()
	}
	measure := b.measure
	switch opts.only {
	case "sync":
		measure = b.measureSyncs
	case "join":
		if b.resident, err = build(ctx, "switchboard", root, dir); err != nil {
			return err
		}
		measure = b.measureJoins
	}
	if err := measure(ctx); err != nil {
		return err
	}
	p := page{options: opts, results: b.results, joined: b.joined, synced: b.synced, crowded: b.crowded, machine: machine(ctx, root, b.cluster)}
	if len(opts.servers) < 2 {
		fmt.Print(p.figures())
		return nil
	}
	return p.write(filepath.Join(root, opts.out))
}

// subject is what one measurement is of.
type subject struct{ server, database string }

// bench is a comparison in progress.
type bench struct {
	options
	dir     string
	hsload  string
	servers []peers.Program
	cluster *postgres.Cluster // nil without PostgreSQL
	results map[subject][]*load.Report
	runs    int

	resident peers.Program // serves the room that is joined
	host     *load.Account // its user in the room
	joined   map[subject][]*joinReport

	synced  map[syncKey][]*syncReport
	crowded int64 // events of a crowd
}

// measureJoins lets every server join, in turn.
func (b *bench) measureJoins(ctx context.Context) error {
	for round := range b.rounds {
		for _, database := range b.databases {
			fmt.Printf("\n== round %d of %d: joins on %s\n", round+1, b.rounds, database)
			if err := b.joins(ctx, database); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure puts the load on every server, in turn.
func (b *bench) measure(ctx context.Context) error {
	for round := range b.rounds {
		for _, database := range b.databases {
			for _, s := range b.servers {
				fmt.Printf("\n== round %d of %d: %s on %s\n", round+1, b.rounds, s.Name(), database)
				start := time.Now()
				r, err := b.once(ctx, s, database)
				if err != nil {
					return fmt.Errorf("%s on %s: %w", s.Name(), database, err)
				}
				key := subject{s.Name(), database}
				b.results[key] = append(b.results[key], r)
				fmt.Printf("== %s\n", time.Since(start).Round(time.Second))
			}
		}
	}
	return nil
}

// once starts a server with nothing in it, puts the load on it and stops it.
func (b *bench) once(ctx context.Context, s peers.Program, database string) (*load.Report, error) {
	dir, url, err := b.place(ctx, database)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	server, err := peers.New(ctx, s, peers.Options{Dir: dir, Database: url})
	if err != nil {
		return nil, err
	}
	if err := server.Start(ctx); err != nil {
		return nil, err
	}
	report, err := b.load(ctx, server)
	if stopErr := server.Stop(syscall.SIGTERM); err == nil && stopErr != nil {
		err = stopErr
	}
	return report, err
}
