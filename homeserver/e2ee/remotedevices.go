package e2ee

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// mostDevices is how many devices of one user of another server are kept.
const mostDevices = 10_000

// DeviceUpdate tells of a change of one device of a user of another server.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#definition-mdevice_list_update
type DeviceUpdate struct {
	User        matrix.UserID   `json:"user_id"`
	Device      matrix.DeviceID `json:"device_id"`
	DisplayName string          `json:"device_display_name"`
	Stream      int64           `json:"stream_id"`
	Prev        []int64         `json:"prev_id"`
	Deleted     bool            `json:"deleted"`
	Keys        json.RawMessage `json:"keys"`
}

// anew tells whether the user's server has begun to count anew, where newest is
// the number of the newest change that is known. So does Dendrite when a device
// goes: it names no changes before, or gives the end of a device the number of a
// change just before it, and what it says is news.
func (u DeviceUpdate) anew(newest int64) bool {
	return len(u.Prev) == 0 && u.Stream < newest || u.Deleted && u.Stream == newest
}

// RemoteDevice is a device of a user of another server.
type RemoteDevice struct {
	ID          matrix.DeviceID
	Keys        json.RawMessage // nil: none
	DisplayName string
}

// RemoteDevices are all devices of a user of another server, and the user's
// cross-signing keys.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid
type RemoteDevices struct {
	User                matrix.UserID
	Stream              int64
	Asked               int64 // position of the log when the server was asked
	Devices             []RemoteDevice
	Master, SelfSigning json.RawMessage // nil: none
}

// UpdateRemote takes a change of a device of a user of another server. Changes
// of users who share no room with one of this server are passed over. If nobody
// has asked for the user's keys yet, nothing is kept; and the first change of
// one who came into our rooms is no news then, because servers introduce devices
// so, and our users' clients know already who came. Stale tells that changes
// before this one were missed, so that all of the user's devices must be asked
// for.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
func (s *Service) UpdateRemote(ctx context.Context, u DeviceUpdate) (stale bool, err error) {
	if err := name("a device ID", string(u.Device)); err != nil {
		return false, err
	}
	neighbours, err := s.Store.LocalNeighbours(ctx, u.User)
	if err != nil || len(neighbours) == 0 {
		return false, err
	}
	introduced, err := s.Store.CameToUs(ctx, u.User)
	if err != nil {
		return false, err
	}
	row, err := remoteRow(u.User, RemoteDevice{u.Device, u.Keys, u.DisplayName})
	if err != nil && !u.Deleted {
		return false, err
	}
	news := false
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		stale, news = false, false
		list, known, err := tx.RemoteDeviceList(ctx, u.User)
		if err != nil || known && u.Stream <= list.Stream && !u.anew(list.Stream) && (!list.Stale || list.Pos == 0) {
			return err
		}
		asked := list.Pos != 0
		news = asked || known || !introduced
		if asked {
			if stale, err = missing(ctx, tx, list, u); err != nil {
				return err
			}
		}
		next := store.RemoteDeviceList{User: u.User, Stream: max(u.Stream, list.Stream), Stale: stale || !asked, Pos: list.Pos}
		if u.anew(list.Stream) {
			next.Stream = u.Stream
		}
		err = tx.PutRemoteDeviceList(ctx, next)
		switch {
		case err != nil || next.Stale:
		case u.Deleted:
			err = tx.DropRemoteDevice(ctx, u.User, u.Device)
		default:
			err = tx.PutRemoteDevice(ctx, row)
		}
		if err == nil && news {
			_, err = tx.PutDeviceListChange(ctx, u.User, "")
		}
		return err
	})
	if err == nil && news {
		s.tellRemote(neighbours)
	}
	return stale, err
}

// missing tells whether a list lacks more than one update.
func missing(ctx context.Context, tx *store.Tx, list store.RemoteDeviceList, u DeviceUpdate) (bool, error) {
	if list.Stale || !follows(u.Prev, list.Stream) {
		return true, nil
	}
	if u.Deleted {
		return false, nil
	}
	n, err := tx.CountRemoteDevices(ctx, u.User)
	return n >= mostDevices, err
}

// follows tells whether a change comes right after what is known. Prev may name
// several changes, all of which must be known.
func follows(prev []int64, stream int64) bool {
	return len(prev) > 0 && slices.Max(prev) <= stream
}

// remoteRow checks a device that another server told of.
func remoteRow(user matrix.UserID, d RemoteDevice) (store.DeviceKeys, error) {
	row := store.DeviceKeys{User: user, Device: d.ID, DisplayName: d.DisplayName}
	if err := name("a device ID", string(d.ID)); err != nil {
		return row, err
	}
	if len(row.DisplayName) > longest || strings.IndexByte(row.DisplayName, 0) >= 0 {
		row.DisplayName = ""
	}
	if len(d.Keys) == 0 || string(d.Keys) == "null" {
		return row, nil
	}
	var err error
	row.Keys, err = readIdentity(user, d.ID, d.Keys)
	return row, err
}

// PutRemote replaces what is known of a user of another server by what that
// server says now. Devices and keys that are wrong are left out.
func (s *Service) PutRemote(ctx context.Context, r RemoteDevices) error {
	if len(r.Devices) > mostDevices {
		return matrix.Errorf(matrix.TooLarge, "%d devices are too many", len(r.Devices))
	}
	if r.Asked == 0 {
		r.Asked = s.Store.Position()
	}
	var rows []store.DeviceKeys
	for _, d := range r.Devices {
		if row, err := remoteRow(r.User, d); err == nil {
			rows = append(rows, row)
		}
	}
	cross, err := remoteCross(r)
	if err != nil {
		cross = nil
	}
	neighbours, err := s.Store.LocalNeighbours(ctx, r.User)
	if err != nil || len(neighbours) == 0 {
		return err
	}
	changed := false
	err = s.Store.Update(ctx, func(tx *store.Tx) (err error) {
		changed, err = putRemote(ctx, tx, r, rows, cross)
		return err
	})
	if err == nil && changed {
		s.tellRemote(neighbours)
	}
	return err
}

// putRemote writes what is known of a user and tells whether that is news: not
// where nobody has asked before, unless the answer is older than a change that
// came meanwhile.
func putRemote(ctx context.Context, tx *store.Tx, r RemoteDevices, rows []store.DeviceKeys, cross []store.CrossSigningKey) (changed bool, err error) {
	old, known, err := tx.RemoteDeviceList(ctx, r.User)
	if err != nil {
		return false, err
	}
	different, err := differs(ctx, tx, r.User, rows, cross)
	if err != nil {
		return false, err
	}
	list := store.RemoteDeviceList{User: r.User, Stream: r.Stream, Pos: r.Asked}
	// A change that came while the server was asked may not be in its answer.
	list.Stale = known && old.Stale && r.Stream < old.Stream
	if err := tx.PutRemoteDeviceList(ctx, list); err != nil {
		return false, err
	}
	if different {
		if err := tx.DropRemoteDevices(ctx, r.User); err != nil {
			return false, err
		}
		for _, row := range rows {
			if err := tx.PutRemoteDevice(ctx, row); err != nil {
				return false, err
			}
		}
		if err := putRemoteCross(ctx, tx, cross); err != nil {
			return false, err
		}
	}
	overtaken := list.Stale && old.Pos == 0 // by a change that was no news before
	if !overtaken && (!known || old.Pos == 0 || !different) {
		return false, nil
	}
	_, err = tx.PutDeviceListChange(ctx, r.User, "")
	return true, err
}

// differs tells whether devices or keys are others than those that are stored.
func differs(ctx context.Context, tx *store.Tx, user matrix.UserID, rows []store.DeviceKeys, cross []store.CrossSigningKey) (bool, error) {
	devices, err := tx.RemoteDevices(ctx, []matrix.UserID{user})
	if err != nil || len(devices) != len(rows) {
		return true, err
	}
	stored := make(map[matrix.DeviceID]store.DeviceKeys, len(devices))
	for _, d := range devices {
		stored[d.Device] = d
	}
	for _, row := range rows {
		d, ok := stored[row.Device]
		if !ok || !bytes.Equal(d.Keys, row.Keys) || d.DisplayName != row.DisplayName {
			return true, nil
		}
	}
	keys, err := tx.CrossSigningKeys(ctx, []matrix.UserID{user})
	if err != nil {
		return true, err
	}
	return otherKeys(keys, cross), nil
}

// otherKeys tells whether one of the new keys is none of the old ones.
func otherKeys(old, new []store.CrossSigningKey) bool {
	return slices.ContainsFunc(new, func(k store.CrossSigningKey) bool {
		was := find(old, k.Usage)
		return was == nil || !bytes.Equal(was.Keys, k.Keys)
	})
}

// UpdateRemoteSigning takes the cross-signing keys of a user of another server.
// Keys of users who share no room with one of this server, or for whose keys
// nobody has asked, are passed over.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#definition-msigning_key_update
func (s *Service) UpdateRemoteSigning(ctx context.Context, user matrix.UserID, master, selfSigning json.RawMessage) error {
	keys, err := remoteCross(RemoteDevices{User: user, Master: master, SelfSigning: selfSigning})
	if err != nil || len(keys) == 0 {
		return err
	}
	neighbours, err := s.Store.LocalNeighbours(ctx, user)
	if err != nil || len(neighbours) == 0 {
		return err
	}
	changed := false
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		changed = false
		list, known, err := tx.RemoteDeviceList(ctx, user)
		if err != nil || !known || list.Pos == 0 {
			return err
		}
		old, err := tx.CrossSigningKeys(ctx, []matrix.UserID{user})
		if err != nil || !otherKeys(old, keys) {
			return err
		}
		changed = true
		if err := putRemoteCross(ctx, tx, keys); err != nil {
			return err
		}
		_, err = tx.PutDeviceListChange(ctx, user, "")
		return err
	})
	if err == nil && changed {
		s.tellRemote(neighbours)
	}
	return err
}

// remoteCross checks the shape of the cross-signing keys of a user of another
// server. Whether they are signed well, clients check: the server may be the
// attacker.
func remoteCross(r RemoteDevices) ([]store.CrossSigningKey, error) {
	c := CrossSigning{Master: r.Master, SelfSigning: r.SelfSigning}
	return c.read(r.User)
}

func putRemoteCross(ctx context.Context, tx *store.Tx, keys []store.CrossSigningKey) error {
	for _, k := range keys {
		if err := tx.PutCrossSigningKey(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// tellRemote wakes the syncs of those who share a room with a user of another
// server whose keys changed.
func (s *Service) tellRemote(neighbours []matrix.UserID) {
	keys := []string{store.LogBell}
	for _, u := range neighbours {
		keys = append(keys, string(u))
	}
	s.Bell.Ring(keys...)
}

// KnownRemote adds to k the keys of users of other servers whose devices are
// known here and kept up to date, and answers the others, who must be asked
// for at their servers.
func (s *Service) KnownRemote(ctx context.Context, observer matrix.UserID, asked map[matrix.UserID][]matrix.DeviceID, k *Keys) (unknown map[matrix.UserID][]matrix.DeviceID, err error) {
	unknown = map[matrix.UserID][]matrix.DeviceID{}
	var users []matrix.UserID
	for u, devices := range asked {
		if !s.local(u) {
			unknown[u] = devices
			users = append(users, u)
		}
	}
	for part := range slices.Chunk(users, 500) {
		lists, err := s.Store.RemoteDeviceLists(ctx, part)
		if err != nil {
			return nil, err
		}
		shared, err := s.Store.SharedSince(ctx, part)
		if err != nil {
			return nil, err
		}
		var fresh []matrix.UserID
		for _, l := range lists {
			since, ok := shared[l.User]
			if ok && since <= l.Pos && !l.Stale { // else their server told us of no changes
				fresh = append(fresh, l.User)
			}
		}
		if len(fresh) == 0 {
			continue
		}
		devices, err := s.Store.RemoteDevices(ctx, fresh)
		if err != nil {
			return nil, err
		}
		devices = slices.DeleteFunc(devices, func(d store.DeviceKeys) bool { return len(d.Keys) == 0 })
		for _, u := range fresh {
			k.Devices[u] = map[matrix.DeviceID]json.RawMessage{}
			delete(unknown, u)
		}
		if err := s.add(ctx, observer, fresh, devices, asked, k); err != nil {
			return nil, err
		}
	}
	return unknown, nil
}

// DeviceList is what another server gets to know of a user's devices.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid
type DeviceList struct {
	User        matrix.UserID   `json:"user_id"`
	Stream      int64           `json:"stream_id"`
	Devices     []ListedDevice  `json:"devices"`
	Master      json.RawMessage `json:"master_key,omitempty"`
	SelfSigning json.RawMessage `json:"self_signing_key,omitempty"`
}

// ListedDevice is a device of a DeviceList.
type ListedDevice struct {
	ID          matrix.DeviceID `json:"device_id"`
	DisplayName string          `json:"device_display_name,omitempty"`
	Keys        json.RawMessage `json:"keys"`
}

// DeviceStream is the number by which other servers call the newest change of a
// user's devices. It is even: an odd one is of no change, and can stand for
// changes that a server has missed.
func (s *Service) DeviceStream(ctx context.Context, user matrix.UserID) (int64, error) {
	pos, err := s.Store.NewestDeviceListChange(ctx, user)
	return 2 * pos, err
}

// DeviceList gives the devices with keys of a user of this server. Its number
// is that of the newest change which is in it, or of an older one.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid
func (s *Service) DeviceList(ctx context.Context, user matrix.UserID) (*DeviceList, error) {
	if !s.local(user) {
		return nil, matrix.Errorf(matrix.InvalidParam, "%s is a user of another server", user)
	}
	_, ok, err := s.Store.User(ctx, user)
	if err == nil && !ok {
		err = matrix.Errorf(matrix.NotFound, "there is no such user")
	}
	if err != nil {
		return nil, err
	}
	list := &DeviceList{User: user, Devices: []ListedDevice{}}
	if list.Stream, err = s.DeviceStream(ctx, user); err != nil {
		return nil, err
	}
	keys, err := s.Query(ctx, "", map[matrix.UserID][]matrix.DeviceID{user: nil})
	if err != nil {
		return nil, err
	}
	for id, obj := range keys.Devices[user] {
		d := ListedDevice{ID: id, Keys: obj}
		var u struct {
			Unsigned struct {
				Name string `json:"device_display_name"`
			} `json:"unsigned"`
		}
		if json.Unmarshal(obj, &u) == nil {
			d.DisplayName = u.Unsigned.Name
		}
		if d.Keys, err = withoutUnsigned(obj); err != nil {
			return nil, err
		}
		list.Devices = append(list.Devices, d)
	}
	slices.SortFunc(list.Devices, func(a, b ListedDevice) int { return strings.Compare(string(a.ID), string(b.ID)) })
	list.Master, list.SelfSigning = keys.Master[user], keys.SelfSigning[user]
	return list, nil
}

func withoutUnsigned(obj json.RawMessage) (json.RawMessage, error) {
	members, err := canonjson.Members(nil, obj, canonjson.Whole)
	if err != nil {
		return nil, errors.New("keys that are no object")
	}
	return canonjson.Object(nil, members, func(key []byte) bool { return string(key) == "unsigned" }), nil
}
