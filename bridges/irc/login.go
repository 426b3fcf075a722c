package irc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"

	"switchboard/bridges/bridge"
	"switchboard/bridges/irc/client"
)

// flowNick is the only way to log in.
const flowNick = "nick"

// GetLoginFlows implements bridgev2.NetworkConnector.
func (c *Connector) GetLoginFlows() []bridgev2.LoginFlow {
	return []bridgev2.LoginFlow{{ID: flowNick, Name: "Nick", Description: "Choose a nick, with or without an account"}}
}

// CreateLogin implements bridgev2.NetworkConnector.
func (c *Connector) CreateLogin(_ context.Context, user *bridgev2.User, flow string) (bridgev2.LoginProcess, error) {
	if flow != flowNick {
		return nil, bridgev2.ErrInvalidLoginFlowID
	}
	if len(c.networks) == 0 {
		return nil, errors.New("no network is configured")
	}
	return &login{connector: c, user: user}, nil
}

// login asks for network, nick and account, and tries them.
type login struct {
	connector *Connector
	user      *bridgev2.User
	override  *bridgev2.UserLogin // that is logged in again, or nil
	network   *network
	meta      loginData
}

var (
	_ bridgev2.LoginProcessUserInput    = (*login)(nil)
	_ bridgev2.LoginProcessWithOverride = (*login)(nil)
)

// The steps, and the fields in them.
const (
	stepNetwork  = "switchboard.irc.network"
	stepNick     = "switchboard.irc.nick"
	stepPassword = "switchboard.irc.password"
	stepDone     = "switchboard.irc.complete"

	fieldNetwork  = "network"
	fieldNick     = "nick"
	fieldAccount  = "account"
	fieldPassword = "password"

	none = "-" // what stands for nothing, because an empty message can not be sent
)

// Start implements bridgev2.LoginProcess.
func (l *login) Start(context.Context) (*bridgev2.LoginStep, error) {
	if len(l.connector.networks) == 1 {
		return l.chooseNetwork(l.connector.networks[0].ID)
	}
	var ids, lines []string
	for _, n := range l.connector.networks {
		ids = append(ids, n.ID)
		lines = append(lines, fmt.Sprintf("%s (%s)", n.ID, n.Name))
	}
	return input(stepNetwork, "Networks: "+strings.Join(lines, ", "), bridgev2.LoginInputDataField{
		Type: bridgev2.LoginInputFieldTypeSelect, ID: fieldNetwork, Name: "network",
		Description: "The network to log in to.", Options: ids,
		Validate: func(s string) (string, error) {
			if s = strings.ToLower(strings.TrimSpace(s)); l.connector.network(s) == nil {
				return "", fmt.Errorf("there is no network %q", s)
			}
			return s, nil
		},
	}), nil
}

// StartWithOverride implements bridgev2.LoginProcessWithOverride.
func (l *login) StartWithOverride(_ context.Context, override *bridgev2.UserLogin) (*bridgev2.LoginStep, error) {
	old, ok := override.Metadata.(*LoginMetadata)
	if !ok || old.Relay {
		return nil, errors.New("that login is made by the configuration")
	}
	l.override = override
	return l.chooseNetwork(old.Network)
}

// Cancel implements bridgev2.LoginProcess.
func (l *login) Cancel() {}

func input(step, text string, fields ...bridgev2.LoginInputDataField) *bridgev2.LoginStep {
	return &bridgev2.LoginStep{
		Type: bridgev2.LoginStepTypeUserInput, StepID: step, Instructions: text,
		UserInputParams: &bridgev2.LoginUserInputParams{Fields: fields},
	}
}

// SubmitUserInput implements bridgev2.LoginProcessUserInput. An answer that the
// network refuses is asked for again, with the network's reason.
func (l *login) SubmitUserInput(ctx context.Context, in map[string]string) (*bridgev2.LoginStep, error) {
	if id, ok := in[fieldNetwork]; ok {
		return l.chooseNetwork(id)
	}
	if l.network == nil {
		return nil, errors.New("no network was chosen")
	}
	if nick, ok := in[fieldNick]; ok {
		if nick == none {
			nick = l.proposal()
		}
		if err := checkNick(nick, 0); err != nil {
			return l.askNick(err.Error()), nil
		}
		l.meta.Nick = nick
		if account, ok := in[fieldAccount]; ok {
			l.meta.Account = orNothing(account)
		}
		if l.meta.Account != "" {
			return l.askPassword(""), nil
		}
	}
	if password, ok := in[fieldPassword]; ok {
		l.meta.Password = password
	}
	return l.try(ctx)
}

func orNothing(s string) string {
	if s = strings.TrimSpace(s); s == none {
		return ""
	}
	return s
}

func (l *login) chooseNetwork(id string) (*bridgev2.LoginStep, error) {
	if l.network = l.connector.network(id); l.network == nil {
		return nil, fmt.Errorf("there is no network %q", id)
	}
	l.meta.Network = l.network.ID
	return l.askNick(""), nil
}

func (l *login) proposal() string {
	if l.override != nil {
		return l.override.Metadata.(*LoginMetadata).Nick
	}
	return l.network.proposal(l.user.MXID.Localpart())
}

func (l *login) askNick(trouble string) *bridgev2.LoginStep {
	return input(stepNick, trouble,
		bridgev2.LoginInputDataField{
			Type: bridgev2.LoginInputFieldTypeUsername, ID: fieldNick, Name: "nick on " + l.network.Name,
			Description: fmt.Sprintf("Send `%s` for %s.", none, l.proposal()), DefaultValue: l.proposal(),
			Validate: func(s string) (string, error) {
				s = strings.TrimSpace(s)
				if s == none {
					return s, nil
				}
				return s, checkNick(s, 0)
			},
		},
		bridgev2.LoginInputDataField{
			Type: bridgev2.LoginInputFieldTypeUsername, ID: fieldAccount, Name: "account",
			Description:  fmt.Sprintf("Your account with %s's services (SASL). Send `%s` if you have none.", l.network.Name, none),
			DefaultValue: none,
		})
}

func (l *login) askPassword(trouble string) *bridgev2.LoginStep {
	return input(stepPassword, trouble, bridgev2.LoginInputDataField{
		Type: bridgev2.LoginInputFieldTypePassword, ID: fieldPassword, Name: "password of " + l.meta.Account,
		Description: "The bridge deletes your message when it has read it, if it may.",
	})
}

// tryTimeout is how long the network may take to let us in.
const tryTimeout = 90 * time.Second

// try connects. The connection is kept for the login.
func (l *login) try(ctx context.Context) (*bridgev2.LoginStep, error) {
	l.meta.User, l.meta.RealName = ident(l.user.MXID.Localpart()), string(l.user.MXID)
	meta := &LoginMetadata{loginData: l.meta}
	s, err := newSession(l.network, meta)
	if err != nil {
		return nil, err
	}
	// A login that is renewed would keep its own nick occupied.
	// UserLogin.Disconnect works only once, and the server's stop needs it.
	if l.override != nil {
		l.override.Client.Disconnect()
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	if err := l.network.turn(ctx); err != nil {
		return nil, err
	}
	err = s.client.Connect(ctx)
	switch {
	case errors.Is(err, client.ErrSASL):
		return l.askPassword(fmt.Sprintf("%s: %v", l.network.Name, err)), nil
	case errors.Is(err, client.ErrNickInUse), errors.Is(err, client.ErrNickInvalid):
		return l.askNick(fmt.Sprintf("%s: %s: %v", l.network.Name, l.meta.Nick, err)), nil
	case err != nil:
		return nil, fmt.Errorf("%s does not let you in: %w", l.network.Name, err)
	}
	return l.complete(ctx, s, meta)
}

// ident makes a username of a localpart: letters and digits, at most ten.
func ident(localpart string) string {
	out := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(localpart))
	if len(out) > 10 {
		out = out[:10]
	}
	if out == "" {
		return "matrix"
	}
	return out
}

func (l *login) complete(ctx context.Context, s *session, meta *LoginMetadata) (*bridgev2.LoginStep, error) {
	meta.Nick = s.client.Nick() // the server may have cut it
	meta.Casemapping = s.client.Casemapping()
	l.network.setCasemapping(meta.Casemapping)
	id, err := l.loginID(ctx, meta.Nick)
	if err != nil {
		s.client.Close()
		return nil, err
	}
	ul, err := l.user.NewLogin(ctx, &database.UserLogin{ID: id, RemoteName: meta.Nick, Metadata: meta}, &bridgev2.NewLoginParams{
		LoadUserLogin: func(_ context.Context, ul *bridgev2.UserLogin) error {
			if old, ok := ul.Client.(*session); ok && old != s {
				bridge.Go(ctx, "end the old session", func() error { old.Disconnect(); return nil }) // it needs locks that are held here
			}
			s.client.Want(ul.Metadata.(*LoginMetadata).Channels)
			s.attach(ul)
			return nil
		},
	})
	if err != nil {
		s.client.Close()
		return nil, err
	}
	s.Connect(ctx)
	return &bridgev2.LoginStep{
		Type: bridgev2.LoginStepTypeComplete, StepID: stepDone,
		Instructions: fmt.Sprintf("You are %s on %s. Say `join #channel` to enter a channel, or `start-chat nick` to write to somebody.",
			meta.Nick, l.network.Name),
		CompleteParams: &bridgev2.LoginCompleteParams{UserLoginID: ul.ID, UserLogin: ul},
	}, nil
}

// loginID finds an ID for a login: that of the login which is renewed, or the
// nick's. When another user still has that, because logins keep their ID when
// the nick changes, a number follows.
func (l *login) loginID(ctx context.Context, nick string) (networkid.UserLoginID, error) {
	if l.override != nil {
		return l.override.ID, nil
	}
	base := l.network.ID + "." + strings.ToLower(nick)
	for i := 1; i < 100; i++ {
		id := networkid.UserLoginID(base)
		if i > 1 {
			id = networkid.UserLoginID(fmt.Sprintf("%s-%d", base, i))
		}
		old, err := l.connector.br.GetExistingUserLoginByID(ctx, id)
		if err != nil {
			return "", err
		}
		if old == nil || old.UserMXID == l.user.MXID {
			return id, nil
		}
	}
	return "", fmt.Errorf("there are too many logins named %s", nick)
}
