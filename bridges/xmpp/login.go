package xmpp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"mellium.im/xmpp/jid"

	"switchboard/bridges/bridge"
	"switchboard/bridges/xmpp/client"
)

// flowPassword is the only way to log in.
const flowPassword = "password"

// GetLoginFlows implements bridgev2.NetworkConnector.
func (c *Connector) GetLoginFlows() []bridgev2.LoginFlow {
	return []bridgev2.LoginFlow{{ID: flowPassword, Name: "Password", Description: "Log in with your XMPP address and password"}}
}

// CreateLogin implements bridgev2.NetworkConnector.
func (c *Connector) CreateLogin(_ context.Context, user *bridgev2.User, flow string) (bridgev2.LoginProcess, error) {
	if flow != flowPassword {
		return nil, bridgev2.ErrInvalidLoginFlowID
	}
	return &login{connector: c, user: user}, nil
}

// login asks for address and password, and tries them.
type login struct {
	connector *Connector
	user      *bridgev2.User
}

var _ bridgev2.LoginProcessUserInput = (*login)(nil)

// The steps, and the fields in them.
const (
	stepAccount = "switchboard.xmpp.account"
	stepDone    = "switchboard.xmpp.complete"

	fieldJID      = "jid"
	fieldPassword = "password"
)

// Start implements bridgev2.LoginProcess.
func (l *login) Start(context.Context) (*bridgev2.LoginStep, error) { return l.ask(""), nil }

// Cancel implements bridgev2.LoginProcess.
func (l *login) Cancel() {}

func (l *login) ask(trouble string) *bridgev2.LoginStep {
	return &bridgev2.LoginStep{
		Type: bridgev2.LoginStepTypeUserInput, StepID: stepAccount, Instructions: trouble,
		UserInputParams: &bridgev2.LoginUserInputParams{Fields: []bridgev2.LoginInputDataField{
			{
				Type: bridgev2.LoginInputFieldTypeUsername, ID: fieldJID, Name: "XMPP address",
				Description: "It looks like ivy@example.org.",
				Validate: func(s string) (string, error) {
					j, err := l.connector.checkAccount(s)
					return j.String(), err
				},
			},
			{
				Type: bridgev2.LoginInputFieldTypePassword, ID: fieldPassword, Name: "password",
				Description: "The bridge deletes your message when it has read it, if it may.",
			},
		}},
	}
}

// checkAccount tells what is wrong with an address to log in with.
func (c *Connector) checkAccount(text string) (jid.JID, error) {
	j, err := checkUserID(text)
	if err != nil {
		return j, err
	}
	j = j.Bare()
	if len(c.config.Domains) > 0 && !slices.Contains(c.config.Domains, j.Domainpart()) {
		return j, fmt.Errorf("only accounts of %s can log in here", strings.Join(c.config.Domains, ", "))
	}
	return j, nil
}

// tryTimeout is how long the server may take to let us in.
const tryTimeout = 90 * time.Second

// SubmitUserInput implements bridgev2.LoginProcessUserInput. What the server
// refuses is asked for again, with the reason.
func (l *login) SubmitUserInput(ctx context.Context, in map[string]string) (*bridgev2.LoginStep, error) {
	account, err := l.connector.checkAccount(in[fieldJID])
	if err != nil {
		return l.ask(err.Error()), nil
	}
	config, err := l.connector.config.client(account, in[fieldPassword], l.connector.dial)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	err = client.New(config, func(client.Event) {}).Try(ctx)
	var refused *client.AuthError
	if errors.As(err, &refused) {
		return l.ask(fmt.Sprintf("%s does not accept that address and password.", account.Domainpart())), nil
	}
	if err != nil {
		return nil, fmt.Errorf("the server of %s can not be reached: %w", account.Domainpart(), err)
	}
	return l.complete(ctx, account, in[fieldPassword])
}

// clockSkew is how much another clock may differ from ours without messages
// getting lost that come while somebody logs in.
const clockSkew = 10 * time.Second

func (l *login) complete(ctx context.Context, account jid.JID, password string) (*bridgev2.LoginStep, error) {
	id := networkid.UserLoginID(account.String())
	old, err := l.connector.br.GetExistingUserLoginByID(ctx, id)
	if err != nil {
		return nil, err
	}
	if old != nil && old.UserMXID != l.user.MXID {
		return nil, fmt.Errorf("somebody else is logged in as %s here", account)
	}
	ul, err := l.user.NewLogin(ctx, &database.UserLogin{
		ID: id, RemoteName: account.String(), Metadata: &LoginMetadata{Password: password, Position: Position{Time: time.Now().Add(-clockSkew)}},
	}, &bridgev2.NewLoginParams{LoadUserLogin: func(ctx context.Context, ul *bridgev2.UserLogin) error {
		if before, ok := ul.Client.(*session); ok {
			bridge.Go(ctx, "end the old session", func() error { before.Disconnect(); return nil }) // it needs locks that are held here
		}
		return l.connector.LoadUserLogin(ctx, ul)
	}})
	if err != nil {
		return nil, err
	}
	ul.Client.Connect(ctx)
	return &bridgev2.LoginStep{
		Type: bridgev2.LoginStepTypeComplete, StepID: stepDone,
		Instructions:   fmt.Sprintf("You are %s. Say `join room@server` to enter a room, or `start-chat ivy@example.org` to write to somebody.", account),
		CompleteParams: &bridgev2.LoginCompleteParams{UserLoginID: ul.ID, UserLogin: ul},
	}, nil
}
