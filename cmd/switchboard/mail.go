package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"switchboard/homeserver"
	"switchboard/homeserver/mail"
)

type userAddEmail struct {
	User    string `arg:"" help:"User ID or name."`
	Address string `arg:"" help:"The address, such as alice@example.org."`
}

// Run gives the address to the user.
func (c *userAddEmail) Run(t *terminal) error { return t.carryOut("user add-email", c) }

func (c *userAddEmail) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	id, err := userID(s, c.User)
	if err != nil {
		return err
	}
	if err := s.Accounts.AddEmail(ctx, id, c.Address); err != nil {
		return readable(err)
	}
	fmt.Fprintf(out, "%s is an address of %s\n", c.Address, id)
	return nil
}

type userRemoveEmail struct {
	User    string `arg:"" help:"User ID or name."`
	Address string `arg:"" help:"The address."`
}

// Run takes the address from the user.
func (c *userRemoveEmail) Run(t *terminal) error { return t.carryOut("user remove-email", c) }

func (c *userRemoveEmail) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	id, err := userID(s, c.User)
	if err != nil {
		return err
	}
	if err := s.Accounts.RemoveEmail(ctx, id, c.Address); err != nil {
		return readable(err)
	}
	fmt.Fprintf(out, "%s is no address of %s any more\n", c.Address, id)
	return nil
}

type userListEmails struct {
	User string `arg:"" help:"User ID or name."`
}

// Run lists the addresses.
func (c *userListEmails) Run(t *terminal) error { return t.carryOut("user list-emails", c) }

func (c *userListEmails) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	id, err := userID(s, c.User)
	if err != nil {
		return err
	}
	list, err := s.Accounts.Threepids(ctx, id)
	if err != nil {
		return err
	}
	for _, a := range list {
		fmt.Fprintf(out, "%s  since %s\n", a.Address, time.UnixMilli(a.AddedTS).UTC().Format(time.DateOnly))
	}
	return nil
}

type doctorMail struct {
	To string `help:"An address that gets a message." placeholder:"ADDRESS"`
}

// Run tries the mail server.
func (c *doctorMail) Run(t *terminal) error { return t.carryOut("doctor mail", c) }

func (c *doctorMail) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	conf := s.Config.Mail
	if conf.Host == "" {
		return errors.New("mail.host is not set, so that no e-mail is sent")
	}
	sender, err := mail.New(conf)
	if err != nil {
		return err
	}
	if err := sender.Try(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, sender.Advice(err))
	}
	how := map[string]string{mail.StartTLS: "encrypted by STARTTLS", mail.TLS: "encrypted by TLS", mail.None: "not encrypted"}[conf.TLS]
	if conf.User != "" {
		how += ", logged in as " + conf.User
	}
	fmt.Fprintf(out, "%s answers: %s\n", sender.Server(), how)
	if c.To == "" {
		fmt.Fprintln(out, "To see whether it also takes messages: switchboard doctor mail --to you@example.org")
		return nil
	}
	err = sender.Send(ctx, mail.Message{
		ID: "doctor." + rand.Text(), To: c.To, Subject: "[" + string(s.Config.ServerName) + "] e-mail works",
		Text: "The Matrix server " + string(s.Config.ServerName) + " can send e-mail.\n",
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, sender.Advice(err))
	}
	fmt.Fprintf(out, "It has taken a message from %s to %s; whether that arrives, and not among spam, look there.\n", conf.From, c.To)
	return nil
}
