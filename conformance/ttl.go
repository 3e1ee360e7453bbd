package conformance

import (
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var ttlCases = []Case{
	{ID: "TTL-001", Kinds: both, CoreLoop: true, fn: freeAtTTL, Parts: passed(passedExpires), Clause: "the key is free again at ttl, without anyone calling anything, and a waiter gets it promptly, however many other keys expire"},
	{ID: "TTL-002", fn: deadlineIsEarly, Parts: passed(passedDeadline), Clause: "the holder's local deadline is never later than the backend's: it counts from before the attempt was sent, less drift"},
	{ID: "TTL-003", fn: ttlRounding, Clause: "ttl < 1 ms rounds up to 1 ms; negative or zero is ErrInvalidTTL before any I/O"},
	{ID: "TTL-004", Needs: []Need{needCapability(driver.LeaseOutlivesProcess), needsCrash}, fn: leaseOutlives, Clause: "a lease outlives its process if the backend says so"},
}

// freeAtTTL: the kind is what the waiter asks for.
func freeAtTTL(c *trial) {
	a, b := c.client(), c.client()
	// A store that looks for expired keys at random finds one among many late.
	c.together(8, func(i int) {
		for n := range c.rounds(120, 30) {
			a.mustTry(c.key(fmt.Sprint("other ", i, " ", n)), locker.WithTTL(far))
		}
	})
	// Who knows how long the holder's time still is needs no poll to come in time.
	waiting, late := c.polling(), c.handOver()
	if b.waits() || c.tellsRest() {
		waiting, late = patient(), c.prompt()
	}
	for round, waiter := range []*client{b, a, nil, b} {
		key := c.key(fmt.Sprint("k", round))
		h := a.mustTry(key, locker.WithTTL(c.unit()))
		done, deadline, latest := h.Done(), h.deadline(), h.at.Add(c.unit()).Add(late)
		if waiter == nil {
			// Nobody waits: it is simply free.
			c.sleep(time.Until(h.at.Add(c.unit()).Add(c.granularity())))
			b.mustTry(key, c.hold()...).mustUnlock()
			c.await(done, c.prompt(), "Done closes when the ttl is over")
			continue
		}
		p := waiter.goLock(key, append(c.hold(), waiting)...)
		c.settle()
		if time.Now().Before(deadline) && isClosed(p.done) {
			c.fatal("the waiter waits until the ttl is over", "Lock returned %s before the deadline: %v", time.Until(deadline), p.err)
		}
		got := p.granted(c.limit(), "the end of "+a.name+"'s ttl")
		c.must(!p.at.Before(deadline), "nobody gets the key before "+a.name+"'s deadline", waiter.name+" got it %s before", deadline.Sub(p.at))
		c.must(!p.at.After(latest), fmt.Sprintf("the waiter gets the key no more than %s after the end of the ttl", late), "it came %s after it", p.at.Sub(h.at.Add(c.unit())))
		c.is(h.Err(), locker.ErrLost, "the Err of a lease whose ttl is over")
		got.mustLive(a)
		got.mustUnlock()
	}
}

// tellsRest says whether the backend tells with ErrHeld how long the key stays held.
func (c *trial) tellsRest() bool {
	d := c.driver()
	r := driver.Request{Key: c.key("rest"), Owner: c.owner(), TTL: far, Hold: newRecorder()}
	_, err := d.Acquire(c.ctxFor(c.limit()), r)
	c.ok(err, "the driver's Acquire of a free key")
	r.Owner = c.owner()
	_, err = d.Acquire(c.ctxFor(c.limit()), r)
	c.is(err, driver.ErrHeld, "the driver's Acquire of a key that is held")
	rest, ok := driver.Remaining(err)
	c.must(!ok || rest <= far, "what ErrHeld tells of the holder's rest is no more than its ttl", "%s", rest)
	return ok && rest > 0
}

func deadlineIsEarly(c *trial) {
	const drift = 0.1
	a, b := c.client(), c.client()
	drifting := c.clientWith(locker.Config{DriftFactor: drift})
	share := func(d time.Duration, f float64) time.Duration { return d - time.Duration(f*float64(d)) }

	standard := locker.DefaultDriftFactor
	if c.caps.Has.Has(driver.LocalClock) {
		standard = 0 // one clock only: it cannot drift away from itself
	}
	// The tap sees the call later than the core read its clock, and before the backend did
	// anything. That the reply, or the request, takes its time must not matter.
	check := func(what string, h *hold, before time.Time, ttl time.Duration, f float64) {
		sent, asked := a.tap.lastCall()
		if h.cl == drifting {
			sent, asked = drifting.tap.lastCall()
		}
		c.must(asked == ttl, what+" asks the backend for the whole ttl, "+ttl.String(), "%s", asked)
		late := h.deadline().Sub(sent.Add(share(ttl, f)))
		c.must(late <= 0, fmt.Sprintf("the deadline after %s is no later than the moment of the call to the backend + %v of the ttl", what, 1-f), "it is %s later", late)
		// A deadline long before that would keep the clause and be of no use.
		early := before.Add(share(ttl, f)).Sub(h.deadline())
		c.must(early <= c.granularity(), "the deadline after "+what+" is not much earlier than it must be", "it is %s earlier", early)
	}
	const ttl = far
	for _, speed := range []fault{nil, slowReply(c.unit()), slowRequest(c.unit())} {
		for _, way := range []struct {
			cl    *client
			name  string
			drift float64
			opts  []locker.Option
		}{
			{a, "TryLock", standard, []locker.Option{locker.WithTTL(ttl)}},
			{a, "TryLock WithDriftFactor(0.1)", drift, []locker.Option{locker.WithTTL(ttl), locker.WithDriftFactor(drift)}},
			{drifting, "TryLock with Config.DriftFactor 0.1", drift, []locker.Option{locker.WithTTL(ttl)}},
		} {
			way.cl.tap.all(speed)
			h := way.cl.mustTry(c.key(way.name), way.opts...)
			check(way.name, h, h.before, ttl, way.drift)
			before := time.Now()
			c.ok(h.extend(2*ttl), "Extend after %s", way.name)
			check("Extend after "+way.name, h, before, 2*ttl, way.drift)
			h.mustUnlock()
			way.cl.tap.all(nil)
		}
	}

	// A reply that comes after the deadline brings no hold.
	for _, speed := range []fault{slowReply(2 * c.unit()), slowRequest(2 * c.unit())} {
		a.tap.next(opAcquire, speed)
		_, err := a.try(c.key("too late"), locker.WithTTL(c.unit()))
		c.is(err, locker.ErrLost, "TryLock whose reply takes longer than the ttl")
		b.goLock(c.key("too late"), locker.WithTTL(far), c.polling()).granted(c.unit()+c.handOver(), "a TryLock whose reply came too late").mustUnlock()
	}

	// Against the store itself: whoever gets the key gets it after the deadline, however the
	// lease came about, and its holder knows of the end by then.
	holder := drifting
	if standard == 0 {
		holder = a
	}
	unit := locker.WithTTL(c.unit())
	for i, way := range []string{"TryLock", "a Lock that waited", "Extend", "Extend to less"} {
		key := c.key(fmt.Sprint("way ", i))
		var h *hold
		switch way {
		case "TryLock":
			h = holder.mustTry(key, unit)
		case "a Lock that waited":
			first := b.mustTry(key, locker.WithTTL(far))
			p := holder.goLock(key, unit, c.polling())
			c.settle()
			c.sleep(c.unit()) // a ttl that counted from the call would be over now
			released := time.Now()
			first.mustUnlock()
			h = p.granted(c.limit(), "the release")
			c.must(h.deadline().After(released.Add(c.unit()/2)), "the ttl counts from the grant, not from the call of Lock", "the deadline is %s after the release", h.deadline().Sub(released))
			c.must(!h.deadline().After(h.at.Add(c.unit())), "the deadline is no later than the grant + ttl", "it is %s later", h.deadline().Sub(h.at.Add(c.unit())))
		case "Extend":
			h = holder.mustTry(key, unit)
			c.sleep(c.unit() / 4)
			c.ok(h.extend(c.unit()), "Extend")
		case "Extend to less":
			h = holder.mustTry(key, locker.WithTTL(far))
			c.ok(h.extend(c.unit()), "Extend")
		}
		deadline, done := h.deadline(), h.Done()
		p := b.goLock(key, locker.WithTTL(far), c.polling())
		got := p.granted(c.limit(), "the end of the ttl")
		c.must(!got.at.Before(deadline), "after "+way+" nobody gets the key before the holder's deadline", b.name+" got it %s before", deadline.Sub(got.at))
		if c.suite.virtual || c.caps.Has.Has(driver.LocalClock) {
			c.must(isClosed(done), "after "+way+" the holder's Done has closed by the time when somebody else gets the key", "it is open")
		} else { // a busy machine may run the waiter before the timer, though it was due before
			c.must(h.Err() != nil, "after "+way+" the holder's Err says that it is over by the time when somebody else gets the key", "nil")
			c.await(done, c.prompt(), "after %s the holder's Done closes", way)
		}
	}
}

func ttlRounding(c *trial) {
	a, b := c.client(), c.client()
	for _, d := range []struct{ ask, get time.Duration }{
		{1, time.Millisecond},
		{time.Microsecond, time.Millisecond},
		{time.Millisecond - 1, time.Millisecond},
		{time.Millisecond, time.Millisecond},
		{time.Millisecond + 1, 2 * time.Millisecond},
		{far - 1, far},
	} {
		key := c.key(d.ask.String())
		h, err := a.try(key, locker.WithTTL(d.ask))
		_, asked := a.tap.lastCall()
		c.must(asked == d.get, fmt.Sprintf("a ttl of %s asks the backend for %s", d.ask, d.get), "%s", asked)
		if d.get == far {
			c.ok(err, "TryLock with a ttl of %s", d.ask)
			c.must(!h.deadline().After(h.at.Add(far)), "the deadline is no later than the ttl", "%s later", h.deadline().Sub(h.at.Add(far)))
			h.mustLive(b)
			continue
		}
		// So short a lease may be over before the reply of a store that is far away.
		if err != nil {
			c.is(err, locker.ErrLost, "TryLock with a ttl of %s, which is over before the reply,", d.ask)
		} else {
			c.must(!h.deadline().After(h.at.Add(d.get)), fmt.Sprintf("the deadline of a lease of %s is no later than %s after the grant", d.ask, d.get), "%s later", h.deadline().Sub(h.at.Add(d.get)))
		}
		p := b.goLock(key, locker.WithTTL(far), c.polling())
		p.granted(c.handOver()+d.get, "the end of a ttl of "+d.ask.String()).mustUnlock()
	}

	h := a.mustTry(c.key("extend"), locker.WithTTL(far))
	calls := a.tap.count()
	for _, d := range []time.Duration{0, -1, -time.Hour, locker.MaxTTL + 1} {
		_, err := a.try(c.key("k"), locker.WithTTL(d))
		c.is(err, locker.ErrInvalidTTL, "TryLock with a ttl of %s", d)
		_, err = a.lock(c.ctxFor(c.limit()), c.key("k"), locker.WithTTL(d))
		c.is(err, locker.ErrInvalidTTL, "Lock with a ttl of %s", d)
		err = h.extend(d)
		c.is(err, locker.ErrInvalidTTL, "Extend by %s", d)
	}
	c.must(a.tap.count() == calls, "an invalid ttl is refused before any I/O", "the backend was called %d times", a.tap.count()-calls)
	h.mustLive(b)
	a.mustTry(c.key("k"), locker.WithTTL(far))

	// Far from the store a millisecond may be over before the answer comes.
	if err := h.extend(time.Microsecond); err != nil {
		c.is(err, locker.ErrLost, "Extend by 1µs, where it does not succeed,")
	}
	_, asked := a.tap.lastCall()
	c.must(asked == time.Millisecond, "Extend by 1µs asks the backend for 1ms", "%s", asked)
}

func leaseOutlives(c *trial) {
	b := c.client() // the target's own
	name, dying := c.open()
	t, shown := c.tap(name, dying)
	l, err := locker.New(shown, locker.Config{})
	c.ok(err, "locker.New")
	a := &client{c, name, l, t}
	key := c.key("k")
	h := a.mustTry(key, locker.WithTTL(2*c.unit()))
	c.target.Crash(c.t, dying)
	c.hist.add("%s  (its process dies)", name)
	if _, err := b.try(key, locker.WithTTL(far)); time.Now().Before(h.deadline()) {
		c.must(errors.Is(err, locker.ErrHeld), "the key stays taken until the ttl, although the holder's process has died", "%v", err)
	}
	p := b.goLock(key, locker.WithTTL(far), c.polling())
	got := p.granted(c.limit(), "the end of the dead holder's ttl")
	c.must(!got.at.Before(h.deadline()), "nobody gets the key before the dead holder's deadline", "%s before", h.deadline().Sub(got.at))
	late := got.at.Sub(h.at.Add(2 * c.unit()))
	c.must(late <= c.handOver(), fmt.Sprintf("a waiter gets the key no more than %s after the dead holder's ttl", c.handOver()), "%s after", late)
}
