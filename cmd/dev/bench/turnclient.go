package main

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pion/stun/v3"
)

// turnClient is a client with a relayed address and a channel to a peer.
type turnClient struct {
	conn     *net.UDPConn
	username string
	password string
	realm    string
	nonce    string
	relayed  *net.UDPAddr
}

// turnChannel is the number of the channel.
const turnChannel = 0x4000

// dialTURN makes a client. Secret is what it shares with the server. A port that
// somebody had before may still have an allocation; then another one is tried.
func dialTURN(server, secret string, number int) (c *turnClient, err error) {
	for range 5 {
		if c, err = tryTURN(server, secret, number); err == nil {
			return c, nil
		}
	}
	return nil, err
}

func tryTURN(server, secret string, number int) (*turnClient, error) {
	at, err := net.ResolveUDPAddr("udp4", server)
	if err != nil {
		return nil, err
	}
	conn, err := net.DialUDP("udp4", nil, at)
	if err != nil {
		return nil, err
	}
	c := &turnClient{conn: conn, username: fmt.Sprintf("%d:user%d", time.Now().Add(time.Hour).Unix(), number)}
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(c.username))
	c.password = base64.StdEncoding.EncodeToString(mac.Sum(nil))
	if err := c.allocate(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// allocate asks for an address, the first time for how to ask.
func (c *turnClient) allocate() error {
	transport := stun.RawAttribute{Type: stun.AttrRequestedTransport, Value: []byte{17, 0, 0, 0}}
	answer, err := c.ask(stun.MethodAllocate, transport)
	if err != nil {
		return err
	}
	var realm stun.Realm
	var nonce stun.Nonce
	if err := errors.Join(realm.GetFrom(answer), nonce.GetFrom(answer)); err != nil {
		return err
	}
	c.realm, c.nonce = realm.String(), nonce.String()
	if answer, err = c.ask(stun.MethodAllocate, transport); err != nil {
		return err
	}
	var relayed stun.XORMappedAddress
	if err := relayed.GetFromAs(answer, stun.AttrXORRelayedAddress); err != nil {
		return fmt.Errorf("no relayed address: %v", answer)
	}
	c.relayed = &net.UDPAddr{IP: relayed.IP, Port: relayed.Port}
	return nil
}

// bind opens the channel to a peer.
func (c *turnClient) bind(peer *net.UDPAddr) error {
	number := stun.RawAttribute{Type: stun.AttrChannelNumber, Value: []byte{turnChannel >> 8, turnChannel & 0xff, 0, 0}}
	answer, err := c.ask(stun.MethodChannelBind, number, peerAddress{peer})
	if err == nil && answer.Type.Class != stun.ClassSuccessResponse {
		err = fmt.Errorf("channel refused: %v", answer)
	}
	return err
}

// peerAddress is XOR-PEER-ADDRESS.
type peerAddress struct{ *net.UDPAddr }

// AddTo implements stun.Setter.
func (p peerAddress) AddTo(m *stun.Message) error {
	return stun.XORMappedAddress{IP: p.IP, Port: p.Port}.AddToAs(m, stun.AttrXORPeerAddress)
}

// ask sends a request until its answer comes.
func (c *turnClient) ask(method stun.Method, with ...stun.Setter) (*stun.Message, error) {
	setters := append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, with...)
	if c.realm != "" {
		key := md5.Sum([]byte(c.username + ":" + c.realm + ":" + c.password))
		setters = append(setters, stun.NewUsername(c.username), stun.NewRealm(c.realm), stun.NewNonce(c.nonce), stun.MessageIntegrity(key[:]))
	}
	m, err := stun.Build(setters...)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 1500)
	for range 20 {
		if _, err := c.conn.Write(m.Raw); err != nil {
			return nil, err
		}
		c.conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		for {
			n, err := c.conn.Read(b)
			if err != nil {
				break
			}
			answer := &stun.Message{Raw: slices.Clone(b[:n])}
			if answer.Decode() == nil && answer.TransactionID == m.TransactionID {
				c.conn.SetReadDeadline(time.Time{})
				return answer, nil
			}
		}
	}
	return nil, fmt.Errorf("%s is not answered", method)
}

// turnLoad is clients that talk with peers.
type turnLoad struct {
	clients []*turnClient
	peer    *net.UDPConn
	arrived atomic.Int64 // at the peer
	back    atomic.Int64 // at the clients
	echo    atomic.Bool
	trips   chan time.Duration
}

// payload is how large the data are, as of a call's audio with some headers.
const payload = 172

// newTURNLoad makes clients, all with a channel to one peer.
func newTURNLoad(server, secret string, clients int) (*turnLoad, error) {
	peer, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	deepen(peer)
	l := &turnLoad{peer: peer, trips: make(chan time.Duration, 1<<16)}
	for i := range clients {
		c, err := dialTURN(server, secret, i)
		if err == nil {
			err = c.bind(peer.LocalAddr().(*net.UDPAddr))
		}
		if err != nil {
			l.close()
			return nil, err
		}
		deepen(c.conn)
		l.clients = append(l.clients, c)
		go l.listen(c)
	}
	go l.answer()
	return l, nil
}

// deepen lets a socket of the load keep what comes while it has no processor, so
// that it is the relay that loses packets. More than the system's limit takes root.
func deepen(conn *net.UDPConn) {
	conn.SetReadBuffer(8 << 20)
	if raw, err := conn.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, 8<<20) })
	}
}

func (l *turnLoad) close() {
	l.peer.Close()
	for _, c := range l.clients {
		c.conn.Close()
	}
}

// answer is the peer: it counts, and echoes if it is to.
func (l *turnLoad) answer() {
	b := make([]byte, 2000)
	for {
		n, from, err := l.peer.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		l.arrived.Add(1)
		if err == nil && l.echo.Load() {
			l.peer.WriteToUDPAddrPort(b[:n], from)
		}
	}
}

// listen counts what comes back to a client, and how long it took.
func (l *turnLoad) listen(c *turnClient) {
	b := make([]byte, 2000)
	for {
		n, err := c.conn.Read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 12 {
			continue
		}
		l.back.Add(1)
		select {
		case l.trips <- time.Duration(time.Now().UnixNano() - int64(binary.BigEndian.Uint64(b[4:]))):
		default:
		}
	}
}

// send sends packets a second for some time, from the clients in turn, and waits
// until nothing arrives any more. It returns how many it sent.
func (l *turnLoad) send(ctx context.Context, rate int, whole time.Duration) (sent int64) {
	b := make([]byte, 4+payload)
	binary.BigEndian.PutUint16(b, turnChannel)
	binary.BigEndian.PutUint16(b[2:], payload)
	start := time.Now()
	for ctx.Err() == nil {
		passed := time.Since(start)
		due := int64(float64(rate) * min(passed, whole).Seconds())
		for ; sent < due; sent++ {
			binary.BigEndian.PutUint64(b[4:], uint64(time.Now().UnixNano()))
			l.clients[sent%int64(len(l.clients))].conn.Write(b)
		}
		if passed >= whole {
			break
		}
		time.Sleep(time.Millisecond)
	}
	for last := int64(-1); last != l.arrived.Load()+l.back.Load(); time.Sleep(200 * time.Millisecond) {
		last = l.arrived.Load() + l.back.Load()
	}
	return sent
}

// latencies are what the trips took so far, sorted.
func (l *turnLoad) latencies() (all []time.Duration) {
	for {
		select {
		case d := <-l.trips:
			all = append(all, d)
			continue
		default:
		}
		slices.Sort(all)
		return all
	}
}

// quantile is the time within which a share of the trips was done.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
