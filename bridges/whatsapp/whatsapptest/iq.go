package whatsapptest

import (
	"strconv"
	"strings"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"
)

// result answers an iq.
func (c *conn) result(n *waBinary.Node, content ...waBinary.Node) {
	attrs := waBinary.Attrs{"from": n.Attrs["to"], "type": "result", "id": n.Attrs["id"]}
	c.send(waBinary.Node{Tag: "iq", Attrs: attrs, Content: content})
}

// refuse answers an iq with an error.
func (c *conn) refuse(n *waBinary.Node, code int, text string) {
	c.send(waBinary.Node{
		Tag: "iq", Attrs: waBinary.Attrs{"from": n.Attrs["to"], "type": "error", "id": n.Attrs["id"]},
		Content: []waBinary.Node{{Tag: "error", Attrs: waBinary.Attrs{"code": strconv.Itoa(code), "text": text}}},
	})
}

// iq answers a request.
func (c *conn) iq(n *waBinary.Node) {
	var first waBinary.Node
	if children := n.GetChildren(); len(children) > 0 {
		first = children[0]
	}
	space, _ := n.Attrs["xmlns"].(string)
	if c.device == nil && space != "md" {
		return
	}
	switch space + " " + first.Tag {
	case "md link_code_companion_reg":
		c.pairByCode(n, first)
	case "md remove-companion-device":
		c.result(n)
		c.server.Unlink(c.device.account)
	case "encrypt count":
		c.server.mu.Lock()
		count := len(c.device.oneTimeKeys)
		c.server.mu.Unlock()
		c.result(n, waBinary.Node{Tag: "count", Attrs: waBinary.Attrs{"value": strconv.Itoa(count)}})
	case "encrypt key":
		if list := c.server.bundles(first.GetChildren()); list != nil {
			c.result(n, waBinary.Node{Tag: "list", Content: list})
		} else {
			c.refuse(n, 503, "service-unavailable")
		}
	case "encrypt registration", "encrypt list", "encrypt identity", "encrypt type":
		c.takeKeys(n)
		c.result(n)
	case "usync usync":
		list := c.server.usync(first)
		c.result(n, waBinary.Node{Tag: "usync", Content: []waBinary.Node{{Tag: "list", Content: list}}})
	case "w:m media_conn":
		c.result(n, waBinary.Node{
			Tag: "media_conn", Attrs: waBinary.Attrs{"auth": "a", "ttl": "3600", "auth_ttl": "3600", "max_buckets": "12"},
			Content: []waBinary.Node{{Tag: "host", Attrs: waBinary.Attrs{"hostname": "mmg.whatsapp.net"}}},
		})
	case "privacy privacy":
		c.result(n, waBinary.Node{Tag: "privacy"})
	case "w:profile:picture picture", "w:profile:picture ":
		c.picture(n, first)
	default:
		switch space {
		case "w:g2":
			c.group(n, first)
		case "passive", "w:p", "privacy", "urn:xmpp:whatsapp:push", "urn:xmpp:whatsapp:dirty":
			c.result(n)
		default:
			c.server.unexpected(n)
			c.refuse(n, 501, "feature-not-implemented")
		}
	}
}

func bytesOf(n waBinary.Node) []byte {
	b, _ := n.Content.([]byte)
	return b
}

// takeKeys keeps the keys that a device uploads.
func (c *conn) takeKeys(n *waBinary.Node) {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	d := c.device
	d.registration, d.identity = bytesOf(n.GetChildByTag("registration")), bytesOf(n.GetChildByTag("identity"))
	d.signedKey = n.GetChildByTag("skey")
	list := n.GetChildByTag("list")
	for _, k := range list.GetChildren() {
		d.oneTimeKeys = append(d.oneTimeKeys, oneTimeKey{bytesOf(k.GetChildByTag("id")), bytesOf(k.GetChildByTag("value"))})
	}
}

// bundles are the keys to begin a session with each device asked for, or nothing
// while none are given.
func (s *Server) bundles(asked []waBinary.Node) []waBinary.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keyless {
		s.withheld++
		return nil
	}
	out := make([]waBinary.Node, 0, len(asked))
	for _, u := range asked {
		jid, _ := u.Attrs["jid"].(types.JID)
		user := waBinary.Node{Tag: "user", Attrs: waBinary.Attrs{"jid": jid}}
		d := s.device(jid)
		if d == nil {
			user.Content = []waBinary.Node{{Tag: "error", Attrs: waBinary.Attrs{"code": "404", "text": "item-not-found"}}}
			out = append(out, user)
			continue
		}
		keys := []waBinary.Node{
			{Tag: "registration", Content: d.registration}, {Tag: "type", Content: []byte{5}}, {Tag: "identity", Content: d.identity},
		}
		if len(d.oneTimeKeys) > 0 {
			k := d.oneTimeKeys[0]
			d.oneTimeKeys = d.oneTimeKeys[1:]
			keys = append(keys, waBinary.Node{Tag: "key", Content: []waBinary.Node{{Tag: "id", Content: k.id}, {Tag: "value", Content: k.public}}})
		}
		user.Content = append(keys, d.signedKey)
		out = append(out, user)
	}
	return out
}

// device finds a device by either form of its address. The caller holds mu.
func (s *Server) device(jid types.JID) *device {
	a := s.accounts[jid.User]
	if a == nil {
		return nil
	}
	lid := a.LID
	lid.Device = jid.Device
	return s.devices[lid]
}

// all are the devices of an account. The caller holds mu.
func (s *Server) all(a *Account) (list []*device) {
	for _, d := range s.devices {
		if d.account == a {
			list = append(list, d)
		}
	}
	return list
}

// companions are the linked devices of an account. The caller holds mu.
func (s *Server) companions(a *Account) (list []*device) {
	for _, d := range s.all(a) {
		if d.number > 0 {
			list = append(list, d)
		}
	}
	return list
}

// usync answers what is asked about users.
func (s *Server) usync(n waBinary.Node) []waBinary.Node {
	query, list := n.GetChildByTag("query"), n.GetChildByTag("list")
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []waBinary.Node
	for _, u := range list.GetChildren() {
		jid, known := u.Attrs["jid"].(types.JID)
		contact := bytesOf(u.GetChildByTag("contact"))
		if !known {
			phone, _, _ := strings.Cut(strings.Trim(string(contact), "+"), "@")
			jid = types.NewJID(phone, types.DefaultUserServer)
		}
		a := s.accounts[jid.User]
		user := waBinary.Node{Tag: "user", Attrs: waBinary.Attrs{"jid": jid}}
		if !known && a != nil {
			user.Attrs["jid"], user.Attrs["pn_jid"] = a.LID, a.PN
		}
		var facts []waBinary.Node
		for _, f := range query.GetChildren() {
			facts = append(facts, s.fact(f.Tag, a, contact)...)
		}
		user.Content = facts
		out = append(out, user)
	}
	return out
}

// fact is what is known of an account, which may be nil. The caller holds mu.
func (s *Server) fact(tag string, a *Account, contact []byte) []waBinary.Node {
	switch {
	case tag == "contact":
		in := "out"
		if a != nil {
			in = "in"
		}
		return []waBinary.Node{{Tag: tag, Attrs: waBinary.Attrs{"type": in}, Content: contact}}
	case a == nil:
	case tag == "lid":
		return []waBinary.Node{{Tag: tag, Attrs: waBinary.Attrs{"val": a.LID}}}
	case tag == "devices":
		var list []waBinary.Node
		for _, d := range s.all(a) {
			list = append(list, waBinary.Node{Tag: "device", Attrs: waBinary.Attrs{"id": strconv.Itoa(int(d.number))}})
		}
		return []waBinary.Node{{Tag: tag, Content: []waBinary.Node{{Tag: "device-list", Content: list}}}}
	}
	return nil
}

// announceDevices tells everybody that an account's devices have changed.
func (s *Server) announceDevices(a *Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.devices {
		if d.account == a {
			d.give(waBinary.Node{
				Tag: "notification", Attrs: waBinary.Attrs{"type": "account_sync", "from": a.PN, "id": s.id(), "t": now()},
				Content: []waBinary.Node{{Tag: "devices", Attrs: waBinary.Attrs{"dhash": "changed"}}},
			})
			continue
		}
		for _, from := range []types.JID{a.PN, a.LID} {
			d.give(waBinary.Node{
				Tag: "notification", Attrs: waBinary.Attrs{"type": "devices", "from": from, "id": s.id(), "t": now()},
				Content: []waBinary.Node{{
					Tag: "update", Attrs: waBinary.Attrs{"device_hash": "changed"},
					Content: []waBinary.Node{{Tag: "device", Attrs: waBinary.Attrs{"jid": from}}},
				}},
			})
		}
	}
}
