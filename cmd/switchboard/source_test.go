package main

import (
	"bytes"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxLines is how long a file may get. Aim at 800.
const maxLines = 1000

// TestPackageComments wants one comment for each package, in one file.
func TestPackageComments(t *testing.T) {
	comments := map[string][]string{} // folder -> files with a package comment
	for _, s := range sources(t) {
		if s.isTest() {
			continue
		}
		files := comments[s.dir()]
		if s.file.Doc != nil {
			files = append(files, s.name)
			if first := s.file.Doc.Text(); s.file.Name.Name != "main" && !strings.HasPrefix(first, "Package "+s.file.Name.Name+" ") {
				t.Errorf("%s: the package comment begins with %q, not with \"Package %s\"", s.name, firstWords(first), s.file.Name.Name)
			}
		}
		comments[s.dir()] = files
	}
	for dir, files := range comments {
		if len(files) != 1 {
			t.Errorf("%s has %d package comments, not 1: %v", dir, len(files), files)
		}
	}
}

func firstWords(text string) string {
	return strings.Join(strings.Fields(text)[:min(3, len(strings.Fields(text)))], " ")
}

// TestDocComments wants a sentence for every exported name, which begins with
// that name where it belongs to one alone.
func TestDocComments(t *testing.T) {
	for _, s := range sources(t) {
		if s.isTest() {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) {
					checkDoc(t, d.Name, d.Doc)
				}
			case *ast.GenDecl:
				checkGroup(t, d)
			}
		}
	}
}

// exportedReceiver reports whether a function is one that other packages can
// name: of no type, or of an exported one.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return true
		}
	}
}

// checkGroup checks a declaration of types, constants or variables. For the
// latter two, a comment above the group or beside the line does.
func checkGroup(t *testing.T, d *ast.GenDecl) {
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			doc := spec.Doc
			if doc == nil && !d.Lparen.IsValid() {
				doc = d.Doc
			}
			if spec.Name.IsExported() {
				checkDoc(t, spec.Name, doc)
			}
		case *ast.ValueSpec:
			for _, name := range spec.Names {
				if name.IsExported() && spec.Doc == nil && spec.Comment == nil && d.Doc == nil {
					t.Errorf("%s: %s has no comment", positions.Position(name.Pos()), name.Name)
				}
			}
		}
	}
}

// checkDoc wants a comment that begins with the name it explains.
func checkDoc(t *testing.T, name *ast.Ident, doc *ast.CommentGroup) {
	where := positions.Position(name.Pos())
	if doc == nil || strings.TrimSpace(doc.Text()) == "" {
		t.Errorf("%s: %s has no comment", where, name.Name)
		return
	}
	words := strings.Fields(doc.Text())
	for len(words) > 1 && slices.Contains([]string{"A", "An", "The"}, words[0]) {
		words = words[1:]
	}
	first := strings.TrimSuffix(strings.TrimRight(words[0], ",.:;"), "'s")
	if first != name.Name && first != name.Name+"s" {
		t.Errorf("%s: the comment of %s begins with %q", where, name.Name, firstWords(doc.Text()))
	}
}

// banned are names that say nothing about what a package knows.
var banned = []string{"base", "common", "helper", "helpers", "internal", "lib", "manager", "misc", "models", "shared", "types", "util", "utils"}

// TestNames checks the names of packages and methods.
func TestNames(t *testing.T) {
	for _, s := range sources(t) {
		for part := range strings.SplitSeq(s.dir(), "/") {
			if slices.Contains(banned, part) {
				t.Errorf("%s: no package is called %s", s.name, part)
			}
		}
		name := strings.TrimSuffix(s.file.Name.Name, "_test")
		if name != "main" && name != path.Base(s.dir()) {
			t.Errorf("%s: package %s is not called as its folder", s.name, name)
		}
		// The interfaces of these ask for methods with Get.
		foreign := slices.ContainsFunc(s.imports(), func(p string) bool { return under(p, "maunium.net/go/mautrix") || under(p, "go.mau.fi/whatsmeow") })
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if getter.MatchString(f.Name.Name) && !foreign {
				t.Errorf("%s: %s: a method that answers bears the noun alone", positions.Position(f.Pos()), f.Name.Name)
			}
			if f.Recv == nil && f.Name.Name == "init" && !s.isTest() {
				t.Errorf("%s: no init functions", positions.Position(f.Pos()))
			}
		}
	}
}

var getter = regexp.MustCompile(`^Get[A-Z]`)

// unfinished finds work that was put off. The words are cut in two so that
// this line does not find itself.
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)

// TestFinished wants no notes of unfinished work, and no file that is too long
// to read in one sitting. Issues are where work waits.
func TestFinished(t *testing.T) {
	err := walkTree(func(name string, text []byte) error {
		switch path.Ext(name) {
		case ".go", ".sql", ".sh", ".mjs", ".js", ".yaml", ".yml", "":
		default:
			return nil
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			if m := unfinished.Find(line); m != nil && !bytes.Contains(line, []byte("context."+string(m))) && !bytes.Contains(line, []byte(`"`+string(m)+`"`)) {
				t.Errorf("%s:%d: %s", name, i+1, m)
			}
		}
		if n := bytes.Count(text, []byte("\n")); path.Ext(name) == ".go" && n > maxLines {
			t.Errorf("%s has %d lines, and may have %d", name, n, maxLines)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// maxFunction is how many lines a function may have. Aim at 80.
const maxFunction = 120

// TestFunctions wants functions that fit on a screen. Tests may be longer: a
// table or a story is read from top to bottom.
func TestFunctions(t *testing.T) {
	for _, s := range sources(t) {
		if s.isTest() {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			if n := lineOf(f.End()) - lineOf(f.Pos()) + 1; n > maxFunction {
				t.Errorf("%s: %s has %d lines, and may have %d", positions.Position(f.Pos()), f.Name.Name, n, maxFunction)
			}
		}
	}
}

func lineOf(p token.Pos) int { return positions.Position(p).Line }

// TestLeaks wants the tests of every package that starts goroutines to look for
// those that stay.
func TestLeaks(t *testing.T) {
	starts, looks, tested := map[string]string{}, map[string]bool{}, map[string]bool{}
	for _, s := range sources(t) {
		if s.isTest() {
			tested[s.dir()] = true
			looks[s.dir()] = looks[s.dir()] || slices.Contains(s.imports(), module+"/"+developers+"/leaktest")
			continue
		}
		if under(s.dir(), developers) || isTestPackage(s.dir()) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				starts[s.dir()] = positions.Position(n.Pos()).String()
			case *ast.CallExpr: // of a sync.WaitGroup or an errgroup.Group
				if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Go" {
					starts[s.dir()] = positions.Position(n.Pos()).String()
				}
			}
			return true
		})
	}
	for dir, where := range starts {
		if tested[dir] && !looks[dir] {
			t.Errorf("%s starts a goroutine (%s): its tests need a TestMain that calls leaktest.Main", dir, where)
		}
	}
}
