package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
)

// versionCommand tells what this program is.
type versionCommand struct{}

// Run prints it.
func (versionCommand) Run(t *terminal) error {
	licence := "Apache License 2.0"
	if slices.Contains(buildBridges(), "whatsapp") {
		licence = "GNU General Public License 3.0 as a whole, because the WhatsApp bridge links libsignal; the sources are under the Apache License 2.0"
	}
	bridges := "none"
	if list := buildBridges(); len(list) > 0 {
		bridges = strings.Join(list, ", ")
	}
	fmt.Fprintf(t.out, "switchboard %s\n%s %s/%s\nbridges: %s\nlicence: %s\n", version(), goVersion(), runtime.GOOS, runtime.GOARCH, bridges, licence)
	return nil
}

// version is the version of the build: that of the module, or the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	commit, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+changes"
		}
	}
	if commit == "" {
		return "development"
	}
	return "development-" + commit + dirty
}

func goVersion() string { return runtime.Version() }

// bridgePackages are the packages that tell what a build contains.
var bridgePackages = []string{"irc", "whatsapp", "xmpp"}

// buildBridges lists the bridges that are in this program.
func buildBridges() []string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	var list []string
	for _, dep := range info.Deps {
		for _, name := range bridgePackages {
			if dep.Path == bridgeLibraries[name] {
				list = append(list, name)
			}
		}
	}
	return list
}

// bridgeLibraries are the libraries that only one bridge uses.
var bridgeLibraries = map[string]string{
	"irc": "github.com/ergochat/irc-go", "whatsapp": "go.mau.fi/whatsmeow", "xmpp": "mellium.im/xmpp",
}
