package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
)

var concCases = []Case{
	{ID: "CONC-001", Kinds: both, CoreLoop: true, fn: linearizable, Clause: "concurrent histories are linearizable against the sequential lock model; unknown outcomes fork"},
	{ID: "CONC-002", Kinds: both, CoreLoop: false, fn: raceClean, Clause: "race-detector clean (run it with go test -race)"},
}

// raceClean calls everything at once from many goroutines, on the bare backend: a
// tap's mutexes would order what they have in common and hide a race from the detector.
func raceClean(c *trial) {
	for range c.Rounds(3, 1) {
		a, b := c.rawClient(), c.rawClient()
		const workers, keys = 12, 5
		var mu sync.Mutex
		var shared []*locker.Lease // of anybody, to be used by everybody
		rngs := make([]*rand.Rand, workers)
		for i := range rngs {
			rngs[i] = c.Rand()
		}
		rounds := c.Rounds(60, 30)
		c.Together(workers, func(i int) {
			l, r := []*locker.Locker{a, b}[i%2], rngs[i]
			for range rounds {
				if c.Ctx.Err() != nil {
					return
				}
				key := c.Key(fmt.Sprint(r.IntN(keys)))
				ctx, cancel := context.WithTimeout(c.Ctx, time.Duration(r.Int64N(int64(2*c.Granularity()))))
				c.anything(ctx, l, r, key, &mu, &shared)
				cancel()
			}
		})
		c.sharedHold(a, c.Rounds(300, 30))
		// And Close beside it all.
		c.Together(workers, func(i int) {
			l, r := []*locker.Locker{a, b}[i%2], rngs[i]
			if i < 4 {
				c.OK(l.Close(c.CtxFor(c.Limit())), "Close beside everything else")
				return
			}
			for range 10 {
				ctx, cancel := context.WithTimeout(c.Ctx, c.Granularity())
				c.anything(ctx, l, r, c.Key(fmt.Sprint(r.IntN(keys))), &mu, &shared)
				cancel()
			}
		})
	}
	// Afterwards nothing is left of it.
	last := c.client()
	for i := range 5 {
		last.goLock(c.Key(fmt.Sprint(i)), append(c.hold(), c.Polling())...).granted(c.Limit(), "the Close of all who used it").mustUnlock()
	}
}

// sharedHold lets everybody use one hold that lasts: of those that anything shares, most are
// over by the time that somebody else comes to use them. Nothing here waits, and
// no mutex of the case orders it.
func (c *trial) sharedHold(l *locker.Locker, rounds int) {
	h, err := l.Lock(c.Ctx, c.Key("shared"), c.hold()...)
	c.OK(err, "Lock of a free key")
	uses := []func(){
		func() {
			if err := h.Extend(c.Ctx, far); err != nil && !errors.Is(err, locker.ErrUnsupported) {
				c.OK(err, "Extend beside everything else")
			}
		},
		func() { _, _ = h.Deadline() },
		func() { _, _ = harness.IsClosed(h.Done()), h.Err() },
		func() { _, _, _ = h.Key(), h.Token(), h.Session() },
		func() {
			_, err := l.TryLock(c.Ctx, h.Key(), c.hold()...)
			c.Is(err, locker.ErrHeld, "TryLock of a key that is held, beside everything else")
		},
		func() {
			_, cancel := h.Context(c.Ctx)
			cancel()
		},
	}
	c.Together(2*len(uses), func(i int) {
		for range rounds {
			uses[i%len(uses)]()
		}
	})
	c.Together(2*len(uses), func(i int) {
		if i%2 == 0 {
			_ = h.Unlock(c.Ctx)
		} else {
			uses[1+i%3]()
		}
	})
}

func (c *trial) anything(ctx context.Context, l *locker.Locker, r *rand.Rand, key string, mu *sync.Mutex, shared *[]*locker.Lease) {
	var opts []locker.Option
	if c.leaf.kind == Lease {
		opts = append(opts, locker.WithTTL(time.Duration(1+r.Int64N(int64(2*c.Unit())))))
	}
	allowed := func(err error, targets ...error) {
		for _, t := range targets {
			if err == nil || errors.Is(err, t) {
				return
			}
		}
		// Its time was too short for an answer. The timer of a ctx that was derived from it may ring first.
		until, ok := ctx.Deadline()
		late := ok && !time.Now().Before(until) && errors.Is(err, context.DeadlineExceeded)
		if (late || ctx.Err() != nil && errors.Is(err, ctx.Err())) && errors.Is(err, locker.ErrUnavailable) {
			return
		}
		c.Fatal("calls beside each other fail only as the contract says", "%v", err)
	}
	ended := []error{locker.ErrHeld, locker.ErrClosed, locker.ErrLost, context.DeadlineExceeded, context.Canceled}
	take := l.TryLock
	switch r.IntN(8) {
	case 0, 1, 2:
		take = l.Lock
		fallthrough
	case 3, 4:
		s, err := take(ctx, key, opts...)
		if err != nil {
			allowed(err, ended...)
			return
		}
		mu.Lock()
		*shared = append(*shared, s)
		if len(*shared) > 8 {
			*shared = (*shared)[1:]
		}
		mu.Unlock()
		if r.IntN(2) == 0 {
			held, cancel := s.Context(ctx)
			defer cancel()
			_ = held.Err()
		}
		allowed(s.Unlock(ctx), locker.ErrReleased, locker.ErrLost, locker.ErrClosed)
	case 5:
		err := l.Do(ctx, key, func(ctx context.Context, _ *locker.Lease) error {
			s, _ := locker.FromContext(ctx)
			_ = s.Token()
			return nil
		}, opts...)
		allowed(err, ended...)
	default:
		mu.Lock()
		if len(*shared) == 0 {
			mu.Unlock()
			return
		}
		s := (*shared)[r.IntN(len(*shared))]
		mu.Unlock()
		switch r.IntN(6) {
		case 0:
			allowed(s.Unlock(ctx), locker.ErrReleased, locker.ErrLost, locker.ErrClosed)
		case 1:
			allowed(s.Extend(ctx, c.Unit()), locker.ErrReleased, locker.ErrLost, locker.ErrClosed, locker.ErrUnsupported, context.DeadlineExceeded, context.Canceled)
		case 2:
			_ = harness.IsClosed(s.Done())
			_ = s.Err()
		case 3:
			_, _ = s.Deadline()
			_, _, _ = s.Key(), s.Token(), s.Session()
		case 4:
			_ = l.Capabilities()
			_, _, err := l.Inspect(ctx, key)
			allowed(err, locker.ErrUnsupported, locker.ErrClosed, context.DeadlineExceeded, context.Canceled)
		case 5:
			allowed(l.Ping(ctx), locker.ErrUnsupported, locker.ErrClosed, context.DeadlineExceeded, context.Canceled)
		}
	}
}
