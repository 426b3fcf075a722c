package pushrule

import (
	"encoding/json"
	"fmt"
	"strings"

	"switchboard/homeserver/matrix"
)

// Kind is one of the five lists of rules in a ruleset.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#push-rules
type Kind string

// The kinds, in the order in which they are checked.
const (
	Override  Kind = "override"
	Content   Kind = "content"
	Room      Kind = "room"
	Sender    Kind = "sender"
	Underride Kind = "underride"
)

var kinds = [...]Kind{Override, Content, Room, Sender, Underride}

// ParseKind accepts the name of a kind as it stands in a path.
func ParseKind(s string) (Kind, error) {
	for _, k := range kinds {
		if s == string(k) {
			return k, nil
		}
	}
	return "", matrix.Errorf(matrix.InvalidParam, "%q is no kind of push rule", s)
}

// conditional tells whether rules of the kind have conditions.
func (k Kind) conditional() bool { return k == Override || k == Underride }

// Rule is one push rule.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#push-rules
type Rule struct {
	Kind    Kind
	ID      string
	Default bool // one of the server's rules, whose IDs begin with a dot
	Enabled bool

	Pattern    string            // content rules only
	Conditions []json.RawMessage // override and underride rules only; objects
	Actions    []json.RawMessage // strings and objects, without historical ones
}

// MarshalJSON writes the rule as clients see it: conditions and a pattern only
// where the kind has them.
func (r *Rule) MarshalJSON() ([]byte, error) {
	w := wireRule{ID: r.ID, Default: r.Default, Enabled: r.Enabled, Actions: list(r.Actions)}
	if r.Kind.conditional() {
		c := list(r.Conditions)
		w.Conditions = &c
	}
	if r.Kind == Content {
		w.Pattern = &r.Pattern
	}
	return json.Marshal(w)
}

type wireRule struct {
	ID         string             `json:"rule_id"`
	Default    bool               `json:"default"`
	Enabled    bool               `json:"enabled"`
	Pattern    *string            `json:"pattern,omitempty"`
	Conditions *[]json.RawMessage `json:"conditions,omitempty"`
	Actions    []json.RawMessage  `json:"actions"`
}

// list makes an absent list an empty one, as clients want it.
func list(l []json.RawMessage) []json.RawMessage {
	if l == nil {
		return []json.RawMessage{}
	}
	return l
}

// Ruleset holds all rules of one user, each list in order of importance. It
// must not be edited while another goroutine uses it.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#push-rules
type Ruleset struct {
	user  matrix.UserID
	rules map[Kind][]*Rule
}

// Default makes the ruleset of a user who never changed it.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#predefined-rules
func Default(user matrix.UserID) *Ruleset {
	rs := &Ruleset{user: user, rules: make(map[Kind][]*Rule, len(kinds))}
	me, _ := json.Marshal(string(user))
	for _, p := range predefined {
		rs.rules[p.kind] = append(rs.rules[p.kind], &Rule{
			Kind: p.kind, ID: p.id, Default: true, Enabled: p.enabled(),
			Conditions: cut(strings.ReplaceAll(p.conditions, userMark, string(me))),
			Actions:    cut(p.actions),
		})
	}
	return rs
}

// cut takes a JSON array apart.
func cut(s string) []json.RawMessage {
	l := []json.RawMessage{}
	elements([]byte(s), func(raw []byte) { l = append(l, raw) })
	return l
}

// Parse reads what MarshalJSON wrote, perhaps with an older version of the
// server: of the server's own rules only the user's changes are kept, and
// their text is today's.
func Parse(user matrix.UserID, data []byte) (*Ruleset, error) {
	var stored struct {
		Global map[Kind][]wireRule `json:"global"`
	}
	if err := json.Unmarshal(data, &stored); err != nil {
		return nil, fmt.Errorf("parse push rules of %s: %w", user, err)
	}
	rs := Default(user)
	for _, k := range kinds {
		var own []*Rule
		for _, w := range stored.Global[k] {
			actions := current(w.Actions)
			if !strings.HasPrefix(w.ID, ".") {
				own = append(own, w.rule(k, actions))
			} else if i := rs.index(k, w.ID); i >= 0 {
				rs.rules[k][i].Enabled = w.Enabled
				rs.rules[k][i].Actions = actions
			}
		}
		at := rs.top(k)
		rs.rules[k] = append(append(rs.rules[k][:at:at], own...), rs.rules[k][at:]...)
	}
	return rs, nil
}

func (w *wireRule) rule(k Kind, actions []json.RawMessage) *Rule {
	r := &Rule{Kind: k, ID: w.ID, Enabled: w.Enabled, Actions: actions}
	if w.Pattern != nil {
		r.Pattern = *w.Pattern
	}
	if w.Conditions != nil {
		r.Conditions = *w.Conditions
	}
	return r
}

// MarshalJSON writes the content of the user's m.push_rules account data, with
// the server's rules included.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#push-rules-events
func (rs *Ruleset) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]json.Marshaler{"global": global{rs}})
}

// Global writes the rules without the "global" around them.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobal
func (rs *Ruleset) Global() (json.RawMessage, error) { return global{rs}.MarshalJSON() }

type global struct{ *Ruleset }

// MarshalJSON writes all five lists, empty ones too.
func (g global) MarshalJSON() ([]byte, error) {
	all := make(map[Kind][]*Rule, len(kinds))
	for _, k := range kinds {
		all[k] = append([]*Rule{}, g.rules[k]...)
	}
	return json.Marshal(all)
}

// Rules lists the rules of a kind in order of importance. They must not be
// changed.
func (rs *Ruleset) Rules(k Kind) []*Rule { return rs.rules[k] }

// Rule finds a rule; it must not be changed. The error is M_NOT_FOUND.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleid
func (rs *Ruleset) Rule(k Kind, id string) (*Rule, error) {
	if i := rs.index(k, id); i >= 0 {
		return rs.rules[k][i], nil
	}
	return nil, matrix.Errorf(matrix.NotFound, "The push rule was not found.")
}

// index is the place of a rule in its list, or -1.
func (rs *Ruleset) index(k Kind, id string) int {
	for i, r := range rs.rules[k] {
		if r.ID == id {
			return i
		}
	}
	return -1
}

// top is the place of the most important user-defined rule: before the
// server's rules, but for the master rule, which is before all.
func (rs *Ruleset) top(k Kind) int {
	if l := rs.rules[k]; len(l) > 0 && l[0].ID == masterRule {
		return 1
	}
	return 0
}
