package conformance

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
)

// closeMany: Close ends and releases more holds than anybody releases in one go.
func closeMany(c *trial) {
	a, b := c.client(), c.client()
	const n = 300
	holds := make([]*hold, n)
	c.Together(20, func(i int) {
		for k := i; k < n; k += 20 {
			holds[k] = a.mustTry(c.Key(fmt.Sprint(k)), c.hold()...)
		}
	})
	c.OK(a.l.Close(c.CtxFor(c.Limit())), "Close with %d holds", n)
	for _, h := range holds {
		h.ended(locker.ReasonClosed)
	}
	for _, h := range holds {
		b.mustTry(h.Key(), c.hold()...).mustUnlock()
	}
}

// closeWakesAll is about several waiters for each key, on the bare backend: the way that the core
// ends waits and holds in production may not lead through a tap.
func closeWakesAll(c *trial) {
	b := c.client()
	for round := range c.Rounds(5, 2) {
		l := c.rawClient()
		var mu sync.Mutex
		var wrong []string
		var ends []<-chan struct{}
		var own []*locker.Lease
		for k := range 8 {
			key := c.Key(fmt.Sprint(round, "/", k))
			if k%2 == 0 {
				b.mustTry(key, c.hold()...)
			} else {
				h, err := l.TryLock(c.Ctx, key, c.hold()...)
				c.OK(err, "TryLock of a free key")
				own = append(own, h)
			}
			for range 5 {
				began := make(chan struct{})
				ends = append(ends, c.Spawn(func() {
					close(began)
					h, err := l.Lock(c.Ctx, key, append(c.hold(), harness.Patient())...)
					if err == nil && h.Err() == nil || err != nil && !isClosed(err) {
						mu.Lock()
						defer mu.Unlock()
						wrong = append(wrong, fmt.Sprintf("%s: %v", c.Short(key), err))
					}
				}))
				<-began
			}
		}
		c.Settle()
		closed := time.Now()
		c.OK(l.Close(c.CtxFor(c.Limit())), "Close with holds and waiters")
		for _, end := range ends {
			c.Await(end, time.Until(closed.Add(c.Limit())), "each of %d waiters of 8 keys returns at the Close", len(ends))
		}
		mu.Lock()
		c.Must(len(wrong) == 0, "each waiter's Lock is ErrClosed at the Close", "%s", strings.Join(wrong, "; "))
		mu.Unlock()
		for _, h := range own {
			c.Must(harness.IsClosed(h.Done()), "the holds of a Locker end with its Close", "one lives")
			b.mustTry(h.Key(), c.hold()...).mustUnlock()
		}
	}
}

// keepsNothing: what is over is forgotten while the client stays open. Each use is done a first
// time, so that what grows only once has grown, and then several times over.
func keepsNothing(c *trial) {
	a, b := c.rawClient(), c.rawClient()
	held, err := b.Lock(c.Ctx, c.Key("held"), c.hold()...)
	c.OK(err, "Lock of a free key")
	second, err := b.Lock(c.Ctx, c.Key("held too"), c.hold()...)
	c.OK(err, "Lock of a free key")
	n := c.Rounds(10000, 150)
	seen := 0
	uses := []struct {
		what string
		use  func()
	}{
		{"keys that were seen once", func() {
			for range n {
				seen++
				h, err := a.Lock(c.Ctx, c.Key(fmt.Sprint("once ", seen)), c.hold()...)
				c.OK(err, "Lock of a free key")
				c.OK(h.Unlock(c.Ctx), "Unlock")
			}
		}},
		{"waiters that gave up", func() {
			const batch = 15 // so that there are many times at which nobody waits any more
			for range n / batch {
				ctx, cancel := context.WithCancel(c.Ctx)
				var all []<-chan struct{}
				for range batch {
					seen++
					key := []string{held.Key(), second.Key()}[seen%2]
					all = append(all, c.Spawn(func() { _, _ = a.Lock(ctx, key, append(c.hold(), harness.Patient())...) }))
				}
				c.Settle()
				cancel()
				for _, done := range all {
					<-done
				}
			}
		}},
		{"refused attempts", func() {
			for range n {
				_, _ = a.TryLock(c.Ctx, held.Key(), c.hold()...)
			}
		}},
		{"Contexts of a hold", func() {
			for range n {
				_, cancel := held.Context(c.Ctx)
				cancel()
			}
		}},
		{"leases that ran out", func() {
			for range n / 20 {
				seen++
				h, err := a.Lock(c.Ctx, c.Key(fmt.Sprint("out ", seen)), locker.WithTTL(c.shortest()+5*time.Millisecond))
				if err == nil {
					c.Await(h.Done(), c.Limit(), "Done closes")
				}
			}
		}},
	}
	for _, u := range uses {
		u.use()
	}
	c.quiet()
	stays := c.lasting()
	for _, u := range uses {
		goroutines := harness.CountLabelled(c.T.Name())
		before := heap()
		for range 2 {
			u.use()
		}
		c.quiet()
		grown := int64(heap()) - int64(before)
		now := harness.CountLabelled(c.T.Name())
		c.Must(now <= goroutines+5, "after "+u.what+" no goroutines are left", "%d more of them", now-goroutines)
		if c.Virtual { // in real time other tests run beside it
			// Less than an entry of a map with a key in it; and what the runtime itself may keep
			// of the goroutines and timers that there were.
			const each, runtimes = 100, 1 << 20
			c.Must(grown < int64(2*n*each)+runtimes, fmt.Sprintf("after %d %s less than %d bytes of each are kept", 2*n, u.what, each), "%d bytes in all", grown)
		}
	}
	c.OK(held.Unlock(c.Ctx), "Unlock")
	c.OK(second.Unlock(c.Ctx), "Unlock")
	for deadline := time.Now().Add(c.Limit()); c.lasting() >= stays+n; c.Sleep(c.Granularity()) {
		c.Must(time.Now().Before(deadline), fmt.Sprintf("in the store nothing lasts of %d keys that were seen once", 2*n), "%d entries more than before", c.lasting()-stays)
	}
}

// lasting is how many entries the store has that do not go by themselves, and are of a key of this trial, or of
// none that can be seen.
func (c *trial) lasting() (n int) {
	if c.target.Keys == nil {
		return 0
	}
	for _, k := range c.target.Keys(c.T) {
		if !k.Expires && (strings.Contains(k.Name, c.Unique) || !strings.Contains(k.Name, "conformance/")) {
			n++
		}
	}
	return n
}

// quiet lets what is over come to its end.
func (c *trial) quiet() {
	for range 3 {
		c.Sleep(2 * c.Granularity())
		runtime.GC()
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func isClosed(err error) bool { return errors.Is(err, locker.ErrClosed) }
