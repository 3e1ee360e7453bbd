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
// session, which lasts until it is unlocked. Its methods are safe for concurrent use.
//
// A hold can end at any time, and a process can be stopped while it does. What must not
// happen twice needs the [Lease.Token]: see the package comment.
type Lease struct {
	_ [0]func() // cannot be compared, only its address can

	// A program may hold millions of these, and makes one in each Lock: what few of them
	// need is in extra.
	l        *core
	key      string
	token    uint64
	seq      uint64        // of the owner
	where    uint64        // of a hold in this process: where the backend finds it
	mu       sync.Mutex    // for what is below
	deadline time.Duration // on the Locker's clock, from the grant on; not of a session
	extra    *extra        // nil until needed

	phase     phase
	reason    Reason // why it ended
	session   bool
	announced bool // EventAcquired has been told
	extending bool // one Extend goes on at a time
}

// waitLocked waits while busy says so. It allocates only when it has to wait, and the caller
// can give up.
func (s *Lease) waitLocked(ctx context.Context, busy func() bool) error {
	for busy() {
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
	return nil
}

// turnLocked wakes those in waitLocked.
func (s *Lease) turnLocked() {
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

// Key returns the key that is held, with its namespace.
func (s *Lease) Key() string {
	if s == nil {
		return ""
	}
	return s.key
}

// Token returns the fencing token: greater than that of every earlier hold of this key
// (TOK-001), the same for the whole hold (TOK-002), at most 2^53 (TOK-003). Pass it
// with every write to the store that the lock protects, and have the store refuse a
// token smaller than the greatest that it has seen.
//
// See Martin Kleppmann, "How to do distributed locking" (2016).
func (s *Lease) Token() uint64 {
	if s == nil {
		return 0
	}
	return s.token
}

// Session reports whether this is a session rather than a lease with a ttl.
func (s *Lease) Session() bool { return s != nil && s.session }

// Deadline returns when the hold ends for this process unless it is extended: never later than
// for the backend (TTL-002). ok is false for a session, which has no deadline.
func (s *Lease) Deadline() (deadline time.Time, ok bool) {
	if s == nil || s.l == nil || s.session {
		return time.Time{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.l.epoch.Add(s.deadline), true
}

// Done returns a channel that is closed when the hold has ended, for whatever reason, and no
// later than at the deadline (LOSS-001). Err then says why.
func (s *Lease) Done() <-chan struct{} {
	if s == nil || s.l == nil {
		return closedChan
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkDeadlineLocked()
	if s.seldom().done == nil {
		if s.reason != noReason {
			return closedChan
		}
		s.own().done = make(chan struct{})
	}
	return s.extra.done
}

// Err returns nil while the hold lasts, and afterwards an *Error that matches ErrLost,
// ErrReleased or ErrClosed; its Reason says why the hold ended (LOSS-002). Err looks at the
// clock, so that it is right even in a process that has just been resumed. A Done channel or a
// ctx that was taken before follows a moment later, with the timer that is due.
func (s *Lease) Err() error {
	if s == nil || s.l == nil {
		return errNotALease("hold")
	}
	cause := s.sessionErr()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkDeadlineLocked()
	if cause != nil {
		s.lostLocked(cause)
	}
	if s.reason == noReason {
		return nil
	}
	return s.endedLocked("hold")
}

// sessionErr asks the backend's own clock about a session. mu is not held: a backend calls
// Listener.Lost, which takes it, under mutexes of its own.
func (s *Lease) sessionErr() error {
	if !s.session || s.l.clock == nil {
		return nil
	}
	return s.l.clock.SessionErr(s.holder())
}

// Context returns a ctx that ends with parent or with the hold, whichever is first; its
// context.Cause is then Err (LOSS-004). FromContext finds the Lease in it. Call cancel when the
// ctx is no longer needed; it does not unlock. If parent is nil, or no Locker made this
// Lease, the ctx has ended already, with ErrInvalidArgument as its cause.
func (s *Lease) Context(parent context.Context) (ctx context.Context, cancel context.CancelFunc) {
	var invalid error
	switch {
	case s == nil || s.l == nil:
		invalid = errNotALease("hold")
	case parent == nil:
		invalid = s.fail("hold", CodeInvalidArgument, errNilContext)
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
	s.checkDeadlineLocked()
	if s.reason != noReason {
		cancelCause(s.endedLocked("hold"))
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

// FromContext returns the Lease whose Context, or Do or Call, made ctx; of several, the
// innermost.
func FromContext(ctx context.Context) (*Lease, bool) {
	if ctx == nil {
		return nil, false
	}
	s, ok := ctx.Value(leaseKey{}).(*Lease)
	return s, ok
}

// Extend makes the lease end d from now. It does not add to what remains, and it may shorten it
// (EXT-001). d is rounded up to whole milliseconds.
//
//   - ErrLost, ErrReleased, ErrClosed: the hold has ended, and stays ended (EXT-002).
//   - ErrUnavailable: the backend did not answer, or refused. After a refusal nothing has
//     changed. Without an answer the outcome is unknown, and the lease goes on until the
//     earlier of the two deadlines (EXT-003). Extend may be called again, but from then on the
//     local deadline is capped at the lost request's d, because that request may still arrive.
//   - ErrUnsupported: this is a session, which has no ttl (EXT-004).
//   - ErrInvalidTTL: d is zero, negative, above MaxTTL, or shorter than the backend can keep
//     (Capabilities.MinTTL).
//
// If ctx has ended already, nothing is sent.
func (s *Lease) Extend(ctx context.Context, d time.Duration) error {
	d, err := s.checkExtend(ctx, "extend", d)
	if err != nil {
		return err
	}
	return s.extendTo(ctx, d)
}

// extendTo is Extend for a d that is a ttl of the backend.
func (s *Lease) extendTo(ctx context.Context, d time.Duration) error {
	err := s.extend(ctx, "extend", d)
	if s.l.observed() {
		s.l.emit(ctx, Event{Kind: EventExtended, Key: s.key, Label: s.seldom().label, Token: s.token, TTL: d, Err: err})
	}
	return err
}

// extend makes the lease end d from now. opLeave then ends it here.
func (s *Lease) extend(ctx context.Context, op string, d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.waitLocked(ctx, func() bool { return s.extending }); err != nil {
		return s.fail(op, CodeCanceled, ctxError(ctx))
	}
	if s.checkDeadlineLocked(); s.reason != noReason {
		return s.endedLocked(op)
	}
	if !s.l.ops.enter() {
		return s.fail(op, CodeClosed, nil)
	}
	defer s.l.ops.leave()
	s.extending = true
	defer func() {
		s.extending = false
		s.turnLocked()
	}()

	sent := s.l.now()
	s.mu.Unlock()
	var grant driver.Grant
	var err error
	if op == opLeave && s.l.leaver != nil {
		grant, err = s.l.leaver.Leave(ctx, s.holder(), d)
	} else {
		grant, err = s.l.backend.Extend(ctx, s.holder(), d)
	}
	s.mu.Lock()

	if err == nil && s.reason == noReason {
		if late := s.seldom().late; late > 0 {
			s.extra.doubtful = late < grant.TTL
		}
		s.setDeadlineLocked(s.l.localDeadline(sent, s.consideredLocked(grant.TTL), s.seldom().drift))
		s.checkDeadlineLocked() // the answer may have taken longer than d
		if op == opLeave && s.reason == noReason {
			s.endLocked(ReasonLeft, nil)
			return nil
		}
		if k := s.seldom().kept; k != nil && s.reason == noReason {
			s.l.keeper.plan(k, s.dueLocked(k)) // the new end may be an earlier one
		}
	}
	return s.extendedLocked(ctx, op, sent, d, err)
}

// extendedLocked is the outcome of an Extend to d that was sent then, and answered with err.
func (s *Lease) extendedLocked(ctx context.Context, op string, sent, d time.Duration, err error) error {
	unknown := unknownOutcome(err)
	if unknown {
		// Also of a hold that has ended meanwhile: its Unlock may be about to hand it off.
		s.own().doubtful = true // the backend may not end it at the earlier time
		s.mayComeLateLocked(d)
	}
	switch {
	case s.reason != noReason:
		// The hold has ended meanwhile, and stays ended. What the backend may have been
		// given until a later deadline is given back rather than left to run out.
		if (err == nil || unknown) && !s.reason.chosen() && !s.runsOut() {
			s.l.abandon(s.holder(), max(d, s.leftLocked()))
		}
		return s.endedLocked(op)
	case err == nil:
		return nil
	case errors.Is(err, driver.ErrLost):
		s.endLocked(reasonOf(err), err)
		return s.endedLocked(op)
	}
	if unknown {
		s.setDeadlineLocked(min(s.deadline, s.l.localDeadline(sent, d, s.seldom().drift)))
	}
	code := codeOf(err)
	if code == CodeUnavailable {
		err = withContext(ctx, err)
	}
	return s.fail(op, code, err)
}

// Unlock ends the hold and frees the key at once (REL-001). The hold has ended for this
// process from the first call on: Done is closed before the backend is told.
//
//   - nil: the release is confirmed. Of many concurrent calls exactly one returns it.
//   - ErrLost: the hold had ended before; the next holder is unaffected (REL-002).
//   - ErrReleased: an earlier Unlock released it; nothing was sent (REL-003).
//   - ErrClosed: Close of the Locker ended the hold.
//   - ErrUnavailable: the backend did not answer, or refused. The release is repeated in
//     the background, and Unlock may be called again (REL-005).
//
// Unlock releases even if ctx has ended (REL-004), within a time of its own (5 s), so
// that `defer lease.Unlock(ctx)` is right.
func (s *Lease) Unlock(ctx context.Context) error {
	const op = "unlock"
	if s == nil || s.l == nil {
		return errNotALease(op)
	}
	if ctx == nil {
		return s.fail(op, CodeInvalidArgument, errNilContext)
	}
	var err error
	var ended bool // whether this call is the one that ended the hold
	if s.l.hand != nil {
		err, ended = s.drop()
	} else {
		ctx, cancel := lasting(ctx)
		defer cancel()
		err, ended = s.unlock(ctx)
	}
	if ended {
		s.tellRelease(ctx, ReasonReleased, err)
	}
	return err
}

// drop is unlock for a backend in this process, whose Drop takes no time: nobody has to be kept
// waiting for its answer, and a ctx that has ended makes no difference (REL-004).
func (s *Lease) drop() (err error, ended bool) {
	var now time.Duration
	if !s.session {
		now = s.l.now()
	}
	s.mu.Lock()
	if s.checkDeadlineAtLocked(now); s.reason != noReason {
		left := s.phase == lapsed
		if left {
			s.toLocked(over)
		}
		err := s.endedLocked("unlock")
		s.mu.Unlock() // the backend calls Lost, which takes it, under the mutex that Drop takes
		if left {
			_ = s.l.hand.Drop(s.where, s.token, now) // what the drift allowance left of it
		}
		return err, false
	}
	s.endLocked(ReasonReleased, nil)
	s.mu.Unlock()
	err = s.l.hand.Drop(s.where, s.token, now)
	if err == nil || errors.Is(err, driver.ErrClosed) {
		return nil, true // with Close the backend has freed everything
	}
	return &Error{Op: "unlock", Key: s.key, Backend: s.l.caps.Name, Code: CodeLost, Reason: reasonOf(err), Err: err}, true
}

// lasting is ctx or, if that has ended, one that lasts for releaseTimeout.
func lasting(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() == nil {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
}

func (s *Lease) unlock(ctx context.Context) (err error, ended bool) {
	const op = "unlock"
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.waitLocked(ctx, func() bool { return s.phase == releasing }); err != nil {
		return s.fail(op, CodeUnavailable, fmt.Errorf("another Unlock is still waiting for the backend: %w", ctxError(ctx))), false
	}
	s.checkDeadlineLocked()
	again := s.phase == unconfirmed
	switch {
	case s.phase == lapsed:
		// This process stopped considering the lock held before the backend did (the drift
		// allowance): give back what is left. The answer changes nothing.
		s.toLocked(over)
		s.l.abandon(s.holder(), s.leftLocked())
		return s.endedLocked(op), false
	case s.phase == over:
		return s.endedLocked(op), false
	}
	if !s.l.ops.enter() {
		return s.fail(op, CodeClosed, nil), false
	}
	defer s.l.ops.leave()
	if again {
		s.toLocked(releasing)
	} else {
		s.endLocked(ReasonReleased, nil)
	}
	ctx, cancel := lasting(ctx) // a ctx of this hold's Context has just ended
	defer cancel()

	s.mu.Unlock()
	err = s.l.waiting.release(ctx, s, again)
	s.mu.Lock()

	defer s.turnLocked()
	return s.releasedLocked(ctx, err, again), !again
}

// releasedLocked is what Unlock makes of the backend's answer err. again says that it was not
// the first request.
func (s *Lease) releasedLocked(ctx context.Context, err error, again bool) error {
	const op = "unlock"
	switch {
	case err == nil:
		s.toLocked(over)
		return nil
	case errors.Is(err, driver.ErrLost):
		s.toLocked(over)
		if again && (s.session || s.l.now() < s.deadline) {
			return nil // the earlier call's release, whose reply was lost, did it
		}
		return &Error{Op: op, Key: s.key, Backend: s.l.caps.Name, Code: CodeLost, Reason: reasonOf(err), Err: err}
	}
	// The reply was lost, or the store refused: the release is repeated in the background
	// (cleanup.go), and by the next Unlock (REL-005).
	s.toLocked(unconfirmed)
	code := codeOf(err)
	if code == CodeUnavailable {
		err = withContext(ctx, err)
	}
	if !again {
		s.l.abandon(s.holder(), s.leftLocked())
	}
	return s.fail(op, code, err)
}

func errNotALease(op string) error {
	return &Error{Op: op, Code: CodeInvalidArgument, Err: errors.New("this Lease is nil or was not made by a Locker")}
}

var errNilContext = errors.New("ctx is nil; pass context.Background()")
