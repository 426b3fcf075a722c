package toybridge

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// message is a message of the network.
type message struct {
	Number int    `json:"number"` // 1 and up in its chat
	Sender string `json:"sender"`
	Text   string `json:"text"`
	Time   int64  `json:"time"` // ms
}

// network is a server with chats, in each of which messages are numbered.
type network struct {
	address string

	mu    sync.Mutex // tier 1; guards what follows
	chats map[string][]message
	heard []string // what came from the bridge
	gone  []gone
}

// gone is a message that was taken back.
type gone struct {
	Chat    string  `json:"chat"`
	Message message `json:"message"`
}

func newNetwork(t *testing.T) *network {
	n := &network{chats: map[string][]message{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /chats", n.serveChats)
	mux.HandleFunc("GET /history", n.serveHistory)
	mux.HandleFunc("GET /gone", n.serveGone)
	mux.HandleFunc("POST /send", n.serveSend)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		defer n.mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	n.address = server.URL
	return n
}

// say lets somebody say something in a chat, at a time of the network.
func (n *network) say(chat, sender, text string, at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.add(chat, sender, text, at)
}

func (n *network) add(chat, sender, text string, at time.Time) message {
	m := message{len(n.chats[chat]) + 1, sender, text, at.UnixMilli()}
	n.chats[chat] = append(n.chats[chat], m)
	return m
}

// fill gives a chat a past of so many messages, one each minute, by four people of
// whom one is the bridge's user.
func (n *network) fill(chat string, count int) {
	start := time.Now().Add(-time.Duration(count) * time.Minute)
	for i := range count {
		sender := []string{"ann", "ben", "me", "cem"}[i%4]
		n.say(chat, sender, fmt.Sprintf("message %04d", i+1), start.Add(time.Duration(i)*time.Minute))
	}
}

// texts are those of a chat.
func (n *network) texts(chat string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []string
	for _, m := range n.chats[chat] {
		list = append(list, m.Text)
	}
	return list
}

// said is what came from the bridge.
func (n *network) said() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.heard)
}

// serveChats gives the last message of each chat.
func (n *network) serveChats(w http.ResponseWriter, _ *http.Request) {
	last := map[string]message{}
	for name, list := range n.chats {
		last[name] = list[len(list)-1]
	}
	answer(w, last)
}

// serveHistory gives messages of a chat: the last ones, or those around a number.
func (n *network) serveHistory(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	number := func(name string, def int) int {
		if i, err := strconv.Atoi(q.Get(name)); err == nil {
			return i
		}
		return def
	}
	list := n.chats[q.Get("chat")]
	count := number("count", 10)
	first := max(0, number("before", len(list)+1)-1-count)
	last := number("before", len(list)+1) - 1
	if q.Has("after") {
		first = number("after", 0)
		last = min(first+count, len(list))
	}
	answer(w, map[string]any{"messages": list[first:last], "more": first > 0})
}

// takeBack lets who said it take a message back.
func (n *network) takeBack(chat string, number int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone = append(n.gone, gone{chat, n.chats[chat][number-1]})
}

// serveGone gives what was taken back, but for the first ones.
func (n *network) serveGone(w http.ResponseWriter, r *http.Request) {
	first, err := strconv.Atoi(r.URL.Query().Get("first"))
	if err != nil || first > len(n.gone) {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	answer(w, n.gone[first:])
}

// serveSend takes what the bridge's user says.
func (n *network) serveSend(w http.ResponseWriter, r *http.Request) {
	var text string
	if err := json.NewDecoder(r.Body).Decode(&text); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	n.heard = append(n.heard, text)
	answer(w, n.add(r.URL.Query().Get("chat"), "me", text, time.Now()))
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(err) // all of it is JSON
	}
}
