package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"switchboard/cmd/dev/peers"
	"switchboard/homeserver/database"
	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
)

// bigRoom is a room of users of many servers, who joined and then each put
// something into its state. It is made once and then served by a Switchboard.
type bigRoom struct {
	version *matrix.RoomVersion
	id      matrix.RoomID
	puppets []*peers.Puppet
	random  *rand.Rand
	at      int64 // ms, of the newest event

	create, levels, rules *event.PDU
	state                 []*event.PDU // each event follows on the one before it
	members               []*event.PDU
}

// puppetServers is how many servers the members come from.
const puppetServers = 20

// newBigRoom makes a room with a number of members and pieces of state, members
// included. The servers of its members answer until close.
func newBigRoom(ctx context.Context, a *peers.Authority, version string, members, state int) (*bigRoom, error) {
	v, ok := matrix.Version(version)
	if !ok {
		return nil, fmt.Errorf("no room version is called %q", version)
	}
	r := &bigRoom{version: v, random: rand.New(rand.NewPCG(1, 2)), at: time.Now().Add(-time.Hour).UnixMilli()}
	for i := range puppetServers {
		p, err := peers.NewPuppet(ctx, a, fmt.Sprintf("127.0.1.%d", i+1))
		if err != nil {
			return nil, err
		}
		r.puppets = append(r.puppets, p)
	}
	return r, r.fill(members, state)
}

func (r *bigRoom) close() {
	for _, p := range r.puppets {
		p.Close() // an error means that it has ended
	}
}

// user is the i-th user of the room, the first one its creator.
func (r *bigRoom) user(i int) matrix.UserID {
	return matrix.UserID(fmt.Sprintf("@%s%d:%s", pick(r, givenNames), i, r.puppets[i%len(r.puppets)].Name))
}

var (
	givenNames  = strings.Fields("anna bela chiara dmitri elif farid grace hana ivan jonas kemal lena mara nils olga pavel quentin rosa sven tara")
	words       = strings.Fields("the a we they you it is was will can see tell ask bring meeting server room message tomorrow today coffee release plan fix idea works again never always maybe")
	familyNames = strings.Fields("Ahmadi Brandt Costa Dubois Eriksen Fischer Garcia Horvath Ivanova Jansen Kowalski Lehtonen Moreau Novak")
)

func pick[T any](r *bigRoom, list []T) T { return list[r.random.IntN(len(list))] }

// letters is a random name of something.
func (r *bigRoom) letters(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + r.random.IntN(26))
	}
	return string(b)
}

// sentence is the text of a message.
func (r *bigRoom) sentence() string {
	list := make([]string, 4+r.random.IntN(16))
	for i := range list {
		list[i] = pick(r, words)
	}
	return strings.Join(list, " ")
}

// fill makes the events.
func (r *bigRoom) fill(members, state int) error {
	creator := r.user(0)
	levels := map[string]any{"state_default": 0, "users_default": 0, "events": map[string]any{"m.room.power_levels": 100, "m.room.name": 50}}
	create := map[string]any{"room_version": r.version.ID}
	if r.version.RoomIDFromCreate {
		levels["users"] = map[string]any{}
	} else {
		r.id = matrix.RoomID("!" + r.letters(18) + ":" + string(r.puppets[0].Name))
		create["creator"] = creator
		levels["users"] = map[string]any{string(creator): 100}
	}
	var err error
	put := func(user matrix.UserID, typ, key string, content map[string]any, auth ...*event.PDU) *event.PDU {
		var p *event.PDU
		if err == nil {
			p, err = r.put(user, typ, key, content, auth)
		}
		return p
	}
	r.create = put(creator, event.TypeCreate, "", create)
	if err != nil {
		return err
	}
	r.id = r.create.Room
	first := put(creator, event.TypeMember, string(creator), r.profile())
	r.levels = put(creator, event.TypePowerLevels, "", levels, first)
	r.rules = put(creator, event.TypeJoinRules, "", map[string]any{"join_rule": "public"}, r.levels, first)
	put(creator, event.TypeHistoryVisibility, "", map[string]any{"history_visibility": "shared"}, r.levels, first)
	put(creator, "m.room.name", "", map[string]any{"name": "A big room"}, r.levels, first)
	r.members = append(r.members, first)
	for i := 1; i < members && err == nil; i++ {
		u := r.user(i)
		r.members = append(r.members, put(u, event.TypeMember, string(u), r.profile(), r.levels, r.rules))
	}
	for i := 0; len(r.state) < state && err == nil; i++ {
		m := r.members[i%len(r.members)]
		put(m.Sender, fmt.Sprintf("org.example.status.%d", i/len(r.members)), string(m.Sender), map[string]any{
			"status": pick(r, []string{"online", "away", "busy"}), "text": "since " + r.letters(8) + ", with " + pick(r, familyNames), "expires_ts": r.at + 86400000,
		}, r.levels, m)
	}
	return err
}

func (r *bigRoom) profile() map[string]any {
	return map[string]any{
		"membership": event.Join, "displayname": pick(r, givenNames) + " " + pick(r, familyNames),
		"avatar_url": fmt.Sprintf("mxc://%s/%s", pick(r, r.puppets).Name, r.letters(24)),
	}
}

// put appends an event to the room's state.
func (r *bigRoom) put(user matrix.UserID, typ, key string, content map[string]any, auth []*event.PDU) (*event.PDU, error) {
	raw, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	r.at += int64(r.random.IntN(100))
	d := event.Draft{Room: r.id, Type: typ, Sender: user, StateKey: &key, Content: raw, OriginServerTS: r.at, Depth: int64(len(r.state) + 1), Hashes: map[matrix.EventID]string{}}
	if typ != event.TypeCreate {
		last := r.state[len(r.state)-1]
		d.PrevEvents = []matrix.EventID{last.ID}
		if !r.version.RoomIDFromCreate {
			auth = append([]*event.PDU{r.create}, auth...)
		}
	}
	for _, a := range auth {
		d.AuthEvents = append(d.AuthEvents, a.ID)
	}
	for _, p := range r.puppets {
		if p.Name == user.Server() {
			e, err := event.Build(r.version, d, p.Name, p.Key)
			if err != nil {
				return nil, err
			}
			r.state = append(r.state, e)
			return e, nil
		}
	}
	return nil, fmt.Errorf("%s is of no server of the room", user)
}

// verify checks the signature of every event on all cores, which is what a join
// cannot do without, and answers how long that takes.
func (r *bigRoom) verify() (time.Duration, error) {
	keys := map[matrix.ServerName]signing.Key{}
	for _, p := range r.puppets {
		keys[p.Name] = p.Key
	}
	var group sync.WaitGroup
	var failed sync.Map
	cores := runtime.NumCPU()
	start := time.Now()
	for core := range cores {
		group.Go(func() {
			for i := core; i < len(r.state); i += cores {
				p := r.state[i]
				k := keys[p.Sender.Server()]
				if err := p.VerifySignature(p.Sender.Server(), k.ID, k.Public()); err != nil {
					failed.Store(p.ID, err)
				}
			}
		})
	}
	group.Wait()
	took := time.Since(start)
	var err error
	failed.Range(func(id, why any) bool {
		err = fmt.Errorf("%s: %w", id, why.(error))
		return false
	})
	return took, err
}

// seed puts the room into the database of a Switchboard that is not running, as
// if a user of it had joined. Dir is that of the server's data.
func (r *bigRoom) seed(ctx context.Context, url, dir string, user matrix.UserID) error {
	text, err := os.ReadFile(filepath.Join(dir, "signing.key"))
	if err != nil {
		return err
	}
	key, err := signing.ParseKey(string(text))
	if err != nil {
		return err
	}
	if url == "" {
		url = "sqlite:" + filepath.Join(dir, "switchboard.db")
	}
	db, err := database.Open(ctx, url, database.Options{})
	if err != nil {
		return err
	}
	defer db.Close()
	st, err := store.New(ctx, db, 64<<20)
	if err != nil {
		return err
	}
	name, last := string(user), r.state[len(r.state)-1]
	d := event.Draft{
		Room: r.id, Type: event.TypeMember, Sender: user, StateKey: &name, Content: []byte(`{"membership":"join"}`), OriginServerTS: time.Now().UnixMilli(),
		PrevEvents: []matrix.EventID{last.ID}, AuthEvents: []matrix.EventID{r.levels.ID, r.rules.ID}, Depth: int64(len(r.state) + 1),
	}
	if !r.version.RoomIDFromCreate {
		d.AuthEvents = append(d.AuthEvents, r.create.ID)
	}
	join, err := event.Build(r.version, d, user.Server(), key)
	if err != nil {
		return err
	}
	s := room.Service{Store: st, Bell: new(notify.Bell), ServerName: user.Server(), Key: key}
	return s.Import(ctx, room.Joined{Event: join, State: r.state})
}
