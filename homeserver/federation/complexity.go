package federation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// complexityUnit is how many events of state have a complexity of 1, as Synapse
// counts.
const complexityUnit = 500

// Complexity tells another server, one of whose users may join the room, how
// much work that is. The specification does not know the question. The errors
// are M_NOT_FOUND and M_FORBIDDEN.
func (s *Service) Complexity(ctx context.Context, origin matrix.ServerName, id matrix.RoomID) (float64, error) {
	r, err := s.room(ctx, origin, id)
	if err != nil {
		return 0, err
	}
	if !r.Open {
		if r, err = s.shared(ctx, origin, id); err != nil {
			return 0, matrix.Errorf(matrix.NotFound, "the room is not open to everybody")
		}
	}
	n, err := s.Rooms.StateSize(ctx, r)
	return float64(n) / complexityUnit, err
}

// errComplex refuses a join that would be too much work.
var errComplex = matrix.Errorf(matrix.ResourceLimitExceeded,
	"the room is too large for this server: it has more members and other state than the administrator allows to join")

// joinLimit is how many events the state of a room may have that a user joins; 0
// sets no limit, and administrators have none.
func (s *Service) joinLimit(ctx context.Context, user matrix.UserID) (int, error) {
	if s.Config.MaxJoinComplexity == 0 {
		return 0, nil
	}
	u, _, err := s.Store.User(ctx, user)
	if err != nil || u.Admin {
		return 0, err
	}
	return max(int(s.Config.MaxJoinComplexity*complexityUnit), 1), nil
}

// refuseComplex asks the servers that may let a user in how complex the room is.
// Where none of them says, the state is counted as it comes.
func (s *Service) refuseComplex(ctx context.Context, c room.Change, servers []matrix.ServerName) error {
	most, err := s.joinLimit(ctx, c.Actor)
	if err != nil || most == 0 {
		return err
	}
	for _, name := range servers {
		complexity, err := s.Client.Complexity(ctx, name, c.Room)
		if err == nil && complexity*complexityUnit > float64(most) {
			return errComplex
		}
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		zerolog.Ctx(ctx).Debug().Err(err).Str("server", string(name)).Str("room", string(c.Room)).Msg("a server does not tell how complex a room is")
	}
	return nil
}

// unjoinTime is how long it may take to leave a room again.
const unjoinTime = time.Minute

// unjoin makes a user leave a room by the server that has just let them in, as
// it is too complex to take part in. It is of no use to wait for it.
func (s *Service) unjoin(ctx context.Context, server matrix.ServerName, c room.Change) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unjoinTime)
	defer cancel()
	c.Membership = event.Leave
	if _, err := s.leaveBy(ctx, server, c); err != nil {
		return errors.Join(errComplex, fmt.Errorf("leave again: %w", err))
	}
	return errComplex
}
