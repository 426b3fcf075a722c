package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// need is a program that suites use, and the Debian package that has it.
type need struct {
	program  string // a name to look for in PATH, or a pattern of paths
	pkg      string
	purposes string
}

var needs = []need{
	{"/usr/lib/postgresql/*/bin/initdb", "postgresql", "tests on PostgreSQL"},
	{"inspircd", "inspircd", "tests with a real IRC server, and the demo"},
	{"turnutils_uclient", "coturn", "tests with coturn's clients, and the comparison with it"},
	{"prosody", "prosody", "tests with a real XMPP server, and the demo"},
	{"openssl", "openssl", "certificates of the conformance suite and the demo"},
	{"ip", "iproute2", "networks of the conformance suite and of calls"},
	{"nft", "nftables", "calls from behind NAT"},
	{"sysctl", "procps", "calls from behind NAT"},
	{"chromium", "chromium", "tests with browsers"},
	{"gcc", "gcc", "the race detector, Dendrite and bridges of mautrix"},
	{"/usr/include/stdlib.h", "libc6-dev", "the race detector, Dendrite and bridges of mautrix"},
	{"/usr/lib/python3.*/ensurepip", "python3-venv", "Synapse and the demo"},
	{"/usr/lib/python3/dist-packages/aiosmtpd", "python3-aiosmtpd", "tests with a real mail server"},
	{"/usr/lib/python3/dist-packages/nio", "python3-matrix-nio", "tests with matrix-nio"},
	{"/usr/lib/python3/dist-packages/olm", "python3-olm", "tests with matrix-nio"},
	{"/usr/lib/python3/dist-packages/peewee.py", "python3-peewee", "tests with matrix-nio"},
	{"/usr/lib/python3/dist-packages/atomicwrites", "python3-atomicwrites", "tests with matrix-nio"},
	{"/usr/lib/python3/dist-packages/cachetools", "python3-cachetools", "tests with matrix-nio"},
	{"git", "git", "the linters"},
	{"node", "nodejs", "the demo and tests with browsers"},
	{"npm", "npm", "the demo and tests with browsers"},
}

// there reports whether the machine has the program. Debian keeps servers
// outside the PATH of ordinary users.
func (n need) there() bool {
	if strings.HasPrefix(n.program, "/") {
		found, err := filepath.Glob(n.program)
		if err == nil && len(found) > 0 {
			return true
		}
		_, err = exec.LookPath(filepath.Base(n.program)) // PostgreSQL of another system
		return err == nil
	}
	if _, err := exec.LookPath(n.program); err == nil {
		return true
	}
	_, err := os.Stat(filepath.Join("/usr/sbin", n.program))
	return err == nil
}

// install gets what is missing from Debian, as root. For anybody else, and on
// other systems, the error names it.
func (c *check) install(ctx context.Context) error {
	var packages, complaints []string
	for _, n := range needs {
		if !n.there() {
			packages = append(packages, n.pkg)
			complaints = append(complaints, fmt.Sprintf("%s (Debian package %s) for %s", filepath.Base(n.program), n.pkg, n.purposes))
		}
	}
	if len(packages) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("missing on this machine:\n  %s", strings.Join(complaints, "\n  "))
	}
	c.out.line("check", "installing "+strings.Join(packages, " "))
	for _, args := range [][]string{
		{"update", "-q"},
		append([]string{"install", "-q", "-y", "--no-install-recommends"}, packages...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		// RUNLEVEL keeps the packages from starting services of their own.
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, out)
		}
	}
	return nil
}
