package pushrule

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"switchboard/homeserver/matrix"
)

// The bounds of a ruleset.
const (
	maxRules   = 2000 // of one kind, the server's included
	maxPattern = 1024 // bytes
	maxRuleID  = 255  // bytes
)

// Put adds a rule, or replaces one that keeps its place and whether it is
// enabled. The body is an object with actions, and conditions or a pattern as
// the kind needs. Before and after are IDs of user-defined rules, or ""; a new
// rule with neither is the most important one of the user's own. Errors are
// 400 with M_INVALID_PARAM, M_MISSING_PARAM, M_BAD_JSON, and M_UNKNOWN for a
// before or after that does not exist.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleid
func (rs *Ruleset) Put(k Kind, id string, body json.RawMessage, before, after string) error {
	if err := checkID(id); err != nil {
		return err
	}
	rule, err := readRule(k, id, body)
	if err != nil {
		return err
	}
	rules := slices.Clone(rs.rules[k])
	old := rs.index(k, id)
	if old >= 0 {
		rule.Enabled = rules[old].Enabled
		rules = slices.Delete(rules, old, old+1)
	} else if len(rules) >= maxRules {
		return matrix.Errorf(matrix.InvalidParam, "there are already %d push rules of this kind", len(rules))
	}
	place := old
	if place < 0 {
		place = rs.top(k)
	}
	// Before wins if both are given, but both must exist.
	for _, rel := range []struct {
		id     string
		offset int
	}{{after, 1}, {before, 0}} {
		if rel.id == "" || rel.id == id && old >= 0 {
			continue
		}
		i := slices.IndexFunc(rules, func(r *Rule) bool { return r.ID == rel.id && !r.Default })
		if i < 0 {
			return &matrix.Error{Code: matrix.Unknown, Status: http.StatusBadRequest, Text: "before/after rule not found: " + rel.id}
		}
		place = i + rel.offset
	}
	rs.rules[k] = slices.Insert(rules, place, rule)
	return nil
}

// checkID refuses an ID that a user-defined rule may not have.
func checkID(id string) error {
	switch {
	case id == "" || len(id) > maxRuleID:
		return matrix.Errorf(matrix.InvalidParam, "a rule ID has between 1 and %d bytes", maxRuleID)
	case id[0] == '.':
		return matrix.Errorf(matrix.InvalidParam, "rule IDs that begin with a dot are the server's")
	case strings.ContainsAny(id, `/\`):
		return matrix.Errorf(matrix.InvalidParam, "a rule ID has neither slashes nor backslashes")
	}
	return nil
}

// readRule checks the body of a new rule.
func readRule(k Kind, id string, body json.RawMessage) (*Rule, error) {
	var w struct {
		Actions    json.RawMessage    `json:"actions"`
		Conditions *[]json.RawMessage `json:"conditions"`
		Pattern    *string            `json:"pattern"`
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return nil, matrix.Errorf(matrix.BadJSON, "not a push rule: an object with actions, and conditions or a pattern")
	}
	r := &Rule{Kind: k, ID: id, Enabled: true}
	var err error
	if r.Actions, err = readActions(w.Actions); err != nil {
		return nil, err
	}
	switch {
	case k == Content && w.Pattern == nil:
		return nil, matrix.Errorf(matrix.MissingParam, "a content rule needs a pattern")
	case k == Content && len(*w.Pattern) > maxPattern:
		return nil, matrix.Errorf(matrix.InvalidParam, "a pattern may have %d bytes", maxPattern)
	case k == Content:
		r.Pattern = *w.Pattern
	case k.conditional() && w.Conditions != nil:
		for _, raw := range *w.Conditions {
			if _, err := readCondition(raw); err != nil {
				return nil, err
			}
		}
		r.Conditions = *w.Conditions
	}
	return r, nil
}

// readActions checks a list of actions and drops the historical ones.
func readActions(raw json.RawMessage) ([]json.RawMessage, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, matrix.Errorf(matrix.MissingParam, "a push rule needs actions")
	}
	var actions []json.RawMessage
	if err := json.Unmarshal(raw, &actions); err != nil {
		return nil, matrix.Errorf(matrix.InvalidParam, "actions must be an array")
	}
	actions = current(actions)
	for _, a := range actions {
		if _, _, ok := tweak(a); !ok && string(a) != `"notify"` {
			return nil, matrix.Errorf(matrix.InvalidParam, "an action is \"notify\" or an object with set_tweak")
		}
	}
	return actions, nil
}

// current drops the actions of older versions of the specification.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#historical-actions
func current(actions []json.RawMessage) []json.RawMessage {
	return slices.DeleteFunc(list(actions), func(a json.RawMessage) bool {
		return string(a) == `"dont_notify"` || string(a) == `"coalesce"`
	})
}

// Delete removes a user-defined rule. The errors are M_NOT_FOUND, and 400
// M_INVALID_PARAM for one of the server's rules.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3pushrulesglobalkindruleid
func (rs *Ruleset) Delete(k Kind, id string) error {
	r, err := rs.Rule(k, id)
	if err != nil {
		return err
	}
	if r.Default {
		return matrix.Errorf(matrix.InvalidParam, "a rule of the server can be disabled, but not deleted")
	}
	i := rs.index(k, id)
	rs.rules[k] = slices.Delete(slices.Clone(rs.rules[k]), i, i+1)
	return nil
}

// Enable turns a rule on or off. The error is M_NOT_FOUND.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidenabled
func (rs *Ruleset) Enable(k Kind, id string, on bool) error {
	return rs.change(k, id, func(r *Rule) { r.Enabled = on })
}

// SetActions replaces the actions of a rule with a JSON array. The errors are
// M_NOT_FOUND, and 400 M_INVALID_PARAM or M_MISSING_PARAM.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidactions
func (rs *Ruleset) SetActions(k Kind, id string, actions json.RawMessage) error {
	if _, err := rs.Rule(k, id); err != nil {
		return err
	}
	list, err := readActions(actions)
	if err != nil {
		return err
	}
	return rs.change(k, id, func(r *Rule) { r.Actions = list })
}

// change replaces a rule with a changed copy.
func (rs *Ruleset) change(k Kind, id string, f func(*Rule)) error {
	old, err := rs.Rule(k, id)
	if err != nil {
		return err
	}
	r := *old
	f(&r)
	rs.rules[k] = slices.Clone(rs.rules[k])
	rs.rules[k][rs.index(k, id)] = &r
	return nil
}

// CopyRoom gives a room the rules that the user has for another one, when it
// replaces that: the room rule, and override and underride rules that match
// exactly that room ID. It tells whether there was anything to copy.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
func (rs *Ruleset) CopyRoom(from, to matrix.RoomID) bool {
	copied := false
	for _, k := range []Kind{Override, Room, Underride} {
		for _, r := range rs.rules[k] {
			c := *r
			if r.Default || !c.move(from, to) || rs.index(k, string(to)) >= 0 || len(rs.rules[k]) >= maxRules {
				continue
			}
			c.ID = string(to)
			rs.rules[k] = slices.Insert(slices.Clone(rs.rules[k]), rs.index(k, r.ID), &c)
			copied = true
		}
	}
	return copied
}

// move makes a rule for one room a rule for another, or returns false if it is
// no rule for that room.
func (r *Rule) move(from, to matrix.RoomID) bool {
	if r.Kind == Room {
		return r.ID == string(from)
	}
	moved := false
	r.Conditions = slices.Clone(r.Conditions)
	for i, raw := range r.Conditions {
		w, err := readCondition(raw)
		if err != nil || w.Kind != "event_match" || *w.Key != "room_id" || *w.Pattern != string(from) {
			continue
		}
		r.Conditions[i], _ = json.Marshal(map[string]string{"kind": w.Kind, "key": *w.Key, "pattern": string(to)})
		moved = true
	}
	return moved
}
