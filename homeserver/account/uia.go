package account

import (
	"context"
	"errors"
	"slices"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// The stages that we offer.
const (
	stageDummy    = "m.login.dummy"
	stagePassword = "m.login.password"
	stageTerms    = "m.login.terms"
	stageToken    = "m.login.registration_token"
)

// uiaKeeps is how long a user may take, and longestSession how long an ID of a
// session may be, in bytes.
const (
	uiaKeeps       = time.Hour
	longestSession = 64
)

// Operation is what a user must confirm.
type Operation struct {
	// Name says what is done, and to what: a confirmation of one is none of
	// another.
	Name string

	// User must confirm it; "" at registration.
	User matrix.UserID

	flows [][]string
}

// Challenge is the answer to who has not confirmed an operation yet: which
// ways there are, and how far this one has got.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-api-in-the-rest-api
type Challenge struct {
	flows     [][]string
	params    map[string]any
	completed []string
	session   string

	// Refused is why the attempt failed, nil if there was none.
	Refused *matrix.Error
}

// Error implements error.
func (c *Challenge) Error() string { return "user-interactive authentication is needed" }

// HTTPStatus is the status of the answer.
func (c *Challenge) HTTPStatus() int { return 401 }

// Body is the answer, to be written as JSON.
func (c *Challenge) Body() any {
	type flow struct {
		Stages []string `json:"stages"`
	}
	body := struct {
		Code      matrix.Code    `json:"errcode,omitempty"`
		Text      string         `json:"error,omitempty"`
		Flows     []flow         `json:"flows"`
		Params    map[string]any `json:"params"`
		Completed []string       `json:"completed,omitempty"`
		Session   string         `json:"session"`
	}{Params: c.params, Completed: c.completed, Session: c.session}
	for _, stages := range c.flows {
		body.Flows = append(body.Flows, flow{stages})
	}
	if c.Refused != nil {
		body.Code, body.Text = c.Refused.Code, c.Refused.Text
	}
	return body
}

// Auth is the attempt at a stage that a request carries.
type Auth struct {
	Type    string `json:"type"`
	Session string `json:"session"`
	Credentials
	Token string `json:"token"`
}

// Confirm returns nil if user has confirmed the operation. Otherwise it returns
// a *Challenge, or the *matrix.Error M_FORBIDDEN if it can not be confirmed
// this way. Auth is nil where the request has none. A confirmation is used up
// by this.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api
func (s *Service) Confirm(ctx context.Context, op Operation, auth *Auth) error {
	_, err := s.confirm(ctx, op, auth)
	return err
}

// confirm is Confirm and gives the stages that were completed.
func (s *Service) confirm(ctx context.Context, op Operation, auth *Auth) ([]store.UIAStage, error) {
	if op.flows == nil {
		op.flows = [][]string{{stagePassword}}
		u, ok, err := s.Store.User(ctx, op.User)
		if err != nil {
			return nil, err
		}
		if !ok || u.Password == "" {
			return nil, matrix.Errorf(matrix.Forbidden, "this account has no password by which this could be confirmed")
		}
	}
	session := store.UIASession{Operation: op.Name, User: op.User}
	if auth == nil {
		return nil, s.challenge(ctx, op, session, nil)
	}
	if auth.Session != "" {
		if err := checkText("session", auth.Session, longestSession); err != nil {
			return nil, err
		}
		old, ok, err := s.Store.UIASession(ctx, auth.Session, time.Now().UnixMilli())
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, s.challenge(ctx, op, session, matrix.Errorf(matrix.Unknown, "the session is unknown or has expired"))
		}
		if old.Operation != op.Name || old.User != op.User {
			return nil, matrix.Errorf(matrix.Forbidden, "the session belongs to another operation")
		}
		session = old
	}
	if auth.Type != "" && !slices.Contains(types(session), auth.Type) {
		if !next(op.flows, append(types(session), auth.Type)) {
			return nil, s.challenge(ctx, op, session, matrix.Errorf(matrix.Unrecognized, "this stage is not offered, or not yet"))
		}
		result, err := s.try(ctx, op, auth)
		var refused *matrix.Error
		if errors.As(err, &refused) && refused.HTTPStatus() == 401 {
			return nil, s.challenge(ctx, op, session, refused)
		}
		if err != nil {
			return nil, err
		}
		session.Completed = append(session.Completed, store.UIAStage{Type: auth.Type, Result: result})
	}
	done := func(stages []string) bool { return slices.Equal(stages, types(session)) }
	if !slices.ContainsFunc(op.flows, done) {
		return nil, s.challenge(ctx, op, session, nil)
	}
	if session.ID != "" {
		if err := s.Store.Update(ctx, func(tx *store.Tx) error { return tx.DeleteUIASession(ctx, session.ID) }); err != nil {
			return nil, err
		}
	}
	return session.Completed, nil
}

// types are the stages that a session has completed.
func types(session store.UIASession) []string {
	list := make([]string, 0, len(session.Completed)+1)
	for _, stage := range session.Completed {
		list = append(list, stage.Type)
	}
	return list
}

// next tells whether a flow begins with these stages.
func next(flows [][]string, stages []string) bool {
	return slices.ContainsFunc(flows, func(flow []string) bool {
		return len(flow) >= len(stages) && slices.Equal(flow[:len(stages)], stages)
	})
}

// try attempts one stage. An error with status 401 may be tried again.
func (s *Service) try(ctx context.Context, op Operation, auth *Auth) (result string, err error) {
	switch auth.Type {
	case stagePassword:
		return "", s.tryPassword(ctx, op, auth)
	case stageToken:
		if !registrationToken.MatchString(auth.Token) {
			return "", refuse("the registration token is not valid")
		}
		t, ok, err := s.Store.RegistrationToken(ctx, auth.Token)
		if err != nil {
			return "", err
		}
		if !ok || !s.opens(t) {
			return "", refuse("the registration token is not valid")
		}
		return t.Token, nil
	}
	return "", nil // m.login.dummy; m.login.terms: to go on is to accept
}

func (s *Service) tryPassword(ctx context.Context, op Operation, auth *Auth) error {
	id, err := s.localUser(auth.Credentials)
	if err != nil {
		return err
	}
	if id != op.User {
		if matrix.UserID(lower(id)) != op.User {
			return matrix.Errorf(matrix.Forbidden, "only the user whose session this is can confirm it")
		}
		id = op.User
	}
	u, _, err := s.Store.User(ctx, id)
	if err != nil {
		return err
	}
	ok, err := s.passes(ctx, u, auth.Password)
	if err == nil && !ok {
		err = refuse("invalid password")
	}
	return err
}

// refuse says that an attempt failed and may be repeated.
func refuse(text string) error {
	return &matrix.Error{Code: matrix.Forbidden, Status: 401, Text: text}
}

// challenge saves how far the session has got and makes the answer.
func (s *Service) challenge(ctx context.Context, op Operation, session store.UIASession, refused *matrix.Error) error {
	now := time.Now()
	if session.ID == "" {
		session.ID, session.ExpiresTS = secret(18), now.Add(uiaKeeps).UnixMilli()
	}
	err := s.Store.Update(ctx, func(tx *store.Tx) error { return tx.PutUIASession(ctx, session, now.UnixMilli()) })
	if err != nil {
		return err
	}
	c := &Challenge{flows: op.flows, params: map[string]any{}, completed: types(session), session: session.ID, Refused: refused}
	for _, flow := range op.flows {
		if slices.Contains(flow, stageTerms) {
			c.params[stageTerms] = s.Config.terms()
		}
	}
	return c
}
