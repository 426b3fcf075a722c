package clientapi

import (
	"cmp"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"switchboard/homeserver/cache"
	"switchboard/homeserver/clientsync"
	"switchboard/homeserver/edge"
	"switchboard/homeserver/matrix"
)

var slidingRoutes = []route{
	{"", "POST /_matrix/client/unstable/org.matrix.simplified_msc3575/sync", users, (*API).slidingSync},
	{"", "POST /_matrix/client/v4/sync", users, (*API).slidingSyncV4},
}

// The bounds of a request of sliding sync.
const (
	mostSubscriptions = 1000
	mostWanted        = 200 // elements of a required_state
	mostTimeline      = 100 // events of a room
)

// slidingRequest is the body as version 4 has it.
type slidingRequest struct {
	Conn        string                        `json:"conn_id"`
	Pos         string                        `json:"pos"`
	Timeout     int64                         `json:"timeout"` // ms
	SetPresence string                        `json:"set_presence"`
	Lists       map[string]slidingList        `json:"lists"`
	Rooms       map[matrix.RoomID]slidingRoom `json:"room_subscriptions"`
	Extensions  slidingExtensions             `json:"extensions"`
}

type slidingExtensions struct {
	ToDevice    switched[clientsync.ToDeviceExtension] `json:"to_device"`
	E2EE        switched[clientsync.Extension]         `json:"e2ee"`
	AccountData switched[clientsync.Extension]         `json:"account_data"`
	Receipts    switched[clientsync.Extension]         `json:"receipts"`
	Typing      switched[clientsync.Extension]         `json:"typing"`
	Threads     switched[clientsync.ThreadsExtension]  `json:"threads"`
	OldThreads  switched[clientsync.ThreadsExtension]  `json:"io.element.msc4360.threads"`
}

// switched is an extension that is switched on, or nothing.
type switched[T any] struct{ on *T }

// UnmarshalJSON implements json.Unmarshaler.
func (s *switched[T]) UnmarshalJSON(raw []byte) error {
	var is struct {
		Enabled bool `json:"enabled"`
	}
	if err := json.Unmarshal(raw, &is); err != nil || !is.Enabled {
		return err
	}
	s.on = new(T)
	return json.Unmarshal(raw, s.on)
}

type slidingRoom struct {
	Limit int             `json:"timeline_limit"`
	State json.RawMessage `json:"required_state"`
}

type slidingList struct {
	slidingRoom
	Range   *[2]int        `json:"range"`
	Ranges  [][2]int       `json:"ranges"` // before version 4
	Filters slidingFilters `json:"filters"`
}

type slidingFilters struct {
	Direct    *bool           `json:"is_dm"`
	Encrypted *bool           `json:"is_encrypted"`
	Invited   *bool           `json:"is_invited"`
	Invite    *bool           `json:"is_invite"` // before version 4
	Spaces    []matrix.RoomID `json:"spaces"`
	Types     []*string       `json:"room_types"`
	NotTypes  []*string       `json:"not_room_types"`
	Tags      []string        `json:"tags"`
	NotTags   []string        `json:"not_tags"`
}

// slidingSync answers with what is new in the rooms that a client looks at, by
// the names that the proposal had first.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/4186
func (a *API) slidingSync(r *request) (any, error) {
	w, err := a.oldWindow(r)
	if err != nil {
		return nil, err
	}
	timeout, err := r.Number("timeout", 0, int(longestPoll.Milliseconds()))
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	w.Pos, w.Timeout = q.Get("pos"), time.Duration(timeout)*time.Millisecond
	return a.slide(r, w, q.Get("set_presence"))
}

// windows are those whose bodies were read lately: a client that waits sends the
// same one again and again.
type windows struct {
	once sync.Once
	read *cache.Cache[windowKey, clientsync.Window]
}

type windowKey struct {
	user matrix.UserID
	body string
	cut  bool // see cutSince
}

const (
	windowsBytes = 4 << 20 // of windows, about
	mostOfWindow = 64 << 10
)

// oldWindow reads a request that has its position and what else changes outside of
// the body.
func (a *API) oldWindow(r *request) (clientsync.Window, error) {
	raw, err := r.Bytes()
	if err != nil {
		return clientsync.Window{}, err
	}
	a.windows.once.Do(func() { a.windows.read = cache.New[windowKey, clientsync.Window](windowsBytes) })
	rest, since := cutSince(string(raw))
	key := windowKey{r.User, rest, since != ""}
	if w, known := a.windows.read.Find(key); known {
		if key.cut {
			x := *w.Extensions.ToDevice
			x.Since = since
			w.Extensions.ToDevice = &x
		}
		return w, nil
	}
	var body slidingRequest
	if err := r.OptionalJSON(&body); err != nil {
		return clientsync.Window{}, err
	}
	body.Pos, body.Timeout = "", 0
	w, err := body.window(r.User, false)
	x := w.Extensions.ToDevice
	if err == nil && len(raw) <= mostOfWindow && (!key.cut || x != nil && x.Since == since) {
		w.Text = key.body
		a.windows.read.Put(key, w, 1000+8*len(raw))
	}
	return w, err
}

// cutSince takes the position out of a body where it says how far the device has its
// messages, which is all that changes from one answer to the next; "" where that is
// not sure.
func cutSince(body string) (rest, since string) {
	const before = `"since":"`
	i := strings.Index(body, before)
	if i < 0 || strings.Count(body, `"since"`) > 1 {
		return body, ""
	}
	i += len(before)
	n := max(0, strings.IndexByte(body[i:], '"'))
	if strings.Trim(body[i:i+n], "0123456789") != "" {
		return body, ""
	}
	return body[:i] + body[i+n:], body[i : i+n]
}

// slidingSyncV4 is slidingSync as it was accepted.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/4186
func (a *API) slidingSyncV4(r *request) (any, error) {
	var body slidingRequest
	if err := r.OptionalJSON(&body); err != nil {
		return nil, err
	}
	w, err := body.window(r.User, true)
	if err != nil {
		return nil, err
	}
	return a.slide(r, w, body.SetPresence)
}

func (a *API) slide(r *request, w clientsync.Window, presence string) (*clientsync.SlidingAnswer, error) {
	w.User, w.Device = r.User, r.Device
	if err := a.Ephemeral.Syncing(r.Context(), r.User, r.Device, presence); err != nil {
		return nil, err
	}
	return a.Sync.Slide(r.Context(), w)
}

// window checks a request.
func (b *slidingRequest) window(user matrix.UserID, stable bool) (w clientsync.Window, err error) {
	switch {
	case len(b.Lists) > clientsync.MostLists:
		return w, matrix.Errorf(matrix.InvalidParam, "there may be up to %d lists", clientsync.MostLists)
	case len(b.Rooms) > mostSubscriptions:
		return w, matrix.Errorf(matrix.InvalidParam, "there may be up to %d room_subscriptions", mostSubscriptions)
	case len(b.Conn) > 255:
		return w, matrix.Errorf(matrix.InvalidParam, "conn_id has up to 255 bytes")
	case b.Timeout < 0:
		return w, matrix.Errorf(matrix.InvalidParam, "timeout cannot be negative")
	}
	x := &b.Extensions
	w = clientsync.Window{
		Conn: b.Conn, Pos: b.Pos, Stable: stable, Timeout: time.Duration(min(b.Timeout, longestPoll.Milliseconds())) * time.Millisecond,
		Lists: map[string]clientsync.List{}, Rooms: map[matrix.RoomID]clientsync.RoomConfig{},
		Extensions: clientsync.Extensions{
			ToDevice: x.ToDevice.on, E2EE: x.E2EE.on, AccountData: x.AccountData.on, Receipts: x.Receipts.on, Typing: x.Typing.on,
			Threads: cmp.Or(x.Threads.on, x.OldThreads.on),
		},
	}
	read := &stateReader{user: user, stable: stable, known: map[string]clientsync.RequiredState{}}
	for name, l := range b.Lists {
		list, err := l.list(read)
		if err != nil {
			return w, err
		}
		w.Lists[name] = list
	}
	for id, room := range b.Rooms {
		c, err := room.config(read)
		if err != nil {
			return w, err
		}
		w.Rooms[id] = c
	}
	return w, nil
}

// list checks a list.
func (l *slidingList) list(read *stateReader) (clientsync.List, error) {
	c, err := l.config(read)
	if err != nil {
		return clientsync.List{}, err
	}
	f := l.Filters
	if f.Invited == nil && !read.stable {
		f.Invited = f.Invite
	}
	list := clientsync.List{RoomConfig: c, Ranges: l.Ranges, Filters: clientsync.RoomSieve{
		Direct: f.Direct, Encrypted: f.Encrypted, Invited: f.Invited, Spaces: f.Spaces, Types: f.Types, NotTypes: f.NotTypes, Tags: f.Tags, NotTags: f.NotTags,
	}}
	if l.Range != nil {
		list.Ranges = [][2]int{*l.Range}
	}
	if len(list.Ranges) > clientsync.MostLists {
		return list, matrix.Errorf(matrix.InvalidParam, "there may be up to %d ranges", clientsync.MostLists)
	}
	for _, r := range list.Ranges {
		if r[0] < 0 || r[1] < r[0] || r[1] > 1<<30 {
			return list, matrix.Errorf(matrix.InvalidParam, "a range is [first, last], both from 0 on, and the last not before the first")
		}
	}
	return list, nil
}

// config checks what is wanted of a room.
func (c *slidingRoom) config(read *stateReader) (clientsync.RoomConfig, error) {
	config := clientsync.RoomConfig{Limit: min(c.Limit, mostTimeline), Text: string(c.State)}
	if c.Limit < 0 {
		return config, matrix.Errorf(matrix.InvalidParam, "timeline_limit cannot be negative")
	}
	var err error
	config.State, err = read.state(config.Text)
	return config, err
}

// stateReader reads what of the state is wanted: each text once, since many rooms
// have the same.
type stateReader struct {
	user   matrix.UserID
	stable bool // the names of version 4
	known  map[string]clientsync.RequiredState
}

func (r *stateReader) state(text string) (s clientsync.RequiredState, err error) {
	s, known := r.known[text]
	switch {
	case known || text == "":
		return s, nil
	case r.stable:
		s, err = requiredState(json.RawMessage(text))
	default:
		s, err = requiredTuples(json.RawMessage(text), r.user)
	}
	if len(s.Include)+len(s.Exclude) > mostWanted {
		err = matrix.Errorf(matrix.InvalidParam, "required_state may have up to %d elements", mostWanted)
	}
	r.known[text] = s
	return s, err
}

func requiredState(raw json.RawMessage) (clientsync.RequiredState, error) {
	var s struct {
		Include []clientsync.StateMatch `json:"include"`
		Exclude []clientsync.StateMatch `json:"exclude"`
		Lazy    bool                    `json:"lazy_members"`
	}
	if err := edge.Decode(raw, &s); err != nil {
		return clientsync.RequiredState{}, err
	}
	return clientsync.RequiredState{Include: s.Include, Exclude: s.Exclude, Lazy: s.Lazy}, nil
}

// requiredTuples reads pairs of a type and a state key, where "*" is for any,
// "$ME" is the user and "$LAZY" are the members who occur.
func requiredTuples(raw json.RawMessage, user matrix.UserID) (clientsync.RequiredState, error) {
	var s clientsync.RequiredState
	var tuples [][2]string
	if err := edge.Decode(raw, &tuples); err != nil {
		return s, err
	}
	for _, t := range tuples {
		typ, key := t[0], t[1]
		if typ == "m.room.member" && key == "$LAZY" {
			s.Lazy = true
			continue
		}
		if key == "$ME" {
			key = string(user)
		}
		var m clientsync.StateMatch
		if typ != "*" {
			m.Type = &typ
		}
		if key != "*" {
			m.Key = &key
		}
		s.Include = append(s.Include, m)
	}
	return s, nil
}
