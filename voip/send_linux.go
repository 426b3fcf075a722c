package voip

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sender is what one call to sendmmsg needs.
type sender struct {
	heads [batch]mmsghdr
	iovs  [batch]unix.Iovec
	ctrl  [batch][controlSize]byte
}

// flush sends what waits: for each socket all of it with one call.
func (l *loop) flush() {
	for _, s := range l.dirty {
		l.sending.send(l, s)
		s.first = -1
	}
	clear(l.dirty)
	l.dirty = l.dirty[:0]
	l.queued = 0
}

// send sends what waits for one socket.
func (x *sender) send(l *loop, s *socket) {
	n := 0
	for i := s.first; i >= 0; i = l.out[i].next {
		o := &l.out[i]
		x.iovs[n].Base = unsafe.SliceData(o.data)
		x.iovs[n].SetLen(len(o.data))
		h := &x.heads[n]
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&o.to)), o.size
		h.Iov, h.Iovlen = &x.iovs[n], 1
		h.Control, h.Controllen = nil, 0
		if o.from.IsValid() {
			c := source(&x.ctrl[n], o.from)
			h.Control = &c[0]
			h.SetControllen(len(c))
		}
		n++
	}
	for done := 0; done < n; {
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&x.heads[done])), uintptr(n-done), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno != 0 {
			sent = 1 // the first one is lost, as on any network
		}
		done += int(sent)
	}
}
