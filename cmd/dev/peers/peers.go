// Package peers installs and runs homeservers for tests and measurements: this
// checkout's Switchboard, Dendrite and Synapse. Each serves the loopback
// interface alone, under a name of its own, with its data in one directory; who
// knows Secret may register. They federate through TLS with certificates of an
// Authority that is made for the purpose. It knows how they are configured and
// nothing of what they are asked.
package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"switchboard/cmd/dev/child"
)

// Secret opens registration on every server.
const Secret = "shared-secret-of-tests"

// patience is how long a server may take to start or to stop.
const patience = 2 * time.Minute

// alone is the name of a server that federates with nobody.
const alone = "localhost"

// Program is a homeserver program, ready to run.
type Program interface {
	// Name is how tables and tests call it.
	Name() string

	// command writes a configuration with no rate limits and returns the
	// command that serves with it.
	command(ctx context.Context, p place) (*exec.Cmd, error)
}

// Options say where and how a server runs.
type Options struct {
	// Dir is a directory for everything that the server writes: empty, or with
	// what an earlier one of the same program has left.
	Dir string

	// Database is the URL of an empty PostgreSQL database, "" for SQLite in
	// Dir.
	Database string

	// Host is the address that the server listens at, "" for 127.0.0.1. Linux
	// has all of 127.0.0.0/8 on the loopback interface.
	Host string

	// Appservices are the registration files of bridges and bots.
	Appservices []string

	// Bridges is the section of that name, for Switchboard alone.
	Bridges map[string]any

	// Authority signs the certificate for federation. Without one the server
	// is called localhost and federates with nobody.
	Authority *Authority
}

// place is what a server is configured for.
type place struct {
	Options
	name   string // of the server
	client string // host and port of the client API, without TLS
	tls    *endpoint
}

// endpoint is where a server federates, with TLS.
type endpoint struct {
	host      string
	port      int
	ca        string // PEM file of the authority
	cert, key string // PEM files
}

func (e *endpoint) address() string { return net.JoinHostPort(e.host, strconv.Itoa(e.port)) }

// Server is a homeserver that can be started, stopped and started again over
// the same data.
type Server struct {
	// Name is the server's name, the part of user IDs behind the colon.
	Name string

	// URL is the address of the client API, without a slash at its end.
	URL string

	cmd     *exec.Cmd // never started itself
	log     child.Output
	process *child.Process
}

// New configures a server.
func New(ctx context.Context, program Program, opts Options) (*Server, error) {
	if opts.Host == "" {
		opts.Host = "127.0.0.1"
	}
	port, err := child.FreePort()
	if err != nil {
		return nil, err
	}
	p := place{Options: opts, name: alone, client: net.JoinHostPort(opts.Host, strconv.Itoa(port))}
	if opts.Authority != nil {
		if p.tls, err = opts.Authority.endpoint(opts.Host, opts.Dir); err != nil {
			return nil, err
		}
		p.name = p.tls.address() // what needs no discovery
	}
	cmd, err := program.command(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("configure %s: %w", program.Name(), err)
	}
	cmd.Dir = opts.Dir
	return &Server{Name: p.name, URL: "http://" + p.client, cmd: cmd}, nil
}

// Start starts the server and returns once it answers.
func (s *Server) Start(ctx context.Context) error {
	cmd := exec.Command(s.cmd.Path, s.cmd.Args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.cmd.Dir, s.cmd.Env, &s.log, &s.log
	process, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return err
	}
	s.process = process
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if s.answers(ctx) {
			return nil
		}
		select {
		case <-process.Exited():
			return fmt.Errorf("the server ended: %w\n%s", process.Err(), s.Log())
		case <-ctx.Done():
			process.Stop(syscall.SIGKILL, time.Second)
			return fmt.Errorf("the server does not answer: %w\n%s", ctx.Err(), s.Log())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// answers tells whether the server answers clients, and listens to other servers.
func (s *Server) answers(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/_matrix/client/versions", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || s.Name == alone {
		return resp.StatusCode == http.StatusOK
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.Name)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// PID is the process ID of the server, which has been started.
func (s *Server) PID() int { return s.process.PID }

// Stop ends the server with a signal and waits for its end.
func (s *Server) Stop(signal syscall.Signal) error { return s.process.Stop(signal, patience) }

// Log returns what the server has written so far to its output.
func (s *Server) Log() string { return s.log.String() }

// output runs a command and returns what it prints; its complaints are part of
// the error.
func output(cmd *exec.Cmd) ([]byte, error) {
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, exit.Stderr)
	}
	return out, err
}
