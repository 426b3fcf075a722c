package store

import (
	"context"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// UserKind tells how an account came to be.
type UserKind string

// The kinds of accounts.
const (
	OrdinaryUser   UserKind = ""
	Guest          UserKind = "guest"
	AppserviceUser UserKind = "appservice"
)

// User is an account on this server.
type User struct {
	ID          matrix.UserID
	Password    string // PHC string; "" where nobody can log in by password
	Kind        UserKind
	Appservice  string // ID of the registration that made the user, or ""
	Admin       bool
	Deactivated bool
	Erased      bool // deactivated, and asked that the messages be forgotten
	Locked      bool
	Suspended   bool
	CreatedTS   int64 // milliseconds
}

// scanner is one row, of a query for one or for many.
type scanner interface {
	Scan(dest ...any) error
}

const userColumns = `user_id, password, kind, appservice, admin, deactivated, erased, locked, suspended, created_ts`

func scanUser(row scanner) (User, error) {
	var u User
	err := row.Scan(&u.ID, &u.Password, &u.Kind, &u.Appservice, &u.Admin, &u.Deactivated, &u.Erased, &u.Locked, &u.Suspended, &u.CreatedTS)
	return u, err
}

// User finds an account. ok is false if there is none.
func (s *Store) User(ctx context.Context, id matrix.UserID) (u User, ok bool, err error) {
	return user(ctx, s.db, id)
}

// User finds an account as the transaction sees it. ok is false if there is
// none.
func (tx *Tx) User(ctx context.Context, id matrix.UserID) (u User, ok bool, err error) {
	return user(ctx, tx, id)
}

func user(ctx context.Context, q querier, id matrix.UserID) (User, bool, error) {
	u, err := scanUser(q.QueryRow(ctx, `SELECT `+userColumns+` FROM users WHERE user_id = $1`, id))
	if errors.Is(err, database.ErrNoRows) {
		return User{}, false, nil
	}
	if err != nil {
		return User{}, false, fmt.Errorf("user: %w", err)
	}
	return u, true, nil
}

// Users lists accounts in order of their IDs, at most limit of them, beginning
// behind after ("" for the first page).
func (s *Store) Users(ctx context.Context, after matrix.UserID, limit int) ([]User, error) {
	rows, err := s.db.Query(ctx, `SELECT `+userColumns+` FROM users WHERE user_id > $1 ORDER BY user_id LIMIT $2`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("users: %w", err)
	}
	defer rows.Close()
	var list []User
	for rows.Next() {
		u, err := scanUser(rows)
		if err != nil {
			return nil, fmt.Errorf("users: %w", err)
		}
		list = append(list, u)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("users: %w", err)
	}
	return list, nil
}

// HasUsers tells whether a person has an account here.
func (s *Store) HasUsers(ctx context.Context) (bool, error) {
	var n int64
	err := s.db.QueryRow(ctx, `SELECT COUNT(*) FROM (SELECT 1 FROM users WHERE kind = '' LIMIT 1) AS found`).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("has users: %w", err)
	}
	return n > 0, nil
}

// AddUser writes a new account. added is false, and nothing is written, if the
// name is taken.
func (tx *Tx) AddUser(ctx context.Context, u User) (added bool, err error) {
	const q = `
		INSERT INTO users (user_id, password, kind, appservice, admin, deactivated, erased, locked, suspended, created_ts)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (user_id) DO NOTHING`
	n, err := tx.ExecCount(ctx, q, u.ID, u.Password, u.Kind, u.Appservice, u.Admin, u.Deactivated, u.Erased, u.Locked, u.Suspended, u.CreatedTS)
	if err != nil {
		return false, fmt.Errorf("add user: %w", err)
	}
	return n > 0, nil
}

// SetUser replaces everything but the ID, the origin and the age of an account.
func (tx *Tx) SetUser(ctx context.Context, u User) error {
	const q = `
		UPDATE users SET password = $2, admin = $3, deactivated = $4, erased = $5, locked = $6, suspended = $7
		WHERE user_id = $1`
	err := tx.Exec(ctx, q, u.ID, u.Password, u.Admin, u.Deactivated, u.Erased, u.Locked, u.Suspended)
	if err != nil {
		return fmt.Errorf("set user: %w", err)
	}
	return nil
}
