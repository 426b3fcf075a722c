// Package policylist knows what moderation policy lists say: the rules that
// stand in the state of a room, and which users, servers and rooms they mean. It
// does not know which lists are followed, nor what is done to those who are on
// them.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#moderation-policy-lists
package policylist

import (
	"encoding/json"
	"iter"
	"slices"
	"strings"

	"switchboard/homeserver/matrix"
)

// Kind is what a rule is about.
type Kind uint8

// The kinds of rules.
const (
	User Kind = iota
	Server
	Room
	kinds
)

// kindOf are the types of events that are rules, those of Mjolnir before the
// specification had them included.
var kindOf = map[string]Kind{
	"m.policy.rule.user": User, "m.policy.rule.server": Server, "m.policy.rule.room": Room,
	"m.room.rule.user": User, "m.room.rule.server": Server, "m.room.rule.room": Room,
	"org.matrix.mjolnir.rule.user": User, "org.matrix.mjolnir.rule.server": Server, "org.matrix.mjolnir.rule.room": Room,
}

// Rule is a ban of what a pattern means: a user ID, a server name, or a room ID
// or alias, in which * stands for any characters and ? for one.
type Rule struct {
	Kind   Kind
	Entity string
}

// Parse reads the rule in a state event. It answers false for what is no rule,
// and for rules that recommend something else than a ban.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mban-recommendation
func Parse(typ string, content json.RawMessage) (Rule, bool) {
	kind, ok := kindOf[typ]
	if !ok {
		return Rule{}, false
	}
	var c struct {
		Entity         string `json:"entity"`
		Recommendation string `json:"recommendation"`
	}
	if json.Unmarshal(content, &c) != nil || c.Entity == "" || c.Recommendation != "m.ban" && c.Recommendation != "org.matrix.mjolnir.ban" {
		return Rule{}, false
	}
	if kind == Server {
		c.Entity = strings.ToLower(c.Entity)
	}
	return Rule{kind, c.Entity}, true
}

// Rules are rules in a form in which they are found fast. They do not change.
type Rules [kinds]table

// table holds the patterns of one kind: those without wildcards by themselves,
// the others by the text behind their last wildcard, as most differ there.
type table struct {
	exact   map[string]bool
	globs   map[string][]string
	lengths []int // of the keys of globs
}

// New makes rules of a list of them.
func New(list iter.Seq[Rule]) *Rules {
	r := &Rules{}
	for rule := range list {
		r[rule.Kind].add(rule.Entity)
	}
	return r
}

func (t *table) add(pattern string) {
	if t.exact == nil {
		t.exact, t.globs = map[string]bool{}, map[string][]string{}
	}
	i := strings.LastIndexAny(pattern, "*?")
	if i < 0 {
		t.exact[pattern] = true
		return
	}
	end := pattern[i+1:]
	t.globs[end] = append(t.globs[end], pattern)
	if !slices.Contains(t.lengths, len(end)) {
		t.lengths = append(t.lengths, len(end))
	}
}

func (t *table) matches(entity string) bool {
	if t.exact[entity] {
		return true
	}
	for _, n := range t.lengths {
		if n > len(entity) {
			continue
		}
		for _, pattern := range t.globs[entity[len(entity)-n:]] {
			if matrix.Glob(pattern, entity) {
				return true
			}
		}
	}
	return false
}

// BansServer tells whether a rule means a server, with its port or without.
func (r *Rules) BansServer(server matrix.ServerName) bool {
	name := strings.ToLower(string(server))
	return r[Server].matches(name) || r[Server].matches(matrix.ServerName(name).Host())
}

// BansUser tells whether a rule means a user or the user's server.
func (r *Rules) BansUser(user matrix.UserID) bool {
	return r[User].matches(string(user)) || r.BansServer(user.Server())
}

// BansRoom tells whether a rule means a room.
func (r *Rules) BansRoom(room matrix.RoomID) bool { return r[Room].matches(string(room)) }

// BansAlias tells whether a rule means a room by an alias.
func (r *Rules) BansAlias(alias matrix.RoomAlias) bool { return r[Room].matches(string(alias)) }
