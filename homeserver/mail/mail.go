// Package mail hands e-mail to the operator's mail server by SMTP, one message
// after the other, and can say in plain words why that does not work. Who gets
// which mail, when, and what stands in it is not its business.
package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"os"
	"strconv"
	"strings"
	"unicode"

	gomail "github.com/wneessen/go-mail"
)

// ErrRefused is an error of Send for a message that the mail server will never
// take: because of its receiver or of what stands in it.
var ErrRefused = errors.New("the mail server refuses the message for good")

// Message is an e-mail to one receiver. Control characters in ID and Subject
// become spaces, so that neither can end a header.
type Message struct {
	ID          string // what stands before the @ of Message-ID; the same for the same message
	To          string // an address without a name
	Subject     string
	Text, HTML  string
	Unsubscribe string // https:// URL that ends such messages by a POST; "" for none
}

// Sender sends e-mail. Its methods may be called from several goroutines.
type Sender struct {
	Config Config
	roots  *x509.CertPool // nil: the system's
	from   *mail.Address
}

// New makes a sender of a configuration that was checked.
func New(c Config) (*Sender, error) {
	from, err := mail.ParseAddress(c.From)
	if err != nil {
		return nil, fmt.Errorf("mail.from: %w", err)
	}
	s := &Sender{Config: c, from: from}
	if c.RootCA != "" {
		pem, err := os.ReadFile(c.RootCA)
		if err != nil {
			return nil, fmt.Errorf("mail.root_ca: %w", err)
		}
		if s.roots = x509.NewCertPool(); !s.roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("mail.root_ca: %s holds no certificate in PEM", c.RootCA)
		}
	}
	return s, nil
}

// Send hands a message to the mail server, which has taken it when there is no
// error. One that is ErrRefused will come again each time; others may go away.
func (s *Sender) Send(ctx context.Context, m Message) error {
	msg, err := s.message(m)
	if err != nil {
		return err
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	err = client.DialAndSendWithContext(ctx, msg)
	var failed *gomail.SendError
	if errors.As(err, &failed) {
		switch code := failed.ErrorCode(); failed.Reason {
		case gomail.ErrSMTPRcptTo, gomail.ErrSMTPData, gomail.ErrSMTPDataClose:
			if code >= 500 && code < 600 {
				return fmt.Errorf("%w: %w", ErrRefused, err)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("send mail: %w", err)
	}
	return nil
}

// message writes the message as mail programs read it.
func (s *Sender) message(m Message) (*gomail.Msg, error) {
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	msg.FromMailAddress(s.from)
	if err := msg.To(m.To); err != nil {
		return nil, fmt.Errorf("%w: receiver: %w", ErrRefused, err)
	}
	_, domain, _ := strings.Cut(s.from.Address, "@")
	msg.SetMessageIDWithValue(oneLine(m.ID) + "@" + domain)
	msg.SetDate()
	msg.Subject(oneLine(m.Subject))
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no answers by machines
	if m.Unsubscribe != "" {
		msg.SetGenHeaderPreformatted(gomail.HeaderListUnsubscribe, "<"+oneLine(m.Unsubscribe)+">")
		msg.SetListUnsubscribePost()
	}
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	if m.HTML != "" {
		msg.AddAlternativeString(gomail.TypeTextHTML, m.HTML)
	}
	return msg, nil
}

// oneLine is s without what could end a header, or turn the text around.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || unicode.In(c, unicode.Cf, unicode.Zl, unicode.Zp) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "�"))
}

// client makes what speaks SMTP with the mail server, once.
func (s *Sender) client() (*gomail.Client, error) {
	c := s.Config
	options := []gomail.Option{
		gomail.WithPort(c.port()), gomail.WithTimeout(c.Timeout), gomail.WithoutNoop(),
		gomail.WithTLSConfig(&tls.Config{ServerName: c.Host, RootCAs: s.roots, MinVersion: tls.VersionTLS12}),
	}
	switch c.TLS {
	case TLS:
		options = append(options, gomail.WithSSL())
	case None:
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	if c.User != "" {
		options = append(options, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover), gomail.WithUsername(c.User), gomail.WithPassword(c.Password))
	}
	client, err := gomail.NewClient(c.Host, options...)
	if err != nil {
		return nil, fmt.Errorf("mail: %w", err)
	}
	return client, nil
}

// Try connects to the mail server, encrypts, logs in and goes. The error is for
// Advice.
func (s *Sender) Try(ctx context.Context) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	if err := client.DialWithContext(ctx); err != nil {
		return fmt.Errorf("mail server: %w", err)
	}
	return client.Close()
}

// Server is the mail server's host and port.
func (s *Sender) Server() string {
	return net.JoinHostPort(s.Config.Host, strconv.Itoa(s.Config.port()))
}
