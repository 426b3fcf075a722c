package media

import (
	"bytes"
	"encoding/json"
	"io"
	"net/url"
	"strings"
	"unicode"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
	"golang.org/x/net/html/charset"
)

// page is what a page on the web says of itself.
type page struct {
	graph  map[string]string // Open Graph properties, the first of each
	title  string            // of the head
	about  string            // the description for search engines
	image  string            // an image that stands for the page
	oembed string            // where it describes itself as oEmbed
	base   *url.URL          // what links start from
}

// longestText bounds a text of a preview, in characters.
const longestText = 1000

// readPage reads the head of an HTML page, and its body only as far as that
// gives what the head does not. Content is the Content-Type, which may name the
// encoding.
func readPage(b []byte, content string, at *url.URL) *page {
	p := &page{graph: map[string]string{}, base: at}
	var r io.Reader = bytes.NewReader(b)
	if decoded, err := charset.NewReader(r, content); err == nil {
		r = decoded
	}
	z := html.NewTokenizer(r)
	inTitle := false
	for {
		switch z.Next() {
		case html.ErrorToken:
			return p
		case html.TextToken:
			if inTitle && p.title == "" {
				p.title = plainText(string(z.Text()))
			}
		case html.EndTagToken:
			inTitle = false
		case html.StartTagToken, html.SelfClosingTagToken:
			t := z.Token()
			switch t.DataAtom {
			case atom.Title:
				inTitle = true
			case atom.Script, atom.Style, atom.Svg:
				inTitle = false
			case atom.Meta, atom.Link, atom.Base:
				p.note(t)
			}
		}
	}
}

// note takes what an element of the head says.
func (p *page) note(t html.Token) {
	a := map[string]string{}
	for _, x := range t.Attr {
		if _, known := a[x.Key]; !known {
			a[x.Key] = strings.TrimSpace(x.Val)
		}
	}
	rel := strings.ToLower(a["rel"])
	switch {
	case t.DataAtom == atom.Base:
		if u, err := p.base.Parse(a["href"]); err == nil {
			p.base = u
		}
	case t.DataAtom == atom.Link && rel == "alternate" && strings.EqualFold(a["type"], "application/json+oembed"):
		p.oembed = a["href"]
	case t.DataAtom == atom.Link && (rel == "image_src" || rel == "apple-touch-icon") && p.image == "":
		p.image = a["href"]
	case t.DataAtom == atom.Meta:
		name := strings.ToLower(a["property"])
		if name == "" {
			name = strings.ToLower(a["name"])
		}
		name = strings.Replace(name, "twitter:", "og:", 1)
		text := plainText(a["content"])
		switch {
		case text == "":
		case name == "description":
			p.about = text
		case strings.HasPrefix(name, "og:") && len(name) <= 64 && len(p.graph) < mostProperties && p.graph[name] == "":
			p.graph[name] = text
		}
	}
}

// mostProperties bounds the properties of a preview.
const mostProperties = 40

// plainText is a text on one line, without what cannot be seen, and not longer
// than a preview needs.
func plainText(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > longestText {
		s = string(r[:longestText]) + "…"
	}
	return s
}

// properties are the properties of the preview, without its image, and where
// that is.
func (p *page) properties() (graph map[string]any, image string) {
	graph = map[string]any{}
	for name, text := range p.graph {
		if !strings.HasPrefix(name, "og:image") {
			graph[name] = text
		}
	}
	for name, text := range map[string]string{"og:title": p.title, "og:description": p.about} {
		if graph[name] == nil && text != "" {
			graph[name] = text
		}
	}
	for _, image := range []string{p.graph["og:image:secure_url"], p.graph["og:image"], p.graph["og:image:url"], p.graph["og:image:src"], p.image} {
		if image != "" {
			return graph, image
		}
	}
	return graph, ""
}

// readOEmbed takes what an oEmbed answer says and the page does not.
//
// Source: https://oembed.com
func (p *page) readOEmbed(b []byte) {
	var o struct {
		Type      string `json:"type"`
		Title     string `json:"title"`
		Author    string `json:"author_name"`
		Provider  string `json:"provider_name"`
		Thumbnail string `json:"thumbnail_url"`
		URL       string `json:"url"`
	}
	if json.Unmarshal(b, &o) != nil {
		return
	}
	if o.Type == "photo" && o.Thumbnail == "" {
		o.Thumbnail = o.URL
	}
	for name, text := range map[string]string{"og:title": o.Title, "og:site_name": o.Provider, "og:image": o.Thumbnail, "og:description": o.Author} {
		if p.graph[name] == "" && text != "" {
			p.graph[name] = plainText(text)
		}
	}
}
