package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"switchboard/homeserver"
	"switchboard/homeserver/account"
)

// tokenCommands are about registration tokens.
type tokenCommands struct {
	Create tokenCreate `cmd:"" help:"Make a token by which people can register, and print it."`
	List   tokenList   `cmd:"" help:"List the tokens."`
	Revoke tokenRevoke `cmd:"" help:"Make a token invalid."`
}

type tokenCreate struct {
	Token    string        `arg:"" optional:"" help:"The token; a random one without it."`
	Uses     int           `help:"How many accounts may be made with it; 0 for any number." default:"1"`
	Lifetime lifetimeValue `help:"How long it is valid, such as 7d; for ever without it." placeholder:"TIME"`
	Admin    bool          `help:"Who registers with it is an administrator."`
}

// lifetimeValue is a time on the command line.
type lifetimeValue time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *lifetimeValue) UnmarshalText(b []byte) error {
	d, err := parseDuration(string(b))
	*l = lifetimeValue(d)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (l lifetimeValue) MarshalText() ([]byte, error) {
	return []byte(formatDuration(time.Duration(l))), nil
}

// Run makes the token.
func (c *tokenCreate) Run(t *terminal) error { return t.carryOut("token create", c) }

func (c *tokenCreate) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	token, err := s.Accounts.CreateRegistrationToken(ctx, account.NewToken{
		Token: c.Token, Uses: c.Uses, Lifetime: time.Duration(c.Lifetime), Admin: c.Admin,
	})
	if err != nil {
		return readable(err)
	}
	fmt.Fprintln(out, token.Token)
	return nil
}

type tokenList struct{}

// Run lists the tokens.
func (c *tokenList) Run(t *terminal) error { return t.carryOut("token list", c) }

func (c *tokenList) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	list, err := s.Accounts.RegistrationTokens(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOKEN\tUSED\tALLOWED\tEXPIRES\tMAKES")
	for _, t := range list {
		allowed, expires, makes := "any number", "never", "users"
		if t.UsesAllowed != nil {
			allowed = fmt.Sprint(*t.UsesAllowed)
		}
		if t.ExpiresTS != 0 {
			expires = time.UnixMilli(t.ExpiresTS).UTC().Format(time.DateTime)
		}
		if t.Admin {
			makes = "administrators"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", t.Token, t.Completed, allowed, expires, makes)
	}
	return w.Flush()
}

type tokenRevoke struct {
	Token string `arg:"" help:"The token."`
}

// Run revokes the token.
func (c *tokenRevoke) Run(t *terminal) error { return t.carryOut("token revoke", c) }

func (c *tokenRevoke) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	if err := s.Accounts.RevokeRegistrationToken(ctx, c.Token); err != nil {
		return readable(err)
	}
	fmt.Fprintln(out, "revoked")
	return nil
}
