package conformance

import (
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// What happens late in the life of a lease, or just after it.

// shortenedAgain: the waiter has heard of an earlier end once already, and plans for that.
func shortenedAgain(c *trial) {
	a, b := c.client(), c.client()
	waits, late := c.Polling(), c.HandOver()
	if c.announced(b) {
		waits, late = harness.Patient(), c.Prompt()
	}
	for _, waiter := range []*client{b, a} {
		h := a.mustTry(c.Key(waiter.name), locker.WithTTL(40*c.Unit()))
		p := waiter.goLock(h.Key(), append(c.hold(), waits)...)
		c.Settle()
		c.OK(h.extend(20*c.Unit()), "Extend to less, while somebody waits,")
		c.Settle()
		ttl := c.Unit() / 2
		c.OK(h.extend(ttl), "a second Extend to less")
		end := time.Now().Add(ttl)
		got := p.granted(c.Limit()+20*c.Unit(), "the end of a lease that was shortened twice while it waited")
		if after := p.at.Sub(end); after > late {
			c.shortens().Fatal(fmt.Sprintf("the waiter has the lock no more than %s after the end of a lease that was shortened twice", late), "%s after", after)
		}
		got.mustUnlock()
	}
}

// passedShorter: the last one asked for much less than those before, and no waiter of its process would
// notice: the store has to end it in time.
func passedShorter(c *trial) {
	a, y := c.client(), c.raw()
	long, short := 40*c.Unit(), c.Unit()
	// A waiter may just be making an attempt, and then nothing is handed off to it; and on a busy machine
	// the one in the middle keeps it for so long that the store is asked anyway.
	const tries = 6
	var holds [tries]*hold
	var first, second [tries]*pending
	for i := range tries {
		holds[i] = a.mustTry(c.Key(fmt.Sprint(i)), locker.WithTTL(long))
		first[i] = a.goLock(holds[i].Key(), locker.WithTTL(long), harness.Patient())
	}
	c.Settle()
	for i, h := range holds {
		second[i] = a.goLock(h.Key(), locker.WithTTL(short), harness.Patient())
	}
	c.Settle()
	var passed []*hold
	for i, h := range holds {
		h.mustUnlock()
		if may := len(passed) > 0 || i < tries-1; may && !c.Virtual && c.jumped(first[i], second[i:i+1]) { // it began to wait later
			c.drain([]*pending{first[i], second[i]})
			continue
		}
		first[i].grantedBy(c.inOrder(first[i], second[i:i+1]), c.Limit(), "the release").mustUnlock()
		passed = append(passed, second[i].granted(c.Limit(), "the release"))
	}
	c.Together(len(passed), func(i int) {
		last := passed[i]
		y.endsAt(last.Key(), last.deadline(), last.at.Add(short), "when a lease was handed off to one who asked for less,").mustRelease()
	})
	if a.tap.HandOffs() == 0 {
		c.Skip(fmt.Sprintf("in %d tries no hold was handed off", tries))
	}
}

// extendedTooLate: what comes a moment after the end is too late, as much as what comes long after it. A
// store that is coarse may have the hold still; who looks is told so, and then nothing is asked of it.
func extendedTooLate(c *trial) {
	x, y := c.raw(), c.raw()
	lates := []time.Duration{2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond}
	c.Together(len(lates), func(i int) {
		g := x.take(c.Key(lates[i].String()), c.Unit())
		inspector, inspects := driver.As[driver.Inspector](y.inner)
		late := lates[i]
		if !inspects {
			late += c.Granularity() + c.Unit()/100 // and what clocks may drift apart
		}
		c.Sleep(time.Until(g.after.Add(c.Unit() + late)))
		if inspects {
			if _, held, err := inspector.Inspect(c.CtxFor(c.Limit()), g.req.Key); err != nil || held {
				c.Note("the store had it still %s after its end", lates[i])
				_ = g.release()
				return
			}
		}
		c.Is(g.extend(far), driver.ErrLost, "the driver's Extend %s after the end of the lease", lates[i])
		y.takeSoon(g.req.Key, far).mustRelease()
	})
}

// lostLate: somebody still listens when most of the time of a lease is over.
func lostLate(c *trial) {
	a := c.client()
	ttl := max(2*c.Unit(), 6*c.Prompt())
	shares := []time.Duration{60, 90}
	c.Together(len(shares), func(i int) {
		tries := 3 // on a busy machine the news may come after the end
		for try := range tries {
			h := a.mustTry(c.Key(fmt.Sprint(shares[i], " ", try)), locker.WithTTL(ttl))
			end := c.Moment(h.Done())
			c.Sleep(time.Until(h.deadline().Add(-max(ttl*(100-shares[i])/100, c.Prompt()*3/2))))
			c.target.Delete(c.T, h.Key())
			deleted := time.Now()
			if deleted.Add(c.Prompt()).After(h.deadline()) { // the news has no time any more
				tries--
				c.Await(end.Seen, c.Limit(), "Done closes at the deadline")
				continue
			}
			c.Hist.Add("   (an administrator deletes %s)", c.Short(h.Key()))
			c.Await(end.Seen, c.Limit(), "Done closes after a deletion")
			var e *locker.Error
			switch late := end.At.Sub(deleted); {
			case errors.As(h.Err(), &e) && e.Reason == locker.ReasonLost:
				c.Must(late <= c.Prompt(), fmt.Sprintf("Done closes no more than %s after a deletion at %d %% of the ttl", c.Prompt(), shares[i]), "%s after", late)
				h.ended(locker.ReasonLost)
				return
			case end.At.Before(h.deadline()):
				h.ended(locker.ReasonLost) // it says what it is instead
			}
		}
		if tries == 0 {
			c.Note("the machine was too slow to delete a hold before its end")
			return
		}
		c.Fatal(fmt.Sprintf("Done closes soon after a deletion at %d %% of the ttl", shares[i]), "in %d of %d tries it closed at the deadline", tries, tries)
	})
}
