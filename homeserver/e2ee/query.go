package e2ee

import (
	"context"
	"encoding/json"
	"slices"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
)

// mostAsked is how many users or devices one request may name.
const mostAsked = 10_000

// Keys are the public keys of users.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery
type Keys struct {
	Devices     map[matrix.UserID]map[matrix.DeviceID]json.RawMessage `json:"device_keys"`
	Master      map[matrix.UserID]json.RawMessage                     `json:"master_keys"`
	SelfSigning map[matrix.UserID]json.RawMessage                     `json:"self_signing_keys"`
	UserSigning map[matrix.UserID]json.RawMessage                     `json:"user_signing_keys"`
	Failures    map[matrix.ServerName]json.RawMessage                 `json:"failures"`
}

// Query gives the keys of users of this server, as far as observer may see
// them: of each user the devices that are named, or all. Every one of these
// users who is asked for is in the answer's devices. The servers of others are
// in its failures.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#key-and-signature-security
func (s *Service) Query(ctx context.Context, observer matrix.UserID, asked map[matrix.UserID][]matrix.DeviceID) (*Keys, error) {
	if len(asked) > mostAsked {
		return nil, matrix.Errorf(matrix.InvalidParam, "too many users")
	}
	k := newKeys()
	var users []matrix.UserID
	for u := range asked {
		if _, err := matrix.ParseUserID(string(u)); err != nil {
			return nil, err
		}
		if !s.local(u) {
			k.Failures[u.Server()] = json.RawMessage(`{}`)
			continue
		}
		k.Devices[u] = map[matrix.DeviceID]json.RawMessage{}
		users = append(users, u)
	}
	for part := range slices.Chunk(users, 500) {
		if err := s.query(ctx, observer, part, asked, k); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// query adds the keys of some users of this server.
func (s *Service) query(ctx context.Context, observer matrix.UserID, users []matrix.UserID, asked map[matrix.UserID][]matrix.DeviceID, k *Keys) error {
	devices, err := s.Store.DeviceKeys(ctx, users)
	if err != nil {
		return err
	}
	return s.add(ctx, observer, users, devices, asked, k)
}

// add adds devices of some users, and the users' cross-signing keys.
func (s *Service) add(ctx context.Context, observer matrix.UserID, users []matrix.UserID, devices []store.DeviceKeys, asked map[matrix.UserID][]matrix.DeviceID, k *Keys) error {
	list, err := s.Store.KeySignatures(ctx, users, observer)
	if err != nil {
		return err
	}
	signatures := map[signed][]store.KeySignature{}
	for _, sig := range list {
		key := signed{sig.User, sig.Key}
		signatures[key] = append(signatures[key], sig)
	}
	for _, d := range devices {
		if want := asked[d.User]; len(want) > 0 && !slices.Contains(want, d.Device) {
			continue
		}
		obj, err := addSignatures(d.Keys, signatures[signed{d.User, string(d.Device)}])
		if err != nil {
			return err
		}
		k.Devices[d.User][d.Device] = addUnsigned(obj, d.DisplayName)
	}
	crossKeys, err := s.Store.CrossSigningKeys(ctx, users)
	if err != nil {
		return err
	}
	for _, c := range crossKeys {
		obj, err := addSignatures(c.Keys, signatures[signed{c.User, c.Public}])
		if err != nil {
			return err
		}
		switch {
		case c.Usage == store.MasterKey:
			k.Master[c.User] = obj
		case c.Usage == store.SelfSigningKey:
			k.SelfSigning[c.User] = obj
		case c.Usage == store.UserSigningKey && c.User == observer:
			k.UserSigning[c.User] = obj
		}
	}
	return nil
}

// signed names a key that is signed.
type signed struct {
	user matrix.UserID
	key  string // a device ID, or a public key
}

// addSignatures puts signatures beside those that an object has.
func addSignatures(obj json.RawMessage, list []store.KeySignature) (json.RawMessage, error) {
	if len(list) == 0 {
		return obj, nil
	}
	all, _ := canonjson.Lookup(obj, "signatures")
	var err error
	for _, s := range list {
		if all, err = signing.AddSignature(all, string(s.Signer), s.SignedBy, s.Signature); err != nil {
			return nil, err
		}
	}
	return setMember(obj, "signatures", all)
}

// setMember replaces or adds a member of a canonical object.
func setMember(obj json.RawMessage, key string, value []byte) (json.RawMessage, error) {
	members, err := canonjson.Members(nil, obj, canonjson.Whole)
	if err != nil {
		return nil, err
	}
	members = slices.DeleteFunc(members, func(m canonjson.Member) bool { return string(m.Key) == key })
	members = append(members, canonjson.Member{Key: []byte(key), Value: value})
	return canonjson.Canonical(canonjson.Object(nil, members, nil))
}

// addUnsigned adds what the server says of a device.
func addUnsigned(obj json.RawMessage, displayName string) json.RawMessage {
	unsigned := []byte(`{}`)
	if displayName != "" {
		unsigned = canonjson.AppendText([]byte(`{"device_display_name":`), displayName)
		unsigned = append(unsigned, '}')
	}
	if out, err := setMember(obj, "unsigned", unsigned); err == nil {
		return out
	}
	return obj
}

// Claimed are one-time keys that were given out, by user, device and
// "algorithm:id".
type Claimed map[matrix.UserID]map[matrix.DeviceID]map[string]json.RawMessage

// Claim takes a one-time key of each device that is named, of the algorithm
// that is asked for, or else its fallback key. Devices that have neither, and
// users of other servers, are not in the answer; the servers of these are in
// the failures. No one-time key is ever given out twice.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim
func (s *Service) Claim(ctx context.Context, asked map[matrix.UserID]map[matrix.DeviceID]string) (Claimed, map[matrix.ServerName]json.RawMessage, error) {
	n := 0
	failures := map[matrix.ServerName]json.RawMessage{}
	for u, devices := range asked {
		if _, err := matrix.ParseUserID(string(u)); err != nil {
			return nil, nil, err
		}
		if !s.local(u) {
			failures[u.Server()] = json.RawMessage(`{}`)
		}
		for d, algorithm := range devices {
			if err := name("a device ID", string(d)); err != nil {
				return nil, nil, err
			}
			if err := name("an algorithm", algorithm); err != nil {
				return nil, nil, err
			}
			n++
		}
	}
	if n > mostAsked {
		return nil, nil, matrix.Errorf(matrix.InvalidParam, "too many devices")
	}
	var claimed Claimed
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		claimed = Claimed{}
		for u, devices := range asked {
			if !s.local(u) || len(devices) == 0 {
				continue
			}
			if err := claim(ctx, tx, u, devices, claimed); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for u := range claimed {
		s.Bell.Ring(string(u)) // its syncs tell the new counts
	}
	return claimed, failures, nil
}

func claim(ctx context.Context, tx *store.Tx, user matrix.UserID, devices map[matrix.DeviceID]string, claimed Claimed) error {
	if err := tx.NoteOneTimeKeys(ctx, user); err != nil {
		return err
	}
	at := now()
	for device, algorithm := range devices {
		k, ok, err := tx.ClaimOneTimeKey(ctx, user, device, algorithm, at)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if claimed[user] == nil {
			claimed[user] = map[matrix.DeviceID]map[string]json.RawMessage{}
		}
		claimed[user][device] = map[string]json.RawMessage{k.Algorithm + ":" + k.ID: k.Content}
	}
	return nil
}
