package conformance

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var sessionCases = []Case{
	{ID: "SES-001", Clause: "a session lasts until it is released, however many there are, and whatever becomes of the others", Parts: []Part{
		{Name: "many", fn: manySessions},
		{Name: "one-lost", Needs: []Need{needsDelete}, fn: sessionsApart},
		{Name: "churn", fn: sessionsComeAndGo},
		{Name: "in-time", fn: renewedInTime},
		{Name: "asked-for", fn: renewedThoughAskedFor},
		{Name: "clock", fn: sessionClock},
		{Name: "stall", Needs: []Need{needsPause}, fn: func(c *trial) { interrupted(c, c.stalls) }},
		{Name: "late", Needs: []Need{needsLine}, fn: grantedLate},
		{Name: "beside", Needs: []Need{needsLine}, fn: renewedBeside},
		{Name: "refused", Needs: []Need{needsRefuse}, fn: func(c *trial) { interrupted(c, c.refuses) }},
	}},
	{ID: "SES-002", Clause: "a session that is over is not kept alive and not brought back: after a release, even one that failed, and after a loss", Parts: []Part{
		{Name: "released", fn: notRenewedAfterRelease},
		{Name: "failed-release", fn: notRenewedAfterFailure},
		{Name: "refused-release", Needs: []Need{needsRefuse}, fn: notRenewedAfterRefusal},
		{Name: "deleted", Needs: []Need{needsDelete}, fn: notResurrected},
		{Name: "taken", Needs: []Need{needsDelete}, fn: notRenewedForOthers},
		{Name: "unheard", Needs: []Need{needsLine, needsRemove}, fn: notResurrectedUnheard},
	}},
}

// manySessions are more than a batch of renewals holds, begun at different moments, and some of
// them released again between the others.
func manySessions(c *trial) {
	x, y := c.raw(), c.raw()
	const n = 150
	var all []*grip
	for i := range n {
		all = append(all, x.take(c.Key(fmt.Sprint(i)), 0))
		if i%10 == 9 {
			c.Sleep(c.outlast() / 100)
		}
	}
	lives := all[:0]
	for i, g := range all {
		if i%5 == 0 {
			g.mustRelease()
		} else {
			lives = append(lives, g)
		}
	}
	c.Sleep(c.outlast())
	for _, g := range lives {
		g.silent("each of many sessions")
		y.refused(g.req.Key, c.Owner(), far)
	}
	for _, g := range lives {
		g.mustRelease()
		y.take(g.req.Key, 0).mustRelease()
	}
}

// sessionsApart: what one of them has lost, and what a renewal finds out about it, is nothing to
// the others.
func sessionsApart(c *trial) {
	x, y := c.raw(), c.raw()
	const n = 20
	var all []*grip
	for i := range n {
		all = append(all, x.take(c.Key(fmt.Sprint(i)), 0))
	}
	c.target.Delete(c.T, all[0].req.Key)
	c.target.Delete(c.T, all[n/2].req.Key)
	c.Hist.Add("   (an administrator deletes two of %d)", n)
	taken := y.take(all[n/2].req.Key, 0)
	c.Sleep(c.outlast())
	gone := []*grip{all[0], all[n/2]}
	for _, g := range all {
		if slices.Contains(gone, g) {
			continue
		}
		g.silent("a session beside others that were deleted")
		y.refused(g.req.Key, c.Owner(), far)
	}
	for _, g := range gone {
		c.Claim("LOSS-002").Is(g.hearsOr(c.Claim("SES-002"), c.Prompt(), "a session that was deleted"), driver.ErrLost, "what it hears")
	}
	taken.silent("the one who took what was deleted")
	x.refused(taken.req.Key, c.Owner(), far)
	taken.mustRelease()
}

// sessionsComeAndGo beside those that last: whenever a renewal begins, some of what it is about to renew is released
// before its turn comes.
func sessionsComeAndGo(c *trial) {
	x, y := c.raw(), c.raw()
	var lasting []*grip
	for i := range 3 {
		lasting = append(lasting, x.take(c.Key(fmt.Sprint("lasting ", i)), 0))
	}
	var over atomic.Bool
	var ends []<-chan struct{}
	for i := range 32 {
		key := c.Key(fmt.Sprint("brief ", i))
		ends = append(ends, c.Spawn(func() {
			for !over.Load() && c.Ctx.Err() == nil {
				g := x.take(key, 0)
				c.Sleep(time.Millisecond) // one that is released at once is hardly ever about to be renewed
				g.mustRelease()
			}
		}))
	}
	c.Sleep(c.outlast() * 3 / 2)
	over.Store(true)
	for _, end := range ends {
		c.Await(end, c.Limit(), "those that come and go end")
	}
	for _, g := range lasting {
		g.silent("a session beside many that come and go")
		y.refused(g.req.Key, c.Owner(), far)
		g.mustRelease()
	}
}

// renewedInTime: a renewal comes so early that one may fail.
func renewedInTime(c *trial) {
	x, y := c.raw(), c.raw()
	in, ok := driver.As[driver.Inspector](x.inner)
	if c.Caps.SessionValidity == 0 || !ok {
		c.Skip("the backend's sessions have no end of their own, or nobody can see it")
	}
	g := x.take(c.Key("k"), 0)
	f := c.figures()
	least := c.Caps.SessionValidity
	for end := time.Now().Add(c.outlast() * 2); time.Now().Before(end); c.Sleep(c.Caps.SessionValidity / 50) {
		info, held, err := in.Inspect(c.CtxFor(c.Limit()), g.req.Key)
		c.OK(err, "Inspect")
		c.Must(held, "the session is held", "it is free")
		c.Must(info.Remaining <= c.Caps.SessionValidity, "a session has no more than its validity left", "%s", info.Remaining)
		least = min(least, info.Remaining)
	}
	f.add("a session had left at least", least)
	c.Must(least+c.Prompt() >= c.Caps.SessionValidity/3, "a session is renewed so early that a renewal may fail: before two thirds of its validity are over", "it had %s of %s left", least, c.Caps.SessionValidity)
	c.tell(f)
	y.refused(g.req.Key, c.Owner(), far)
	g.mustRelease()
}

// grantedLate: when the answer to its attempt came, much of a session's validity was over, so that the
// first renewal is due at once. In some lanes it is answered as late, and so is each one after it.
func grantedLate(c *trial) {
	y := c.nearRaw()
	if c.Caps.SessionValidity == 0 {
		c.Skip("the backend's sessions have no end of their own")
	}
	sleeps := c.pulse()
	ways := []struct {
		percent time.Duration // of the validity, each way
		heals   bool
	}{{35, true}, {35, true}, {22, true}, {18, false}, {18, false}}
	c.Together(len(ways), func(i int) {
		x, line := c.distantRaw()
		c.can(line.Latency != nil, "Latency")
		x.take(c.Key(fmt.Sprint("first ", i)), 0).mustRelease() // it is connected now
		way := c.Caps.SessionValidity * ways[i].percent / 100
		if most := latencies[len(latencies)-1]; !ways[i].heals && way > most*3/2 {
			way = most // how long a backend waits for an answer is its own affair
		}
		line.Latency(way)
		g := x.take(c.Key(fmt.Sprint(i)), 0)
		if ways[i].heals {
			line.Heal()
		}
		c.Sleep(c.outlast() * 3 / 2)
		if slept := sleeps.longest(); slept > c.Caps.SessionValidity/16 {
			c.Skip(fmt.Sprintf("this machine is too busy: its process slept for %s, and a session lasts %s", slept.Round(time.Millisecond), c.Caps.SessionValidity))
		}
		g.silent(fmt.Sprintf("a session whose grant took %s of its validity, %s,", 2*way, c.Caps.SessionValidity))
		y.refused(g.req.Key, c.Owner(), far)
		line.Heal()
		g.mustRelease()
	})
}

// renewedBeside: from far away a session is kept beside others of its client that come and go, some of them while
// they are being renewed.
func renewedBeside(c *trial) {
	y := c.nearRaw()
	if c.Caps.SessionValidity == 0 {
		c.Skip("the backend's sessions have no end of their own")
	}
	sleeps := c.pulse()
	x, line := c.distantRaw()
	c.can(line.Latency != nil, "Latency")
	x.take(c.Key("first"), 0).mustRelease() // it is connected now
	way := min(c.Caps.SessionValidity*12/100, latencies[len(latencies)-1])
	line.Latency(way)
	g := x.take(c.Key("kept"), 0)
	over := time.Now().Add(3 * c.Caps.SessionValidity)
	c.Together(24, func(i int) {
		r := c.Rand()
		for n := 0; time.Now().Before(over) && c.Ctx.Err() == nil; n++ {
			other := x.take(c.Key(fmt.Sprintf("%d of %d", n, i)), 0)
			c.Sleep(time.Duration(r.Int64N(int64(2 * way))))
			_ = other.release()
		}
	})
	if slept := sleeps.longest(); slept > c.Caps.SessionValidity/16 {
		c.Skip(fmt.Sprintf("this machine is too busy: its process slept for %s, and a session lasts %s", slept.Round(time.Millisecond), c.Caps.SessionValidity))
	}
	g.silent(fmt.Sprintf("a session that is kept from %s away, beside others that come and go,", way))
	y.refused(g.req.Key, c.Owner(), far)
	line.Heal()
	g.mustRelease()
}

// sessionClock: what a backend that can look at the clock says of its sessions.
func sessionClock(c *trial) {
	x, y := c.raw(), c.raw()
	clock, ok := driver.As[driver.SessionClock](x.inner)
	if !ok {
		c.Skip("the backend is no driver.SessionClock")
	}
	g := x.take(c.Key("k"), 0)
	for range 5 {
		c.OK(clock.SessionErr(g.holder()), "SessionErr of a session that lasts")
		c.Sleep(c.outlast() / 5)
	}
	c.OK(clock.SessionErr(driver.Holder{Key: g.req.Key, Owner: c.Owner(), Session: true}), "SessionErr of a session that the backend does not know")
	y.refused(g.req.Key, c.Owner(), far)
	g.mustRelease()
}

// notRenewedAfterRelease: whoever has the key next has it alone, for as long as it likes.
func notRenewedAfterRelease(c *trial) {
	x, y := c.raw(), c.raw()
	g := x.take(c.Key("taken"), 0)
	free := x.take(c.Key("free"), 0)
	c.Sleep(c.outlast() / 4) // between two renewals
	g.mustRelease()
	free.mustRelease()
	next := y.take(g.req.Key, 0)
	next.lasts(x, "the session of another client after the release")
	g.silent("one who has released")
	free.silent("one who has released")
	next.mustRelease()
	x.take(free.req.Key, c.shortest())
}

// notRenewedAfterFailure: a lock that nobody wants must not outlive its validity because the
// release did not get through.
func notRenewedAfterFailure(c *trial) {
	if c.Caps.SessionValidity == 0 {
		c.Skip("the backend's sessions have no end of their own")
	}
	x, y := c.raw(), c.raw()
	g := x.take(c.Key("k"), 0)
	c.Sleep(c.outlast() / 4)
	err := x.Release(ended(), g.holder())
	c.Claim("ERR-002").Must(err == nil || !errors.Is(err, driver.ErrHeld), "a Release with a ctx that has ended gives nil or its ctx's error", "%v", err)
	y.freeInValidity(g.req.Key)
}

// notRenewedAfterRefusal: nor because the store refused it.
func notRenewedAfterRefusal(c *trial) {
	x, y := c.nearRaw(), c.nearRaw()
	if c.Caps.SessionValidity == 0 {
		c.Skip("the backend's sessions have no end of their own")
	}
	g := x.take(c.Key("k"), 0)
	accept := c.refuses()
	err := g.release()
	accept()
	if err == nil {
		c.Note("the store releases while it grants nothing")
	}
	y.freeInValidity(g.req.Key)
}

// freeInValidity waits for the end of a session that was to be released, and is renewed no more.
func (r *raw) freeInValidity(key string) {
	c := r.c
	for end := time.Now().Add(c.Caps.SessionValidity + c.Prompt()); ; c.Sleep(c.Granularity()) {
		next, err := r.acquire(key, c.Owner(), 0)
		if err == nil {
			next.mustRelease()
			return
		}
		c.Is(err, driver.ErrHeld, "the driver's Acquire")
		c.Must(time.Now().Before(end), "after a Release that failed a session is not kept alive: the key is free after its validity, "+c.Caps.SessionValidity.String(), "it is held")
	}
}

// notResurrected: a renewal of what is no longer there makes nothing.
func notResurrected(c *trial) {
	x, y := c.raw(), c.raw()
	g := x.take(c.Key("k"), 0)
	c.target.Delete(c.T, g.req.Key)
	c.Hist.Add("   (an administrator deletes %s)", c.Short(g.req.Key))
	c.Sleep(c.outlast())
	c.Claim("LOSS-002").Is(g.hears(c.Prompt(), "a session that was deleted"), driver.ErrLost, "what it hears")
	next := y.take(g.req.Key, 0)
	c.Claim("REL-002").Is(g.release(), driver.ErrLost, "the driver's Release of a session that was deleted")
	next.lasts(x, "the session after one that was deleted")
	next.mustRelease()
}

// notRenewedForOthers: a renewal looks at the owner. The next holder's lease ends in its time.
func notRenewedForOthers(c *trial) {
	x, y := c.raw(), c.raw()
	ttls := []time.Duration{c.outlast()}
	if v := c.Caps.SessionValidity; v > 0 {
		ttls = append(ttls, v) // the two end at nearly the same moment
	}
	c.Together(len(ttls), func(i int) {
		g, ttl := x.take(c.Key(fmt.Sprint(i)), 0), ttls[i]
		c.target.Delete(c.T, g.req.Key)
		next := y.take(g.req.Key, ttl)
		y.endsAt(g.req.Key, next.before.Add(ttl), next.after.Add(ttl), "after a lease that followed a session which was deleted").mustRelease()
		c.Claim("LOSS-002").Is(g.hears(c.Prompt(), "a session that was taken over"), driver.ErrLost, "what it hears")
	})
}

// notResurrectedUnheard: it was deleted while nothing came through to its holder, and that it is gone shows in the next
// renewal.
func notResurrectedUnheard(c *trial) {
	y := c.nearRaw()
	x, line := c.distantRaw()
	if c.Caps.SessionValidity == 0 {
		c.Skip("the backend's sessions have no end of their own")
	}
	c.can(line.BlackHole != nil, "BlackHole")
	for i := range 2 {
		g := x.take(c.Key(fmt.Sprint(i)), 0)
		c.Sleep(c.Caps.SessionValidity * time.Duration(i) / 4)
		line.BlackHole(true, true)
		c.inject().Delete(c.T, g.req.Key)
		c.Hist.Add("   (an administrator deletes %s, of which the holder is not told)", c.Short(g.req.Key))
		if line.Cut != nil {
			line.Cut()
		}
		line.Heal()
		_ = g.hears(c.Caps.SessionValidity*4/3+c.recovery(), "a session that was deleted")
		next := y.take(g.req.Key, 0)
		next.lasts(y, "the session after one that was deleted")
		next.mustRelease()
	}
}

// renewedThoughAskedFor: whoever asks for the key of a session meanwhile, and as whatever, it is renewed.
func renewedThoughAskedFor(c *trial) {
	a, b := c.client(), c.client()
	key := c.Key("k")
	h := a.mustTry(key)
	for end := time.Now().Add(2 * c.outlast()); time.Now().Before(end); c.Sleep(c.outlast() / 30) {
		for _, cl := range []*client{a, b} {
			for _, opts := range [][]locker.Option{nil, {locker.WithTTL(far)}} {
				got, err := cl.try(key, opts...)
				if err == nil {
					_ = got.unlock()
				}
				c.Must(err != nil, "a session for which others ask again and again lasts until it is released", "%s was granted its key", cl.name)
			}
		}
	}
	h.mustLive(b)
	h.mustUnlock()
}
