package main

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

var (
	linkPattern    = regexp.MustCompile(`\]\(([^)#]+)(?:#[^)]*)?\)`)
	yamlPattern    = regexp.MustCompile("(?ms)^( *)```yaml\n(.*?)^ *```$")
	commandPattern = regexp.MustCompile("(?m)(?:^ {4,}|`)(?:bin/)?switchboard ([a-z][^`#\n]*)")
	makePattern    = regexp.MustCompile("(?m)(?:^ {4,}|`)make ([a-z]+)")
)

// TestDocuments holds what people read to what there is: the files that it leads
// to, the configurations, the commands and the targets of make.
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
	if strings.HasPrefix(text, "\n ") || strings.HasPrefix(text, "\n# Synapse") {
		return
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
