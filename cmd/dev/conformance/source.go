package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
)

// function is a function of a test package.
type function struct {
	name  string
	test  bool
	pair  bool // it, or one that it calls, names the second homeserver
	calls []string
}

// parse reads the functions in the Go files of a package, in their order.
func parse(dir string, files []string) ([]*function, error) {
	var all []*function
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				all = append(all, read(f))
			}
		}
	}
	spread(all)
	return all, nil
}

// read looks at a function alone.
func read(decl *ast.FuncDecl) *function {
	f := &function{name: decl.Name.Name}
	f.test = strings.HasPrefix(f.name, "Test") && f.name != "TestMain" && len(decl.Type.Params.List) == 1
	ast.Inspect(decl, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			f.calls = append(f.calls, n.Name)
		case *ast.BasicLit:
			f.pair = f.pair || n.Value == `"hs2"`
		}
		return true
	})
	return f
}

// spread makes a pair of each function that calls one.
func spread(all []*function) {
	pairs := map[string]bool{}
	for more := true; more; {
		more = false
		for _, f := range all {
			for _, name := range f.calls {
				f.pair = f.pair || pairs[name]
			}
			if f.pair && !pairs[f.name] {
				pairs[f.name], more = true, true
			}
		}
	}
}
