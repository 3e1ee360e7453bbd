package conformance

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// clockOff does all that has to do with time against a store whose clock is wrong.
func clockOff(c *trial, by time.Duration) {
	c.inject().Skew(c.T, by)
	off := time.Until(c.inject().Clock(c.T))
	c.Must((off-by).Abs() < time.Second, fmt.Sprintf("the store's clock is %s off", by), "it is %s off", off)
	b := c.near()
	f, sleeps := c.figures(), c.pulse()
	f.add("clock off by", off)
	c.Together(3, func(i int) {
		switch i {
		case 0: // held and kept over several lives
			a := c.near()
			key := c.Key("kept")
			h := a.mustTry(key, c.living()...)
			h.keep()
			end := c.Moment(h.Done())
			for began := time.Now(); time.Since(began) < c.life()*5/2; c.Sleep(c.life() / 20) {
				if next, err := b.try(key, c.hold()...); err == nil {
					f.add(believed, c.overtaken(h, end, next, sleeps))
					c.Fatal("nobody else gets the key while it is kept", "%s got it", next.cl.name)
				} else {
					c.Is(err, locker.ErrHeld, "TryLock of a key that is kept")
				}
			}
			h.mustLive(b)
			p := b.goLock(key, append(c.hold(), c.Polling())...)
			c.Settle()
			h.mustUnlock()
			p.granted(c.HandOver(), "the release").mustUnlock()
			c.free(a, c.recovery(), key)

		case 1: // left to run out: its holder is heard of no more
			a, line := c.distant()
			c.can(line.BlackHole != nil, "BlackHole")
			key := c.Key("left")
			h := a.mustTry(key, c.living()...)
			end := c.Moment(h.Done())
			p := b.goLock(key, append(c.hold(), c.Polling())...)
			c.Settle()
			line.BlackHole(true, true)
			began := time.Now()
			if c.leaf.kind == Session && c.Caps.SessionValidity == 0 {
				line.Heal()
				h.mustUnlock()
				p.granted(c.recovery(), "the release").mustUnlock()
				return
			}
			got := p.granted(c.Limit(), "the holder was cut off")
			f.add(believed, c.overtaken(h, end, got, sleeps))
			f.add(proceeded, got.at.Sub(began))
			late := got.at.Sub(began.Add(c.life()))
			c.Must(late <= c.HandOver()+sleeps.longest(), fmt.Sprintf("the key is free %s after the holder was cut off, whatever the store's clock says", c.life()), "%s later", late)
			line.Heal()
			got.mustUnlock()
			c.free(b, c.recovery(), key)

		case 2: // many at once, of both kinds
			a := c.near()
			ttl := func(r *rand.Rand) time.Duration { return c.Unit()/4 + time.Duration(r.Int64N(int64(c.Unit()/4))) }
			if c.leaf.kind == Session {
				ttl = func(*rand.Rand) time.Duration { return 0 }
			}
			c.checkSpans(c.hammer(hammer{
				clients: []*client{a, b}, keys: []string{c.Key("x"), c.Key("y")},
				rounds: c.Rounds(40, 10), ttl: ttl, stay: c.Granularity() / 2, lapse: true,
			}, 6))
		}
	})
	c.tell(f)
}
