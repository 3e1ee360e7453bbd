package locker

import (
	"context"
	"errors"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// acquireOrWait is Lock's patience. waited says whether the first attempt was not
// enough. It returns with s a live hold, or with the last obstacle as the error.
func (l *Locker) acquireOrWait(ctx context.Context, s *Lease, r Retry) (waited bool, err error) {
	if l.waiter != nil || !l.queues.busy(s.key) {
		err = l.attempt(ctx, s, l.backend.Acquire, false)
		if err == nil || !mayRetry(err) || ctx.Err() != nil {
			return false, err
		}
	} else {
		err = driver.ErrHeld // others of this process are waiting already: get in line (WAIT-004)
	}
	return true, l.wait(ctx, s, r, err)
}

// acquireHere is acquireOrWait for a local backend. Its Wait is the first attempt too, and ends
// by itself when Close begins; the core waits only where a number of attempts is the limit.
func (l *Locker) acquireHere(ctx context.Context, s *Lease, r *Retry) (waited bool, err error) {
	if l.waiter == nil && r.Attempts != 0 && l.queues.busy(s.key) {
		err = driver.ErrHeld // in line (WAIT-004); see acquireOrWait
	} else {
		err = l.attemptHere(ctx, s, r.Attempts == Forever && l.waiter != nil)
	}
	if err == nil || !mayRetry(err) {
		return false, err
	}
	if ctx.Err() == nil && r.Attempts != 0 {
		err = l.wait(ctx, s, *r, err)
	}
	return true, err
}

// wait goes on trying after an attempt that ended with err.
func (l *Locker) wait(ctx context.Context, s *Lease, r Retry, err error) error {
	if l.waiter != nil {
		wctx, cancel := l.untilClose(ctx)
		defer cancel()
		err = l.waitNatively(wctx, s, r, err)
	} else {
		err = l.waitInLine(ctx, s, r, err)
	}
	if err != nil && ctx.Err() == nil && l.closing.Err() != nil {
		err = driver.ErrClosed
	}
	return err
}

// untilClose is ctx until Close begins: it must reach an attempt under way (CLO-002).
func (l *Locker) untilClose(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.closing, func() { cancel(errClosing) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// mayRetry: contention and outages pass; everything else will be the same next time.
func mayRetry(err error) bool {
	c := codeOf(err)
	return c == Held || c == Unavailable
}

// cutShort: err came because ctx has ended. It says nothing of the backend, so that the
// obstacle before it remains the last one (CTX-003, ERR-002).
func cutShort(ctx context.Context, err error) bool {
	return ctx.Err() != nil && codeOf(err) == Unavailable
}

// giveUp takes back an attempt that may have succeeded without our knowing (CTX-004).
func (l *Locker) giveUp(s *Lease) {
	if s.unknown {
		l.abandon(s.holder(), s.longest())
	}
}

// waitNatively leaves the waiting to the backend, for as long as Retry's timed
// attempts would have taken.
func (l *Locker) waitNatively(ctx context.Context, s *Lease, r Retry, last error) error {
	if budget, ok := r.budget(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, budget, errPatience)
		defer cancel()
	}
	for ctx.Err() == nil {
		err := l.attempt(ctx, s, l.waiter.Wait, true)
		if err == nil || !mayRetry(err) {
			return err
		}
		if cutShort(ctx, err) {
			break
		}
		if last = err; codeOf(err) == Held {
			last = driver.ErrHeld // its words may name a ctx that is not the caller's
		}
		pause := time.NewTimer(r.next())
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
	return last
}

var errPatience = errors.New("the retries are used up")

// waitInLine is the core's own waiting: timed attempts, wake-ups, and a timer at the
// end of the holder's time, because stores announce an expiry late or never (TTL-001).
func (l *Locker) waitInLine(ctx context.Context, s *Lease, r Retry, first error) error {
	q, w := l.join(s, first)
	err := l.stand(ctx, q, w, r)
	if l.leaveLine(q, w) {
		return l.grant(s, &w.passed, w.sent)
	}
	return err
}

// stand stands in line until w has the hold (nil), has been passed one (any error), or
// gives up.
func (l *Locker) stand(ctx context.Context, q *queue, w *waiting, r Retry) error {
	s := w.s
	left := r.Attempts
	var tick time.Duration // the next timed attempt
	var timer *time.Timer  // for it
	var rings <-chan time.Time
	inFront, try := false, false
	doubt := s.unknown          // whether our own last attempt may have succeeded
	expiry := time.Duration(-1) // when the holder's time is up, if known
	var attempts context.Context

	for ctx.Err() == nil && l.closing.Err() == nil {
		if try && !l.begin(w) {
			try, expiry = false, -1 // we shall be told to make up for it
		}
		if try {
			if attempts == nil { // most of those in line never make one
				var cancel func()
				attempts, cancel = l.untilClose(ctx)
				defer cancel()
			}
			err := l.attempt(attempts, s, l.backend.Acquire, true)
			l.answered(w)
			if err == nil || !mayRetry(err) {
				return err
			}
			if cutShort(attempts, err) {
				break
			}
			doubt = codeOf(err) == Unavailable
			q.setObstacle(&l.queues, err)
			expiry = -1
			if rest, ok := driver.Remaining(err); ok && rest >= 0 {
				expiry = l.now() + rest + time.Millisecond
			}
			if left == 0 {
				return err
			}
		}
		try = false

		// Behind the front, with no end to the patience, there is nothing to look at the clock for.
		if now := l.now(); inFront || doubt || left >= 0 {
			if timer == nil {
				tick = now + r.next()
				timer = time.NewTimer(tick - now)
				defer timer.Stop()
				rings = timer.C
			}
			next := tick
			if inFront && expiry >= 0 {
				next = min(next, expiry)
			}
			timer.Reset(next - now)
		}
		select {
		case <-w.signal:
			called, got, missed := l.look(q, w, false)
			if got {
				return driver.ErrHeld
			}
			// The first attempt in front comes after the wake-ups were asked for, so that
			// a release between the two cannot be missed.
			try, inFront = called && !inFront || missed, called
		case <-wakes(q, inFront):
			try = true
		case <-rings:
			now := l.now()
			if inFront && expiry >= 0 && now >= expiry && now < tick {
				try = true // early: uses up no attempt (WAIT-002)
				break
			}
			if now < tick {
				break
			}
			tick = now + r.next()
			if left > 0 {
				left--
			}
			got := false
			if inFront, got, _ = l.look(q, w, true); got {
				return driver.ErrHeld
			}
			if inFront || doubt {
				// Not only in front: whoever is there would wait for a lock that may be ours,
				// and we for our turn, until its time is up.
				try = true
			} else if left == 0 {
				return q.lastObstacle(&l.queues)
			}
		case <-ctx.Done():
		case <-l.closing.Done():
		}
	}
	return q.lastObstacle(&l.queues)
}

// wakes: only the one in front listens, so that nobody else takes its wake-up.
func wakes(q *queue, inFront bool) <-chan struct{} {
	if inFront {
		return q.wake
	}
	return nil
}
