// Package postgres runs a private PostgreSQL cluster for tests and
// measurements: in a temporary directory, on a free port of the loopback
// interface, with a password of its own. It knows no SQL and no schema, and it
// leaves nothing behind.
package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"switchboard/cmd/dev/child"
)

// superuser is the role that the cluster's URLs log in as.
const superuser = "postgres"

// patience is how long a cluster may take to start or to stop, also on a machine
// that does much else.
const patience = 5 * time.Minute

// Cluster is a running PostgreSQL server. Stop ends it and removes its files.
type Cluster struct {
	bin      string // directory of the server's programs
	dir      string // everything that the cluster writes
	port     int
	password string
	account  *syscall.Credential // who runs the server; nil for the user of this process
	log      *bytes.Buffer       // read only once process has ended
	process  *child.Process
}

// Options say what a cluster is for.
type Options struct {
	// Durable makes every commit reach the disk, as in production. Without it
	// the cluster forgets everything in a power cut, and is faster.
	Durable bool
}

// Start makes a cluster and returns once it accepts connections. The error
// names what is missing when there are no PostgreSQL programs on the machine.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	account, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "switchboard-postgres-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		bin: bin, dir: dir, password: rand.Text(), account: account,
		log: new(bytes.Buffer),
	}
	if account != nil {
		err = os.Chown(dir, int(account.Uid), int(account.Gid))
	}
	if err == nil {
		err = c.initialize(ctx)
	}
	if err == nil {
		err = c.serve(ctx, opts)
	}
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	return c, nil
}

// programs returns the directory of the newest PostgreSQL on this machine.
// Debian keeps the programs of the server outside PATH.
func programs() (string, error) {
	newest, dir := 0, ""
	paths, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	for _, path := range paths {
		bin := filepath.Dir(path)
		if version, err := strconv.Atoi(filepath.Base(filepath.Dir(bin))); err == nil && version > newest {
			newest, dir = version, bin
		}
	}
	if dir != "" {
		return dir, nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errors.New("no PostgreSQL server programs (initdb): install the Debian package postgresql, or set SWITCHBOARD_TEST_POSTGRES to the URL of a server where databases may be created")
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return filepath.Dir(path), nil
}

// unprivileged returns the account that the server runs as. PostgreSQL refuses
// to run as root, so for root it is postgres or, without that, nobody.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

// command prepares one of PostgreSQL's programs to run in the cluster's
// directory, as the cluster's account and away from the terminal's Ctrl-C.
func (c *Cluster) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, program), args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "HOME="+c.dir, "PGPASSWORD="+c.password, "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.account}
	return cmd
}

// initialize makes the files of the cluster.
func (c *Cluster) initialize(ctx context.Context) error {
	secret := filepath.Join(c.dir, "password")
	if err := os.WriteFile(secret, []byte(c.password+"\n"), 0o600); err != nil {
		return err
	}
	if c.account != nil {
		if err := os.Chown(secret, int(c.account.Uid), int(c.account.Gid)); err != nil {
			return err
		}
	}
	out, err := c.command(ctx, "initdb", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8",
		"--auth=scram-sha-256", "--username="+superuser, "--pwfile="+secret,
		"--pgdata="+c.data()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// serve starts the server on a free port. Another process may take the port in
// between, so it tries more than one.
func (c *Cluster) serve(ctx context.Context, opts Options) error {
	var err error
	for range 5 {
		if c.port, err = child.FreePort(); err != nil {
			return err
		}
		if err = c.launch(opts); err != nil {
			return err
		}
		if err = c.ready(ctx); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

// launch starts the server process, which dies with this one.
func (c *Cluster) launch(opts Options) error {
	settings := []string{
		"listen_addresses=127.0.0.1", "port=" + strconv.Itoa(c.port), "unix_socket_directories=",
		"max_connections=300", "shared_buffers=128MB", "log_min_messages=fatal", "authentication_timeout=10min",
	}
	if !opts.Durable {
		settings = append(settings, "fsync=off", "synchronous_commit=off", "full_page_writes=off")
	}
	args := []string{"-D", c.data()}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	cmd := c.command(context.Background(), "postgres", args...)
	c.log.Reset()
	cmd.Stdout, cmd.Stderr = c.log, c.log
	var err error
	c.process, err = child.Start(cmd, syscall.SIGINT) // "fast shutdown"
	return err
}

// ready waits until the server answers. It stops a server that does not.
func (c *Cluster) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		probe := c.command(ctx, "pg_isready", "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(c.port))
		if probe.Run() == nil {
			return nil
		}
		select {
		case <-c.process.Exited():
			return fmt.Errorf("the server ended: %s", bytes.TrimSpace(c.log.Bytes()))
		case <-ctx.Done():
			c.process.Stop(syscall.SIGQUIT, time.Second) // "immediate shutdown"
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// URL returns the address of one of the cluster's databases, with the name and
// password of a superuser. The database "postgres" always exists.
func (c *Cluster) URL(database string) string {
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/%s?sslmode=disable", superuser, c.password, c.port, database)
}

// CreateDatabase makes an empty database.
func (c *Cluster) CreateDatabase(ctx context.Context, name string) error {
	out, err := c.command(ctx, "createdb", "-h", "127.0.0.1", "-p", strconv.Itoa(c.port), "-U", superuser, name).CombinedOutput()
	if err != nil {
		return fmt.Errorf("create database %s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// Version returns what the server says about itself, for example
// "postgres (PostgreSQL) 15.8".
func (c *Cluster) Version(ctx context.Context) (string, error) {
	out, err := c.command(ctx, "postgres", "--version").Output()
	return string(bytes.TrimSpace(out)), err
}

// Stop ends the server at once, whoever is still connected, and removes the
// cluster's files.
func (c *Cluster) Stop() error {
	return errors.Join(c.process.Stop(syscall.SIGINT, patience), os.RemoveAll(c.dir))
}

// Size returns how many bytes a database takes on the disk.
func (c *Cluster) Size(ctx context.Context, database string) (float64, error) {
	out, err := c.command(ctx, "psql", "-h", "127.0.0.1", "-p", strconv.Itoa(c.port), "-U", superuser, "-Atc", "SELECT pg_database_size(current_database())", database).Output()
	if err != nil {
		return 0, fmt.Errorf("size of database %s: %w", database, err)
	}
	return strconv.ParseFloat(string(bytes.TrimSpace(out)), 64)
}
