// Package whatsapp is the connector for WhatsApp: each login is a linked device
// of a WhatsApp account, by whatsmeow. A private chat is a room of one login, a
// group is a room that all logins share, and a person is a ghost, named by the
// LID, never by the phone number. Rooms, users and messages on the Matrix side
// are bridgev2's.
//
// WhatsApp keeps a message until the device confirms it. The bridge confirms
// one when its room holds it, so that neither a cut nor a kill loses any; what
// comes again is known by its ID. In the other direction the ID of a message
// follows from that of the Matrix event, so that a second attempt is no second
// message.
//
// What it links is licensed under the GPL (see NOTICE), so the build tag
// "nowhatsapp" leaves this package out of the program.
package whatsapp
