package whatsapp

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
)

// ratchets keeps the changes of a device's encrypted sessions apart. Reading a
// message and writing one both move a session on; where the database lets both
// begin with the same state, one of them is undone, the next message is written
// with a key that was used before, and the other side drops it as old.
type ratchets struct {
	store.SessionStore
	store.EventBuffer
	mu sync.Mutex // held by one change at a time, while the database works
}

// guard puts ratchets into a device.
func guard(d *store.Device) *store.Device {
	r := &ratchets{SessionStore: d.Sessions, EventBuffer: d.EventBuffer}
	d.Sessions, d.EventBuffer = r, r
	return d
}

// DoDecryptionTxn implements store.EventBuffer.
func (r *ratchets) DoDecryptionTxn(ctx context.Context, f func(context.Context) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.EventBuffer.DoDecryptionTxn(ctx, f)
}

// PutManySessions implements store.SessionStore. It ends each encryption.
func (r *ratchets) PutManySessions(ctx context.Context, sessions map[string][]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.SessionStore.PutManySessions(ctx, sessions)
}

// errNoKeys means that a message went out without anybody being able to read it.
var errNoKeys = errors.New("there is no key for any device of theirs")

// checkKeys looks after sending whether there is a session with a device of the
// person in a private chat. Whatsmeow leaves out whom it has none with, and says
// nothing: it could not fetch their keys, because the connection was lost or
// WhatsApp did not answer.
func (s *session) checkKeys(ctx context.Context, chat types.JID) error {
	if chat.Server == types.GroupServer {
		return nil // whoever can not read it asks for it again
	}
	devices, err := s.client.GetUserDevices(ctx, []types.JID{chat})
	if err != nil {
		return fmt.Errorf("ask for the devices of %s: %w", chat, err)
	}
	for _, d := range devices {
		if has, err := s.client.Store.ContainsSession(ctx, d.SignalAddress()); has || err != nil {
			return err
		}
	}
	return errNoKeys
}
