package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// queueing is a reference that waits by itself: a line of waiters for each key, of which the
// first one makes attempts. The fields break it.
type queueing struct {
	*reference
	mu    sync.Mutex
	lines map[string][]chan struct{}
	over  chan struct{} // closed by Close
	end   sync.Once

	lifo, swallows, silent, deaf, late bool
}

func newQueueing(b *reference) *queueing {
	return &queueing{reference: b, lines: map[string][]chan struct{}{}, over: make(chan struct{})}
}

var _ driver.Waiter = (*queueing)(nil)

// Extend wakes those who wait: the end that they go by may be an earlier one now.
func (q *queueing) Extend(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	g, err := q.reference.Extend(ctx, h, ttl)
	if err == nil {
		q.wakes.Wake(h.Key)
	}
	return g, err
}

func (q *queueing) Wait(ctx context.Context, r driver.Request) (driver.Grant, error) {
	q.refStore.mu.Lock()
	e, ok := q.live(r.Key)
	q.refStore.mu.Unlock()
	if ok && e.Owner == r.Owner {
		return q.Acquire(ctx, r) // a repetition: whoever holds the key must not stand in line for it
	}
	front := q.join(r.Key)
	defer q.leave(r.Key, front)
	select {
	case <-front:
	case <-ctx.Done():
		return driver.Grant{}, q.gaveUp(ctx, driver.ErrHeld)
	case <-q.over:
		return driver.Grant{}, driver.ErrClosed
	}
	woken := make(chan struct{}, 1)
	defer q.Notify(r.Key, func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	})()
	for {
		sent := q.now()
		g, err := q.Acquire(ctx, r)
		if !errors.Is(err, driver.ErrHeld) {
			g.From = sent
			if q.late {
				g.From = time.Time{}
			}
			return g, err
		}
		rest, ok := driver.Remaining(err)
		if !ok {
			rest = time.Hour
		}
		timer := time.NewTimer(max(rest, time.Millisecond))
		select {
		case <-woken:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return driver.Grant{}, q.gaveUp(ctx, err)
		case <-q.over:
			timer.Stop()
			return driver.Grant{}, driver.ErrClosed
		}
		timer.Stop()
	}
}

func (q *queueing) gaveUp(ctx context.Context, last error) error {
	if q.silent {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w: %w", last, ctx.Err(), context.Cause(ctx))
}

func (q *queueing) join(key string) chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	front := make(chan struct{})
	line := q.lines[key]
	switch {
	case len(line) == 0:
		close(front)
	case q.lifo:
		q.lines[key] = slices.Insert(line, 1, front)
		return front
	}
	q.lines[key] = append(line, front)
	return front
}

func (q *queueing) leave(key string, front chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	line := q.lines[key]
	i := slices.Index(line, front)
	line = slices.Delete(line, i, i+1)
	if i == 0 && len(line) > 0 && !q.swallows {
		close(line[0])
	}
	if q.lines[key] = line; len(line) == 0 {
		delete(q.lines, key)
	}
}

func (q *queueing) Close(ctx context.Context) error {
	if !q.deaf {
		q.end.Do(func() { close(q.over) })
	}
	return q.reference.Close(ctx)
}

func queueingTarget(alter func(*queueing)) func(*testing.T) *Target {
	return refTarget(func(b *reference) driver.Backend {
		q := newQueueing(b)
		if alter != nil {
			alter(q)
		}
		return q
	})
}

// A healthy backend that waits by itself passes, by its own waiting and by the core's.
func TestWaiter(t *testing.T) {
	Run(t, queueingTarget(nil), Synctest())
}

// waiterMutants wait in a wrong way, each with the clause that must fail it.
var waiterMutants = []struct {
	name   string
	clause string
	alter  func(*queueing)
}{
	{"who came last is served first", "WAIT-004", func(q *queueing) { q.lifo = true }},
	{"who leaves the line calls nobody to the front", "WAIT-003", func(q *queueing) { q.swallows = true }},
	{"who gives up does not say that the key is held", "CTX-003", func(q *queueing) { q.silent = true }},
	{"Close does not end the waiting", "CLO-002", func(q *queueing) { q.deaf = true }},
	{"the ttl of who waited counts from the call", "TTL-002", func(q *queueing) { q.late = true }},
}
