package main

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"switchboard/appservices"
	"switchboard/homeserver"
	"switchboard/homeserver/account"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/jitsi"
	"switchboard/registrations"
	"switchboard/voip"
	"switchboard/voip/calltest"
)

// callTest is the call test of this process.
type callTest struct {
	*calltest.Service
	page http.Handler
	bot  *calltest.Bot // nil: there is none
}

// isCallTest tells whether a path belongs to the page of the call test.
func isCallTest(path string) bool {
	return path == "/calltest" || strings.HasPrefix(path, "/calltest/")
}

// openCallTest prepares the call test, if there is to be one.
func (p *process) openCallTest(ctx context.Context) error {
	c := p.conf.CallTest
	if !c.Enabled {
		return nil
	}
	s := &calltest.Service{
		Config: c, Loopback: p.conf.ServerName == "localhost", User: callTestUser(p.server), Redeem: callTestRedeem(p.server.Store),
		Refuses: func(a netip.Addr) bool { return p.conf.ServerName != "localhost" && !fedclient.Public(a) },
	}
	if p.relay != nil {
		s.Relay = trialRelay{p.relay}
	} else {
		s.Elsewhere = func(ctx context.Context, user string) (*calltest.Credentials, error) {
			return credentials(ctx, p.calls, user)
		}
	}
	p.callTest = &callTest{Service: s, page: s.Page()}
	if c.Bot == "" {
		return nil
	}
	bot, err := p.openCallBot(ctx, s)
	p.callTest.bot = bot
	return err
}

// openCallBot prepares the bot. It is left out if its name is somebody's.
func (p *process) openCallBot(ctx context.Context, s *calltest.Service) (*calltest.Bot, error) {
	user := matrix.NewUserID(s.Config.Bot, p.conf.ServerName)
	reg, err := registrations.Generate(registrations.Registration{
		ID: "switchboard-calltest", SenderLocalpart: s.Config.Bot,
		Users: []registrations.Namespace{{Regex: regexp.QuoteMeta(string(user)) + "$", Exclusive: true}},
	})
	if err != nil {
		return nil, fmt.Errorf("call_test.bot: %w", err)
	}
	if u, ok, err := p.server.Store.User(ctx, user); err != nil {
		return nil, err
	} else if ok && u.Appservice != reg.ID {
		p.log.Warn().Str("user", string(user)).Msg("the bot of the call test has no name, because somebody has this one; call_test.bot sets another one")
		return nil, nil
	}
	secret, err := hkdf.Key(sha256.New, p.server.Key.Private.Seed(), nil, "switchboard call test", 32)
	if err != nil {
		return nil, fmt.Errorf("call test: %w", err)
	}
	if err := p.appservices.Attach(reg, nil); err != nil {
		return nil, fmt.Errorf("call_test.bot: %w", err)
	}
	bot := &calltest.Bot{
		Calls: s, User: user, Token: reg.ASToken, Secret: secret,
		Wire: &appservices.Wire{Handler: p.edges.Client, Values: p.log.WithContext(context.WithoutCancel(ctx))},
	}
	if p.conf.PublicURL != "" || p.conf.ServerName != "localhost" {
		bot.Page = p.conf.BaseURL() + "/calltest"
	}
	return bot, nil
}

// trialRelay lets the call test try the relay.
type trialRelay struct{ *voip.Relay }

// TestCredentials implements calltest.Relay.
func (r trialRelay) TestCredentials(whom string, life time.Duration) calltest.Credentials {
	have := r.IssueTrial(whom, life)
	return calltest.Credentials{Username: have.Username, Password: have.Password, URIs: have.URIs}
}

// External implements calltest.Relay.
func (r trialRelay) External() []netip.Addr { return r.Addresses() }

// callTestUser tells whose an access token is. Guests and bots have no calls to
// test.
func callTestUser(s *homeserver.Server) func(context.Context, string) (matrix.UserID, error) {
	return func(ctx context.Context, token string) (matrix.UserID, error) {
		session, err := s.Accounts.Authenticate(ctx, token, account.Masquerade{}, account.Client{})
		switch {
		case err != nil:
			return "", err
		case session.Guest || session.Appservice != nil || session.Suspended:
			return "", matrix.Errorf(matrix.Forbidden, "only users of this server may test calls")
		}
		return session.User, nil
	}
}

// callTestRedeem uses one-time links up.
func callTestRedeem(st *store.Store) func(context.Context, string) (bool, error) {
	return func(ctx context.Context, link string) (good bool, err error) {
		sum := sha256.Sum256([]byte(link))
		good, err = st.HasCallTestLink(ctx, sum[:], time.Now().UnixMilli())
		if err != nil || !good { // who guesses writes nothing
			return false, err
		}
		err = st.Update(ctx, func(tx *store.Tx) error {
			var err error
			good, err = tx.TakeCallTestLink(ctx, sum[:], time.Now().UnixMilli())
			return err
		})
		return good, err
	}
}

// callTestCommands are about the call test.
type callTestCommands struct {
	Link callTestLink `cmd:"" help:"Make a link with which somebody may test calls once, without an account, and print it."`
}

type callTestLink struct {
	Lifetime lifetimeValue `help:"How long it is valid, such as 7d; a day without it." default:"1d" placeholder:"TIME"`

	page string // where it leads to
}

func (c *callTestLink) with(conf Config, _ *jitsi.Verifier) { c.page = conf.clientURL() + "/calltest" }

// Run makes the link.
func (c *callTestLink) Run(t *terminal) error { return t.carryOut("calltest link", c) }

func (c *callTestLink) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	link, now := rand.Text(), time.Now()
	sum := sha256.Sum256([]byte(link))
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		return tx.AddCallTestLink(ctx, sum[:], now.Add(time.Duration(c.Lifetime)).UnixMilli(), now.UnixMilli())
	})
	if err == nil {
		fmt.Fprintf(out, "%s#link=%s\n", c.page, link)
	}
	return err
}
