// Package jitsi lets rooms hold group calls on a Jitsi Meet server: it tells
// clients which one, puts the widget of a call into a room and takes it away,
// and answers Jitsi whether who wants to join is a member of the room. It looks
// at a Jitsi server from outside, too, and says what is wrong with it. It carries
// no media and is no part of Jitsi.
//
// # How a call is kept to the members of a room
//
// The name of the conference is the ID of the room in base32. Who joins brings a
// JSON Web Token, made in the client, with an OpenID token of the homeserver in
// it. Jitsi's Prosody (mod_auth_matrix_user_verification) compares the two
// rooms and asks the homeserver, by the API that Verifier serves, whose the OpenID
// token is, whether that user is in the room, and with which power. The
// signature of the JSON Web Token proves nothing, and nobody looks at it.
package jitsi
