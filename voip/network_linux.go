package voip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// network reads and writes all UDP packets. Each of its loops waits for many
// sockets at once, takes what has come from each with one system call, and sends
// what goes to each with another: at a high load a call moves dozens of packets.
type network struct {
	loops []*loop
	next  atomic.Uint32 // the loop of the next port that has one socket
	ports atomic.Uint64 // how many sockets there were
}

// Bounds of a round of a loop, and of many.
const (
	batch     = 64 // packets read, and as many sent
	mostReady = 64
	rounds    = 8 // after which a loop lets other goroutines run
)

// loop is a goroutine that reads sockets, and handles one packet after the other.
// Its fields belong to that goroutine, where nothing else is said.
//
// It waits as goroutines do, for its epoll instance, which says which sockets are
// ready; a system call that waits would have Go's scheduler take the processor
// away from it and give it back for each packet. The other calls return at once,
// and so the scheduler is not told of them.
type loop struct {
	index    int
	epoll    int
	file     *os.File // the same, as Go's network poller knows it
	clock    int64
	counters counters

	mu      sync.Mutex // tier 3; guards what follows
	sockets map[uint64]*socket
	doomed  []*socket // to be closed by the loop
	closed  bool

	ready [mostReady]unix.EpollEvent
	in    [batch]unix.RawSockaddrInet6
	bufs  [batch][]byte
	heads [batch]mmsghdr
	iovs  [batch]unix.Iovec
	ctrl  [batch][controlSize]byte

	out     [batch]outgoing
	queued  int
	dirty   []*socket
	sending sender
	spare   [][]byte // for copies
	copied  int
}

// mmsghdr is the argument of recvmmsg and sendmmsg.
type mmsghdr struct {
	unix.Msghdr
	n uint32
	_ [4]byte
}

// outgoing is a packet that waits for the end of the round.
type outgoing struct {
	data []byte
	to   unix.RawSockaddrInet6
	size uint32     // of the address
	from netip.Addr // the address to send from, if the socket has several
	next int        // the next one for the same socket, or -1
}

// controlSize is room for the address that a packet was sent to.
const controlSize = 64

// udpPort is a UDP address at which we receive, with a socket for each loop that
// shares it.
type udpPort struct {
	sockets []*socket // by loop, or one for all
	handle  handler
	local   netip.AddrPort
	many    bool // it has all addresses of the machine
	ended   chan struct{}
	once    sync.Once
}

// socket is one socket of a port.
type socket struct {
	port   *udpPort
	loop   *loop
	number uint64

	mu sync.RWMutex // tier 3; guards fd against its end while somebody else sends
	fd int          // -1 when closed

	first, last int // of what waits to be sent; the loop's
}

// newNetwork makes n loops.
func newNetwork(n int) (*network, error) {
	w := &network{}
	for i := range n {
		l := &loop{index: i, sockets: map[uint64]*socket{}, spare: make([][]byte, batch)}
		var err error
		if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			return nil, fmt.Errorf("epoll: %w", err)
		}
		unix.SetNonblock(l.epoll, true) // so that package os has the poller watch it
		l.file = os.NewFile(uintptr(l.epoll), "epoll")
		for i := range batch {
			l.bufs[i] = make([]byte, room+packetSize+4)
		}
		w.loops = append(w.loops, l)
	}
	return w, nil
}

// watch has the loop wait for a socket. The number comes back with what happens.
func (l *loop) watch(s *socket) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.number), Pad: int32(s.number >> 32)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, s.fd, &event); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	l.sockets[s.number] = s
	return nil
}

// listen opens a port that all loops share, if nobody has it.
func (w *network) listen(at netip.AddrPort, h handler) (*udpPort, error) {
	p, err := w.open(at, w.loops, h)
	if err != nil {
		return nil, err
	}
	for _, s := range p.sockets { // many clients at once; the system grants what it allows
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20)
	}
	return p, nil
}

// open1 opens a port for one loop; nil is any.
func (w *network) open1(at netip.AddrPort, l *loop, h handler) (*udpPort, error) {
	if l == nil {
		l = w.loops[int(w.next.Add(1))%len(w.loops)]
	}
	return w.open(at, []*loop{l}, h)
}

func (w *network) open(at netip.AddrPort, loops []*loop, h handler) (*udpPort, error) {
	p := &udpPort{handle: h, local: at, many: at.Addr().IsUnspecified(), ended: make(chan struct{})}
	for i, l := range loops {
		fd, err := openUDP(p.local, p.many, len(loops) > 1, i > 0)
		if err != nil {
			p.close()
			return nil, err
		}
		s := &socket{port: p, loop: l, number: w.ports.Add(1), fd: fd, first: -1}
		p.sockets = append(p.sockets, s)
		if p.local.Port() == 0 { // the others share the one that was found
			p.local = netip.AddrPortFrom(at.Addr(), boundPort(fd))
		}
	}
	for _, s := range p.sockets {
		if err := s.loop.watch(s); err != nil {
			p.close()
			return nil, err
		}
	}
	return p, nil
}

// openUDP opens a socket. Shared ones take packets in turn, by the address of who
// sends them. The first one takes the port for itself, and only then shares it with
// those that join: it would else share it with whatever port or process has it, and
// the system would find it one that others share.
func openUDP(at netip.AddrPort, many, shared, joins bool) (fd int, err error) {
	domain := unix.AF_INET
	if at.Addr().Is6() {
		domain = unix.AF_INET6
	}
	fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	options := [][3]int{{unix.SOL_SOCKET, unix.SO_REUSEPORT, b2i(joins)}}
	if domain == unix.AF_INET6 {
		options = append(options, [3]int{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1}, [3]int{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, b2i(many)})
	} else {
		// Routers may take packets apart (RFC 8656, 14): nobody asked us not to let them.
		options = append(options, [3]int{unix.IPPROTO_IP, unix.IP_PKTINFO, b2i(many)}, [3]int{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			return -1, os.NewSyscallError("setsockopt", err)
		}
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(at.Port())}
	if at.Addr().Is6() {
		sa = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	} else {
		sa.(*unix.SockaddrInet4).Addr = at.Addr().As4()
	}
	if err := unix.Bind(fd, sa); err != nil {
		return -1, &net.OpError{Op: "listen", Net: "udp", Addr: net.UDPAddrFromAddrPort(at), Err: os.NewSyscallError("bind", err)}
	}
	return fd, os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, b2i(shared)))
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// boundPort is the port that the system chose.
func boundPort(fd int) uint16 {
	switch sa, _ := unix.Getsockname(fd); sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port)
	case *unix.SockaddrInet6:
		return uint16(sa.Port)
	}
	return 0
}

// run runs the loops until ctx is done, and closes all sockets.
func (w *network) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		for _, l := range w.loops {
			l.rouse()
		}
	})()
	var running sync.WaitGroup
	errs := make([]error, len(w.loops))
	for i, l := range w.loops {
		running.Go(func() { errs[i] = l.run(ctx) })
	}
	running.Wait()
	return errors.Join(errs...)
}

// counters are those of all loops.
func (w *network) counters() []*counters {
	var list []*counters
	for _, l := range w.loops {
		list = append(list, &l.counters)
	}
	return list
}

// close closes what is open, if the loops did not run.
func (w *network) close() {
	for _, l := range w.loops {
		l.end()
	}
}

// rouse has the loop look up from its waiting, for what it has to bury.
func (l *loop) rouse() { l.file.SetReadDeadline(time.Unix(1, 0)) }

// run waits, reads, handles and sends, until ctx is done.
func (l *loop) run(ctx context.Context) error {
	defer l.end()
	wait, err := l.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	for ctx.Err() == nil {
		err := wait.Read(func(uintptr) bool {
			for i := 1; l.round() && ctx.Err() == nil; i++ {
				if i%rounds == 0 {
					l.bury()
					runtime.Gosched()
				}
			}
			return ctx.Err() != nil
		})
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("epoll: %w", err)
		}
		l.file.SetReadDeadline(time.Time{})
		l.bury()
	}
	return nil
}

// round takes what has come. It tells whether there was anything.
func (l *loop) round() bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.ready[0])), mostReady, 0, 0, 0)
	if errno != 0 || n == 0 {
		return errno == unix.EINTR
	}
	l.clock = time.Now().UnixNano()
	used := 0 // buffers
	for _, event := range l.ready[:n] {
		number := uint64(uint32(event.Fd)) | uint64(uint32(event.Pad))<<32
		l.mu.Lock()
		s := l.sockets[number]
		l.mu.Unlock()
		if s == nil {
			continue
		}
		if used += l.read(s, used); batch-used < batch/4 {
			l.flush()
			used, l.copied = 0, 0
		}
	}
	l.flush()
	l.copied = 0
	return true
}

// end closes everything that belongs to the loop.
func (l *loop) end() {
	l.bury()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sockets {
		s.shut()
	}
	clear(l.sockets)
	l.closed = true
	l.file.Close()
}

// bury closes the sockets that are given back.
func (l *loop) bury() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.doomed {
		delete(l.sockets, s.number)
		s.shut()
	}
	clear(l.doomed)
	l.doomed = l.doomed[:0]
}

// shut closes the socket.
func (s *socket) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		unix.Close(s.fd) // which takes it out of the epoll, too
		s.fd = -1
	}
}

// read reads what came to a socket into the buffers from a number on, and hands
// each packet on. It returns how many buffers it used.
func (l *loop) read(s *socket, from int) int {
	for i := from; i < batch; i++ {
		l.iovs[i].Base = &l.bufs[i][room]
		l.iovs[i].SetLen(packetSize)
		h := &l.heads[i]
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&l.in[i])), unix.SizeofSockaddrInet6
		h.Iov, h.Iovlen = &l.iovs[i], 1
		h.Flags = 0
		h.Control, h.Controllen = nil, 0
		if s.port.many {
			h.Control = &l.ctrl[i][0]
			h.SetControllen(controlSize)
		}
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&l.heads[from])), uintptr(batch-from), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0 // nothing there, or an error that an earlier packet met on its way
	}
	for i := from; i < from+int(n); i++ {
		h := &l.heads[i]
		if h.Flags&unix.MSG_TRUNC != 0 {
			continue
		}
		var to netip.Addr
		if s.port.many {
			to = destination(l.ctrl[i][:h.Controllen])
		}
		s.port.handle(l, l.bufs[i], int(h.n), fromRaw(&l.in[i]), to)
	}
	return int(n)
}

// fromRaw reads an address of the kernel.
func fromRaw(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	if sa.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), port)
}

// toRaw writes one, and returns its size.
func toRaw(sa *unix.RawSockaddrInet6, to netip.AddrPort) uint32 {
	if to.Addr().Is4() {
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		sa4.Family, sa4.Addr = unix.AF_INET, to.Addr().As4()
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa4.Port))[:], to.Port())
		return unix.SizeofSockaddrInet4
	}
	*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.Addr().As16()}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], to.Port())
	return unix.SizeofSockaddrInet6
}

// destination reads from a control message which of our addresses a packet was
// sent to.
func destination(control []byte) netip.Addr {
	if len(control) < unix.SizeofCmsghdr {
		return netip.Addr{}
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	data := control[unix.CmsgLen(0):]
	switch {
	case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		return netip.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Addr)
	case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		return netip.AddrFrom16((*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0])).Addr)
	}
	return netip.Addr{}
}

// source writes the control message by which a packet leaves from an address.
func source(control *[controlSize]byte, from netip.Addr) []byte {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	data := unsafe.Pointer(&control[unix.CmsgLen(0)])
	size := unix.SizeofInet4Pktinfo
	if from.Is4() {
		h.Level, h.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
		*(*unix.Inet4Pktinfo)(data) = unix.Inet4Pktinfo{Spec_dst: from.As4()}
	} else {
		size = unix.SizeofInet6Pktinfo
		h.Level, h.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
		*(*unix.Inet6Pktinfo)(data) = unix.Inet6Pktinfo{Addr: from.As16()}
	}
	h.SetLen(unix.CmsgLen(size))
	return control[:unix.CmsgSpace(size)]
}

// addr is where the port is.
func (p *udpPort) addr() netip.AddrPort { return p.local }

// send sends a packet: at the end of the round, if a loop calls, otherwise now.
// What cannot be sent is lost, as on any network.
func (p *udpPort) send(on *loop, b []byte, to netip.AddrPort, from netip.Addr) {
	s := p.sockets[0]
	if on != nil && len(p.sockets) > 1 {
		s = p.sockets[on.index]
	}
	if on == nil || s.loop != on {
		s.sendNow(b, to, from)
		return
	}
	if on.queued == batch {
		on.flush()
	}
	o := &on.out[on.queued]
	o.data, o.from, o.next = b, from, -1
	o.size = toRaw(&o.to, to)
	if s.first < 0 {
		s.first = on.queued
		on.dirty = append(on.dirty, s)
	} else {
		on.out[s.last].next = on.queued
	}
	s.last = on.queued
	on.queued++
}

// sendNow sends a packet by itself.
func (s *socket) sendNow(b []byte, to netip.AddrPort, from netip.Addr) {
	var sa unix.RawSockaddrInet6
	var control [controlSize]byte
	iov := unix.Iovec{Base: unsafe.SliceData(b)}
	iov.SetLen(len(b))
	h := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&sa)), Namelen: toRaw(&sa, to), Iov: &iov, Iovlen: 1}
	if from.IsValid() {
		c := source(&control, from)
		h.Control = &c[0]
		h.SetControllen(len(c))
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd >= 0 {
		unix.Syscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
}

// close gives the port back. Its loops close the sockets.
func (p *udpPort) close() {
	p.once.Do(func() {
		close(p.ended)
		for _, s := range p.sockets {
			s.loop.mu.Lock()
			known := s.loop.sockets[s.number] == s
			if known {
				s.loop.doomed = append(s.loop.doomed, s)
			}
			s.loop.mu.Unlock()
			if known {
				s.loop.rouse()
			} else {
				s.shut()
			}
		}
	})
}

// tally counts what the loop does.
func (l *loop) tally() *counters { return &l.counters }

// now is the time of the packets of this round, in nanoseconds.
func (l *loop) now() int64 {
	if l == nil {
		return time.Now().UnixNano()
	}
	return l.clock
}

// copy puts data behind a room of its own, as a handler gets it. It stays until
// the round ends.
func (l *loop) copy(data []byte) []byte {
	var b []byte
	if l != nil {
		if l.copied == batch {
			l.flush()
			l.copied = 0
		}
		if l.spare[l.copied] == nil {
			l.spare[l.copied] = make([]byte, room+packetSize+4)
		}
		b = l.spare[l.copied]
		l.copied++
	}
	if len(b) < room+len(data)+4 {
		b = make([]byte, room+len(data)+4)
	}
	copy(b[room:], data)
	return b
}
