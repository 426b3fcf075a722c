package whatsapp

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.mau.fi/libsignal/signalerror"
	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waAdv"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/store/sqlstore"
	"go.mau.fi/whatsmeow/types"

	"switchboard/homeserver/database/databasetest"
)

// guarded is a device on a database that lets two transactions begin with the
// same state.
func guarded(t *testing.T) *store.Device {
	t.Helper()
	container, err := sqlstore.New(t.Context(), "pgx", databasetest.PostgreSQL(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = container.Close() })
	device := container.NewDevice()
	self := types.NewADJID("15550001", 0, 1)
	device.ID, device.LID = &self, types.NewJID("70000000000001", types.HiddenUserServer)
	device.Account = &waAdv.ADVSignedDeviceIdentity{
		Details: []byte{}, AccountSignature: make([]byte, 64), AccountSignatureKey: make([]byte, 32), DeviceSignature: make([]byte, 64),
	}
	if err := device.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	return guard(device)
}

// overlap is how long something waits for what should wait for it.
const overlap = 300 * time.Millisecond

// TestRatchets writes a message while another one is read.
func TestRatchets(t *testing.T) {
	ctx, device := t.Context(), guarded(t)
	const address = "70000000000002_1:0"
	if e, err := device.EventBuffer.GetBufferedEvent(ctx, [32]byte{}); e != nil || err != nil {
		t.Fatal(e, err)
	}
	written := make(chan error, 1)
	err := device.EventBuffer.DoDecryptionTxn(ctx, func(inside context.Context) error {
		if _, err := device.Sessions.GetSession(inside, address); err != nil {
			return err
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			written <- device.Sessions.PutManySessions(ctx, map[string][]byte{address: []byte("written")})
		}()
		select {
		case <-ended: // before this one, which began earlier
		case <-time.After(overlap):
		}
		return device.Sessions.PutSession(inside, address, []byte("read"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if got, err := device.Sessions.GetSession(ctx, address); err != nil || string(got) != "written" {
		t.Errorf("the session is %q, %v: what was written has been undone", got, err)
	}
}

// TestMessageOnTwoConnections reads a message that a new connection brings again
// while the old one still reads it: it must not pass for one that was handled.
func TestMessageOnTwoConnections(t *testing.T) {
	device := guarded(t)
	client := whatsmeow.NewClient(device, nil)
	client.EnableDecryptedEventBuffer = true
	inside := client.DangerousInternals() //lint:ignore SA1019 what handles a message that comes
	read := func(decrypt func(context.Context) ([]byte, error)) error {
		text, _, err := inside.BufferedDecrypt(t.Context(), []byte("encrypted"), time.Now(), decrypt)
		if err == nil && string(text) != "hello" {
			err = fmt.Errorf("the text is %q", text)
		}
		return err
	}
	again := make(chan error, 1)
	err := read(func(context.Context) ([]byte, error) {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			again <- read(func(context.Context) ([]byte, error) { return nil, signalerror.ErrOldCounter })
		}()
		select {
		case <-ended:
		case <-time.After(overlap):
		}
		return []byte("hello"), nil
	})
	if err := errors.Join(err, <-again); err != nil {
		t.Error(err)
	}
}
