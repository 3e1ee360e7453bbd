package locker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// cleanups are the releases that the backend has not confirmed yet: of holds whose grant or
// release had an unknown outcome, or whose release was refused. One goroutine repeats them all, so
// that an outage under load costs no goroutine per call.
type cleanups struct {
	first   atomic.Int64 // first attempts under way
	mu      sync.Mutex
	list    []cleanup
	running bool
}

type cleanup struct {
	h     driver.Holder
	until time.Duration // on the Locker's clock: the hold is over by itself then
}

const (
	// maxCleanups bounds the memory of a long outage; the oldest give way, and end by
	// their ttl or validity.
	maxCleanups = 1 << 16
	// maxFailures is how many repeats may fail until the next pause: more than one,
	// because a part of a cluster may be well.
	maxFailures = 8
	// maxFirst is how many clean-ups may be attempted at once in goroutines of their own: an
	// outage under load begins with as many as there are calls under way.
	maxFirst = 8
)

// abandon gives a hold back in the background. It tries until the backend has said that it is
// free or lost, or for left, which is as long as the backend may hold the key for us.
func (l *core) abandon(h driver.Holder, left time.Duration) {
	if !l.background.enter() {
		return
	}
	c := cleanup{h, l.now() + max(left, releaseTimeout)}
	// Once Close has begun there is no later, and the calls that are still under way bound the number.
	if l.cleanups.first.Add(1) > maxFirst && l.closing.Err() == nil {
		l.cleanups.first.Add(-1)
		l.cleanUpLater(c)
		l.background.leave()
		return
	}
	go func() {
		defer l.background.leave()
		defer l.cleanups.first.Add(-1)
		if !l.cleanUp(c) {
			l.cleanUpLater(c)
		}
	}()
}

// cleanUp makes one attempt and reports whether no other is needed.
func (l *core) cleanUp(c cleanup) bool {
	if c.until <= l.now() {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	err := l.free(ctx, c.h)
	// Anything else, a refusal of the server's included, may pass; a key that nobody holds
	// and nobody frees stays for its whole ttl.
	return err == nil || errors.Is(err, driver.ErrLost) || errors.Is(err, driver.ErrClosed)
}

// free releases h, and has the waiters of this Locker try where nobody else tells them.
func (l *core) free(ctx context.Context, h driver.Holder) error {
	if l.queues != nil {
		return l.queues.free(ctx, h)
	}
	return l.backend.Release(ctx, h)
}

func (l *core) cleanUpLater(c cleanup) {
	q := &l.cleanups
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.running {
		if !l.background.enter() {
			return
		}
		q.running = true
		go l.repeatCleanups()
	}
	if len(q.list) == maxCleanups {
		q.list = q.list[1:]
	}
	q.list = append(q.list, c)
}

// repeatCleanups ends when nothing is left to do. When Close begins each clean-up is tried once
// more, at once: Close waits for that. It has no time for a backend that is down.
func (l *core) repeatCleanups() {
	defer l.background.leave()
	q := &l.cleanups
	pause := time.NewTimer(pauseBetween())
	defer pause.Stop()
	for {
		last := false
		select {
		case <-pause.C:
		case <-l.closing.Done():
			last = true
		}
		q.mu.Lock()
		todo := len(q.list)
		q.mu.Unlock()
		failed := 0
		for ; todo > 0 && failed < maxFailures && (last || l.closing.Err() == nil); todo-- {
			q.mu.Lock()
			c := q.list[0]
			q.list = q.list[1:]
			q.mu.Unlock()
			if l.cleanUp(c) {
				continue
			}
			if failed++; !last {
				l.cleanUpLater(c)
			}
		}
		q.mu.Lock()
		if last && failed == maxFailures {
			q.list = nil
		}
		q.running = len(q.list) > 0 // what comes from now on finds that nobody is at it
		more := q.running
		q.mu.Unlock()
		if !more {
			return
		}
		pause.Reset(pauseBetween())
	}
}

// pauseBetween spreads the repeats of many processes after an outage.
func pauseBetween() time.Duration { return DefaultRetry().next() }
