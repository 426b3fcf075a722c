package eventauth

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
)

// Level is a power level. Levels of rooms before version 6 that do not fit are
// cut to the nearest that does.
type Level int64

// Infinite is the power level of the creators of a room of version 12 and later:
// above every other level, and not below itself.
const Infinite Level = math.MaxInt64

// String writes the level as a number, or "infinite".
func (l Level) String() string {
	if l == Infinite {
		return "infinite"
	}
	return strconv.FormatInt(int64(l), 10)
}

// scalar counts the levels that stand alone in the content.
type scalar int

const (
	usersDefault scalar = iota
	eventsDefault
	stateDefault
	ban
	redact
	kick
	invite
	scalars
)

// scalarNames and scalarDefaults are in the order of the constants.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels
var (
	scalarNames    = [scalars]string{"users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"}
	scalarDefaults = [scalars]Level{0, 0, 50, 50, 50, 50, 0}
)

// PowerLevels are the levels of one room. They do not change, so they may be
// kept and shared.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels
type PowerLevels struct {
	creators []matrix.UserID // with infinite power
	lone     [scalars]Level
	given    [scalars]bool // which of lone stand in the event

	users         map[matrix.UserID]Level
	events        map[string]Level
	notifications map[string]Level
}

// ParsePowerLevels reads the levels of a room from its create event and its
// power levels event, which is nil if the room has none. It answers an *Error
// for a power levels event that the room version does not allow.
func ParsePowerLevels(create, pl *event.PDU) (*PowerLevels, error) {
	p := &PowerLevels{}
	if pl == nil {
		p.lone = scalarDefaults
	} else {
		var err error
		if p, err = parseLevels(pl, false); err != nil {
			return nil, err
		}
	}
	switch {
	case create == nil:
	case create.Version.CreatorsInfinite:
		additional, _ := additionalCreators(create)
		p.creators = append(additional, create.Sender)
	case pl == nil && create.Version.CreatorFromSender:
		p.users = map[matrix.UserID]Level{create.Sender: 100}
	case pl == nil:
		p.users = map[matrix.UserID]Level{matrix.UserID(create.ContentString("creator")): 100}
	}
	return p, nil
}

// User is the level of a user.
func (p *PowerLevels) User(user matrix.UserID) Level {
	for _, c := range p.creators {
		if c == user {
			return Infinite
		}
	}
	if l, ok := p.users[user]; ok {
		return l
	}
	return p.lone[usersDefault]
}

// Event is the level that sending events of a type needs, as state or not.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#definitions
func (p *PowerLevels) Event(typ string, state bool) Level {
	if l, ok := p.events[typ]; ok {
		return l
	}
	if state {
		return p.lone[stateDefault]
	}
	return p.lone[eventsDefault]
}

// Events are the levels of the types of events that are listed. They are not to
// be changed.
func (p *PowerLevels) Events() map[string]Level { return p.events }

// Ban is the level that banning needs.
func (p *PowerLevels) Ban() Level { return p.lone[ban] }

// Invite is the level that inviting needs.
func (p *PowerLevels) Invite() Level { return p.lone[invite] }

// Kick is the level that removing a user needs.
func (p *PowerLevels) Kick() Level { return p.lone[kick] }

// Redact is the level that redacting other users' events needs.
func (p *PowerLevels) Redact() Level { return p.lone[redact] }

// UsersDefault is the level of users that are not listed.
func (p *PowerLevels) UsersDefault() Level { return p.lone[usersDefault] }

// Notification is the level that notifying by a key needs; "room" is @room.
func (p *PowerLevels) Notification(key string) Level {
	if l, ok := p.notifications[key]; ok {
		return l
	}
	return 50
}

// parseLevels reads a power levels event. It is rules 10.1 to 10.3. Before room
// version 10 these rules only know "users", so a room's state may hold other
// values that are no levels; check refuses them in a new event, and without it
// they count as missing.
func parseLevels(pl *event.PDU, check bool) (*PowerLevels, error) {
	p := &PowerLevels{lone: scalarDefaults}
	strict := pl.Version.IntegerPowerLevels
	check = check || strict
	for key, value := range canonjson.Fields(pl.Content) {
		var ok bool
		switch string(key) {
		case "users":
			if p.users, ok = parseUsers(value, strict); !ok && check {
				return nil, reject("10.3", "users is no object of user IDs and integers")
			}
		case "events":
			if p.events, ok = parseTable(value, strict); !ok && check {
				return nil, reject("10.2", "events is no object of integers")
			}
		case "notifications":
			if p.notifications, ok = parseTable(value, strict); !ok && check && pl.Version.NotificationsAuth {
				return nil, reject("10.2", "notifications is no object of integers")
			}
		default:
			i := slices.Index(scalarNames[:], string(key))
			if i < 0 {
				continue
			}
			level, ok := parseLevel(value, strict)
			if !ok && check {
				return nil, reject("10.1", scalarNames[i]+" is no integer")
			}
			if ok {
				p.lone[i], p.given[i] = level, true
			}
		}
	}
	return p, nil
}

// parseUsers reads the levels of users. Where it answers false, the map has those
// that are right.
func parseUsers(obj []byte, strict bool) (map[matrix.UserID]Level, bool) {
	if !canonjson.IsObject(obj) {
		return nil, false
	}
	levels, good := make(map[matrix.UserID]Level, bytes.Count(obj, []byte(`":`))), true
	for key, value := range canonjson.Fields(obj) {
		l, ok := parseLevel(value, strict)
		user := canonjson.Key(key)
		if !ok || !isUser(user) {
			good = false
			continue
		}
		levels[matrix.UserID(user)] = l
	}
	return levels, good
}

// parseTable reads an object of levels. Where it answers false, the map has those
// that are right.
func parseTable(obj []byte, strict bool) (map[string]Level, bool) {
	if !canonjson.IsObject(obj) {
		return nil, false
	}
	levels, good := make(map[string]Level, 16), true
	for key, value := range canonjson.Fields(obj) {
		l, ok := parseLevel(value, strict)
		if !ok {
			good = false
			continue
		}
		levels[canonjson.Key(key)] = l
	}
	return levels, good
}

// isUser takes what servers have always taken as a user ID in power levels: it
// has "@" and ":". Rooms hold such events, so a stricter reading of rule 10.3
// would split us from them.
func isUser(s string) bool {
	return strings.HasPrefix(s, "@") && strings.Contains(s, ":")
}

// parseLevel reads one level: an integer, or unless strict also a string that
// holds one or a float.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v1/#mroompower_levels-events-accept-values-as-strings
func parseLevel(value []byte, strict bool) (Level, bool) {
	if n, ok := canonjson.Int(value); ok {
		return finite(n), true
	}
	if strict || len(value) == 0 {
		return 0, false
	}
	if value[0] == '"' {
		s, _ := canonjson.Text(value)
		return parseInt(strings.TrimSpace(s))
	}
	if strings.ContainsAny(string(value), ".eE") && (value[0] == '-' || value[0] >= '0' && value[0] <= '9') {
		f, err := strconv.ParseFloat(string(value), 64)
		if err != nil {
			return 0, false
		}
		switch {
		case f >= math.MaxInt64:
			return Infinite - 1, true
		case f <= math.MinInt64:
			return math.MinInt64, true
		}
		return finite(int64(f)), true
	}
	return parseInt(string(value))
}

// parseInt reads decimal digits with an optional sign.
func parseInt(s string) (Level, bool) {
	digits := strings.TrimPrefix(s, "-")
	if len(digits) == len(s) {
		digits = strings.TrimPrefix(s, "+")
	}
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, _ := strconv.ParseInt(s, 10, 64) // the only error is of the range, and gives the nearest
	return finite(n), true
}

// finite keeps a level that stands in an event below Infinite.
func finite(n int64) Level { return min(Level(n), Infinite-1) }
