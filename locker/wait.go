package locker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// waiting is how a Lock waits for a key, and what a release does for the waiters. There are two:
// native, where the backend waits by itself, and queues, where the core does. What the backend
// can do is found out once, in New.
type waiting interface {
	// acquire makes the first attempt of a and, as far as r allows, waits. It returns a with a
	// live hold, or with the last obstacle as the error.
	acquire(ctx context.Context, a attempt, r Retry) (attempt, error)
	// release frees what s holds, for Unlock, and lets the next waiter of this Locker have it.
	// The error is that of s's release alone. again says that a release of s had an unknown
	// outcome before.
	release(ctx context.Context, s *Lease, again bool) error
}

// native leaves the waiting to the backend, for as long as the timed attempts would have taken.
type native struct {
	l      *core
	waiter driver.Waiter
}

func (n native) acquire(ctx context.Context, a attempt, r Retry) (attempt, error) {
	err := a.ask(ctx, n.l.backend.Acquire)
	if r.Attempts == 0 || err == nil || !mayRetry(err) || ctx.Err() != nil {
		return a, err
	}
	a.waits(ctx, err)
	wctx, cancel := n.l.untilClose(ctx)
	defer cancel()
	if wctx, cancel = r.within(wctx); cancel != nil {
		defer cancel()
	}
	last, down := err, false
	for wctx.Err() == nil {
		if is := codeOf(last) == CodeUnavailable; is != down {
			down = is
			n.l.tellOutage(a.lease.key, is, last)
		}
		if err = a.ask(wctx, n.waiter.Wait); err == nil || !mayRetry(err) {
			if down {
				n.l.tellOutage(a.lease.key, false, nil)
			}
			return a, err
		}
		if cutShort(wctx, err) {
			break
		}
		if last = err; codeOf(err) == CodeHeld {
			last = driver.ErrHeld // its words may name a ctx that is not the caller's
		}
		pause := time.NewTimer(r.next())
		select {
		case <-pause.C:
		case <-wctx.Done():
			pause.Stop()
		}
	}
	switch {
	case !down:
	case codeOf(last) == CodeUnavailable:
		n.l.tellUnwatched(a.lease.key, last)
	default: // it was answered just before
		n.l.tellOutage(a.lease.key, false, nil)
	}
	return a, n.l.unlessClosing(ctx, last)
}

func (n native) release(ctx context.Context, s *Lease, _ bool) error {
	return n.l.backend.Release(ctx, s.holder())
}

// take is Lock on a backend in this process: it takes a free key by the short way, and waits in
// the backend's own queue.
func (l *core) take(ctx context.Context, key string, set *settings) (s *Lease, waited bool, err error) {
	s = &Lease{l: l, key: key, session: set.ttl == 0}
	if set.drift != 0 {
		s.own().drift = set.drift
	}
	var sent time.Duration
	if !s.session {
		sent = l.now()
	}
	token, where, turn, err := l.hand.Take(key, set.ttl, sent, (*listener)(s), set.retry.Attempts != 0, set.note)
	if turn != nil {
		waited = true
		(&attempt{lease: s, ttl: set.ttl, label: set.label}).waits(ctx, driver.ErrHeld)
		wctx, cancel := set.retry.within(ctx)
		token, where, sent, err = turn.Await(wctx)
		if cancel != nil {
			cancel()
			if err != nil && ctx.Err() == nil && codeOf(err) == CodeHeld {
				err = driver.ErrHeld // its words name the end of a ctx that is not the caller's
			}
		}
	}
	if err != nil {
		return nil, waited, err
	}
	s.mu.Lock()
	s.token, s.where, s.seq = token, where, driver.TakenSeq(token)
	if s.phase == over { // its loss came first, or Close
		reason := s.reason
		s.mu.Unlock() // the backend calls Lost, which takes it, under the mutex that Drop takes
		_ = l.hand.Drop(where, token, 0)
		if reason == ReasonClosed {
			return nil, waited, driver.ErrClosed
		}
		return nil, waited, &tooLate{l.now() - sent, false}
	}
	s.toLocked(holding)
	if l.observed() {
		s.own().since = l.now()
	}
	if !s.session {
		s.setDeadlineLocked(l.localDeadline(sent, set.ttl, set.drift))
	}
	s.mu.Unlock()
	return s, waited, nil
}

// within bounds ctx by the time that r's timed attempts take. cancel is nil where they have no
// end.
func (r Retry) within(ctx context.Context) (_ context.Context, cancel context.CancelFunc) {
	budget, ok := r.budget()
	if !ok {
		return ctx, nil
	}
	return context.WithTimeoutCause(ctx, budget, errPatience)
}

var errPatience = errors.New("the retries are used up")

// untilClose is ctx until Close begins: it must reach an attempt in flight (CLO-002).
func (l *core) untilClose(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.closing, func() { cancel(errClosing) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// unlessClosing is err, or ErrClosed if Close ended the waiting rather than ctx.
func (l *core) unlessClosing(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil && l.closing.Err() != nil {
		return driver.ErrClosed
	}
	return err
}

// cutShort: err came because ctx has ended. It says nothing of the backend, so that the
// obstacle before it remains the last one (CTX-003, ERR-002).
func cutShort(ctx context.Context, err error) bool {
	return ctx.Err() != nil && codeOf(err) == CodeUnavailable
}

// lockError makes the error of Lock and TryLock out of the last obstacle.
func (l *core) lockError(ctx context.Context, op, key string, err error) error {
	code := codeOf(err)
	if code == CodeUnavailable && l.closing.Err() != nil {
		return l.fail(op, key, CodeClosed, nil) // Close ended the attempt
	}
	if mayRetry(err) {
		err = withContext(ctx, err)
	}
	return l.fail(op, key, code, err)
}

// ctxError matches ctx.Err() and, where it differs, context.Cause(ctx).
func ctxError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if err == nil || errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// withContext adds the ctx's error to err, if it has ended and err does not say so.
func withContext(ctx context.Context, err error) error {
	if ctx.Err() == nil || errors.Is(err, ctx.Err()) && errors.Is(err, context.Cause(ctx)) {
		return err
	}
	return fmt.Errorf("%w: %w", err, ctxError(ctx))
}
