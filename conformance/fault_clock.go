package conformance

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// clockOff does all that has to do with time against a store whose clock is wrong.
func clockOff(c *trial, by time.Duration) {
	c.inject().Skew(c.t, by)
	off := time.Until(c.inject().Clock(c.t))
	c.must((off-by).Abs() < time.Second, fmt.Sprintf("the store's clock is %s off", by), "it is %s off", off)
	b := c.near()
	f, sleeps := c.figures(), c.pulse()
	f.add("clock off by", off)
	c.together(3, func(i int) {
		switch i {
		case 0: // held and kept over several lives
			a := c.near()
			key := c.key("kept")
			h := a.mustTry(key, c.living()...)
			h.keep()
			end := c.moment(h.Done())
			for began := time.Now(); time.Since(began) < c.life()*5/2; c.sleep(c.life() / 20) {
				if next, err := b.try(key, c.hold()...); err == nil {
					f.add(believed, c.overtaken(h, end, next, sleeps))
					c.fatal("nobody else gets the key while it is kept", "%s got it", next.cl.name)
				} else {
					c.is(err, locker.ErrHeld, "TryLock of a key that is kept")
				}
			}
			h.mustLive(b)
			p := b.goLock(key, append(c.hold(), c.polling())...)
			c.settle()
			h.mustUnlock()
			p.granted(c.handOver(), "the release").mustUnlock()
			c.free(a, c.recovery(), key)

		case 1: // left to run out: its holder is heard of no more
			a, line := c.distant()
			c.can(line.BlackHole != nil, "BlackHole")
			key := c.key("left")
			h := a.mustTry(key, c.living()...)
			end := c.moment(h.Done())
			p := b.goLock(key, append(c.hold(), c.polling())...)
			c.settle()
			line.BlackHole(true, true)
			began := time.Now()
			if c.leaf.kind == Session && c.caps.SessionValidity == 0 {
				line.Heal()
				h.mustUnlock()
				p.granted(c.recovery(), "the release").mustUnlock()
				return
			}
			got := p.granted(c.limit(), "the holder was cut off")
			f.add(believed, c.overtaken(h, end, got, sleeps))
			f.add(proceeded, got.at.Sub(began))
			late := got.at.Sub(began.Add(c.life()))
			c.must(late <= c.handOver()+sleeps.longest(), fmt.Sprintf("the key is free %s after the holder was cut off, whatever the store's clock says", c.life()), "%s later", late)
			line.Heal()
			got.mustUnlock()
			c.free(b, c.recovery(), key)

		case 2: // many at once, of both kinds
			a := c.near()
			ttl := func(r *rand.Rand) time.Duration { return c.unit()/4 + time.Duration(r.Int64N(int64(c.unit()/4))) }
			if c.leaf.kind == Session {
				ttl = func(*rand.Rand) time.Duration { return 0 }
			}
			c.checkSpans(c.hammer(hammer{
				clients: []*client{a, b}, keys: []string{c.key("x"), c.key("y")},
				rounds: c.rounds(40, 10), ttl: ttl, stay: c.granularity() / 2, lapse: true,
			}, 6))
		}
	})
	c.tell(f)
}
