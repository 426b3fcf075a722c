package fedapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// chaos does in a room whatever comes to its mind, while servers lose each other
// and go down.
type chaos struct {
	*network
	*rand.Rand
	id    matrix.RoomID
	users []matrix.UserID // who come and go
	homes map[matrix.UserID]*host
	sent  []matrix.EventID // what a server accepted
}

// TestHealing lets servers send, join, leave, ban and change power while random
// links are cut and random servers are down. When all is mended, every server has
// every event, and all agree on the state.
func TestHealing(t *testing.T) {
	for seed, version := range map[uint64]string{1: "12", 2: "10", 3: "6", 4: "2", 5: "11", 2016: "1"} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			connected(t, 3+int(seed%2), func(n *network) {
				c := &chaos{network: n, Rand: rand.New(rand.NewPCG(seed, 17)), homes: map[matrix.UserID]*host{}}
				c.settle(version)
				for range 120 {
					c.step()
				}
				c.heal()
			})
		})
	}
}

// settle makes the room. One user of each server stays in it to the end.
func (c *chaos) settle(version string) {
	var stay []matrix.UserID
	levels := ""
	for i, h := range c.hosts {
		anchor := h.user("anchor")
		c.homes[anchor], stay = h, append(stay, anchor)
		if i > 0 {
			levels += fmt.Sprintf(",%q:%d", anchor, []int{50, 75, 100}[i-1])
		} else if entry := creator(version, anchor); entry != "" {
			levels += "," + entry[:len(entry)-1]
		}
		for k := range 2 {
			u := h.user(fmt.Sprint("user", k))
			c.homes[u], c.users = h, append(c.users, u)
		}
	}
	c.id = c.shared(version, stay...)
	c.hosts[0].state(stay[0], c.id, "m.room.power_levels", `{"invite":0,"events":{"m.room.topic":10},"users":{`+levels[1:]+`}}`)
	c.agree(c.id, c.hosts...)
}

// step does one thing.
func (c *chaos) step() {
	h := c.hosts[c.IntN(len(c.hosts))]
	switch c.IntN(12) {
	case 0:
		c.part(h, c.hosts[c.IntN(len(c.hosts))], true)
	case 1:
		c.part(h, c.hosts[c.IntN(len(c.hosts))], false)
	case 2:
		if c.stop[h] == nil {
			c.raise(h)
		} else {
			c.fell(h)
		}
	default:
		if c.stop[h] != nil {
			c.act(h)
		}
	}
}

// act lets a user of a server do something. What the server refuses is not done.
func (c *chaos) act(h *host) {
	var ours []matrix.UserID
	for _, u := range slices.Sorted(maps.Keys(c.homes)) {
		if c.homes[u] == h {
			ours = append(ours, u)
		}
	}
	actor, target := ours[c.IntN(len(ours))], c.users[c.IntN(len(c.users))]
	change := room.Change{Room: c.id, Actor: actor, Target: target}
	before := c.newest(h)
	switch c.IntN(9) {
	case 0, 1:
		h.rooms.Send(h.ctx(), room.Sending{User: actor, Room: c.id, Type: "m.room.message", Content: json.RawMessage(`{"body":"hello"}`)})
	case 2:
		h.rooms.Send(h.ctx(), room.Sending{User: actor, Room: c.id, Type: "m.room.topic", StateKey: new(string),
			Content: json.RawMessage(fmt.Sprintf(`{"topic":"tea %d"}`, c.Int64()))})
	case 3:
		h.rooms.Join(h.ctx(), room.Change{Room: c.id, Actor: actor})
	case 4:
		if slices.Contains(c.users, actor) {
			h.rooms.Leave(h.ctx(), room.Change{Room: c.id, Actor: actor})
		}
	case 5:
		h.rooms.Ban(h.ctx(), change)
	case 6:
		h.rooms.Unban(h.ctx(), change)
	case 7:
		h.rooms.Kick(h.ctx(), change)
	case 8:
		c.raisePower(h, actor, target)
	}
	if after := c.newest(h); after != before {
		c.sent = append(c.sent, after)
	}
}

// newest is the newest event that a server has of its own making.
func (c *chaos) newest(h *host) matrix.EventID {
	r, err := h.st.Room(h.ctx(), c.id)
	h.ok(err)
	list, err := h.st.Newest(h.ctx(), r.Num, 0, h.st.Position(), 50)
	h.ok(err)
	for _, e := range slices.Backward(list) {
		if e.PDU.Sender.Server() == h.name {
			return e.PDU.ID
		}
	}
	return ""
}

// raisePower gives somebody any power, or takes it.
func (c *chaos) raisePower(h *host, actor, target matrix.UserID) {
	r, err := h.st.Room(h.ctx(), c.id)
	h.ok(err)
	e, err := h.rooms.StateEvent(h.ctx(), r.Current, event.TypePowerLevels, "")
	h.ok(err)
	var content map[string]any
	h.ok(json.Unmarshal(e.PDU.Content, &content))
	content["users"].(map[string]any)[string(target)] = c.IntN(5) * 15
	raw, err := json.Marshal(content)
	h.ok(err)
	h.rooms.Send(h.ctx(), room.Sending{User: actor, Room: c.id, Type: event.TypePowerLevels, StateKey: new(string), Content: raw})
}

// heal mends everything and looks whether nothing was lost.
func (c *chaos) heal() {
	c.mend()
	for range 2 { // in the second round everybody follows on what all have said
		for _, h := range c.hosts {
			c.sent = append(c.sent, h.say(matrix.NewUserID("anchor", h.name), c.id, "good night").ID)
		}
		for _, h := range c.hosts {
			c.reads(h, c.sent...)
		}
	}
	c.agree(c.id, c.hosts...)
}
