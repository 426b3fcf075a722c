package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"switchboard/homeserver"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notices"
)

// noticeCommands are about what the server tells its users.
type noticeCommands struct {
	Send  noticeSend  `cmd:"" help:"Tell a user, or all, something."`
	Unpin noticeUnpin `cmd:"" help:"Say that what is pinned in a user's room, or in all, is over."`
}

// addressees are the users that a command is about.
type addressees struct {
	User  string `kong:"-"`
	All   bool   `help:"All users."`
	After string `help:"With --all: begin behind this user. For going on after a failure." placeholder:"USER"`
}

// each calls f for each of them, and tells how many there were.
func (a *addressees) each(ctx context.Context, s *homeserver.Server, out io.Writer, f func(matrix.UserID) error) error {
	if !a.All {
		id, err := userID(s, a.User)
		if err != nil {
			return err
		}
		if err := f(id); err != nil {
			return readable(err)
		}
		fmt.Fprintln(out, "done for", id)
		return nil
	}
	n, far := 0, newProgress(out)
	last, err := s.Notices.Everybody(ctx, matrix.UserID(a.After), func(id matrix.UserID) error {
		err := f(id)
		if err == nil {
			n++
			far.tell("so far %s, the last one %s", count(n, "user"), id)
		}
		return err
	})
	fmt.Fprintf(out, "done for %s\n", count(n, "user"))
	if err != nil && last != "" {
		return fmt.Errorf("%w\nTo go on with the others: --all --after %s", readable(err), last)
	}
	return err
}

type noticeSend struct {
	Words      []string `arg:"" name:"user-and-text" help:"User ID or name, and what the user is told; with --all the text alone." json:"-"`
	Text       string   `kong:"-"`
	UsageLimit string   `help:"Say that the server has reached this limit, such as monthly_active_user. The notice is pinned until notice unpin." placeholder:"LIMIT"`
	Contact    string   `help:"With --usage-limit: where users get help, such as mailto:admin@example.org." placeholder:"URL"`
	addressees
}

// Run sends the notice.
func (c *noticeSend) Run(t *terminal) error {
	if !c.All {
		c.User, c.Words = c.Words[0], c.Words[1:]
	}
	if c.Text = strings.Join(c.Words, " "); c.Text == "" {
		return errors.New("there is nothing to tell: switchboard notice send @user \"text\", or --all \"text\"")
	}
	if c.Contact != "" && c.UsageLimit == "" {
		return errors.New("--contact goes with --usage-limit")
	}
	return t.carryOut("notice send", c)
}

func (c *noticeSend) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	n := notices.Text(c.Text)
	if c.UsageLimit != "" {
		n = notices.UsageLimit(c.Text, c.UsageLimit, c.Contact)
	}
	return c.each(ctx, s, out, func(id matrix.UserID) error {
		_, err := s.Notices.Send(ctx, id, n)
		return err
	})
}

type noticeUnpin struct {
	Who string `arg:"" optional:"" name:"user" help:"User ID or name." json:"-"`
	addressees
}

// Run unpins.
func (c *noticeUnpin) Run(t *terminal) error {
	if c.User = c.Who; (c.User == "") != c.All {
		return errors.New("name a user, or --all")
	}
	return t.carryOut("notice unpin", c)
}

func (c *noticeUnpin) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	return c.each(ctx, s, out, func(id matrix.UserID) error { return s.Notices.Unpin(ctx, id) })
}
