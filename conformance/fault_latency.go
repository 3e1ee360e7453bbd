package conformance

import (
	"context"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// latencies are how long each way takes: as in one region, across an ocean, and across
// two of them.
var latencies = []time.Duration{5 * time.Millisecond, 60 * time.Millisecond, 300 * time.Millisecond}

func slowCore(c *trial) {
	slowly(c, c.client(), func(d time.Duration) (*client, func()) {
		a := c.client()
		a.tap.All(func(ctx context.Context, call func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
			time.Sleep(d)
			g, err := call(ctx)
			time.Sleep(d)
			return g, err
		})
		return a, nil
	})
}

func slowOnLine(c *trial) {
	b := c.near()
	slowly(c, b, func(d time.Duration) (*client, func()) {
		a, line := c.distant()
		c.can(line.Latency != nil, "Latency")
		line.Latency(d)
		return a, line.Cut
	})
}

// slowly does all that one does with a lock, by a client that is far away.
func slowly(c *trial, b *client, open func(time.Duration) (a *client, cut func())) {
	f, sleeps := c.figures(), c.pulse()
	c.Together(len(latencies), func(i int) {
		a, cut := open(latencies[i])
		far := distance{c: c, a: a, b: b, d: latencies[i], f: f, sleeps: sleeps}
		kept := c.Spawn(far.keep)
		if cut == nil { // in the core
			far.handOver()
			c.Await(kept, c.Watchdog(), "the hold is kept")
			return
		}
		people, _ := open(latencies[i]) // busy enough to delay others of their client
		looked := c.Spawn(distance{c: c, a: people, b: b, d: latencies[i], f: f, sleeps: sleeps}.look)
		far.handOver()
		c.Await(kept, c.Watchdog(), "the hold is kept")
		c.Await(looked, c.Watchdog(), "what people ask from afar is answered")
		far.reconnect(cut)
		far.loses()
	})
	c.tell(f)
}

// distance is one client that is d away from the store, and one that is near.
type distance struct {
	c      *trial
	a, b   *client
	d      time.Duration
	f      *figures
	sleeps *pulse
}

func (x distance) trip() time.Duration { return 2 * x.d }

func (x distance) opts() []locker.Option {
	if x.c.leaf.kind == Lease {
		return []locker.Option{locker.WithTTL(x.c.life() + 10*x.trip())}
	}
	return nil
}

func (x distance) waiting() []locker.Option { return append(x.opts(), x.c.Polling()) }

func (x distance) key(name string) string { return x.c.Key(fmt.Sprint(name, " ", x.d)) }

func (x distance) add(what string, d time.Duration) {
	x.f.add(fmt.Sprintf("%s each way: %s after", x.d, what), d)
}

// keep keeps a hold for longer than it lasts by itself.
func (x distance) keep() {
	c := x.c
	before := time.Now()
	h := x.a.mustTry(x.key("kept"), x.opts()...)
	x.add("locked", time.Since(before))
	if c.leaf.kind == Lease {
		for range 3 {
			c.Sleep(c.life() / 2)
			c.OK(h.extend(c.life()+10*x.trip()), "Extend from %s away", x.d)
		}
	} else if c.Caps.SessionValidity > 0 {
		c.Sleep(c.Caps.SessionValidity * 5 / 4)
	}
	h.survives("a hold is kept from "+x.d.String()+" away", x.sleeps)
	h.mustLive(x.b)
	h.mustUnlock()
	c.free(x.b, c.recovery(), h.Key())
}

// look does what people do, and takes several keys at once, beside callers who never let the way to the
// store rest.
func (x distance) look() {
	c := x.c
	ctx, stop := context.WithCancel(c.Ctx)
	defer stop()
	for i := range 8 {
		c.Spawn(func() {
			for ctx.Err() == nil {
				if h, err := x.a.l.TryLock(ctx, x.key(fmt.Sprint("busy ", i)), x.opts()...); err == nil {
					_ = h.Unlock(c.Ctx)
				}
			}
		})
	}
	keys := []string{x.key("one of two"), x.key("two of two")}
	// Each has to wait for its turn among the others, on what connections a client may have.
	patience := func() context.Context { return c.CtxFor(c.Limit() + 20*x.trip()) }
	d := x.a.tap.Inner
	several := c.Spawn(func() {
		if p, ok := driver.As[driver.Pinger](d); ok {
			c.OK(p.Ping(patience()), "the driver's Ping from %s away", x.d)
		}
		all, err := x.a.lockAll(patience(), keys, c.hold()...)
		c.OK(err, "LockAll from %s away", x.d)
		x.b.mustHeld(keys[1], c.hold()...)
		c.OK(all.Unlock(patience()), "Unlock of all from %s away", x.d)
	})
	h := x.a.mustTry(x.key("looked at"), c.hold()...) // some stores take their time to connect
	if in, ok := driver.As[driver.Inspector](d); ok {
		info, held, err := in.Inspect(patience(), h.Key())
		c.OK(err, "the driver's Inspect from %s away", x.d)
		c.Must(held && info.Token == h.Token(), "Inspect from afar tells the token of what is held", "%v, %d instead of %d", held, info.Token, h.Token())
	}
	if l, ok := driver.As[driver.Lister](d); ok && c.Caps.Has.Has(driver.Listing) {
		told := 0
		for _, err := range l.List(patience(), h.Key()) {
			c.OK(err, "the driver's List from %s away", x.d)
			told++
		}
		c.Must(told == 1, "List from afar tells what is held", "%d holds instead of one", told)
	}
	h.survives("a hold is looked at from "+x.d.String()+" away", x.sleeps)
	if b, ok := driver.As[driver.Breaker](d); ok && c.Caps.Has.Has(driver.Breaking) {
		c.OK(b.Break(patience(), h.Key(), h.Token()), "the driver's Break from %s away", x.d)
	} else {
		h.mustUnlock()
	}

	c.Await(several, c.Watchdog(), "Ping and LockAll from afar end")
	c.free(x.b, c.recovery(), append(keys, h.Key())...)
}

// handOver passes a key there and back.
func (x distance) handOver() {
	c := x.c
	key := x.key("handed over")
	h := x.a.mustTry(key, x.opts()...)
	p := x.b.goLock(key, x.waiting()...)
	c.Settle()
	h.mustUnlock()
	near := p.granted(c.HandOver(), "a release from afar")
	x.a.mustHeld(key, x.opts()...)
	p = x.a.goLock(key, x.waiting()...)
	c.Sleep(x.trip() + c.Granularity())
	c.Must(!harness.IsClosed(p.done), "Lock from afar waits", "it returned: %v", p.outcome())
	before := time.Now()
	near.mustUnlock()
	h = p.granted(c.HandOver()+4*x.trip(), "a release")
	x.add("handed over", h.at.Sub(before))
	h.mustLive(x.b)
	h.mustUnlock()
	c.free(x.b, c.recovery(), key)
}

// loses: what an administrator deletes is heard of from afar too, and nothing else is.
func (x distance) loses() {
	c := x.c
	if c.inject().Delete == nil || !c.Caps.Has.Has(driver.PromptLoss) {
		return
	}
	kept := x.a.mustTry(x.key("not deleted"), c.hold()...)
	h := x.a.mustTry(x.key("deleted"), c.hold()...)
	x.b.mustHeld(kept.Key(), c.hold()...)
	c.inject().Delete(c.T, h.Key())
	c.Hist.Add("   (an administrator deletes %s)", c.Short(h.Key()))
	before := time.Now()
	c.Await(h.Done(), c.Prompt()+6*x.trip()+x.sleeps.longest(), "Done closes after a deletion, as PromptLoss is declared,")
	x.add("lost", time.Since(before))
	h.ended(locker.ReasonLost)
	kept.survives("another one was deleted", x.sleeps)
	kept.mustUnlock()
	c.free(x.b, c.recovery(), kept.Key(), h.Key())
}

// reconnect: to connect takes several trips, each far above what it takes nearby.
func (x distance) reconnect(cut func()) {
	c := x.c
	cut()
	before := time.Now()
	p := x.a.goLock(x.key("after the cut"), x.waiting()...)
	h := p.granted(c.recovery()+12*x.trip(), "the connection was cut")
	x.add("locked on a new connection", h.at.Sub(before))
	h.mustUnlock()
	c.free(x.b, c.recovery(), h.Key())
}
