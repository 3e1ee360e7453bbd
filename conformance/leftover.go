package conformance

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var needsNotifier = Need{
	name: "driver.Notifier", why: "the backend is no driver.Notifier",
	met: func(t *Target) bool { _, ok := driver.As[driver.Notifier](t.Backend); return ok },
}

var needsConnections = needAbility("Connections", func(t *Target) bool { return t.Connections != nil })

// listenersEnd: of a thousand Notifies that were stopped nothing is left. A release wakes those who
// listen, and no one else, and a client with such a past no more often than a new one.
func listenersEnd(c *trial) {
	x, fresh, holder := c.raw(), c.raw(), c.raw()
	key := c.Key("k")
	var stopped atomic.Int64
	listen := func(r *raw, key string, wake func()) (stop func()) {
		n, _ := driver.As[driver.Notifier](r.inner)
		return n.Notify(key, wake)
	}
	g := holder.take(key, c.ttl())
	other := holder.take(c.Key("other"), c.ttl())
	x.refused(key, c.Owner(), c.ttl())
	for i := range 1000 {
		k := []string{key, other.req.Key, c.Key(fmt.Sprint("seen once ", i))}[i%3]
		listen(x, k, func() { stopped.Add(1) })()
	}
	type ear struct {
		woken atomic.Int64
		first chan struct{}
	}
	ears := map[*raw]*ear{}
	for _, r := range []*raw{x, fresh} {
		e := &ear{first: make(chan struct{}, 1)}
		ears[r] = e
		r.refused(key, c.Owner(), c.ttl())
		defer listen(r, key, func() {
			e.woken.Add(1)
			select {
			case e.first <- struct{}{}:
			default:
			}
		})()
		r.refused(key, c.Owner(), c.ttl())
	}
	for range 20 { // and while somebody listens for another key
		listen(x, other.req.Key, func() { stopped.Add(1) })()
	}
	c.Settle()
	for _, e := range ears {
		e.woken.Store(0)
		select {
		case <-e.first:
		default:
		}
	}
	before := stopped.Load()
	g.mustRelease()
	other.mustRelease()
	woken := c.wakes(ears[fresh].first, c.Prompt()) // without announcements nobody is
	if woken {
		// The store may just be hearing of a thousand beginnings and ends.
		c.Must(c.wakes(ears[x].first, c.Limit()), "a release wakes who listens, after many who stopped", "it does not")
	}
	c.Settle()
	n, usual := ears[x].woken.Load(), ears[fresh].woken.Load()
	c.Must(n <= 3*usual+3, fmt.Sprintf("a release wakes who listens no more often than in a client where nobody stopped, %d times", usual), "%d times", n)
	c.Must(stopped.Load() == before, "who has stopped listening is never woken", "%d times", stopped.Load()-before)
}

// wakes says whether something comes of ch within d.
func (c *trial) wakes(ch <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ch:
		return true
	case <-timer.C:
		return false
	}
}

// connectionsEnd: looking at holds, listing and breaking them leaves no connection open. What a pool
// has grown to by the first ones it may keep.
func connectionsEnd(c *trial) {
	x, y := c.raw(), c.raw()
	under := c.Key("k") + "/"
	use := func(i int) {
		g := y.take(under+fmt.Sprint(i), c.ttl())
		if _, ok := driver.As[driver.Inspector](x.inner); ok {
			x.inspected(g.req.Key)
		}
		if c.Caps.Has.Has(driver.Listing) {
			x.listedOr(c.Claim("ADM-003"), under)
			ctx, cancel := context.WithCancel(c.Ctx)
			l, _ := driver.As[driver.Lister](x.inner)
			for range l.List(ctx, under) {
				if i%2 == 0 {
					break // or its caller leaves early
				}
				cancel() // while it tells
			}
			cancel()
		}
		if !c.Caps.Has.Has(driver.Breaking) {
			g.mustRelease()
			return
		}
		c.Claim("ADM-005").OK(x.breaking(g.req.Key, g.token), "Break of the holder's token")
	}
	c.Together(4, use)
	const many, spare = 30, 4
	most := c.target.Connections(c.T) + spare
	for i := range many {
		use(4 + i)
	}
	pause, deadline := c.Granularity(), time.Now().Add(c.Limit())
	for n := c.target.Connections(c.T); n > most; n = c.target.Connections(c.T) {
		c.Must(time.Now().Before(deadline), fmt.Sprintf("after %d times of Inspect, List and Break there are no more than %d connections", many, most), "%d", n)
		c.Sleep(pause)
	}
}

// givenUpEnd: calls that are given up, at any moment of a way that takes its time, leave nothing behind.
func givenUpEnd(c *trial) {
	b, line := c.inject().Client(c.T)
	c.OnClose(func(context.Context) { line.Heal() }) // before the client is closed
	x := c.rawOf(c.NextName(), b)
	c.can(line.Latency != nil, "Latency")
	c.OK(x.take(c.Key("first"), c.ttl()).release(), "the driver's Release")
	const way = 4 * time.Millisecond
	line.Latency(way)
	under := c.Key("k") + "/"
	held := x.take(under+"held", c.ttl())
	calls := []func(ctx context.Context){
		func(ctx context.Context) {
			if in, ok := driver.As[driver.Inspector](x.inner); ok {
				_, _, _ = in.Inspect(ctx, held.req.Key)
			}
		},
		func(ctx context.Context) {
			if p, ok := driver.As[driver.Pinger](x.inner); ok {
				_ = p.Ping(ctx)
			}
		},
		func(ctx context.Context) {
			if l, ok := driver.As[driver.Lister](x.inner); ok {
				for range l.List(ctx, under) {
				}
			}
		},
		func(ctx context.Context) {
			_, _ = x.inner.Acquire(ctx, driver.Request{Key: held.req.Key, Owner: c.Owner(), TTL: c.ttl(), Hold: newRecorder()})
		},
	}
	const lanes, most = 8, 16 // ways that a call may take
	round := func() {
		for _, call := range calls {
			c.Together(lanes, func(i int) {
				for n := i; n < 4*most; n += lanes {
					ctx, cancel := context.WithTimeout(c.Ctx, time.Duration(n)*way/4)
					call(ctx)
					cancel()
				}
			})
		}
	}
	// What a pool grows to it may keep, but it does not grow each time.
	const spare, tries = 8, 4
	round()
	for try := 1; ; try++ {
		before := harness.CountLabelled(c.T.Name())
		round()
		patience := c.Prompt()
		if try == tries {
			patience = c.Limit()
		}
		now := harness.CountLabelled(c.T.Name())
		for end := time.Now().Add(patience); now > before+spare && time.Now().Before(end); now = harness.CountLabelled(c.T.Name()) {
			c.Sleep(c.Granularity())
		}
		if now <= before+spare {
			break
		}
		c.Must(try < tries, fmt.Sprintf("after %d calls that were given up there are no more than %d goroutines more", 4*most*len(calls), spare), "%d more, as each time before", now-before)
	}
	held.mustRelease()
}
