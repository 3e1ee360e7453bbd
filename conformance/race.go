package conformance

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Races between the two steps of a backend that first looks and then acts: a former holder's
// call runs into the end of its time, and into the next holder's grant.

// aroundExpiry lets late run at about the end of a lease of a few milliseconds, while somebody
// else takes the key as soon as it can. If both get what they ask for, the next holder's lease
// must be what it was granted: check looks at it.
func (c *trial) aroundExpiry(prolongs bool, late func(old *grip) error, check func(next *grip, late error)) {
	x, y, z := c.raw(), c.raw(), c.raw()
	const lanes = 3 // what another lane asks for comes between the two steps as well, and does no harm
	c.Together(lanes, func(i int) {
		r, least := c.Rand(), c.shortest()+2*time.Millisecond
		ttl := least
		for round := range c.Rounds(160, 100) {
			if c.Ctx.Err() != nil {
				return
			}
			key := c.Key(fmt.Sprint(i, "/", round))
			old := x.take(key, ttl)
			end, offset := old.before.Add(ttl), aside(r, ttl/2)
			ttl = least
			var lateErr error
			done := c.Spawn(func() {
				c.Sleep(time.Until(end.Add(offset)))
				lateErr = late(old)
			})
			next := (*grip)(nil)
			for limit := time.Now().Add(c.Limit()); next == nil && time.Now().Before(limit); {
				g, err := y.acquire(key, c.Owner(), 10*c.Unit())
				// Where a call takes as long as a lease none comes before its end: the next one is longer.
				ttl = max(ttl, min(4*g.after.Sub(g.before), c.Unit()))
				if err == nil {
					next = g
				} else if c.Is(err, driver.ErrHeld, "the driver's Acquire"); c.Virtual {
					c.Sleep(100 * time.Microsecond)
				}
				select {
				case <-done:
					if prolongs && lateErr == nil && next == nil {
						limit = time.Time{} // old was prolonged
					}
				default:
				}
			}
			<-done
			if next == nil {
				c.OK(old.release(), "the driver's Release of a lease that was extended in time")
				continue
			}
			check(next, lateErr)
			z.refused(key, c.Owner(), far)
			next.again()
			next.mustRelease()
		}
	})
}

// aside is how long before something, or more rarely after it, one comes: from 10 µs to most, any order of magnitude as
// often as another, since nobody knows how long it is from a backend's first step to its second.
func aside(r *rand.Rand, most time.Duration) time.Duration {
	d := time.Duration(float64(most) * math.Pow(float64(10*time.Microsecond)/float64(most), r.Float64()))
	if r.IntN(4) == 0 {
		return d
	}
	return -d
}

// extendRace: an Extend at the end of the lease gives nothing to the next holder's.
func extendRace(c *trial) {
	c.aroundExpiry(true, func(old *grip) error { return old.extend(far) }, func(next *grip, late error) {
		err := next.r.refused(next.req.Key, c.Owner(), far)
		if rest, ok := driver.Remaining(err); ok {
			c.Must(rest <= 10*c.Unit(), fmt.Sprintf("an Extend by the former holder leaves the next one's lease at %s", 10*c.Unit()), "it has %s left", rest)
		}
		c.Must(late == nil || errors.Is(late, driver.ErrLost), "an Extend at the end of the lease gives nil or ErrLost", "%v", late)
	})
}

// releaseRace: a Release at the end of the lease frees nothing that is the next holder's.
func releaseRace(c *trial) {
	c.aroundExpiry(false, func(old *grip) error { return old.release() }, func(_ *grip, late error) {
		c.Must(late == nil || errors.Is(late, driver.ErrLost), "a Release at the end of the lease gives nil or ErrLost", "%v", late)
	})
}

// acquireRace: of many who ask for a free key at the same moment one gets it.
func acquireRace(c *trial) {
	clients := []*raw{c.raw(), c.raw(), c.raw()}
	for round := range c.Rounds(60, 20) {
		key := c.Key(fmt.Sprint(round))
		if round%2 == 1 { // a key whose holder's time is just over
			clients[0].take(key, c.shortest())
			c.Sleep(c.shortest() + time.Millisecond)
		}
		grants := make([]*grip, 9)
		c.Together(len(grants), func(i int) {
			g, err := clients[i%len(clients)].acquire(key, c.Owner(), c.ttl())
			if err == nil {
				grants[i] = g
				return
			}
			c.Is(err, driver.ErrHeld, "the driver's Acquire")
		})
		var got *grip
		for _, g := range grants {
			if g == nil {
				continue
			}
			c.Must(got == nil, "of many who ask for a key at the same moment one gets it", "two do, tokens %d and %d", tokenOf(got), g.token)
			got = g
		}
		if got != nil {
			got.mustRelease()
		}
	}
}

func tokenOf(g *grip) uint64 {
	if g == nil {
		return 0
	}
	return g.token
}
