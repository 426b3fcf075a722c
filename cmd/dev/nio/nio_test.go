package nio

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"maunium.net/go/mautrix"

	"switchboard/cmd/dev/instance"
	"switchboard/cmd/dev/peers"
	"switchboard/homeserver/database/databasetest"
)

// python is Debian's, for which it has matrix-nio and libolm.
const python = "/usr/bin/python3"

// TestTalk runs the talk beside the server.
func TestTalk(t *testing.T) {
	if err := exec.Command(python, "-c", "import nio, olm, peewee").Run(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("matrix-nio with encryption is missing: %v", err)
		}
		t.Skip("there is no matrix-nio with encryption")
	}
	binary := peers.Switchboard(instance.Binary(t))
	databasetest.EachURL(t, func(t *testing.T, database string) {
		t.Parallel()
		if strings.HasPrefix(database, "sqlite:") {
			database = ""
		}
		server, err := peers.New(t.Context(), binary, peers.Options{Dir: t.TempDir(), Database: database})
		if err == nil {
			err = server.Start(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := server.Stop(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		})
		for _, name := range []string{"alice", "bob"} {
			c, err := mautrix.NewClient(server.URL, "", "")
			if err == nil {
				_, err = c.RegisterDummy(t.Context(), &mautrix.ReqRegister[any]{Username: name, Password: "correct horse battery", InhibitLogin: true})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		out, err := exec.CommandContext(t.Context(), python, "-I", "talk.py", server.URL, t.TempDir()).CombinedOutput()
		if err != nil || !strings.HasSuffix(string(out), "all is well\n") {
			t.Errorf("%v\n%s\n%s", err, out, server.Log())
		}
	})
}
