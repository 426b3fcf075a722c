package main

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

// floors lists our packages from the ground up. A package imports only packages
// of lower floors, so those of one floor do not know each other. The command
// itself, on top, may import all of them.
var floors = [][]string{
	{"registrations", "homeserver/matrix", "homeserver/canonjson", "homeserver/packed", "homeserver/words"},
	{"homeserver/signing"},
	{"homeserver/event"},
	{"homeserver/eventauth", "homeserver/pushrule", "homeserver/policylist"},
	{"homeserver/stateres", "homeserver/statetree"},
	{"homeserver/database", "homeserver/notify", "homeserver/blob", "homeserver/cache"},
	{"homeserver/store"},
	{"homeserver/fedclient", "homeserver/identity", "homeserver/mail"},
	{"homeserver/account", "homeserver/e2ee", "homeserver/ephemeral", "homeserver/media", "homeserver/room"},
	{"homeserver/delayed", "homeserver/directory", "homeserver/federation", "homeserver/notices", "homeserver/search", "homeserver/unread"},
	{"homeserver/clientsync", "homeserver/fedsender", "homeserver/push", "homeserver/edge"},
	{"homeserver/clientapi", "homeserver/fedapi", "homeserver/adminapi"},
	{"homeserver"},
	{"appservices", "voip", "voip/calltest", "jitsi"},
	{"bridges/bridge"},
	{"bridges/whatsapp", "bridges/irc", "bridges/xmpp"},
	{"cmd/switchboard"},
}

// developers is the folder of the programs for developers. They stand outside
// the house: they may import everything, and nothing of it imports them but tests.
const developers = "cmd/dev"

// pure are the packages with no I/O, no context and no clock.
var pure = slices.Concat(floors[:5]...)

// floorOf returns the floor of a folder, or -1 for none. What helps the tests
// of a package, such as homeserver/store/storetest, stands on its floor.
func floorOf(dir string) int {
	if isTestPackage(dir) {
		dir = path.Dir(dir)
	}
	return slices.IndexFunc(floors, func(names []string) bool { return slices.Contains(names, dir) })
}

// isTestPackage reports whether a folder holds a package for tests of the
// package above it, by its name: "store/storetest".
func isTestPackage(dir string) bool {
	return path.Base(dir) == path.Base(path.Dir(dir))+"test"
}

// partOf returns the package of the table that a folder belongs to: itself, or
// the one above it when that is a bridge, which may have parts of its own.
func partOf(dir string) string {
	for d := dir; d != "."; d = path.Dir(d) {
		if strings.HasPrefix(d, "bridges/") && floorOf(d) >= 0 {
			return d
		}
	}
	return dir
}

// TestLayers is the law of the floors.
func TestLayers(t *testing.T) {
	for _, s := range sources(t) {
		dir := partOf(s.dir())
		if under(dir, developers) || s.isTest() {
			continue
		}
		from := floorOf(dir)
		if from < 0 {
			t.Errorf("%s: the package %s has no floor in layers_test.go", s.name, dir)
			continue
		}
		for _, imported := range s.imports() {
			target, ours := strings.CutPrefix(imported, module+"/")
			target = partOf(target)
			switch to := floorOf(target); {
			case !ours || target == dir || isTestPackage(dir) && target == path.Dir(dir):
			case isTestPackage(s.dir()) && under(target, developers):
			case isTestPackage(target) && !isTestPackage(dir):
				t.Errorf("%s: only tests may import %s", s.name, imported)
			case to < 0 || to >= from:
				t.Errorf("%s (floor %d) may not import %s (floor %d)", s.name, from, imported, to)
			}
		}
	}
}

// TestFloorTable keeps the table itself in order.
func TestFloorTable(t *testing.T) {
	seen := map[string]bool{}
	for _, names := range floors {
		for _, name := range names {
			if seen[name] {
				t.Errorf("%s stands on two floors", name)
			}
			seen[name] = true
		}
	}
	for _, s := range sources(t) {
		if under(s.dir(), "deploy") {
			t.Errorf("%s: deploy holds files for operators, no Go", s.name)
		}
	}
}

// permits say who may import what at all. Tests may import everything: there
// they are peers and oracles.
var permits = []struct {
	what []string // import paths and all below them
	who  []string // folders and all below them
}{
	{
		[]string{"database/sql", "github.com/jackc/pgx/v5", "modernc.org/sqlite", "github.com/mattn/go-sqlite3", "github.com/lib/pq", "go.mau.fi/util/dbutil"},
		[]string{"homeserver/database", "bridges"},
	},
	{
		[]string{"switchboard/homeserver/store"},
		slices.Concat(floors[7], floors[8], floors[9], floors[10], []string{"homeserver/store", "appservices", "cmd"}),
	},
	// A bridge speaks to the homeserver as any appservice does, so that it can move
	// to another process.
	{
		[]string{"switchboard/homeserver"},
		[]string{"homeserver", "appservices", "voip", "jitsi", "cmd"},
	},
	{[]string{"go.mau.fi/whatsmeow", "go.mau.fi/libsignal"}, []string{"bridges/whatsapp"}},
	{[]string{"github.com/pion", "github.com/livekit"}, []string{"voip"}},
	{[]string{"github.com/pion/webrtc"}, []string{"voip/calltest"}},
	{[]string{"maunium.net/go/mautrix"}, []string{"appservices", "bridges", "voip/calltest"}},
	{[]string{"mellium.im/xmpp", "mellium.im/xmlstream", "mellium.im/sasl"}, []string{"bridges/xmpp", "bridges/irc"}},
	{[]string{"github.com/minio/minio-go"}, []string{"homeserver/blob"}},
	{[]string{"github.com/ergochat/irc-go"}, []string{"bridges/irc"}},
	// Oracles that our own engines differ from: tests only.
	{[]string{"github.com/matrix-org/gomatrixserverlib"}, nil},
	// GPL-3.0, which would reach into the binary without the WhatsApp bridge.
	{[]string{"github.com/buckket/go-blurhash"}, nil},
}

// TestPermits is the law of who may import what at all.
func TestPermits(t *testing.T) {
	for _, s := range sources(t) {
		if s.isTest() || isTestPackage(s.dir()) || under(s.dir(), developers) {
			continue
		}
		for _, imported := range s.imports() {
			for _, p := range permits {
				if !slices.ContainsFunc(p.what, func(what string) bool { return under(imported, what) }) || permitted(s.dir(), p.who) {
					continue
				}
				t.Errorf("%s may not import %s: only %v may", s.name, imported, p.who)
			}
		}
	}
}

// permitted reports whether a folder is one of who or below it. The facade
// counts as itself alone, not as all that stands below its folder.
func permitted(dir string, who []string) bool {
	return dir == "homeserver" && slices.Contains(who, "homeserver/store") ||
		slices.ContainsFunc(who, func(w string) bool { return under(dir, w) })
}

// clock are the names of package time that read the time or wait.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

// impure are packages that pure ones do without.
var impure = []string{"context", "database/sql", "io/fs", "log", "net", "os", "os/exec", "path/filepath", "github.com/rs/zerolog"}

// TestPure keeps I/O, contexts and clocks off the lower floors.
func TestPure(t *testing.T) {
	for _, s := range sources(t) {
		if s.isTest() || isTestPackage(s.dir()) || !slices.Contains(pure, s.dir()) || s.dir() == "registrations" {
			continue
		}
		for _, imported := range s.imports() {
			if slices.Contains(impure, imported) {
				t.Errorf("%s: a pure package may not import %s", s.name, imported)
			}
		}
		for _, u := range uses(s, "net/http") { // errors name their status
			if !strings.HasPrefix(u.name, "Status") {
				t.Errorf("%s: a pure package does no I/O: http.%s", u.where, u.name)
			}
		}
		for _, u := range uses(s, "time") {
			if slices.Contains(clock, u.name) {
				t.Errorf("%s: a pure package has no clock: time.%s", u.where, u.name)
			}
		}
	}
}

// clients are the names of net/http that make requests.
var clients = []string{
	"Client", "DefaultClient", "DefaultTransport", "Get", "Head", "NewRequest", "NewRequestWithContext",
	"Post", "PostForm", "RoundTripper", "Transport",
}

// TestHTTPClients keeps requests to other machines where the rules for them
// are: what addresses are allowed, how long, how much.
func TestHTTPClients(t *testing.T) {
	allowed := []string{"homeserver/fedclient", "homeserver/identity", "homeserver/push", "homeserver/media", "appservices", "jitsi", "bridges", "voip", developers}
	for _, s := range sources(t) {
		if s.isTest() || isTestPackage(s.dir()) || permitted(s.dir(), allowed) {
			continue
		}
		for _, u := range uses(s, "net/http") {
			if slices.Contains(clients, u.name) {
				t.Errorf("%s: only %v make HTTP requests: http.%s", u.where, allowed, u.name)
			}
		}
	}
}

// TestBackground keeps contexts that nobody can end to main and tests.
func TestBackground(t *testing.T) {
	for _, s := range sources(t) {
		if s.isTest() || isTestPackage(s.dir()) || under(s.dir(), "cmd") {
			continue
		}
		for _, u := range uses(s, "context") {
			if u.name == "Background" || u.name == "TODO" {
				t.Errorf("%s: context.%s belongs in main and tests", u.where, u.name)
			}
		}
	}
}

// use is a name of another package in a file.
type use struct {
	name  string // without the package
	where token.Position
}

// uses returns what a file names of another package.
func uses(s source, imported string) []use {
	i := slices.Index(s.imports(), imported)
	if i < 0 {
		return nil
	}
	local := path.Base(imported)
	if name := s.file.Imports[i].Name; name != nil {
		local = name.Name
	}
	var found []use
	ast.Inspect(s.file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == local {
			found = append(found, use{sel.Sel.Name, positions.Position(sel.Pos())})
		}
		return true
	})
	return found
}
