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
//
// After a cut two connections handle messages at once: the old one what it had
// read before, the new one what the other had not confirmed, which is in part the
// same. Were a message decrypted twice, the second time it would pass for old, be
// confirmed while its room does not hold it yet, and what follows would overtake
// it. So the question whether it was decrypted before and the decryption are one
// step, and the new connection waits for the message as the old one does.
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

// GetBufferedEvent implements store.EventBuffer. Where there is nothing whatsmeow
// calls DoDecryptionTxn next, which takes mu over.
func (r *ratchets) GetBufferedEvent(ctx context.Context, hash [32]byte) (*store.BufferedEvent, error) {
	r.mu.Lock()
	e, err := r.EventBuffer.GetBufferedEvent(ctx, hash)
	if e != nil || err != nil {
		r.mu.Unlock()
	}
	return e, err
}

// DoDecryptionTxn implements store.EventBuffer.
func (r *ratchets) DoDecryptionTxn(ctx context.Context, f func(context.Context) error) error {
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
