package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

var mxCases = []Case{
	{ID: "MX-001", Kinds: both, CoreLoop: true, fn: oneHold, Parts: passed(passedExclusive), Clause: "one live hold per key at any instant"},
	{ID: "MX-002", Kinds: both, CoreLoop: true, fn: keysApart, Clause: "different keys never wait for each other"},
	{ID: "MX-003", Kinds: both, fn: notReentrant, Clause: "not re-entrant: a second TryLock by the same process is ErrHeld"},
	{ID: "MX-004", Kinds: both, CoreLoop: true, fn: kindsExclude, Clause: "a lease and a session on one key exclude each other"},
}

func oneHold(c *trial) {
	a, b := c.client(), c.client()

	key := c.key("plain")
	h := a.mustTry(key, c.hold()...)
	b.mustHeld(key, c.hold()...)
	h.mustLive(b, a)
	h.mustUnlock()
	h = b.mustTry(key, c.hold()...)
	a.mustHeld(key, c.hold()...)
	h.mustUnlock()

	ttl := func(*rand.Rand) time.Duration { return 0 }
	if c.leaf.kind == Lease {
		unit := c.unit() / 4
		ttl = func(r *rand.Rand) time.Duration { return unit/2 + time.Duration(r.Int64N(int64(unit))) }
	}
	log := c.hammer(hammer{
		clients: []*client{a, b}, keys: []string{c.key("x"), c.key("y"), c.key("z")},
		rounds: c.rounds(40, 10), ttl: ttl, stay: c.granularity() / 2, lapse: true,
	}, 12)
	c.checkSpans(log)

	// And both kinds at once, on one key.
	log = c.hammer(hammer{
		clients: []*client{a, b}, keys: []string{c.key("mixed")},
		rounds: c.rounds(30, 5), stay: c.granularity() / 4,
		ttl: func(r *rand.Rand) time.Duration {
			if r.IntN(2) == 0 {
				return 0
			}
			return c.unit()
		},
	}, 8)
	c.checkSpans(log)
}

func keysApart(c *trial) {
	a, b := c.client(), c.client()
	held := a.mustTry(c.key("held"), c.hold()...)
	// Whoever waits for one key must not stand in the way of another.
	var waiting []*pending
	for _, cl := range []*client{a, b} {
		waiting = append(waiting, cl.goLock(held.Key(), append(c.hold(), c.polling())...))
	}
	c.settle()

	const n = 64
	c.together(n, func(i int) {
		cl := []*client{a, b}[i%2]
		ctx, cancel := context.WithTimeout(c.ctx, c.limit())
		defer cancel()
		began := time.Now()
		h, err := cl.lock(ctx, c.key(fmt.Sprint("free ", i)), append(c.hold(), c.polling())...)
		c.ok(err, "Lock of a key that nobody holds, while another key is held and waited for,")
		late := time.Since(began)
		c.check(late <= c.limit(), "the Lock of a free key does not wait", "it took %s", late)
		h.mustLive()
	})
	for _, p := range waiting {
		c.must(!isClosed(p.done), "who waits for a key that is held goes on waiting", "Lock returned: %v", p.outcome())
	}
	held.mustLive()
	held.mustUnlock()
	first := waiting[0]
	select {
	case <-waiting[1].done:
		first = waiting[1]
		waiting[1] = waiting[0]
	case <-waiting[0].done:
	case <-c.ctx.Done():
	case <-time.After(c.limit()):
		c.fatal("one of those who wait gets the key after its release", "neither does")
	}
	first.granted(c.limit(), "the release").mustUnlock()
	waiting[1].granted(c.limit(), "the second release").mustUnlock()
}

func notReentrant(c *trial) {
	a := c.client()
	key := c.key("k")
	h := a.mustTry(key, c.hold()...)
	a.mustHeld(key, c.hold()...)
	a.mustHeld(key, locker.WithTTL(far))
	a.mustHeld(key, locker.WithSession())

	// Lock waits for its own process's hold as for anybody's.
	_, err := a.lock(c.ctxFor(c.unit()), key, c.hold()...)
	c.is(err, locker.ErrHeld, "a second Lock by the same process, given up,")
	c.must(errors.Is(err, context.DeadlineExceeded), "a second Lock by the same process waits until its ctx ends", "%v", err)

	h.mustLive(a)
	h.mustUnlock()
	a.mustTry(key, c.hold()...).mustUnlock()
}

// kindsExclude holds the case's kind and asks for the other one.
func kindsExclude(c *trial) {
	a, b := c.client(), c.client()
	key := c.key("k")
	mine, other := []locker.Option{locker.WithTTL(far)}, []locker.Option{locker.WithSession()}
	if c.leaf.kind == Session {
		mine, other = other, mine
	}
	for range 3 {
		h := a.mustTry(key, mine...)
		b.mustHeld(key, other...)
		a.mustHeld(key, other...)
		p := b.goLock(key, append(other, c.polling())...)
		c.settle()
		c.must(!isClosed(p.done), "the other kind waits while the key is held", "Lock returned: %v", p.outcome())
		h.mustLive(b)
		h.mustUnlock()
		got := p.granted(c.handOver(), "the release of the other kind")
		c.must(got.Session() != h.Session(), "Session tells the kinds apart", "%v for both", got.Session())
		a.mustHeld(key, mine...)
		a.mustHeld(key, other...)
		got.mustUnlock()
	}
}
