package homeserver

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"switchboard/homeserver/account"
	"switchboard/homeserver/blob"
	"switchboard/homeserver/clientapi"
	"switchboard/homeserver/clientsync"
	"switchboard/homeserver/database"
	"switchboard/homeserver/delayed"
	"switchboard/homeserver/directory"
	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/fedapi"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/federation"
	"switchboard/homeserver/fedsender"
	"switchboard/homeserver/identity"
	"switchboard/homeserver/mail"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/media"
	"switchboard/homeserver/notices"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/push"
	"switchboard/homeserver/room"
	"switchboard/homeserver/search"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/unread"
	"switchboard/registrations"
)

// Server is a homeserver: its store, its services and its edges, wired. The
// exported fields are for what stands above, such as appservices and commands,
// and are not changed.
type Server struct {
	Config       Config
	Key          signing.Key
	Store        *store.Store
	Bell         *notify.Bell
	Accounts     *account.Service
	Rooms        *room.Service
	Appservices  *registrations.Set
	Keys         *e2ee.Service
	Ephemeral    *ephemeral.Service
	Directory    *directory.Service
	Notices      *notices.Service
	Federation   *federation.Service
	Media        *media.Service
	Sync         *clientsync.Service
	ClientRoutes *clientapi.API

	db       *database.DB
	client   *fedclient.Client
	ring     *fedclient.KeyRing
	sender   *fedsender.Service
	pushers  *push.Service
	delayed  *delayed.Service
	search   *search.Service
	servers  *fedapi.API
	draining chan struct{} // closed by Drain
	drain    sync.Once
}

// Handlers are the edges of a server.
type Handlers struct {
	// Client is the client-server API, the well-known files included.
	Client http.Handler

	// Federation is the server-server API.
	Federation http.Handler

	// Mail is push.UnsubscribePath, where links in e-mail lead. Nil: none is sent.
	Mail http.Handler
}

// New opens the data directory and the database of a server, making what is
// not there yet, and wires its services. Nothing runs until Run. Appservices
// holds the registrations in force; whoever owns it may replace them at any
// time. The server must be closed.
func New(ctx context.Context, c Config, appservices *registrations.Set) (*Server, error) {
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	key, err := signingKey(filepath.Join(c.DataDir, "signing.key"))
	if err != nil {
		return nil, err
	}
	db, err := database.Open(ctx, c.databaseURL(), database.Options{Readers: c.Database.Readers, CacheBytes: c.cacheBytes() / 2})
	if err != nil {
		return nil, err
	}
	st, err := store.New(ctx, db, int(c.cacheBytes()/2))
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	blobs, err := c.Media.OpenBlobs(filepath.Join(c.DataDir, "media"))
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s := &Server{Config: c, Key: key, Store: st, Bell: &notify.Bell{}, Appservices: appservices, db: db, draining: make(chan struct{})}
	if err := s.wire(blobs); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// identityTimeout bounds a request to an identity server with its answer.
const identityTimeout = 20 * time.Second

// gatewayTimeout bounds a request to a push gateway with its answer.
const gatewayTimeout = 30 * time.Second

// wire makes the services and the edges, from the lower floors to the upper
// ones.
func (s *Server) wire(blobs blob.Store) error {
	c := s.Config
	var err error
	dialer := fedclient.NewDialer(c.Outbound, nil)
	asking := c.Federation.Asking
	if asking.Notaries == nil {
		asking.Notaries = []fedclient.NotaryConfig{{Server: "matrix.org"}}
	}
	if s.client, err = fedclient.New(asking, c.ServerName, s.Key, dialer, s.Store, s.Bell); err != nil {
		return err
	}
	s.ring = fedclient.NewKeyRing(s.client)
	s.Accounts = &account.Service{Store: s.Store, Bell: s.Bell, ServerName: c.ServerName, Config: c.Registration, Appservices: s.Appservices, Client: s.client}
	s.Keys = &e2ee.Service{Store: s.Store, Bell: s.Bell, ServerName: c.ServerName, Client: s.client}
	s.Ephemeral = &ephemeral.Service{Store: s.Store, Bell: s.Bell, NoPresence: !c.Presence}
	s.Media = media.New(s.Store, s.Bell, blobs, c.ServerName, c.Media)
	s.Media.Client, s.Media.Web = s.client, dialer.Client(c.Media.Previews.Timeout)
	s.Rooms = &room.Service{
		Store: s.Store, Bell: s.Bell, ServerName: c.ServerName, Key: s.Key,
		Config: room.Config{DefaultVersion: c.Rooms.DefaultVersion},
	}
	s.Directory = &directory.Service{Store: s.Store, Rooms: s.Rooms, ServerName: c.ServerName, Registrations: s.Appservices, Client: s.client, PolicyLists: c.Moderation.PolicyLists}
	s.Federation = &federation.Service{
		Store: s.Store, Bell: s.Bell, Rooms: s.Rooms, Client: s.client, Keys: s.ring, Accounts: s.Accounts, Encryption: s.Keys, Ephemeral: s.Ephemeral,
		ServerName: c.ServerName, Config: c.Federation.Taking, Identity: &identity.Client{HTTP: dialer.Client(identityTimeout)},
	}
	s.Rooms.Vet = s.Federation.Vet
	s.Notices = &notices.Service{Store: s.Store, Rooms: s.Rooms, Accounts: s.Accounts, ServerName: c.ServerName, Config: c.ServerNotices}
	s.Rooms.NoticesUser, s.Accounts.Reserved = s.Notices.User(), s.Notices.User()
	s.sender = &fedsender.Service{Store: s.Store, Client: s.client, Bell: s.Bell, Keys: s.Keys, Ephemeral: s.Ephemeral, ServerName: c.ServerName}
	counts := &unread.Service{Store: s.Store, Rooms: s.Rooms}
	s.pushers = &push.Service{Store: s.Store, Rooms: s.Rooms, Unread: counts, Bell: s.Bell, Client: dialer.Client(gatewayTimeout)}
	s.delayed = &delayed.Service{Store: s.Store, Rooms: s.Rooms, Bell: s.Bell}
	s.search = &search.Service{Store: s.Store, Rooms: s.Rooms, Bell: s.Bell}
	s.Sync = &clientsync.Service{
		Store: s.Store, Rooms: s.Rooms, Unread: counts, Bell: s.Bell, Keys: s.Keys, Ephemeral: s.Ephemeral, Stopping: s.draining,
		CacheBytes: int(c.cacheBytes() / 4),
	}
	s.ClientRoutes = &clientapi.API{
		ServerName: c.ServerName, Accounts: s.Accounts, Rooms: s.Rooms, Directory: s.Directory, Federation: s.Federation, Sync: s.Sync, Unread: counts, Delayed: s.delayed, Notices: s.Notices, Search: s.search, Keys: s.Keys, Ephemeral: s.Ephemeral, Media: s.Media,
		PublicURL: c.advertised(), Delegate: c.Delegate, Support: c.Support.shown(), DefaultRoomVersion: c.Rooms.DefaultVersion, PolicyServerKey: c.Moderation.PolicyServerKey,
	}
	s.servers = &fedapi.API{
		ServerName: c.ServerName, Federation: s.Federation, KeyRing: s.ring, Accounts: s.Accounts, Directory: s.Directory, Encryption: s.Keys,
		Media: s.Media,
	}
	if err := s.wireMail(); err != nil {
		return err
	}
	if c.RateLimits.Enabled {
		s.ClientRoutes.Limits = clientapi.NewLimits(c.RateLimits.Rates)
	}
	return nil
}

// wireMail lets the pushers send e-mail, if there is a mail server.
func (s *Server) wireMail() error {
	c := s.Config
	if c.Mail.Host == "" {
		return nil
	}
	sender, err := mail.New(c.Mail)
	if err != nil {
		return err
	}
	secret, err := hkdf.Key(sha256.New, s.Key.Private.Seed(), nil, "switchboard: links that end e-mail notifications", sha256.Size)
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	s.pushers.Mail = &push.Mail{Sender: sender, ServerName: c.ServerName, PublicURL: c.BaseURL(), Secret: secret}
	s.Accounts.SendsMail = true
	return nil
}

// Handlers are what listeners serve.
func (s *Server) Handlers() Handlers {
	h := Handlers{Client: s.ClientRoutes.Handler(), Federation: s.servers.Handler()}
	if s.pushers.Mail != nil {
		h.Mail = s.pushers.Unsubscribe()
	}
	return h
}

// Deactivate ends an account for good: its user leaves all rooms, and the name
// stays taken. With erase the messages are hidden from who joins later.
func (s *Server) Deactivate(ctx context.Context, user matrix.UserID, erase bool) error {
	if err := s.Accounts.Deactivate(ctx, user, erase); err != nil {
		return err
	}
	return s.Rooms.LeaveAll(ctx, user)
}

// Drain answers all who wait for news, at once and from now on, so that the
// server can stop.
func (s *Server) Drain() { s.drain.Do(func() { close(s.draining) }) }

// Run does what is done beside requests, until ctx is done.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.Accounts.Run(ctx) })
	group.Go(func() error { return s.Ephemeral.Run(ctx) })
	group.Go(func() error { return s.Media.Run(ctx) })
	group.Go(func() error { return s.Directory.Run(ctx) })
	group.Go(func() error { return s.Federation.Run(ctx) })
	group.Go(func() error { return s.sender.Run(ctx) })
	group.Go(func() error { return s.pushers.Run(ctx) })
	group.Go(func() error { return s.delayed.Run(ctx) })
	group.Go(func() error { return s.search.Run(ctx) })
	return group.Wait()
}

// Close lets the writers that wait finish and closes the database.
func (s *Server) Close() error {
	s.client.Close()
	return s.db.Close()
}

// signingKey reads the key by which the server signs, or makes it.
func signingKey(file string) (signing.Key, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return newSigningKey(file)
	}
	if err != nil {
		return signing.Key{}, fmt.Errorf("signing key: %w", err)
	}
	key, err := signing.ParseKey(string(text))
	if err != nil {
		return signing.Key{}, fmt.Errorf("signing key %s: %w", file, err)
	}
	return key, nil
}

// newSigningKey makes a key and writes it down, whole or not at all: a server
// that lost its key cannot prove who it is.
func newSigningKey(file string) (signing.Key, error) {
	key, err := signing.Generate()
	if err != nil {
		return signing.Key{}, err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "signing.key.*") // mode 0600
	if err != nil {
		return signing.Key{}, fmt.Errorf("signing key: %w", err)
	}
	_, err = f.WriteString(key.String() + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), file) // fails if another process was faster
	}
	err = errors.Join(err, os.Remove(f.Name()))
	if errors.Is(err, fs.ErrExist) {
		return signingKey(file)
	}
	if err != nil {
		return signing.Key{}, fmt.Errorf("signing key: %w", err)
	}
	return key, nil
}
