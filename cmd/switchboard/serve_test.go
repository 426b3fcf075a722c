package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"switchboard/homeserver"
)

// patience is how long a test waits for what must come.
const patience = 2 * time.Minute

// output is what a command prints.
type output struct {
	mu  sync.Mutex // tier 1; guards buf
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// find waits until the output matches and gives the first group.
func (o *output) find(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if m := re.FindStringSubmatch(o.String()); m != nil {
			return m[1]
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s was not printed, but\n%s", pattern, o)
		}
	}
}

// command runs a command in the current folder and gives its status and what it
// printed.
func command(t *testing.T, stdin string, args ...string) (status int, out, errs string) {
	t.Helper()
	var o, e output
	status = run(&terminal{ctx: t.Context(), in: strings.NewReader(stdin), out: &o, err: &e}, args)
	return status, o.String(), e.String()
}

// mustCommand is command for what has to succeed.
func mustCommand(t *testing.T, args ...string) string {
	t.Helper()
	status, out, errs := command(t, "", args...)
	if status != 0 {
		t.Fatalf("%v: status %d\n%s%s", args, status, out, errs)
	}
	return out
}

// serving is a server that runs in the current folder.
type serving struct {
	t        *testing.T
	url      string
	out, err output
	stop     func() int // gives the status
}

// serve runs the server with an environment in which it listens on a free port.
func serve(t *testing.T, environment ...string) *serving {
	t.Helper()
	s := &serving{t: t}
	ctx, cancel := context.WithCancel(t.Context())
	status := make(chan int, 1)
	environment = append([]string{"SWITCHBOARD_LISTENERS=[{address: '127.0.0.1:0'}]"}, environment...)
	go func() {
		status <- run(&terminal{ctx: ctx, in: strings.NewReader(""), out: &s.out, err: &s.err, environment: environment}, []string{"serve"})
	}()
	s.stop = sync.OnceValue(func() int {
		cancel()
		return <-status
	})
	t.Cleanup(func() {
		if code := s.stop(); code != 0 {
			t.Errorf("the server ended with status %d: %s", code, &s.err)
		}
	})
	s.url = s.out.find(t, `listening +(\S+)`)
	return s
}

// ask makes a request and gives the status and the body.
func (s *serving) ask(method, path, token string, body any) (int, map[string]any) {
	s.t.Helper()
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		content = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, content)
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer a.Body.Close()
	var v map[string]any
	if strings.HasPrefix(a.Header.Get("Content-Type"), "application/json") {
		if err := json.NewDecoder(a.Body).Decode(&v); err != nil {
			s.t.Fatal(err)
		}
	}
	return a.StatusCode, v
}

// register makes an account with a registration token and gives the access
// token.
func (s *serving) register(name, registration string) string {
	s.t.Helper()
	const path = "/_matrix/client/v3/register"
	body := map[string]any{"username": name, "password": "correct horse battery"}
	status, v := s.ask("POST", path, "", body)
	if status != http.StatusUnauthorized {
		s.t.Fatalf("register: %d %v", status, v)
	}
	body["auth"] = map[string]any{"type": "m.login.registration_token", "token": registration, "session": v["session"]}
	if status, v = s.ask("POST", path, "", body); status != http.StatusOK {
		s.t.Fatalf("register: %d %v", status, v)
	}
	return v["access_token"].(string)
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

// From nothing to the first account: no file, no flags.
func TestFirstSteps(t *testing.T) {
	t.Chdir(t.TempDir())
	s := serve(t)
	if mode(t, "data") != 0o700 || mode(t, "data/signing.key") != 0o600 || mode(t, "data/control") != 0o600 {
		t.Error("others can read the data directory")
	}
	if status, _ := s.ask("GET", "/health", "", nil); status != 200 {
		t.Errorf("/health: %d", status)
	}
	if status, v := s.ask("GET", "/_matrix/client/versions", "", nil); status != 200 || v["versions"] == nil {
		t.Errorf("versions: %d %v", status, v)
	}
	if status, v := s.ask("GET", "/_matrix/nothing", "", nil); status != 404 || v["errcode"] != "M_UNRECOGNIZED" {
		t.Errorf("unknown path: %d %v", status, v)
	}
	token := s.out.find(t, `registration token\s+(\S+)`)
	access := s.register("alice", token)
	if list := mustCommand(t, "user", "list"); !regexp.MustCompile(`@alice:localhost +admin`).MatchString(list) {
		t.Errorf("the first account is no administrator:\n%s", list)
	}
	if status, v := s.ask("GET", "/_matrix/client/v3/account/whoami", access, nil); v["user_id"] != "@alice:localhost" {
		t.Errorf("%d %v", status, v)
	}
	if status, _, errs := command(t, "", "serve"); status != 1 || !strings.Contains(errs, "another server uses the data directory") {
		t.Errorf("a second server: status %d, %s", status, errs)
	}
	key, err := os.ReadFile("data/signing.key")
	if err != nil {
		t.Fatal(err)
	}
	s.stop()
	if _, err := os.Stat("data/control"); err == nil {
		t.Error("the control file stays")
	}

	again := serve(t)
	if strings.Contains(again.out.String(), "registration token") {
		t.Error("the first token is told although there is an administrator")
	}
	if status, _ := again.ask("GET", "/_matrix/client/v3/account/whoami", access, nil); status != 200 {
		t.Errorf("the account is gone: %d", status)
	}
	if now, err := os.ReadFile("data/signing.key"); err != nil || !bytes.Equal(now, key) {
		t.Error("there is another signing key")
	}
}

// Commands do the same whether the server runs or not.
func TestCommands(t *testing.T) {
	for _, running := range []bool{false, true} {
		t.Run(fmt.Sprintf("running %v", running), func(t *testing.T) {
			t.Chdir(t.TempDir())
			if running {
				serve(t)
			}
			if err := os.WriteFile("password", []byte("correct horse battery\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			want := func(pattern string, args ...string) {
				t.Helper()
				if out := mustCommand(t, args...); !regexp.MustCompile(pattern).MatchString(out) {
					t.Errorf("%v printed\n%s", args, out)
				}
			}
			refused := func(pattern string, args ...string) {
				t.Helper()
				if status, _, errs := command(t, "", args...); status == 0 || !regexp.MustCompile(pattern).MatchString(errs) {
					t.Errorf("%v: status %d, %s", args, status, errs)
				}
			}
			want(`^@alice:localhost\nnobody is an administrator yet; switchboard user set-admin alice makes this one\n$`, "user", "create", "alice", "--password-file", "password")
			want(`^@bob:localhost\npassword: \S{20,}\n$`, "user", "create", "@bob:localhost", "--admin")
			if list := mustCommand(t, "token", "list"); strings.Contains(list, "administrators") {
				t.Errorf("the token for the first account is still valid:\n%s", list)
			}
			refused(`taken|in use`, "user", "create", "alice")
			refused(`not a user of this server`, "user", "create", "@x:elsewhere.org")
			refused(`switchboard`, "user", "create", "Wrong Name")
			want(`(?s)@alice:localhost +user .*@bob:localhost +admin `, "user", "list")
			want(`is an administrator`, "user", "set-admin", "alice")
			want(`is not an administrator`, "user", "set-admin", "@bob:localhost", "--no-admin")
			want(`(?s)@alice:localhost +admin .*@bob:localhost +user `, "user", "list")
			want(`another password`, "user", "set-password", "bob", "--password-file", "password")
			refused(`.`, "user", "set-password", "nobody")
			want(`is deactivated`, "user", "deactivate", "bob", "--erase")
			want(`@bob:localhost +deactivated`, "user", "list")
			token := strings.TrimSpace(mustCommand(t, "token", "create", "--uses", "3", "--lifetime", "7d"))
			want(token+` +0 +3 +\d{4}-`, "token", "list")
			want(`^mine\n$`, "token", "create", "mine", "--uses", "0", "--admin")
			want(`mine +0 +any number +never +administrators`, "token", "list")
			refused(`exists already`, "token", "create", "mine")
			want(`revoked`, "token", "revoke", "mine")
			refused(`no such`, "token", "revoke", "mine")
			if status, out, _ := command(t, "another password\n", "user", "set-password", "alice", "--password-file", "-"); status != 0 || strings.Contains(out, "another password\n"+"x") {
				t.Errorf("password from standard input: %d %s", status, out)
			}
		})
	}
}

// The control file lets in only who can read it.
func TestControlNeedsToken(t *testing.T) {
	t.Chdir(t.TempDir())
	serve(t)
	b, err := os.ReadFile("data/control")
	if err != nil {
		t.Fatal(err)
	}
	address, _, _ := strings.Cut(string(b), " ")
	if err := os.WriteFile("data/control", []byte(address+" 00\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := command(t, "", "user", "list"); status != 1 || !strings.Contains(errs, "wrong token") {
		t.Errorf("status %d, %s", status, errs)
	}
}

// slowOrder says something and then works until it is ended.
type slowOrder struct{ ended chan struct{} }

func (o *slowOrder) do(ctx context.Context, _ *homeserver.Server, out io.Writer) error {
	fmt.Fprintln(out, "one so far")
	<-ctx.Done()
	close(o.ended)
	return ctx.Err()
}

// What a long order says is shown at once, and the end of the command is its end.
func TestLongOrder(t *testing.T) {
	dir := t.TempDir()
	c, err := openControl(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := &slowOrder{make(chan struct{})}
	c.orders = map[string]func() order{"slow": func() order { return o }}
	serving, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- c.Run(serving) }()
	ctx, interrupt := context.WithCancel(t.Context())
	said, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- (&terminal{ctx: ctx, out: out}).delegate(dir, "slow", struct{ order }{}) }()
	line := make([]byte, 100)
	if n, err := said.Read(line); err != nil || string(line[:n]) != "one so far\n" {
		t.Fatalf("it said %q, %v", line[:n], err)
	}
	interrupt()
	if err := <-ended; err == nil {
		t.Error("a command that was ended has no error")
	}
	<-o.ended
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// A server that is stopped answers at once who waits for news, and finishes
// what it has begun.
func TestStop(t *testing.T) {
	t.Chdir(t.TempDir())
	s := serve(t, "SWITCHBOARD_METRICS_ADDRESS=127.0.0.1:0", "SWITCHBOARD_HTTP_STALL_TIMEOUT=5m", "SWITCHBOARD_HTTP_GRACE=5m")
	metrics := s.out.find(t, `(?s)listening .*listening +(\S+)`) + "/_switchboard/metrics"
	access := s.register("alice", s.out.find(t, `registration token\s+(\S+)`))
	_, v := s.ask("GET", "/_matrix/client/v3/sync", access, nil)
	since, ok := v["next_batch"].(string)
	if !ok {
		t.Fatalf("no sync: %v", v)
	}
	const pollers = 4
	answers := make(chan string, pollers+1)
	request := func(method, path string, body io.Reader) {
		r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, body)
		if err == nil {
			r.Header.Set("Authorization", "Bearer "+access)
			var a *http.Response
			if a, err = http.DefaultClient.Do(r); err == nil {
				a.Body.Close()
				answers <- a.Status
				return
			}
		}
		answers <- err.Error()
	}
	for range pollers {
		go request("GET", "/_matrix/client/v3/sync?timeout=600000&since="+since, nil)
	}
	slow, upload := io.Pipe()
	go request("POST", "/_matrix/media/v3/upload", slow)
	if _, err := upload.Write(make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); !strings.Contains(fetch(t, metrics), fmt.Sprintf("requests_running %d\n", pollers+1)); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the requests do not run")
		}
	}
	stopped := make(chan int, 1)
	go func() { stopped <- s.stop() }()
	for range pollers {
		if status := <-answers; status != "200 OK" {
			t.Errorf("a waiting sync got %s", status)
		}
	}
	if _, err := upload.Write([]byte("the rest")); err != nil {
		t.Error(err)
	}
	upload.Close()
	if status := <-answers; status != "200 OK" {
		t.Errorf("the upload under way got %s", status)
	}
	if status := <-stopped; status != 0 {
		t.Errorf("status %d: %s", status, &s.err)
	}
}

// fetch gets a page.
func fetch(t *testing.T, url string) string {
	t.Helper()
	a, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != 200 {
		t.Fatalf("%s: %d %v", url, a.StatusCode, err)
	}
	return string(b)
}

func TestMetrics(t *testing.T) {
	t.Chdir(t.TempDir())
	s := serve(t, "SWITCHBOARD_METRICS_ADDRESS=127.0.0.1:0", "SWITCHBOARD_PPROF_ADDRESS=127.0.0.1:0", "SWITCHBOARD_MEMORY=512M", "SWITCHBOARD_BRIDGES_WHATSAPP_ENABLED=true")
	for _, path := range []string{"/_matrix/client/versions", "/nothing/" + strings.Repeat("x", 50), "/_matrix/client/v3/account/whoami"} {
		s.ask("GET", path, "", nil)
	}
	addresses := regexp.MustCompile(`listening +(\S+)`).FindAllStringSubmatch(s.out.find(t, `(?s)(.*homeserver)`), -1)
	if len(addresses) != 3 {
		t.Fatalf("got %v", addresses)
	}
	page := ""
	missing := func(want string) bool { return !strings.Contains(page, want) }
	wanted := []string{
		`switchboard_http_request_seconds_count{method="GET",route="/_matrix/client/versions",status="200"} 1`,
		`switchboard_http_request_seconds_count{method="GET",route="/_matrix/client/v3/account/whoami",status="401"} 1`,
		`switchboard_http_request_seconds_count{method="",route="other",status="404"} 1`,
		"switchboard_log_position ", "switchboard_build_info{", "go_goroutines ", "process_resident_memory_bytes ",
		`switchboard_bridge_running{bridge="whatsapp"} `, `switchboard_bridge_events_total{bridge="whatsapp",status="SUCCESS"} 0`,
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // a request is counted when its answer is on its way
		page = fetch(t, addresses[1][1]+"/_switchboard/metrics")
		i := slices.IndexFunc(wanted, missing)
		if i < 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%s is missing in\n%s", wanted[i], page)
		}
	}
	if !strings.Contains(fetch(t, addresses[2][1]+"/debug/pprof/"), "goroutine") {
		t.Error("no profiles")
	}
	if status, _ := s.ask("GET", "/_switchboard/metrics", "", nil); status != 404 {
		t.Errorf("clients get the metrics: %d", status)
	}
}

func TestBadStart(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("data/registrations", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("data", "registrations", "irc.yaml"), []byte("id: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, errs := command(t, "", "serve")
	if status != 1 || !strings.Contains(errs, "irc.yaml:1: id must be a text") || !strings.Contains(errs, "as_token is missing") {
		t.Errorf("status %d, %s", status, errs)
	}
	if err := os.WriteFile(configFile, []byte("servername: x\nlog: {level: loud}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"serve"}, {"config", "check"}, {"config", "print"}, {"user", "list"}} {
		status, _, errs := command(t, "", args...)
		if status != 1 || !strings.Contains(errs, "2 mistakes:\n  switchboard.yaml:1: servername: unknown key") || !strings.Contains(errs, "\n  switchboard.yaml:2: log.level: must be one of") {
			t.Errorf("%v: status %d, %s", args, status, errs)
		}
	}
	if status, out, _ := command(t, "", "config", "print", "--sample"); status != 0 || out != sample {
		t.Error("no sample")
	}
	if status, out, _ := command(t, "", "version"); status != 0 || !strings.Contains(out, "licence: ") {
		t.Errorf("version: %s", out)
	}
	if status, _, errs := command(t, "", "nonsense"); status != 2 || errs == "" {
		t.Errorf("status %d, %s", status, errs)
	}
}
