package conformance

import (
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var extendCases = []Case{
	{ID: "EXT-001", fn: extendSets, Parts: passed(passedExtend), Clause: "expiry becomes now + d: never adds, may shorten"},
	{ID: "EXT-002", fn: extendLost, Clause: "after loss: ErrLost, even when the key is free; it never resurrects"},
	{ID: "EXT-003", fn: extendUnknown, Parts: passed(passedInDoubt), Clause: "outcome unknown (network): the earlier of the two deadlines holds, and the error says unavailable"},
	{ID: "EXT-004", fn: extendSession, Clause: "Extend of a session is an error"},
}

func extendSets(c *trial) {
	a, b := c.client(), c.client()
	unit := c.unit()

	// ends makes sure that the key of h is free again at its deadline and not before,
	// given that it was last extended to unit between the two moments.
	ends := func(h *hold, before, after time.Time, what string) {
		d := h.deadline()
		c.must(!d.After(after.Add(unit)), "after "+what+" the deadline is no later than now + d", "%s later", d.Sub(after.Add(unit)))
		c.must(!d.Before(before.Add(unit-unit/10)), "after "+what+" the deadline is about now + d", "%s earlier", before.Add(unit).Sub(d))
		p := b.goLock(h.Key(), locker.WithTTL(far), c.polling())
		got := p.granted(c.limit(), "the end of the ttl after "+what)
		c.must(!got.at.Before(d), "after "+what+" nobody gets the key before the deadline", "%s before", d.Sub(got.at))
		late := got.at.Sub(after.Add(unit))
		c.must(late <= c.handOver(), fmt.Sprintf("after %s the key is free no more than %s after now + d", what, c.handOver()), "%s after it", late)
	}

	h := a.mustTry(c.key("shorter"), locker.WithTTL(far))
	before := time.Now()
	c.ok(h.extend(unit), "Extend to less")
	ends(h, before, time.Now(), "Extend to less")

	h = a.mustTry(c.key("longer"), locker.WithTTL(unit))
	first := h.deadline()
	c.ok(h.extend(far), "Extend to more")
	c.must(h.deadline().After(first), "Extend to more moves the deadline", "it is where it was")
	c.sleep(time.Until(first) + c.granularity())
	h.mustLive(b) // at the time when it would have ended
	before = time.Now()
	c.ok(h.extend(unit), "Extend to less, after more")
	ends(h, before, time.Now(), "Extend to more and then less")

	h = a.mustTry(c.key("often"), locker.WithTTL(unit))
	for range 10 {
		before = time.Now()
		c.ok(h.extend(unit), "Extend to the same ttl")
	}
	ends(h, before, time.Now(), "ten times Extend to the same ttl")

	// A holder who extends again and again keeps the key for longer than any of the ttls.
	h = a.mustTry(c.key("kept"), locker.WithTTL(unit))
	for range 8 {
		c.sleep(unit / 4)
		if err := h.extend(unit); err != nil && time.Since(h.at) < unit {
			c.ok(err, "Extend in time")
		} else if err != nil {
			c.note("the machine was too slow to extend in time: %v", err)
			return
		}
	}
	h.mustLive(b)
	h.mustUnlock()
	b.mustTry(h.Key(), locker.WithTTL(far))
}

func extendLost(c *trial) {
	a, b := c.client(), c.client()
	key := c.key("expired")
	h := a.mustTry(key, locker.WithTTL(c.unit()))
	c.await(h.Done(), c.limit(), "Done closes at the end of the ttl")
	c.is(h.extend(far), locker.ErrLost, "Extend of an expired lease")
	p := b.goLock(key, locker.WithTTL(far), c.polling())
	got := p.granted(c.handOver(), "the end of the ttl, and an Extend that came too late")
	c.is(h.extend(far), locker.ErrLost, "Extend of an expired lease whose key somebody else holds")
	got.mustLive(a)
	c.ok(got.extend(far), "the Extend of the present holder")

	// The core refuses all that by its own deadline. A process that slept through it, or
	// whose deadline and the store's differ, is refused by the backend.
	d := c.driver()
	take := func(key string, ttl time.Duration) driver.Holder {
		o := c.owner()
		g, err := d.Acquire(c.ctxFor(c.limit()), driver.Request{Key: key, Owner: o, TTL: ttl, Hold: newRecorder()})
		c.ok(err, "the driver's Acquire of a free key")
		return driver.Holder{Key: key, Owner: o, Token: g.Token}
	}
	extend := func(h driver.Holder) error {
		_, err := d.Extend(c.ctxFor(c.limit()), h, far)
		return err
	}

	x := take(c.key("driver, expired"), c.unit())
	c.sleep(c.unit() + c.granularity())
	c.is(extend(x), driver.ErrLost, "the driver's Extend after the ttl, with the key free,")
	a.mustTry(x.Key, locker.WithTTL(far)).mustLive(b) // it would be held if it had come back

	x = take(c.key("driver, expired and taken"), c.unit())
	got = b.goLock(x.Key, locker.WithTTL(far), c.polling()).granted(c.limit(), "the end of the ttl")
	c.is(extend(x), driver.ErrLost, "the driver's Extend after the ttl, with the key held by another,")
	got.mustLive(a)
	c.ok(got.extend(far), "the Extend of the present holder")

	x = take(c.key("driver, released"), far)
	c.ok(d.Release(c.ctxFor(c.limit()), x), "the driver's Release")
	c.is(extend(x), driver.ErrLost, "the driver's Extend after the release, with the key free,")
	a.mustTry(x.Key, locker.WithTTL(far)).mustUnlock()

	x = take(c.key("driver, another owner"), far)
	stranger := x
	stranger.Owner = c.owner()
	c.is(extend(stranger), driver.ErrLost, "the driver's Extend by one who does not hold the key")
	c.ok(extend(x), "the driver's Extend by the holder")
	b.mustHeld(x.Key)

	if c.target.Delete != nil {
		x = take(c.key("driver, deleted"), far)
		c.target.Delete(c.t, x.Key)
		c.is(extend(x), driver.ErrLost, "the driver's Extend after an administrator deleted the hold")
		a.mustTry(x.Key, locker.WithTTL(far)).mustUnlock()
	}
}

func extendUnknown(c *trial) {
	a, b := c.client(), c.client()
	unit := c.unit()
	faults := []struct {
		name string
		f    fault
	}{{"lost request", refuse}, {"lost reply", lose}}
	for _, f := range faults {
		// To more: the store may say the later end, the holder believes the earlier.
		h := a.mustTry(c.key("more, "+f.name), locker.WithTTL(unit))
		was, done := h.deadline(), h.Done()
		a.tap.next(opExtend, f.f)
		err := h.extend(far)
		c.is(err, locker.ErrUnavailable, "Extend with a %s", f.name)
		c.isNot(err, locker.ErrLost, "Extend with a %s", f.name)
		c.must(h.deadline().Equal(was), "after a "+f.name+" the deadline is the earlier one, the old", "it is %s later", h.deadline().Sub(was))
		end := c.moment(done)
		c.await(end.seen, c.limit(), "Done closes")
		late := end.at.Sub(was)
		c.must(late <= c.prompt(), fmt.Sprintf("Done closes no more than %s after the deadline", c.prompt()), "%s after", late)

		// To less: the same the other way round.
		h = a.mustTry(c.key("less, "+f.name), locker.WithTTL(far))
		a.tap.next(opExtend, f.f)
		done = h.Done()
		err = h.extend(unit)
		after := time.Now()
		c.is(err, locker.ErrUnavailable, "Extend with a %s", f.name)
		d := h.deadline()
		c.must(!d.After(after.Add(unit)), "after a "+f.name+" the deadline is the earlier one, the new", "it is %s after now + d", d.Sub(after.Add(unit)))
		end = c.moment(done)
		c.await(end.seen, c.limit(), "Done closes at the earlier deadline")
		late = end.at.Sub(d)
		c.must(late <= c.prompt(), fmt.Sprintf("Done closes no more than %s after the earlier deadline", c.prompt()), "%s after", late)
		c.is(h.Err(), locker.ErrLost, "the Err after the earlier deadline")
		// What the store may hold for longer is given back by Unlock.
		err = h.unlock()
		c.is(err, locker.ErrLost, "Unlock after the earlier deadline")
		b.goLock(h.Key(), locker.WithTTL(far), c.polling()).
			granted(unit+2*c.prompt(), "the holder has given up")

		// The lost request may yet arrive, after a longer one that succeeded, and cut that
		// short: what it asked for is all that may be believed in.
		h = a.mustTry(c.key("late, "+f.name), locker.WithTTL(far))
		a.tap.next(opExtend, f.f)
		c.is(h.extend(far/2), locker.ErrUnavailable, "Extend with a %s", f.name)
		c.ok(h.extend(far), "a longer Extend after a %s", f.name)
		d = h.deadline()
		c.must(!d.After(time.Now().Add(far/2)), "after a "+f.name+" a longer Extend is believed in for no longer than the lost one asked for", "the deadline is %s from now", time.Until(d))
		h.mustUnlock()

		// And it may be tried again.
		h = a.mustTry(c.key("again, "+f.name), locker.WithTTL(unit))
		was = h.deadline()
		a.tap.next(opExtend, f.f)
		if err := h.extend(far); !errors.Is(err, locker.ErrUnavailable) {
			c.fatal("Extend with a "+f.name+" is ErrUnavailable", "%v", err)
		}
		if err := h.extend(far); err != nil {
			c.must(!time.Now().Before(was), "Extend may be called again", "%v", err)
			continue
		}
		c.must(h.deadline().After(was), "an Extend that succeeds after one that failed moves the deadline", "it is where it was")
		c.sleep(time.Until(was) + c.granularity())
		h.mustLive(b)
	}
}

func extendSession(c *trial) {
	a, b := c.client(), c.client()
	h := a.mustTry(c.key("k"))
	calls := a.tap.count()
	for _, d := range []time.Duration{time.Millisecond, far} {
		err := h.extend(d)
		c.is(err, locker.ErrUnsupported, "Extend of a session")
		var e *locker.Error
		c.must(errors.As(err, &e) && e.Code == locker.Unsupported, "Extend of a session gives a *locker.Error with the code Unsupported", "%#v", err)
	}
	c.must(a.tap.count() == calls, "the backend is not asked", "it was called %d times", a.tap.count()-calls)
	c.sleep(2 * c.granularity())
	h.mustLive(b)
	h.mustUnlock()
	b.mustTry(h.Key())
}
