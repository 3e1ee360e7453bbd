package locker

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// attempt is one Lock or TryLock while it is under way: it asks the backend, once or many
// times, for one owner. It is passed by value, so that it costs no allocation.
type attempt struct {
	lease   *Lease        // what the next grant makes a hold of
	ttl     time.Duration // asked for; 0 for a session
	drift   float64
	label   string
	note    string
	unknown bool // an earlier request may have been granted, or may be yet
	waited  bool // the first attempt was not enough
}

func (l *core) newAttempt(key string, set *settings) attempt {
	return attempt{lease: l.newLease(key, set.ttl, set.drift), ttl: set.ttl, drift: set.drift, label: set.label, note: set.note}
}

func (l *core) newLease(key string, ttl time.Duration, drift float64) *Lease {
	// It will need its extra: one allocation for both.
	both := new(struct {
		Lease
		extra
	})
	s := &both.Lease
	s.extra, both.extra.drift = &both.extra, drift
	s.l, s.key, s.seq, s.session = l, key, l.seq.next(key), ttl == 0
	return s
}

// ask is the signature of Acquire, of Wait and of Queue.
type ask = func(context.Context, driver.Request) (driver.Grant, error)

// ask asks the backend, and makes a.lease a hold if it was granted. After an error whose
// outcome is unknown the attempt must be repeated, or taken back with giveBack.
func (a *attempt) ask(ctx context.Context, how ask) error {
	err := a.askOnce(ctx, how)
	if a.unknown && errors.Is(err, driver.ErrLost) {
		// What an earlier request was granted has been ended, by a Break for one, and this owner gets
		// nothing any more. So nothing is unknown, and another owner goes on: with this one the attempt would be
		// refused for as long as the store remembers, and all who wait behind it, although the key is free.
		a.lease, a.unknown = a.lease.l.newLease(a.lease.key, a.ttl, a.drift), false
		err = a.askOnce(ctx, how)
	}
	return err
}

func (a *attempt) askOnce(ctx context.Context, how ask) error {
	if a.unknown {
		// What the earlier request was granted may have ended since, or be about to be reported
		// as ended: that says nothing of what this one is granted.
		a.lease = a.lease.again()
	}
	s := a.lease
	sent := s.l.now()
	g, err := how(ctx, a.request())
	if err != nil {
		a.unknown = a.unknown || unknownOutcome(err)
		return err
	}
	return a.granted(g, sent)
}

func (a *attempt) request() driver.Request {
	s := a.lease
	return driver.Request{Key: s.key, Owner: s.owner(), TTL: a.ttl, Hold: (*listener)(s), Identity: s.l.identity, Note: a.note}
}

// waits notes that the waiting begins, after the obstacle err.
func (a *attempt) waits(ctx context.Context, err error) {
	a.waited = true
	if l := a.lease.l; l.observed() {
		l.emit(ctx, Event{Kind: EventWaiting, Key: a.lease.key, Label: a.label, Session: a.lease.session, TTL: a.ttl, Err: l.fail("lock", a.lease.key, codeOf(err), err)})
	}
}

// again is a Lease for the same owner.
func (s *Lease) again() *Lease {
	n := &Lease{l: s.l, key: s.key, seq: s.seq, session: s.session}
	n.own().drift = s.seldom().drift
	return n
}

// granted turns what the backend granted into a live hold.
func (a *attempt) granted(g driver.Grant, sent time.Duration) error {
	s := a.lease
	l := s.l
	if !g.From.IsZero() {
		sent = g.From.Sub(l.epoch)
	}
	s.token = g.Token
	late := s.sessionErr() // the backend alone knows whether the answer to a session came too late
	s.mu.Lock()
	deadline := l.localDeadline(sent, g.TTL, a.drift)
	var older *Lease
	switch {
	case s.phase == over: // the backend announced its loss already, or Close came between
	case !s.session && l.now() >= deadline:
		s.endLocked(ReasonExpired, nil)
	case late != nil:
		s.lostLocked(late)
	default:
		var in bool
		switch older, in = l.live.add(s); {
		case !in:
			s.endLocked(ReasonClosed, nil)
		case older == s:
			s.endLocked(ReasonLost, driver.ErrLost)
		}
	}
	if s.phase == over {
		defer s.mu.Unlock()
		return a.tooLateLocked(l.now() - sent)
	}
	s.toLocked(holding)
	if a.unknown && !s.session {
		s.mayComeLateLocked(a.ttl)
	}
	if l.observed() {
		s.own().since = l.now()
	}
	s.setDeadlineLocked(deadline)
	s.mu.Unlock()
	if older != nil {
		older.overtaken(s.token)
	}
	a.unknown = false
	return nil
}

// tooLateLocked gives back what was granted and has ended before the answer came.
func (a *attempt) tooLateLocked(took time.Duration) error {
	s := a.lease
	s.l.abandon(s.holder(), a.longest())
	a.unknown = false
	if s.reason == ReasonClosed {
		return driver.ErrClosed
	}
	// Another owner: the release of this one is on its way.
	a.lease = s.l.newLease(s.key, a.ttl, a.drift)
	return &tooLate{took, s.reason == ReasonExpired || s.reason == ReasonUnreachable}
}

// tooLate is the ErrLost of a hold that was granted, but had ended when the answer came. Where
// the answer took longer than the ttl, or than a session's validity, a Lock with patience tries again. Where the hold was
// taken away in between, it does not: others may have seen it, and a Lock that went on would
// have held the key twice (CONC-001).
type tooLate struct {
	took    time.Duration
	expired bool
}

func (e *tooLate) Error() string {
	return fmt.Sprintf("the hold was granted, but ended before the answer came, %s after it was asked for: %v", round(e.took), driver.ErrLost)
}

func (e *tooLate) Is(target error) bool { return target == driver.ErrLost }

// overtaken ends a hold when another one of this Locker was granted its key with a greater
// token: whatever the store announces, this one is over (MX-001).
func (s *Lease) overtaken(by uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lostLocked(&wording{fmt.Sprintf("the key was granted again in this Locker, with token %d", by), driver.ErrLost})
}

// longest is how long the backend may hold the key after a grant to a.
func (a *attempt) longest() time.Duration {
	if a.lease.session {
		return a.lease.l.caps.SessionValidity
	}
	return a.ttl
}

// giveBack takes back an attempt that may have succeeded without our knowing (CTX-004).
func (a *attempt) giveBack() {
	if a.unknown {
		a.lease.l.abandon(a.lease.holder(), a.longest())
	}
}

// mayRetry: contention and outages pass, and so does a hold that came too late; everything
// else will be the same next time.
func mayRetry(err error) bool {
	c := codeOf(err)
	return c == CodeHeld || c == CodeUnavailable || isTooLate(err)
}

func isTooLate(err error) bool {
	var late *tooLate
	return errors.As(err, &late) && late.expired
}

// sequence hands out numbers, none of them twice. It is striped by key, because a
// single counter would be a cache line that all processors want in every Lock.
type sequence [stripes]struct {
	_ [120]byte // a cache line each, and none that holds what every Lock reads; they are fetched in pairs
	atomic.Uint64
}

const stripes = 16

func (q *sequence) next(key string) uint64 {
	stripe := uint64(key[len(key)-1]^key[len(key)/2]) % stripes
	return q[stripe].Add(1)*stripes + stripe
}

// localDeadline is when a hold of ttl that was asked for at sent is over for this
// process: earlier than for the backend, by the way there and by the drift (TTL-002).
func (l *core) localDeadline(sent, ttl time.Duration, drift float64) time.Duration {
	if drift == 0 {
		if l.caps.Has.Has(driver.LocalClock) {
			return sent + ttl
		}
		drift = DefaultDriftFactor
	}
	return sent + ttl - time.Duration(float64(ttl)*drift)
}

// keepsTime says whether the core must end s by a timer of its own: not where the
// backend times holds by the same clock and s asks for no drift allowance.
func (l *core) keepsTime(s *Lease) bool {
	return s.seldom().drift != 0 || !l.caps.Has.Has(driver.LocalClock)
}
