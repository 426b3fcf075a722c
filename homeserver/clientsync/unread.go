package clientsync

import (
	"encoding/json"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/pushrule"
	"switchboard/homeserver/store"
)

// mostCounted bounds how many events behind the read receipt are looked at;
// whoever has more unread than that is shown the count of the newest.
const mostCounted = 2000

type countKey struct {
	user matrix.UserID
	room store.RoomNum
}

// counted is the unread of a user in a room. It is kept so that each event is
// counted once for each user; it can be counted again from the log.
type counted struct {
	read int64 // the receipt from which was counted
	upto int64 // up to here
	unread
}

// unread counts the events behind the user's read receipt for which the push
// rules say "notify". What the user sends is read.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
func (rd *reading) unread(r *store.Room, user matrix.UserID, upto int64) (*unread, error) {
	key := countKey{user, r.Num}
	c, _ := rd.counts.Find(key)
	if c.upto == 0 || rd.Store.ReceiptsChangedSince(r.Num, c.upto) {
		read, err := rd.readUpTo(r, user)
		if err != nil {
			return nil, err
		}
		if c.upto == 0 || c.read != read {
			c = counted{read: read, upto: read}
		}
	}
	if c.upto < upto && r.Last > c.upto {
		list, err := rd.Store.Newest(rd.ctx, r.Num, c.upto, upto, mostCounted)
		if err != nil {
			return nil, err
		}
		if err := rd.count(&c, r, user, list); err != nil {
			return nil, err
		}
	}
	c.upto = max(c.upto, upto)
	rd.counts.Put(key, c)
	return &unread{c.Highlight, c.Notify}, nil
}

// readUpTo is the place up to which user has read a room: the latest receipt,
// or else where the user came in.
func (rd *reading) readUpTo(r *store.Room, user matrix.UserID) (int64, error) {
	receipts, err := rd.Store.UserReceipts(rd.ctx, user, r.Num)
	if err != nil {
		return 0, err
	}
	read := int64(rd.Store.Membership(user, r.Num).Event)
	for _, rc := range receipts {
		if rc.Thread == "" || rc.Thread == "main" {
			read = max(read, rc.Place)
		}
	}
	return read, nil
}

// count evaluates the user's push rules for events.
func (rd *reading) count(c *counted, r *store.Room, user matrix.UserID, list []*store.Event) error {
	if len(list) == 0 {
		return nil
	}
	rules, err := rd.rules(user)
	if err != nil {
		return err
	}
	levels, err := rd.Rooms.Levels(rd.ctx, r)
	if err != nil {
		return err
	}
	member, err := rd.Rooms.StateEvent(rd.ctx, r.Current, "m.room.member", string(user))
	if err != nil {
		return err
	}
	info := pushrule.RoomInfo{Members: r.Joined}
	if member != nil {
		info.DisplayName = member.PDU.ContentString("displayname")
	}
	for _, e := range list {
		if e.PDU.Sender == user {
			c.unread = unread{} // whoever writes has read
			continue
		}
		info.SenderMayNotify = func(key string) bool { return levels.User(e.PDU.Sender) >= levels.Notification(key) }
		act := rules.Match(pushrule.NewEvent(pushrule.Fields{
			ID: e.PDU.ID, Room: e.PDU.Room, Type: e.PDU.Type, Sender: e.PDU.Sender, StateKey: e.PDU.StateKey,
			Redacts: e.PDU.Redacts, OriginServerTS: e.PDU.OriginServerTS, Content: e.PDU.Content,
		}), info)
		if act.Notify {
			c.Notify++
		}
		if act.Highlight {
			c.Highlight++
		}
	}
	return nil
}

// rules are the user's compiled push rules.
func (rd *reading) rules(user matrix.UserID) (*pushrule.Compiled, error) {
	raw, ok, err := rd.Store.AccountData(rd.ctx, user, "", "m.push_rules")
	if err != nil {
		return nil, err
	}
	if !ok {
		return pushrule.DefaultCompiled(user), nil
	}
	rs, err := pushrule.Parse(user, raw)
	if err != nil {
		return nil, err
	}
	return rs.Compile(), nil
}

// defaults are the settings that a client gets with its first sync although the
// user never wrote them.
func (rd *reading) defaults(list []store.AccountData) ([]json.RawMessage, error) {
	if !rd.initial() || !rd.Filter.AccountData.wants("m.push_rules", "", "") {
		return nil, nil
	}
	for _, d := range list {
		if d.Room == "" && d.Type == "m.push_rules" {
			return nil, nil
		}
	}
	raw, err := json.Marshal(pushrule.Default(rd.User))
	if err != nil {
		return nil, err
	}
	e, err := accountDataEvent(store.AccountData{Type: "m.push_rules", Content: raw})
	return []json.RawMessage{e}, err
}
