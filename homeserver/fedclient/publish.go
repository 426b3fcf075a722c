package fedclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// ServerKeys asks a server for the keys that it publishes, and answers what it
// said, unchecked: the key ring checks. It does not count for whether the
// server answers.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server
func (c *Client) ServerKeys(ctx context.Context, server matrix.ServerName) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	var answer json.RawMessage
	k := call{op: "getServerKey", method: http.MethodGet, path: "/_matrix/key/v2/server", unsigned: true, aside: true, limit: maxKeyAnswer}
	err := c.do(ctx, server, k, &answer)
	return answer, err
}

// NotaryKeys asks a notary for keys of other servers: by server and key ID,
// until when they must be valid at least in milliseconds. The answers are
// unchecked, as those of ServerKeys.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#post_matrixkeyv2query
func (c *Client) NotaryKeys(ctx context.Context, notary matrix.ServerName, ask map[matrix.ServerName]map[string]int64) ([]json.RawMessage, error) {
	type criteria struct {
		Until int64 `json:"minimum_valid_until_ts,omitempty"`
	}
	query := make(map[matrix.ServerName]map[string]criteria, len(ask))
	for server, keys := range ask {
		query[server] = make(map[string]criteria, len(keys))
		for id, until := range keys {
			query[server][id] = criteria{until}
		}
	}
	var answer struct {
		Keys []json.RawMessage `json:"server_keys"`
	}
	err := c.do(ctx, notary, call{
		op: "bulkPerspectivesKeyQuery", method: http.MethodPost, path: "/_matrix/key/v2/query", body: map[string]any{"server_keys": query},
		unsigned: true, aside: true,
	}, &answer)
	return answer.Keys, err
}

// NotaryServerKeys asks a notary for all keys of one server, as NotaryKeys
// does.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2queryservername
func (c *Client) NotaryServerKeys(ctx context.Context, notary, server matrix.ServerName) ([]json.RawMessage, error) {
	var answer struct {
		Keys []json.RawMessage `json:"server_keys"`
	}
	err := c.do(ctx, notary, call{
		op: "perspectivesKeyQuery", method: http.MethodGet, path: path("/_matrix/key/v2/query/{}", server), unsigned: true, aside: true,
	}, &answer)
	return answer.Keys, err
}

// serverNameOf reads whose keys an answer has.
func serverNameOf(body []byte) (matrix.ServerName, error) {
	obj, err := canonjson.Canonical(body)
	if err != nil {
		return "", err
	}
	value, _ := canonjson.Lookup(obj, "server_name")
	name, _ := canonjson.Text(value)
	return matrix.ParseServerName(name)
}

// publishStep and publishLife are how long what we publish stays the same, and
// how long it is valid after that at least.
const (
	publishStep = time.Hour
	publishLife = 24 * time.Hour
)

// Published is what this server tells of its keys: the signed answer of
// /_matrix/key/v2/server. It is valid for a day.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server
func (r *KeyRing) Published() (json.RawMessage, error) {
	type oldKey struct {
		Key     string `json:"key"`
		Expired int64  `json:"expired_ts"`
	}
	type key struct {
		Key string `json:"key"`
	}
	c := r.client
	answer := struct {
		Server matrix.ServerName `json:"server_name"`
		Keys   map[string]key    `json:"verify_keys"`
		Old    map[string]oldKey `json:"old_verify_keys"`
		Until  int64             `json:"valid_until_ts"`
	}{
		Server: c.server,
		Keys:   map[string]key{c.key.ID: {signing.EncodeBase64(c.key.Public())}},
		Old:    map[string]oldKey{},
		Until:  r.now().Truncate(publishStep).Add(publishStep + publishLife).UnixMilli(),
	}
	for id, k := range r.own.keys {
		if k.ExpiredTS != 0 {
			answer.Old[id] = oldKey{signing.EncodeBase64(k.Public), k.ExpiredTS}
		}
	}
	raw, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	return signing.SignJSON(raw, c.server, c.key)
}

// MaxNotaryServers is how many servers one question to us as a notary may name.
const MaxNotaryServers = 100

func tooMuchAsked() error {
	return matrix.Errorf(matrix.InvalidParam, "one question may be for %d servers with %d keys each", MaxNotaryServers, maxNeeds)
}

// Notary answers a question for the keys of servers: by server and key ID,
// until when they must be valid at least in milliseconds, 0 for now. No key IDs
// means all. A question for too much is M_INVALID_PARAM. The answers are those of the servers with our signature added;
// servers that do not answer, and never did, are left out. Only the servers
// themselves are asked, no other notaries.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#post_matrixkeyv2query
func (r *KeyRing) Notary(ctx context.Context, ask map[matrix.ServerName]map[string]int64) ([]json.RawMessage, error) {
	if len(ask) > MaxNotaryServers {
		return nil, tooMuchAsked()
	}
	servers := slices.Sorted(maps.Keys(ask))
	lists := make([][]json.RawMessage, len(servers))
	errs := make([]error, len(servers))
	done := make(chan int)
	for i, server := range servers {
		go func() {
			lists[i], errs[i] = r.notarize(ctx, server, ask[server])
			done <- i
		}()
	}
	for range servers {
		<-done
	}
	all := []json.RawMessage{}
	for _, list := range lists {
		all = append(all, list...)
	}
	return all, errors.Join(errs...)
}

// notarize answers what is known of one server, after asking it where that is
// too old.
func (r *KeyRing) notarize(ctx context.Context, server matrix.ServerName, ask map[string]int64) ([]json.RawMessage, error) {
	if len(ask) > maxNeeds {
		return nil, tooMuchAsked()
	}
	if server == r.client.server {
		own, err := r.Published()
		return []json.RawMessage{own}, err
	}
	if _, err := matrix.ParseServerName(string(server)); err != nil || !r.client.config.Permits(server) {
		return nil, nil
	}
	answers, fresh, err := r.answers(ctx, server, ask)
	if err != nil {
		return nil, err
	}
	t, tried := r.tries.Find(server)
	if !fresh && !(tried && r.now().Sub(t.at) < t.pause()) {
		if r.fetch(ctx, server, need{}) == nil {
			t.failures = -1
		}
		r.tries.Put(server, try{r.now(), t.failures + 1}, 1)
		if answers, _, err = r.answers(ctx, server, ask); err != nil {
			return nil, err
		}
	}
	var list []json.RawMessage
	for _, a := range answers {
		signed, err := signing.SignJSON(a, r.client.server, r.client.key)
		if err != nil {
			return nil, fmt.Errorf("notary for %s: %w", server, err)
		}
		list = append(list, signed)
	}
	return list, nil
}

// answers are what a server said of its keys: the newest answer, and older ones
// with keys of ask that the newest has not. Fresh tells that there is no reason
// to ask the server again.
func (r *KeyRing) answers(ctx context.Context, server matrix.ServerName, ask map[string]int64) (list [][]byte, fresh bool, err error) {
	rows, err := r.store.ServerKeyAnswers(ctx, server)
	if err != nil || len(rows) == 0 {
		return nil, false, err
	}
	now := r.now()
	newest, err := parseKeyAnswer(server, rows[0].Answer, now)
	if err != nil {
		return nil, false, nil // of an older program: ask again
	}
	list, fresh = [][]byte{newest.json}, now.UnixMilli() < newest.halfLife(rows[0].FetchedTS)
	has := map[string]bool{}
	for _, k := range newest.keys {
		has[k.ID] = true
	}
	for id, until := range ask {
		if !has[id] || until > newest.validUntil {
			fresh = false
		}
	}
	for _, row := range rows[1:] {
		if _, asked := ask[row.ID]; asked && !has[row.ID] {
			has[row.ID] = true
			list = append(list, row.Answer)
		}
	}
	return list, fresh, nil
}
