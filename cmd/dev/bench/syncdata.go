package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"switchboard/cmd/dev/load"
	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
)

// furnish makes the rooms of the wide account through the client API, the same ones
// on any server: each with a name and messages.
func furnish(ctx context.Context, wide *load.Account, rooms, messages int) error {
	return each(rooms, 8, func(i int) error {
		var made struct {
			Room matrix.RoomID `json:"room_id"`
		}
		body := map[string]any{"preset": "private_chat", "name": fmt.Sprintf("Room %d", i)}
		if err := wide.Call(ctx, "POST", "/_matrix/client/v3/createRoom", body, &made); err != nil {
			return err
		}
		for n := range messages {
			path := fmt.Sprintf("/_matrix/client/v3/rooms/%s/send/m.room.message/%d.%d", url.PathEscape(string(made.Room)), i, n)
			if err := wide.Call(ctx, "PUT", path, map[string]any{"msgtype": "m.text", "body": "a message of no importance"}, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// each calls f for 0 to n-1 on some goroutines, and stops at the first error.
func each(n, workers int, f func(i int) error) error {
	var next atomic.Int64
	var group sync.WaitGroup
	errs := make(chan error, workers)
	for range workers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					next.Store(int64(n))
					errs <- err
				}
			}
		})
	}
	group.Wait()
	close(errs)
	return <-errs
}

// crowd makes the rooms of the wide account in the database of a Switchboard that
// is not running, with tens to hundreds of members and of messages each. It answers
// how many events that are.
func crowd(ctx context.Context, address, dir string, wide matrix.UserID, rooms int) (int64, error) {
	text, err := os.ReadFile(filepath.Join(dir, "signing.key"))
	if err != nil {
		return 0, err
	}
	key, err := signing.ParseKey(string(text))
	if err != nil {
		return 0, err
	}
	if address == "" {
		address = "sqlite:" + filepath.Join(dir, "switchboard.db")
	}
	db, err := database.Open(ctx, address, database.Options{Volatile: true})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	st, err := store.New(ctx, db, 256<<20)
	if err != nil {
		return 0, err
	}
	s := &room.Service{Store: st, Bell: new(notify.Bell), ServerName: wide.Server(), Key: key}
	var events atomic.Int64
	err = each(rooms, 32, func(i int) error {
		n, err := populate(ctx, s, wide, rand.New(rand.NewPCG(uint64(i), 1)))
		events.Add(int64(n))
		return err
	})
	return events.Load(), err
}

// villagers is how many people there are in the rooms of the wide account.
const villagers = 600

// populate makes one room, and answers about how many events it has.
func populate(ctx context.Context, s *room.Service, wide matrix.UserID, random *rand.Rand) (int, error) {
	person := func() matrix.UserID {
		return matrix.UserID(fmt.Sprintf("@villager%d:%s", random.IntN(villagers), s.ServerName))
	}
	size := func(least, most float64) int { return int(least * math.Pow(most/least, math.Pow(random.Float64(), 4))) }
	founder := person()
	id, err := s.Create(ctx, room.Creation{
		Creator: founder, Preset: "public_chat", Name: new(fmt.Sprintf("Room %d", random.IntN(10_000))), Topic: new("what is said in it"),
	})
	if err != nil {
		return 0, err
	}
	people := []matrix.UserID{founder}
	in := map[matrix.UserID]bool{founder: true}
	for n := size(10, 300); len(people) < n; {
		p := person()
		if len(people) == 1 {
			p = wide
		}
		if in[p] {
			continue
		}
		if err := s.Join(ctx, room.Change{Room: id, Actor: p}); err != nil {
			return 0, err
		}
		people, in[p] = append(people, p), true
	}
	messages := size(10, 100)
	for range messages {
		_, err := s.Send(ctx, room.Sending{
			User: people[random.IntN(len(people))], Room: id, Type: "m.room.message", Content: []byte(`{"msgtype":"m.text","body":"a message of no importance"}`),
		})
		if err != nil {
			return 0, err
		}
	}
	return len(people) + messages + 8, nil
}
