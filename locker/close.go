package locker

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Close ends the Locker. No new hold is granted (CLO-001), and waiters return ErrClosed
// (CLO-002). What is still held ends with that cause and is released, best effort, within
// ctx (CLO-003). Then the backend is closed (CLO-004). A later call waits for the first and
// returns its result.
//
// The error says how many holds could not be released; they end at their ttl, or within the
// backend's session validity.
func (l *Locker) Close(ctx context.Context) error {
	const op = "close"
	if !l.made() {
		return errNoLocker(op)
	}
	if ctx == nil {
		return l.fail(op, "", CodeInvalidArgument, errNilContext)
	}
	first := false
	l.closeOnce.Do(func() { first = true })
	if !first {
		select {
		case <-l.closed:
			return l.closeErr
		default:
		}
		select {
		case <-l.closed:
			return l.closeErr
		case <-ctx.Done():
			return l.fail(op, "", CodeCanceled, ctxError(ctx))
		}
	}
	defer close(l.closed)

	l.endWaits(errClosing)
	// Every hold ends before ops is shut: a call that finds ops shut finds its hold ended.
	held := l.live.shut()
	if l.hand != nil {
		held = holdsOf(l.hand.Shut())
	}
	held = endAll(held)
	l.ops.shut()
	errs := l.releaseAll(ctx, held)

	// Calls in flight get a little time to end by themselves, clean-ups last because the
	// others start them; then the backend's Close ends them.
	_ = l.settle(ctx, releaseTimeout)
	if err := l.backend.Close(ctx); err != nil {
		errs = append(errs, fmt.Errorf("backend: %w", err))
	}
	if err := l.settle(context.WithoutCancel(ctx), time.Second); err != nil {
		errs = append(errs, fmt.Errorf("calls are still under way: %w", err))
	}
	if len(errs) > 0 {
		l.closeErr = l.fail(op, "", CodeUnavailable, joinErrors(errs...))
	}
	return l.closeErr
}

// endAll ends all of holds for good and returns those that were live.
func endAll(holds []*Lease) (live []*Lease) {
	return slices.DeleteFunc(holds, func(s *Lease) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.checkDeadlineLocked()
		if s.reason != noReason {
			return true // an Unlock or a loss was quicker
		}
		underWay := s.phase == asking // its Lock will find it, and give it back
		s.endLocked(ReasonClosed, nil)
		return underWay
	})
}

// settle waits until nothing is in flight, for limit at most. The background is shut only
// when no call is left that might need it, or when it is given up.
func (l *core) settle(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := l.ops.wait(ctx)
	if err == nil {
		l.background.shut()
		err = l.background.wait(ctx)
	}
	return err
}

// releaseAll releases what Close found held, several at a time.
func (l *core) releaseAll(ctx context.Context, held []*Lease) []error {
	const workers = 64
	var (
		next   atomic.Int64
		failed atomic.Int64
		last   atomic.Pointer[error]
		wg     sync.WaitGroup
	)
	for range min(workers, len(held)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(held) {
					return
				}
				s := held[i]
				err := l.giveBack(ctx, s)
				if err != nil && !errors.Is(err, driver.ErrLost) {
					failed.Add(1)
					last.Store(&err)
				}
				if err != nil {
					err = s.fail("close", codeOf(err), err)
				}
				s.tellRelease(ctx, ReasonClosed, err)
			}
		}()
	}
	wg.Wait()
	if failed.Load() == 0 {
		return nil
	}
	return []error{fmt.Errorf("%d of %d holds were not released: %w", failed.Load(), len(held), *last.Load())}
}

// giveBack releases a hold that has ended for this process.
func (l *core) giveBack(ctx context.Context, s *Lease) error {
	if l.hand != nil {
		return l.hand.Drop(s.where, s.token, 0)
	}
	return l.backend.Release(ctx, s.holder())
}

// holdsOf finds the leases behind their listeners, for Close. It ends those that a wrapper
// has put a Listener of its own before: what they hold, the backend's Close frees.
func holdsOf(listeners []driver.Listener) []*Lease {
	holds := make([]*Lease, 0, len(listeners))
	for _, n := range listeners {
		if own, ok := n.(*listener); ok {
			holds = append(holds, (*Lease)(own))
		} else {
			n.Lost(driver.ErrClosed)
		}
	}
	return holds
}

// live are the holds of a Locker, by key: so that Close can end them, and a hold whose key is
// granted again. A backend that is a driver.Local knows them itself. It is sharded, because
// every Lock and Unlock passes through it.
type live struct {
	seed   maphash.Seed
	shards [16]liveShard
}

type liveShard struct {
	mu    sync.Mutex
	holds map[string]*Lease
	shut  bool
	_     [64 - 8 - 8 - 8]byte // a cache line each
}

func (l *live) shard(key string) *liveShard {
	return &l.shards[maphash.String(l.seed, key)%uint64(len(l.shards))]
}

// add reports false when Close has begun. older is another hold of the same key: the store has
// granted it again since. Of two answers that come in the wrong order the greater token counts,
// so that older may be s itself.
func (l *live) add(s *Lease) (older *Lease, ok bool) {
	sh := l.shard(s.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.shut {
		return nil, false
	}
	if sh.holds == nil {
		sh.holds = make(map[string]*Lease)
	}
	older = sh.holds[s.key]
	if older != nil && older.token > s.token {
		return s, true
	}
	sh.holds[s.key] = s
	return older, true
}

func (l *live) remove(s *Lease) {
	sh := l.shard(s.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.holds[s.key] == s {
		delete(sh.holds, s.key)
	}
}

// shut empties the list for good and returns what was on it.
func (l *live) shut() []*Lease {
	var all []*Lease
	for i := range l.shards {
		sh := &l.shards[i]
		sh.mu.Lock()
		sh.shut = true
		for _, s := range sh.holds {
			all = append(all, s)
		}
		sh.holds = nil
		sh.mu.Unlock()
	}
	return all
}
