package bridge

import (
	"context"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/bridgev2"
)

// Save writes down what a connector keeps of a login. Connectors call it instead of
// the login's own Save, which writes the whole login, while other goroutines of
// mautrix change other parts of it. The metadata must allow that it is marshalled
// at any time.
func Save(ctx context.Context, login *bridgev2.UserLogin) error {
	const put = `UPDATE user_login SET metadata = $1 WHERE bridge_id = $2 AND id = $3`
	_, err := login.Bridge.DB.Exec(ctx, put, dbutil.JSON{Data: login.Metadata}, login.BridgeID, login.ID)
	return err
}

// Rename writes down how the account of a login is called now.
func Rename(ctx context.Context, login *bridgev2.UserLogin, name string) error {
	const put = `UPDATE user_login SET remote_name = $1 WHERE bridge_id = $2 AND id = $3`
	_, err := login.Bridge.DB.Exec(ctx, put, name, login.BridgeID, login.ID)
	return err
}
