package client

import (
	"maps"
	"slices"
	"strings"
)

// Member is a user in a channel.
type Member struct {
	Nick    string
	Modes   string // prefix modes like "ov", the strongest first
	Account string // when the network told; else empty
}

// Channel is a copy of what is known of a channel that we are in.
type Channel struct {
	Name    string // as the network writes it
	Topic   string
	Modes   map[byte]string // without lists and member modes; the argument or ""
	Members []Member        // in no order
	Synced  bool            // Members is complete
}

// Member returns the member with the given nick, compared by m.
func (c *Channel) Member(m Casemapping, nick string) (Member, bool) {
	for _, u := range c.Members {
		if m.Fold(u.Nick) == m.Fold(nick) {
			return u, true
		}
	}
	return Member{}, false
}

// channel is the live form of Channel.
type channel struct {
	name    string
	topic   string
	modes   map[byte]string
	members map[string]*Member // by folded nick
	naming  map[string]*Member // RPL_NAMREPLY so far
	synced  bool
	told    bool // Synced has been emitted
}

func (c *channel) snapshot() Channel {
	out := Channel{Name: c.name, Topic: c.topic, Modes: maps.Clone(c.modes), Synced: c.synced}
	for _, m := range c.members {
		out.Members = append(out.Members, *m)
	}
	return out
}

// setMode changes one prefix mode of a member. order lists all of them, the
// strongest first.
func (m *Member) setMode(order string, mode byte, on bool) {
	has := strings.IndexByte(m.Modes, mode) >= 0
	if has == on {
		return
	}
	var b strings.Builder
	for i := range len(order) {
		o := order[i]
		if o == mode && on || o != mode && strings.IndexByte(m.Modes, o) >= 0 {
			b.WriteByte(o)
		}
	}
	m.Modes = b.String()
}

// channelNames returns the names of the channels that a folded nick is in,
// sorted.
func (l *link) channelNames(nick string) []string {
	var names []string
	for _, ch := range l.channels {
		if ch.members[nick] != nil {
			names = append(names, ch.name)
		}
	}
	slices.Sort(names)
	return names
}

// parseName splits an entry of RPL_NAMREPLY like "@+nick!user@host".
func (l *link) parseName(entry string) *Member {
	modes, symbols := l.isupport.Prefix()
	m := &Member{}
	i := 0
	for i < len(entry) {
		at := strings.IndexByte(symbols, entry[i])
		if at < 0 {
			break
		}
		m.Modes += string(modes[at])
		i++
	}
	m.Nick, _, _ = strings.Cut(entry[i:], "!")
	return m
}
