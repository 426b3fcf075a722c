package room

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// Sending is an event that a client wants in a room.
type Sending struct {
	User     matrix.UserID
	Device   matrix.DeviceID
	Room     matrix.RoomID
	Type     string
	StateKey *string
	Content  json.RawMessage // a JSON object
	Redacts  matrix.EventID

	// Txn makes a repeated request answer with the first one's event. "" for
	// requests that have none.
	Txn string

	// Delayed is the ID of the delayed event that it was, which its sender is told;
	// it makes a repeated request answer as Txn does. "" for none.
	Delayed string

	// At is the time (ms) that an appservice gives the event; 0 means now.
	At int64

	// Suspended users may redact nothing but their own events, and guests join
	// only rooms that welcome them.
	Suspended, Guest bool
}

// endpoint is the scope of the transaction ID.
func (d *Sending) endpoint() string {
	if d.Type == "m.room.redaction" && d.Redacts != "" {
		return "redact " + string(d.Room) + " " + string(d.Redacts)
	}
	return "send " + string(d.Room) + " " + d.Type
}

// Send puts an event into a room and gives its ID. A repeated request, known by
// its transaction ID, gets the first one's.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid
func (s *Service) Send(ctx context.Context, d Sending) (matrix.EventID, error) {
	if d.Type == "m.room.member" && d.StateKey != nil {
		return s.sendMembership(ctx, d)
	}
	if err := s.checkSending(ctx, &d); err != nil {
		return "", err
	}
	req := store.Request{User: d.User, Device: d.Device, Endpoint: d.endpoint(), Txn: d.Txn}
	if d.Delayed != "" {
		req.Endpoint, req.Txn = store.DelayedEndpoint, d.Delayed
	}
	if req.Txn != "" {
		defer s.repeats.lock(req)() // the room's lock may be freed on the way
		id, err := s.Store.Answered(ctx, req)
		if !errors.Is(err, store.ErrNotFound) {
			return id, err
		}
	}
	free := s.locks.lock(d.Room)
	defer free()
	r, err := s.joinedRoom(ctx, d.Room, d.User)
	if err != nil {
		return "", err
	}
	h, err := s.open(ctx, r)
	if err != nil {
		return "", err
	}
	h.free = free
	if d.StateKey != nil {
		if id, err := h.same(d); id != "" || err != nil {
			return id, err
		}
	}
	if err := s.checkRelation(ctx, r, d); err != nil {
		return "", err
	}
	d.Redacts = redacts(d)
	redact, err := s.redaction(ctx, h, d)
	if err != nil {
		return "", err
	}
	p, err := s.build(h, draft{Type: d.Type, StateKey: d.StateKey, Sender: d.User, Content: d.Content, Redacts: d.Redacts, At: d.At})
	if err != nil {
		return "", err
	}
	if p.Is("m.room.guest_access", "") {
		if err := s.sendGuestsAway(ctx, h, d.At); err != nil {
			return "", err
		}
	}
	_, err = s.commit(ctx, h, redact, func(ctx context.Context, tx *store.Tx, events []*store.Event) error {
		if req.Txn == "" {
			return nil
		}
		return tx.PutRequest(ctx, req, events[0], now())
	})
	if err != nil {
		return "", err
	}
	return p.ID, nil
}

// checkSending refuses what no room takes from a client.
func (s *Service) checkSending(ctx context.Context, d *Sending) error {
	switch d.Type {
	case "":
		return matrix.Errorf(matrix.InvalidParam, "an event needs a type")
	case "m.room.create":
		return matrix.Errorf(matrix.Forbidden, "the create event of a room cannot be sent")
	case "m.room.canonical_alias":
		if d.StateKey != nil {
			return s.checkCanonicalAlias(ctx, d)
		}
	}
	return nil
}

// checkCanonicalAlias refuses names that do not lead to the room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey
func (s *Service) checkCanonicalAlias(ctx context.Context, d *Sending) error {
	var c struct {
		Alias matrix.RoomAlias   `json:"alias"`
		Alt   []matrix.RoomAlias `json:"alt_aliases"`
	}
	if err := json.Unmarshal(d.Content, &c); err != nil {
		return matrix.Errorf(matrix.InvalidParam, "alias must be a string and alt_aliases a list of strings")
	}
	names := c.Alt
	if c.Alias != "" {
		names = append([]matrix.RoomAlias{c.Alias}, names...)
	}
	r, err := s.find(ctx, d.Room)
	if err != nil {
		return err
	}
	known, err := s.knownAliases(ctx, r)
	if err != nil {
		return err
	}
	for _, name := range names {
		if known[name] {
			continue
		}
		if _, err := matrix.ParseRoomAlias(string(name)); err != nil {
			return err
		}
		a, err := s.Store.Alias(ctx, name)
		if errors.Is(err, store.ErrNotFound) || err == nil && a.Room != r.Num {
			return matrix.Errorf(matrix.BadAlias, "%s does not point to this room", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// knownAliases are the names that the room's m.room.canonical_alias has already.
func (s *Service) knownAliases(ctx context.Context, r *store.Room) (map[matrix.RoomAlias]bool, error) {
	known := map[matrix.RoomAlias]bool{}
	v := s.view(ctx, r.Current)
	p := v.Event("m.room.canonical_alias", "")
	if p == nil {
		return known, v.err
	}
	var c struct {
		Alias any   `json:"alias"`
		Alt   []any `json:"alt_aliases"`
	}
	if json.Unmarshal(p.Content, &c) != nil {
		return known, nil
	}
	for _, a := range append(c.Alt, c.Alias) {
		if name, ok := a.(string); ok {
			known[matrix.RoomAlias(name)] = true
		}
	}
	return known, nil
}

// ForgetAlias takes a name that was deleted out of the room's
// m.room.canonical_alias, if user may do that; else it stays there.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias
func (s *Service) ForgetAlias(ctx context.Context, num store.RoomNum, user matrix.UserID, alias matrix.RoomAlias) error {
	r, err := s.Store.RoomByNum(ctx, num)
	if err != nil {
		return err
	}
	v := s.view(ctx, r.Current)
	p := v.Event("m.room.canonical_alias", "")
	if p == nil {
		return v.err
	}
	var o object
	if json.Unmarshal(p.Content, &o) != nil {
		return nil
	}
	names, _ := o["alt_aliases"].([]any)
	rest := slices.DeleteFunc(slices.Clone(names), func(n any) bool { return n == string(alias) })
	if o["alias"] != string(alias) && len(rest) == len(names) {
		return nil
	}
	if o["alias"] == string(alias) {
		delete(o, "alias")
	}
	if len(names) > 0 {
		o["alt_aliases"] = rest
	}
	_, err = s.Send(ctx, Sending{User: user, Room: r.ID, Type: p.Type, StateKey: new(string), Content: o.raw()})
	var refused *matrix.Error
	if errors.As(err, &refused) && refused.Code == matrix.Forbidden {
		return nil
	}
	return err
}

// same gives the ID of the event that is in the state already with the content
// that d brings, so that a repetition adds nothing.
func (h *head) same(d Sending) (matrix.EventID, error) {
	p := h.view.Event(d.Type, *d.StateKey)
	if p == nil || p.Sender != d.User {
		return "", h.view.err
	}
	content, err := canonjson.Canonical(d.Content)
	if err != nil || string(content) != string(p.Content) {
		return "", nil // Build says what is wrong with the content
	}
	return p.ID, nil
}

// redacts is what an event redacts. Where the room version wants it elsewhere than in
// the content, it may stand there all the same: that is MSC4169.
func redacts(d Sending) matrix.EventID {
	var c struct {
		Redacts matrix.EventID `json:"redacts"`
	}
	if d.Redacts == "" && d.Type == "m.room.redaction" && json.Unmarshal(d.Content, &c) == nil {
		return c.Redacts
	}
	return d.Redacts
}

// redaction checks whether the user may redact and gives what carries it out.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid
func (s *Service) redaction(ctx context.Context, h *head, d Sending) (also, error) {
	nothing := func(context.Context, *store.Tx, []*store.Event) error { return nil }
	if d.Type != "m.room.redaction" || d.StateKey != nil || d.Redacts == "" {
		return nothing, nil
	}
	target, err := s.Store.Event(ctx, d.Redacts)
	if errors.Is(err, store.ErrNotFound) {
		return s.redactUnknown(ctx, h, d)
	}
	if err == nil && target.Room != h.room.Num {
		return nil, matrix.Errorf(matrix.NotFound, "there is no such event in this room")
	}
	if err != nil {
		return nil, err
	}
	if d.Suspended && target.PDU.Sender != d.User {
		return nil, matrix.Errorf(matrix.UserSuspended, "this account has been suspended and may redact only its own events")
	}
	levels, err := h.view.PowerLevels()
	if err != nil {
		return nil, err
	}
	if target.PDU.Sender != d.User && levels.User(d.User) < levels.Redact() {
		return nil, matrix.Errorf(matrix.Forbidden, "you may not redact other people's events in this room")
	}
	redacted, err := target.PDU.Redacted()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, tx *store.Tx, events []*store.Event) error {
		if target.RedactedBy != 0 {
			return nil
		}
		return tx.Redact(ctx, target, redacted, events[0].Num)
	}, nil
}

// redactUnknown lets an event be redacted that only other servers have.
func (s *Service) redactUnknown(ctx context.Context, h *head, d Sending) (also, error) {
	servers, err := s.Store.Servers(ctx, h.room.Num)
	if err != nil {
		return nil, err
	}
	if len(servers) < 2 {
		return nil, matrix.Errorf(matrix.NotFound, "there is no such event in this room")
	}
	return func(ctx context.Context, tx *store.Tx, events []*store.Event) error {
		return tx.PutRedaction(ctx, d.Redacts, events[0].Num)
	}, nil
}

// Redact takes the content out of an event.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid
func (s *Service) Redact(ctx context.Context, d Sending, reason *string) (matrix.EventID, error) {
	content := object{}
	if reason != nil {
		content["reason"] = *reason
	}
	d.Type, d.Content = "m.room.redaction", content.raw()
	return s.Send(ctx, d)
}
