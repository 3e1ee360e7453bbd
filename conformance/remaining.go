package conformance

import (
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// needsRemaining: refusals say how long the key stays held.
func (c *trial) tellsRemaining() { // for a part that is about nothing else
	if !c.tellsRest() {
		c.Skip("the backend does not say how long a key stays held")
	}
}

// left makes sure that a refusal tells the truth about what g has left, to the millisecond.
// Where it tells nothing, that is the truth too.
func (g *grip) left(by *raw, ttl time.Duration) { g.leftBy(g.r.c.Claim("TTL-005"), by, ttl) }

// leftBy is left where another clause is broken if it does not.
func (g *grip) leftBy(claim harness.Claim, by *raw, ttl time.Duration) {
	c := g.r.c
	began := time.Now()
	err := by.refused(g.req.Key, c.Owner(), far)
	rest, ok := driver.Remaining(err)
	if !ok || rest < 0 {
		return
	}
	most := ttl - began.Sub(g.after) + time.Millisecond // the store may round up
	least := ttl - time.Since(g.before) - c.Prompt()
	claim.Must(rest <= most, fmt.Sprintf("what ErrHeld tells of a lease of %s after %s is at most what is left, %s", ttl, began.Sub(g.after), most), "%s", rest)
	claim.Must(rest >= least, fmt.Sprintf("what ErrHeld tells of a lease of %s after %s is about what is left, %s", ttl, began.Sub(g.after), most), "%s", rest)
}

// remainingTrue looks at a lease at a third, half and nine tenths of its life.
func remainingTrue(c *trial) {
	c.tellsRemaining()
	x, y := c.raw(), c.raw()
	ttl := c.lifetime()
	g := x.take(c.Key("k"), ttl)
	at := func(share time.Duration) {
		if d := time.Until(g.after.Add(ttl * share / 100)); d > 0 {
			c.Sleep(d)
		}
	}
	for _, share := range []time.Duration{0, 33, 50, 90} {
		if at(share); time.Since(g.before) < ttl*95/100 { // a busy machine may have missed it
			g.left(y, ttl)
			g.left(x, ttl)
		}
	}
	y.takeSoon(g.req.Key, far).mustRelease()

	// After an Extend it is the new time.
	g = x.take(c.Key("extended"), far)
	for _, ttl := range []time.Duration{2 * far, far / 2, far/2 + 321*time.Millisecond} { // no store counts in seconds
		g.before = time.Now()
		c.Claim("EXT-001").OK(g.extend(ttl), "the driver's Extend to %s", ttl)
		g.after = time.Now()
		g.left(y, ttl)
		g.left(x, ttl)
	}
	g.mustRelease()
}

// remainingOfSession compares what a refusal tells of a session with what the store has of it, which
// each renewal makes more.
func remainingOfSession(c *trial) {
	x, y := c.raw(), c.raw()
	in, ok := driver.As[driver.Inspector](y.inner)
	if c.Caps.SessionValidity == 0 || !ok {
		c.Skip("the backend's sessions have no end of their own, or nobody can see it")
	}
	g := x.take(c.Key("k"), 0)
	left := func(key string) time.Duration {
		info, held, err := in.Inspect(c.CtxFor(c.Limit()), key)
		c.OK(err, "Inspect")
		c.Claim("SES-001").Must(held, "the session is held", "it is free")
		c.Claim("INS-001").Must(info.Remaining <= c.Caps.SessionValidity, "Inspect tells of a session no more than its validity", "%s", info.Remaining)
		least := c.Caps.SessionValidity - time.Since(g.before) - c.Prompt() // each renewal makes more of it
		c.Claim("INS-001").Must(info.Remaining >= least, "Inspect tells of a session no less than what its grant gave it", "%s, and not %s", info.Remaining, least)
		return info.Remaining
	}
	for _, share := range []time.Duration{0, 12, 25, 50} {
		c.Sleep(time.Until(g.after.Add(c.Caps.SessionValidity * share / 100)))
		for _, by := range []*raw{y, x} {
			began := time.Now()
			before := left(g.req.Key)
			err := by.refused(g.req.Key, c.Owner(), 0)
			told, ok := driver.Remaining(err)
			after := left(g.req.Key)
			if !ok || told < 0 {
				continue
			}
			// If it was renewed meanwhile the later look says what it had, and the earlier one otherwise.
			took := time.Since(began)
			most, least := max(before, after+took)+2*time.Millisecond, min(before-took, after)-c.Prompt() // the store may round
			c.Must(told <= most, fmt.Sprintf("what ErrHeld tells of a session is at most what is left, %s", most), "%s", told)
			c.Must(told >= least, fmt.Sprintf("what ErrHeld tells of a session is about what is left, %s", before), "%s", told)
		}
	}
	g.mustRelease()
}

// lateWaiter comes when nine tenths of the holder's time are over, and is there at its end.
func lateWaiter(c *trial) {
	a, b := c.client(), c.client()
	late := c.HandOver()
	waits := c.Polling()
	if b.waits() || c.tellsRest() {
		waits, late = locker.WithRetry(locker.Retry{Attempts: locker.Forever, Delay: far}), c.Prompt()
	}
	for _, share := range []time.Duration{10, 50, 90} {
		ttl := c.lifetime()
		h := a.mustTry(c.Key(fmt.Sprint(share)), locker.WithTTL(ttl))
		c.Sleep(time.Until(h.at.Add(ttl * share / 100)))
		p := b.goLock(h.Key(), append(c.hold(), waits)...)
		got := p.granted(c.Limit(), "the end of the holder's ttl")
		after := p.at.Sub(h.at.Add(ttl))
		if after > late {
			c.lateness().Fatal(fmt.Sprintf("one who began to wait after %d %% of the holder's ttl has the key no more than %s after its end", share, late), "%s after", after)
		}
		got.mustUnlock()
	}
}

// scaleOfTTL: long ones are as long as they say, for the store too.
func scaleOfTTL(c *trial) {
	x, y := c.raw(), c.raw()
	const day = 24 * time.Hour
	own := c.Claim(c.ID)
	for _, ttl := range []time.Duration{
		time.Hour, day, 24*day + 20*time.Hour + 31*time.Minute + 24*time.Second, // just above 2^31 ms
		30 * day, 49*day + 18*time.Hour, // just above 2^32 ms
		69 * time.Minute, 72 * time.Minute, // about 2^32 µs
		365 * day, locker.MaxTTL,
	} {
		g := x.take(c.Key(ttl.String()), ttl)
		g.leftBy(own, y, ttl)
		c.Sleep(c.Granularity())
		y.refused(g.req.Key, c.Owner(), ttl)
		g.before = time.Now()
		c.OK(g.extend(ttl), "the driver's Extend to %s", ttl)
		g.after = time.Now()
		g.leftBy(own, x, ttl)
		c.Sleep(c.Granularity())
		y.refused(g.req.Key, c.Owner(), ttl)
		g.mustRelease()

		// From the longest to short.
		g = x.take(g.req.Key, ttl)
		began := time.Now()
		c.OK(g.extend(c.Unit()), "the driver's Extend from %s to %s", ttl, c.Unit())
		y.endsAt(g.req.Key, began.Add(c.Unit()), time.Now().Add(c.Unit()), "after an Extend from "+ttl.String()+" to less").mustRelease()
	}

	// The shortest ends at once.
	shortest := c.shortest()
	for range 5 {
		g := x.take(c.Key("shortest"), shortest)
		y.endsAt(g.req.Key, g.before.Add(shortest), g.after.Add(shortest), "of the shortest ttl").mustRelease()
	}
}

// remainingOfLong: what the store has of a long lease, as can be seen, is told to those who are refused, too.
func remainingOfLong(c *trial) {
	c.tellsRemaining()
	x, y := c.raw(), c.raw()
	for _, ttl := range []time.Duration{36 * time.Hour, 50 * 24 * time.Hour, 400 * 24 * time.Hour} {
		g := x.take(c.Key(ttl.String()), ttl)
		info, ok := y.inspected(g.req.Key)
		c.Claim("TTL-003").Must(ok, "a long lease is held", "%s is free at once", g.req.Key)
		if over := ttl - info.Remaining; over >= -time.Millisecond && over <= time.Since(g.before)+c.Prompt() { // otherwise that is wrong: TTL-003, INS-001
			g.left(y, ttl)
			g.left(x, ttl)
		}
		_ = g.release()
	}
}

// remainingAfterStall: a refusal that had to wait for the store tells what is left then, and not when it was asked for.
func remainingAfterStall(c *trial) {
	x, y := c.nearRaw(), c.nearRaw()
	g, before := x.take(c.Key("k"), far), y.take(c.Key("first"), far)
	before.mustRelease() // what a first use costs is paid
	goOn := c.stalls()
	var err error
	refused := c.Spawn(func() {
		ctx := c.CtxFor(c.Limit())
		_, err = y.Acquire(ctx, driver.Request{Key: g.req.Key, Owner: c.Owner(), TTL: far, Hold: newRecorder()})
	})
	const stall = 300 * time.Millisecond
	c.Sleep(stall)
	resumed := time.Now()
	goOn()
	c.Await(refused, c.Limit(), "an attempt ends when the store goes on")
	if told, ok := driver.Remaining(err); ok && told >= 0 {
		most := far - resumed.Sub(g.after) + stall/6
		c.Must(told <= most, fmt.Sprintf("what ErrHeld tells, after the store stood still for %s, is at most what is left, %s", stall, most), "%s", told)
	}
	g.mustRelease()
}
