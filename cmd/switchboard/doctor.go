package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver"
	"switchboard/voip"
	"switchboard/voip/calltest"
)

// doctorCommands look what is wrong.
type doctorCommands struct {
	Calls doctorCalls `cmd:"" help:"Try everything that calls need: each address of the relay that clients are told, with a fresh credential and data through it and back; certificates, DNS, ports, hairpin. Says what to do. The status is 1 if calls fail."`
	Media doctorMedia `cmd:"" help:"Try everything that files need, on the disk or on S3: store one, read, list and delete it."`
	Mail  doctorMail  `cmd:"" help:"Try the mail server: connect, encrypt and log in; with --to, send a message. Says what to do."`
}

type doctorCalls struct {
	JSON bool `help:"Write the findings as JSON."`

	calls *voip.Service // nil: the server does not run
}

// Run examines calls.
func (c *doctorCalls) Run(t *terminal) error { return t.carryOut("doctor calls", c) }

// callsOrder is an order that needs to know who relays the calls. With nil, the
// server does not run.
type callsOrder interface{ withCalls(*voip.Service) }

func (c *doctorCalls) withCalls(s *voip.Service) { c.calls = s }

func (c *doctorCalls) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	if c.calls == nil {
		return errors.New("the server does not run, and nobody can call without it: start it, and ask again")
	}
	report := examination(c.calls, s.Config).Run(ctx)
	if c.JSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		if err := e.Encode(report); err != nil {
			return err
		}
	} else {
		tellReport(out, report)
	}
	if n := report.Count(calltest.Problem); n > 0 {
		return fmt.Errorf("calls do not work as they should: %s", count(n, "problem"))
	}
	return nil
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// tellReport writes findings for people: each with what to do under it.
func tellReport(out io.Writer, r calltest.Report) {
	for _, f := range r.Findings {
		fmt.Fprintf(out, "%-8s %s: %s\n", f.Level, f.What, f.Text)
		if f.Fix != "" {
			fmt.Fprintf(out, "%-8s -> %s\n", "", f.Fix)
		}
	}
	fmt.Fprintf(out, "\n%d ok, %d unsure, %s\n", r.Count(calltest.Good), r.Count(calltest.Unsure), count(r.Count(calltest.Problem), "problem"))
}

// credentials are what a user gets for the relay, wherever it is; nil if there is
// none.
func credentials(ctx context.Context, calls *voip.Service, user string) (*calltest.Credentials, error) {
	have, err := calls.Credentials(ctx, user)
	if have == nil || err != nil {
		return nil, err
	}
	return &calltest.Credentials{Username: have.Username, Password: have.Password, URIs: have.URIs}, nil
}

// examination prepares an examination of who relays the calls.
func examination(calls *voip.Service, c homeserver.Config) *calltest.Examination {
	e := &calltest.Examination{Credentials: func(ctx context.Context) (*calltest.Credentials, error) {
		return credentials(ctx, calls, "calltest-"+rand.Text()[:8])
	}}
	if calls.Relay != nil {
		e.Relay = trialRelay{calls.Relay}
	}
	if u, err := url.Parse(c.BaseURL()); err == nil {
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
		e.HTTPS = net.JoinHostPort(strings.Trim(u.Hostname(), "[]"), port)
	}
	return e
}

// firstExamination is how long after the start calls are examined: certificates
// may have to be fetched first.
const firstExamination = time.Minute

// examineCalls tells once, in the log, what keeps calls from working.
func (p *process) examineCalls(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(firstExamination):
	}
	report := examination(p.calls, p.conf.Config).Run(ctx)
	if ctx.Err() != nil {
		return
	}
	log := zerolog.Ctx(ctx)
	for _, f := range report.Findings {
		if f.Level == calltest.Problem {
			log.Warn().Str("what", f.What).Str("fix", f.Fix).Msg("calls: " + f.Text)
		}
	}
	log.Info().Int("problems", report.Count(calltest.Problem)).Msg("calls were examined; switchboard doctor calls does it again")
}
