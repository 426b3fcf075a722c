package xmpp

import (
	"context"
	"strings"
	"testing"

	"golang.org/x/net/html"
	"maunium.net/go/mautrix/id"
)

func TestToHTML(t *testing.T) {
	for text, want := range map[string]string{
		"plain <text>":              "",
		"*bold* and _it_ ~no~ `x*`": "<strong>bold</strong> and <em>it</em> <del>no</del> <code>x*</code>",
		"_*both*_":                  "<em><strong>both</strong></em>",
		"2*3*4 and * no * this":     "",
		"snake_case_name":           "",
		"*open":                     "",
		"**":                        "",
		"> quoted\n> more\nanswer":  "<blockquote>quoted<br>more</blockquote>answer",
		"> > deep":                  "<blockquote><blockquote>deep</blockquote></blockquote>",
		"```\na <b\n```\nafter":     "<pre><code>a &lt;b</code></pre>after",
		"```go\nnever closed":       "<pre><code>never closed</code></pre>",
	} {
		if got := toHTML(text); got != want {
			t.Errorf("%q became\n%q, want\n%q", text, got, want)
		}
	}
}

func TestToXMPP(t *testing.T) {
	mention := func(user id.UserID) string { return map[id.UserID]string{"@bob:x": "bob"}[user] }
	for formatted, want := range map[string]string{
		"<strong>bold</strong> <em>it</em> <del>no</del> <code>x</code>": "*bold* _it_ ~no~ `x`",
		`<a href="https://matrix.to/#/@bob:x">Bob</a>: hi`:               "bob: hi",
		`<a href="https://example.org/a">here</a>`:                       "here (https://example.org/a)",
		"<blockquote>q</blockquote>a":                                    "> q\na",
		"<pre><code>a\nb</code></pre>":                                   "```\na\nb\n```",
	} {
		if got := toXMPP(context.Background(), formatted, mention); got != want {
			t.Errorf("%q became %q, want %q", formatted, got, want)
		}
	}
}

// FuzzToHTML holds: nothing that somebody writes becomes another element than
// those of message styling.
func FuzzToHTML(f *testing.F) {
	f.Add("> *a* `<b>`\n```\n<script>")
	f.Fuzz(func(t *testing.T, text string) {
		z := html.NewTokenizer(strings.NewReader(toHTML(text)))
		for {
			switch z.Next() {
			case html.ErrorToken:
				return
			case html.StartTagToken, html.SelfClosingTagToken:
				name, attrs := z.TagName()
				switch string(name) {
				case "strong", "em", "del", "code", "pre", "blockquote", "br":
				default:
					t.Errorf("%q holds <%s>", text, name)
				}
				if attrs {
					t.Errorf("%q holds attributes", text)
				}
			}
		}
	})
}

func TestCheck(t *testing.T) {
	var c Config
	c.SetDefaults()
	if err := c.Check(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for name, change := range map[string]func(*Config){
		"history":       func(c *Config) { c.History = -1 },
		"max_file_size": func(c *Config) { c.MaxFileSize = 0 },
		"domain":        func(c *Config) { c.Servers = []Server{{Domain: "a@b"}} },
		"address":       func(c *Config) { c.Servers = []Server{{Domain: "b", Address: "b"}} },
		"ca_file":       func(c *Config) { c.Servers = []Server{{Domain: "b", CAFile: "/nowhere"}} },
	} {
		bad := c
		change(&bad)
		if err := bad.Check(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
