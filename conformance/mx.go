package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
)

var mxCases = []Case{
	{ID: "MX-001", Kinds: both, CoreLoop: true, fn: oneHold, Parts: []Part{
		{Name: "refused", fn: refusedAcquire},
		{Name: "race", fn: acquireRace},
		{Name: "newcomer", fn: newcomer},
		passed(passedExclusive)[0],
	}, Clause: "one live hold per key at any instant"},
	{ID: "MX-002", Kinds: both, CoreLoop: true, fn: keysApart, Parts: []Part{{Name: "refusals", fn: refusalsApart}, {Name: "ending", Kinds: []Kind{Lease}, fn: endingApart}, {Name: "afar", Needs: []Need{needsLine}, fn: afarApart}}, Clause: "different keys never wait for each other"},
	{ID: "MX-003", Kinds: both, fn: notReentrant, Parts: []Part{{Name: "siblings", fn: siblings}}, Clause: "not re-entrant: a second TryLock by the same process is ErrHeld"},
	{ID: "MX-004", Kinds: both, CoreLoop: true, fn: kindsExclude, Clause: "a lease and a session on one key exclude each other"},
}

func oneHold(c *trial) {
	a, b := c.client(), c.client()

	key := c.Key("plain")
	h := a.mustTry(key, c.hold()...)
	b.mustHeld(key, c.hold()...)
	h.mustLive(b, a)
	h.mustUnlock()
	h = b.mustTry(key, c.hold()...)
	a.mustHeld(key, c.hold()...)
	h.mustUnlock()

	ttl := func(*rand.Rand) time.Duration { return 0 }
	if c.leaf.kind == Lease {
		unit := c.Unit() / 4
		ttl = func(r *rand.Rand) time.Duration { return unit/2 + time.Duration(r.Int64N(int64(unit))) }
	}
	log := c.hammer(hammer{
		clients: []*client{a, b}, keys: []string{c.Key("x"), c.Key("y"), c.Key("z")},
		rounds: c.Rounds(40, 10), ttl: ttl, stay: c.Granularity() / 2, lapse: true,
	}, 12)
	c.checkSpans(log)

	// And both kinds at once, on one key.
	log = c.hammer(hammer{
		clients: []*client{a, b}, keys: []string{c.Key("mixed")},
		rounds: c.Rounds(30, 5), stay: c.Granularity() / 4,
		ttl: func(r *rand.Rand) time.Duration {
			if r.IntN(2) == 0 {
				return 0
			}
			return c.Unit()
		},
	}, 8)
	c.checkSpans(log)
}

func keysApart(c *trial) {
	a, b := c.client(), c.client()
	held := a.mustTry(c.Key("held"), c.hold()...)
	// Whoever waits for one key must not stand in the way of another.
	var waiting []*pending
	for _, cl := range []*client{a, b} {
		waiting = append(waiting, cl.goLock(held.Key(), append(c.hold(), c.Polling())...))
	}
	c.Settle()

	const n = 64
	c.Together(n, func(i int) {
		cl := []*client{a, b}[i%2]
		ctx, cancel := context.WithTimeout(c.Ctx, c.Limit())
		defer cancel()
		began := time.Now()
		h, err := cl.lock(ctx, c.Key(fmt.Sprint("free ", i)), append(c.hold(), c.Polling())...)
		c.OK(err, "Lock of a key that nobody holds, while another key is held and waited for,")
		late := time.Since(began)
		c.Check(late <= c.Limit(), "the Lock of a free key does not wait", "it took %s", late)
		h.mustLive()
	})
	for _, p := range waiting {
		c.Must(!harness.IsClosed(p.done), "who waits for a key that is held goes on waiting", "Lock returned: %v", p.outcome())
	}
	held.mustLive()
	held.mustUnlock()
	first := waiting[0]
	select {
	case <-waiting[1].done:
		first = waiting[1]
		waiting[1] = waiting[0]
	case <-waiting[0].done:
	case <-c.Ctx.Done():
	case <-time.After(c.Limit()):
		c.Fatal("one of those who wait gets the key after its release", "neither does")
	}
	first.granted(c.Limit(), "the release").mustUnlock()
	waiting[1].granted(c.Limit(), "the second release").mustUnlock()
}

// refusalsApart: those who ask again and again for a key that is held keep nobody from another. The
// quickest of many calls is compared, without them and beside them: a busy machine delays some
// calls, and a lock that a refused attempt keeps while it waits delays each.
func refusalsApart(c *trial) {
	a, b := c.client(), c.client()
	held := a.mustTry(c.Key("held"), c.hold()...)
	tries := 0
	quickest := func(cl *client) time.Duration {
		least := far
		for range 12 {
			tries++
			began := time.Now()
			cl.mustTry(c.Key(fmt.Sprint("free ", tries)), c.hold()...).mustUnlock()
			least = min(least, time.Since(began))
		}
		return least
	}
	for _, cl := range []*client{b, a} { // the client of those who ask, and another one
		most := 10*quickest(cl) + c.Granularity()
		stop := c.refusedAgain(b, held.Key())
		beside := far
		for n := 0; n < 3 && beside > most; n++ {
			beside = min(beside, quickest(cl))
		}
		stop()
		c.Must(beside <= most, fmt.Sprintf("while attempts at another key are refused, one after the other, the quickest of many a TryLock and Unlock of %s takes no more than %s", cl.name, most), "%s", beside)
	}
	held.mustLive()
	held.mustUnlock()
}

// endingApart: a key that is about to become free keeps nobody from another, and is not worth waiting for to a
// TryLock. A busy machine delays some calls at any time, so that the quietest end of several lives is compared with
// the quietest middle, which is longer.
func endingApart(c *trial) {
	a, b := c.client(), c.client()
	ttl := c.Unit()
	ends := ttl / 4 // what is looked at
	slowest := func(key string, until time.Time) (late time.Duration) {
		tries := 0
		for time.Now().Before(until) && c.Ctx.Err() == nil {
			tries++
			began := time.Now()
			a.mustTry(c.Key(fmt.Sprint("beside ", key, " ", tries)), c.hold()...).mustUnlock()
			late = max(late, time.Since(began))
			if c.Virtual {
				c.Sleep(ends / 8)
			}
		}
		return late
	}
	inTheMiddle, atTheEnd := far, far
	for round := range c.Rounds(6, 5) {
		key := c.Key(fmt.Sprint("ends ", round))
		h := a.mustTry(key, locker.WithTTL(ttl))
		ended := h.deadline()
		over := c.Spawn(func() { // somebody asks for it all the time
			for time.Now().Before(ended) && c.Ctx.Err() == nil {
				if h, err := b.try(key, locker.WithTTL(ttl)); err == nil {
					if err := h.unlock(); time.Now().Before(h.deadline()) {
						c.Claim("TTL-002").OK(err, "Unlock of a lease whose time is not over")
					}
					return
				}
				c.Sleep(ends / 16)
			}
		})
		inTheMiddle = min(inTheMiddle, slowest(fmt.Sprint("in the middle ", round), ended.Add(-ends)))
		atTheEnd = min(atTheEnd, slowest(fmt.Sprint("at the end ", round), ended.Add(ends/8)))
		c.Await(over, c.Limit(), "a TryLock of a key that is about to become free returns")
	}
	most := 3*inTheMiddle + c.Granularity()/4
	c.Must(atTheEnd <= most, fmt.Sprintf("the slowest TryLock and Unlock of another key, at the end of a lease that somebody asks for, takes no more than %s at least once", most), "%s", atTheEnd)
}

// afarApart: from far away many keys at once take little longer than one.
func afarApart(c *trial) {
	const many, way = 24, 100 * time.Millisecond
	x, line := c.distantRaw()
	c.can(line.Latency != nil, "Latency")
	grips := make([]*grip, many)
	take := func(round int) func(i int) {
		return func(i int) { grips[i] = x.take(c.Key(fmt.Sprintf("%d of round %d", i, round)), c.ttl()) }
	}
	release := func(i int) { grips[i].mustRelease() }
	took := func(call func(i int)) time.Duration {
		began := time.Now()
		c.Together(many, call)
		return time.Since(began)
	}
	took(take(0)) // what a pool grows to it has
	took(release)
	line.Latency(way)
	taken, released := far, far
	for round := range 3 {
		taken = min(taken, took(take(1+round)))
		released = min(released, took(release))
	}
	const most = many * way // half of one after the other: a store may have fewer connections than there are keys
	for what, least := range map[string]time.Duration{"Acquire": taken, "Release": released} {
		c.Must(least <= most, fmt.Sprintf("%s of %d keys at once, from %s away, takes no more than %s at least once", what, many, way, most), "%s", least)
	}
}

// refusedAgain has several callers of cl ask for key, which is held, one time after the other, until
// stop is called. It returns when each has been refused.
func (c *trial) refusedAgain(cl *client, key string) (stop func()) {
	var over atomic.Bool
	var ends []<-chan struct{}
	few := locker.WithRetry(locker.Retry{Attempts: 1, Delay: time.Millisecond, Jitter: locker.NoJitter})
	for range 6 {
		refused := make(chan struct{})
		first := sync.OnceFunc(func() { close(refused) })
		ends = append(ends, c.Spawn(func() {
			for !over.Load() && c.Ctx.Err() == nil {
				cl.mustHeld(key, c.hold()...)
				_, err := cl.lock(c.Ctx, key, append(c.hold(), few)...)
				c.Claim("MX-001").Must(err != nil, "Lock of a key that is held is not granted", "it was granted")
				c.Claim("ERR-002").Is(err, locker.ErrHeld, "Lock of a key that is held, with one more attempt,")
				first()
			}
		}))
		c.Await(refused, c.Limit(), "an attempt at a key that is held is refused")
	}
	return func() {
		over.Store(true)
		for _, end := range ends {
			c.Await(end, c.Limit(), "who is refused comes to an end")
		}
	}
}

func notReentrant(c *trial) {
	a := c.client()
	key := c.Key("k")
	h := a.mustTry(key, c.hold()...)
	a.mustHeld(key, c.hold()...)
	a.mustHeld(key, locker.WithTTL(far))
	a.mustHeld(key, locker.WithSession())

	// Lock waits for its own process's hold as for anybody's.
	_, err := a.lock(c.CtxFor(c.Unit()), key, c.hold()...)
	c.Is(err, locker.ErrHeld, "a second Lock by the same process, given up,")
	c.Claim("CTX-003").Must(errors.Is(err, context.DeadlineExceeded), "a second Lock by the same process waits until its ctx ends", "%v", err)

	h.mustLive(a)
	h.mustUnlock()
	a.mustTry(key, c.hold()...).mustUnlock()
}

// kindsExclude holds the case's kind and asks for the other one.
func kindsExclude(c *trial) {
	a, b := c.client(), c.client()
	key := c.Key("k")
	mine, other := []locker.Option{locker.WithTTL(far)}, []locker.Option{locker.WithSession()}
	if c.leaf.kind == Session {
		mine, other = other, mine
	}
	for range 3 {
		h := a.mustTry(key, mine...)
		b.mustHeld(key, other...)
		a.mustHeld(key, other...)
		p := b.goLock(key, append(other, c.Polling())...)
		c.Settle()
		c.Must(!harness.IsClosed(p.done), "the other kind waits while the key is held", "Lock returned: %v", p.outcome())
		h.mustLive(b)
		late := c.client() // to open a client does nothing to what is held
		late.mustHeld(key, mine...)
		h.mustLive(b)
		h.mustUnlock()
		got := p.granted(c.HandOver(), "the release of the other kind")
		c.Must(got.Session() != h.Session(), "Session tells the kinds apart", "%v for both", got.Session())
		a.mustHeld(key, mine...)
		a.mustHeld(key, other...)
		got.mustUnlock()
	}
}

// newcomer: a client that opens, and clears away what is over, takes nothing from those who hold, however
// long they do.
func newcomer(c *trial) {
	x := c.raw()
	var all []*grip
	for i, ttl := range []time.Duration{far, 2 * time.Hour, 49 * 24 * time.Hour, locker.MaxTTL} {
		if c.leaf.kind == Session {
			ttl = 0
		}
		all = append(all, x.take(c.Key(fmt.Sprint(i)), ttl))
	}
	for i := range 3 {
		y := c.raw() // opens
		y.take(c.Key(fmt.Sprint("other ", i)), c.ttl()).mustRelease()
		for _, g := range all {
			y.refused(g.req.Key, c.Owner(), far)
		}
		c.OK(y.Close(c.CtxFor(c.Limit())), "the driver's Close")
	}
	for _, g := range all {
		g.mustRelease()
	}
	if c.leaf.kind == Session {
		return
	}
	// And however little is left of a lease.
	ttl := c.lifetime()
	c.Together(4, func(i int) {
		c.Sleep(ttl * time.Duration(i) / 4)
		g := x.take(c.Key(fmt.Sprint("ends soon ", i)), ttl)
		c.Sleep(time.Until(g.after.Add(ttl * 85 / 100)))
		y := c.raw()
		next, err := y.acquire(g.req.Key, c.Owner(), far)
		if err == nil {
			early := g.before.Add(ttl).Sub(next.after)
			c.Must(early <= 0, "a client that opens shortly before the end of a lease does not get its key", "it has it %s before", early)
			next.mustRelease()
		}
	})
}
