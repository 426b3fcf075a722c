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
//   - A display name or avatar that a user has not set is answered with {} and not
//     with M_NOT_FOUND, as Synapse and Dendrite do: bridges of mautrix ask before they
//     set one, and do not where the answer is an error. The test is
//     clientapi.TestProfile.
//   - An appservice may bring the past of a room by batch_send, as bridges of mautrix
//     do where /versions has com.beeper.batch_sending. These events have the IDs that
//     the appservice gives them, so other servers never get them, and a room with users
//     of other servers takes none. They stand behind the events that made the room if
//     an appservice made it, else before everything. No appservice is told of them.
//     One speaks for its own users, and in rooms that it made also for users of this
//     server who are in it: bridges say there what these sent elsewhere. The tests are
//     room.TestBatchOrder and the others beside it.
//   - Namespaces of appservices match from the first character of an identifier
//     on and need not reach the last one, as they do in Synapse, for which the
//     files are written. The specification does not say. The test is
//     registrations.TestNamespaceMatches.
//   - Servers may ask at /_matrix/federation/unstable/rooms/{roomId}/complexity how
//     much state a room has that is open to everybody or that they are in, and
//     this one asks others where the operator sets a limit for joins. The path
//     and the unit, 500 events, are Synapse's. The test is
//     fedapi.TestComplexity.
//   - A push gateway is told counts.unread also when it is 0, where the specification
//     would leave it out: gateways clear the badge by it, as those for Synapse do. The
//     test is push.TestPush.
package homeserver
