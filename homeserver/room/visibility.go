package room

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// Seen is an event that a user may see.
type Seen struct {
	*store.Event
	Membership string // of the user when the event came
}

// sightKey and sight are what of a state decides whether a user sees an event.
type sightKey struct {
	root statetree.ID
	user matrix.UserID
}

type sight struct {
	history    string // history_visibility
	membership string
}

// sight reads from the state with a root what decides about user.
func (s *Service) sight(ctx context.Context, root statetree.ID, user matrix.UserID) (sight, error) {
	key := sightKey{root, user}
	if st, ok := s.roots.Find(key); ok {
		return st, nil
	}
	v := s.view(ctx, root)
	st := sight{history: v.content("m.room.history_visibility", "history_visibility"), membership: v.membership(user)}
	switch st.history {
	case "world_readable", "shared", "invited", "joined":
	default:
		st.history = "shared"
	}
	if v.err != nil {
		return sight{}, v.err
	}
	s.roots.Put(key, st)
	return st, nil
}

// stay is when a user was in a room the last time.
type stay struct {
	joined bool  // now
	until  int64 // the place in the timeline where the last stay ended; 0 if there was none
}

// stay finds out when user was in a room the last time.
func (s *Service) stay(ctx context.Context, room *store.Room, user matrix.UserID) (stay, error) {
	m := s.Store.Membership(user, room.Num)
	if !m.Local {
		v := s.view(ctx, room.Current)
		if e := v.stored("m.room.member", string(user)); e != nil {
			m.Membership, m.Event = e.PDU.Membership(), e.Num
		}
		if v.err != nil {
			return stay{}, v.err
		}
	}
	if m.Membership == "join" {
		return stay{joined: true}, nil
	}
	for num := m.Event; num != 0; {
		e, err := s.Store.EventByNum(ctx, num)
		if err != nil {
			return stay{}, err
		}
		if e.Replaces == 0 {
			break
		}
		before, err := s.Store.EventByNum(ctx, e.Replaces)
		if err != nil {
			return stay{}, err
		}
		if before.PDU.Membership() == "join" {
			return stay{until: e.Pos}, nil
		}
		num = e.Replaces
	}
	return stay{}, nil
}

// horizon is the place in a room's timeline behind which user, who has left, sees
// nothing; 0 if there is none.
func (s *Service) horizon(ctx context.Context, room *store.Room, user matrix.UserID) (int64, error) {
	st, err := s.stay(ctx, room, user)
	if err != nil || st.joined {
		return 0, err
	}
	now, err := s.sight(ctx, room.Current, user)
	if err != nil || now.history == "world_readable" || now.membership == "invite" {
		return 0, err
	}
	return st.until, nil
}

// Visible leaves out the events that user may not see.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-5
func (s *Service) Visible(ctx context.Context, room *store.Room, user matrix.UserID, events []*store.Event) ([]Seen, error) {
	st, err := s.stay(ctx, room, user)
	if err != nil {
		return nil, err
	}
	list := make([]Seen, 0, len(events))
	var last *store.Event
	var after sight
	for _, e := range events {
		if !carries(last, e, user) {
			if after, err = s.sight(ctx, e.State, user); err != nil {
				return nil, err
			}
		}
		last = e
		ok := sees(after, st, e.Pos)
		own := e.PDU.Is("m.room.member", string(user))
		if !ok && (own || e.PDU.Is("m.room.history_visibility", "")) {
			before, err := s.sightBefore(ctx, e, user, after)
			if err != nil {
				return nil, err
			}
			ok = sees(before, st, e.Pos)
		}
		if ok || own {
			list = append(list, Seen{e, after.membership})
		}
	}
	return list, nil
}

// carries tells whether what decides about user is the same after two events of
// a timeline, in either order, without a look at the states: where the one
// follows on the other alone and changes nothing of it.
func carries(a, b *store.Event, user matrix.UserID) bool {
	if a == nil || a.State == b.State {
		return a != nil
	}
	if a.Pos > b.Pos {
		a, b = b, a
	}
	if len(b.PDU.PrevEvents) != 1 || b.PDU.PrevEvents[0] != a.PDU.ID || b.Status != store.Accepted || a.Status != store.Accepted {
		return false
	}
	return !b.PDU.IsState() || !b.PDU.Is("m.room.member", string(user)) && !b.PDU.Is("m.room.history_visibility", "")
}

// sightBefore is the sight without what the state event e changed.
func (s *Service) sightBefore(ctx context.Context, e *store.Event, user matrix.UserID, after sight) (sight, error) {
	var old string
	if e.Replaces != 0 {
		was, err := s.Store.EventByNum(ctx, e.Replaces)
		if err != nil {
			return sight{}, err
		}
		if old = was.PDU.Membership(); e.PDU.Type != "m.room.member" {
			old = was.PDU.ContentString("history_visibility")
		}
	}
	if e.PDU.Type == "m.room.member" {
		after.membership = old
	} else {
		after.history = old
	}
	return after, nil
}

// sees is the rule.
func sees(at sight, st stay, pos int64) bool {
	switch {
	case at.history == "world_readable", at.membership == "join":
		return true
	case at.history == "invited":
		return at.membership == "invite"
	case at.history == "joined":
		return false
	}
	return st.joined || st.until > pos
}

// MaySee gives an event with an ID if user may see it, else M_NOT_FOUND. Of a room
// that they have forgotten they see what everybody may.
func (s *Service) MaySee(ctx context.Context, room matrix.RoomID, user matrix.UserID, id matrix.EventID) (*store.Room, Seen, error) {
	none := matrix.Errorf(matrix.NotFound, "there is no such event, or you may not see it")
	r, err := s.Store.Room(ctx, room)
	if errors.Is(err, store.ErrNotFound) {
		return nil, Seen{}, none
	}
	if err != nil {
		return nil, Seen{}, err
	}
	if s.Store.Membership(user, r.Num).Forgotten {
		if now, err := s.sight(ctx, r.Current, user); err != nil || now.history != "world_readable" {
			return nil, Seen{}, cmp.Or(err, error(none))
		}
	}
	e, err := s.Store.Event(ctx, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && (e.Room != r.Num || e.Pos == 0) {
		return nil, Seen{}, none
	}
	if err != nil {
		return nil, Seen{}, err
	}
	seen, err := s.Visible(ctx, r, user, []*store.Event{e})
	if err != nil {
		return nil, Seen{}, err
	}
	if len(seen) == 0 {
		return nil, Seen{}, none
	}
	return r, seen[0], nil
}

// EventAnywhere gives an event that user may see, whatever room it is in.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3eventseventid
func (s *Service) EventAnywhere(ctx context.Context, rd Reader, id matrix.EventID) (json.RawMessage, error) {
	e, err := s.Store.Event(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, matrix.Errorf(matrix.NotFound, "there is no such event, or you may not see it")
	}
	if err != nil {
		return nil, err
	}
	return s.Event(ctx, rd, e.PDU.Room, id)
}

// Reader is who gets events, and in which shape.
type Reader struct {
	User   matrix.UserID
	Device matrix.DeviceID

	// Sync leaves out the room ID, which /sync answers give elsewhere.
	Sync bool

	// New devices have sent nothing: they have no transactions to look for.
	New bool

	// Related tells with each event what refers to it.
	Related bool
}

// Clients gives events the shape in which clients get them.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#room-event-format
func (s *Service) Clients(ctx context.Context, rd Reader, events []Seen) ([]json.RawMessage, error) {
	var related map[store.EventNum]*children
	if rd.Related {
		var err error
		if related, err = s.children(ctx, rd, events, true); err != nil {
			return nil, err
		}
	}
	return s.shape(ctx, rd, events, related)
}

// shape is Clients where what refers to the events is known.
func (s *Service) shape(ctx context.Context, rd Reader, events []Seen, related map[store.EventNum]*children) ([]json.RawMessage, error) {
	plain := make([]*store.Event, len(events))
	var also []store.EventNum
	for i, e := range events {
		plain[i] = e.Event
		if e.RedactedBy != 0 {
			also = append(also, e.RedactedBy)
		}
		if e.Replaces != 0 {
			also = append(also, e.Replaces)
		}
	}
	var sent map[store.EventNum]store.Sent
	if !rd.New || s.Store.Delays(rd.User) {
		var err error
		if sent, err = s.Store.Transactions(ctx, rd.User, rd.Device, plain); err != nil {
			return nil, err
		}
	}
	others, err := s.Store.EventsByNum(ctx, also)
	if err != nil {
		return nil, err
	}
	at := now()
	list := make([]json.RawMessage, len(events))
	for i, e := range events {
		u := unsigned(e, at, sent[e.Num], others)
		if c := related[e.Num]; c != nil {
			raw, err := json.Marshal(c)
			if err != nil {
				return nil, err
			}
			u = append(append(append(u[:len(u)-1], `,"m.relations":`...), raw...), '}')
		}
		if rd.Sync {
			list[i] = e.PDU.Sync(make([]byte, 0, len(e.PDU.JSON)+len(u)), u)
		} else {
			list[i] = e.PDU.Client(make([]byte, 0, len(e.PDU.JSON)+len(u)), u)
		}
	}
	return list, nil
}

// unsigned is what the server adds to an event for one reader, as a JSON object.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#definition-clientevent_unsigneddata
func unsigned(e Seen, at int64, sent store.Sent, others map[store.EventNum]*store.Event) []byte {
	b := append(make([]byte, 0, 128), `{"age":`...)
	b = strconv.AppendInt(b, at-e.PDU.OriginServerTS, 10)
	if e.Membership != "" {
		b = append(b, `,"membership":`...)
		b = strconv.AppendQuote(b, e.Membership) // a membership of the rules: letters only
	}
	if old := others[e.Replaces]; old != nil {
		b = append(b, `,"prev_content":`...)
		b = append(b, old.PDU.Content...)
		b = append(b, `,"prev_sender":`...)
		b = appendString(b, string(old.PDU.Sender))
		b = append(b, `,"replaces_state":`...)
		b = appendString(b, string(old.PDU.ID))
	}
	if by := others[e.RedactedBy]; by != nil {
		b = append(b, `,"redacted_because":`...)
		b = by.PDU.Client(b, nil)
	}
	if sent.Txn != "" {
		b = append(b, `,"transaction_id":`...)
		b = appendString(b, sent.Txn)
	}
	if sent.Delay != "" { // letters and digits; MSC4140
		b = append(b, `,"delay_id":"`...)
		b = append(b, sent.Delay...)
		b = append(b, `","org.matrix.msc4140.delay_id":"`...)
		b = append(append(b, sent.Delay...), '"')
	}
	return append(b, '}')
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	q, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string is always JSON
	}
	return append(b, q...)
}
