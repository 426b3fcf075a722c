package bridgetest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// environment is the variable by which a process knows that it is a server of
// a test in another process.
const environment = "SWITCHBOARD_BRIDGETEST"

// order is what the variable holds.
type order struct {
	Dir      string // of the server
	Settings string // of the network
}

// serve runs the server that another process ordered, until its standard input
// ends. It reports whether there is such an order.
func serve(t *testing.T, options func(settings string) Options) bool {
	text := os.Getenv(environment)
	if text == "" {
		return false
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	s := &Server{T: t, dir: o.Dir, options: options(o.Settings)}
	s.Run()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == footprintPath {
			tellFootprint(w, s.Host)
			return
		}
		s.ServeHTTP(w, r)
	}), ReadHeaderTimeout: time.Minute}
	go func() { _ = web.Serve(l) }()
	// A rename, so that the reader never sees half of it.
	file := filepath.Join(o.Dir, "address")
	if err := os.WriteFile(file+".new", []byte(l.Addr().String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Stop()
	_ = web.Close()
	return true
}

// process is a server that runs in a process of its own, so that it can be
// killed.
type process struct {
	*Server
	settings string
	cmd      *exec.Cmd
	input    io.Closer
	outputs  []string // files of what this process and those before it said
}

// startProcess is Start in a process of its own. The test must begin with
// serve.
func startProcess(t *testing.T, settings string) *process {
	t.Helper()
	p := &process{Server: &Server{T: t, dir: t.TempDir()}, settings: settings}
	t.Cleanup(func() { // behind the end of the last one
		for _, file := range p.outputs {
			if text, err := os.ReadFile(file); t.Failed() && err == nil {
				t.Logf("output of the server:\n%s", text)
			}
		}
	})
	p.run()
	t.Cleanup(func() {
		if p.cmd != nil {
			p.stop()
		}
	})
	return p
}

// run starts the process, on what an earlier one left.
func (p *process) run() {
	t := p.T
	t.Helper()
	file := filepath.Join(p.dir, "address")
	_ = os.Remove(file)
	text, err := json.Marshal(order{p.dir, p.settings})
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(os.Args[0], "-test.run=^"+topTest(t)+"$", "-test.v") //nolint:gosec // this very program
	p.cmd.Env = append(os.Environ(), environment+"="+string(text))
	if p.input, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(p.dir, fmt.Sprintf("output-%d", time.Now().UnixNano())))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p.outputs = append(p.outputs, out.Name())
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var address []byte
	Eventually(t, "the server's process is ready", func() bool {
		address, err = os.ReadFile(file)
		return err == nil
	})
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: string(address)})
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusServiceUnavailable) }
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	proxy.Transport = transport
	p.setClient(proxy)
}

// topTest is the name of the test function that t belongs to.
func topTest(t *testing.T) string {
	name := t.Name()
	for i := range name {
		if name[i] == '/' {
			return name[:i]
		}
	}
	return name
}

// kill ends the process by SIGKILL: nothing is written, nobody is told.
func (p *process) kill() {
	p.T.Helper()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.gone()
}

// gone closes the door of a process that has ended: somebody else may get its
// port.
func (p *process) gone() {
	p.setClient(nil)
	p.cmd = nil
}

// stop ends the process in good order.
func (p *process) stop() {
	p.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := p.cmd
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	_ = p.input.Close()
	if err := cmd.Wait(); err != nil {
		p.T.Errorf("the server's process: %v", err)
	}
	p.gone()
}
