package voip

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v3"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
)

// Options are what a relay needs.
type Options struct {
	Config   TURNConfig
	Lifetime time.Duration // of credentials
	Realm    string        // the server name
	Host     string        // the name in URIs, where Config has none
	TLS      *tls.Config   // nil: there is no certificate, and so no TLS
	Vault    Vault         // nil: secrets last as long as the process

	// HTTPS are the ports on which somebody else takes connections over TLS and
	// gives those of TURN to ServeConn.
	HTTPS []uint16

	// Unwelcome tells whether a user may have no calls relayed any more, whatever
	// credentials there still are. Nil: everybody may.
	Unwelcome func(ctx context.Context, user string) bool

	// Denied are addresses of machines that belong to this server, such as its
	// database.
	Denied []netip.Addr
}

// Relay is a STUN and TURN server. Its methods may be called from several
// goroutines.
type Relay struct {
	options    Options
	network    *network
	udp        []*udpPort
	tcp        []net.Listener
	tls        []net.Listener
	addresses  *addresses
	peers      *peers
	ports      *ports
	issuer     *issuer
	nonces     nonces
	challenges *throttle
	bindings   *throttle
	gate       gate
	quotas     quotas
	rate       int64 // bytes a second of each session and direction
	count      *metrics
	engines    [2]*engine    // by family; set by Run
	serving    chan struct{} // closed when clients may be served, or never will
	ready      sync.Once
	draining   atomic.Bool
	drain      chan struct{} // closed by Drain
	last       atomic.Uint64 // the newest session's number

	mu       sync.RWMutex // tier 3; guards what follows
	sessions map[path]*session
	numbered map[uint64]*session
	expelled map[string]time.Time // users who are unwelcome, and when their credentials have ended
}

// NewRelay opens the sockets and reads the secrets. Nobody is served until Run.
// Who does not call Run calls Close.
func NewRelay(ctx context.Context, o Options) (*Relay, error) {
	if o.Config.Host != "" {
		o.Host = o.Config.Host
	}
	if o.Vault == nil {
		o.Vault = &memoryVault{}
	}
	network, err := newNetwork(o.Config.sockets())
	if err != nil {
		return nil, err
	}
	r := &Relay{
		options: o, network: network, nonces: newNonces(), serving: make(chan struct{}), drain: make(chan struct{}),
		challenges: newThrottle(10, 60), bindings: newThrottle(50, 200),
		quotas: quotas{user: o.Config.UserQuota, total: o.Config.TotalQuota},
		rate:   int64(o.Config.MaxBitrate) * 1000 / 8, count: &metrics{},
		issuer:    &issuer{vault: o.Vault, realm: o.Realm, lifetime: o.Lifetime, shared: o.Config.SharedSecrets},
		addresses: &addresses{configured: o.Config.ExternalIPs, servers: o.Config.STUNServers},
		sessions:  map[path]*session{}, numbered: map[uint64]*session{}, expelled: map[string]time.Time{},
	}
	r.ports = &ports{network: network, addresses: r.addresses, quotas: &r.quotas, min: o.Config.MinPort, max: o.Config.MaxPort, taken: map[netip.AddrPort]*relayPort{}, reserved: map[string]reservation{}}
	r.peers = &peers{allow: o.Config.AllowPeers, deny: o.Config.DenyPeers, own: r.addresses.own, external: r.addresses.isExternal}
	for _, a := range o.Denied {
		r.peers.deny = append(r.peers.deny, netip.PrefixFrom(a, a.BitLen()))
	}
	if err := errors.Join(r.issuer.refresh(ctx), r.listen(ctx)); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.addresses.look(ctx, false)
	if number := o.Config.OnePort; number != 0 {
		if err := r.ports.openOne(number); err != nil {
			return nil, errors.Join(fmt.Errorf("voip.turn.one_port: %w", err), r.Close())
		}
	}
	return r, nil
}

// listen opens the sockets for clients.
func (r *Relay) listen(ctx context.Context) error {
	c := r.options.Config
	for _, address := range c.UDP {
		if err := r.listenUDP(address); err != nil {
			return fmt.Errorf("voip.turn.udp: %w", err)
		}
	}
	lists := []struct {
		key       string
		addresses []string
		listeners *[]net.Listener
	}{{"tcp", c.TCP, &r.tcp}, {"tls", c.TLS, &r.tls}}
	if r.options.TLS == nil {
		lists = lists[:1]
	}
	for _, list := range lists {
		for _, address := range list.addresses {
			var config net.ListenConfig
			l, err := config.Listen(ctx, "tcp", address)
			if err != nil {
				return fmt.Errorf("voip.turn.%s: %w", list.key, err)
			}
			*list.listeners = append(*list.listeners, l)
		}
	}
	return nil
}

// listenUDP opens an address. All addresses of the machine are two: those of
// IPv4 and, where there is IPv6, those of IPv6.
func (r *Relay) listenUDP(address string) error {
	at, err := listenAddress(address)
	if err != nil {
		return err
	}
	all := []netip.AddrPort{at}
	if at.Addr() == netip.IPv6Unspecified() {
		all = []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()), at}
	} else if f := familyOf(at.Addr()); !at.Addr().IsUnspecified() && !r.addresses.bound[f].IsValid() {
		r.addresses.bound[f] = at.Addr()
	}
	for i, at := range all {
		var port *udpPort
		port, err = r.network.listen(at, func(on *loop, buf []byte, n int, from netip.AddrPort, to netip.Addr) {
			r.packet(on, path{port: port, remote: from, local: to}, buf[room:room+n])
		})
		if err == nil {
			r.udp = append(r.udp, port)
		} else if i == 0 {
			return err
		}
	}
	return nil
}

// Run serves until ctx is done and then, for as long as Grace goes, those whose
// calls still run.
func (r *Relay) Run(ctx context.Context) error {
	defer r.Close()
	var err error
	events := engineEvents{
		permission: func(client uint64, peer netip.Addr, on bool) {
			if s := r.numberedSession(client); s != nil {
				s.permit(peer, on)
			}
		},
		channel: func(client uint64, peer netip.AddrPort, number uint16, on bool) {
			if s := r.numberedSession(client); s != nil {
				s.bind(peer, number, on)
			}
		},
	}
	for family := range r.engines {
		if r.engines[family], err = newEngine(events); err != nil {
			return err
		}
		defer r.engines[family].Close()
	}
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	group, serving := errgroup.WithContext(serving)
	r.ready.Do(func() { close(r.serving) })
	group.Go(func() error { return r.network.run(serving) })
	for _, l := range r.tcp {
		group.Go(func() error { return r.accept(serving, l, nil) })
	}
	for _, l := range r.tls {
		group.Go(func() error { return r.accept(serving, l, r.options.TLS) })
	}
	group.Go(func() error { r.addresses.watch(serving); return nil })
	group.Go(func() error { r.rotate(serving); return nil })
	group.Go(func() error { r.guard(serving); return nil })
	select {
	case <-ctx.Done():
		r.Drain()
		r.linger(serving)
	case <-serving.Done():
	}
	end()
	r.gate.close() // before the engines are
	r.endAll()
	return group.Wait()
}

// endAll ends the sessions that there still are, whose sockets would keep the
// network running.
func (r *Relay) endAll() {
	for _, s := range r.all() {
		r.end(s)
	}
}

// all are the sessions that there are.
func (r *Relay) all() []*session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Values(r.sessions))
}

// Drain refuses new allocations from now on.
func (r *Relay) Drain() {
	if !r.draining.Swap(true) {
		close(r.drain)
	}
}

// linger waits until no call is relayed any more, or the grace is over.
func (r *Relay) linger(ctx context.Context) {
	limit := time.After(r.options.Config.Grace)
	for tick := time.NewTicker(100 * time.Millisecond); r.Sessions() > 0; {
		select {
		case <-ctx.Done():
			return
		case <-limit:
			zerolog.Ctx(ctx).Warn().Int("calls", r.Sessions()).Msg("relayed calls were still running and are broken off")
			return
		case <-tick.C:
		}
	}
}

// rotate replaces the secret when it is old, and learns of those that another
// process made.
func (r *Relay) rotate(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := r.issuer.refresh(ctx); err != nil && ctx.Err() == nil {
			zerolog.Ctx(ctx).Warn().Err(err).Msg("the secret of TURN credentials could not be replaced; the old one stays")
		}
	}
}

// guard expels users who are unwelcome, every minute: credentials are good for
// hours, and a session for as long as its client refreshes it. The database is not
// asked when a packet comes, which would hold up all others.
func (r *Relay) guard(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for r.options.Unwelcome != nil {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.expel(ctx, time.Now())
	}
}

// expel ends the sessions of users who are unwelcome now, who get no others with
// the credentials that they have.
func (r *Relay) expel(ctx context.Context, now time.Time) {
	r.mu.RLock()
	expelled := maps.Clone(r.expelled)
	r.mu.RUnlock()
	sessions := r.all()
	for _, s := range sessions {
		expelled[s.user] = now.Add(r.options.Lifetime)
	}
	maps.DeleteFunc(expelled, func(user string, ends time.Time) bool { return ends.Before(now) || !r.options.Unwelcome(ctx, user) })
	r.mu.Lock()
	r.expelled = expelled
	r.mu.Unlock()
	for _, s := range sessions {
		if r.isExpelled(s.user) {
			r.end(s)
		}
	}
}

func (r *Relay) isExpelled(user string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, expelled := r.expelled[user]
	return expelled
}

// Close closes the sockets.
func (r *Relay) Close() error {
	r.gate.close()
	r.ready.Do(func() { close(r.serving) })
	r.network.close()
	for _, l := range append(r.tcp, r.tls...) {
		l.Close() // an error means that it is closed
	}
	return nil
}

// Issue makes credentials for a user.
func (r *Relay) Issue(user string) Credentials {
	username, password := r.issuer.issue(user)
	return Credentials{Username: username, Password: password, URIs: r.URIs(), TTL: r.options.Lifetime}
}

// URIs are where clients reach the relay, those that cost least first.
func (r *Relay) URIs() []string {
	var uris []string
	seen := map[string]bool{}
	add := func(scheme, transport string, port uint16) {
		uri := scheme + ":" + net.JoinHostPort(r.options.Host, strconv.Itoa(int(port))) + "?transport=" + transport
		if !seen[uri] {
			uris = append(uris, uri)
			seen[uri] = true
		}
	}
	for _, p := range r.udp {
		add("turn", "udp", p.addr().Port())
	}
	for _, l := range r.tcp {
		add("turn", "tcp", uint16(l.Addr().(*net.TCPAddr).Port))
	}
	for _, l := range r.tls {
		add("turns", "tcp", uint16(l.Addr().(*net.TCPAddr).Port))
	}
	for _, port := range r.options.HTTPS {
		// Beside 443, another one helps nobody, and a browser asks all for addresses.
		if port == 443 || !slices.Contains(r.options.HTTPS, 443) {
			add("turns", "tcp", port)
		}
	}
	return uris
}

// Addresses are the IPv4 and the IPv6 address from which relayed packets come as
// others see them; those that there are.
func (r *Relay) Addresses() []netip.Addr {
	var list []netip.Addr
	for family := range 2 {
		if _, external := r.addresses.of(family); external.IsValid() {
			list = append(list, external)
		}
	}
	return list
}

// Ports are the first and the last UDP port of relayed addresses.
func (r *Relay) Ports() (first, last uint16) {
	if one := r.ports.one[ipv4]; one != nil {
		return one.number, one.number
	}
	return r.ports.min, r.ports.max
}

// Sessions is how many clients have relayed addresses.
func (r *Relay) Sessions() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.sessions)
}

// session is that of a client; nil if it has none.
func (r *Relay) session(p path) *session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.sessions[p]
}

func (r *Relay) numberedSession(number uint64) *session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.numbered[number]
}

// mayReach tells whether packets may go to a port of an address that is allowed:
// of our own addresses only relayed ones are.
func (r *Relay) mayReach(peer netip.AddrPort) bool {
	return !r.addresses.isExternal(peer.Addr()) || r.ports.isRelay(peer) || r.peers.named(peer.Addr())
}

// open makes a session with the relayed addresses that a client wishes, or with
// one of two if there is no other (RFC 8656, 7.2). It gives the attributes of the
// answer, or the code of an error. The session has to be started.
func (r *Relay) open(q *request, w wish) (s *session, answer []stun.Setter, code stun.ErrorCode) {
	s = &session{
		relay: r, number: r.last.Add(1), path: q.path, username: q.username, user: w.user, key: q.key, channels: map[uint16]netip.AddrPort{},
	}
	for _, family := range w.families {
		token, err := r.addLeg(s, q.on, family, w)
		if err != nil {
			failed := allocationCode(err)
			if code == 0 || failed != stun.CodeAddrFamilyNotSupported {
				code = failed
			}
			answer = append(answer, addressError(family, failed))
			continue
		}
		answer = append(answer, address{stun.AttrXORRelayedAddress, s.legs[family].address})
		if token != "" {
			answer = append(answer, stun.RawAttribute{Type: stun.AttrReservationToken, Value: []byte(token)})
		}
	}
	if s.legs == [2]*leg{} {
		return nil, nil, code
	}
	return s, answer, 0
}

// allocationCode is what a client is told when it gets no relayed address.
func allocationCode(err error) stun.ErrorCode {
	switch {
	case errors.Is(err, errNoFamily):
		return stun.CodeAddrFamilyNotSupported
	case errors.Is(err, errQuota):
		return stun.CodeAllocQuotaReached
	}
	return stun.CodeInsufficientCapacity
}

// addressError says that there is no address of a family (RFC 8656, 18.13).
func addressError(family int, code stun.ErrorCode) stun.RawAttribute {
	v := []byte{byte(family + 1), 0, byte(code / 100), byte(code % 100)}
	return stun.RawAttribute{Type: attrAddressErrorCode, Value: v}
}

// addLeg gives a session a relayed address of a family, or the one for which it
// has a token.
func (r *Relay) addLeg(s *session, on *loop, family int, w wish) (token string, err error) {
	if err := r.quotas.take(s.user); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			r.quotas.give(s.user)
		}
	}()
	l := &leg{session: s, permissions: map[netip.Addr]struct{}{}, numbers: map[netip.AddrPort]uint16{}}
	if token, err = r.ports.give(l, on, family, w); err != nil {
		return "", err
	}
	transport := stun.RawAttribute{Type: stun.AttrRequestedTransport, Value: []byte{protocolUDP, 0, 0, 0}}
	asked := stun.RawAttribute{Type: stun.AttrRequestedAddressFamily, Value: binary.BigEndian.AppendUint32(nil, uint32(family+1)<<24)}
	if err := r.engines[family].do(s.number, stun.MethodAllocate, l, transport, asked); err != nil {
		l.Close()
		return "", err
	}
	s.legs[family] = l
	return token, nil
}

// start makes a session known, for as long as life.
func (r *Relay) start(s *session, life time.Duration) {
	r.mu.Lock()
	r.sessions[s.path] = s
	r.numbered[s.number] = s
	s.expiry = time.AfterFunc(life, func() { r.end(s) })
	r.mu.Unlock()
	r.count.sessions.Add(1)
	if s.path.stream != nil {
		r.know(s.path, true)
	}
}

// end takes the relayed addresses of a session back. It may be called twice.
func (r *Relay) end(s *session) {
	r.mu.Lock()
	known := r.sessions[s.path] == s
	if known {
		delete(r.sessions, s.path)
	}
	r.mu.Unlock()
	if !known {
		return
	}
	s.expiry.Stop()
	for _, l := range s.legs {
		if l != nil {
			r.endLeg(l)
		}
	}
	r.mu.Lock()
	delete(r.numbered, s.number)
	r.mu.Unlock()
	if s.path.stream != nil {
		r.know(s.path, false)
	}
}

// endLeg takes one relayed address back. It may be called twice.
func (r *Relay) endLeg(l *leg) {
	if l.gone.Swap(true) {
		return
	}
	r.engines[familyOf(l.address.Addr())].do(l.session.number, stun.MethodRefresh, nil, seconds(0)) // it closes the leg
	r.quotas.give(l.session.user)
}
