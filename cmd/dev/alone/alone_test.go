package alone

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
	"maunium.net/go/mautrix/synapseadmin"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/cmd/dev/checkout"
	"switchboard/cmd/dev/child"
	"switchboard/cmd/dev/instance"
	"switchboard/cmd/dev/peers"
	"switchboard/homeserver/database/databasetest"
)

// TestAlone runs every bridge beside every homeserver.
func TestAlone(t *testing.T) {
	binary := instance.Binary(t)
	beside := func(name string, program peers.Program, database func(testing.TB) string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			talk(t, binary, program, database(t))
		})
	}
	file := func(testing.TB) string { return "" }
	beside("switchboard", peers.Switchboard(binary), file)
	beside("postgres", peers.Switchboard(binary), databasetest.PostgreSQL)
	if !strings.Contains(os.Getenv("SWITCHBOARD_TEST_PEERS"), "synapse") {
		return
	}
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	synapse, err := peers.InstallSynapse(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	beside("synapse", synapse, file)
}

// talk runs all bridges beside one homeserver, all with the same database, and
// lets alice talk through them.
func talk(t *testing.T, binary string, program peers.Program, database string) {
	networks := []*network{onIRC(t), onXMPP(t), onWhatsApp(t)}
	options := peers.Options{Dir: t.TempDir(), Database: database}
	var bridges []*connector
	for _, n := range networks {
		b := newConnector(t, binary, n, database)
		bridges = append(bridges, b)
		options.Appservices = append(options.Appservices, b.register()...)
	}
	server := start(t, program, options)
	for _, b := range bridges {
		b.run(server.URL)
		b.await()
	}
	alice := logIn(t, server, "alice")
	each(t, alice, networks, func(n *network) {
		n.logIn(alice, id.NewUserID(n.id+"bot", server.Name))
		n.talk(alice, question, answer)
	})
}

// TestMoveOut lets the bridges of our server become programs of their own.
// Nobody logs in again.
func TestMoveOut(t *testing.T) {
	databasetest.EachURL(t, func(t *testing.T, database string) {
		t.Parallel()
		binary := instance.Binary(t)
		if strings.HasPrefix(database, "sqlite:") {
			database = ""
		}
		networks := []*network{onIRC(t), onXMPP(t), onWhatsApp(t)}
		inside := peers.Options{Dir: t.TempDir(), Database: database, Bridges: map[string]any{}}
		for _, n := range networks {
			config := maps.Clone(n.config)
			config["enabled"] = true
			inside.Bridges[n.id] = config
		}
		server := start(t, peers.Switchboard(binary), inside)
		alice := logIn(t, server, "alice")
		each(t, alice, networks, func(n *network) {
			n.logIn(alice, id.NewUserID(n.id+"bot", server.Name))
			n.talk(alice, question, answer)
		})
		if err := server.Stop(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}

		outside := peers.Options{Dir: inside.Dir, Database: database}
		var bridges []*connector
		for _, n := range networks {
			b := newConnector(t, binary, n, database)
			bridges = append(bridges, b)
			b.takeOver(filepath.Join(inside.Dir, "data"))
			outside.Appservices = append(outside.Appservices, b.register()...)
		}
		server = start(t, peers.Switchboard(binary), outside)
		for _, b := range bridges {
			b.run(server.URL)
			b.await()
		}
		again, err := mautrix.NewClient(server.URL, alice.UserID, alice.AccessToken)
		if err != nil {
			t.Fatal(err)
		}
		alice = bridgetest.Sync(t, again)
		each(t, alice, networks, func(n *network) { n.talk(alice, question+" Now?", answer+" Now.") })
	})
}

// start starts a homeserver, which the end of the test stops unless it has been
// stopped.
func start(t *testing.T, program peers.Program, options peers.Options) *peers.Server {
	t.Helper()
	server, err := peers.New(t.Context(), program, options)
	if err == nil {
		err = server.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(syscall.SIGTERM); err != nil {
			t.Errorf("stop the homeserver: %v", err)
		}
		if t.Failed() {
			t.Logf("the homeserver's log:\n%s", server.Log())
		}
	})
	return server
}

// each runs f as a subtest for each network, where alice belongs to it.
func each(t *testing.T, alice *bridgetest.User, networks []*network, f func(*network)) {
	for _, n := range networks {
		t.Run(n.id, func(t *testing.T) {
			outer := alice.T
			alice.T = t
			defer func() { alice.T = outer }()
			f(n)
		})
	}
}

// logIn makes an account by the shared secret, which all homeservers know.
func logIn(t *testing.T, server *peers.Server, name string) *bridgetest.User {
	t.Helper()
	c, err := mautrix.NewClient(server.URL, "", "")
	if err != nil {
		t.Fatal(err)
	}
	account := synapseadmin.ReqSharedSecretRegister{Username: name, Password: "correct horse battery"}
	resp, err := (&synapseadmin.Client{Client: c}).SharedSecretRegister(t.Context(), peers.Secret, account)
	if err != nil {
		t.Fatalf("register %s: %v", name, err)
	}
	c.UserID, c.AccessToken, c.DeviceID = resp.UserID, resp.AccessToken, resp.DeviceID
	return bridgetest.Sync(t, c)
}

// connector is a bridge in a process of its own.
type connector struct {
	t       *testing.T
	binary  string
	network *network
	dir     string
	address string // where it listens
}

// newConnector writes the configuration of a bridge, which keeps what it knows
// in a database, or for "" in an SQLite file.
func newConnector(t *testing.T, binary string, n *network, database string) *connector {
	t.Helper()
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	c := &connector{t, binary, n, t.TempDir(), fmt.Sprintf("127.0.0.1:%d", port)}
	text, err := yaml.Marshal(map[string]any{
		"server_name": "localhost", "data_dir": filepath.Join(c.dir, "data"),
		"database": map[string]any{"url": database},
		"bridges":  map[string]any{n.id: n.config},
	})
	if err == nil {
		err = os.WriteFile(c.config(), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *connector) config() string { return filepath.Join(c.dir, "bridge.yaml") }

// command is a command of the program about this bridge.
func (c *connector) command(name string, args ...string) *exec.Cmd {
	return exec.Command(c.binary, append([]string{"bridge", name, c.network.id, "--config", c.config()}, args...)...)
}

// takeOver moves the bridge's database out of the data directory of a server, if
// it is a file there.
func (c *connector) takeOver(dir string) {
	c.t.Helper()
	if err := os.Mkdir(filepath.Join(c.dir, "data"), 0o700); err != nil {
		c.t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "bridge_"+c.network.id+".db*"))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, file := range files {
		if err := os.Rename(file, filepath.Join(c.dir, "data", filepath.Base(file))); err != nil {
			c.t.Fatal(err)
		}
	}
}

// register writes the registrations and returns their files.
func (c *connector) register() []string {
	c.t.Helper()
	if out, err := c.command("registration", "--url", "http://"+c.address, "--folder", c.dir).CombinedOutput(); err != nil {
		c.t.Fatalf("registration: %v\n%s", err, out)
	}
	return []string{filepath.Join(c.dir, "switchboard-"+c.network.id+".yaml"), filepath.Join(c.dir, "switchboard-"+c.network.id+"-puppets.yaml")}
}

// run starts the bridge for a homeserver, until the test ends.
func (c *connector) run(homeserver string) {
	t := c.t
	t.Helper()
	cmd := c.command("run", "--homeserver", homeserver, "--listen", c.address)
	out, err := os.Create(filepath.Join(c.dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	process, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := process.Stop(syscall.SIGTERM, 2*time.Minute); err != nil {
			t.Errorf("stop the bridge to %s: %v", c.network.id, err)
		} else if err := process.Err(); err != nil {
			t.Errorf("the bridge to %s: %v", c.network.id, err)
		}
		if t.Failed() {
			text, _ := os.ReadFile(out.Name())
			t.Logf("output of the bridge to %s:\n%s", c.network.id, text)
		}
	})
}

// await waits until the bridge knows the homeserver, and is known there.
func (c *connector) await() {
	c.t.Helper()
	bridgetest.Eventually(c.t, "the bridge to "+c.network.id+" runs", func() bool {
		answer, err := http.Get("http://" + c.address + "/health")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

// told waits until the bridge has told that a message arrived.
func told(u *bridgetest.User, message id.EventID) {
	u.T.Helper()
	u.Await("that the message arrived", bridgetest.Status(message, event.MessageStatusSuccess))
}
