// Package client is the protocol half of the XMPP bridge: it keeps the stream
// of one account alive, so that no stanza is lost or doubled when the connection
// breaks (XEP-0198), and turns stanzas into events: messages with everything
// that modern clients put into them, rooms with their occupants, archives. It
// knows nothing of Matrix.
//
// TLS, SASL and the negotiation of a stream are mellium's. From there on stanzas
// are trees of Element, in both directions.
package client
