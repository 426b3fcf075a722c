package irc

import (
	"fmt"
	"html"
	"regexp"
	"strings"

	"github.com/ergochat/irc-go/ircfmt"
)

// hexColour matches the code for 24-bit colours, which the library takes for
// text. Matrix has such colours, but hardly anybody uses the code.
var hexColour = regexp.MustCompile("\x04(?:[0-9a-fA-F]{6}(?:,[0-9a-fA-F]{6})?)?")

// link matches addresses in a text.
var link = regexp.MustCompile(`\bhttps?://[^\s<>"\x00-\x1f]+`)

// fromIRC turns a text with IRC formatting into the plain text of a Matrix
// message and, if there is any formatting, its HTML; else formatted is empty.
func fromIRC(text string) (plain, formatted string) {
	text = hexColour.ReplaceAllString(text, "")
	chunks := ircfmt.Split(text)
	var p, f strings.Builder
	styled := false
	for _, c := range chunks {
		c.Content = strings.Map(printable, c.Content)
		p.WriteString(c.Content)
		if c.IsFormatted() {
			styled = true
		}
		writeChunk(&f, c)
	}
	if styled {
		formatted = f.String()
	}
	return p.String(), formatted
}

// printable drops control characters.
func printable(r rune) rune {
	if r == '\t' {
		return ' '
	}
	if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 {
		return -1
	}
	return r
}

// writeChunk writes one piece of text in the elements of its formatting.
func writeChunk(b *strings.Builder, c ircfmt.FormattedSubstring) {
	fg, bg := c.ForegroundColor, c.BackgroundColor
	if c.ReverseColor {
		fg, bg = bg, fg
	}
	var closing string
	open := func(tag, attributes string) {
		b.WriteString("<" + tag + attributes + ">")
		closing = "</" + tag + ">" + closing
	}
	switch {
	case fg.IsSet && fg == bg: // unreadable on purpose
		open("span", " data-mx-spoiler")
	case fg.IsSet && bg.IsSet:
		open("span", fmt.Sprintf(` data-mx-color="%s" data-mx-bg-color="%s"`, colour(fg.Value), colour(bg.Value)))
	case fg.IsSet:
		open("span", fmt.Sprintf(` data-mx-color="%s"`, colour(fg.Value)))
	case bg.IsSet:
		open("span", fmt.Sprintf(` data-mx-bg-color="%s"`, colour(bg.Value)))
	}
	for _, s := range []struct {
		on  bool
		tag string
	}{{c.Bold, "strong"}, {c.Italic, "em"}, {c.Underline, "u"}, {c.Strikethrough, "del"}, {c.Monospace, "code"}} {
		if s.on {
			open(s.tag, "")
		}
	}
	if c.Monospace {
		b.WriteString(html.EscapeString(c.Content))
	} else {
		writeLinked(b, c.Content)
	}
	b.WriteString(closing)
}

// writeLinked writes a text with its addresses as links.
func writeLinked(b *strings.Builder, text string) {
	for {
		at := link.FindStringIndex(text)
		if at == nil {
			b.WriteString(html.EscapeString(text))
			return
		}
		address := strings.TrimRight(text[at[0]:at[1]], ".,;:!?'")
		if strings.HasSuffix(address, ")") && !strings.Contains(address, "(") {
			address = strings.TrimSuffix(address, ")")
		}
		b.WriteString(html.EscapeString(text[:at[0]]))
		escaped := html.EscapeString(address)
		b.WriteString(`<a href="` + escaped + `">` + escaped + `</a>`)
		text = text[at[0]+len(address):]
	}
}

// colour is the RGB value of a colour number as most clients show it.
//
// See https://modern.ircdocs.horse/formatting#colors
func colour(n uint8) string {
	if int(n) < len(colours) {
		return "#" + colours[n]
	}
	return "#000000"
}

var colours = [...]string{
	"ffffff", "000000", "00007f", "009300", "ff0000", "7f0000", "9c009c", "fc7f00",
	"ffff00", "00fc00", "009393", "00ffff", "0000fc", "ff00ff", "7f7f7f", "d2d2d2",
	"470000", "472100", "474700", "324700", "004700", "00472c", "004747", "002747", "000047", "2e0047", "470047", "47002a",
	"740000", "743a00", "747400", "517400", "007400", "007449", "007474", "004074", "000074", "4b0074", "740074", "740045",
	"b50000", "b56300", "b5b500", "7db500", "00b500", "00b571", "00b5b5", "0063b5", "0000b5", "7500b5", "b500b5", "b5006b",
	"ff0000", "ff8c00", "ffff00", "b2ff00", "00ff00", "00ffa0", "00ffff", "008cff", "0000ff", "a500ff", "ff00ff", "ff0098",
	"ff5959", "ffb459", "ffff71", "cfff60", "6fff6f", "65ffc9", "6dffff", "59b4ff", "5959ff", "c459ff", "ff66ff", "ff59bc",
	"ff9c9c", "ffd39c", "ffff9c", "e2ff9c", "9cff9c", "9cffdb", "9cffff", "9cd3ff", "9c9cff", "dc9cff", "ff9cff", "ff94d3",
	"000000", "131313", "282828", "363636", "4d4d4d", "656565", "818181", "9f9f9f", "bcbcbc", "e2e2e2", "ffffff",
}
