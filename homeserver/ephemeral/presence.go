package ephemeral

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// The states of presence.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#presence
const (
	Online      = "online"
	Unavailable = "unavailable"
	Offline     = "offline"
)

const (
	idleAfter    = 5 * time.Minute  // without activity nobody is online
	goneAfter    = 30 * time.Second // without a sync a device is gone
	syncMost     = 6 * time.Minute  // how long one sync may take
	presenceTick = 5 * time.Second
	longestMsg   = 1024 // bytes of a status message
)

// here is who is there, as far as this process knows. Users who are offline
// are not in it.
type here struct {
	mu     sync.Mutex // tier 1; guards all below
	users  map[matrix.UserID]*activity
	remote map[matrix.UserID]time.Time // when their servers last spoke of users of others
}

// activity is what one user does.
type activity struct {
	active  time.Time // when the user last did something
	devices map[matrix.DeviceID]*deviceState
	told    string // the state that was last written
}

// deviceState is what one device says of its user.
type deviceState struct {
	state   string
	seen    time.Time
	syncing int // requests that wait
}

// lives tells whether the device is still there.
func (d *deviceState) lives(at time.Time) bool {
	if d.syncing > 0 {
		return at.Sub(d.seen) < syncMost
	}
	return at.Sub(d.seen) < goneAfter
}

// state is what all devices of a user say together.
func (a *activity) state(at time.Time) string {
	best := Offline
	for _, d := range a.devices {
		switch {
		case !d.lives(at):
		case d.state == Online && at.Sub(a.active) < idleAfter:
			return Online
		case d.state != Offline:
			best = Unavailable
		}
	}
	return best
}

// find gives the activity of a user, which is made if it is missing.
func (h *here) find(user matrix.UserID) *activity {
	if h.users == nil {
		h.users = map[matrix.UserID]*activity{}
	}
	a := h.users[user]
	if a == nil {
		a = &activity{devices: map[matrix.DeviceID]*deviceState{}}
		h.users[user] = a
	}
	return a
}

// device notes what a device says and returns what its user's presence is now.
func (h *here) device(user matrix.UserID, device matrix.DeviceID, state string, syncs int) store.Presence {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := time.Now()
	a := h.find(user)
	d := a.devices[device]
	if d == nil {
		d = &deviceState{}
		a.devices[device] = d
	}
	if state == Online && (d.state != Online || syncs == 0) {
		a.active = at
	}
	d.state = state
	d.seen = at
	d.syncing += syncs
	return a.presence(user, at)
}

// presence is what is to be told of a user, without the status message.
func (a *activity) presence(user matrix.UserID, at time.Time) store.Presence {
	p := store.Presence{User: user, State: a.state(at)}
	if !a.active.IsZero() {
		p.LastActive = a.active.UnixMilli()
	}
	return p
}

// SetPresence says what a device of a user says of its user. A nil message
// leaves the one there is. The error is M_INVALID_PARAM.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3presenceuseridstatus
func (s *Service) SetPresence(ctx context.Context, user matrix.UserID, device matrix.DeviceID, state string, msg *string) error {
	if err := checkPresence(state, msg); err != nil || s.NoPresence {
		return err
	}
	p := s.here.device(user, device, state, 0)
	if msg != nil {
		p.StatusMsg = *msg
	}
	return s.tell(ctx, []store.Presence{p}, msg == nil)
}

func checkPresence(state string, msg *string) error {
	if state != Online && state != Unavailable && state != Offline {
		return matrix.Errorf(matrix.InvalidParam, "%q is no presence", state)
	}
	if msg != nil {
		if len(*msg) > longestMsg {
			return matrix.Errorf(matrix.InvalidParam, "a status message may have %d bytes", longestMsg)
		}
		for _, r := range *msg {
			if r == 0 || r == '\uFFFD' {
				return matrix.Errorf(matrix.InvalidParam, "the status message is not text")
			}
		}
	}
	return nil
}

// Syncing says that a device of a user syncs until ctx is done, and what its
// client says of the user: a state, or "" for online. Offline changes nothing.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
func (s *Service) Syncing(ctx context.Context, user matrix.UserID, device matrix.DeviceID, state string) error {
	if state == "" {
		state = Online
	}
	if err := checkPresence(state, nil); err != nil || s.NoPresence || state == Offline {
		return err
	}
	p := s.here.device(user, device, state, 1)
	context.AfterFunc(ctx, func() { s.here.synced(user, device) })
	if s.here.same(p) {
		return nil
	}
	return s.tell(ctx, []store.Presence{p}, true)
}

// synced ends a sync.
func (h *here) synced(user matrix.UserID, device matrix.DeviceID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a := h.users[user]; a != nil {
		if d := a.devices[device]; d != nil && d.syncing > 0 {
			d.syncing--
			d.seen = time.Now()
		}
	}
}

// same tells whether others know that state already.
func (h *here) same(p store.Presence) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.users[p.User]
	return a != nil && a.told == p.State
}

// Active says that a user did something, such as sending a message.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#last-active-ago
func (s *Service) Active(user matrix.UserID) {
	if s.NoPresence {
		return
	}
	s.here.mu.Lock()
	defer s.here.mu.Unlock()
	if a := s.here.users[user]; a != nil {
		a.active = time.Now()
	}
}

// tell writes presence, with keep without the status messages, and wakes those
// who may see it.
func (s *Service) tell(ctx context.Context, list []store.Presence, keep bool) error {
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		for _, p := range list {
			if err := tx.PutPresence(ctx, p, keep); err != nil {
				return err
			}
			tx.OnCommit(func() { s.here.told(p) })
		}
		return nil
	})
	if err != nil {
		return err
	}
	users := make([]matrix.UserID, len(list))
	for i, p := range list {
		users[i] = p.User
	}
	s.announce(users, users)
	return nil
}

// told notes what others know now.
func (h *here) told(p store.Presence) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a := h.users[p.User]; a != nil {
		a.told = p.State
	}
}

// due lists whose presence changed by time alone, and forgets who is gone.
func (h *here) due(at time.Time) []store.Presence {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []store.Presence
	for user, a := range h.users {
		for id, d := range a.devices {
			if !d.lives(at) {
				delete(a.devices, id)
			}
		}
		p := a.presence(user, at)
		if p.State != a.told {
			list = append(list, p)
		} else if len(a.devices) == 0 {
			delete(h.users, user)
		}
	}
	return list
}

// runPresence tells who became idle and who is gone.
func (s *Service) runPresence(ctx context.Context) error {
	begun := s.attempt(ctx, s.forgetPresent)
	ticker := time.NewTicker(presenceTick)
	defer ticker.Stop()
	for {
		rung := s.Bell.Listen(wavesBell)
		select {
		case <-ticker.C:
		case <-s.waves.time():
			s.wave()
			continue
		case <-rung: // there is a time to wait for
			continue
		case <-ctx.Done():
			return nil
		}
		begun = begun || s.attempt(ctx, s.forgetPresent)
		s.attempt(ctx, s.tellDue)
		s.attempt(ctx, s.endSilent)
	}
}

// attempt tells whether f was done. What was not, as while the database is away, is
// done at the next tick.
func (s *Service) attempt(ctx context.Context, f func(context.Context) error) bool {
	err := f(ctx)
	if err != nil && ctx.Err() == nil {
		zerolog.Ctx(ctx).Error().Err(err).Msg("cannot write who is there; trying again")
	}
	return err == nil
}

// tellDue tells whose presence changed by time alone.
func (s *Service) tellDue(ctx context.Context) error {
	list := s.here.due(time.Now())
	if len(list) == 0 {
		return nil
	}
	return s.tell(ctx, list, true)
}

// forgetPresent makes those offline who were there when the server stopped and
// have not come back.
func (s *Service) forgetPresent(ctx context.Context) error {
	list, err := s.Store.PresentUsers(ctx)
	if err != nil {
		return err
	}
	var gone []store.Presence
	s.here.mu.Lock()
	for _, p := range list {
		if _, heard := s.here.remote[p.User]; !heard && s.here.users[p.User] == nil {
			p.State = Offline
			gone = append(gone, p)
		}
	}
	s.here.mu.Unlock()
	if len(gone) == 0 {
		return nil
	}
	return s.tell(ctx, gone, true)
}

// Presence is the presence of a user, as far as observer may see it: of users
// in common rooms. The error is M_FORBIDDEN.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3presenceuseridstatus
func (s *Service) Presence(ctx context.Context, observer, user matrix.UserID) (Status, error) {
	if user != observer {
		share, err := s.Store.SharesRoom(ctx, observer, user)
		if err != nil {
			return Status{}, err
		}
		if !share {
			return Status{}, matrix.Errorf(matrix.Forbidden, "you are not allowed to see their presence")
		}
	}
	if s.NoPresence {
		return Status{Presence: Offline}, nil
	}
	p, ok, err := s.Store.Presence(ctx, user)
	if err != nil || !ok {
		return Status{Presence: Offline}, err
	}
	return s.status(p), nil
}

// Status is the content of an m.presence event.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mpresence
type Status struct {
	Presence        string `json:"presence"`
	LastActiveAgo   int64  `json:"last_active_ago,omitempty"` // milliseconds; 0: not known
	StatusMsg       string `json:"status_msg,omitempty"`
	CurrentlyActive bool   `json:"currently_active,omitempty"`
}

// Event is the m.presence event of a user.
func (st Status) Event(user matrix.UserID) json.RawMessage {
	b := append(make([]byte, 0, 160), `{"type":"m.presence","sender":`...)
	b = canonjson.AppendText(b, string(user))
	b = append(b, `,"content":{"presence":`...)
	b = canonjson.AppendText(b, st.Presence)
	if st.LastActiveAgo != 0 {
		b = strconv.AppendInt(append(b, `,"last_active_ago":`...), st.LastActiveAgo, 10)
	}
	if st.StatusMsg != "" {
		b = canonjson.AppendText(append(b, `,"status_msg":`...), st.StatusMsg)
	}
	if st.CurrentlyActive {
		b = append(b, `,"currently_active":true`...)
	}
	return append(b, "}}"...)
}

func (s *Service) status(p store.Presence) Status {
	at := time.Now()
	last := p.LastActive
	s.here.mu.Lock()
	if a := s.here.users[p.User]; a != nil && !a.active.IsZero() {
		last = max(last, a.active.UnixMilli())
	}
	s.here.mu.Unlock()
	st := Status{Presence: p.State, StatusMsg: p.StatusMsg}
	if last > 0 {
		st.LastActiveAgo = max(at.UnixMilli()-last, 1)
		st.CurrentlyActive = p.State == Online && st.LastActiveAgo < idleAfter.Milliseconds()
	}
	return st
}

// Presences gives the presence that changed behind since and not behind upto,
// of observer and of users in common rooms; and that of newcomers, users whom
// observer has not seen before, unless they are offline. Without since, which is
// for clients that know nothing, all who are offline are left out.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#presence
func (s *Service) Presences(ctx context.Context, observer matrix.UserID, since, upto int64, newcomers ...matrix.UserID) (map[matrix.UserID]Status, error) {
	if s.NoPresence {
		return nil, nil
	}
	list, err := s.Store.PresenceOf(ctx, newcomers)
	if err != nil {
		return nil, err
	}
	var changed []store.Presence
	if since == 0 {
		changed, err = s.Store.PresentUsers(ctx)
	} else {
		changed, err = s.Store.PresenceChanges(ctx, since, upto)
	}
	if err != nil || len(list)+len(changed) == 0 {
		return nil, err
	}
	rows := make(map[matrix.UserID]store.Presence, len(list)+len(changed))
	users := make([]matrix.UserID, 0, len(rows))
	for _, p := range append(list, changed...) {
		if _, known := rows[p.User]; !known {
			users = append(users, p.User)
		}
		rows[p.User] = p
	}
	seen, err := s.Store.ShareRooms(ctx, observer, users)
	if err != nil {
		return nil, err
	}
	found := make(map[matrix.UserID]Status, len(seen)+1)
	for _, u := range append(seen, observer) {
		if p, ok := rows[u]; ok {
			found[u] = s.status(p)
		}
	}
	return found, nil
}
