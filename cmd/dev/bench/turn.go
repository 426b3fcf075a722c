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
)

// turnServer is a relay to measure.
type turnServer struct {
	name  string
	start func(dir string, port int) *exec.Cmd
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
	ours := func(more string) func(string, int) *exec.Cmd {
		return func(dir string, port int) *exec.Cmd { return switchboardRelay(binary, dir, port, more) }
	}
	servers := []turnServer{
		{"Switchboard", ours("")},
		{"Switchboard, one port", ours("one_port: ")},
		{"coturn", func(dir string, port int) *exec.Cmd { return coturnRelay(coturn, dir, port) }},
	}
	results := map[string][]turnFigures{}
	for round := range opts.rounds {
		for _, s := range servers {
			fmt.Printf("== round %d of %d: %s\n", round+1, opts.rounds, s.name)
			f, err := measureTURN(ctx, s, filepath.Join(dir, fmt.Sprintf("%d-%s", round, strings.ReplaceAll(s.name, " ", ""))))
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			fmt.Printf("%+v\n", f)
			results[s.name] = append(results[s.name], f)
		}
	}
	text := turnPage(opts, machine(ctx, root, nil), servers, results)
	fmt.Print(text)
	return replace(filepath.Join(root, opts.out), beginTurnMark, endTurnMark, text)
}

// switchboardRelay prepares our server, with nothing but the relay to do.
func switchboardRelay(binary, dir string, port int, more string) *exec.Cmd {
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
    min_port: 30000
    max_port: 32000
    allow_peers: ["127.0.0.1/32"]
    user_quota: 5000
    total_quota: 5000
    max_bitrate: 0
    grace: 0s
    shared_secrets: [%q]
%s`, filepath.Join(dir, "data"), filepath.Join(dir, "http"), port, turnSecret, more)
	file := filepath.Join(dir, "switchboard.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil
	}
	return exec.Command(binary, "serve", "--config", file)
}

// coturnRelay prepares coturn with the same limits.
func coturnRelay(program, dir string, port int) *exec.Cmd {
	return exec.Command(program, "-n", "--use-auth-secret", "--static-auth-secret="+turnSecret, "-r", "bench.example.org",
		"-p", strconv.Itoa(port), "-L", "127.0.0.1", "-E", "127.0.0.1", "--allow-loopback-peers", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp",
		"--min-port", "30000", "--max-port", "32000", "--log-file", filepath.Join(dir, "log"), "--simple-log", "--pidfile", filepath.Join(dir, "pid"),
		"--userdb", filepath.Join(dir, "db"))
}

// measureTURN starts a relay, measures it and stops it.
func measureTURN(ctx context.Context, s turnServer, dir string) (f turnFigures, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return f, err
	}
	port, err := child.FreePort()
	if err != nil {
		return f, err
	}
	cmd := s.start(dir, port)
	if cmd == nil {
		return f, errors.New("its configuration could not be written")
	}
	cmd.Dir = dir
	p, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, p.Stop(syscall.SIGKILL, time.Minute)) }()
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if err := awaitTURN(ctx, address); err != nil {
		return f, err
	}
	if err := f.measureMemory(address, cmd.Process.Pid); err != nil {
		return f, err
	}
	load, err := newTURNLoad(address, turnSecret, turnClients)
	if err != nil {
		return f, err
	}
	defer load.close()
	f.measureCost(ctx, load, cmd.Process.Pid)
	f.measureLatency(ctx, load)
	return f, ctx.Err()
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
func (f *turnFigures) measureMemory(address string, pid int) error {
	time.Sleep(2 * time.Second)
	before := residentKB(pid)
	var clients []*turnClient
	defer func() {
		for _, c := range clients {
			c.conn.Close()
		}
	}()
	for i := range turnAllocations {
		c, err := dialTURN(address, turnSecret, i)
		if err != nil {
			return fmt.Errorf("allocation %d: %w", i, err)
		}
		clients = append(clients, c)
	}
	time.Sleep(2 * time.Second)
	f.memory = float64(residentKB(pid)-before) / turnAllocations
	for _, c := range clients { // so that they are gone afterwards
		c.ask(stun.MethodRefresh, stun.RawAttribute{Type: stun.AttrLifetime, Value: make([]byte, 4)})
	}
	return nil
}

// measureCost raises the rate until packets are lost.
func (f *turnFigures) measureCost(ctx context.Context, load *turnLoad, pid int) {
	load.send(ctx, turnRate, time.Second) // to warm up
	for _, rate := range []int{turnRate, 15_000, 20_000, 30_000, 40_000, 50_000, 60_000, 80_000, 100_000, 130_000, 160_000, 200_000} {
		arrived, cpu := load.arrived.Load(), processorTime(pid)
		start := time.Now()
		sent := load.send(ctx, rate, turnTime)
		got := load.arrived.Load() - arrived
		cost := float64(processorTime(pid)-cpu) / float64(time.Microsecond) / float64(max(got, 1))
		if rate == turnRate {
			f.cost = cost
		}
		fmt.Printf("   %6d/s: %d of %d arrive, %.2f µs each, in %s\n", rate, got, sent, cost, time.Since(start).Round(time.Second))
		if got < sent {
			return
		}
		f.most, f.costFull = float64(rate), cost
	}
}

// measureLatency sends a few packets there and back.
func (f *turnFigures) measureLatency(ctx context.Context, load *turnLoad) {
	load.echo.Store(true)
	load.latencies()
	load.send(ctx, 1000, turnTime)
	all := load.latencies()
	f.p50 = float64(quantile(all, .5)) / float64(time.Microsecond)
	f.p99 = float64(quantile(all, .99)) / float64(time.Microsecond)
}

// turnPage is what is written.
func turnPage(opts options, machine string, servers []turnServer, results map[string][]turnFigures) string {
	var w strings.Builder
	fmt.Fprintf(&w, `
## Relaying calls, beside coturn

%d clients send packets of %d bytes over UDP through a channel to a peer; all of it
runs on one machine, over its loopback interface. Rounds measured: %d; each figure is
the median. In a round the relays were measured in turn, by the same client.

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
