package client

import (
	"fmt"
	"strconv"

	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
)

// take handles one element of the stream.
func (c *Client) take(s *xmpp.Session, e *Element) error {
	if e.Space == nsSM {
		return c.manage(s, e)
	}
	if e.Space != nsClient {
		return nil
	}
	switch e.Local {
	case "message":
		c.onMessage(e)
	case "presence":
		c.onPresence(e)
	case "iq":
		c.onIQ(e)
	default:
		return nil
	}
	c.mu.Lock()
	c.sm.in++
	c.mu.Unlock()
	return nil
}

// manage handles the elements of XEP-0198.
func (c *Client) manage(s *xmpp.Session, e *Element) error {
	switch e.Local {
	case "enabled":
		c.mu.Lock()
		c.sm.in = 0
		if resume := e.At("resume"); resume == "true" || resume == "1" {
			c.sm.id = e.At("id")
		}
		c.mu.Unlock()
	case "failed":
		c.mu.Lock()
		c.sm.on = false
		lost := c.sm.unacked
		c.sm.unacked = nil
		c.mu.Unlock()
		for _, o := range lost {
			if o.done != nil {
				o.done(nil) // the stream is up, and nobody counts
			}
		}
	case "r":
		c.mu.Lock()
		h := c.sm.in
		c.mu.Unlock()
		c.writing.Lock()
		defer c.writing.Unlock()
		return write(s, []byte(El(nsSM, "a").Set("h", strconv.FormatUint(uint64(h), 10)).String()))
	case "a":
		h, err := strconv.ParseUint(e.At("h"), 10, 32)
		if err != nil {
			return fmt.Errorf("the server's count of stanzas is %q", e.At("h"))
		}
		c.acknowledged(uint32(h))
	}
	return nil
}

// fromServer reports whether a stanza comes from the account itself, for which its
// server speaks.
func (c *Client) fromServer(e *Element) bool {
	from := e.At("from")
	return from == "" || from == c.Account().String()
}

// onIQ answers requests and hands out answers.
func (c *Client) onIQ(e *Element) {
	switch e.At("type") {
	case "result", "error":
		c.onAnswer(e)
		return
	case "set":
		if q := e.Get(nsRoster, "query"); q != nil && c.fromServer(e) {
			c.reply(e, nil)
			for _, item := range q.All(nsRoster, "item") {
				if it, ok := rosterItem(item); ok {
					c.handle(RosterChanged{it})
				}
			}
			return
		}
	case "get":
		switch {
		case e.Get(nsPing, "ping") != nil:
			c.reply(e, nil)
			return
		case e.Get(nsDisco, "query") != nil:
			node := e.Get(nsDisco, "query").At("node")
			c.reply(e, identity().Set("node", node))
			return
		case e.Get(nsVersion, "query") != nil:
			c.reply(e, El(nsVersion, "query", El("", "name", "Switchboard")))
			return
		}
	}
	refusal := El(nsClient, "error", El(nsStanzas, "service-unavailable")).Set("type", "cancel")
	c.Send(El(nsClient, "iq", refusal).Set("type", "error", "id", e.At("id"), "to", e.At("from")), nil)
}

func (c *Client) reply(e, payload *Element) {
	c.Send(El(nsClient, "iq", payload).Set("type", "result", "id", e.At("id"), "to", e.At("from")), nil)
}

// onAnswer hands an answer to who asked. Only the one who was asked may answer;
// for the account its server does, under three names.
func (c *Client) onAnswer(e *Element) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from, id := e.At("from"), e.At("id")
	names := []string{from}
	if from == "" || from == c.config.JID.Bare().String() || from == c.config.JID.Domainpart() || from == c.own.String() {
		names = append(names, "", c.config.JID.Bare().String())
	}
	for _, name := range names {
		if answer, ok := c.asks[id+" "+name]; ok {
			delete(c.asks, id+" "+name)
			answer <- e
			return
		}
	}
}

// onPresence sorts presences: of rooms that we are in or enter, and of contacts.
func (c *Client) onPresence(e *Element) {
	from, err := jid.Parse(e.At("from"))
	if err != nil {
		return
	}
	if c.onRoomPresence(e, from) {
		return
	}
	switch e.At("type") {
	case "subscribe":
		c.handle(Subscribe{from.Bare()})
	case "", "unavailable":
		p := Presence{From: from, Available: e.At("type") == "", Nick: e.Get(nsNick, "nick").Content()}
		if x := e.Get(nsVCardX, "x"); x != nil {
			if photo := x.Get(nsVCardX, "photo"); photo != nil {
				p.Photo, p.HasPhoto = photo.Text, true
			}
		}
		c.handle(p)
	}
}
