package voip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/pion/logging"
	"github.com/pion/stun/v3"
	"github.com/pion/turn/v5"
)

// engine is pion's TURN server, which keeps the books of all relayed addresses
// of one family: which client has which, whom they may talk to, under which
// channel numbers, and when each of that ends. It hears no client and moves no
// data. What a client asks, and may ask, is asked here again as from a client of
// the engine's own network: [Relay] checked it and gives the answer.
type engine struct {
	server *turn.Server
	key    []byte // what all of its clients sign with
	nonce  string // the engine's own, learnt from its answers

	mu      sync.Mutex // tier 2; one request at a time
	pending relayConn  // the relayed address of the request, if it is to allocate

	requests chan engineRequest
	answers  chan []byte // nil: the request was taken and not answered
	taken    bool        // a request is being handled; used by the engine's goroutine
	closed   chan struct{}
	close    sync.Once
}

// relayConn is a relayed transport address in the hands of the engine. It is
// closed when the allocation ends.
type relayConn interface {
	net.PacketConn
	external() netip.AddrPort
}

type engineRequest struct {
	from net.Addr
	raw  []byte
}

// engineEvents are what the engine tells, with the number of the client. They
// are called while the engine may be locked.
type engineEvents struct {
	permission func(client uint64, peer netip.Addr, on bool)
	channel    func(client uint64, peer netip.AddrPort, number uint16, on bool)
}

const (
	engineUser  = "relay"
	engineRealm = "relay"
)

// errUnanswered is returned for what pion knows no answer for.
var errUnanswered = errors.New("no answer")

// newEngine starts an engine. It must be closed.
func newEngine(events engineEvents) (*engine, error) {
	e := &engine{
		key: longTermKey(engineUser, engineRealm, "relay"), requests: make(chan engineRequest), answers: make(chan []byte), closed: make(chan struct{}),
	}
	told := func(tell func(uint64, netip.Addr, bool), on bool) func(_, _ net.Addr, _, _, _ string, _ net.Addr, peer net.IP) {
		return func(client, _ net.Addr, _, _, _ string, _ net.Addr, peer net.IP) {
			if a, ok := netip.AddrFromSlice(peer); ok {
				tell(clientNumber(client), a.Unmap(), on)
			}
		}
	}
	bound := func(on bool) func(_, _ net.Addr, _, _, _ string, _, peer net.Addr, number uint16) {
		return func(client, _ net.Addr, _, _, _ string, _, peer net.Addr, number uint16) {
			if p, ok := peer.(*net.UDPAddr); ok {
				a := p.AddrPort()
				events.channel(clientNumber(client), netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), number, on)
			}
		}
	}
	var err error
	e.server, err = turn.NewServer(turn.ServerConfig{
		Realm:              engineRealm,
		AuthHandler:        func(*turn.RequestAttributes) (string, []byte, bool) { return engineUser, e.key, true },
		PacketConnConfigs:  []turn.PacketConnConfig{{PacketConn: e, RelayAddressGenerator: (*engineAddresses)(e)}},
		LoggerFactory:      silent{},
		AllocationLifetime: 2 * maxLifetime, // a session ends first, and says so
		ChannelBindTimeout: channelLifetime,
		PermissionTimeout:  permissionLifetime,
		EventHandler: turn.EventHandler{
			OnPermissionCreated: told(events.permission, true), OnPermissionDeleted: told(events.permission, false),
			OnChannelCreated: bound(true), OnChannelDeleted: bound(false),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("turn engine: %w", err)
	}
	return e, nil
}

// do has the engine carry out a request of a client: a method and what goes with
// it. For an allocation, conn is the relayed address, which the engine closes
// when it ends; if do fails, the caller does. The error is a stun.ErrorCode where
// the engine refused.
func (e *engine) do(client uint64, method stun.Method, conn relayConn, with ...stun.Setter) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pending = conn
	defer func() { e.pending = nil }()
	for range 2 { // the second time with a new nonce
		attributes := append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, with...)
		m, err := stun.Build(append(attributes, stun.NewUsername(engineUser), stun.NewRealm(engineRealm), stun.NewNonce(e.nonce), stun.MessageIntegrity(e.key))...)
		if err != nil {
			return fmt.Errorf("turn engine: %w", err)
		}
		answer, err := e.ask(client, m.Raw)
		if err != nil {
			return err
		}
		var code stun.ErrorCodeAttribute
		switch {
		case answer.Type.Class == stun.ClassSuccessResponse:
			return nil
		case code.GetFrom(answer) != nil:
			return errUnanswered
		case code.Code != stun.CodeStaleNonce && code.Code != stun.CodeUnauthorized:
			return engineError(code.Code)
		}
		var nonce stun.Nonce
		if err := nonce.GetFrom(answer); err != nil {
			return engineError(code.Code)
		}
		e.nonce = nonce.String()
	}
	return errUnanswered
}

// engineError is the code by which the engine refused.
type engineError stun.ErrorCode

// Error implements error.
func (e engineError) Error() string { return fmt.Sprintf("the engine refuses with %d", int(e)) }

// ask gives the engine a message and waits for the answer.
func (e *engine) ask(client uint64, raw []byte) (*stun.Message, error) {
	select {
	case e.requests <- engineRequest{clientAddress(client), raw}:
	case <-e.closed:
		return nil, net.ErrClosed
	}
	select {
	case b := <-e.answers:
		if b == nil {
			return nil, errUnanswered
		}
		// The engine says that it is through with the request, too.
		select {
		case <-e.answers:
		case <-e.closed:
		}
		m := &stun.Message{Raw: b}
		return m, m.Decode()
	case <-e.closed:
		return nil, net.ErrClosed
	}
}

// clientAddress is a client's number as an address on the engine's network.
func clientAddress(client uint64) net.Addr {
	ip := make(net.IP, net.IPv6len)
	ip[0] = 0xfd
	binary.BigEndian.PutUint64(ip[8:], client)
	return &net.UDPAddr{IP: ip, Port: 1}
}

func clientNumber(a net.Addr) uint64 {
	return binary.BigEndian.Uint64(a.(*net.UDPAddr).IP[8:])
}

// ReadFrom implements net.PacketConn: the engine comes for the next request, and
// so it is through with the one before.
func (e *engine) ReadFrom(b []byte) (int, net.Addr, error) {
	if e.taken {
		select {
		case e.answers <- nil:
		case <-e.closed:
			return 0, nil, net.ErrClosed
		}
	}
	select {
	case r := <-e.requests:
		e.taken = true
		return copy(b, r.raw), r.from, nil
	case <-e.closed:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo implements net.PacketConn: the engine answers.
func (e *engine) WriteTo(b []byte, _ net.Addr) (int, error) {
	select {
	case e.answers <- append([]byte{}, b...):
		return len(b), nil
	case <-e.closed:
		return 0, net.ErrClosed
	}
}

// Close implements net.PacketConn. It ends all allocations.
func (e *engine) Close() error {
	e.close.Do(func() { close(e.closed) })
	return nil
}

// LocalAddr implements net.PacketConn.
func (e *engine) LocalAddr() net.Addr { return clientAddress(0) }

// SetDeadline implements net.PacketConn.
func (e *engine) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// SetReadDeadline implements net.PacketConn.
func (e *engine) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetWriteDeadline implements net.PacketConn.
func (e *engine) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// engineAddresses gives the engine the relayed address of the request that it
// handles.
type engineAddresses engine

// Validate implements turn.RelayAddressGenerator.
func (*engineAddresses) Validate() error { return nil }

// AllocatePacketConn implements turn.RelayAddressGenerator.
func (e *engineAddresses) AllocatePacketConn(turn.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	conn := e.pending
	if conn == nil {
		return nil, nil, errUnanswered
	}
	return conn, net.UDPAddrFromAddrPort(conn.external()), nil
}

// AllocateListener implements turn.RelayAddressGenerator: there is no TCP to
// peers.
func (*engineAddresses) AllocateListener(turn.AllocateListenerConfig) (net.Listener, net.Addr, error) {
	return nil, nil, errors.ErrUnsupported
}

// AllocateConn implements turn.RelayAddressGenerator.
func (*engineAddresses) AllocateConn(turn.AllocateConnConfig) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

// silent is a log that says nothing: what pion notes for each packet is of no use
// to an operator, and [Relay] counts what is refused.
type silent struct{}

// NewLogger implements logging.LoggerFactory.
func (silent) NewLogger(string) logging.LeveledLogger {
	return &logging.DefaultLeveledLogger{}
}
