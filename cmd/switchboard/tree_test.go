package main

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// The laws of the house, which ARCHITECTURE.md explains, are tests in this
// folder: layers_test.go (who may import what), source_test.go (comments, names
// and sizes), routes_test.go (the specification's operations) and
// anchors_test.go (the specification's sections). They read the source of the
// whole module, so they see every build tag.

// module is the import path of the top of the tree.
const module = "switchboard"

// source is one Go file of the module.
type source struct {
	name string // path from the top of the tree, with slashes
	text []byte
	file *ast.File
}

// dir is the file's folder, which is the package's import path below the
// module: "homeserver/room".
func (s source) dir() string { return path.Dir(s.name) }

// isTest reports whether the file is compiled into tests only.
func (s source) isTest() bool { return strings.HasSuffix(s.name, "_test.go") }

// imports returns the import paths of the file.
func (s source) imports() []string {
	var list []string
	for _, spec := range s.file.Imports {
		p, _ := strconv.Unquote(spec.Path.Value) // the parser has checked it
		list = append(list, p)
	}
	return list
}

// positions places the syntax of all sources.
var positions = token.NewFileSet()

// readTree parses every Go file of the module once.
var readTree = sync.OnceValues(func() ([]source, error) {
	var list []source
	err := walkTree(func(name string, text []byte) error {
		if path.Ext(name) != ".go" {
			return nil
		}
		file, err := parser.ParseFile(positions, name, text, parser.ParseComments|parser.SkipObjectResolution)
		list = append(list, source{name, text, file})
		return err
	})
	return list, err
})

// sources returns every Go file of the module.
func sources(t *testing.T) []source {
	t.Helper()
	list, err := readTree()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 10 {
		t.Fatalf("only %d Go files found: the laws look at the wrong place", len(list))
	}
	return list
}

// walkTree calls visit for each file that belongs to the module. It leaves out
// hidden folders, what is built or downloaded, test data and other modules, and
// what goes away meanwhile: other suites run in the same tree.
func walkTree(visit func(name string, text []byte) error) error {
	top := filepath.Join("..", "..")
	return filepath.WalkDir(top, func(file string, d fs.DirEntry, err error) error {
		if file != top && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, file)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if d.IsDir() {
			if name != "." && outside(file, d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return visit(name, text)
	})
}

// outside reports whether a folder is no part of the module's source.
func outside(dir, base string) bool {
	switch base {
	case "bin", "data", "node_modules", "testdata":
		return true
	}
	if strings.HasPrefix(base, ".") && base != ".ci" {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// under reports whether an import path or folder is root or below it.
func under(name, root string) bool {
	return name == root || strings.HasPrefix(name, root+"/")
}
