package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"switchboard/homeserver"
	"switchboard/homeserver/account"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// userCommands are about accounts.
type userCommands struct {
	Create      userCreate      `cmd:"" help:"Make an account. Without --password-file it gets a random password, which is printed."`
	List        userList        `cmd:"" help:"List the accounts."`
	SetPassword userSetPassword `cmd:"" name:"set-password" help:"Give an account another password and end its sessions. Without --password-file it is a random one, which is printed."`
	SetAdmin    userSetAdmin    `cmd:"" name:"set-admin" help:"Make a user an administrator of the server, or, with --no-admin, take that away."`
	AddEmail    userAddEmail    `cmd:"" name:"add-email" help:"Say that an e-mail address is a user's, so that notifications may be sent there. Make sure that it is."`
	RemoveEmail userRemoveEmail `cmd:"" name:"remove-email" help:"Take an e-mail address from a user. Nothing is sent there any more."`
	ListEmails  userListEmails  `cmd:"" name:"list-emails" help:"List the e-mail addresses of a user."`
	Deactivate  userDeactivate  `cmd:"" help:"End an account for good: it leaves its rooms, and its name stays taken."`
}

// passwordFlag is where a password comes from.
type passwordFlag struct {
	PasswordFile string `help:"File with the password; - for standard input." placeholder:"FILE" json:"-"`
	Password     string `kong:"-"`
	Random       bool   `kong:"-"` // to be printed
}

// read takes the password from where the flag says.
func (p *passwordFlag) read(t *terminal) error {
	switch p.PasswordFile {
	case "":
		p.Password, p.Random = rand.Text(), true
		return nil
	case "-":
		line, err := bufio.NewReader(t.in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the password: %w", err)
		}
		p.Password = strings.TrimRight(line, "\r\n")
	default:
		b, err := os.ReadFile(p.PasswordFile)
		if err != nil {
			return fmt.Errorf("read the password: %w", err)
		}
		p.Password = strings.TrimRight(string(b), "\r\n")
	}
	if p.Password == "" {
		return errors.New("the password is empty")
	}
	return nil
}

func (p *passwordFlag) tell(out io.Writer) {
	if p.Random {
		fmt.Fprintf(out, "password: %s\n", p.Password)
	}
}

type userCreate struct {
	Name  string `arg:"" help:"The name, alice of @alice:example.org."`
	Admin bool   `help:"Make it an administrator."`
	passwordFlag
}

// Run makes the account.
func (c *userCreate) Run(t *terminal) error {
	if err := c.read(t); err != nil {
		return err
	}
	return t.carryOut("user create", c)
}

func (c *userCreate) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	localpart := c.Name
	if strings.HasPrefix(localpart, "@") {
		id, err := userID(s, c.Name)
		if err != nil {
			return err
		}
		localpart = id.Localpart()
	}
	first, err := s.Accounts.FirstToken(ctx)
	if err != nil {
		return err
	}
	id, err := s.Accounts.CreateUser(ctx, account.NewUser{Localpart: localpart, Password: c.Password, Admin: c.Admin})
	if err != nil {
		return readable(err)
	}
	if first != "" { // the token for the first account has done its work
		if err := s.Accounts.RevokeRegistrationToken(ctx, first); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, id)
	c.tell(out)
	if first != "" && !c.Admin {
		fmt.Fprintf(out, "nobody is an administrator yet; switchboard user set-admin %s makes this one\n", id.Localpart())
	}
	return nil
}

type userList struct{}

// Run lists the accounts.
func (c *userList) Run(t *terminal) error { return t.carryOut("user list", c) }

func (c *userList) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	const page = 500
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "USER\tKIND\tCREATED")
	var after matrix.UserID
	for {
		list, err := s.Accounts.Users(ctx, after, page)
		if err != nil {
			return err
		}
		for _, u := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\n", u.ID, kind(u), time.UnixMilli(u.CreatedTS).UTC().Format(time.DateOnly))
			after = u.ID
		}
		if len(list) < page {
			return w.Flush()
		}
	}
}

// kind says what is special about an account.
func kind(u store.User) string {
	var words []string
	for _, w := range []struct {
		word string
		is   bool
	}{
		{"admin", u.Admin}, {"guest", u.Kind == store.Guest}, {"appservice " + u.Appservice, u.Kind == store.AppserviceUser},
		{"deactivated", u.Deactivated}, {"locked", u.Locked}, {"suspended", u.Suspended},
	} {
		if w.is {
			words = append(words, w.word)
		}
	}
	if len(words) == 0 {
		return "user"
	}
	return strings.Join(words, ", ")
}

type userSetPassword struct {
	User string `arg:"" help:"User ID or name."`
	passwordFlag
}

// Run sets the password.
func (c *userSetPassword) Run(t *terminal) error {
	if err := c.read(t); err != nil {
		return err
	}
	return t.carryOut("user set-password", c)
}

func (c *userSetPassword) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	id, err := userID(s, c.User)
	if err != nil {
		return err
	}
	if err := s.Accounts.SetPassword(ctx, id, c.Password, true, ""); err != nil {
		return readable(err)
	}
	fmt.Fprintf(out, "%s has another password and must log in again\n", id)
	c.tell(out)
	return nil
}

type userSetAdmin struct {
	User  string `arg:"" help:"User ID or name."`
	Admin bool   `default:"true" negatable:"" help:"Whether the user is an administrator."`
}

// Run makes a user an administrator or not.
func (c *userSetAdmin) Run(t *terminal) error { return t.carryOut("user set-admin", c) }

func (c *userSetAdmin) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	id, err := userID(s, c.User)
	if err != nil {
		return err
	}
	if err := s.Accounts.SetAdmin(ctx, id, c.Admin); err != nil {
		return readable(err)
	}
	is := "is"
	if !c.Admin {
		is = "is not"
	}
	fmt.Fprintf(out, "%s %s an administrator\n", id, is)
	return nil
}

type userDeactivate struct {
	User  string `arg:"" help:"User ID or name."`
	Erase bool   `help:"Hide the user's messages from who joins the rooms later."`
}

// Run ends the account.
func (c *userDeactivate) Run(t *terminal) error { return t.carryOut("user deactivate", c) }

func (c *userDeactivate) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	id, err := userID(s, c.User)
	if err != nil {
		return err
	}
	if err := s.Deactivate(ctx, id, c.Erase); err != nil {
		return readable(err)
	}
	fmt.Fprintf(out, "%s is deactivated\n", id)
	return nil
}

// userID reads a user ID of s or a name alone.
func userID(s *homeserver.Server, name string) (matrix.UserID, error) {
	if !strings.HasPrefix(name, "@") {
		return matrix.NewUserID(name, s.Config.ServerName), nil
	}
	id, err := matrix.ParseUserID(name)
	if err != nil {
		return "", readable(err)
	}
	if id.Server() != s.Config.ServerName {
		return "", fmt.Errorf("%s is not a user of this server, %s", id, s.Config.ServerName)
	}
	return id, nil
}

// readable is an error of the protocol as an operator reads it.
func readable(err error) error {
	var e *matrix.Error
	if errors.As(err, &e) && e.Cause == nil {
		return errors.New(e.Text)
	}
	return err
}
