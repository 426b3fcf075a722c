// Package stateres resolves the states that the branches of a fork have left a
// room in: state resolution v1, v2 and v2.1, as the room's version wants. It
// knows the algorithms and the cover index, by which it finds out about auth
// chains without walking them. It does no I/O (a Source does), verifies no
// signatures, and does not know how states are stored.
//
// # Cost
//
// A caller names only the keys on which the states differ; of all other state,
// and of all other events, the package asks for what it needs. So the cost
// grows with the conflict and with what happened since, not with the room.
// No step is recursive, none repeats itself for every path through the auth
// events, and events are in memory only a part at a time.
//
// # Cover index
//
// An event has a number, greater than those of its auth events. Events of the
// same (type, state key) that name each other as auth event, one after the
// other, form a chain, which is called by the number of its first event: all
// changes of the power levels, or of one user's membership, where there was no
// fork. An event reaches all of its chain that is older. Links lead from a chain
// into others, and are left out where a way exists without them; so a member who
// joined is a chain of one event with one or two links. Events of types that
// never authorise others, such as topics, are leaves: the index keeps only, for
// a chain and a key, the latest event of that key that names the chain.
package stateres

import (
	"fmt"
	"strings"

	"switchboard/homeserver/matrix"
)

// Num is the number by which the caller knows an event. It is above 0, and
// greater than the numbers of the event's auth events.
type Num int64

// MissingError tells which events are needed and not there.
type MissingError struct {
	IDs  []matrix.EventID // auth events that are not known
	Nums []Num            // events that cannot be loaded
}

// Error implements error.
func (e *MissingError) Error() string {
	var names []string
	for _, id := range e.IDs {
		names = append(names, string(id))
	}
	for _, n := range e.Nums {
		names = append(names, fmt.Sprintf("number %d", n))
	}
	const most = 10
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("%d more", len(names)-most))
	}
	return "missing events: " + strings.Join(names, ", ")
}

// LimitError tells that a conflict is too large to be resolved.
type LimitError struct{ Limit int }

// Error implements error.
func (e *LimitError) Error() string {
	return fmt.Sprintf("more than %d events are in conflict", e.Limit)
}
