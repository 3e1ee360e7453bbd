package locker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// acquireOrWait is Lock's patience. waited says whether the first attempt was not
// enough. It returns with s a live hold, or with the last obstacle as the error.
func (l *Locker) acquireOrWait(ctx context.Context, s *Lease, r Retry) (waited bool, err error) {
	if l.waiter != nil || !l.queues.busy(s.holder.Key) {
		err = l.attempt(ctx, s, l.backend.Acquire)
		if err == nil || !mayRetry(err) || ctx.Err() != nil {
			return false, err
		}
	} else {
		err = driver.ErrHeld // others of this process are waiting already: get in line (WAIT-004)
	}

	// Close must reach an attempt that is under way (CLO-002).
	wctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.closing, func() { cancel(errClosing) })()

	if l.waiter != nil {
		err = l.waitNatively(wctx, s, r, err)
	} else {
		err = l.waitInLine(wctx, s, r, err)
	}
	if err != nil && context.Cause(wctx) == errClosing {
		err = driver.ErrClosed
	}
	return true, err
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
		l.abandon(s.holder, s.longest())
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
		err := l.attempt(ctx, s, l.waiter.Wait)
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

// queues are the lines of waiters of this process, one a key (WAIT-004). Only the
// first in line makes attempts, so that a thousand waiters cost the store no more
// than one, and a wake-up goes to whom it belongs.
//
// mu is taken before a mutex of the backend (Notify and stop are called under it) and
// after none: neither wake nor Listener.Lost, which a backend calls, takes it.
type queues struct {
	mu sync.Mutex
	m  map[string]*queue
}

type queue struct {
	line []*waiting // the first one is in front
	wake chan struct{}
	stop func()
	last error // the front's last obstacle
}

type waiting struct {
	front chan struct{} // closed when this one comes to the front
}

func (q *queues) busy(key string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.m[key] != nil
}

func (l *Locker) join(key string, first error) (*queue, *waiting) {
	qs := &l.queues
	qs.mu.Lock()
	defer qs.mu.Unlock()
	q := qs.m[key]
	w := &waiting{front: make(chan struct{})}
	if q == nil {
		q = &queue{wake: make(chan struct{}, 1), last: first}
		if qs.m == nil {
			qs.m = make(map[string]*queue)
		}
		qs.m[key] = q
		if l.notifier != nil {
			q.stop = l.notifier.Notify(key, func() {
				select {
				case q.wake <- struct{}{}:
				default:
				}
			})
		}
		close(w.front)
	}
	q.line = append(q.line, w)
	return q, w
}

// leaveLine lets the next one come to the front, who makes an attempt at once: no
// wake-up is swallowed by one who gives up (WAIT-003).
func (l *Locker) leaveLine(key string, q *queue, w *waiting) {
	qs := &l.queues
	qs.mu.Lock()
	defer qs.mu.Unlock()
	for i, other := range q.line {
		if other != w {
			continue
		}
		if i > 0 {
			q.line = append(q.line[:i], q.line[i+1:]...)
		} else if q.line = q.line[1:]; len(q.line) > 0 {
			close(q.line[0].front)
		}
		break
	}
	if len(q.line) == 0 {
		delete(qs.m, key)
		if q.stop != nil {
			q.stop()
		}
	}
}

func (q *queue) lastObstacle(qs *queues) error {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	return q.last
}

func (q *queue) setObstacle(qs *queues, err error) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	q.last = err
}

// waitInLine is the core's own waiting: timed attempts, wake-ups, and a timer at the
// end of the holder's time, because stores announce an expiry late or never (TTL-001).
func (l *Locker) waitInLine(ctx context.Context, s *Lease, r Retry, first error) error {
	q, w := l.join(s.holder.Key, first)
	defer l.leaveLine(s.holder.Key, q, w)

	left := r.Attempts
	tick := l.now() + r.next() // the next timed attempt
	timer := time.NewTimer(tick - l.now())
	defer timer.Stop()
	front := w.front
	inFront, try := false, false
	doubt := s.unknown          // whether our own last attempt may have succeeded
	expiry := time.Duration(-1) // when the holder's time is up, if known

	for ctx.Err() == nil {
		if try {
			try = false
			err := l.attempt(ctx, s, l.backend.Acquire)
			if err == nil || !mayRetry(err) {
				return err
			}
			if cutShort(ctx, err) {
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

		next := tick
		if inFront && expiry >= 0 {
			next = min(next, expiry)
		}
		timer.Reset(next - l.now())
		select {
		case <-front:
			// The first attempt in front comes after the wake-ups were asked for, so that
			// a release between the two cannot be missed.
			inFront, try, front = true, true, nil
		case <-wakes(q, inFront):
			try = true
		case <-timer.C:
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
			if inFront || doubt {
				// Not only in front: whoever is there would wait for a lock that may be ours,
				// and we for our turn, until its time is up.
				try = true
			} else if left == 0 {
				return q.lastObstacle(&l.queues)
			}
		case <-ctx.Done():
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
