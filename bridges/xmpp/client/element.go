package client

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
)

// Element is an XML element as XMPP uses them: with child elements or with
// text. The name space of an element without one is its parent's; attributes
// have none, but for xml:lang, which is kept as "xml:lang".
type Element struct {
	Space, Local string
	Attr         map[string]string
	Children     []*Element
	Text         string
}

// bounds of a stanza that is read. Servers have stricter ones.
const (
	maxDepth = 64
	maxSize  = 4 << 20 // of texts, names and attributes
)

var errTooBig = errors.New("a stanza is too big or too deep")

// El makes an element. The children may be *Element, string for text, or nil,
// which is left out.
func El(space, local string, children ...any) *Element {
	e := &Element{Space: space, Local: local}
	return e.Add(children...)
}

// Add adds children as El does, and returns e.
func (e *Element) Add(children ...any) *Element {
	for _, c := range children {
		switch c := c.(type) {
		case *Element:
			if c != nil {
				e.Children = append(e.Children, c)
			}
		case string:
			e.Text += c
		}
	}
	return e
}

// Set sets attributes, given as name and value in turn, and returns e. Empty
// values are left out.
func (e *Element) Set(pairs ...string) *Element {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		if e.Attr == nil {
			e.Attr = make(map[string]string)
		}
		e.Attr[pairs[i]] = pairs[i+1]
	}
	return e
}

// Get returns the first child of a name, or nil. It may be called on nil, so
// that calls can be chained.
func (e *Element) Get(space, local string) *Element {
	if e == nil {
		return nil
	}
	for _, c := range e.Children {
		if c.Local == local && c.Space == space {
			return c
		}
	}
	return nil
}

// All returns the children of a name.
func (e *Element) All(space, local string) []*Element {
	var out []*Element
	if e != nil {
		for _, c := range e.Children {
			if c.Local == local && c.Space == space {
				out = append(out, c)
			}
		}
	}
	return out
}

// At returns an attribute, empty if there is none or e is nil.
func (e *Element) At(name string) string {
	if e == nil {
		return ""
	}
	return e.Attr[name]
}

// Content returns the text, empty if e is nil.
func (e *Element) Content() string {
	if e == nil {
		return ""
	}
	return e.Text
}

// String is the XML of the element.
func (e *Element) String() string {
	var b bytes.Buffer
	e.write(&b, "")
	return b.String()
}

// write appends the XML of an element whose parent has a name space.
func (e *Element) write(b *bytes.Buffer, parent string) {
	b.WriteByte('<')
	b.WriteString(e.Local)
	space := e.Space
	if space == "" {
		space = parent
	}
	if space != parent {
		writeAttr(b, "xmlns", space)
	}
	for _, name := range sortedKeys(e.Attr) {
		writeAttr(b, name, e.Attr[name])
	}
	if len(e.Children) == 0 && e.Text == "" {
		b.WriteString("/>")
		return
	}
	b.WriteByte('>')
	_ = xml.EscapeText(b, []byte(e.Text)) // a Buffer never fails
	for _, c := range e.Children {
		c.write(b, space)
	}
	b.WriteString("</" + e.Local + ">")
}

func writeAttr(b *bytes.Buffer, name, value string) {
	b.WriteString(" " + name + `="`)
	_ = xml.EscapeText(b, []byte(value))
	b.WriteByte('"')
}

// readElement reads the element that begins with start.
func readElement(r xml.TokenReader, start xml.StartElement) (*Element, error) {
	size := 0
	return readInto(r, start, 0, &size)
}

func readInto(r xml.TokenReader, start xml.StartElement, depth int, size *int) (*Element, error) {
	e := &Element{Space: start.Name.Space, Local: start.Name.Local}
	*size += len(e.Space) + len(e.Local)
	for _, a := range start.Attr {
		*size += len(a.Name.Local) + len(a.Value)
		switch {
		case a.Name.Local == "xmlns" || a.Name.Space == "xmlns":
		case a.Name.Space == "":
			e.Set(a.Name.Local, a.Value)
		case a.Name.Space == "xml" || a.Name.Space == "http://www.w3.org/XML/1998/namespace":
			e.Set("xml:"+a.Name.Local, a.Value)
		}
	}
	var text strings.Builder
	for {
		if depth > maxDepth || *size > maxSize {
			return nil, errTooBig
		}
		t, err := r.Token()
		if t == nil && err != nil {
			return nil, fmt.Errorf("a stanza ends early: %w", err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			child, err := readInto(r, t.Copy(), depth+1, size)
			if err != nil {
				return nil, err
			}
			e.Children = append(e.Children, child)
		case xml.CharData:
			*size += len(t)
			text.Write(t)
		case xml.EndElement:
			e.Text = text.String()
			if len(e.Children) > 0 && strings.TrimSpace(e.Text) == "" {
				e.Text = "" // mere indentation
			}
			return e, nil
		}
	}
}

// Parse reads an element from XML.
func Parse(text string) (*Element, error) {
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("no XML element: %w", err)
		}
		if start, ok := t.(xml.StartElement); ok {
			return readElement(d, start)
		}
	}
}
