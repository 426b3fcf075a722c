package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"switchboard/homeserver"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/media"
)

// mediaCommands are about files that users upload, and those of other servers.
type mediaCommands struct {
	List         mediaList         `cmd:"" help:"List files, the newest first: those of users of this server, or of one of them; with --server those of another server that are here; with --quarantined those that nobody may fetch."`
	Delete       mediaDelete       `cmd:"" help:"Delete files for good, with all thumbnails. A file of another server is fetched again when somebody asks for it; quarantine prevents that."`
	Quarantine   mediaQuarantine   `cmd:"" help:"Keep everybody, other servers too, from fetching files and all that have the same content: those that are named, those of a user, or those that the events of a room name (what is encrypted names none)."`
	Unquarantine mediaUnquarantine `cmd:"" help:"Let files be fetched again, and all that have the same content."`
	PurgeRemote  mediaPurgeRemote  `cmd:"" name:"purge-remote" help:"Delete files of other servers for which nobody has asked for a while. They are fetched again when somebody does."`
	Move         mediaMove         `cmd:"" help:"Bring files from the disk to S3 or back, to where media.storage says that they are kept. The server may run meanwhile, and has all files all the time."`
}

type mediaList struct {
	User        string `help:"Only files of this user." xor:"which"`
	Server      string `help:"Files of another server that are here; * for all." xor:"which"`
	Quarantined bool   `help:"Files in quarantine." xor:"which"`
	Limit       int    `help:"How many to list at most." default:"50"`
}

// Run lists the files.
func (c *mediaList) Run(t *terminal) error { return t.carryOut("media list", c) }

func (c *mediaList) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	var err error
	switch {
	case c.Quarantined:
		err = c.quarantined(ctx, s, w)
	case c.Server != "":
		err = c.remote(ctx, s, w)
	default:
		err = c.own(ctx, s, w)
	}
	return errors.Join(err, w.Flush())
}

func (c *mediaList) own(ctx context.Context, s *homeserver.Server, w io.Writer) error {
	var user matrix.UserID
	if c.User != "" {
		var err error
		if user, err = userID(s, c.User); err != nil {
			return err
		}
	}
	list, err := s.Store.MediaOf(ctx, user, time.Now().UnixMilli()+1, c.Limit)
	fmt.Fprintln(w, "UPLOADED\tUSED\tBY\tSIZE\tTYPE\tFILE\tNAME")
	for _, m := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", shownTime(m.CreatedTS), shownTime(m.UsedTS), m.Uploader, m.Size, m.Type, s.Media.URI(m.ID), strconv.Quote(m.Name))
	}
	return err
}

func (c *mediaList) remote(ctx context.Context, s *homeserver.Server, w io.Writer) error {
	server := matrix.ServerName(c.Server)
	if server == "*" {
		server = ""
	}
	list, err := s.Store.RemoteMediaOf(ctx, server, time.Now().UnixMilli()+1, c.Limit)
	fmt.Fprintln(w, "FETCHED\tUSED\tSIZE\tTYPE\tFILE\tNAME")
	for _, m := range list {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", shownTime(m.FetchedTS), shownTime(m.UsedTS), m.Size, m.Type, media.Name{Server: m.Server, ID: m.ID}, strconv.Quote(m.Name))
	}
	return err
}

func (c *mediaList) quarantined(ctx context.Context, s *homeserver.Server, w io.Writer) error {
	list, err := s.Media.InQuarantine(ctx, c.Limit)
	fmt.Fprintln(w, "SINCE\tFILE\tSHA-256")
	for _, m := range list {
		fmt.Fprintf(w, "%s\t%s\t%x\n", shownTime(m.TS), media.Name{Server: m.Server, ID: m.ID}, m.Digest)
	}
	return err
}

// shownTime is a time in milliseconds as tables show it.
func shownTime(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.DateTime) }

// filesFlag are files that are named on the command line.
type filesFlag struct {
	Files []string `arg:"" optional:"" help:"Addresses of files, such as mxc://example.org/abc."`
}

func (f filesFlag) names() ([]media.Name, error) {
	var names []media.Name
	var errs []error
	for _, uri := range f.Files {
		name, err := media.ParseURI(uri)
		names, errs = append(names, name), append(errs, err)
	}
	return names, errors.Join(errs...)
}

// one checks that exactly one way to say which files is used.
func (f filesFlag) one(others ...string) error {
	used := len(slices.DeleteFunc(slices.Clone(others), func(s string) bool { return s == "" }))
	if len(f.Files) > 0 {
		used++
	}
	if used != 1 {
		return errors.New("say which files: by their addresses, or by one of the flags")
	}
	return nil
}

type mediaDelete struct {
	filesFlag
	User   string        `help:"All files of this user."`
	Before lifetimeValue `help:"With --user: only files that are older than this, such as 30d." placeholder:"TIME"`
}

// Run deletes the files.
func (c *mediaDelete) Run(t *terminal) error {
	if err := c.one(c.User); err != nil {
		return err
	}
	return t.carryOut("media delete", c)
}

func (c *mediaDelete) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	names, err := c.names()
	if err != nil {
		return readable(err)
	}
	n, far := 0, newProgress(out)
	for _, name := range names {
		if err := s.Media.Delete(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, readable(err))
		}
		n++
	}
	if c.User != "" {
		user, err := userID(s, c.User)
		if err != nil {
			return err
		}
		if n, err = s.Media.DeleteOf(ctx, user, time.Now().Add(-time.Duration(c.Before)), forgotten(far)); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, "deleted:", count(n, "file"))
	return reap(ctx, s, far)
}

// forgotten tells of files that nobody can fetch any more.
func forgotten(far *progress) func(int) {
	return func(n int) { far.tell("so far %s", count(n, "file")) }
}

// reap deletes the bytes of what was deleted.
func reap(ctx context.Context, s *homeserver.Server, far *progress) error {
	if err := s.Media.Reap(ctx, func(n int) { far.tell("so far the bytes of %s", count(n, "file")) }); err != nil {
		return fmt.Errorf("nobody can fetch the files any more, but their bytes are not deleted yet; the running server does it later: %w", err)
	}
	return nil
}

type mediaQuarantine struct {
	filesFlag
	User string `help:"All files that this user has uploaded."`
	Room string `help:"All files that the events of this room name, such as !abc:example.org."`
}

// Run puts the files into quarantine.
func (c *mediaQuarantine) Run(t *terminal) error {
	if err := c.one(c.User, c.Room); err != nil {
		return err
	}
	return t.carryOut("media quarantine", c)
}

func (c *mediaQuarantine) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	names, err := c.names()
	n := len(names)
	switch {
	case err != nil:
	case c.User != "":
		var user matrix.UserID
		if user, err = userID(s, c.User); err == nil {
			n, err = s.Media.QuarantineOf(ctx, user)
		}
	case c.Room != "":
		n, err = s.Media.QuarantineRoom(ctx, matrix.RoomID(c.Room))
	default:
		err = s.Media.Quarantine(ctx, names...)
	}
	if err != nil {
		return readable(err)
	}
	fmt.Fprintln(out, "in quarantine:", count(n, "file"))
	return nil
}

type mediaUnquarantine struct {
	Files []string `arg:"" help:"Addresses of files, such as mxc://example.org/abc."`
}

// Run ends the quarantine.
func (c *mediaUnquarantine) Run(t *terminal) error { return t.carryOut("media unquarantine", c) }

func (c *mediaUnquarantine) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	names, err := filesFlag{c.Files}.names()
	if err != nil {
		return err
	}
	total := int64(0)
	for _, name := range names {
		n, err := s.Media.Unquarantine(ctx, name)
		if err != nil {
			return err
		}
		total += n
	}
	fmt.Fprintln(out, "no longer in quarantine:", count(int(total), "file"))
	return nil
}

type mediaPurgeRemote struct {
	Server string        `help:"Only files of this server."`
	Unused lifetimeValue `help:"Only files for which nobody has asked for as long as this. That is known to about a day." default:"30d" placeholder:"TIME"`
}

// Run deletes the files.
func (c *mediaPurgeRemote) Run(t *terminal) error { return t.carryOut("media purge-remote", c) }

func (c *mediaPurgeRemote) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	far := newProgress(out)
	n, err := s.Media.PurgeRemote(ctx, matrix.ServerName(c.Server), time.Now().Add(-time.Duration(c.Unused)), forgotten(far))
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "deleted:", count(n, "file"))
	return reap(ctx, s, far)
}

type mediaMove struct{}

// Run moves the files.
func (c *mediaMove) Run(t *terminal) error { return t.carryOut("media move", c) }

func (c *mediaMove) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	far := newProgress(out)
	files, bytes, err := s.Media.Move(ctx, func(files int, bytes int64) {
		far.tell("so far %s, %d MB", count(files, "file"), bytes>>20)
	})
	fmt.Fprintf(out, "moved: %s, %d MB\n", count(files, "file"), bytes>>20)
	if err == nil {
		fmt.Fprintln(out, "all files are where they are kept")
	}
	return err
}

type doctorMedia struct{}

// Run examines the place of the files.
func (c *doctorMedia) Run(t *terminal) error { return t.carryOut("doctor media", c) }

func (c *doctorMedia) do(ctx context.Context, s *homeserver.Server, out io.Writer) error {
	if err := s.Media.Probe(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "ok: files can be stored (%s), read, listed and deleted\n", s.Config.Media.Storage)
	return nil
}
