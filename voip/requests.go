package voip

import (
	"cmp"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/pion/stun/v3"
)

// request is a STUN request that is being handled.
type request struct {
	*stun.Message
	relay    *Relay
	on       *loop
	path     path
	username string
	key      []byte   // by which it was signed, and the answer is
	session  *session // of the client; nil if it has none
}

// packet handles what a client sent: b is one message.
func (r *Relay) packet(on *loop, p path, b []byte) {
	if len(b) >= 4 && b[0]&0xc0 == 0x40 { // ChannelData
		if s := r.session(p); s != nil {
			s.data(on, b)
		} else {
			r.count.dropped(noAllocation)
		}
		return
	}
	m, err := parse(b)
	if err != nil {
		r.count.dropped(malformed)
		return
	}
	switch m.Type.Class {
	case stun.ClassRequest:
		q := request{Message: m, relay: r, on: on, path: p, session: r.session(p)}
		q.handle()
	case stun.ClassIndication:
		if s := r.session(p); s != nil && m.Type.Method == stun.MethodSend && unknown(m) == nil {
			s.sendIndication(on, m)
			return
		}
		r.count.dropped(noAllocation)
	default:
		r.count.dropped(malformed)
	}
}

// methods are what clients may ask once they are known.
var methods = map[stun.Method]func(*request){
	stun.MethodAllocate:         (*request).allocate,
	stun.MethodRefresh:          (*request).refresh,
	stun.MethodCreatePermission: (*request).createPermission,
	stun.MethodChannelBind:      (*request).channelBind,
	// TCP to peers (RFC 6062) would let users make this machine connect anywhere.
	stun.MethodConnect:        func(q *request) { q.refuse(stun.CodeForbidden) },
	stun.MethodConnectionBind: func(q *request) { q.refuse(stun.CodeForbidden) },
}

// handle answers a request.
func (q *request) handle() {
	if q.Type.Method == stun.MethodBinding {
		q.binding()
		return
	}
	do, ok := methods[q.Type.Method]
	if !ok {
		q.relay.count.dropped(malformed)
		return
	}
	code := q.authenticate()
	switch {
	case code == stun.CodeUnauthorized || code == stun.CodeStaleNonce:
		q.challenge(code)
		return
	case code != 0:
		if q.mayAnswer(q.relay.challenges) {
			q.refuse(code)
		}
		return
	}
	if list := unknown(q.Message); list != nil {
		q.refuse(stun.CodeUnknownAttribute, list)
		return
	}
	if q.Type.Method != stun.MethodAllocate && q.session == nil {
		q.refuse(stun.CodeAllocMismatch)
		return
	}
	do(q)
}

// binding tells a client its address.
func (q *request) binding() {
	if !q.mayAnswer(q.relay.bindings) {
		return
	}
	if list := unknown(q.Message); list != nil {
		q.refuse(stun.CodeUnknownAttribute, list)
		return
	}
	q.relay.count.answered(q.Type.Method, 0)
	q.reply(stun.ClassSuccessResponse, address{stun.AttrXORMappedAddress, q.path.remote})
}

// mayAnswer tells whether somebody who is not known may be answered: whoever
// writes from a false address would have us send answers there.
func (q *request) mayAnswer(t *throttle) bool {
	if q.path.stream != nil || t.take(q.path.remote.Addr(), time.Now()) {
		return true
	}
	q.relay.count.dropped(tooOften)
	return false
}

// authenticate checks the long-term credential (RFC 8489, 9.2.4). It returns the
// code of the error, 0 if all is right.
func (q *request) authenticate() stun.ErrorCode {
	var username stun.Username
	var realm stun.Realm
	var nonce stun.Nonce
	switch {
	case !q.Contains(stun.AttrMessageIntegrity):
		return stun.CodeUnauthorized
	case username.GetFrom(q.Message) != nil, realm.GetFrom(q.Message) != nil, nonce.GetFrom(q.Message) != nil:
		return stun.CodeBadRequest
	case !q.relay.nonces.valid(nonce.String(), q.path.remote, time.Now()):
		return stun.CodeStaleNonce
	case realm.String() != q.relay.issuer.realm:
		return stun.CodeUnauthorized
	}
	q.username = username.String()
	if s := q.session; s != nil && s.username == q.username { // a session outlives its credentials
		if stun.MessageIntegrity(s.key).Check(q.Message) != nil {
			return stun.CodeUnauthorized
		}
		q.key = s.key
		return 0
	}
	if q.key = q.relay.issuer.signed(q.Message, q.username); q.key == nil {
		return stun.CodeUnauthorized
	}
	if q.session != nil && q.Type.Method != stun.MethodAllocate {
		return stun.CodeWrongCredentials
	}
	return 0
}

// challenge asks for credentials, or for a newer nonce.
func (q *request) challenge(code stun.ErrorCode) {
	if !q.mayAnswer(q.relay.challenges) {
		return
	}
	q.refuse(code, stun.NewRealm(q.relay.issuer.realm), stun.NewNonce(q.relay.nonces.at(q.path.remote, uint32(time.Now().Unix()))))
}

// refuse answers with an error.
func (q *request) refuse(code stun.ErrorCode, with ...stun.Setter) {
	q.relay.count.answered(q.Type.Method, code)
	q.reply(stun.ClassErrorResponse, append([]stun.Setter{code}, with...)...)
}

// succeed answers that it was done.
func (q *request) succeed(with ...stun.Setter) {
	q.relay.count.answered(q.Type.Method, 0)
	q.reply(stun.ClassSuccessResponse, with...)
}

// reply sends an answer, signed if the client is known.
func (q *request) reply(class stun.MessageClass, with ...stun.Setter) {
	setters := append([]stun.Setter{stun.NewTransactionIDSetter(q.TransactionID), stun.NewType(q.Type.Method, class)}, with...)
	if q.key != nil {
		setters = append(setters, stun.MessageIntegrity(q.key))
	}
	if m, err := stun.Build(append(setters, stun.Fingerprint)...); err == nil {
		q.path.send(nil, m.Raw)
	}
}

// wish is what an Allocate request asks for.
type wish struct {
	families []int
	even     bool // EVEN-PORT
	reserve  bool // and the next port, too
	token    string
	user     string
}

// readWish reads it, and gives the code of the error if it makes no sense (RFC
// 8656, 7.2).
func (q *request) readWish() (w wish, code stun.ErrorCode) {
	transport, there, ok := attribute(q.Message, stun.AttrRequestedTransport, 4)
	even, evenThere, evenOK := attribute(q.Message, stun.AttrEvenPort, 1)
	token, tokenThere, tokenOK := attribute(q.Message, stun.AttrReservationToken, 8)
	family, familyThere, familyOK := attribute(q.Message, stun.AttrRequestedAddressFamily, 4)
	additional, additionalThere, additionalOK := attribute(q.Message, attrAdditionalAddressFamily, 4)
	if !additionalThere {
		additional, additionalThere, additionalOK = attribute(q.Message, attrAdditionalInDraft, 4)
	}
	w.families = []int{ipv4}
	switch {
	case !there || !ok || !evenOK || !tokenOK || !familyOK || !additionalOK:
		return w, stun.CodeBadRequest
	case transport[0] != protocolUDP:
		return w, stun.CodeUnsupportedTransProto
	case tokenThere && (evenThere || familyThere || additionalThere), familyThere && additionalThere:
		return w, stun.CodeBadRequest
	case additionalThere && (additional[0] != 2 || evenThere && even[0]&0x80 != 0):
		return w, stun.CodeBadRequest
	case additionalThere:
		w.families = []int{ipv4, ipv6}
	case familyThere && family[0] == 2:
		w.families = []int{ipv6}
	case familyThere && family[0] != 1:
		return w, stun.CodeAddrFamilyNotSupported
	}
	w.even, w.reserve = evenThere, evenThere && even[0]&0x80 != 0
	w.user, _, _ = parseUsername(q.username)
	if w.token = string(token); tokenThere {
		reserved, ok := q.relay.ports.reservedFamily(w.token)
		if !ok {
			return w, stun.CodeInsufficientCapacity
		}
		w.families = []int{reserved}
	}
	return w, 0
}

// lifetime is how long the client wants something to last, within bounds. 0 ends
// it; false is a request that makes no sense.
func (q *request) lifetime() (time.Duration, bool) {
	v, there, ok := attribute(q.Message, stun.AttrLifetime, 4)
	if !there || !ok {
		return defaultLifetime, ok
	}
	d := time.Duration(binary.BigEndian.Uint32(v)) * time.Second
	if d == 0 {
		return 0, true
	}
	return min(max(d, defaultLifetime), maxLifetime), true
}

// allocate gives the client a relayed address, or two.
func (q *request) allocate() {
	if s := q.session; s != nil {
		if s.asked == q.TransactionID { // the answer was lost
			q.succeed(s.answer...)
		} else {
			q.refuse(stun.CodeAllocMismatch)
		}
		return
	}
	w, code := q.readWish()
	life, ok := q.lifetime()
	switch {
	case code != 0:
		q.refuse(code)
		return
	case !ok:
		q.refuse(stun.CodeBadRequest)
		return
	case q.relay.isExpelled(w.user):
		q.refuse(stun.CodeForbidden)
		return
	case q.relay.draining.Load():
		q.refuse(stun.CodeInsufficientCapacity)
		return
	}
	s, answer, code := q.relay.open(q, w)
	if code != 0 {
		q.refuse(code)
		return
	}
	life = cmp.Or(life, defaultLifetime)
	s.asked = q.TransactionID
	s.answer = append(answer, seconds(life), address{stun.AttrXORMappedAddress, q.path.remote})
	q.relay.start(s, life)
	q.succeed(s.answer...)
}

// refresh lets a session last longer, or ends it.
func (q *request) refresh() {
	life, ok := q.lifetime()
	family, there, familyOK := attribute(q.Message, stun.AttrRequestedAddressFamily, 4)
	if !ok || !familyOK {
		q.refuse(stun.CodeBadRequest)
		return
	}
	s := q.session
	var one *leg // of two, if only that is meant
	if there {
		f, ok := map[byte]int{1: ipv4, 2: ipv6}[family[0]]
		if !ok || s.leg(f) == nil {
			q.refuse(stun.CodePeerAddrFamilyMismatch)
			return
		}
		if s.leg(1-f) != nil {
			one = s.leg(f)
		}
	}
	switch {
	case life > 0:
		s.expiry.Reset(life)
		for f := range s.legs {
			if s.leg(f) != nil {
				q.engine(f, stun.MethodRefresh) // its clock runs twice as long
			}
		}
	case one != nil:
		q.relay.endLeg(one)
	default:
		q.relay.end(s)
	}
	q.succeed(seconds(life))
}

// peersOf reads whom a request is about. The code is that of an error.
func (q *request) peersOf() ([]netip.AddrPort, stun.ErrorCode) {
	list, ok := peerAddresses(q.Message)
	if !ok {
		return nil, stun.CodeBadRequest
	}
	for _, p := range list {
		if !q.session.mayMeet(p.Addr()) {
			return nil, stun.CodeForbidden
		}
	}
	if slices.ContainsFunc(list, func(p netip.AddrPort) bool { return q.session.leg(familyOf(p.Addr())) == nil }) {
		return nil, stun.CodePeerAddrFamilyMismatch
	}
	return list, 0
}

// createPermission lets peers send to the client, all that are named or none.
func (q *request) createPermission() {
	list, code := q.peersOf()
	if code == 0 && !q.session.mayPermit(list) {
		code = stun.CodeInsufficientCapacity
	}
	for _, p := range list {
		if code == 0 {
			code = q.engine(familyOf(p.Addr()), stun.MethodCreatePermission, address{stun.AttrXORPeerAddress, p})
		}
	}
	if code != 0 {
		q.refuse(code)
		return
	}
	q.succeed()
}

// channelBind gives a peer a number, by which its data are marked.
func (q *request) channelBind() {
	list, code := q.peersOf()
	v, there, ok := attribute(q.Message, stun.AttrChannelNumber, 4)
	if code == 0 {
		switch {
		case !there || !ok || len(list) != 1 || v[0]&0xc0 != 0x40: // 0x4000 to 0x7fff, as in RFC 5766
			code = stun.CodeBadRequest
		case !q.session.mayBind(binary.BigEndian.Uint16(v), list[0]):
			code = stun.CodeBadRequest
		case !q.relay.mayReach(list[0]):
			code = stun.CodeForbidden
		case !q.session.mayPermit(list):
			code = stun.CodeInsufficientCapacity
		default:
			code = q.engine(familyOf(list[0].Addr()), stun.MethodChannelBind,
				stun.RawAttribute{Type: stun.AttrChannelNumber, Value: v}, address{stun.AttrXORPeerAddress, list[0]})
		}
	}
	if code != 0 {
		q.refuse(code)
		return
	}
	q.succeed()
}

// engine has the books of a family changed. The code is that of the error.
func (q *request) engine(family int, method stun.Method, with ...stun.Setter) stun.ErrorCode {
	return codeOf(q.relay.engines[family].do(q.session.number, method, nil, with...))
}

// codeOf is what a client is told of an error of the engine.
func codeOf(err error) stun.ErrorCode {
	var refused engineError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &refused):
		return stun.ErrorCode(refused)
	}
	return stun.CodeServerError
}
