package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// partition cuts off holders in each direction, at several moments between one word to the
// store and the next: what a holder believes depends on where in between it happens.
func partition(c *trial) {
	b := c.near()
	f, sleeps := c.figures(), c.pulse()
	ways := []struct {
		name     string
		up, down bool
	}{{"requests", true, false}, {"replies", false, true}, {"both", true, true}}
	const phases = 3
	c.together(len(ways)*phases, func(i int) {
		way, phase := ways[i/phases], i%phases
		a, line := c.distant()
		c.can(line.BlackHole != nil, "BlackHole")
		if phase == 1 && line.Latency != nil {
			// What counts from the reply, and not from the request, counts too long by that.
			line.Latency(c.life() / 10)
		}
		key, other := c.key(fmt.Sprint("held ", i)), c.key(fmt.Sprint("tried ", i))
		h := a.mustTry(key, c.living()...)
		h.keep()
		end := c.moment(h.Done())
		p := b.goLock(key, append(c.hold(), c.polling())...)

		c.sleep(c.life() * time.Duration(12+4*phase) / 30)
		if c.leaf.kind == Lease || c.caps.SessionValidity > 0 {
			c.must(!isClosed(p.done), "nobody else gets the key before the partition", "%v", p.outcome())
		}
		h.mustLive()
		line.BlackHole(way.up, way.down)
		began := time.Now()
		c.hist.add("%s  (a black hole swallows %s)", a.name, way.name)

		// Nothing that is tried in there stays behind.
		_, err := a.tryCtx(c.ctxFor(c.unit()/2), other, c.hold()...)
		c.is(err, locker.ErrUnavailable, "TryLock in a partition")
		c.is(err, context.DeadlineExceeded, "TryLock in a partition")

		if c.leaf.kind == Session && c.caps.SessionValidity == 0 {
			// Such a store keeps the key until it hears of its client again.
			c.sleep(c.life())
			line.Heal()
			h.mustUnlock()
			p.granted(c.recovery(), "the release, after the partition").mustUnlock()
			return
		}
		// Where requests go through, one that renews may have been the last that did.
		got := p.granted(2*c.life()+c.recovery(), "the partition")
		f.add(believed, c.overtaken(h, end, got, sleeps))
		f.add(noticed, end.at.Sub(began))
		f.add(proceeded, got.at.Sub(began))
		late := end.at.Sub(began.Add(c.life()))
		c.must(late <= c.prompt()+sleeps.longest(), fmt.Sprintf("Done closes no more than %s after the partition", c.life()), "%s later", late)
		c.must(errors.Is(h.Err(), locker.ErrLost), "the Err of a hold that was lost in a partition", "%v", h.Err())
		c.must(got.Token() > h.Token(), "the next hold has a greater token", "%d after %d", got.Token(), h.Token())

		// Back again, the former holder changes nothing.
		line.Heal()
		c.hist.add("%s  (the line is in order again)", a.name)
		c.is(h.unlock(), locker.ErrLost, "Unlock after a partition that outlasted the hold")
		q := a.goLock(key, append(c.hold(), c.polling())...)
		f.add("tried key free after", c.free(b, c.recovery(), other))
		c.must(!isClosed(q.done), "who comes back waits for the new holder", "Lock returned: %v", q.outcome())
		got.mustLive(b)
		healed := time.Now()
		got.mustUnlock()
		again := q.granted(c.recovery(), "the release, after the partition")
		f.add("back in use after", again.at.Sub(healed))
		again.mustUnlock()
		c.free(b, c.recovery(), key)
	})
	f.add("late timers in this process", sleeps.longest())
	c.tell(f)
}
