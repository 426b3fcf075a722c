package pushrule

import (
	"encoding/json"
	"strconv"
	"strings"

	"switchboard/homeserver/matrix"
)

// op is what a compiled condition does.
type op uint8

const (
	never         op = iota // a kind we do not know
	equals                  // the folded text
	matches                 // the glob, on the whole text
	matchesWords            // the glob, on words of the body
	isUser                  // the user's own ID, without case
	is                      // exactly the value
	contains                // an array with the value
	containsUser            // an array with the user's own ID
	containsOwner           // the body has the user's display name
	countMembers
	mayNotify
)

// condition is a compiled condition of a rule.
type condition struct {
	op     op
	field  field
	path   []string // where field is fieldElsewhere
	text   string   // folded pattern, or key of the permission
	glob   glob
	value  *value
	member comparison
}

// wireCondition is a condition as clients write it.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#conditions-1
type wireCondition struct {
	Kind    string          `json:"kind"`
	Key     *string         `json:"key"`
	Pattern *string         `json:"pattern"`
	Is      *string         `json:"is"`
	Value   json.RawMessage `json:"value"`
}

// need names the first of a condition's required parameters that is missing.
func (w *wireCondition) need() string {
	switch w.Kind {
	case "event_match":
		if w.Pattern == nil {
			return "pattern"
		}
	case "event_property_is", "event_property_contains":
		if w.Value == nil {
			return "value"
		}
	case "sender_notification_permission":
	case "room_member_count":
		if w.Is == nil {
			return "is"
		}
		return ""
	default:
		return ""
	}
	if w.Key == nil {
		return "key"
	}
	return ""
}

// readCondition takes a condition from a client. A kind that is not known is
// no error: it never matches.
func readCondition(raw json.RawMessage) (*wireCondition, error) {
	w := new(wireCondition)
	if err := json.Unmarshal(raw, w); err != nil || w.Kind == "" {
		return nil, matrix.Errorf(matrix.InvalidParam, "a condition must be an object with a kind")
	}
	if name := w.need(); name != "" {
		return nil, matrix.Errorf(matrix.MissingParam, "the condition %s needs %q", w.Kind, name)
	}
	if w.Pattern != nil && len(*w.Pattern) > maxPattern {
		return nil, matrix.Errorf(matrix.InvalidParam, "a pattern may have %d bytes", maxPattern)
	}
	if w.Kind == "room_member_count" {
		if _, ok := parseComparison(*w.Is); !ok {
			return nil, matrix.Errorf(matrix.InvalidParam, "%q is no comparison with a number", *w.Is)
		}
	}
	if strings.HasPrefix(w.Kind, "event_property_") {
		if v := parse(w.Value); v.kind == array || v.kind == object || v.kind == other {
			return nil, matrix.Errorf(matrix.InvalidParam, "the value of %s must be a string, an integer, a boolean or null", w.Kind)
		}
	}
	return w, nil
}

// compilePredefined is compile for the predefined rules: what stands for the
// user's ID in them becomes a comparison with whoever the user is.
func compilePredefined(raw json.RawMessage) condition {
	w, err := readCondition(raw)
	switch {
	case err != nil:
	case w.Kind == "event_match" && *w.Pattern == marked:
		return at(*w.Key, condition{op: isUser})
	case w.Kind == "event_property_contains" && string(w.Value) == userMark:
		return at(*w.Key, condition{op: containsUser})
	}
	return compile(raw)
}

// compile makes a condition ready for matching.
func compile(raw json.RawMessage) condition {
	w, err := readCondition(raw)
	if err != nil {
		return condition{op: never}
	}
	switch w.Kind {
	case "event_match":
		return compileMatch(*w.Key, *w.Pattern)
	case "event_property_is":
		v := parse(w.Value)
		return at(*w.Key, condition{op: is, value: &v})
	case "event_property_contains":
		v := parse(w.Value)
		return at(*w.Key, condition{op: contains, value: &v})
	case "contains_display_name":
		return condition{op: containsOwner, field: fieldBody}
	case "room_member_count":
		cmp, _ := parseComparison(*w.Is)
		return condition{op: countMembers, member: cmp}
	case "sender_notification_permission":
		return condition{op: mayNotify, text: *w.Key}
	}
	return condition{op: never}
}

// marked is userMark as text.
var marked = strings.Trim(userMark, `"`)

func compileMatch(key, pattern string) condition {
	switch {
	case key == "content.body":
		return at(key, condition{op: matchesWords, glob: compileGlob(pattern)})
	case strings.ContainsAny(pattern, "*?"):
		return at(key, condition{op: matches, glob: compileGlob(pattern)})
	}
	return at(key, condition{op: equals, text: fold(pattern)})
}

// at gives a condition the property it looks at.
func at(key string, c condition) condition {
	if c.field = numbered[key]; c.field == fieldElsewhere {
		c.path = splitPath(key)
	}
	return c
}

// holds tells whether the condition is true of the event in the room.
func (c *condition) holds(e *Event, me *Compiled, room *RoomInfo) bool {
	switch c.op {
	case never:
		return false
	case countMembers:
		return c.member.holds(room.Members)
	case mayNotify:
		return room.SenderMayNotify != nil && room.SenderMayNotify(c.text)
	}
	v := &e.values[c.field]
	if c.field == fieldElsewhere {
		found := e.property(c.path)
		v = &found
	}
	switch c.op {
	case is:
		return v.is(c.value)
	case contains:
		return v.has(c.value)
	case containsUser:
		return v.hasText(me.user)
	}
	if v.kind != text {
		return false
	}
	switch c.op {
	case equals:
		return v.folded == c.text
	case matches:
		return c.glob.all(v.folded)
	case matchesWords:
		return c.glob.words(v.folded)
	case isUser:
		return v.folded == me.folded
	case containsOwner:
		return containsName(v.folded, room.DisplayName)
	}
	return false
}

// has tells whether an array has exactly the scalar w.
func (v *value) has(w *value) bool {
	for i := range v.items {
		if v.items[i].is(w) {
			return true
		}
	}
	return false
}

func (v *value) hasText(s string) bool {
	for i := range v.items {
		if v.items[i].kind == text && v.items[i].text == s {
			return true
		}
	}
	return false
}

// comparison is the "is" of a room_member_count condition.
type comparison struct {
	op string // "==", "<", ">", ">=" or "<="
	n  int64
}

func parseComparison(s string) (comparison, bool) {
	op := "=="
	for _, p := range []string{"==", ">=", "<=", "<", ">"} {
		if rest, ok := strings.CutPrefix(s, p); ok {
			op, s = p, rest
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 53)
	return comparison{op, int64(n)}, err == nil
}

func (c comparison) holds(members int) bool {
	m := int64(members)
	switch c.op {
	case "<":
		return m < c.n
	case ">":
		return m > c.n
	case "<=":
		return m <= c.n
	case ">=":
		return m >= c.n
	}
	return m == c.n
}
