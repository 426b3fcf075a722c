package mail

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"syscall"

	gomail "github.com/wneessen/go-mail"
)

// Advice says what an operator can do about an error of Try or Send.
func (s *Sender) Advice(err error) string {
	c := s.Config
	var (
		dns       *net.DNSError
		unknown   x509.UnknownAuthorityError
		otherName x509.HostnameError
		invalid   x509.CertificateInvalidError
		noTLS     tls.RecordHeaderError
		timeout   net.Error
		answer    *textproto.Error
		failed    *gomail.SendError
	)
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("There is no host %s: look at mail.host, and at the resolver of this computer.", c.Host)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("Nothing listens at %s: look at mail.host and mail.port, and whether the mail server runs. Usual are the ports 587 (starttls), 465 (tls) and 25 (none).", s.Server())
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return fmt.Sprintf("There is no way to %s: look at this computer's network and firewall.", s.Server())
	case errors.As(err, &unknown):
		return "The certificate of the mail server is signed by nobody whom this computer knows: let mail.root_ca be the file of its authority, or give the server another certificate."
	case errors.As(err, &otherName):
		return fmt.Sprintf("The certificate of the mail server is not for %s: let mail.host be one of the names on it.", c.Host)
	case errors.As(err, &invalid):
		return "The certificate of the mail server is not valid: look at its dates, and at the clock of this computer."
	case errors.As(err, &noTLS):
		return "The mail server does not begin with TLS at this port: set mail.tls to starttls, or mail.port to 465."
	case strings.Contains(err.Error(), "STARTTLS"):
		return "The mail server does not offer STARTTLS at this port: set mail.tls to tls if it is one for TLS (465), or to none if the mail server runs on this computer."
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("%s does not answer: a firewall may keep this computer from it (many providers block port 25), or mail.tls is not what the port wants.", s.Server())
	case errors.As(err, &answer) && (answer.Code == 535 || answer.Code == 534 || answer.Code == 454), strings.Contains(err.Error(), "AUTH"):
		return "The mail server does not let this server log in: look at mail.user and mail.password. Some providers want a password made for programs."
	case errors.As(err, &failed) && failed.ErrorCode() == 530:
		return "The mail server wants this server to log in: set mail.user and mail.password."
	case errors.As(err, &failed) && failed.Reason == gomail.ErrSMTPMailFrom:
		return fmt.Sprintf("The mail server does not take mail from %s: let mail.from be an address that this login may send from.", s.from.Address)
	case errors.Is(err, ErrRefused):
		return "The mail server does not take this message. Its words say why: a receiver it does not know, a sender without SPF or DKIM, or text that it takes for spam."
	}
	return "The words of the mail server say why."
}
