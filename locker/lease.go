package locker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Lease is one hold: a lease, which ends at its ttl unless it is extended, or a
// session, which lasts until it is unlocked. All methods may be called by any
// number of goroutines at the same time.
//
// A Lease is a promise with an end, and a process can sleep through that end. What
// must not be done twice needs the [Lease.Token]: see the package comment.
type Lease struct {
	_ [0]func() // cannot be compared, only its address can

	// A program may hold millions of these, and makes one in each Lock: what few of them
	// need is in extra.
	l     *Locker
	key   string
	token uint64
	seq   uint64 // of the owner
	ref   uint64 // the backend's

	mu sync.Mutex
	// deadline is on the Locker's clock. Until the grant it is the ttl that is asked for.
	// 0 for a session.
	deadline  time.Duration
	extra     *extra // nil until needed
	reason    Reason // 0 while held
	session   bool
	granted   bool // false while the Lock call is still under way
	unknown   bool // an attempt's outcome is not known; belongs to the Lock call
	announced bool // EventAcquired has been told
	extending turn
	releasing turn
}

// extra is what few leases in one process need, and most of those in a store elsewhere.
type extra struct {
	// prev and next are the Locker's list of live holds; its shard's mutex guards them.
	prev, next *Lease

	drift float64     // the share of the ttl by which deadline is early; 0 for the default
	timer *time.Timer // ends the hold at the deadline, where the backend does not
	cause error       // what the backend said of the loss
	done  chan struct{}
	onEnd map[*watch]struct{}

	attempts    int           // the repeated ones; see again
	late        time.Duration // the smallest ttl of requests that may yet reach the store; 0 for none
	doubtful    bool          // an Extend's outcome is not known: the deadline may be earlier than the backend's
	unconfirmed bool          // released, but the backend's answer never came
	swept       bool          // the rest of an expired hold has been given back
	ending      *Event        // the hold's end, which came before EventAcquired was told
	turned      chan struct{} // closed when a turn has been given back
}

// nothing is the extra of a lease that has none, to be read only.
var nothing extra

// seldom is s.extra to read.
func (s *Lease) seldom() *extra {
	if s.extra == nil {
		return &nothing
	}
	return s.extra
}

// own is s.extra to write.
func (s *Lease) own() *extra {
	if s.extra == nil {
		s.extra = new(extra)
	}
	return s.extra
}

func (s *Lease) holder() driver.Holder {
	return driver.Holder{
		Key: s.key, Owner: s.owner(), Token: s.token, Ref: s.ref, Session: s.session,
	}
}

func (s *Lease) owner() driver.Owner { return driver.Owner{Instance: s.l.instance, Seq: s.seq} }

// turn says whether an operation that goes one at a time is under way. Lease.mu guards it.
type turn bool

// take waits for the turn t of s, with mu held before and after. It allocates only when it
// has to wait, and whoever waits can give up.
func (s *Lease) take(ctx context.Context, t *turn) error {
	for *t {
		x := s.own()
		if x.turned == nil {
			x.turned = make(chan struct{})
		}
		turned := x.turned
		s.mu.Unlock()
		var err error
		select {
		case <-turned:
		case <-ctx.Done():
			err = ctx.Err()
		}
		s.mu.Lock()
		if err != nil {
			return err
		}
	}
	*t = true
	return nil
}

func (s *Lease) give(t *turn) {
	*t = false
	if x := s.extra; x != nil && x.turned != nil {
		close(x.turned)
		x.turned = nil
	}
}

// closedChan is what Done returns when nobody asked before the end.
var closedChan = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Key is the whole key that is held, with its namespace.
func (s *Lease) Key() string {
	if s == nil {
		return ""
	}
	return s.key
}

// Token is the fencing token: greater than that of every earlier hold of this key
// (TOK-001), the same for the whole hold (TOK-002), at most 2^53 (TOK-003). Pass it
// with every write to the store that the lock protects, and let the store refuse a
// token smaller than the greatest that it has seen.
//
// See Martin Kleppmann, "How to do distributed locking" (2016).
func (s *Lease) Token() uint64 {
	if s == nil {
		return 0
	}
	return s.token
}

// Session says whether this is a session rather than a lease with a ttl.
func (s *Lease) Session() bool { return s != nil && s.session }

// Deadline is when the hold ends for this process, never later than for the backend
// (TTL-002). ok is false for a session, which has no deadline of its own.
func (s *Lease) Deadline() (deadline time.Time, ok bool) {
	if s == nil || s.l == nil || s.session {
		return time.Time{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.l.epoch.Add(s.deadline), true
}

// Done is closed when the hold has ended, for whatever reason, and no later than
// the deadline (LOSS-001). Err then says why.
func (s *Lease) Done() <-chan struct{} {
	if s == nil || s.l == nil {
		return closedChan
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkDeadline()
	if s.seldom().done == nil {
		if s.reason != 0 {
			return closedChan
		}
		s.own().done = make(chan struct{})
	}
	return s.extra.done
}

// Err is nil while the hold lasts, and afterwards an *Error whose Reason says why it
// ended (LOSS-002) and which matches ErrLost, ErrReleased or ErrClosed. It looks at
// the clock itself, so that for a lease it is right even in a process that has just woken
// up; for a session it waits for the backend's timer, which is then due.
func (s *Lease) Err() error {
	if s == nil || s.l == nil {
		return errNotALease("hold")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkDeadline()
	if s.reason == 0 {
		return nil
	}
	return s.ended("hold")
}

// Context derives a ctx from parent that ends with the hold too, with Err as its
// context.Cause (LOSS-004). FromContext finds the Lease in it. Call cancel when the
// ctx is not needed any more; it does not unlock. From a nil parent, or a Lease that no
// Locker made, comes a ctx that has ended already, with ErrInvalidArgument as its cause.
func (s *Lease) Context(parent context.Context) (ctx context.Context, cancel context.CancelFunc) {
	var invalid error
	switch {
	case s == nil || s.l == nil:
		invalid = errNotALease("hold")
	case parent == nil:
		invalid = s.fail("hold", InvalidArgument, errNilContext)
	}
	if parent == nil {
		parent = context.Background()
	}
	if invalid != nil {
		ctx, cancelCause := context.WithCancelCause(parent)
		cancelCause(invalid)
		return ctx, func() {}
	}
	ctx, cancelCause := context.WithCancelCause(context.WithValue(parent, leaseKey{}, s))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkDeadline()
	if s.reason != 0 {
		cancelCause(s.ended("hold"))
		return ctx, func() {}
	}
	w, x := &watch{cancelCause}, s.own()
	if x.onEnd == nil {
		x.onEnd = make(map[*watch]struct{})
	}
	x.onEnd[w] = struct{}{}
	return ctx, func() {
		s.mu.Lock()
		delete(x.onEnd, w)
		s.mu.Unlock()
		cancelCause(context.Canceled)
	}
}

type watch struct{ cancel context.CancelCauseFunc }

type leaseKey struct{}

// FromContext finds the Lease whose Context (or Do, or Call) made ctx; of several, the
// innermost.
func FromContext(ctx context.Context) (*Lease, bool) {
	if ctx == nil {
		return nil, false
	}
	s, ok := ctx.Value(leaseKey{}).(*Lease)
	return s, ok
}

// Extend makes the lease end d from now: it never adds, and may shorten (EXT-001).
// Below 1 ms it is rounded up.
//
// An error that matches ErrLost or ErrReleased means that the hold has ended; it is
// never brought back (EXT-002). ErrUnavailable means that the outcome is unknown:
// the lease goes on until the earlier of the two deadlines (EXT-003), and Extend may
// be called again; but from then on this hold is believed in for no longer at a time than
// the request that was lost asked for, because it may still arrive. A session has nothing to extend: ErrUnsupported (EXT-004). A d that
// is not a ttl is ErrInvalidTTL, and after a ctx that has ended already nothing is sent.
func (s *Lease) Extend(ctx context.Context, d time.Duration) error {
	const op = "extend"
	if s == nil || s.l == nil {
		return errNotALease(op)
	}
	if ctx == nil {
		return s.fail(op, InvalidArgument, errNilContext)
	}
	if s.session {
		return s.fail(op, Unsupported, errors.New("a session has no ttl to extend"))
	}
	if err := checkTTL(d); err != nil {
		return s.fail(op, InvalidTTL, err)
	}
	d = roundTTL(d)
	if err := ctx.Err(); err != nil {
		return s.fail(op, Canceled, ctxError(ctx))
	}
	err := s.extend(ctx, d)
	if s.l.observed() {
		s.l.emit(ctx, Event{Kind: EventExtended, Key: s.key, Token: s.token, TTL: d, Err: err})
	}
	return err
}

func (s *Lease) extend(ctx context.Context, d time.Duration) error {
	const op = "extend"
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.take(ctx, &s.extending); err != nil {
		return s.fail(op, Canceled, ctxError(ctx))
	}
	defer s.give(&s.extending)
	if s.checkDeadline(); s.reason != 0 {
		return s.ended(op)
	}
	if !s.l.ops.enter() {
		return s.fail(op, Closed, nil)
	}
	defer s.l.ops.leave()

	sent := s.l.now()
	s.mu.Unlock()
	grant, err := s.l.backend.Extend(ctx, s.holder(), d)
	s.mu.Lock()

	if err == nil && s.reason == 0 {
		if late := s.seldom().late; late > 0 {
			s.extra.doubtful = late < grant.TTL
		}
		s.setDeadline(s.l.localDeadline(sent, s.believable(grant.TTL), s.seldom().drift))
		s.checkDeadline() // the answer may have taken longer than d
	}
	if err != nil && codeOf(err) == Unavailable {
		// Also of a hold that has ended meanwhile: its Unlock may be about to pass it on.
		s.own().doubtful = true // the backend may not end it at the earlier time
		s.mayComeLate(d)
	}
	switch {
	case s.reason != 0:
		// The hold has ended meanwhile, and stays ended. What the backend may have been
		// given until a later deadline is given back rather than left to run out.
		if (err == nil || codeOf(err) == Unavailable) && s.reason != ReasonReleased && s.reason != ReasonClosed {
			s.l.abandon(s.holder(), d)
		}
		return s.ended(op)
	case err == nil:
		return nil
	case errors.Is(err, driver.ErrLost):
		s.end(reasonOf(err), err)
		return s.ended(op)
	default:
		code := codeOf(err)
		if code == Unavailable {
			s.setDeadline(min(s.deadline, s.l.localDeadline(sent, d, s.seldom().drift)))
			err = withContext(ctx, err)
		}
		return s.fail(op, code, err)
	}
}

// Unlock ends the hold and frees the key at once (REL-001). From the first call on
// the hold has ended for this process: Done is closed before the backend is told.
//
//   - nil: the release is confirmed. Of many concurrent calls exactly one gets it.
//   - ErrLost: the hold had ended before; the next holder is untouched (REL-002).
//   - ErrReleased: an earlier Unlock did it; nothing was sent (REL-003).
//   - ErrClosed: Close of the Locker did it.
//   - ErrUnavailable: the backend's answer did not come. The release is tried again in
//     the background, and Unlock may be called again (REL-005).
//
// A ctx that has ended already does not keep Unlock from releasing (REL-004): it then
// takes its own, bounded time, so that `defer lease.Unlock(ctx)` is right.
func (s *Lease) Unlock(ctx context.Context) error {
	const op = "unlock"
	if s == nil || s.l == nil {
		return errNotALease(op)
	}
	if ctx == nil {
		return s.fail(op, InvalidArgument, errNilContext)
	}
	if s.l.local != nil {
		if err, ended := s.unlockHere(ctx); ended {
			s.tellRelease(ctx, ReasonReleased, err)
			return err
		}
	}
	ctx, cancel := lasting(ctx)
	defer cancel()
	err, ended := s.unlock(ctx)
	if ended {
		s.tellRelease(ctx, ReasonReleased, err)
	}
	return err
}

// unlockHere is unlock for a live hold of a backend in this process, whose Release takes no
// time: nobody has to be kept waiting for its answer. It does nothing, and ended is
// false, for a hold that has ended already.
func (s *Lease) unlockHere(ctx context.Context) (err error, ended bool) {
	// As in attemptHere, before the clock is read.
	h := driver.Holder{Key: s.key, Token: s.token, Ref: s.ref, Session: s.session}
	h.Owner.Instance, h.Owner.Seq = s.l.instance, s.seq
	if !s.session {
		h.At = s.l.now()
	}
	s.mu.Lock()
	if s.checkDeadlineAt(h.At); s.reason != 0 {
		s.mu.Unlock()
		return nil, false
	}
	s.end(ReasonReleased, nil)
	s.mu.Unlock()
	if ctx.Err() != nil { // as it has now, if it is of this hold's Context
		ctx = context.WithoutCancel(ctx) // without a bound: it takes no time (REL-004)
	}
	err = s.l.backend.Release(ctx, h)
	if err == nil || errors.Is(err, driver.ErrClosed) {
		return nil, true // with Close the backend has freed everything
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answered(ctx, err, false), true
}

// lasting is ctx or, if that has ended, one that lasts for releaseTimeout.
func lasting(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() == nil {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
}

// unlock reports whether this call is the one that ended the hold.
func (s *Lease) unlock(ctx context.Context) (err error, ended bool) {
	const op = "unlock"
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.take(ctx, &s.releasing); err != nil {
		return s.fail(op, Unavailable, fmt.Errorf("another Unlock is still waiting for the backend: %w", ctxError(ctx))), false
	}
	defer s.give(&s.releasing)

	s.checkDeadline()
	again := s.seldom().unconfirmed
	if s.reason != 0 && !again {
		x := s.seldom()
		if (s.reason == ReasonExpired && (x.doubtful || s.l.keepsTime(s)) || s.reason == ReasonUnreachable) && !x.swept {
			// This process stopped believing in the hold before the backend did (the
			// drift allowance): give back what is left. The answer changes nothing.
			s.own().swept = true
			s.l.abandon(s.holder(), 0)
		}
		return s.ended(op), false
	}
	if !s.l.ops.enter() {
		return s.fail(op, Closed, nil), false
	}
	defer s.l.ops.leave()
	if !again {
		s.end(ReasonReleased, nil)
	}
	ctx, cancel := lasting(ctx) // a ctx of this hold's Context has just ended
	defer cancel()

	s.mu.Unlock()
	err = s.l.release(ctx, s, !again)
	s.mu.Lock()

	return s.answered(ctx, err, again), !again
}

// answered is what Unlock makes of the backend's answer err, with mu held. again says that
// it was not the first request.
func (s *Lease) answered(ctx context.Context, err error, again bool) error {
	const op = "unlock"
	switch {
	case err == nil:
		if again {
			s.extra.unconfirmed = false
		}
		return nil
	case errors.Is(err, driver.ErrLost):
		if again {
			s.extra.unconfirmed = false
			if s.session || s.l.now() < s.deadline {
				return nil // the earlier call's release, whose answer was lost, did it
			}
		}
		return &Error{Op: op, Key: s.key, Backend: s.l.caps.Name, Code: Lost, Reason: reasonOf(err), Err: err}
	default:
		code := codeOf(err)
		if code == Unavailable {
			err = withContext(ctx, err)
		}
		if !again {
			s.own().unconfirmed = true
			s.l.abandon(s.holder(), s.left())
		}
		return s.fail(op, code, err)
	}
}

// listener is the side of a Lease that the backend sees.
type listener Lease

// holdsOf finds the leases behind their listeners, for Close. It ends those that a wrapper
// has put a Listener of its own before: what they hold, the backend's Close frees.
func holdsOf(listeners []driver.Listener) []*Lease {
	holds := make([]*Lease, 0, len(listeners))
	for _, n := range listeners {
		switch n := n.(type) {
		case *listener:
			holds = append(holds, (*Lease)(n))
		case *repeat:
			holds = append(holds, n.s)
		default:
			n.Lost(driver.ErrClosed)
		}
	}
	return holds
}

// Lost implements driver.Listener.
func (n *listener) Lost(cause error) { (*Lease)(n).lost(0, cause) }

// repeat is the listener of a repeated attempt, and n says of which.
type repeat struct {
	s *Lease
	n int
}

func (r *repeat) Lost(cause error) { r.s.lost(r.n, cause) }

// again begins a repeated attempt. What the earlier one may have been granted may have
// ended since, or may be about to be reported as ended: that says nothing of what this
// one is granted.
func (s *Lease) again() driver.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.own()
	x.attempts++
	s.reason, x.cause = 0, nil
	return &repeat{s, x.attempts}
}

func (s *Lease) lost(attempt int, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason == 0 && s.seldom().attempts == attempt {
		s.end(reasonOf(cause), cause)
	}
}

// refused notes that an attempt was answered with err.
func (s *Lease) refused(err error) error {
	if codeOf(err) == Unavailable {
		s.unknown = true
		if !s.session {
			s.mu.Lock()
			s.mayComeLate(s.asked())
			s.mu.Unlock()
		}
	}
	return err
}

// The functions below are called with mu held.

// checkDeadline ends a hold whose time is up, whether or not a timer has noticed.
func (s *Lease) checkDeadline() {
	if s.reason == 0 && !s.session {
		s.checkDeadlineAt(s.l.now())
	}
}

func (s *Lease) checkDeadlineAt(now time.Duration) {
	if s.reason == 0 && s.granted && !s.session && now >= s.deadline {
		s.end(ReasonExpired, nil)
	}
}

// end is the one place where a hold ends.
func (s *Lease) end(r Reason, cause error) {
	s.reason = r
	if cause != nil && r != ReasonExpired {
		s.own().cause = cause
	}
	if x := s.extra; x != nil {
		if x.timer != nil {
			x.timer.Stop()
		}
		if x.done != nil {
			close(x.done)
		}
		if len(x.onEnd) > 0 {
			err := s.ended("hold")
			for w := range x.onEnd {
				w.cancel(err)
			}
			x.onEnd = nil
		}
	}
	if s.granted {
		if s.l.local == nil {
			s.l.live.remove(s)
		}
		if r != ReasonReleased && r != ReasonClosed {
			s.tellLoss()
		}
	}
}

func (s *Lease) tellLoss() {
	if !s.l.observed() {
		return
	}
	e := Event{Kind: EventLost, Key: s.key, Token: s.token, Session: s.session,
		Reason: s.reason, Err: s.ended("hold")}
	if s.announced {
		s.l.emitLost(e)
	} else {
		s.own().ending = &e
	}
}

// tellRelease emits EventReleased, with mu not held.
func (s *Lease) tellRelease(ctx context.Context, r Reason, err error) {
	if !s.l.observed() {
		return
	}
	e := Event{Kind: EventReleased, Key: s.key, Token: s.token, Session: s.session, Reason: r, Err: err}
	s.mu.Lock()
	first := !s.announced
	if first {
		s.own().ending = &e
	}
	s.mu.Unlock()
	if !first {
		s.l.emit(ctx, e)
	}
}

// told makes up for an end that came before EventAcquired was told, so that the two
// are told in order.
func (s *Lease) told() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.announced = true
	if x := s.extra; x != nil && x.ending != nil {
		s.l.emitLost(*x.ending)
		x.ending = nil
	}
}

func (s *Lease) ended(op string) error {
	e := endings[s.reason]
	err, cause := e.err, s.seldom().cause
	switch {
	case cause == nil:
	case s.reason == ReasonUnreachable:
		// Not ErrUnavailable, which would say that the hold goes on (ERR-002).
		err = fmt.Errorf("%w: %v", err, cause)
	default:
		err = cause
	}
	return &Error{Op: op, Key: s.key, Backend: s.l.caps.Name, Code: e.code, Reason: s.reason, Err: err}
}

func (s *Lease) fail(op string, code Code, err error) error {
	return &Error{Op: op, Key: s.key, Backend: s.l.caps.Name, Code: code, Err: err}
}

// setDeadline does nothing for a session, which has none.
func (s *Lease) setDeadline(d time.Duration) {
	if s.session {
		return
	}
	s.deadline = d
	if s.extra == nil {
		return // the backend keeps the time
	}
	if s.extra.doubtful || s.l.keepsTime(s) {
		if left, x := d-s.l.now(), s.extra; x.timer == nil {
			x.timer = time.AfterFunc(left, s.onTimer)
		} else {
			x.timer.Reset(left)
		}
	}
}

func (s *Lease) onTimer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkDeadline() // not yet, if an Extend came between
}

// asked is the ttl of a Lock that is still under way; 0 for a session.
func (s *Lease) asked() time.Duration { return s.deadline }

// longest is how long the backend may hold the key after a grant to that Lock.
func (s *Lease) longest() time.Duration {
	if s.session {
		return s.l.caps.SessionValidity
	}
	return s.asked()
}

// mayComeLate notes a request whose outcome is unknown. What a client wrote on a connection
// that then broke can reach the store after what it sent on the next one, and would then
// make the hold end ttl from that moment.
func (s *Lease) mayComeLate(ttl time.Duration) {
	if x := s.own(); x.late == 0 || ttl < x.late {
		x.late = ttl
	}
}

// believable is how much of a granted ttl may be believed in: no more than what a late
// request would leave of it, at whatever moment it came.
func (s *Lease) believable(ttl time.Duration) time.Duration {
	if late := s.seldom().late; late > 0 {
		return min(ttl, late)
	}
	return ttl
}

// left is how long the backend may still hold the key for us.
func (s *Lease) left() time.Duration {
	if s.session {
		return s.l.caps.SessionValidity
	}
	return s.deadline - s.l.now()
}

func errNotALease(op string) error {
	return &Error{Op: op, Code: InvalidArgument, Err: errors.New("this Lease is nil or was not made by a Locker")}
}

var errNilContext = errors.New("ctx is nil; pass context.Background()")
