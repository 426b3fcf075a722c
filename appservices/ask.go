package appservices

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/matrix"
	"switchboard/registrations"
)

// How long an appservice may take to answer a question. To make a room for an
// alias it asks the server in turn.
const (
	askTimeout  = 30 * time.Second
	pingTimeout = 15 * time.Second
)

// mostShown is how much of an appservice's answer a failed ping shows.
const mostShown = 4 << 10

// Ping calls an appservice that wants to know whether it can be reached, and
// tells how long that took. The errors are M_URL_NOT_SET, M_CONNECTION_FAILED,
// M_CONNECTION_TIMEOUT and M_BAD_STATUS.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#pinging
func (s *Service) Ping(ctx context.Context, reg *registrations.Registration, txn string) (time.Duration, error) {
	to := s.to(reg)
	if to == nil {
		return 0, &matrix.Error{Code: matrix.URLNotSet, Status: http.StatusBadRequest, Text: "the registration has no URL"}
	}
	body := []byte("{}")
	if txn != "" {
		body = pingBody(txn)
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	start := time.Now()
	a, err := to.once(ctx, call{method: http.MethodPost, body: body}, "/_matrix/app/v1/ping", false)
	took := time.Since(start)
	var timeout net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout():
		return 0, &matrix.Error{Code: matrix.ConnectionTimeout, Status: http.StatusGatewayTimeout, Text: "the appservice did not answer in time"}
	case err != nil:
		zerolog.Ctx(ctx).Info().Str("appservice", reg.ID).Err(err).Msg("ping")
		return 0, &matrix.Error{Code: matrix.ConnectionFailed, Status: http.StatusBadGateway, Text: "the appservice cannot be reached"}
	case !a.ok():
		return 0, &matrix.Error{
			Code: matrix.BadStatus, Status: http.StatusBadGateway, Text: fmt.Sprintf("the appservice answered with status %d", a.status),
			Extra: map[string]any{"status": a.status, "body": string(a.body[:min(len(a.body), mostShown)])},
		}
	}
	select {
	case to.wake <- struct{}{}: // it is there: do not let it wait for what it missed
	default:
	}
	return took, nil
}

// AskUser asks the appservices in whose namespaces a user is whether the user
// exists. One that says so has made the account.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#get_matrixappv1usersuserid
func (s *Service) AskUser(ctx context.Context, user matrix.UserID) (bool, error) {
	return s.ask(ctx, s.Registrations.InterestedInUser(string(user)), "/users/"+url.PathEscape(string(user)))
}

// AskAlias asks the appservices in whose namespaces an alias is whether the
// room exists. One that says so has made the room and the alias.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#get_matrixappv1roomsroomalias
func (s *Service) AskAlias(ctx context.Context, alias matrix.RoomAlias) (bool, error) {
	return s.ask(ctx, s.Registrations.InterestedInAlias(string(alias)), "/rooms/"+url.PathEscape(string(alias)))
}

// asks is how often an appservice is asked that gives no answer at all.
const asks = 3

// ask asks one appservice after the other until one says yes. Where none does and
// one of them gave no answer, the error tells that, with status 408.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#querying
func (s *Service) ask(ctx context.Context, list []*registrations.Registration, path string) (bool, error) {
	silent := false
	for _, reg := range list {
		to := s.to(reg)
		if to == nil {
			continue
		}
		a, err := to.persist(ctx, call{method: http.MethodGet, path: "/_matrix/app/v1" + path, old: path})
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case err != nil:
			zerolog.Ctx(ctx).Warn().Str("appservice", reg.ID).Err(err).Msg("the appservice does not answer a question")
			silent = true
		case a.ok():
			return true, nil
		}
	}
	if silent {
		return false, &matrix.Error{Code: matrix.Unknown, Status: http.StatusRequestTimeout, Text: "the appservice that might know this does not answer"}
	}
	return false, nil
}

// persist is do, which is tried again while no answer comes.
func (c *caller) persist(ctx context.Context, r call) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for try := range asks {
		if a, err = c.do(ctx, r); err == nil || try == asks-1 || !wait(ctx, backoff(try), nil) {
			break
		}
	}
	return a, err
}
