// Package voip is what calls need of a server: a STUN and TURN server in this
// process, and the answer to the clients' question which one to use.
//
// TURN carries media between two who cannot reach each other. Clients reach a
// [Relay] over UDP, TCP and TLS. It reads what they send in [Relay] itself:
// it checks credentials and peers, bounds what one user may take, and moves the
// packets. pion/turn keeps the books behind it: allocations, permissions and
// channels, and when each of them ends (see engine).
//
// The package knows nothing of rooms or of what is in the packets. Calls
// themselves are events between clients, which the homeserver passes on as any
// others.
package voip
