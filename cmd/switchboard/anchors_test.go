package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// specVersion is the release of the specification that all URLs name.
const specVersion = "v1.19"

// citation is a URL of the specification in a comment.
var citation = regexp.MustCompile(`https://spec\.matrix\.org/([^/\s]+)/([^\s#)]*)(?:#([^\s)]*))?`)

// readAnchors reads testdata/anchors.txt: page -> anchors. cmd/dev/anchors
// writes it.
func readAnchors(t *testing.T) map[string]map[string]bool {
	t.Helper()
	text, err := os.ReadFile("testdata/anchors.txt")
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]map[string]bool{}
	var page map[string]bool
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if anchor, ok := strings.CutPrefix(line, " "); ok {
			page[anchor] = true
			continue
		}
		page = map[string]bool{}
		pages[line] = page
	}
	return pages
}

// TestAnchors wants every section of the specification that a comment names to
// exist, and the line that names it to be the last of its comment.
func TestAnchors(t *testing.T) {
	pages := readAnchors(t)
	cited := 0
	for _, s := range sources(t) {
		for _, group := range s.file.Comments {
			where := positions.Position(group.Pos())
			text := group.Text()
			for _, m := range citation.FindAllStringSubmatch(text, -1) {
				cited++
				anchors, known := pages[strings.Trim(m[2], "/")]
				switch anchor := strings.TrimRight(m[3], ".,;"); {
				case m[1] != specVersion:
					t.Errorf("%s: %s is not of %s", where, m[0], specVersion)
				case !known:
					t.Errorf("%s: the specification has no page %s", where, m[2])
				case anchor != "" && !anchors[anchor]:
					t.Errorf("%s: the page %s has no section #%s", where, m[2], anchor)
				}
			}
			if _, after, ok := strings.Cut(text, "\nSpec: "); ok && strings.Contains(strings.TrimSpace(after), "\n") && !strings.Contains(after, "\nSpec: ") {
				t.Errorf("%s: Spec: is not the last line", where)
			}
			if strings.Contains(text, "\nSpec: ") && !citation.MatchString(text) {
				t.Errorf("%s: Spec: names no URL of the specification", where)
			}
		}
	}
	if cited == 0 {
		t.Error("no comment cites the specification: the law looks at the wrong place")
	}
}
