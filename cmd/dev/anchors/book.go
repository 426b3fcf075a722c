package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// book is the specification, page by page.
type book []page

// page is what the web shows at one address.
type page struct {
	name    string   // for example "client-server-api" or "rooms/v12"
	text    string   // Markdown, with the parts it includes
	anchors []string // in the order of the page
}

// readBook reads all pages that comments may cite, sorted by name.
func readBook(spec fs.FS) (book, error) {
	var b book
	err := fs.WalkDir(spec, "content", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch rel := strings.TrimPrefix(file, "content/"); {
		case d.IsDir() && (rel == "changelog" || path.Base(rel) == "modules" || path.Base(rel) == "fragments"):
			return fs.SkipDir // parts of other pages
		case !d.IsDir() && path.Ext(rel) == ".md":
			p, err := readPage(spec, rel)
			if err != nil {
				return err
			}
			b = append(b, p)
		}
		return nil
	})
	slices.SortFunc(b, func(x, y page) int { return strings.Compare(x.name, y.name) })
	return b, err
}

// readPage reads a page and finds its anchors.
func readPage(spec fs.FS, rel string) (page, error) {
	name := strings.TrimSuffix(strings.TrimSuffix(rel, ".md"), "/_index")
	text, err := expand(spec, path.Join("content", rel))
	if err != nil {
		return page{}, err
	}
	p := page{name: name, text: text}
	p.anchors, err = anchors(spec, text)
	if err != nil {
		return page{}, fmt.Errorf("%s: %w", rel, err)
	}
	return p, nil
}

var (
	// include is a part of the page that stands in a file of its own.
	include = regexp.MustCompile(`\{\{% (cs-module|rver-fragment) .*?%\}\}`)

	shortcode = regexp.MustCompile(`\{\{[%<]\s*/?([a-z/-]+)(.*?)[%>]\}\}`)
	attribute = regexp.MustCompile(`([a-z_]+)="([^"]*)"`)
	heading   = regexp.MustCompile(`^(#{1,6})\s+(.*?)(?:\s+#+)?\s*$`)
	ownID     = regexp.MustCompile(`\s*\{(?:#([^}]+)|id="([^"]+)")\}$`)
	htmlID    = regexp.MustCompile(`<[a-z0-9]+ [^>]*(?:id|name)="([^"]+)"`)
)

// expand reads a Markdown file and puts in what it includes.
func expand(spec fs.FS, file string) (string, error) {
	text, err := fs.ReadFile(spec, file)
	if err != nil {
		return "", err
	}
	var failed error
	out := include.ReplaceAllStringFunc(string(text), func(code string) string {
		args := attributes(code)
		part := path.Join(path.Dir(file), "fragments", args["name"]+".md")
		if strings.Contains(code, "cs-module") {
			part = path.Join(path.Dir(file), "modules", args["filename"]+".md")
		}
		inner, err := expand(spec, part)
		if err != nil {
			failed = err
		}
		return withoutFrontMatter(inner)
	})
	return withoutFrontMatter(out), failed
}

// withoutFrontMatter cuts the YAML at the top of a page.
func withoutFrontMatter(text string) string {
	if rest, ok := strings.CutPrefix(text, "---\n"); ok {
		if _, body, ok := strings.Cut(rest, "\n---\n"); ok {
			return body
		}
	}
	return text
}

// attributes returns the arguments of a shortcode.
func attributes(code string) map[string]string {
	args := map[string]string{}
	for _, m := range attribute.FindAllStringSubmatch(code, -1) {
		args[m[1]] = m[2]
	}
	return args
}

// anchors returns the anchors of a page in order: of headings, of the
// operations and events that are rendered into it, and HTML's own.
func anchors(spec fs.FS, text string) ([]string, error) {
	var found []string
	taken := map[string]bool{}
	fence := ""
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		trimmed := strings.TrimSpace(line)
		if fence != "" {
			if strings.HasPrefix(trimmed, fence) {
				fence = ""
			}
			continue
		}
		if strings.HasPrefix(trimmed, "```") || strings.HasPrefix(trimmed, "~~~") {
			fence = trimmed[:3]
			continue
		}
		for _, m := range shortcode.FindAllStringSubmatch(line, -1) {
			more, err := rendered(spec, m[1], attributes(m[2]))
			if err != nil {
				return nil, err
			}
			found = append(found, more...)
		}
		for _, m := range htmlID.FindAllStringSubmatch(line, -1) {
			found = append(found, m[1])
		}
		if m := heading.FindStringSubmatch(shortcode.ReplaceAllString(line, "")); m != nil {
			found = append(found, headingAnchor(m[2], taken))
		}
	}
	return found, lines.Err()
}

// headingAnchor names a heading as the site generator does: its own ID if it
// has one, otherwise its text, with a number if that is taken.
func headingAnchor(text string, taken map[string]bool) string {
	if m := ownID.FindStringSubmatch(text); m != nil {
		id := m[1] + m[2]
		taken[id] = true
		return id
	}
	slug := slugOf(strings.TrimSpace(text))
	name := slug
	for n := 1; taken[name]; n++ {
		name = fmt.Sprintf("%s-%d", slug, n)
	}
	taken[name] = true
	return name
}

// slugOf makes an anchor of a text, as GitHub does.
func slugOf(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z':
			return r
		default:
			return -1
		}
	}, strings.ToLower(text))
}

// rendered returns the anchors of what a shortcode puts into the page.
func rendered(spec fs.FS, code string, args map[string]string) ([]string, error) {
	switch code {
	case "http-api":
		found, err := operations(spec, path.Join("data/api", args["spec"], args["api"]+".yaml"))
		if base := args["anchor_base"]; base != "" {
			for i := range found {
				found[i] = base + "_" + found[i]
			}
		}
		return found, err
	case "event":
		return []string{slugOf(args["event"])}, nil
	case "event-group":
		return events(spec, args["group_name"])
	case "msgtypes":
		return events(spec, "m.room.message$")
	case "definition":
		return definition(spec, path.Join("data", args["path"]+".yaml"))
	default:
		return nil, nil
	}
}

// operations returns the anchors of the operations of an OpenAPI file and of
// the tables below them.
func operations(spec fs.FS, file string) ([]string, error) {
	s := &schemas{spec, map[string]any{}}
	api, err := s.file(file)
	if err != nil {
		return nil, err
	}
	base := ""
	if servers, ok := at(api, "servers").([]any); ok && len(servers) > 0 {
		base, _ = at(at(at(servers[0], "variables"), "basePath"), "default").(string)
	}
	paths, ok := at(api, "paths").(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s has no paths", file)
	}
	var found []string
	for p, methods := range paths {
		m, _ := methods.(map[string]any)
		for method, op := range m {
			// A space at the end tells two descriptions of one path apart.
			anchor := slugOf(method + base + strings.TrimSpace(p))
			tables, err := s.operation(op, file, anchor)
			if err != nil {
				return nil, err
			}
			found = append(append(found, anchor), tables...)
		}
	}
	return found, nil
}

// events returns the anchors of the event schemas whose file name has a prefix.
// A message type is shown under its own name.
func events(spec fs.FS, prefix string) ([]string, error) {
	files, err := fs.Glob(spec, "data/event-schemas/schema/*.yaml")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, file := range files {
		name := strings.TrimSuffix(path.Base(file), ".yaml")
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if _, kind, ok := strings.Cut(name, "$"); ok {
			name = kind
		}
		found = append(found, slugOf(name))
	}
	return found, nil
}

// definition returns the anchors of a schema that is shown by itself and of the
// tables below it.
func definition(spec fs.FS, file string) ([]string, error) {
	s := &schemas{spec, map[string]any{}}
	schema, err := s.file(file)
	if err != nil {
		return nil, err
	}
	title, ok := at(schema, "title").(string)
	if !ok {
		return nil, nil
	}
	whole := "definition-" + slugOf(title)
	found := []string{whole}
	titles, err := s.titles(schema, file, map[string]bool{})
	for _, inner := range titles {
		found = append(found, whole+"_"+inner)
	}
	return found, err
}

// link is a Markdown link to a section of the specification.
var link = regexp.MustCompile(`\]\((/[a-z0-9/-]*)?#([^)\s]+)\)`)

// checkLinks prints the links inside the specification that have no anchor.
func (b book) checkLinks(w io.Writer) error {
	total, broken := 0, 0
	for _, p := range b {
		for _, m := range link.FindAllStringSubmatch(p.text, -1) {
			target := strings.Trim(m[1], "/")
			if target == "" {
				target = p.name
			}
			total++
			if !b.has(target, m[2]) {
				broken++
				fmt.Fprintf(w, "%s: /%s#%s\n", p.name, target, m[2])
			}
		}
	}
	_, err := fmt.Fprintf(w, "%d of %d links have no anchor\n", broken, total)
	return err
}

// has reports whether a page has an anchor.
func (b book) has(name, anchor string) bool {
	i := slices.IndexFunc(b, func(p page) bool { return p.name == name })
	return i >= 0 && slices.Contains(b[i].anchors, anchor)
}
