package e2ee

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

const (
	// batch is how many messages one sync gets at most.
	//
	// Spec: https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
	batch = 100

	// requestKeeps is how long a repeated request is known.
	requestKeeps = 24 * time.Hour

	// mostMessageBytes is how large one message may be.
	mostMessageBytes = 64 << 10

	// everyDevice stands for all devices of a user.
	everyDevice matrix.DeviceID = "*"
)

// Messages are the contents of messages by user and device. The device may be
// "*", which is all of the user's.
type Messages map[matrix.UserID]map[matrix.DeviceID]json.RawMessage

// SendToDevice stores messages for devices, once for each transaction ID of the
// sender's device: those for users of this server until their devices take
// them, the others until their servers do. Devices of ours that do not exist are
// left out. The errors are M_INVALID_PARAM, M_BAD_JSON and M_TOO_LARGE.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid
func (s *Service) SendToDevice(ctx context.Context, sender matrix.UserID, device matrix.DeviceID, typ, txn string, messages Messages) error {
	if err := name("the event type", typ); err != nil {
		return err
	}
	if err := name("the transaction ID", txn); err != nil {
		return err
	}
	n := 0
	for u, devices := range messages {
		if _, err := matrix.ParseUserID(string(u)); err != nil {
			return err
		}
		for _, content := range devices {
			if len(content) == 0 || content[0] != '{' {
				return matrix.Errorf(matrix.BadJSON, "a message must be an object")
			}
			if len(content) > mostMessageBytes {
				return matrix.Errorf(matrix.TooLarge, "a message may have %d bytes", mostMessageBytes)
			}
			n++
		}
	}
	if n > mostAsked {
		return matrix.Errorf(matrix.InvalidParam, "too many messages")
	}
	outgoing, err := s.outgoing(sender, typ, messages)
	if err != nil {
		return err
	}
	var sent []store.ToDevice
	at := now()
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		sent = nil
		if err := tx.DropToDeviceRequests(ctx, at-requestKeeps.Milliseconds()); err != nil {
			return err
		}
		added, err := tx.AddToDeviceRequest(ctx, sender, device, typ, txn, at)
		if err != nil || !added {
			return err
		}
		for _, o := range outgoing {
			if err := tx.PutOutgoing(ctx, o); err != nil {
				return err
			}
		}
		if sent, err = s.addressed(ctx, tx, sender, typ, messages); err != nil || len(sent) == 0 {
			return err
		}
		_, err = tx.PutToDevice(ctx, sent)
		return err
	})
	if err != nil {
		return err
	}
	if len(outgoing) > 0 {
		s.Bell.Ring(store.LogBell)
	}
	s.ring(sent)
	return nil
}

// mostOutgoing is about how many bytes of messages go to another server in one
// piece.
const mostOutgoing = 48 << 10

// outgoing are the messages for users of other servers, in pieces as those
// servers get them.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging
func (s *Service) outgoing(sender matrix.UserID, typ string, messages Messages) ([]store.Outgoing, error) {
	if s.Client == nil || !s.local(sender) {
		return nil, nil
	}
	type piece struct {
		Sender   matrix.UserID `json:"sender"`
		Type     string        `json:"type"`
		ID       string        `json:"message_id"`
		Messages Messages      `json:"messages"`
		size     int
	}
	var list []store.Outgoing
	open := map[matrix.ServerName]*piece{}
	end := func(server matrix.ServerName) error {
		content, err := json.Marshal(open[server])
		list = append(list, store.Outgoing{Server: server, Type: "m.direct_to_device", Content: content})
		delete(open, server)
		return err
	}
	for user, devices := range messages {
		if s.local(user) {
			continue
		}
		server := user.Server()
		for device, content := range devices {
			p := open[server]
			if p != nil && p.size+len(content) > mostOutgoing {
				if err := end(server); err != nil {
					return nil, err
				}
				p = nil
			}
			if p == nil {
				p = &piece{Sender: sender, Type: typ, ID: rand.Text(), Messages: Messages{}}
				open[server] = p
			}
			if p.Messages[user] == nil {
				p.Messages[user] = map[matrix.DeviceID]json.RawMessage{}
			}
			p.Messages[user][device] = content
			p.size += len(content) + len(device) + len(user)
		}
	}
	for server := range open {
		if err := end(server); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// addressed lists the messages to devices that exist, with "*" replaced by the
// devices of the user. A device that is also named gets only what is for it.
func (s *Service) addressed(ctx context.Context, tx *store.Tx, sender matrix.UserID, typ string, messages Messages) ([]store.ToDevice, error) {
	var list []store.ToDevice
	for user, contents := range messages {
		if !s.local(user) || len(contents) == 0 {
			continue
		}
		devices, err := tx.Devices(ctx, user)
		if err != nil {
			return nil, err
		}
		for _, d := range devices {
			content, ok := contents[d.ID]
			if !ok {
				content, ok = contents[everyDevice]
			}
			if ok {
				list = append(list, store.ToDevice{User: user, Device: d.ID, Sender: sender, Type: typ, Content: content})
			}
		}
	}
	return list, nil
}

// ring wakes the syncs of those who got messages.
func (s *Service) ring(sent []store.ToDevice) {
	if len(sent) == 0 {
		return
	}
	keys := []string{store.LogBell}
	for _, m := range sent {
		if keys[len(keys)-1] != string(m.User) {
			keys = append(keys, string(m.User))
		}
	}
	s.Bell.Ring(keys...)
}

// Pending gives the messages for a device that stand behind since and not
// behind upto, oldest first. If there are more than fit into one sync, the rest
// moves behind upto, so that a sync with the token upto finds it, with what has
// come meanwhile.
func (s *Service) Pending(ctx context.Context, user matrix.UserID, device matrix.DeviceID, since, upto int64) ([]store.ToDevice, error) {
	list, err := s.Store.ToDevice(ctx, user, device, since, upto, batch+1)
	if err != nil || len(list) <= batch {
		return list, err
	}
	list = list[:batch]
	err = s.Store.Update(ctx, func(tx *store.Tx) error { return tx.PutOffToDevice(ctx, list[batch-1]) })
	if err == nil {
		s.Bell.Ring(string(user))
	}
	return list, err
}

// Acknowledge deletes the messages for a device up to a position: its client
// has come back with that token, so it has them. Call it before Pending.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
func (s *Service) Acknowledge(ctx context.Context, user matrix.UserID, device matrix.DeviceID, since int64) error {
	if since == 0 { // a client that knows nothing has nothing
		return nil
	}
	k := deviceKey{user, device}
	if upto, ok := s.acked.Find(k); ok && (since <= upto || !s.Store.ChangedSince(store.ToDeviceChanged, string(user), upto)) {
		return nil
	}
	waiting, err := s.Store.HasToDevice(ctx, user, device, since)
	if err != nil {
		return err
	}
	if waiting {
		err := s.Store.Update(ctx, func(tx *store.Tx) error { return tx.DropToDevice(ctx, user, device, since) })
		if err != nil {
			return err
		}
	}
	s.acked.Put(k, since)
	return nil
}
