package conformance

import (
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var extendCases = []Case{
	{ID: "EXT-001", fn: extendSets, Parts: append(passed(passedExtend), Part{Name: "soon", fn: extendsSoon}), Clause: "expiry becomes now + d: never adds, may shorten"},
	{ID: "EXT-002", fn: extendLost, Parts: []Part{{Name: "refused", fn: refusedExtend}, {Name: "race", fn: extendRace}, {Name: "too-late", fn: extendedTooLate}, {Name: "stall", Needs: []Need{needsPause}, fn: extendedInStall}, {Name: "overwritten", Needs: []Need{needsOverwrite}, fn: extendsForeign}}, Clause: "after loss: ErrLost, even when the key is free; it never resurrects"},
	{ID: "EXT-003", fn: extendUnknown, Parts: passed(passedInDoubt), Clause: "outcome unknown (network): the earlier of the two deadlines holds, and the error says unavailable"},
	{ID: "EXT-004", fn: extendSession, Clause: "Extend of a session is an error"},
}

func extendSets(c *trial) {
	a, b := c.client(), c.client()
	unit := c.Unit()
	waits, most := c.Polling(), c.HandOver()
	if b.waits() || c.tellsRest() {
		waits, most = harness.Patient(), c.Prompt()
	}

	// ends makes sure that the key of h is free again at its deadline and not before,
	// given that it was last extended to unit between the two moments.
	ends := func(h *hold, before, after time.Time, what string) {
		d := h.deadline()
		c.Must(!d.After(after.Add(unit)), "after "+what+" the deadline is no later than now + d", "%s later", d.Sub(after.Add(unit)))
		c.Must(!d.Before(before.Add(unit-unit/10)), "after "+what+" the deadline is about now + d", "%s earlier", before.Add(unit).Sub(d))
		p := b.goLock(h.Key(), locker.WithTTL(far), waits)
		got := p.granted(c.Limit(), "the end of the ttl after "+what)
		c.Must(!got.at.Before(d), "after "+what+" nobody gets the key before the deadline", "%s before", d.Sub(got.at))
		late := got.at.Sub(after.Add(unit))
		c.Must(late <= most, fmt.Sprintf("after %s the key is free no more than %s after now + d", what, most), "%s after it", late)
	}

	h := a.mustTry(c.Key("shorter"), locker.WithTTL(far))
	before := time.Now()
	c.OK(h.extend(unit), "Extend to less")
	ends(h, before, time.Now(), "Extend to less")

	h = a.mustTry(c.Key("longer"), locker.WithTTL(unit))
	first := h.deadline()
	c.OK(h.extend(far), "Extend to more")
	c.Must(h.deadline().After(first), "Extend to more moves the deadline", "it is where it was")
	c.Sleep(time.Until(first) + c.Granularity())
	h.mustLive(b) // at the time when it would have ended
	before = time.Now()
	c.OK(h.extend(unit), "Extend to less, after more")
	ends(h, before, time.Now(), "Extend to more and then less")

	h = a.mustTry(c.Key("often"), locker.WithTTL(unit))
	for range 10 {
		before = time.Now()
		c.OK(h.extend(unit), "Extend to the same ttl")
	}
	ends(h, before, time.Now(), "ten times Extend to the same ttl")

	// A holder who extends again and again keeps the key for longer than any of the ttls.
	h = a.mustTry(c.Key("kept"), locker.WithTTL(unit))
	for range 8 {
		c.Sleep(unit / 4)
		if err := h.extend(unit); err != nil && time.Since(h.at) < unit {
			c.OK(err, "Extend in time")
		} else if err != nil {
			c.Note("the machine was too slow to extend in time: %v", err)
			return
		}
	}
	h.mustLive(b)
	h.mustUnlock()
	b.mustTry(h.Key(), locker.WithTTL(far))

	// By what a refusal tells: limits for a busy machine hide a store that counts in seconds.
	x, y := c.raw(), c.raw()
	odd := c.lifetime() + 321*time.Millisecond
	step := max(far/300, 3*c.Granularity()) // no step is too small to count
	for _, d := range []struct{ from, to time.Duration }{{far, odd}, {2 * unit, odd}, {far, far + far/12}, {far, far - far/12}, {far, far + step}, {far, far - step}} {
		g := x.take(c.Key(fmt.Sprintf("odd %s to %s", d.from, d.to)), d.from)
		g.before = time.Now()
		c.OK(g.extend(d.to), "the driver's Extend to %s", d.to)
		g.after = time.Now()
		g.extended(y, d.to)
		g.mustRelease()
	}
}

// extended makes sure that g, which was extended to ttl, has that left, by what a refusal tells.
// Where it does not, the end of g shows whether the Extend or the telling is wrong.
func (g *grip) extended(by *raw, ttl time.Duration) {
	c := g.r.c
	began := time.Now()
	told, ok := driver.Remaining(by.refused(g.req.Key, c.Owner(), far))
	end := g.after.Add(ttl)
	most, least := end.Sub(began)+time.Millisecond, time.Until(g.before.Add(ttl))-c.Granularity()
	if !ok || told < 0 || told <= most && told >= least {
		return
	}
	claim := c.Claim("TTL-005")
	if in, ok := driver.As[driver.Inspector](by.inner); ok {
		info, _, err := in.Inspect(c.CtxFor(c.Limit()), g.req.Key)
		if err == nil && (info.Remaining > most || info.Remaining < least-c.Granularity()) { // both would have to be wrong
			claim = c.Claim(c.ID)
		}
	}
	toldEnd := began.Add(told)
	for time.Until(end) < c.Limit() && time.Since(end) < c.Limit() {
		if next, err := by.acquire(g.req.Key, c.Owner(), far); err == nil {
			if next.after.Sub(toldEnd).Abs() < next.after.Sub(end).Abs() {
				claim = c.Claim(c.ID)
			}
			break
		}
		c.Sleep(max(time.Millisecond, c.Granularity()/10))
	}
	claim.Fatal(fmt.Sprintf("a lease that was extended to %s has that left, about %s", ttl, most), "%s, as the store tells", told)
}

func extendLost(c *trial) {
	a, b := c.client(), c.client()
	key := c.Key("expired")
	h := a.mustTry(key, locker.WithTTL(c.Unit()))
	c.Await(h.Done(), c.Limit(), "Done closes at the end of the ttl")
	c.Is(h.extend(far), locker.ErrLost, "Extend of an expired lease")
	p := b.goLock(key, locker.WithTTL(far), c.Polling())
	got := p.granted(c.HandOver(), "the end of the ttl, and an Extend that came too late")
	c.Is(h.extend(far), locker.ErrLost, "Extend of an expired lease whose key somebody else holds")
	got.mustLive(a)
	c.OK(got.extend(far), "the Extend of the present holder")

	// The core refuses all that by its own deadline. A process that slept through it, or
	// whose deadline and the store's differ, is refused by the backend.
	d := c.driver()
	take := func(key string, ttl time.Duration) driver.Holder {
		o := c.Owner()
		g, err := d.Acquire(c.CtxFor(c.Limit()), driver.Request{Key: key, Owner: o, TTL: ttl, Hold: newRecorder()})
		c.OK(err, "the driver's Acquire of a free key")
		return driver.Holder{Key: key, Owner: o, Token: g.Token}
	}
	extend := func(h driver.Holder) error {
		_, err := d.Extend(c.CtxFor(c.Limit()), h, far)
		return err
	}

	x := take(c.Key("driver, expired"), c.Unit())
	c.Sleep(c.Unit() + c.Granularity())
	c.Is(extend(x), driver.ErrLost, "the driver's Extend after the ttl, with the key free,")
	a.mustTry(x.Key, locker.WithTTL(far)).mustLive(b) // it would be held if it had come back

	x = take(c.Key("driver, expired and taken"), c.Unit())
	got = b.goLock(x.Key, locker.WithTTL(far), c.Polling()).grantedBy(c.Claim("TTL-001"), c.Limit(), "the end of the ttl")
	c.Is(extend(x), driver.ErrLost, "the driver's Extend after the ttl, with the key held by another,")
	got.mustLive(a)
	c.OK(got.extend(far), "the Extend of the present holder")

	x = take(c.Key("driver, released"), far)
	c.OK(d.Release(c.CtxFor(c.Limit()), x), "the driver's Release")
	c.Is(extend(x), driver.ErrLost, "the driver's Extend after the release, with the key free,")
	a.mustTry(x.Key, locker.WithTTL(far)).mustUnlock()

	x = take(c.Key("driver, another owner"), far)
	stranger := x
	stranger.Owner = c.Owner()
	c.Is(extend(stranger), driver.ErrLost, "the driver's Extend by one who does not hold the key")
	c.OK(extend(x), "the driver's Extend by the holder")
	b.mustHeld(x.Key)

	if c.target.Delete != nil {
		x = take(c.Key("driver, deleted"), far)
		c.target.Delete(c.T, x.Key)
		c.Is(extend(x), driver.ErrLost, "the driver's Extend after an administrator deleted the hold")
		a.mustTry(x.Key, locker.WithTTL(far)).mustUnlock()
	}
}

func extendUnknown(c *trial) {
	a, b := c.client(), c.client()
	unit := c.Unit()
	faults := []struct {
		name string
		f    harness.Fault
	}{{"lost request", harness.Refuse}, {"lost reply", harness.Lose}}
	for _, f := range faults {
		// To more: the store may say the later end, the holder believes the earlier.
		h := a.mustTry(c.Key("more, "+f.name), locker.WithTTL(unit))
		was, done := h.deadline(), h.Done()
		a.tap.Next(harness.OpExtend, f.f)
		err := h.extend(far)
		c.Is(err, locker.ErrUnavailable, "Extend with a %s", f.name)
		c.IsNot(err, locker.ErrLost, "Extend with a %s", f.name)
		c.Must(h.deadline().Equal(was), "after a "+f.name+" the deadline is the earlier one, the old", "it is %s later", h.deadline().Sub(was))
		end := c.Moment(done)
		c.Await(end.Seen, c.Limit(), "Done closes")
		late := end.At.Sub(was)
		c.Must(late <= c.Prompt(), fmt.Sprintf("Done closes no more than %s after the deadline", c.Prompt()), "%s after", late)

		// To less: the same the other way round.
		h = a.mustTry(c.Key("less, "+f.name), locker.WithTTL(far))
		a.tap.Next(harness.OpExtend, f.f)
		done = h.Done()
		err = h.extend(unit)
		after := time.Now()
		c.Is(err, locker.ErrUnavailable, "Extend with a %s", f.name)
		d := h.deadline()
		c.Must(!d.After(after.Add(unit)), "after a "+f.name+" the deadline is the earlier one, the new", "it is %s after now + d", d.Sub(after.Add(unit)))
		end = c.Moment(done)
		c.Await(end.Seen, c.Limit(), "Done closes at the earlier deadline")
		late = end.At.Sub(d)
		c.Must(late <= c.Prompt(), fmt.Sprintf("Done closes no more than %s after the earlier deadline", c.Prompt()), "%s after", late)
		c.Is(h.Err(), locker.ErrLost, "the Err after the earlier deadline")
		// What the store may hold for longer is given back by Unlock.
		err = h.unlock()
		c.Is(err, locker.ErrLost, "Unlock after the earlier deadline")
		b.goLock(h.Key(), locker.WithTTL(far), c.Polling()).
			granted(unit+2*c.Prompt(), "the holder has given up")

		// The lost request may yet arrive, after a longer one that succeeded, and cut that
		// short: what it asked for is all that may be believed in.
		h = a.mustTry(c.Key("late, "+f.name), locker.WithTTL(far))
		a.tap.Next(harness.OpExtend, f.f)
		c.Is(h.extend(far/2), locker.ErrUnavailable, "Extend with a %s", f.name)
		c.OK(h.extend(far), "a longer Extend after a %s", f.name)
		d = h.deadline()
		c.Must(!d.After(time.Now().Add(far/2)), "after a "+f.name+" a longer Extend is believed in for no longer than the lost one asked for", "the deadline is %s from now", time.Until(d))
		h.mustUnlock()

		// And it may be tried again.
		h = a.mustTry(c.Key("again, "+f.name), locker.WithTTL(unit))
		was = h.deadline()
		a.tap.Next(harness.OpExtend, f.f)
		if err := h.extend(far); !errors.Is(err, locker.ErrUnavailable) {
			c.Fatal("Extend with a "+f.name+" is ErrUnavailable", "%v", err)
		}
		if err := h.extend(far); err != nil {
			c.Must(!time.Now().Before(was), "Extend may be called again", "%v", err)
			continue
		}
		c.Must(h.deadline().After(was), "an Extend that succeeds after one that failed moves the deadline", "it is where it was")
		c.Sleep(time.Until(was) + c.Granularity())
		h.mustLive(b)
	}
}

func extendSession(c *trial) {
	a, b := c.client(), c.client()
	h := a.mustTry(c.Key("k"))
	calls := a.tap.Count()
	for _, d := range []time.Duration{time.Millisecond, far} {
		err := h.extend(d)
		c.Is(err, locker.ErrUnsupported, "Extend of a session")
		var e *locker.Error
		c.Must(errors.As(err, &e) && e.Code == locker.CodeUnsupported, "Extend of a session gives a *locker.Error with the code Unsupported", "%#v", err)
	}
	c.Must(a.tap.Count() == calls, "the backend is not asked", "it was called %d times", a.tap.Count()-calls)
	c.Sleep(2 * c.Granularity())
	h.mustLive(b)
	h.mustUnlock()
	b.mustTry(h.Key())
}

// extendsForeign: what an administrator put in the place of a lease is no outage to its former holder.
func extendsForeign(c *trial) {
	x, y := c.nearRaw(), c.nearRaw()
	for i := range 4 { // the target may put one thing after another there
		g := x.take(c.Key(fmt.Sprint(i)), far)
		c.overwrite(g.req.Key)
		for range 2 {
			c.Is(g.extend(far), driver.ErrLost, "the driver's Extend of a lease that was overwritten")
		}
		c.inject().Delete(c.T, g.req.Key)
		y.takeSoon(g.req.Key, far).mustRelease()
	}
}

// extendsSoon: an Extend counts from itself, however short a time ago the last one was, and of whatever length.
func extendsSoon(c *trial) {
	x, y := c.raw(), c.raw()
	ttl := c.lifetime()
	c.Together(4, func(i int) {
		g := x.take(c.Key(fmt.Sprint(i)), ttl)
		before, after := g.before, g.after
		for range 1 + i%2 {
			c.Sleep(ttl / time.Duration(12-2*i)) // of the ttl: 8 to 17 %
			before = time.Now()
			c.OK(g.extend(ttl), "Extend, a short time after the grant or the last Extend,")
			after = time.Now()
		}
		y.endsAt(g.req.Key, before.Add(ttl), after.Add(ttl), "after an Extend that soon").mustRelease()
	})
}
