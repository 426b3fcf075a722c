// Package whatsapptest is a WhatsApp server for tests. It speaks the protocol
// of WhatsApp's web clients as far as whatsmeow uses it: the Noise handshake,
// linking by QR code and by pairing code, keys, messages and receipts for each
// device, groups, pictures, media and refusals. It sees no plain text and knows
// no Signal protocol: phones are whatsmeow clients too, see Phone.
//
// What a device has not confirmed it gets again, in order, when it comes back.
package whatsapptest
