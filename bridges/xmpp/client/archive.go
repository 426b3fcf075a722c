package client

import (
	"context"
	"strconv"
	"time"

	"mellium.im/xmpp/jid"
)

// query is a question to an archive that is being answered.
type query struct {
	of      jid.JID
	results []*Message
}

// Query is a question to an archive (XEP-0313): what came after an ID, or since
// a time, or with neither the newest.
type Query struct {
	Of    jid.JID // the room; zero for the account's own
	After string
	Since time.Time
	Max   int // of messages in the answer
}

// Page is a part of an archive, oldest first.
type Page struct {
	Messages []*Message
	Last     string // after which the next page begins; empty if there was nothing
	Complete bool   // there is nothing more
}

// Archive asks an archive. If it does not know the ID the error is a
// *StanzaError "item-not-found".
func (c *Client) Archive(ctx context.Context, q Query) (Page, error) {
	id := NewID()
	open := &query{of: q.Of}
	c.mu.Lock()
	c.queries[id] = open
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.queries, id)
		c.mu.Unlock()
	}()
	set := El(nsRSM, "set", El("", "max", strconv.Itoa(q.Max)))
	ask := El(nsMAM, "query").Set("queryid", id)
	switch {
	case q.After != "":
		set.Add(El("", "after", q.After))
	case !q.Since.IsZero():
		ask.Add(El(nsForms, "x",
			El("", "field", El("", "value", nsMAM)).Set("var", "FORM_TYPE", "type", "hidden"),
			El("", "field", El("", "value", q.Since.UTC().Format(time.RFC3339))).Set("var", "start"),
		).Set("type", "submit"))
	default:
		set.Add(El("", "before"))
	}
	answer, err := c.Ask(ctx, "set", q.Of, ask.Add(set))
	if err != nil {
		return Page{}, err
	}
	fin := answer.Get(nsMAM, "fin")
	c.mu.Lock()
	defer c.mu.Unlock()
	return Page{
		Messages: open.results, Last: fin.Get(nsRSM, "set").Get(nsRSM, "last").Content(),
		Complete: fin.At("complete") == "true" || fin.At("complete") == "1",
	}, nil
}

// onResult takes a message from an archive, if it comes from the one that was
// asked.
func (c *Client) onResult(e, result *Element) {
	inner, at := forwarded(result)
	c.mu.Lock()
	q := c.queries[result.At("queryid")]
	c.mu.Unlock()
	if q == nil || inner == nil {
		return
	}
	if q.of.Equal(jid.JID{}) {
		if !c.fromServer(e) {
			return
		}
	} else if e.At("from") != q.of.Bare().String() {
		return
	}
	m := c.parse(inner, at)
	if m == nil {
		return
	}
	m.Archive, m.Old = result.At("id"), true
	if !at.IsZero() {
		m.Time = at
	}
	if j, err := jid.Parse(inner.Get(nsMUCUser, "x").Get(nsMUCUser, "item").At("jid")); err == nil && m.Type == "groupchat" {
		m.Account = j.Bare() // rooms let nobody write this themselves into what they keep
	}
	m.Sent = q.of.Equal(jid.JID{}) && m.From.Bare().Equal(c.Account())
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(q.results) < maxPage {
		q.results = append(q.results, m)
	}
}

// maxPage bounds what an archive can make us keep for one question.
const maxPage = 1000
