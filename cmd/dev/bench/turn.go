package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pion/stun/v3"

	"switchboard/cmd/dev/checkout"
	"switchboard/cmd/dev/child"
)

// turnSecret is what the relays share with the client of the load.
const turnSecret = "a secret of the comparison"

// turnFigures are what was measured of one relay.
type turnFigures struct {
	most     float64 // packets a second without loss
	cost     float64 // µs of processor time for each packet at turnRate
	costFull float64 // and at the most
	memory   float64 // KB for each allocation
	p50, p99 float64 // µs there and back
}

const (
	turnClients     = 20
	turnRate        = 10_000 // packets a second at which the costs are compared
	turnAllocations = 1000
	turnTime        = 4 * time.Second
	turnPorts       = 2000 // for relayed addresses of one server
)

// turnServer is a relay to measure.
type turnServer struct {
	name  string
	start func(dir string, port, first int) *exec.Cmd // first of its ports for relayed addresses
}

// turnRun is a relay that runs.
type turnRun struct {
	turnFigures
	name    string
	process *child.Process
	address string
	load    *turnLoad
	lost    bool // it has reached its limit
}

// compareTURN measures our relay and coturn in turn, and writes the medians.
func compareTURN(ctx context.Context, opts options, root, dir string) error {
	binary := filepath.Join(dir, "switchboard")
	if err := checkout.Build(ctx, root, "./cmd/switchboard", binary); err != nil {
		return err
	}
	coturn, err := exec.LookPath("turnserver")
	if err != nil {
		return fmt.Errorf("%w: it is in Debian's package coturn", err)
	}
	ours := func(more string) func(string, int, int) *exec.Cmd {
		return func(dir string, port, first int) *exec.Cmd {
			return switchboardRelay(binary, dir, port, first, more)
		}
	}
	servers := []turnServer{
		{"Switchboard", ours("")},
		{"Switchboard, one port", ours("one_port: ")},
		{"coturn", func(dir string, port, first int) *exec.Cmd { return coturnRelay(coturn, dir, port, first) }},
	}
	results := map[string][]turnFigures{}
	for round := range opts.rounds {
		fmt.Printf("== round %d of %d\n", round+1, opts.rounds)
		runs, err := measureTURN(ctx, servers, filepath.Join(dir, strconv.Itoa(round)))
		if err != nil {
			return err
		}
		for _, r := range runs {
			fmt.Printf("%s: %+v\n", r.name, r.turnFigures)
			results[r.name] = append(results[r.name], r.turnFigures)
		}
	}
	text := turnPage(opts, machine(ctx, root, nil), servers, results)
	fmt.Print(text)
	return replace(filepath.Join(root, opts.out), beginTurnMark, endTurnMark, text)
}

// switchboardRelay prepares our server, with nothing but the relay to do.
func switchboardRelay(binary, dir string, port, first int, more string) *exec.Cmd {
	if more != "" {
		free, err := child.FreePort()
		if err != nil {
			free = 49000
		}
		more = fmt.Sprintf("    %s%d\n", more, free)
	}
	config := fmt.Sprintf(`server_name: bench.example.org
data_dir: %s
listeners: [{address: "unix:%s"}]
log: {level: warn}
voip:
  provider: builtin
  turn:
    udp: ["127.0.0.1:%d"]
    tcp: []
    min_port: %d
    max_port: %d
    allow_peers: ["127.0.0.1/32"]
    user_quota: 5000
    total_quota: 5000
    max_bitrate: 0
    grace: 0s
    shared_secrets: [%q]
%s`, filepath.Join(dir, "data"), filepath.Join(dir, "http"), port, first, first+turnPorts-1, turnSecret, more)
	file := filepath.Join(dir, "switchboard.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil
	}
	return exec.Command(binary, "serve", "--config", file)
}

// coturnRelay prepares coturn with the same limits.
func coturnRelay(program, dir string, port, first int) *exec.Cmd {
	return exec.Command(program, "-n", "--use-auth-secret", "--static-auth-secret="+turnSecret, "-r", "bench.example.org",
		"-p", strconv.Itoa(port), "-L", "127.0.0.1", "-E", "127.0.0.1", "--allow-loopback-peers", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp",
		"--min-port", strconv.Itoa(first), "--max-port", strconv.Itoa(first+turnPorts-1), "--log-file", filepath.Join(dir, "log"), "--simple-log", "--pidfile", filepath.Join(dir, "pid"),
		"--userdb", filepath.Join(dir, "db"))
}

// measureTURN starts the relays, measures each thing of one after the other, so
// that what else the machine does meanwhile meets all of them, and stops them.
func measureTURN(ctx context.Context, servers []turnServer, dir string) (runs []*turnRun, err error) {
	defer func() {
		for _, r := range runs {
			if r.load != nil {
				r.load.close()
			}
			err = errors.Join(err, r.process.Stop(syscall.SIGKILL, time.Minute))
		}
	}()
	for i, s := range servers {
		r, err := startTURN(ctx, s, filepath.Join(dir, strconv.Itoa(i)), 24_000+i*turnPorts)
		if err != nil {
			return runs, fmt.Errorf("%s: %w", s.name, err)
		}
		runs = append(runs, r)
	}
	for _, r := range runs {
		if err := r.measureMemory(); err != nil {
			return runs, fmt.Errorf("%s: %w", r.name, err)
		}
		if r.load, err = newTURNLoad(r.address, turnSecret, turnClients); err != nil {
			return runs, fmt.Errorf("%s: %w", r.name, err)
		}
		r.load.send(ctx, turnRate, time.Second) // to warm up
	}
	for _, rate := range []int{turnRate, 15_000, 20_000, 30_000, 40_000, 50_000, 60_000, 80_000, 100_000, 130_000, 160_000, 200_000} {
		for _, r := range runs {
			r.measureCost(ctx, rate)
		}
	}
	for _, r := range runs {
		r.measureLatency(ctx)
	}
	return runs, ctx.Err()
}

// startTURN starts a relay and waits until it answers.
func startTURN(ctx context.Context, s turnServer, dir string, first int) (*turnRun, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	port, err := child.FreePort()
	if err != nil {
		return nil, err
	}
	cmd := s.start(dir, port, first)
	if cmd == nil {
		return nil, errors.New("its configuration could not be written")
	}
	cmd.Dir = dir
	r := &turnRun{name: s.name, address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	if r.process, err = child.Start(cmd, syscall.SIGKILL); err != nil {
		return nil, err
	}
	if err := awaitTURN(ctx, r.address); err != nil {
		return nil, errors.Join(err, r.process.Stop(syscall.SIGKILL, time.Minute))
	}
	return r, nil
}

// awaitTURN waits until a relay answers.
func awaitTURN(ctx context.Context, address string) error {
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(200 * time.Millisecond) {
		if c, err := dialTURN(address, turnSecret, -1); err == nil {
			c.conn.Close()
			return nil
		}
	}
	return errors.New("it does not answer")
}

// measureMemory holds many allocations at once.
func (r *turnRun) measureMemory() error {
	time.Sleep(2 * time.Second)
	before := residentKB(r.process.PID)
	var clients []*turnClient
	defer func() {
		for _, c := range clients {
			c.conn.Close()
		}
	}()
	for i := range turnAllocations {
		c, err := dialTURN(r.address, turnSecret, i)
		if err != nil {
			return fmt.Errorf("allocation %d: %w", i, err)
		}
		clients = append(clients, c)
	}
	time.Sleep(2 * time.Second)
	r.memory = float64(residentKB(r.process.PID)-before) / turnAllocations
	for _, c := range clients { // so that they are gone afterwards
		c.ask(stun.MethodRefresh, stun.RawAttribute{Type: stun.AttrLifetime, Value: make([]byte, 4)})
	}
	return nil
}

// measureCost sends packets at a rate, unless the relay has lost some at a lower
// one. It may lose some once, since the machine may be busy with something else.
func (r *turnRun) measureCost(ctx context.Context, rate int) {
	for attempt := 0; attempt < 2 && !r.lost; attempt++ {
		arrived, cpu := r.load.arrived.Load(), processorTime(r.process.PID)
		sent := r.load.send(ctx, rate, turnTime)
		got := r.load.arrived.Load() - arrived
		cost := float64(processorTime(r.process.PID)-cpu) / float64(time.Microsecond) / float64(max(got, 1))
		fmt.Printf("   %6d/s: %d of %d arrive, %.2f µs each: %s\n", rate, got, sent, cost, r.name)
		if rate == turnRate {
			r.cost = cost
		}
		if got == sent {
			r.most, r.costFull = float64(rate), cost
			return
		}
		r.lost = attempt == 1
	}
}

// measureLatency sends a few packets there and back.
func (r *turnRun) measureLatency(ctx context.Context) {
	r.load.echo.Store(true)
	r.load.latencies()
	r.load.send(ctx, 1000, turnTime)
	all := r.load.latencies()
	r.p50 = float64(quantile(all, .5)) / float64(time.Microsecond)
	r.p99 = float64(quantile(all, .99)) / float64(time.Microsecond)
}

// turnPage is what is written.
func turnPage(opts options, machine string, servers []turnServer, results map[string][]turnFigures) string {
	var w strings.Builder
	fmt.Fprintf(&w, `
## Relaying calls, beside coturn

%d clients send packets of %d bytes over UDP through a channel to a peer; all of it
runs on one machine, over its loopback interface. Rounds measured: %d; each figure is
the median. In a round all relays run, and each rate is sent to one after the other,
by the same client.

`, turnClients, payload, opts.rounds)
	if opts.date != "" {
		fmt.Fprintf(&w, "- measured on %s\n", opts.date)
	}
	w.WriteString(machine)
	w.WriteString("- to repeat: `nice -n -15 make bench ARGS=\"-only turn\"`\n\n|")
	for _, s := range servers {
		fmt.Fprintf(&w, " | %s", s.name)
	}
	w.WriteString(" |\n|---" + strings.Repeat("|--:", len(servers)) + "|\n")
	for _, row := range []struct {
		name string
		of   func(turnFigures) float64
	}{
		{"packets a second without loss", func(f turnFigures) float64 { return f.most }},
		{"processor time for a packet at 10,000/s, µs", func(f turnFigures) float64 { return f.cost }},
		{"the same at the most, µs", func(f turnFigures) float64 { return f.costFull }},
		{"memory for an allocation, at 1,000 of them, KB", func(f turnFigures) float64 { return f.memory }},
		{"there and back at 1,000/s, p50, µs", func(f turnFigures) float64 { return f.p50 }},
		{"there and back at 1,000/s, p99, µs", func(f turnFigures) float64 { return f.p99 }},
	} {
		fmt.Fprintf(&w, "| %s", row.name)
		for _, s := range servers {
			fmt.Fprintf(&w, " | %s", figure(median(results[s.name], row.of)))
		}
		w.WriteString(" |\n")
	}
	return w.String() + "\n"
}
