package whatsapptest

import (
	"slices"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"
)

// message takes a message, passes to each device what is encrypted for it, and
// says that it is done.
func (c *conn) message(n *waBinary.Node) {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	to, _ := n.Attrs["to"].(types.JID)
	ack := waBinary.Node{Tag: "ack", Attrs: waBinary.Attrs{"class": "message", "id": n.Attrs["id"], "from": to, "t": now()}}
	if s.deaf {
		ack.Attrs["error"] = "479"
		c.send(ack)
		return
	}
	if g := s.groups[to]; g != nil && (!g.has(c.device.account) || g.announce && !g.admin(c.device.account)) {
		ack.Attrs["error"] = "420"
		c.send(ack)
		return
	}
	var common []waBinary.Node // for all
	for _, child := range n.GetChildren() {
		if child.Tag == "enc" || child.Tag == "device-identity" {
			common = append(common, child)
		}
	}
	for d, own := range s.targets(c.device, n, to) {
		content := append(own, common...)
		if d.number > 0 && d.account != c.device.account && d.account.garble {
			d.account.garble = false
			content = garbled(content)
		}
		d.give(waBinary.Node{Tag: "message", Attrs: s.envelope(c.device, d, n, to), Content: content})
	}
	c.send(ack)
}

// garbled returns the parts of a message with one bit of what is encrypted
// changed.
func garbled(content []waBinary.Node) (out []waBinary.Node) {
	for _, part := range content {
		if b := bytesOf(part); part.Tag == "enc" {
			b = slices.Clone(b)
			b[len(b)-1] ^= 1
			part.Content = b
		}
		out = append(out, part)
	}
	return out
}

// targets are the devices that a message is for, with what is for them alone.
// The caller holds mu.
func (s *Server) targets(sender *device, n *waBinary.Node, to types.JID) map[*device][]waBinary.Node {
	out := make(map[*device][]waBinary.Node)
	if one, ok := n.Attrs["participant"].(types.JID); ok { // again, for who could not read it
		if d := s.device(one); d != nil {
			out[d] = nil
		}
		return out
	}
	participants, ok := n.GetOptionalChildByTag("participants")
	if !ok {
		if d := s.device(to); d != nil {
			out[d] = nil
		}
		return out
	}
	for _, p := range participants.GetChildren() {
		jid, _ := p.Attrs["jid"].(types.JID)
		if d := s.device(jid); d != nil {
			out[d] = append([]waBinary.Node(nil), p.GetChildren()...)
		}
	}
	if g := s.groups[to]; g != nil {
		for _, m := range g.members {
			for _, d := range s.all(m.account) {
				if _, already := out[d]; !already && d != sender {
					out[d] = nil
				}
			}
		}
	}
	return out
}

// envelope is what stands on a message. The caller holds mu.
func (s *Server) envelope(from, to *device, n *waBinary.Node, chat types.JID) waBinary.Attrs {
	attrs := waBinary.Attrs{
		"id": n.Attrs["id"], "type": n.Attrs["type"], "t": now(), "notify": from.account.Name, "addressing_mode": "lid",
	}
	for _, same := range []string{"edit", "category"} {
		if v, ok := n.Attrs[same]; ok {
			attrs[same] = v
		}
	}
	if chat.Server == types.GroupServer {
		attrs["from"], attrs["participant"], attrs["participant_pn"] = chat, from.jid(), from.account.PN
		return attrs
	}
	attrs["from"] = from.jid()
	if to.account != from.account {
		attrs["sender_pn"] = from.account.PN
	} else if peer := s.accounts[chat.User]; peer != nil && attrs["category"] == nil {
		attrs["recipient"], attrs["peer_recipient_pn"] = peer.LID, peer.PN
	}
	return attrs
}

// receipt takes a receipt: it confirms the message to the server, and goes to
// the devices of who wrote it and the reader's others.
func (c *conn) receipt(n *waBinary.Node) {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirm(c.device, "message", n.Attrs["id"])
	kind, _ := n.Attrs["type"].(string)
	c.send(waBinary.Node{Tag: "ack", Attrs: waBinary.Attrs{"class": "receipt", "id": n.Attrs["id"], "from": n.Attrs["to"]}})
	to, _ := n.Attrs["to"].(types.JID)
	switch kind {
	case "sender", "peer_msg", "hist_sync":
		return
	}
	author := to
	attrs := waBinary.Attrs{"id": n.Attrs["id"], "t": now(), "from": c.device.jid()}
	if kind != "" {
		attrs["type"] = kind
	}
	if to.Server == types.GroupServer {
		attrs["from"], attrs["participant"] = to, c.device.jid()
		author, _ = n.Attrs["participant"].(types.JID)
	}
	s.passReceipt(c.device, author, attrs, n.Content)
	if kind == "read" {
		own := waBinary.Attrs{"id": n.Attrs["id"], "t": now(), "from": attrs["from"], "type": kind}
		if to.Server == types.GroupServer {
			own["participant"] = c.device.jid()
		} else {
			own["recipient"] = to.ToNonAD()
		}
		s.passReceipt(c.device, c.device.account.LID, own, n.Content)
	}
}

// passReceipt gives a receipt to a device, or to all of a user's but the one
// that it comes from. The caller holds mu.
func (s *Server) passReceipt(from *device, to types.JID, attrs waBinary.Attrs, content any) {
	receipt := waBinary.Node{Tag: "receipt", Attrs: attrs, Content: content}
	if attrs["type"] == "retry" {
		if d := s.device(to); d != nil {
			d.give(receipt)
		}
		return
	}
	a := s.accounts[to.User]
	if a == nil {
		return
	}
	for _, d := range s.all(a) {
		if d != from {
			d.give(receipt)
		}
	}
}

// chatstate passes on that somebody types, to who is online.
func (c *conn) chatstate(n *waBinary.Node) {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	to, _ := n.Attrs["to"].(types.JID)
	attrs := waBinary.Attrs{"from": c.device.account.LID}
	var hear []*device
	if g := s.groups[to]; g != nil {
		attrs["from"], attrs["participant"] = to, c.device.account.LID
		for _, m := range g.members {
			hear = append(hear, s.all(m.account)...)
		}
	} else if a := s.accounts[to.User]; a != nil {
		hear = s.all(a)
	}
	for _, d := range hear {
		if d.account != c.device.account && d.online && d.conn != nil {
			d.conn.send(waBinary.Node{Tag: "chatstate", Attrs: attrs, Content: n.Content})
		}
	}
}
