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
	l      *Locker
	holder driver.Holder

	// prev and next are the Locker's list of live holds; its shard's mutex guards them.
	prev, next *Lease

	mu       sync.Mutex
	deadline time.Duration // on the Locker's clock; 0 for a session
	drift    float64       // the share of the ttl by which deadline is early; 0 for the default
	timer    *time.Timer   // ends the hold at the deadline, where the backend does not
	reason   Reason        // 0 while held
	cause    error         // what the backend said of the loss
	done     chan struct{} // made when somebody asks for it
	onEnd    map[*watch]struct{}

	ttl         time.Duration // as asked for; 0 for a session
	attempts    int           // the repeated ones; see again
	late        time.Duration // the smallest ttl of requests that may yet reach the store; 0 for none
	doubtful    bool          // an Extend's outcome is not known: the deadline may be earlier than the backend's
	unknown     bool          // an attempt's outcome is not known; belongs to the Lock call
	granted     bool          // false while the Lock call is still under way
	unconfirmed bool          // released, but the backend's answer never came
	swept       bool          // the rest of an expired hold has been given back
	announced   bool          // EventAcquired has been told
	ending      *Event        // the hold's end, which came before that
	extending   turn
	releasing   turn
}

// turn lets one operation at a time through. It allocates only when somebody has to
// wait, and whoever waits can give up. Lease.mu guards it.
type turn struct {
	taken bool
	left  chan struct{}
}

// take waits for the turn, with mu held before and after.
func (t *turn) take(ctx context.Context, mu *sync.Mutex) error {
	for t.taken {
		if t.left == nil {
			t.left = make(chan struct{})
		}
		left := t.left
		mu.Unlock()
		var err error
		select {
		case <-left:
		case <-ctx.Done():
			err = ctx.Err()
		}
		mu.Lock()
		if err != nil {
			return err
		}
	}
	t.taken = true
	return nil
}

func (t *turn) give() {
	t.taken = false
	if t.left != nil {
		close(t.left)
		t.left = nil
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
	return s.holder.Key
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
	return s.holder.Token
}

// Session says whether this is a session rather than a lease with a ttl.
func (s *Lease) Session() bool { return s != nil && s.holder.Session }

// Deadline is when the hold ends for this process, never later than for the backend
// (TTL-002). ok is false for a session, which has no deadline of its own.
func (s *Lease) Deadline() (deadline time.Time, ok bool) {
	if s == nil || s.l == nil || s.holder.Session {
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
	if s.done == nil {
		if s.reason != 0 {
			return closedChan
		}
		s.done = make(chan struct{})
	}
	return s.done
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
	w := &watch{cancelCause}
	if s.onEnd == nil {
		s.onEnd = make(map[*watch]struct{})
	}
	s.onEnd[w] = struct{}{}
	return ctx, func() {
		s.mu.Lock()
		delete(s.onEnd, w)
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
	if s.holder.Session {
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
		s.l.emit(ctx, Event{Kind: EventExtended, Key: s.holder.Key, Token: s.holder.Token, TTL: d, Err: err})
	}
	return err
}

func (s *Lease) extend(ctx context.Context, d time.Duration) error {
	const op = "extend"
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.extending.take(ctx, &s.mu); err != nil {
		return s.fail(op, Canceled, ctxError(ctx))
	}
	defer s.extending.give()
	if s.checkDeadline(); s.reason != 0 {
		return s.ended(op)
	}
	if !s.l.ops.enter() {
		return s.fail(op, Closed, nil)
	}
	defer s.l.ops.leave()

	sent := s.l.now()
	s.mu.Unlock()
	grant, err := s.l.backend.Extend(ctx, s.holder, d)
	s.mu.Lock()

	if err == nil && s.reason == 0 {
		s.doubtful = s.late > 0 && s.late < grant.TTL
		s.setDeadline(s.l.localDeadline(sent, s.believable(grant.TTL), s.drift))
		s.checkDeadline() // the answer may have taken longer than d
	}
	switch {
	case s.reason != 0:
		// The hold has ended meanwhile, and stays ended. What the backend may have been
		// given until a later deadline is given back rather than left to run out.
		if (err == nil || codeOf(err) == Unavailable) && s.reason != ReasonReleased && s.reason != ReasonClosed {
			s.l.abandon(s.holder, d)
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
			s.doubtful = true // the backend may not end it at the earlier time
			s.mayComeLate(d)
			s.setDeadline(min(s.deadline, s.l.localDeadline(sent, d, s.drift)))
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
	ctx, cancel := lasting(ctx)
	defer cancel()
	err, ended := s.unlock(ctx)
	if ended {
		s.tellRelease(ctx, ReasonReleased, err)
	}
	return err
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
	if err := s.releasing.take(ctx, &s.mu); err != nil {
		return s.fail(op, Unavailable, fmt.Errorf("another Unlock is still waiting for the backend: %w", ctxError(ctx))), false
	}
	defer s.releasing.give()

	s.checkDeadline()
	again := s.unconfirmed
	if s.reason != 0 && !again {
		if (s.reason == ReasonExpired && (s.doubtful || s.l.keepsTime(s)) || s.reason == ReasonUnreachable) && !s.swept {
			// This process stopped believing in the hold before the backend did (the
			// drift allowance): give back what is left. The answer changes nothing.
			s.swept = true
			s.l.abandon(s.holder, 0)
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

	switch {
	case err == nil:
		s.unconfirmed = false
		return nil, !again
	case errors.Is(err, driver.ErrLost):
		s.unconfirmed = false
		if again && (s.holder.Session || s.l.now() < s.deadline) {
			return nil, false // the earlier call's release, whose answer was lost, did it
		}
		return &Error{Op: op, Key: s.holder.Key, Backend: s.l.caps.Name, Code: Lost, Reason: reasonOf(err), Err: err}, !again
	default:
		code := codeOf(err)
		if code == Unavailable {
			err = withContext(ctx, err)
		}
		if !again {
			s.unconfirmed = true
			s.l.abandon(s.holder, s.left())
		}
		return s.fail(op, code, err), !again
	}
}

// listener is the side of a Lease that the backend sees.
type listener Lease

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
	s.attempts++
	s.reason, s.cause = 0, nil
	return &repeat{s, s.attempts}
}

func (s *Lease) lost(attempt int, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason == 0 && s.attempts == attempt {
		s.end(reasonOf(cause), cause)
	}
}

// The functions below are called with mu held.

// checkDeadline ends a hold whose time is up, whether or not a timer has noticed.
func (s *Lease) checkDeadline() {
	if s.reason == 0 && s.granted && !s.holder.Session && s.l.now() >= s.deadline {
		s.end(ReasonExpired, nil)
	}
}

// end is the one place where a hold ends.
func (s *Lease) end(r Reason, cause error) {
	s.reason, s.cause = r, cause
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.done != nil {
		close(s.done)
	}
	if len(s.onEnd) > 0 {
		err := s.ended("hold")
		for w := range s.onEnd {
			w.cancel(err)
		}
		s.onEnd = nil
	}
	if s.granted {
		s.l.live.remove(s)
		if r != ReasonReleased && r != ReasonClosed {
			s.tellLoss()
		}
	}
}

func (s *Lease) tellLoss() {
	if !s.l.observed() {
		return
	}
	e := Event{Kind: EventLost, Key: s.holder.Key, Token: s.holder.Token, Session: s.holder.Session,
		Reason: s.reason, Err: s.ended("hold")}
	if s.announced {
		s.l.emitLost(e)
	} else {
		s.ending = &e
	}
}

// tellRelease emits EventReleased, with mu not held.
func (s *Lease) tellRelease(ctx context.Context, r Reason, err error) {
	if !s.l.observed() {
		return
	}
	e := Event{Kind: EventReleased, Key: s.holder.Key, Token: s.holder.Token, Session: s.holder.Session, Reason: r, Err: err}
	s.mu.Lock()
	first := !s.announced
	if first {
		s.ending = &e
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
	if s.ending != nil {
		s.l.emitLost(*s.ending)
		s.ending = nil
	}
}

func (s *Lease) ended(op string) error {
	e := endings[s.reason]
	err := e.err
	switch {
	case s.cause == nil || s.reason == ReasonExpired:
	case s.reason == ReasonUnreachable:
		// Not ErrUnavailable, which would say that the hold goes on (ERR-002).
		err = fmt.Errorf("%w: %v", err, s.cause)
	default:
		err = s.cause
	}
	return &Error{Op: op, Key: s.holder.Key, Backend: s.l.caps.Name, Code: e.code, Reason: s.reason, Err: err}
}

func (s *Lease) fail(op string, code Code, err error) error {
	return &Error{Op: op, Key: s.holder.Key, Backend: s.l.caps.Name, Code: code, Err: err}
}

func (s *Lease) setDeadline(d time.Duration) {
	s.deadline = d
	if s.doubtful || s.l.keepsTime(s) {
		if left := d - s.l.now(); s.timer == nil {
			s.timer = time.AfterFunc(left, s.onTimer)
		} else {
			s.timer.Reset(left)
		}
	}
}

func (s *Lease) onTimer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkDeadline() // not yet, if an Extend came between
}

// longest is how long the backend may hold the key after a grant.
func (s *Lease) longest() time.Duration {
	if s.holder.Session {
		return s.l.caps.SessionValidity
	}
	return s.ttl
}

// mayComeLate notes a request whose outcome is unknown. What a client wrote on a connection
// that then broke can reach the store after what it sent on the next one, and would then
// make the hold end ttl from that moment.
func (s *Lease) mayComeLate(ttl time.Duration) {
	if s.late == 0 || ttl < s.late {
		s.late = ttl
	}
}

// believable is how much of a granted ttl may be believed in: no more than what a late
// request would leave of it, at whatever moment it came.
func (s *Lease) believable(ttl time.Duration) time.Duration {
	if s.late > 0 {
		return min(ttl, s.late)
	}
	return ttl
}

// left is how long the backend may still hold the key for us.
func (s *Lease) left() time.Duration {
	if s.holder.Session {
		return s.l.caps.SessionValidity
	}
	return s.deadline - s.l.now()
}

func errNotALease(op string) error {
	return &Error{Op: op, Code: InvalidArgument, Err: errors.New("this Lease is nil or was not made by a Locker")}
}

var errNilContext = errors.New("ctx is nil; pass context.Background()")
