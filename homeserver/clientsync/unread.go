package clientsync

import (
	"encoding/json"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/pushrule"
	"switchboard/homeserver/store"
)

// addUnread counts what the user has not read in a room they are in: events
// behind the read receipts for which the push rules say "notify".
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
func (rd *reading) addUnread(j *joined, r *store.Room) error {
	notes, err := rd.Unread.Notes(rd.ctx, r, rd.User, rd.now.pos)
	if err != nil {
		return err
	}
	j.Unread = &unreadCounts{}
	for _, n := range notes {
		u := j.Unread
		if rd.Filter.Room.Timeline.Threads && n.Thread != "" {
			if j.Threads == nil {
				j.Threads = map[matrix.EventID]*unreadCounts{}
			}
			if u = j.Threads[n.Thread]; u == nil {
				u = &unreadCounts{}
				j.Threads[n.Thread] = u
			}
		}
		u.Notify++
		if n.Highlight {
			u.Highlight++
		}
	}
	return nil
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
