package client

import (
	"strings"

	"github.com/ergochat/irc-go/ircmsg"
)

// batch is an open IRCv3 batch.
type batch struct {
	kind   string
	params []string
	label  string // of the request that a labeled-response batch answers
	parent string
	nicks  map[string][]string // of a netsplit or netjoin, by channel
}

// onBatch opens and closes batches.
func (l *link) onBatch(m *ircmsg.Message, fx *effects) {
	if len(m.Params) == 0 || len(m.Params[0]) < 2 {
		return
	}
	ref := m.Params[0][1:]
	if m.Params[0][0] == '+' && len(m.Params) > 1 {
		b := &batch{kind: strings.ToLower(m.Params[1]), params: m.Params[2:]}
		_, b.label = m.GetTag("label")
		_, b.parent = m.GetTag("batch")
		l.batches[ref] = b
		return
	}
	b := l.batches[ref]
	if b == nil {
		return
	}
	delete(l.batches, ref)
	if i := l.byLabel(b.label); i >= 0 {
		l.finish(i, fx)
	}
	if len(b.nicks) > 0 && len(b.params) >= 2 {
		fx.emit(NetSplit{Servers: [2]string{b.params[0], b.params[1]}, Healed: b.kind == "netjoin", Nicks: b.nicks})
	}
}

// batchOf returns the batch of the given kind that a message belongs to, also
// through batches around its own.
func (l *link) batchOf(m *ircmsg.Message, kind string) *batch {
	_, ref := m.GetTag("batch")
	for range 8 { // batches nest, but nobody may make us loop
		b := l.batches[ref]
		if b == nil || b.kind == kind {
			return b
		}
		ref = b.parent
	}
	return nil
}

func (b *batch) add(channel, nick string) {
	if b.nicks == nil {
		b.nicks = make(map[string][]string)
	}
	b.nicks[channel] = append(b.nicks[channel], nick)
}

// splitServers recognizes the reason of a QUIT by which servers without
// batches tell a net split: the names of the two servers that lost each other.
func splitServers(reason string) (servers [2]string, ok bool) {
	a, b, ok := strings.Cut(reason, " ")
	if !ok || !isServerName(a) || !isServerName(b) || a == b {
		return servers, false
	}
	return [2]string{a, b}, true
}

func isServerName(s string) bool {
	dot := strings.LastIndexByte(s, '.')
	if dot <= 0 || dot == len(s)-1 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '*' || c == '_') {
			return false
		}
	}
	return true
}
