package whatsapp

import (
	"context"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/proto/waAdv"
	"go.mau.fi/whatsmeow/store/sqlstore"
	"go.mau.fi/whatsmeow/types"

	"switchboard/homeserver/database/databasetest"
)

// TestRatchets writes a message while another one is read, on a database that
// lets both begin with the same state.
func TestRatchets(t *testing.T) {
	ctx := t.Context()
	container, err := sqlstore.New(ctx, "pgx", databasetest.PostgreSQL(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer container.Close()
	device := container.NewDevice()
	self := types.NewADJID("15550001", 0, 1)
	device.ID, device.LID = &self, types.NewJID("70000000000001", types.HiddenUserServer)
	device.Account = &waAdv.ADVSignedDeviceIdentity{
		Details: []byte{}, AccountSignature: make([]byte, 64), AccountSignatureKey: make([]byte, 32), DeviceSignature: make([]byte, 64),
	}
	if err := device.Save(ctx); err != nil {
		t.Fatal(err)
	}
	guard(device)

	const address = "70000000000002_1:0"
	written := make(chan error, 1)
	err = device.EventBuffer.DoDecryptionTxn(ctx, func(inside context.Context) error {
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
		case <-time.After(300 * time.Millisecond):
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
