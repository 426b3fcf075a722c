package whatsapptest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.mau.fi/whatsmeow"
	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"
)

// group is a group chat.
type group struct {
	jid      types.JID
	subject  string
	topic    waBinary.Node // description, or nothing
	members  []*member
	announce bool // only admins may write
	locked   bool // only admins may change name, description and picture
}

type member struct {
	account *Account
	admin   bool
}

func (g *group) find(a *Account) int {
	return slices.IndexFunc(g.members, func(m *member) bool { return m.account == a })
}

func (g *group) has(a *Account) bool { return g.find(a) >= 0 }

func (g *group) admin(a *Account) bool { return g.has(a) && g.members[g.find(a)].admin }

// allows reports whether a member may ask for what a tag says.
func (g *group) allows(a *Account, tag string) bool {
	return g.admin(a) || !g.locked && (tag == "subject" || tag == "description" || tag == "picture")
}

func (g *group) node() waBinary.Node {
	content := g.people(g.members)
	if g.topic.Tag != "" {
		content = append(content, g.topic)
	}
	if g.announce {
		content = append(content, waBinary.Node{Tag: "announcement"})
	}
	if g.locked {
		content = append(content, waBinary.Node{Tag: "locked"})
	}
	return waBinary.Node{Tag: "group", Attrs: waBinary.Attrs{
		"id": g.jid.User, "subject": g.subject, "s_t": "1700000000", "creation": "1700000000",
		"addressing_mode": "lid", "size": strconv.Itoa(len(g.members)),
	}, Content: content}
}

func (g *group) people(list []*member) []waBinary.Node {
	var out []waBinary.Node
	for _, m := range list {
		attrs := waBinary.Attrs{"jid": m.account.LID, "phone_number": m.account.PN}
		if m.admin {
			attrs["type"] = "admin"
		}
		out = append(out, waBinary.Node{Tag: "participant", Attrs: attrs})
	}
	return out
}

// group answers a request about groups.
func (c *conn) group(n *waBinary.Node, what waBinary.Node) {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	to, _ := n.Attrs["to"].(types.JID)
	if to == types.GroupServerJID {
		c.groups(n, what)
		return
	}
	g := s.groups[to]
	switch {
	case g == nil:
		c.refuse(n, 404, "item-not-found")
		return
	case !g.has(c.device.account):
		c.refuse(n, 403, "forbidden")
		return
	case what.Tag == "query":
		c.result(n, g.node())
		return
	case !g.allows(c.device.account, what.Tag):
		c.refuse(n, 401, "not-authorized")
		return
	}
	switch what.Tag {
	case "subject":
		g.subject = string(bytesOf(what))
		s.tellGroup(g, c.device.account, nil, waBinary.Node{Tag: "subject", Attrs: waBinary.Attrs{"subject": g.subject, "s_t": now()}})
		c.result(n)
	case "description":
		what.Attrs["t"] = now()
		g.topic = what
		s.tellGroup(g, c.device.account, nil, what)
		c.result(n)
	case "announcement", "not_announcement":
		g.announce = what.Tag == "announcement"
		s.tellGroup(g, c.device.account, nil, waBinary.Node{Tag: what.Tag, Attrs: waBinary.Attrs{"v_id": s.id()}})
		c.result(n)
	case "locked", "unlocked":
		g.locked = what.Tag == "locked"
		s.tellGroup(g, c.device.account, nil, what)
		c.result(n)
	case "add", "remove", "promote", "demote":
		c.result(n, s.changeMembers(g, c.device.account, what))
	default:
		s.surprise = append(s.surprise, n.String())
		c.refuse(n, 501, "feature-not-implemented")
	}
}

// groups answers a request that is not about one group. The server's mu is held.
func (c *conn) groups(n *waBinary.Node, what waBinary.Node) {
	s := c.server
	switch what.Tag {
	case "participating":
		var list []waBinary.Node
		for _, g := range s.groups {
			if g.has(c.device.account) {
				list = append(list, g.node())
			}
		}
		c.result(n, waBinary.Node{Tag: "groups", Content: list})
	case "leave":
		for _, child := range what.GetChildren() {
			jid, _ := child.Attrs["id"].(types.JID)
			if g := s.groups[jid]; g != nil && g.has(c.device.account) {
				i := g.find(c.device.account)
				gone := g.members[i : i+1 : i+1]
				s.tellGroup(g, c.device.account, nil, waBinary.Node{Tag: "remove", Content: g.people(gone)})
				g.members = slices.Delete(g.members, i, i+1)
			}
		}
		c.result(n)
	case "invite":
		code, _ := what.Attrs["code"].(string)
		g := s.groups[types.NewJID(strings.TrimPrefix(code, "code"), types.GroupServer)]
		if g == nil {
			c.refuse(n, 406, "not-acceptable")
			return
		}
		if !g.has(c.device.account) {
			m := &member{account: c.device.account}
			g.members = append(g.members, m)
			s.tellGroup(g, c.device.account, nil, waBinary.Node{Tag: "add", Attrs: waBinary.Attrs{"reason": "invite"}, Content: g.people([]*member{m})})
		}
		c.result(n, waBinary.Node{Tag: "group", Attrs: waBinary.Attrs{"jid": g.jid}})
	case "create":
		subject, _ := what.Attrs["subject"].(string)
		members := []*Account{c.device.account}
		for _, p := range what.GetChildrenByTag("participant") {
			jid, _ := p.Attrs["jid"].(types.JID)
			if a := s.accounts[jid.User]; a != nil {
				members = append(members, a)
			}
		}
		c.result(n, s.newGroup(subject, members...).node())
	default:
		s.surprise = append(s.surprise, n.String())
		c.refuse(n, 501, "feature-not-implemented")
	}
}

// changeMembers adds, removes, promotes or demotes, and returns who it was. The
// caller holds mu.
func (s *Server) changeMembers(g *group, by *Account, what waBinary.Node) waBinary.Node {
	var changed []*member
	var refused []waBinary.Node
	for _, p := range what.GetChildrenByTag("participant") {
		jid, _ := p.Attrs["jid"].(types.JID)
		a := s.accounts[jid.User]
		if a == nil {
			continue
		}
		i := g.find(a)
		switch {
		case what.Tag == "add" && a.Private:
			refused = append(refused, waBinary.Node{Tag: "participant", Attrs: waBinary.Attrs{"jid": a.LID, "error": "403"}})
		case what.Tag == "add" && i < 0:
			m := &member{account: a}
			g.members = append(g.members, m)
			changed = append(changed, m)
		case i < 0:
		case what.Tag == "remove":
			changed = append(changed, g.members[i])
		default:
			g.members[i].admin = what.Tag == "promote"
			changed = append(changed, g.members[i])
		}
	}
	answer := waBinary.Node{Tag: what.Tag, Content: append(refused, g.people(changed)...)}
	if len(changed) == 0 {
		return answer
	}
	if what.Tag == "add" {
		for _, m := range changed {
			s.tellGroup(g, by, m.account, waBinary.Node{Tag: "create", Content: []waBinary.Node{g.node()}})
		}
	}
	s.tellGroup(g, by, nil, waBinary.Node{Tag: what.Tag, Content: g.people(changed)})
	if what.Tag == "remove" {
		g.members = slices.DeleteFunc(g.members, func(m *member) bool { return slices.Contains(changed, m) })
	}
	return answer
}

// tellGroup gives a notification to the devices of one member, or of all. The
// caller holds mu.
func (s *Server) tellGroup(g *group, by, only *Account, what waBinary.Node) {
	for _, m := range g.members {
		if only != nil && m.account != only {
			continue
		}
		for _, d := range s.all(m.account) {
			d.give(waBinary.Node{Tag: "notification", Attrs: waBinary.Attrs{
				"type": "w:gp2", "from": g.jid, "participant": by.LID, "participant_pn": by.PN,
				"id": s.id(), "t": now(), "notify": by.Name,
			}, Content: []waBinary.Node{what}})
		}
	}
}

// Group makes a group and tells its members; the first is its admin.
func (s *Server) Group(subject string, members ...*Account) types.JID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newGroup(subject, members...).jid
}

// newGroup is Group for who holds mu.
func (s *Server) newGroup(subject string, members ...*Account) *group {
	g := &group{jid: types.NewJID(fmt.Sprintf("1203630000%d", len(s.groups)), types.GroupServer), subject: subject}
	for i, a := range members {
		g.members = append(g.members, &member{account: a, admin: i == 0})
	}
	s.groups[g.jid] = g
	s.tellGroup(g, members[0], nil, waBinary.Node{Tag: "create", Content: []waBinary.Node{g.node()}})
	return g
}

// Link is the invitation link of a group.
func (s *Server) Link(jid types.JID) string { return whatsmeow.InviteLinkPrefix + "code" + jid.User }

// Restrict lets only admins of a group write, and change what it is, though
// nobody is told.
func (s *Server) Restrict(jid types.JID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups[jid].announce, s.groups[jid].locked = true, true
}

// Members are the people of a group, by their LID, and whether they are admins.
func (s *Server) Members(jid types.JID) map[types.JID]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[types.JID]bool)
	for _, m := range s.groups[jid].members {
		out[m.account.LID] = m.admin
	}
	return out
}

// Subject is the name of a group.
func (s *Server) Subject(jid types.JID) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.groups[jid].subject
}

// Topic is the description of a group.
func (s *Server) Topic(jid types.JID) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(bytesOf(s.groups[jid].topic.GetChildByTag("body")))
}

// picture is the picture of a user or group.
type picture struct{ id, path string }

// SetPicture sets the picture of a user (by LID) or group, or with nil removes
// it, and tells everybody.
func (s *Server) SetPicture(of types.JID, image []byte) {
	path := s.keep(image)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setPicture(of, image != nil, path)
}

// setPicture is SetPicture for who holds mu, with an image that is kept.
func (s *Server) setPicture(of types.JID, set bool, path string) string {
	id := s.id()
	what := waBinary.Node{Tag: "set", Attrs: waBinary.Attrs{"jid": of, "id": id}}
	if set {
		s.pictures[of] = picture{id, path}
	} else {
		delete(s.pictures, of)
		what = waBinary.Node{Tag: "delete", Attrs: waBinary.Attrs{"jid": of}}
	}
	for _, d := range s.devices {
		if g := s.groups[of]; g != nil && !g.has(d.account) {
			continue
		}
		d.give(waBinary.Node{
			Tag: "notification", Attrs: waBinary.Attrs{"type": "picture", "from": of, "id": s.id(), "t": now()}, Content: []waBinary.Node{what},
		})
	}
	return id
}

// Picture is the picture of a user or group, or nil.
func (s *Server) Picture(of types.JID) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.media[s.pictures[of].path]
}

// picture answers a request about a picture.
func (c *conn) picture(n *waBinary.Node, what waBinary.Node) {
	s := c.server
	of, _ := n.Attrs["target"].(types.JID)
	if n.Attrs["type"] == "set" {
		path := s.keep(bytesOf(what))
		s.mu.Lock()
		if g := s.groups[of]; g != nil && !g.allows(c.device.account, "picture") {
			s.mu.Unlock()
			c.refuse(n, 401, "not-authorized")
			return
		}
		id := s.setPicture(of, what.Tag != "", path)
		s.mu.Unlock()
		c.result(n, waBinary.Node{Tag: "picture", Attrs: waBinary.Attrs{"id": id}})
		return
	}
	s.mu.Lock()
	if a := s.accounts[of.User]; a != nil {
		of = a.LID
	}
	p, ok := s.pictures[of]
	s.mu.Unlock()
	switch {
	case !ok:
		c.refuse(n, 404, "item-not-found")
	case what.Attrs["id"] == p.id:
		c.result(n)
	default:
		c.result(n, waBinary.Node{Tag: "picture", Attrs: waBinary.Attrs{
			"id": p.id, "type": "image", "url": "https://pps.whatsapp.net" + p.path + "?x=1", "direct_path": p.path + "?x=1",
		}})
	}
}
