package irc_test

import (
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

func kick(user id.UserID, reason string) *mautrix.ReqKickUser {
	return &mautrix.ReqKickUser{UserID: user, Reason: reason}
}
