package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
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
	c.Together(len(ways)*phases, func(i int) {
		way, phase := ways[i/phases], i%phases
		a, line := c.distant()
		c.can(line.BlackHole != nil, "BlackHole")
		if phase == 1 && line.Latency != nil {
			// What counts from the reply, and not from the request, counts too long by that.
			line.Latency(c.life() / 10)
		}
		key, other := c.Key(fmt.Sprint("held ", i)), c.Key(fmt.Sprint("tried ", i))
		h := a.mustTry(key, c.living()...)
		h.keep()
		end := c.Moment(h.Done())
		p := b.goLock(key, append(c.hold(), c.Polling())...)

		c.Sleep(c.life() * time.Duration(12+4*phase) / 30)
		if c.leaf.kind == Lease || c.Caps.SessionValidity > 0 {
			c.Must(!harness.IsClosed(p.done), "nobody else gets the key before the partition", "%v", p.outcome())
		}
		h.mustLive()
		line.BlackHole(way.up, way.down)
		began := time.Now()
		c.Hist.Add("%s  (a black hole swallows %s)", a.name, way.name)

		// Nothing that is tried in there stays behind.
		_, err := a.tryCtx(c.CtxFor(c.Unit()/2), other, c.hold()...)
		c.Is(err, locker.ErrUnavailable, "TryLock in a partition")
		c.Is(err, context.DeadlineExceeded, "TryLock in a partition")

		if c.leaf.kind == Session && c.Caps.SessionValidity == 0 {
			// Such a store keeps the key until it hears of its client again.
			c.Sleep(c.life())
			line.Heal()
			h.mustUnlock()
			p.granted(c.recovery(), "the release, after the partition").mustUnlock()
			return
		}
		// Where requests go through, one that renews may have been the last that did.
		got := p.granted(2*c.life()+c.recovery(), "the partition")
		f.add(believed, c.overtaken(h, end, got, sleeps))
		f.add(noticed, end.At.Sub(began))
		f.add(proceeded, got.at.Sub(began))
		late := end.At.Sub(began.Add(c.life()))
		c.Must(late <= c.Prompt()+sleeps.longest(), fmt.Sprintf("Done closes no more than %s after the partition", c.life()), "%s later", late)
		c.Must(errors.Is(h.Err(), locker.ErrLost), "the Err of a hold that was lost in a partition", "%v", h.Err())
		c.Must(got.Token() > h.Token(), "the next hold has a greater token", "%d after %d", got.Token(), h.Token())

		// Back again, the former holder changes nothing.
		line.Heal()
		c.Hist.Add("%s  (the line is in order again)", a.name)
		c.Is(h.unlock(), locker.ErrLost, "Unlock after a partition that outlasted the hold")
		q := a.goLock(key, append(c.hold(), c.Polling())...)
		f.add("tried key free after", c.free(b, c.recovery(), other))
		c.Must(!harness.IsClosed(q.done), "who comes back waits for the new holder", "Lock returned: %v", q.outcome())
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
