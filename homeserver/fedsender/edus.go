package fedsender

import (
	"context"
	"encoding/json"
	"slices"

	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// readEphemeral gives the queues who types, who has read what, who is there,
// whose devices changed, and messages to devices.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#edus
func (r *reader) readEphemeral(ctx context.Context, since, upto int64) error {
	if err := r.readTyping(ctx); err != nil {
		return err
	}
	if since == upto {
		return nil
	}
	for _, read := range []func(context.Context, int64, int64) error{r.readReceipts, r.readPresence, r.readDevices} {
		if err := read(ctx, since, upto); err != nil {
			return err
		}
	}
	if !r.Store.ChangedSince(store.OutboxChanged, "", since) {
		return nil
	}
	servers, newest, err := r.Store.OutboxServers(ctx, r.outbox)
	if err != nil {
		return err
	}
	r.outbox = newest
	for _, name := range servers {
		r.start(ctx, r.queue(name))
	}
	return nil
}

// tellRoom gives an ephemeral message to all other servers in a room.
func (r *reader) tellRoom(ctx context.Context, room store.RoomNum, typ string, content any) error {
	servers, err := r.Store.Servers(ctx, room)
	if err != nil {
		return err
	}
	return r.tell(ctx, servers, typ, content)
}

func (r *reader) tell(ctx context.Context, servers []matrix.ServerName, typ string, content any) error {
	b, err := json.Marshal(content)
	if err != nil {
		return err
	}
	for _, name := range servers {
		if name != r.ServerName {
			q := r.queue(name)
			q.tell(fedclient.EDU{Type: typ, Content: b})
			r.start(ctx, q)
		}
	}
	return nil
}

// readTyping tells who began and ceased to type. An EDU is about one user, so
// what was told before is remembered for a while by the rooms themselves.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#typing-notifications
func (r *reader) readTyping(ctx context.Context) error {
	rooms, serial := r.Ephemeral.TypingSince(r.typing)
	for id, users := range rooms {
		room, err := r.Store.Room(ctx, id)
		if err != nil {
			return err
		}
		type content struct {
			Room   matrix.RoomID `json:"room_id"`
			User   matrix.UserID `json:"user_id"`
			Typing bool          `json:"typing"`
		}
		for _, u := range r.typed(id, users) {
			if u.Server() != r.ServerName {
				continue
			}
			err := r.tellRoom(ctx, room.Num, "m.typing", content{id, u, slices.Contains(users, u)})
			if err != nil {
				return err
			}
		}
	}
	r.typing = serial
	return nil
}

// typed lists those who type in a room now or did when it was told last, and
// remembers who does.
func (r *reader) typed(room matrix.RoomID, now []matrix.UserID) []matrix.UserID {
	if r.typists == nil {
		r.typists = map[matrix.RoomID][]matrix.UserID{}
	}
	all := slices.Clone(now)
	for _, u := range r.typists[room] {
		if !slices.Contains(all, u) {
			all = append(all, u)
		}
	}
	if len(now) == 0 {
		delete(r.typists, room)
	} else {
		r.typists[room] = slices.Clone(now)
	}
	return all
}

// readReceipts tells who has read what.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#receipts
func (r *reader) readReceipts(ctx context.Context, since, upto int64) error {
	type data struct {
		TS     int64  `json:"ts"`
		Thread string `json:"thread_id,omitempty"`
	}
	type receipt struct {
		Data   data             `json:"data"`
		Events []matrix.EventID `json:"event_ids"`
	}
	list, err := r.Store.ReceiptLog(ctx, since, readAtOnce)
	if err != nil {
		return err
	}
	for _, rc := range list {
		if rc.User.Server() != r.ServerName || rc.Pos > upto {
			continue
		}
		room, err := r.Store.RoomByNum(ctx, rc.Room)
		if err != nil {
			return err
		}
		content := map[matrix.RoomID]any{room.ID: map[string]any{
			rc.Type: map[matrix.UserID]receipt{rc.User: {data{rc.TS, rc.Thread}, []matrix.EventID{rc.Event}}},
		}}
		if err := r.tellRoom(ctx, rc.Room, "m.receipt", content); err != nil {
			return err
		}
	}
	return nil
}

// mostPresences is how many users one EDU tells of.
const mostPresences = 100

// readPresence tells who came and went: each server once of all its users'
// neighbours.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#presence
func (r *reader) readPresence(ctx context.Context, since, upto int64) error {
	list, err := r.Store.PresenceChanges(ctx, since, upto)
	if err != nil {
		return err
	}
	type push struct {
		User matrix.UserID `json:"user_id"`
		ephemeral.Status
	}
	news := map[matrix.ServerName][]push{}
	for _, p := range list {
		if p.User.Server() != r.ServerName {
			continue
		}
		servers, err := r.neighbours(ctx, p.User)
		if err != nil {
			return err
		}
		for _, name := range servers {
			news[name] = append(news[name], push{p.User, r.Ephemeral.StatusOf(p)})
		}
	}
	for name, all := range news {
		for part := range slices.Chunk(all, mostPresences) {
			if err := r.tell(ctx, []matrix.ServerName{name}, "m.presence", map[string][]push{"push": part}); err != nil {
				return err
			}
		}
	}
	return nil
}

// neighbours are the servers that share a room with a user of this one.
func (s *Service) neighbours(ctx context.Context, user matrix.UserID) ([]matrix.ServerName, error) {
	var all []matrix.ServerName
	for _, m := range s.Store.Memberships(user) {
		if m.Membership != "join" {
			continue
		}
		servers, err := s.Store.Servers(ctx, m.Room)
		if err != nil {
			return nil, err
		}
		for _, name := range servers {
			if name != s.ServerName && !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all, nil
}

// readDevices tells whose devices changed.
func (r *reader) readDevices(ctx context.Context, since, upto int64) error {
	users, err := r.Store.DeviceListChanges(ctx, "", since, upto)
	if err != nil {
		return err
	}
	for _, u := range users {
		if u.Server() != r.ServerName {
			continue
		}
		servers, err := r.neighbours(ctx, u)
		if err != nil {
			return err
		}
		edus, err := r.devices(ctx, u)
		if err != nil {
			return err
		}
		r.keepAll(ctx, servers, edus, since+1)
	}
	return nil
}

// introduce tells servers of the devices of a user of this one who came into a
// room with them and shared none with them before.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
func (r *reader) introduce(ctx context.Context, e *store.Event) error {
	user := e.PDU.Sender
	if !e.PDU.Is(event.TypeMember, string(user)) || e.PDU.Membership() != event.Join || user.Server() != r.ServerName {
		return nil
	}
	if e.Replaces != 0 {
		old, err := r.Store.EventsByNum(ctx, []store.EventNum{e.Replaces})
		if err != nil || old[e.Replaces] != nil && old[e.Replaces].PDU.Membership() == event.Join {
			return err
		}
	}
	servers, err := r.Store.Servers(ctx, e.Room)
	if err != nil {
		return err
	}
	for _, m := range r.Store.Memberships(user) {
		if m.Membership != event.Join || m.Room == e.Room || len(servers) == 0 {
			continue
		}
		known, err := r.Store.Servers(ctx, m.Room)
		if err != nil {
			return err
		}
		servers = slices.DeleteFunc(servers, func(name matrix.ServerName) bool { return slices.Contains(known, name) })
	}
	if !slices.ContainsFunc(servers, func(name matrix.ServerName) bool { return name != r.ServerName }) {
		return nil
	}
	edus, err := r.devices(ctx, user)
	if err != nil {
		return err
	}
	r.keepAll(ctx, servers, edus, e.Pos)
	return nil
}

// keepAll gives servers ephemeral messages that must not be lost.
func (r *reader) keepAll(ctx context.Context, servers []matrix.ServerName, edus []fedclient.EDU, pos int64) {
	for _, name := range servers {
		if name == r.ServerName {
			continue
		}
		q := r.queue(name)
		q.keep(edus, pos)
		r.start(ctx, q)
	}
}

// devicesChanged are the users of this server whose devices changed and who
// share a room with another server.
func (s *Service) devicesChanged(ctx context.Context, server matrix.ServerName, since, upto int64) ([]matrix.UserID, error) {
	users, err := s.Store.DeviceListChanges(ctx, "", since, upto)
	if err != nil {
		return nil, err
	}
	var list []matrix.UserID
	for _, u := range users {
		if u.Server() != s.ServerName {
			continue
		}
		servers, err := s.neighbours(ctx, u)
		if err != nil {
			return nil, err
		}
		if slices.Contains(servers, server) {
			list = append(list, u)
		}
	}
	return list, nil
}

// edusOfUser is how many messages devices makes at most.
const edusOfUser = 2

// devices says that the devices of a user changed. The log does not keep which
// of them did, so that the message follows on a change that never was, which no
// server has: it asks for the whole list.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
func (s *Service) devices(ctx context.Context, user matrix.UserID) ([]fedclient.EDU, error) {
	keys, err := s.Keys.Query(ctx, "", map[matrix.UserID][]matrix.DeviceID{user: nil})
	if err != nil {
		return nil, err
	}
	list, err := s.Store.Devices(ctx, user)
	if err != nil {
		return nil, err
	}
	type update struct {
		User    matrix.UserID   `json:"user_id"`
		Device  matrix.DeviceID `json:"device_id"`
		Name    string          `json:"device_display_name,omitempty"`
		Stream  int64           `json:"stream_id"`
		Prev    []int64         `json:"prev_id"`
		Deleted bool            `json:"deleted,omitempty"`
		Keys    json.RawMessage `json:"keys,omitempty"`
	}
	stream, err := s.Keys.DeviceStream(ctx, user)
	if err != nil {
		return nil, err
	}
	// Where none is left any name will do, but there must be one.
	u := update{User: user, Device: "GONE", Stream: stream, Prev: []int64{stream - 1}, Deleted: len(list) == 0}
	if len(list) > 0 {
		last := list[len(list)-1]
		u.Device, u.Name, u.Keys = last.ID, last.DisplayName, keys.Devices[user][last.ID]
	}
	edus := make([]fedclient.EDU, 0, edusOfUser)
	add := func(typ string, content any) error {
		b, err := json.Marshal(content)
		edus = append(edus, fedclient.EDU{Type: typ, Content: b})
		return err
	}
	if err := add("m.device_list_update", u); err != nil {
		return nil, err
	}
	if keys.Master[user] == nil {
		return edus, nil
	}
	return edus, add("m.signing_key_update", map[string]any{
		"user_id": user, "master_key": keys.Master[user], "self_signing_key": keys.SelfSigning[user],
	})
}
