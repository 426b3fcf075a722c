package pushrule

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"switchboard/homeserver/matrix"
)

// RoomInfo is what rules ask about the room, as one user sees it.
type RoomInfo struct {
	Members     int    // how many have joined
	DisplayName string // the user's own in this room; "" for none

	// SenderMayNotify tells whether the event's sender has the power level
	// for a key of "notifications" in m.room.power_levels, such as "room".
	// nil means no.
	SenderMayNotify func(key string) bool
}

// Actions are what the first rule that matches says.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#actions
type Actions struct {
	Notify    bool
	Highlight bool
	Sound     string // "" for none

	// Kind and Rule name the rule that matched; both are empty if none did.
	Kind Kind
	Rule string

	// List are all actions of the rule, a JSON array. It is shared.
	List json.RawMessage
}

// Tweaks is the "tweaks" object of a push notification, or nil if there are
// none. A highlight with no value is true.
//
// Spec: https://spec.matrix.org/v1.19/push-gateway-api/#post_matrixpushv1notify
func (a Actions) Tweaks() map[string]json.RawMessage {
	var tweaks map[string]json.RawMessage
	for _, raw := range cut(string(a.List)) {
		name, value, ok := tweak(raw)
		if !ok {
			continue
		}
		if tweaks == nil {
			tweaks = make(map[string]json.RawMessage)
		}
		tweaks[name] = value
	}
	return tweaks
}

// tweak reads a set_tweak action.
func tweak(raw json.RawMessage) (name string, value json.RawMessage, ok bool) {
	var a struct {
		Name  string          `json:"set_tweak"`
		Value json.RawMessage `json:"value"`
	}
	if len(raw) == 0 || raw[0] != '{' || json.Unmarshal(raw, &a) != nil || a.Name == "" {
		return "", nil, false
	}
	if a.Value == nil {
		a.Value = json.RawMessage("null")
		if a.Name == "highlight" {
			a.Value = json.RawMessage("true")
		}
	}
	return a.Name, a.Value, true
}

// Compiled is a user's ruleset made ready for matching. It does not change, so
// it may be kept and shared. One with default rules only is a few words large.
type Compiled struct {
	user, folded string
	rules        []compiledRule
}

// compiledRule is an enabled rule.
type compiledRule struct {
	conditions []condition
	actions    *Actions
}

// common are the compiled predefined rules that all users share.
var common = sync.OnceValue(func() (c struct {
	enabled []compiledRule
	byID    map[string]compiledRule
}) {
	c.byID = make(map[string]compiledRule, len(predefined))
	for _, p := range predefined {
		r := compiledRule{actions: compileActions(p.kind, p.id, cut(p.actions))}
		for _, raw := range cut(p.conditions) {
			r.conditions = append(r.conditions, compilePredefined(raw))
		}
		c.byID[p.id] = r
		if p.enabled() {
			c.enabled = append(c.enabled, r)
		}
	}
	return c
})

// DefaultCompiled is Default(user).Compile() without its cost.
func DefaultCompiled(user matrix.UserID) *Compiled {
	return &Compiled{user: string(user), folded: fold(string(user)), rules: common().enabled}
}

// Compile makes the ruleset ready for matching. Later edits do not change the
// result.
func (rs *Ruleset) Compile() *Compiled {
	c := DefaultCompiled(rs.user)
	if rs.untouched() {
		return c
	}
	c.rules = nil
	for _, k := range kinds {
		for _, r := range rs.rules[k] {
			if r.Enabled {
				c.rules = append(c.rules, r.compile())
			}
		}
	}
	return c
}

// untouched tells whether the ruleset is as Default made it.
func (rs *Ruleset) untouched() bool {
	n := 0
	for _, k := range kinds {
		n += len(rs.rules[k])
	}
	if n != len(predefined) {
		return false
	}
	for _, p := range predefined {
		i := rs.index(p.kind, p.id)
		if i < 0 || rs.rules[p.kind][i].Enabled != p.enabled() || !slices.EqualFunc(rs.rules[p.kind][i].Actions, cut(p.actions), same) {
			return false
		}
	}
	return true
}

func same(a, b json.RawMessage) bool { return string(a) == string(b) }

func (r *Rule) compile() compiledRule {
	actions := compileActions(r.Kind, r.ID, r.Actions)
	if r.Default {
		return compiledRule{common().byID[r.ID].conditions, actions}
	}
	out := compiledRule{actions: actions}
	switch r.Kind {
	case Content:
		out.conditions = []condition{at("content.body", condition{op: matchesWords, glob: compileGlob(r.Pattern)})}
	case Room:
		v := ofText(r.ID)
		out.conditions = []condition{at("room_id", condition{op: is, value: &v})}
	case Sender:
		v := ofText(r.ID)
		out.conditions = []condition{at("sender", condition{op: is, value: &v})}
	default:
		for _, raw := range r.Conditions {
			out.conditions = append(out.conditions, compile(raw))
		}
	}
	return out
}

func compileActions(k Kind, id string, list []json.RawMessage) *Actions {
	a := &Actions{Kind: k, Rule: id}
	texts := make([]string, len(list))
	for i, raw := range list {
		texts[i] = string(raw)
		if texts[i] == `"notify"` {
			a.Notify = true
		}
	}
	a.List = json.RawMessage("[" + strings.Join(texts, ",") + "]")
	tweaks := a.Tweaks()
	if v := parse(tweaks["sound"]); v.kind == text {
		a.Sound = v.text
	}
	v := parse(tweaks["highlight"])
	a.Highlight = v.kind == boolean && v.truth
	return a
}

// Match finds the most important rule that matches the event and returns what
// it says. The zero Actions mean that no rule matched, or that the user is the
// event's own sender.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#push-rules
func (c *Compiled) Match(e *Event, room RoomInfo) Actions {
	if string(e.fields.Sender) == c.user {
		return Actions{}
	}
rules:
	for i := range c.rules {
		r := &c.rules[i]
		for j := range r.conditions {
			if !r.conditions[j].holds(e, c, &room) {
				continue rules
			}
		}
		return *r.actions
	}
	return Actions{}
}
