package xmpptest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// prosody is Prosody as Debian installs it, with its community modules.
type prosody struct{}

func (prosody) name() string { return "prosody-modules" }

func (prosody) installed() bool {
	_, err := os.Stat("/usr/lib/prosody/modules/mod_muc_moderation")
	return err == nil
}

func (prosody) command(s *Server) *exec.Cmd {
	return exec.Command("/usr/bin/prosody", "--config", filepath.Join(s.dir, "prosody.cfg.lua"), "-F")
}

func (prosody) register(s *Server, account string) error {
	file := filepath.Join(s.dir, "data", "xmpp%2etest", "accounts", account+".dat")
	return os.WriteFile(file, []byte(`return { ["password"] = "`+Password+`" };`), 0o600)
}

// forgetful is a module of Prosody by which rooms forget who is in them, without
// telling anybody, as happens when a server crashes, or can not be reached for a
// while by who wants to enter.
const forgetful = `
local muc, st, away = module:depends("muc"), require "util.stanza", false
module:hook("iq-set/host/urn:test:forget:forget", function(event)
	for room in muc.each_room() do room._occupants, room._jid_nick = {}, {} end
	event.origin.send(st.reply(event.stanza))
	return true
end)
for name, value in pairs({ away = true, back = false }) do
	module:hook("iq-set/host/urn:test:forget:" .. name, function(event)
		away = value
		event.origin.send(st.reply(event.stanza))
		return true
	end)
end
module:hook("presence/full", function(event)
	if away then
		if not event.stanza.attr.type then
			event.origin.send(st.error_reply(event.stanza, "wait", "remote-server-timeout"))
		end
		return true
	end
end, 1000)
`

func (prosody) configure(s *Server) error {
	_, port, _ := net.SplitHostPort(s.Address)
	_, web, _ := net.SplitHostPort(s.Web)
	text := fmt.Sprintf(`pidfile = "%[1]s/pid"
data_path = "%[1]s/data"
plugin_paths = { "%[1]s" }
run_as_root = true
daemonize = false
interfaces = { "127.0.0.1" }
c2s_ports = { %[2]s }
s2s_ports = { }
http_ports = { %[3]s }
http_interfaces = { "127.0.0.1" }
https_ports = { }
http_default_host = "%[6]s"
ssl = { key = "%[1]s/key.pem"; certificate = "%[1]s/cert.pem" }
modules_enabled = { "roster"; "saslauth"; "tls"; "disco"; "carbons"; "pep"; "ping"; "mam"; "smacks"; "blocklist"; "vcard4"; "vcard_legacy"; "bookmarks"; "posix" }
modules_disabled = { "s2s"; "offline" }
authentication = "internal_plain"
c2s_require_encryption = true
limits = { }
log = { info = "%[1]s/log"; }
archive_expires_after = "never"
VirtualHost "%[4]s"
Component "%[5]s" "muc"
  modules_enabled = { "muc_mam"; "vcard_muc"; "muc_moderation"; "test_forget" }
  muc_room_default_public_jids = true
  restrict_room_creation = false
  muc_room_locking = false
Component "%[6]s" "http_file_share"
  http_external_url = "http://%[7]s/"
  http_file_share_size_limit = 1048576
  http_file_share_access = { "%[4]s" }
`, s.dir, port, web, Domain, Rooms, Upload, s.Web)
	if err := os.WriteFile(filepath.Join(s.dir, "prosody.cfg.lua"), []byte(text), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "mod_test_forget.lua"), []byte(forgetful), 0o600); err != nil {
		return err
	}
	return os.MkdirAll(filepath.Join(s.dir, "data", "xmpp%2etest", "accounts"), 0o700)
}
