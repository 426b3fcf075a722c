package postgres

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestCluster starts a cluster, talks to it as a program outside would, and
// looks for what it leaves behind.
func TestCluster(t *testing.T) {
	ctx := context.Background()
	c, err := Start(ctx, Options{})
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	defer func() {
		if !stopped {
			c.Stop()
		}
	}()
	if err := c.CreateDatabase(ctx, "rooms"); err != nil {
		t.Fatal(err)
	}
	psql := func(url, query string) (string, error) {
		out, err := exec.Command("psql", "-AtX", "-c", query, url).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if got, err := psql(c.URL("rooms"), "SELECT current_database() || ' ' || pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'rooms'"); err != nil || got != "rooms UTF8" {
		t.Errorf("psql says %q, %v, want rooms UTF8", got, err)
	}
	if got, err := psql(strings.Replace(c.URL("rooms"), c.password, "wrong", 1), "SELECT 1"); err == nil {
		t.Errorf("a wrong password is answered with %q", got)
	}

	stopped = true
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := psql(c.URL("rooms"), "SELECT 1"); err == nil {
		t.Error("the server answers after Stop")
	}
	if _, err := os.Stat(c.dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", c.dir, err)
	}
}
