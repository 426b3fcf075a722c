package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	"switchboard/homeserver"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/jitsi"
	"switchboard/voip"
)

// newMeet tells clients of the Jitsi server, and makes what answers it; nil if
// there is none.
func newMeet(s *homeserver.Server, c jitsi.Config) *jitsi.Verifier {
	if c.Domain == "" {
		return nil
	}
	if s.ClientRoutes.WellKnown == nil {
		s.ClientRoutes.WellKnown = map[string]any{}
	}
	maps.Copy(s.ClientRoutes.WellKnown, c.WellKnown())
	return &jitsi.Verifier{Token: c.Token, ServerName: s.Config.ServerName, Accounts: s.Accounts, Rooms: s.Rooms, Servers: s.Federation.Client}
}

// isJitsi tells whether a path is for the Jitsi server or its clients.
func isJitsi(path string) bool {
	return strings.HasPrefix(path, jitsi.Path+"/") || path == jitsi.WellKnownPath
}

// jitsiTimeout bounds a request to the Jitsi server with its answer.
const jitsiTimeout = 30 * time.Second

// jitsiCommands are about the Jitsi server.
type jitsiCommands struct {
	Check  jitsiCheck  `cmd:"" help:"Look whether the Jitsi server answers, is new enough, and lets in the members of a room and nobody else."`
	Add    jitsiAdd    `cmd:"" help:"Put a group call into a room, and take stale ones away."`
	Remove jitsiRemove `cmd:"" help:"Take all group calls out of a room."`
	Clean  jitsiClean  `cmd:"" help:"Take stale group calls out of all rooms: those at another Jitsi server, of another room, or whose maker has left."`
}

// jitsiOrder is an order that needs to know the configuration, and the Jitsi
// server.
type jitsiOrder interface {
	with(Config, *jitsi.Verifier)
}

// jitsiPlace is what the process that carries out an order knows of it.
type jitsiPlace struct {
	config jitsi.Config
	voip   voip.Config
	meet   *jitsi.Verifier // nil if no Jitsi server can ask this process
}

func (p *jitsiPlace) with(c Config, v *jitsi.Verifier) { *p = jitsiPlace{c.Jitsi, c.VoIP, v} }

func (p *jitsiPlace) widgets(s *homeserver.Server) *jitsi.Widgets {
	return &jitsi.Widgets{Config: p.config, Rooms: s.Rooms, HTTP: fedclient.NewDialer(s.Config.Outbound, nil).Unguarded().Client(jitsiTimeout)}
}

type jitsiCheck struct {
	jitsiPlace `kong:"-"`
}

// Run looks at the Jitsi server.
func (c *jitsiCheck) Run(t *terminal) error { return t.carryOut("jitsi check", c) }

func (c *jitsiCheck) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	checker := jitsi.Checker{Config: c.config, HTTP: c.widgets(s).HTTP, Verifier: c.meet, PublicURL: s.Config.BaseURL()}
	if c.voip.Builtin(string(s.Config.ServerName)) {
		checker.TURN, checker.Secrets = cmp.Or(c.voip.TURN.Host, publicHost(checker.PublicURL)), c.voip.TURN.SharedSecrets
	}
	if c.config.Domain == "" {
		return errors.New("no Jitsi server is configured; set jitsi.domain")
	}
	wrong := 0
	for _, f := range checker.Run(ctx) {
		fmt.Fprintln(out, f)
		if !f.Well {
			wrong++
		}
	}
	if wrong > 0 {
		return fmt.Errorf("not all is well with the Jitsi server %s", c.config.Domain)
	}
	return nil
}

// jitsiRoom is the room of an order about calls.
type jitsiRoom struct {
	Room string `arg:"" help:"ID or alias of the room."`
	As   string `help:"Which user of this server does it; without it the one with the most power in the room." placeholder:"USER"`
}

// find gives the room and the user, "" if none is named.
func (r *jitsiRoom) find(ctx context.Context, s *homeserver.Server) (id matrix.RoomID, as matrix.UserID, err error) {
	if r.As != "" {
		if as, err = userID(s, r.As); err != nil {
			return "", "", err
		}
	}
	if strings.HasPrefix(r.Room, "#") {
		id, _, err = s.Directory.Resolve(ctx, matrix.RoomAlias(r.Room))
	} else {
		id, err = matrix.ParseRoomID(r.Room)
	}
	return id, as, readable(err)
}

type jitsiAdd struct {
	jitsiPlace `kong:"-"`
	jitsiRoom
	Name  string `help:"What the call is called." default:"Jitsi"`
	Audio bool   `help:"A call without pictures."`
}

// Run puts a call into a room.
func (c *jitsiAdd) Run(t *terminal) error { return t.carryOut("jitsi add", c) }

func (c *jitsiAdd) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	id, as, err := c.find(ctx, s)
	if err != nil {
		return err
	}
	done, err := c.widgets(s).Add(ctx, jitsi.Call{Room: id, Name: c.Name, Audio: c.Audio, As: as})
	return tell(out, done, err)
}

type jitsiRemove struct {
	jitsiPlace `kong:"-"`
	jitsiRoom
}

// Run takes the calls out of a room.
func (c *jitsiRemove) Run(t *terminal) error { return t.carryOut("jitsi remove", c) }

func (c *jitsiRemove) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	id, as, err := c.find(ctx, s)
	if err != nil {
		return err
	}
	done, err := c.widgets(s).Remove(ctx, id, as, false)
	if err == nil && len(done) == 0 {
		done = []string{"there is no call in the room"}
	}
	return tell(out, done, err)
}

type jitsiClean struct {
	jitsiPlace `kong:"-"`
}

// Run takes stale calls out of all rooms.
func (c *jitsiClean) Run(t *terminal) error { return t.carryOut("jitsi clean", c) }

func (c *jitsiClean) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	if c.config.Domain == "" {
		return errors.New("no Jitsi server is configured, so no call is known to be stale; set jitsi.domain")
	}
	rooms, err := s.Store.RoomsOf(ctx, s.Config.ServerName)
	if err != nil {
		return err
	}
	removed := 0
	for _, num := range rooms {
		r, err := s.Store.RoomByNum(ctx, num)
		if err != nil {
			return err
		}
		done, err := c.widgets(s).Remove(ctx, r.ID, "", true)
		var refused *matrix.Error
		if errors.As(err, &refused) && refused.Code == matrix.Forbidden {
			continue // others look after the widgets there
		}
		for i := range done {
			done[i] = string(r.ID) + ": " + done[i]
		}
		if err := tell(out, done, err); err != nil {
			return err
		}
		removed += len(done)
	}
	fmt.Fprintf(out, "%d stale calls in %d rooms\n", removed, len(rooms))
	return nil
}

// tell prints what was done, also before an error.
func tell(out io.Writer, done []string, err error) error {
	for _, line := range done {
		fmt.Fprintln(out, line)
	}
	return readable(err)
}
