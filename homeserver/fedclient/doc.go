// Package fedclient is how this server asks other servers: the one dialer of
// all outbound requests and what it refuses, how a server name becomes an
// address, signed requests and the typed calls of the server-server API, the
// back-off from servers that do not answer, and the key ring: fetching,
// keeping, publishing and checking the keys of servers, for events and for
// requests that come in.
//
// It does not know what an event means, nor who may send it; it serves no HTTP
// (fedapi does) and has no queues (fedsender has). All of it may wait for the
// network, so nothing of it may be called inside a transaction.
package fedclient
