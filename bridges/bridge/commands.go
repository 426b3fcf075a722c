package bridge

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/commands"
	"maunium.net/go/mautrix/id"
)

// orderly handles a user's commands one after the other. mautrix asks a question
// before it notes that it has asked, and tells that something failed before it
// notes that it is over: to whoever answers at once it would know nothing of it.
type orderly struct {
	bridgev2.CommandProcessor

	mu   sync.Mutex // tier 1; guards last
	last map[id.UserID]chan struct{}
}

// How long a command waits for the one before, and for one that waits itself,
// such as for a phone that scans a code.
const (
	commandPatience = 30 * time.Second
	waitingPatience = 2 * time.Second
)

// Handle implements bridgev2.CommandProcessor. Each command has a logger of its
// own: mautrix adds fields to the one that all events of a transaction share,
// while others read it.
func (o *orderly) Handle(ctx context.Context, room id.RoomID, event id.EventID, user *bridgev2.User, message string, replyTo id.EventID) {
	done := make(chan struct{})
	o.mu.Lock()
	before := o.last[user.MXID]
	o.last[user.MXID] = done
	o.mu.Unlock()
	defer func() {
		close(done)
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.last[user.MXID] == done {
			delete(o.last, user.MXID)
		}
	}()
	if before != nil {
		o.await(ctx, before, user, message)
	}
	log := zerolog.Ctx(ctx).With().Str("room", string(room)).Logger()
	o.CommandProcessor.Handle(log.WithContext(ctx), room, event, user, message, replyTo)
}

// await waits until the command before a message has ended, but not for ever.
func (o *orderly) await(ctx context.Context, before <-chan struct{}, user *bridgev2.User, message string) {
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for time.Since(began) < commandPatience {
		select {
		case <-before:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		under := commands.LoadCommandState(user)
		if under != nil && under.Next == nil && (time.Since(began) > waitingPatience || strings.EqualFold(message, "cancel")) {
			return
		}
	}
}
