package conformance

import (
	"context"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// What a call that is refused leaves behind: nothing. That its error is right says little; what
// it has done shows at the end of the holder's life.

// strangers are the owners that must get nothing from a hold of o.
func (c *trial) strangers(o driver.Owner) map[string]driver.Owner {
	twin, begins, ends := c.Owner(), o, o
	twin.Seq = o.Seq
	begins.Instance[len(o.Instance)-1]++
	ends.Instance[0]++
	return map[string]driver.Owner{
		"one whose instance differs at its end":       begins,
		"one whose instance differs at its beginning": ends,
		"an owner of another instance":                c.Owner(),
		"another owner of the same instance":          c.sibling(o),
		"an owner of another instance, same number":   twin,
	}
}

// undisturbed lets disturb do what it likes in the middle of a hold's life, and makes sure that
// the hold is at its end what it would have been without: the lease no longer and no shorter,
// the session renewed, its token the same, its listener heard of nothing.
func (c *trial) undisturbed(what string, disturb func(g *grip, client, other *raw)) {
	x, y := c.raw(), c.raw()
	if c.target.Delete != nil && c.Caps.Has.Has(driver.PromptLoss) {
		deleted := func(g *grip, claim harness.Claim, what string) {
			c.target.Delete(c.T, g.req.Key)
			c.Hist.Add("   (an administrator deletes %s)", c.Short(g.req.Key))
			_ = g.hearsOr(claim, c.Prompt(), what)
		}
		deleted(x.take(c.Key("plain"), c.ttl()), c.Claim("LOSS-003"), "a holder whose hold was deleted")
		g := x.take(c.Key("deleted"), c.ttl())
		disturb(g, x, y)
		deleted(g, c.Claim(c.ID), "the holder, after "+what+" and a deletion,")
	}
	ttl := time.Duration(0)
	if c.leaf.kind != Session {
		ttl = c.lifetime()
	}
	g := x.take(c.Key("k"), ttl)
	if ttl > 0 {
		c.Sleep(ttl / 4)
	}
	if ttl == 0 && c.Caps.SessionValidity > 0 {
		c.putsOff(g, what, func() { disturb(g, x, y) }, y)
	}
	disturb(g, x, y)
	g.silent("the holder, after " + what + ",")
	if ttl == 0 {
		g.lasts(y, "a session, after "+what+",")
		g.again()
		g.mustRelease()
		y.take(g.req.Key, 0).mustRelease()
		return
	}
	y.endsAt(g.req.Key, g.before.Add(ttl), g.after.Add(ttl), "after "+what).mustRelease()
	select {
	case err := <-g.rec.heard:
		c.Is(err, driver.ErrLost, "what the holder hears at the end of its time, after %s,", what)
	default:
	}
}

// putsOff makes sure that disturb does not make the session g last longer: whoever polls for it would
// keep it after the death of its client. A renewal may come in between, though not each time.
func (c *trial) putsOff(g *grip, what string, disturb func(), y *raw) {
	pause := c.Caps.SessionValidity / 12
	tries, n := 0, 0
	for range 6 {
		c.Sleep(pause)
		began := time.Now()
		before, ok := driver.Remaining(y.refused(g.req.Key, c.Owner(), far))
		if !ok {
			return
		}
		disturb()
		after, _ := driver.Remaining(y.refused(g.req.Key, c.Owner(), far))
		if time.Since(began) > pause {
			continue // there is a renewal in each such time, or nearly
		}
		tries++
		if after > before+c.Caps.SessionValidity/50 {
			n++
		}
	}
	if tries < 4 {
		c.Note("whether the end of a session is put off by %s was not seen: that takes longer than %s", what, pause)
		return
	}
	c.Must(n < tries, "a session lasts no longer for "+what, "its end was put off %d times of %d", n, tries)
}

// refusedAcquire: an attempt by one who does not get the key changes nothing.
func refusedAcquire(c *trial) {
	c.undisturbed("attempts that were refused", func(g *grip, x, y *raw) {
		for _, cl := range []*raw{x, y} {
			for who, o := range c.strangers(g.req.Owner) {
				for _, ttl := range []time.Duration{far, c.shortest(), 0} {
					cl.refused(g.req.Key, o, ttl)
				}
				_, err := cl.Acquire(ended(), driver.Request{Key: g.req.Key, Owner: o, TTL: far, Hold: newRecorder()})
				c.Must(err != nil, "an attempt by "+who+" with a ctx that has ended is refused", "it was granted")
				for _, patience := range []time.Duration{20 * time.Microsecond, 100 * time.Microsecond, 400 * time.Microsecond} {
					ctx, cancel := context.WithTimeout(c.Ctx, patience)
					_, err := cl.Acquire(ctx, driver.Request{Key: g.req.Key, Owner: o, TTL: g.req.TTL, Hold: newRecorder()})
					cancel()
					c.Must(err != nil, "an attempt by "+who+" whose ctx ends soon is refused", "it was granted")
				}
				c.gaveUpWaiting(cl, g.req.Key, o)
			}
		}
	})
}

// gaveUpWaiting lets o wait for key where the backend does that by itself, and give up.
func (c *trial) gaveUpWaiting(cl *raw, key string, o driver.Owner) {
	w, ok := driver.As[driver.Waiter](cl.Backend)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(c.Ctx, c.Granularity()/4)
	defer cancel()
	_, err := w.Wait(ctx, driver.Request{Key: key, Owner: o, TTL: far, Hold: newRecorder()})
	c.Is(err, driver.ErrHeld, "the driver's Wait that was given up")
}

// refusedExtend: an Extend by one who does not hold the lease changes nothing.
func refusedExtend(c *trial) {
	for _, ttl := range []time.Duration{far, c.shortest()} {
		c.undisturbed("an Extend to "+ttl.String()+" that was refused", func(g *grip, x, y *raw) {
			for _, cl := range []*raw{x, y} {
				for who, o := range c.strangers(g.req.Owner) {
					for _, token := range []uint64{g.token, g.token + 1} {
						_, err := cl.Extend(c.CtxFor(c.Limit()), driver.Holder{Key: g.req.Key, Owner: o, Token: token}, ttl)
						c.Is(err, driver.ErrLost, "the driver's Extend by %s", who)
					}
				}
			}
		})
	}
}

// refusedRelease: a Release by one who does not hold the key changes nothing. The core sends
// such ones to take back attempts whose replies were lost: they carry no token.
func refusedRelease(c *trial) {
	c.undisturbed("releases that were refused", func(g *grip, x, y *raw) {
		for _, cl := range []*raw{x, y} {
			for who, o := range c.strangers(g.req.Owner) {
				for _, token := range []uint64{0, g.token, g.token + 1} {
					for _, session := range []bool{false, true} {
						h := driver.Holder{Key: g.req.Key, Owner: o, Token: token, Session: session}
						c.Is(cl.Release(c.CtxFor(c.Limit()), h), driver.ErrLost, "the driver's Release by %s, token %d,", who, token)
					}
				}
				h := driver.Holder{Key: g.req.Key, Owner: o, Session: c.leaf.kind == Session}
				c.Must(cl.Release(ended(), h) != nil, "the driver's Release by "+who+" with a ctx that has ended gives an error", "nil")
			}
		}
	})
}

// refusedLate: calls of a former holder that come late change nothing for the next one.
func refusedLate(c *trial) {
	x, y := c.raw(), c.raw()
	for _, way := range []string{"released", "expired"} {
		ttl := c.ttl()
		if way == "expired" {
			ttl = c.Unit()
		}
		old := x.take(c.Key(way), ttl)
		if way == "expired" {
			c.Sleep(time.Until(old.after.Add(ttl + c.Granularity())))
		} else {
			old.mustRelease()
		}
		for _, cl := range []*raw{y, x} {
			next := cl.takeSoon(old.req.Key, c.ttl())
			c.Is(old.release(), driver.ErrLost, "a second Release, after the hold was %s and somebody else has the key,", way)
			if ttl > 0 {
				c.Is(old.extend(far), driver.ErrLost, "an Extend, after the hold was %s and somebody else has the key,", way)
			}
			late := old.holder()
			late.Token = 0
			c.Is(x.Release(c.CtxFor(c.Limit()), late), driver.ErrLost, "a Release without a token, after the hold was %s,", way)
			y.refused(old.req.Key, c.Owner(), far)
			x.refused(old.req.Key, c.Owner(), far)
			next.again()
			if c.leaf.kind == Session && cl == x {
				next.lasts(x, "the next holder, after late calls of the former one,")
			}
			next.silent("the next holder, after late calls of the former one,")
			next.mustRelease()
		}
	}
}

// takeSoon is take for a key that may be free a little later.
func (r *raw) takeSoon(key string, ttl time.Duration) *grip {
	c := r.c
	for end := time.Now().Add(c.Limit()); ; {
		g, err := r.acquire(key, c.Owner(), ttl)
		if err == nil {
			return g
		}
		c.Is(err, driver.ErrHeld, "the driver's Acquire of %s", c.Short(key))
		c.Must(time.Now().Before(end), "the key is free soon", "it is held")
		c.Sleep(time.Millisecond)
	}
}
