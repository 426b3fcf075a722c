// Command withpostgres runs a command with a PostgreSQL of its own:
//
//	withpostgres go test ./...
//
// The command finds the URL of the cluster, where it may create databases, in
// SWITCHBOARD_TEST_POSTGRES. When that variable is set already, the command
// just runs. The cluster and its files are gone when the command has ended,
// and the exit status is the command's.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"switchboard/cmd/dev/postgres"
)

// variable tells tests where PostgreSQL is.
const variable = "SWITCHBOARD_TEST_POSTGRES"

func main() {
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "withpostgres:", err)
	}
	os.Exit(status)
}

// run starts the cluster and the command, and returns the command's exit
// status.
func run(args []string) (int, error) {
	if len(args) == 0 {
		return 2, errors.New("usage: withpostgres command [argument ...]")
	}
	// A signal ends the command, not this process, which has to clean up.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)

	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if os.Getenv(variable) == "" {
		cluster, err := start(signals)
		if err != nil {
			return 1, err
		}
		defer stop(cluster)
		cmd.Env = append(os.Environ(), variable+"="+cluster.URL("postgres"))
	}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			cmd.Process.Signal(s)
		case err := <-ended:
			return exitStatus(err)
		}
	}
}

// stop stops the cluster. What goes wrong is worth a line, but the exit status
// stays the command's.
func stop(c *postgres.Cluster) {
	if err := c.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "withpostgres:", err)
	}
}

// start starts a cluster, unless a signal comes first.
func start(signals <-chan os.Signal) (*postgres.Cluster, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type result struct {
		cluster *postgres.Cluster
		err     error
	}
	started := make(chan result, 1)
	go func() {
		c, err := postgres.Start(ctx, postgres.Options{})
		started <- result{c, err}
	}()
	select {
	case r := <-started:
		return r.cluster, r.err
	case s := <-signals:
		cancel()
		r := <-started
		if r.cluster != nil {
			r.err = r.cluster.Stop()
		}
		return nil, errors.Join(fmt.Errorf("stopped by %v", s), r.err)
	}
}

// exitStatus turns the result of a command into an exit status, in the manner
// of a shell. The error is nil unless the command could not be waited for.
func exitStatus(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return 1, err
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return exit.ExitCode(), nil
}
