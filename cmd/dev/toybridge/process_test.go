package toybridge

import (
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
	"maunium.net/go/mautrix/id"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"switchboard/cmd/dev/checkout"
	"switchboard/cmd/dev/child"
	"switchboard/cmd/dev/peers"
)

// patience is how long anything may take that must happen. A bridge waits a minute
// before it looks for the past of a new room.
const patience = 4 * time.Minute

// secret opens the provisioning API of the bridge.
const secret = "provisioning-secret-of-tests"

// build makes the program as the authors of bridges do.
func build(t *testing.T) string {
	t.Helper()
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "toybridge")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags", "goolm", "-o", path, ".")
	cmd.Dir = filepath.Join(root, "cmd", "dev", "toybridge", "bridge")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// bridge is the program with a configuration.
type bridge struct {
	t       *testing.T
	binary  string
	dir     string
	address string // of its own HTTP listener
	log     child.Output
	process *child.Process
}

// noted tells whether the bridge has written down all of some events. One that it
// has only sent to the network, it takes for one of the network when it starts again.
func (b *bridge) noted(events []id.EventID) bool {
	b.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.dir, "toy.db")+"?mode=ro")
	if err != nil {
		b.t.Fatal(err)
	}
	defer db.Close()
	for _, e := range events {
		var n int
		if db.QueryRowContext(b.t.Context(), `SELECT count(*) FROM message WHERE mxid = $1`, string(e)).Scan(&n) != nil || n == 0 {
			return false
		}
	}
	return true
}

// object is a section of a configuration.
type object = map[string]any

// newBridge prepares a bridge in a folder of its own. Sections of more replace
// those that every bridge has here.
func newBridge(t *testing.T, binary string, server *peers.Server, n *network, more object) *bridge {
	t.Helper()
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	b := &bridge{t: t, binary: binary, dir: t.TempDir(), address: fmt.Sprintf("http://127.0.0.1:%d", port)}
	const generated = "This value is generated when generating the registration"
	config := object{
		"homeserver": object{"address": server.URL, "domain": server.Name},
		"appservice": object{
			"address": b.address, "hostname": "127.0.0.1", "port": port, "id": "toy", "bot": object{"username": "toybot"},
			"username_template": "toy_{{.}}", "ephemeral_events": true, "as_token": generated, "hs_token": generated,
		},
		"database":     object{"type": "sqlite3-fk-wal", "uri": "file:toy.db?_txlock=immediate"},
		"bridge":       object{"permissions": object{server.Name: "user"}},
		"network":      object{"address": n.address},
		"provisioning": object{"shared_secret": secret},
		"backfill": object{
			"enabled": true, "max_initial_messages": 100, "max_catchup_messages": 500, "unread_hours_threshold": 0,
			"queue": object{"enabled": true, "batch_size": 250, "batch_delay": 1, "max_batches": -1},
		},
		"logging": object{"min_level": "debug", "writers": []object{{"type": "stdout", "format": "json"}}},
	}
	for name, section := range more {
		config[name] = section
	}
	text, err := yaml.Marshal(config)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.dir, "config.yaml"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b.process != nil {
			b.process.Stop(syscall.SIGKILL, time.Minute)
		}
		if t.Failed() {
			log := b.log.String()
			t.Logf("the bridge's log:\n%s", log[max(0, len(log)-40_000):])
		}
	})
	return b
}

// register writes the registration file for the homeserver, as the bridge wants it.
func (b *bridge) register(file string) {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), b.binary, "-g", "-c", "config.yaml", "-r", file)
	cmd.Dir = b.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("generate the registration: %v\n%s", err, out)
	}
}

// start starts the bridge and returns when it is ready.
func (b *bridge) start() {
	b.t.Helper()
	cmd := exec.Command(b.binary, "-c", "config.yaml")
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.dir, &b.log, &b.log
	process, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		b.t.Fatal(err)
	}
	b.process = process
	eventually(b.t, "the bridge is ready", func() bool {
		select {
		case <-process.Exited():
			b.t.Fatalf("the bridge ended: %v", process.Err())
		default:
		}
		r, err := http.Get(b.address + "/_matrix/mau/ready")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}

// stop ends the bridge.
func (b *bridge) stop(signal syscall.Signal) {
	b.t.Helper()
	if err := b.process.Stop(signal, patience); err != nil {
		b.t.Fatal(err)
	}
}

// logIn logs a user in to the network, through the provisioning API.
func (b *bridge) logIn(user string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.address+"/_matrix/provision/v3/login/start/nothing?user_id="+user, strings.NewReader("{}"))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	a.Body.Close()
	if a.StatusCode != http.StatusOK {
		b.t.Fatalf("log in: %s", a.Status)
	}
}

// eventually fails the test if cond does not become true.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("waited in vain: %s", what)
}
