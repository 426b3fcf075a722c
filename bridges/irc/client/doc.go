// Package client is an IRC client connection: registration, capabilities,
// SASL, flood control, channel state, and the question whether a line that was
// sent has also been accepted. It keeps one connection alive and reports what
// happens there as events, in the network's order. It knows nothing of Matrix.
//
// A connection that is idle costs one goroutine, the reader. Everything that
// waits for time (flood control, time-outs) hangs on timers.
//
// The protocol is described at https://modern.ircdocs.horse/ and
// https://ircv3.net/irc/.
package client
