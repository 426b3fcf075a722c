package clientsync

import (
	"encoding/json"

	"switchboard/homeserver/matrix"
)

// Answer is the body of /sync.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
type Answer struct {
	NextBatch    string         `json:"next_batch"`
	AccountData  *events        `json:"account_data,omitempty"`
	Presence     *events        `json:"presence,omitempty"`
	ToDevice     *events        `json:"to_device,omitempty"`
	DeviceLists  *deviceLists   `json:"device_lists,omitempty"`
	OneTimeKeys  map[string]int `json:"device_one_time_keys_count"`
	FallbackKeys []string       `json:"device_unused_fallback_key_types"`
	Rooms        *rooms         `json:"rooms,omitempty"`
}

type events struct {
	Events []json.RawMessage `json:"events"`
}

type deviceLists struct {
	Changed []matrix.UserID `json:"changed,omitempty"`
	Left    []matrix.UserID `json:"left,omitempty"`
}

type rooms struct {
	Join   map[matrix.RoomID]*joined  `json:"join,omitempty"`
	Invite map[matrix.RoomID]*outside `json:"invite,omitempty"`
	Knock  map[matrix.RoomID]*outside `json:"knock,omitempty"`
	Leave  map[matrix.RoomID]*joined  `json:"leave,omitempty"`
}

func (r *rooms) empty() bool {
	return len(r.Join)+len(r.Invite)+len(r.Knock)+len(r.Leave) == 0
}

// joined is a room that the user is or was in.
type joined struct {
	Summary     *summary      `json:"summary,omitempty"`
	State       *events       `json:"state,omitempty"`
	StateAfter  *events       `json:"state_after,omitempty"`
	MSC4222     *events       `json:"org.matrix.msc4222.state_after,omitempty"` // its name before v1.16, for clients that ask by that
	Timeline    *timeline     `json:"timeline,omitempty"`
	Ephemeral   *events       `json:"ephemeral,omitempty"`
	AccountData *events       `json:"account_data,omitempty"`
	Unread      *unreadCounts `json:"unread_notifications,omitempty"`

	Threads map[matrix.EventID]*unreadCounts `json:"unread_thread_notifications,omitempty"`
}

type timeline struct {
	Events    []json.RawMessage `json:"events"`
	Limited   bool              `json:"limited"`
	PrevBatch string            `json:"prev_batch,omitempty"`
}

type summary struct {
	Heroes  []matrix.UserID `json:"m.heroes,omitempty"`
	Joined  int             `json:"m.joined_member_count"`
	Invited int             `json:"m.invited_member_count"`
}

type unreadCounts struct {
	Highlight int `json:"highlight_count"`
	Notify    int `json:"notification_count"`
}

// outside is a room to which the user is invited, or on whose door they knocked.
type outside struct {
	Invite *events `json:"invite_state,omitempty"`
	Knock  *events `json:"knock_state,omitempty"`
}

// some is nil for no events, so that the answer stays small.
func some(list []json.RawMessage) *events {
	if len(list) == 0 {
		return nil
	}
	return &events{list}
}

// empty tells whether a long poll should go on waiting.
func (a *Answer) empty() bool {
	return a.AccountData == nil && a.Presence == nil && a.ToDevice == nil && a.DeviceLists == nil && a.Rooms == nil
}
