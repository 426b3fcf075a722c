package store

import (
	"context"
	"crypto/ed25519"
	"fmt"

	"switchboard/homeserver/matrix"
)

// maxServerKeys is how many keys of one server are kept: those fetched last.
const maxServerKeys = 64

// ServerKey is a public key of another server.
type ServerKey struct {
	Server       matrix.ServerName
	ID           string // "ed25519:…"
	Public       ed25519.PublicKey
	ValidUntilTS int64 // signatures up to then are good, milliseconds
	ExpiredTS    int64 // when the server stopped using the key, milliseconds; 0: it has not
	FetchedTS    int64 // milliseconds

	// Answer is the signed JSON that has the key as a current one, canonical;
	// nil where the key was only seen as an old one. ServerKeys leaves it out.
	Answer []byte
}

// ServerKeys lists the keys of a server that are known, without the answers.
func (s *Store) ServerKeys(ctx context.Context, server matrix.ServerName) ([]ServerKey, error) {
	const q = `SELECT key_id, public, valid_until_ts, expired_ts, fetched_ts FROM server_keys WHERE server = $1 ORDER BY key_id`
	rows, err := s.db.Query(ctx, q, server)
	if err != nil {
		return nil, fmt.Errorf("server keys: %w", err)
	}
	defer rows.Close()
	var list []ServerKey
	for rows.Next() {
		k := ServerKey{Server: server}
		if err := rows.Scan(&k.ID, (*[]byte)(&k.Public), &k.ValidUntilTS, &k.ExpiredTS, &k.FetchedTS); err != nil {
			return nil, fmt.Errorf("server keys: %w", err)
		}
		list = append(list, k)
	}
	return list, rows.Err()
}

// ServerKeyAnswers lists the signed answers of a server that are known, as
// keys that have an Answer and the key IDs that came with it, the newest first.
func (s *Store) ServerKeyAnswers(ctx context.Context, server matrix.ServerName) ([]ServerKey, error) {
	const q = `SELECT key_id, public, valid_until_ts, expired_ts, fetched_ts, answer FROM server_keys
		WHERE server = $1 AND answer IS NOT NULL ORDER BY fetched_ts DESC, key_id`
	rows, err := s.db.Query(ctx, q, server)
	if err != nil {
		return nil, fmt.Errorf("server key answers: %w", err)
	}
	defer rows.Close()
	var list []ServerKey
	for rows.Next() {
		k := ServerKey{Server: server}
		if err := rows.Scan(&k.ID, (*[]byte)(&k.Public), &k.ValidUntilTS, &k.ExpiredTS, &k.FetchedTS, &k.Answer); err != nil {
			return nil, fmt.Errorf("server key answers: %w", err)
		}
		list = append(list, k)
	}
	return list, rows.Err()
}

// PutServerKeys writes keys of one server, replacing older ones of the same ID.
// A key without an Answer keeps the one it had. Of very many keys only those
// fetched last stay.
func (tx *Tx) PutServerKeys(ctx context.Context, server matrix.ServerName, keys []ServerKey) error {
	const put = `
		INSERT INTO server_keys (server, key_id, public, valid_until_ts, expired_ts, fetched_ts, answer)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (server, key_id) DO UPDATE SET
			public = excluded.public, valid_until_ts = excluded.valid_until_ts, expired_ts = excluded.expired_ts,
			fetched_ts = excluded.fetched_ts, answer = COALESCE(excluded.answer, server_keys.answer)`
	for _, k := range keys {
		err := tx.Exec(ctx, put, server, k.ID, []byte(k.Public), k.ValidUntilTS, k.ExpiredTS, k.FetchedTS, k.Answer)
		if err != nil {
			return fmt.Errorf("put server key: %w", err)
		}
	}
	const trim = `
		DELETE FROM server_keys WHERE server = $1 AND key_id NOT IN (
			SELECT key_id FROM server_keys WHERE server = $1 ORDER BY fetched_ts DESC, key_id LIMIT $2)`
	if err := tx.Exec(ctx, trim, server, maxServerKeys); err != nil {
		return fmt.Errorf("put server keys: %w", err)
	}
	return nil
}
