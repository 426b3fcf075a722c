package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"switchboard/cmd/dev/load"
	"switchboard/cmd/dev/peers"
	"switchboard/homeserver/matrix"
)

// joinOptions are the command line of the join.
type joinOptions struct {
	members, state, messages int
	version                  string
	limit                    time.Duration // for one join, and for its messages
}

// joinReport is what one join of a big room cost.
type joinReport struct {
	Verify, VerifyCPU        time.Duration // of all signatures alone, on all cores
	Join                     time.Duration // until the user is in the room
	CPU, ResidentCPU         time.Duration // of the server that joined, and of the one that let it in
	Peak, ResidentPeak       float64       // MB of memory
	StateBytes, MessageBytes float64       // in the database, for each event
	Late                     string        // what took longer than the limit; "" for nothing
}

// lateError is something that was not done within the limit.
type lateError string

func (e lateError) Error() string { return string(e) + " in time" }

// joins lets each server join a big room that a Switchboard serves, on one
// database.
func (b *bench) joins(ctx context.Context, db string) error {
	a, err := peers.NewAuthority()
	if err != nil {
		return err
	}
	r, err := newBigRoom(ctx, a, b.join.version, b.join.members, b.join.state)
	if err != nil {
		return err
	}
	defer r.close()
	dir, address, err := b.place(ctx, db)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	resident, err := peers.New(ctx, b.resident, peers.Options{Dir: dir, Database: address, Host: "127.0.0.2", Authority: a})
	if err != nil {
		return err
	}
	if err := b.seed(ctx, r, resident, dir, address); err != nil {
		return fmt.Errorf("serve the room: %w", err)
	}
	for _, p := range b.servers {
		if err := resident.Start(ctx); err != nil { // anew, so that nothing is in memory
			return err
		}
		j := &joining{bench: b, room: r, resident: resident}
		err := j.measure(ctx, p, db, a)
		if stopErr := resident.Stop(syscall.SIGTERM); err == nil {
			err = stopErr
		}
		var late lateError
		if errors.As(err, &late) {
			j.report.Late, err = string(late), nil
		}
		if err != nil {
			return fmt.Errorf("%s on %s: %w", p.Name(), db, err)
		}
		key := subject{p.Name(), db}
		b.joined[key] = append(b.joined[key], &j.report)
		fmt.Printf("== %s on %s: %+v\n", p.Name(), db, j.report)
	}
	return nil
}

// seed puts the room into the resident, whose user host is in it.
func (b *bench) seed(ctx context.Context, r *bigRoom, resident *peers.Server, dir, address string) error {
	if err := resident.Start(ctx); err != nil {
		return err
	}
	host, err := load.Register(ctx, resident.URL, peers.Secret, "host")
	if stopErr := resident.Stop(syscall.SIGTERM); err == nil {
		err = stopErr
	}
	if err != nil {
		return err
	}
	b.host = host
	return r.seed(ctx, address, filepath.Join(dir, "data"), matrix.UserID(host.ID))
}

// place makes a directory and, where that is wanted, a PostgreSQL database.
func (b *bench) place(ctx context.Context, db string) (dir, address string, err error) {
	b.runs++
	name := "run" + strconv.Itoa(b.runs)
	dir = filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", err
	}
	if db == "postgres" {
		if err := b.cluster.CreateDatabase(ctx, name); err != nil {
			return "", "", err
		}
		address = b.cluster.URL(name)
	}
	return dir, address, nil
}

// joining is one join of the big room.
type joining struct {
	*bench
	room         *bigRoom
	resident     *peers.Server
	server       *peers.Server // that joins
	dir, address string        // of its data
	report       joinReport
}

// measure lets a fresh server join.
func (j *joining) measure(ctx context.Context, p peers.Program, db string, a *peers.Authority) (err error) {
	used := load.UsageOf(os.Getpid()).CPU
	if j.report.Verify, err = j.room.verify(); err != nil {
		return err
	}
	j.report.VerifyCPU = load.UsageOf(os.Getpid()).CPU - used
	if j.dir, j.address, err = j.place(ctx, db); err != nil {
		return err
	}
	defer os.RemoveAll(j.dir)
	if j.server, err = peers.New(ctx, p, peers.Options{Dir: j.dir, Database: j.address, Host: "127.0.0.3", Authority: a}); err != nil {
		return err
	}
	if err := j.server.Start(ctx); err != nil {
		return err
	}
	defer func() {
		if stopErr := j.server.Stop(syscall.SIGTERM); err == nil {
			err = stopErr
		}
	}()
	guest, err := load.Register(ctx, j.server.URL, peers.Secret, "guest")
	if err != nil {
		return err
	}
	empty, err := j.size(ctx)
	if err != nil {
		return err
	}
	if err := j.enter(ctx, guest); err != nil {
		return err
	}
	full, err := j.size(ctx)
	if err != nil {
		return err
	}
	j.report.StateBytes = (full - empty) / float64(len(j.room.state))
	if j.join.messages == 0 {
		return nil
	}
	if err := j.converse(ctx, guest); err != nil {
		return err
	}
	more, err := j.size(ctx)
	j.report.MessageBytes = (more - full) / float64(j.join.messages)
	return err
}

// enter joins and waits until the user is in the room. Dendrite answers before
// that.
func (j *joining) enter(ctx context.Context, guest *load.Account) error {
	ctx, cancel := context.WithTimeout(ctx, j.join.limit)
	defer cancel()
	own, theirs := load.UsageOf(j.server.PID()), load.UsageOf(j.resident.PID())
	via := url.Values{"server_name": {j.resident.Name}, "via": {j.resident.Name}}
	start := time.Now()
	err := guest.Call(ctx, "POST", "/_matrix/client/v3/join/"+url.PathEscape(string(j.room.id))+"?"+via.Encode(), map[string]any{}, nil)
	for err != nil {
		if ctx.Err() != nil {
			return lateError("join")
		}
		var rooms struct {
			Joined []matrix.RoomID `json:"joined_rooms"`
		}
		time.Sleep(50 * time.Millisecond)
		if guest.Call(ctx, "GET", "/_matrix/client/v3/joined_rooms", nil, &rooms) == nil && slices.Contains(rooms.Joined, j.room.id) {
			err = nil
		}
	}
	j.report.Join = time.Since(start)
	now := load.UsageOf(j.server.PID())
	j.report.CPU, j.report.Peak = now.CPU-own.CPU, now.Peak
	now = load.UsageOf(j.resident.PID())
	j.report.ResidentCPU, j.report.ResidentPeak = now.CPU-theirs.CPU, now.Peak
	return nil
}

// converse has messages sent in the room that the resident serves, and waits
// until the server that joined has the last one.
func (j *joining) converse(ctx context.Context, guest *load.Account) error {
	ctx, cancel := context.WithTimeout(ctx, j.join.limit)
	defer cancel()
	path := "/_matrix/client/v3/rooms/" + url.PathEscape(string(j.room.id))
	prefix := strconv.FormatInt(time.Now().UnixNano(), 36)
	var last struct {
		ID string `json:"event_id"`
	}
	for i := range j.join.messages {
		body := map[string]any{"msgtype": "m.text", "body": j.room.sentence()}
		if err := j.host.Call(ctx, "PUT", fmt.Sprintf("%s/send/m.room.message/%s.%d", path, prefix, i), body, &last); err != nil {
			return err
		}
	}
	for guest.Call(ctx, "GET", path+"/event/"+url.PathEscape(last.ID), nil, nil) != nil {
		select {
		case <-ctx.Done():
			return lateError("receive the messages")
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

// size is how many bytes the databases of the server that joins take on the disk.
// It is stopped for that, so that everything is in its files, when it has done
// what it does in the background.
func (j *joining) size(ctx context.Context) (n float64, err error) {
	const quiet, busy = 5 * time.Second, 250 * time.Millisecond
	limit := time.Now().Add(j.join.limit)
	for used := time.Duration(-busy); time.Now().Before(limit); {
		now := load.UsageOf(j.server.PID()).CPU
		if now-used < busy {
			break
		}
		used = now
		time.Sleep(quiet)
	}
	if err := j.server.Stop(syscall.SIGTERM); err != nil {
		return 0, err
	}
	if j.address != "" {
		n, err = j.cluster.Size(ctx, filepath.Base(j.dir))
	} else {
		n, err = databases(j.dir)
	}
	if err != nil {
		return 0, err
	}
	return n, j.server.Start(ctx)
}

// databases is how many bytes the SQLite files of a directory take.
func databases(dir string) (float64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(d.Name(), ".db") {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return float64(sum), err
}
