// Package homeserver puts a Matrix homeserver together: it opens the store,
// makes the services, and gives their edges as handlers. It holds no rules of
// its own, and it does not listen: that is up to the command.
//
// # How the house is built
//
// A request goes through one road, and everything else reads the log behind it:
//
//	request -> auth -> handler -> service -> store.Update(tx) -> commit -> bell.Ring
//	           \____ clientapi ____/  room…     rows + position              |
//	                                                                         v
//	        /sync waiters    federation sender    push sender    appservice sender
//	          each: listen -> read the store after its own position -> act -> save the position -> wait
//
// The log is the truth, the bell only wakes: it carries no data, and a lost ring
// loses nothing. Nobody below knows who listens above. What must be atomic is in
// the transaction; what may be retried is a reader. There is no network inside a
// transaction or under a room's lock.
//
// A package imports only packages of lower floors, and those on one floor do not
// know each other. The table in cmd/switchboard/layers_test.go is the law; the
// page ARCHITECTURE.md explains it.
//
// Every row that a reader must see carries a position of the one log of the
// server. A sync token is such a number.
//
// # Differences
//
// Where the server does something else than the specification says, on purpose:
//
//   - Namespaces of appservices match from the first character of an identifier
//     on and need not reach the last one, as they do in Synapse, for which the
//     files are written. The specification does not say. The test is
//     registrations.TestNamespaceMatches.
//   - Servers may ask at /_matrix/federation/unstable/rooms/{roomId}/complexity how
//     much state a room has that is open to everybody or that they are in, and
//     this one asks others where the operator sets a limit for joins. The path
//     and the unit, 500 events, are Synapse's. The test is
//     fedapi.TestComplexity.
package homeserver
