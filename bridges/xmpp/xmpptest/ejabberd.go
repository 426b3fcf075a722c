package xmpptest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ejabberd is ejabberd as Debian installs it. It is started without its script,
// which wants a user and a daemon of its own.
type ejabberd struct{}

func (ejabberd) name() string { return "ejabberd" }

// library is where the code is.
func (ejabberd) library() string {
	found, _ := filepath.Glob("/usr/lib/*/ejabberd-*/ebin/ejabberd.beam")
	if len(found) == 0 {
		return ""
	}
	dir, _, _ := strings.Cut(found[0], "/ejabberd-")
	return dir
}

func (e ejabberd) installed() bool { return e.library() != "" }

func (e ejabberd) command(s *Server) *exec.Cmd {
	// A scheduler that waits for work must not keep a core from others.
	idle := []string{"+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"}
	cmd := exec.Command("/usr/bin/erl", append(idle, "-noinput", "-mnesia", "dir", fmt.Sprintf("%q", filepath.Join(s.dir, "data")), "-s", "ejabberd")...) //nolint:gosec // of the test
	cmd.Env = append(os.Environ(), "ERL_LIBS="+e.library(), "HOME="+s.dir,
		"EJABBERD_CONFIG_PATH="+filepath.Join(s.dir, "ejabberd.yml"), "EJABBERD_LOG_PATH="+filepath.Join(s.dir, "log"),
		"ERL_CRASH_DUMP="+filepath.Join(s.dir, "crash"))
	return cmd
}

func (ejabberd) register(s *Server, account string) error {
	body, err := json.Marshal(map[string]string{"user": account, "host": Domain, "password": Password})
	if err != nil {
		return err
	}
	resp, err := http.Post("http://"+s.Web+"/api/register", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusConflict {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	return nil
}

func (ejabberd) configure(s *Server) error {
	_, port, _ := net.SplitHostPort(s.Address)
	_, web, _ := net.SplitHostPort(s.Web)
	text := fmt.Sprintf(`hosts: [%[4]q]
certfiles: ["%[1]s/key.pem", "%[1]s/cert.pem"]
ca_file: "%[1]s/ca.pem"
auth_method: internal
auth_password_format: scram
api_permissions:
  tests: {from: [mod_http_api], who: all, what: [register]}
listen:
  - {port: %[2]s, ip: "127.0.0.1", module: ejabberd_c2s, starttls: true, starttls_required: true, shaper: none, access: all}
  - {port: %[3]s, ip: "127.0.0.1", module: ejabberd_http, request_handlers: {"/upload": mod_http_upload, "/api": mod_http_api}}
modules:
  mod_disco: {}
  mod_caps: {}
  mod_roster: {}
  mod_carboncopy: {}
  mod_ping: {}
  mod_private: {}
  mod_vcard: {}
  mod_vcard_xupdate: {}
  mod_pubsub: {plugins: ["flat", "pep"]}
  mod_mam: {default: always, assume_mam_usage: true}
  mod_stream_mgmt: {}
  mod_http_upload: {host: %[6]q, put_url: "http://%[7]s/upload", docroot: "%[1]s/files", max_size: 1048576, access: all}
  mod_muc: {host: %[5]q, access: all, access_create: all, default_room_options: {mam: true, anonymous: false, allow_subscription: false}}
`, s.dir, port, web, Domain, Rooms, Upload, s.Web)
	return os.WriteFile(filepath.Join(s.dir, "ejabberd.yml"), []byte(text), 0o600)
}
