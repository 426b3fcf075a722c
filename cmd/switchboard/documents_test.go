package main

import (
	"bytes"
	"errors"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"switchboard/bridges/irc"
	"switchboard/bridges/xmpp"
)

var (
	linkPattern    = regexp.MustCompile(`\]\(([^)#]+)(?:#[^)]*)?\)`)
	yamlPattern    = regexp.MustCompile("(?ms)^( *)```yaml\n(.*?)^ *```$")
	commandPattern = regexp.MustCompile("(?m)(?:^ {4,}|`)(?:bin/)?switchboard ([a-z][^`#\n]*)")
	makePattern    = regexp.MustCompile("(?m)(?:^ {4,}|`)make ([a-z]+)")
	testPattern    = regexp.MustCompile("`(Test[A-Z][A-Za-z]*)[`/]")
)

// TestDocuments holds what people read to what there is: the files that it leads
// to, the configurations, the commands, the targets of make, and the tests that
// are said to prove something.
func TestDocuments(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	err = walkTree(func(name string, text []byte) error {
		if path.Ext(name) != ".md" {
			return nil
		}
		for _, m := range linkPattern.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join("../..", path.Dir(name), m[1])); err != nil && !strings.Contains(m[1], "://") {
				t.Errorf("%s leads to %s: %v", name, m[1], err)
			}
		}
		for _, m := range yamlPattern.FindAllStringSubmatch(string(text), -1) {
			tryConfig(t, name, strings.ReplaceAll("\n"+m[2], "\n"+m[1], "\n"))
		}
		for _, m := range commandPattern.FindAllStringSubmatch(string(text), -1) {
			tryCommand(t, name, strings.Fields(m[1]))
		}
		for _, m := range makePattern.FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(string(makefile), "\n"+m[1]+":") {
				t.Errorf("%s: there is no make %s", name, m[1])
			}
		}
		for _, m := range testPattern.FindAllStringSubmatch(string(text), -1) {
			if !slices.ContainsFunc(sources(t), func(s source) bool { return s.isTest() && bytes.Contains(s.text, []byte("\nfunc "+m[1]+"(")) }) {
				t.Errorf("%s: there is no %s", name, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tryConfig checks an example, unless it is a part of a section, or of another
// program's configuration, which its first line says.
func tryConfig(t *testing.T, name, text string) {
	t.Helper()
	for _, first := range []string{" ", "# Synapse", "# mautrix"} {
		if strings.HasPrefix(text, "\n"+first) {
			return
		}
	}
	if _, err := loadConfig(write(t, text), nil); err != nil {
		t.Errorf("%s: %v in%s", name, describeError(err), text)
	}
}

// tryCommand checks that a command exists; its arguments may be left out.
func tryCommand(t *testing.T, name string, args []string) {
	t.Helper()
	parser, err := kong.New(&cli{}, kong.Vars{"configFile": configFile}, kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(args)
	var wrong *kong.ParseError
	if errors.As(err, &wrong) && !strings.HasPrefix(err.Error(), "expected ") && !strings.HasPrefix(err.Error(), "missing flags") {
		t.Errorf("%s: switchboard %s: %v", name, strings.Join(args, " "), err)
	}
}

// TestBridgeOptions looks for every option of a bridge in its page.
func TestBridgeOptions(t *testing.T) {
	shared, err := os.ReadFile("../../docs/bridges/README.md")
	if err != nil {
		t.Fatal(err)
	}
	c := defaultConfig().Bridges
	c.IRC.Networks = []irc.Network{{Relay: &irc.Relay{}}}
	c.XMPP.Servers = make([]xmpp.Server, 1)
	for _, network := range fields(reflect.ValueOf(&c).Elem()) {
		page, err := os.ReadFile("../../docs/bridges/" + network.name + ".md")
		if err != nil {
			t.Fatal(err)
		}
		text := string(shared) + string(page)
		var look func(reflect.Value)
		look = func(v reflect.Value) {
			for _, f := range fields(v) {
				if !strings.Contains(text, "`"+f.name+"`") && !strings.Contains(text, "."+f.name+"`") {
					t.Errorf("docs/bridges/%s.md does not tell of %q", network.name, f.name)
				}
				switch inner := reflect.Indirect(f.value); {
				case inner.Kind() == reflect.Slice && inner.Len() > 0 && !isScalar(inner.Type().Elem()):
					look(inner.Index(0))
				case inner.Kind() == reflect.Struct && !isScalar(inner.Type()):
					look(inner)
				}
			}
		}
		look(network.value)
	}
}
