package whatsapptest

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"go.mau.fi/libsignal/ecc"
	"google.golang.org/protobuf/proto"

	"go.mau.fi/whatsmeow"
	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/proto/waCert"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/util/keys"
)

// Server is a WhatsApp server on a port of this computer.
type Server struct {
	web    *httptest.Server
	static *keys.KeyPair
	chain  []byte // certificates for static
	ctx    context.Context
	stop   context.CancelFunc
	open   sync.WaitGroup // connections

	mu       sync.Mutex // tier 1; guards what follows, and the accounts, devices and groups
	accounts map[string]*Account
	devices  map[types.JID]*device // by LID with the device's number
	linking  map[string]*conn      // by public Noise key, base64: what shows a QR code
	codes    map[string]*conn      // by phone number: what shows a pairing code
	groups   map[types.JID]*group
	pictures map[types.JID]picture
	media    map[string][]byte
	down     bool
	deaf     bool // messages are refused
	keyless  bool // nobody gets keys
	withheld int  // how often
	forgets  bool // that a device has confirmed something
	serial   int
	surprise []string
}

// Account is a WhatsApp account.
type Account struct {
	PN, LID types.JID
	Name    string // that others see
	Private bool   // nobody may add them to a group

	identity *keys.KeyPair // of the phone
	linked   uint16        // devices so far; an address holds no more than 255
	garble   bool
	refusal  waBinary.Attrs
	copied   bool // somebody else uses the keys of the linked devices
}

// authority signs the certificates of all servers. It is one for the process,
// because whatsmeow keeps the key that it trusts in a variable.
var authority = sync.OnceValue(func() *keys.KeyPair {
	root := keys.NewKeyPair()
	whatsmeow.WACertPubKey = *root.Pub
	return root
})

// NewServer starts a server. Close ends it.
func NewServer() *Server {
	s := &Server{
		static: keys.NewKeyPair(), accounts: make(map[string]*Account), devices: make(map[types.JID]*device),
		linking: make(map[string]*conn), codes: make(map[string]*conn), groups: make(map[types.JID]*group),
		pictures: make(map[types.JID]picture), media: make(map[string][]byte),
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	between := keys.NewKeyPair()
	s.chain = must(proto.Marshal(&waCert.CertChain{
		Intermediate: certificate(authority(), 1, 0, between.Pub[:]),
		Leaf:         certificate(between, 2, 1, s.static.Pub[:]),
	}))
	s.web = httptest.NewTLSServer(http.HandlerFunc(s.serve))
	return s
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func certificate(signer *keys.KeyPair, serial, issuer uint32, key []byte) *waCert.CertChain_NoiseCertificate {
	details := must(proto.Marshal(&waCert.CertChain_NoiseCertificate_Details{
		Serial: &serial, IssuerSerial: &issuer, Key: key,
		NotBefore: proto.Uint64(uint64(time.Now().Add(-time.Hour).Unix())),
		NotAfter:  proto.Uint64(uint64(time.Now().Add(24 * time.Hour).Unix())),
	}))
	return &waCert.CertChain_NoiseCertificate{Details: details, Signature: sign(signer, details)}
}

func sign(key *keys.KeyPair, message []byte) []byte {
	signature := ecc.CalculateSignature(ecc.NewDjbECPrivateKey(*key.Priv), message)
	return signature[:]
}

// Close ends the server and all connections.
func (s *Server) Close() {
	s.stop()
	s.open.Wait()
	s.web.Close()
}

// Address is where the server listens, host:port.
func (s *Server) Address() string { return s.web.Listener.Addr().String() }

// Client is an HTTP client for whatsmeow in this process: every host is this
// server.
func (s *Server) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the certificate names another host
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", s.Address())
		},
	}}
}

// Settings are what the bridge's option test_server needs, when the server is
// reached through an address.
func Settings(address string) string { return address + " " + hex.EncodeToString(authority().Pub[:]) }

// Account makes an account. The LID says nothing about the phone number.
func (s *Server) Account(phone, name string) *Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &Account{
		PN:   types.NewJID(phone, types.DefaultUserServer),
		LID:  types.NewJID(strconv.Itoa(70_000_000_000_001+len(s.accounts)*7_654_321), types.HiddenUserServer),
		Name: name, identity: keys.NewKeyPair(),
	}
	s.accounts[a.PN.User], s.accounts[a.LID.User] = a, a
	return a
}

// Unexpected returns what clients asked and the server does not know.
func (s *Server) Unexpected() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.surprise
}

func (s *Server) unexpected(n *waBinary.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.surprise = append(s.surprise, n.String())
}

// Cut breaks the connections of an account's linked devices, not that of its
// phone.
func (s *Server) Cut(a *Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.companions(a) {
		if d.conn != nil {
			_ = d.conn.socket.CloseNow()
		}
	}
}

// SetDown breaks all connections and takes no new ones until it is called with
// false.
func (s *Server) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	if !down {
		return
	}
	for _, d := range s.devices {
		if d.conn != nil {
			_ = d.conn.socket.CloseNow()
		}
	}
}

// SetDeaf makes the server refuse all messages with the error 479.
func (s *Server) SetDeaf(deaf bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = deaf
}

// SetForgetful makes the server forget, until it is called with false, what devices
// confirm: they get that again when they come the next time.
func (s *Server) SetForgetful(forgetful bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgets = forgetful
}

// Unconfirmed is how many stanzas an account's linked devices have not confirmed.
func (s *Server) Unconfirmed(a *Account) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.companions(a) {
		n += len(d.unconfirmed)
	}
	return n
}

// SetKeyless makes the server give nobody the keys to begin a session with, until
// it is called with false.
func (s *Server) SetKeyless(keyless bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keyless = keyless
}

// Withheld is how often somebody has asked for keys in vain.
func (s *Server) Withheld() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.withheld
}

// Rename changes the name that others see with what an account writes.
func (s *Server) Rename(a *Account, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.Name = name
}

// Garble makes the next message to an account's linked devices unreadable.
func (s *Server) Garble(a *Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.garble = true
}

// Refuse cuts an account's linked devices off and answers their next logins with
// a failure: reason 402 is a temporary ban, 403 a locked account, 405 an outdated
// client, 406 a ban. Further attributes come in pairs. Reason 0 ends it, and what
// Replace began.
func (s *Server) Refuse(a *Account, reason int, more ...string) {
	s.mu.Lock()
	a.refusal, a.copied = nil, false
	if reason > 0 {
		a.refusal = waBinary.Attrs{"reason": strconv.Itoa(reason)}
		for i := 0; i+1 < len(more); i += 2 {
			a.refusal[more[i]] = more[i+1]
		}
	}
	s.mu.Unlock()
	s.Cut(a)
}

// Unlink removes an account's linked devices, as its phone can.
func (s *Server) Unlink(a *Account) {
	s.mu.Lock()
	gone := s.companions(a)
	for _, d := range gone {
		delete(s.devices, d.jid())
		if d.conn != nil {
			d.conn.send(waBinary.Node{Tag: "stream:error", Attrs: waBinary.Attrs{"code": "401"}, Content: []waBinary.Node{
				{Tag: "conflict", Attrs: waBinary.Attrs{"type": "device_removed"}},
			}})
		}
	}
	s.mu.Unlock()
	s.announceDevices(a)
}

// Replace tells an account's linked devices that another one uses their keys, and
// again whenever they come back: a client may lose the reason together with the
// connection.
func (s *Server) Replace(a *Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.copied = true
	for _, d := range s.companions(a) {
		if d.conn != nil {
			d.conn.send(replaced)
		}
	}
}

// Linked is the number of an account's linked devices.
func (s *Server) Linked(a *Account) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.companions(a))
}

// serve answers a request: the web socket, or a piece of media.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	down := s.down
	s.mu.Unlock()
	switch {
	case down:
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.URL.Path == "/ws/chat":
		socket, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		socket.SetReadLimit(1 << 24)
		s.open.Add(1)
		defer s.open.Done()
		newConn(s, socket).run()
	case r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/mms/"):
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		path := s.keep(body) + "?x=1"
		_ = json.NewEncoder(w).Encode(map[string]string{"url": "https://mmg.whatsapp.net" + path, "direct_path": path})
	case r.Method == http.MethodGet:
		s.mu.Lock()
		body, ok := s.media[r.URL.Path]
		s.mu.Unlock()
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(body)
	}
}

// keep stores media and returns its path.
func (s *Server) keep(body []byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := fmt.Sprintf("/v/%d.enc", len(s.media))
	s.media[path] = body
	return path
}

// DropMedia forgets all media, as WhatsApp does after some weeks.
func (s *Server) DropMedia() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.media)
}

// id makes an ID for a stanza of the server's own. The caller holds mu.
func (s *Server) id() string {
	s.serial++
	return "srv-" + strconv.Itoa(s.serial)
}

func now() string { return strconv.FormatInt(time.Now().Unix(), 10) }

var errNoAccount = errors.New("no such account")
