package voip

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// selfSigned is a certificate for 127.0.0.1.
func selfSigned(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// TestCoturn lets coturn's own clients use the relay in every way they know.
// Without coturn it is skipped, but not in CI.
func TestCoturn(t *testing.T) {
	uclient, err := exec.LookPath("turnutils_uclient")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("coturn is not installed: %v", err)
		}
		t.Skip("coturn is not installed (apt-get install coturn)")
	}
	const secret = "a secret that coturn knows, too"
	vault := &memoryVault{}
	config := func(o *Options) {
		o.TLS = selfSigned(t)
		o.Config.UDP = append(o.Config.UDP, "[::1]:0")
		o.Config.TCP = append(o.Config.TCP, "[::1]:0")
		o.Config.TLS = []string{"127.0.0.1:0"}
		o.Config.SharedSecrets = []string{secret}
		o.Config.AllowPeers = append(o.Config.AllowPeers, netip.MustParsePrefix("::1/128"))
		o.Config.UserQuota, o.Config.MaxBitrate = 200, 0
		o.Vault = vault
	}
	r := startRelay(t, config)
	strict := startRelay(t, func(o *Options) { // for those whom it refuses, and answers ever more slowly
		config(o)
		o.Config.UserQuota = 40
	})
	port := func(kind string, r *Relay) string {
		return strconv.Itoa(map[string]int{
			"udp4": int(r.udp[0].addr().Port()), "udp6": int(r.udp[1].addr().Port()), "tls4": r.tls[0].Addr().(*net.TCPAddr).Port,
			"tcp4": r.tcp[0].Addr().(*net.TCPAddr).Port, "tcp6": r.tcp[1].Addr().(*net.TCPAddr).Port,
		}[kind])
	}
	echo4, echo6 := echo(t, "127.0.0.1"), echo(t, "::1")
	expired := r.Issue("@alice:a.test")
	expired.Username = restUsername("@alice:a.test", time.Now().Add(-time.Minute))
	expired.Password = restPassword(r.issuer.secrets[0].Value, expired.Username)
	have := r.Issue("@alice:a.test")
	other := r.Issue("@bob:a.test")
	others := []string{"-u", other.Username, "-w", other.Password}
	ours := []string{"-u", have.Username, "-w", have.Password}
	shared := []string{"-u", "alice", "-W", secret}
	peer4 := []string{"-e", "127.0.0.1", "-r", strconv.Itoa(echo4)}
	peer6 := []string{"-e", "::1", "-r", strconv.Itoa(echo6)}

	const refused = "Cannot complete Allocation"
	for _, c := range []struct {
		name string
		port string
		host string
		args [][]string
		want string // in what it says; "" means that all packets come back
	}{
		{"UDP, channels", "udp4", "127.0.0.1", [][]string{ours, peer4, {"-c"}}, ""},
		{"UDP, pairs of ports", "udp4", "127.0.0.1", [][]string{ours, peer4}, ""},
		{"UDP, indications", "udp4", "127.0.0.1", [][]string{ours, peer4, {"-c", "-s"}}, ""},
		{"UDP, large packets", "udp4", "127.0.0.1", [][]string{ours, peer4, {"-c", "-l", "1400"}}, ""},
		{"UDP, a secret in common", "udp4", "127.0.0.1", [][]string{shared, peer4, {"-c"}}, ""},
		{"UDP, client to client", "udp4", "127.0.0.1", [][]string{ours, {"-c", "-y"}}, ""},
		{"UDP, client to client in indications", "udp4", "127.0.0.1", [][]string{ours, {"-c", "-y", "-s"}}, ""},
		{"TCP, channels", "tcp4", "127.0.0.1", [][]string{ours, peer4, {"-c", "-t"}}, ""},
		{"TCP, indications", "tcp4", "127.0.0.1", [][]string{ours, peer4, {"-c", "-t", "-s"}}, ""},
		{"TCP, odd lengths", "tcp4", "127.0.0.1", [][]string{ours, peer4, {"-c", "-t", "-l", "123"}}, ""},
		{"TCP, client to client", "tcp4", "127.0.0.1", [][]string{ours, {"-c", "-t", "-y"}}, ""},
		{"TLS, channels", "tls4", "127.0.0.1", [][]string{ours, peer4, {"-c", "-t", "-S"}}, ""},
		{"TLS, indications", "tls4", "127.0.0.1", [][]string{ours, peer4, {"-c", "-t", "-S", "-s"}}, ""},
		{"IPv6 by IPv4", "udp4", "127.0.0.1", [][]string{ours, peer6, {"-c", "-x"}}, ""},
		{"IPv6", "udp6", "::1", [][]string{ours, peer6, {"-c", "-x"}}, ""},
		{"IPv6, indications", "udp6", "::1", [][]string{ours, peer6, {"-c", "-x", "-s"}}, ""},
		{"IPv4 by IPv6", "udp6", "::1", [][]string{ours, peer4, {"-c"}}, ""},
		{"IPv6 over TCP", "tcp6", "::1", [][]string{ours, peer6, {"-c", "-x", "-t"}}, ""},
		{"both families", "udp4", "127.0.0.1", [][]string{ours, peer4, {"-c", "-Z"}}, ""},
		{"wrong password", "udp4", "127.0.0.1", [][]string{{"-u", have.Username, "-w", "wrong"}, peer4, {"-c"}}, refused},
		{"wrong user", "udp4", "127.0.0.1", [][]string{{"-u", "mallory", "-w", have.Password}, peer4, {"-c"}}, refused},
		{"expired", "udp4", "127.0.0.1", [][]string{{"-u", expired.Username, "-w", expired.Password}, peer4, {"-c"}}, refused},
		{"forbidden peer", "udp4", "127.0.0.1", [][]string{others, {"-e", "10.0.0.1", "-c"}}, "403"},
		{"forbidden peer, indications", "udp4", "127.0.0.1", [][]string{others, {"-e", "169.254.169.254", "-c", "-s"}}, "403"},
		{"quota", "udp4", "127.0.0.1", [][]string{{"-u", have.Username, "-w", have.Password, "-m", "50"}, peer4, {"-c"}}, "486"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			to := r
			if c.want != "" {
				to = strict
			}
			args := []string{"-v", "-p", port(c.port, to), "-n", "5", "-m", "2", "-z", "5"}
			for _, a := range c.args {
				args = append(args, a...)
			}
			if c.want != "" { // it tries for ever
				out := runUntil(t, uclient, append(args, c.host), c.want)
				if !strings.Contains(out, c.want) {
					t.Errorf("it does not say %s:\n%s", c.want, out)
				}
				return
			}
			out := runUntil(t, uclient, append(args, c.host), "Total lost packets")
			if !strings.Contains(out, "Total lost packets 0 ") {
				t.Errorf("turnutils_uclient %s:\n%s", strings.Join(args, " "), out)
			}
		})
	}
	stunclient, err := exec.LookPath("turnutils_stunclient")
	if err != nil {
		t.Fatal(err)
	}
	for host, kind := range map[string]string{"127.0.0.1": "udp4", "::1": "udp6"} {
		out := runUntil(t, stunclient, []string{"-p", port(kind, r), host}, "reflexive addr")
		if !strings.Contains(out, "reflexive addr: "+host) && !strings.Contains(out, "reflexive addr: ["+host) {
			t.Errorf("turnutils_stunclient: %s", out)
		}
	}
}

// runUntil runs a program until it ends or says something, to the end of the line,
// and gives what it said.
func runUntil(t *testing.T, name string, args []string, until string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	out := &watched{until: until, found: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-out.found:
	case <-time.After(patience):
	}
	cmd.Process.Kill()
	<-ended
	return out.text.String()
}

// watched is what a program says, until it has said something.
type watched struct {
	text  strings.Builder
	until string
	found chan struct{}
	done  bool
}

// Write implements io.Writer.
func (w *watched) Write(b []byte) (int, error) {
	w.text.Write(b)
	if w.done {
		return len(b), nil
	}
	if _, after, ok := strings.Cut(w.text.String(), w.until); ok && strings.Contains(after, "\n") {
		w.done = true
		close(w.found)
	}
	return len(b), nil
}

// echo is a peer that sends everything back, on two ports. It returns the first.
func echo(t *testing.T, host string) int {
	t.Helper()
	open := func(port uint16) *net.UDPConn {
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(host), port)))
		if err != nil {
			return nil
		}
		return conn
	}
	for range 100 {
		first := open(0)
		if first == nil {
			continue
		}
		port := first.LocalAddr().(*net.UDPAddr).Port
		second := open(uint16(port + 1))
		if second == nil {
			first.Close()
			continue
		}
		for _, conn := range []*net.UDPConn{first, second} {
			t.Cleanup(func() { conn.Close() })
			go func() {
				b := make([]byte, 2000)
				for {
					n, from, err := conn.ReadFromUDPAddrPort(b)
					if err != nil {
						return
					}
					conn.WriteToUDPAddrPort(b[:n], from)
				}
			}()
		}
		return port
	}
	t.Fatal("no two ports next to each other")
	return 0
}
