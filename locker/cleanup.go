package locker

import (
	"context"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// cleanups are the releases that the backend has not answered yet: holds whose grant
// or release may or may not have happened. One goroutine repeats them all, so that an
// outage under load costs no goroutine per call.
type cleanups struct {
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
)

// abandon gives a hold back in the background. It tries until the backend has given an
// answer, or for left, which is as long as the hold can last.
func (l *Locker) abandon(h driver.Holder, left time.Duration) {
	if !l.background.enter() {
		return
	}
	c := cleanup{h, l.now() + max(left, releaseTimeout)}
	go func() {
		defer l.background.leave()
		if !l.cleanUp(c) {
			l.cleanUpLater(c)
		}
	}()
}

// cleanUp makes one attempt and reports whether no other is needed.
func (l *Locker) cleanUp(c cleanup) bool {
	left := c.until - l.now()
	if left <= 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(left, releaseTimeout))
	defer cancel()
	err := l.backend.Release(ctx, c.h)
	return err == nil || codeOf(err) != Unavailable
}

func (l *Locker) cleanUpLater(c cleanup) {
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

// repeatCleanups ends when nothing is left to do, or with Close, which has no time
// for a backend that is down.
func (l *Locker) repeatCleanups() {
	defer l.background.leave()
	q := &l.cleanups
	pause := time.NewTimer(DefaultRetry().next())
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-l.closing.Done():
			return
		}
		q.mu.Lock()
		todo := len(q.list)
		q.running = todo > 0
		q.mu.Unlock()
		if todo == 0 {
			return
		}
		for failed := 0; todo > 0 && failed < maxFailures && l.closing.Err() == nil; todo-- {
			q.mu.Lock()
			c := q.list[0]
			q.list = q.list[1:]
			q.mu.Unlock()
			if !l.cleanUp(c) {
				failed++
				l.cleanUpLater(c)
			}
		}
		pause.Reset(DefaultRetry().next())
	}
}
