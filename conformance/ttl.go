package conformance

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var ttlCases = []Case{
	{ID: "TTL-001", Kinds: both, CoreLoop: true, fn: freeAtTTL, Parts: []Part{
		{Name: "late-waiter", fn: lateWaiter},
		{Name: "shortened", fn: shortened},
		{Name: "shortened-again", fn: shortenedAgain},
		{Name: "together", fn: endTogether},
		{Name: "beside", Kinds: []Kind{Lease}, fn: endsBeside},
		passed(passedExpires)[0],
		passedPart("passed-shorter", passedShorter),
	}, Clause: "the key is free again at ttl, without anyone calling anything, and a waiter gets it promptly, however many other keys expire"},
	{ID: "TTL-002", Clause: "the holder's local deadline is never later than the backend's: it counts from before the attempt was sent, less drift", Parts: []Part{
		{Name: "calls", fn: deadlineIsEarly},
		{Name: "late-reply", fn: replyTooLate},
		{Name: "store", fn: deadlineBeforeStore},
		{Name: "odd", fn: oddLives},
		{Name: "anew", fn: begunAnew},
		{Name: "told", fn: longLives},
		{Name: "afar", Needs: []Need{needsLine}, fn: func(c *trial) { grantedAfar(c, c.Life()) }},
		passed(passedDeadline)[0],
	}},
	{ID: "TTL-003", fn: ttlRounding, Parts: []Part{{Name: "scale", fn: scaleOfTTL}}, Clause: "ttl < 1 ms rounds up to 1 ms; negative or zero is ErrInvalidTTL before any I/O"},
	{ID: "TTL-004", Needs: []Need{needCapability(driver.LeaseOutlivesProcess), needsCrash}, fn: leaseOutlives, Clause: "a lease outlives its process if the backend says so"},
	{ID: "TTL-005", fn: remainingTrue, Parts: []Part{
		{Name: "session", fn: remainingOfSession},
		{Name: "long", Needs: []Need{needsInspector}, fn: remainingOfLong},
		{Name: "stall", Needs: []Need{needsPause}, fn: remainingAfterStall},
	}, Clause: "what a refusal tells of the holder's remaining time is true: never more than what is left, and not much less"},
}

// freeAtTTL: the kind is what the waiter asks for.
func freeAtTTL(c *trial) {
	a, b := c.client(), c.client()
	// A store that looks for expired keys at random finds one among many late.
	c.Together(8, func(i int) {
		for n := range c.Rounds(120, 30) {
			a.mustTry(c.Key(fmt.Sprint("other ", i, " ", n)), locker.WithTTL(far))
		}
	})
	// Who knows how long the holder's time still is needs no poll to come in time.
	waiting, late := c.Polling(), c.HandOver()
	if b.waits() || c.tellsRest() {
		waiting, late = harness.Patient(), c.Prompt()
	}
	for round, waiter := range []*client{nil, b, a, b} {
		key := c.Key(fmt.Sprint("k", round))
		h := a.mustTry(key, locker.WithTTL(c.Unit()))
		done, deadline, latest := h.Done(), h.deadline(), h.at.Add(c.Unit()).Add(late)
		if waiter == nil {
			// Nobody waits: it is simply free.
			c.Sleep(time.Until(h.at.Add(c.Unit()).Add(c.Granularity())))
			b.mustTry(key, c.hold()...).mustUnlock()
			c.Await(done, c.Prompt(), "Done closes when the ttl is over")
			continue
		}
		p := waiter.goLock(key, append(c.hold(), waiting)...)
		c.Settle()
		if time.Now().Before(deadline) && harness.IsClosed(p.done) {
			c.Fatal("the waiter waits until the ttl is over", "Lock returned %s before the deadline: %v", time.Until(deadline), p.err)
		}
		select {
		case <-p.done:
		case <-c.Ctx.Done():
		case <-time.After(c.Limit()):
			c.lateness().Fatal("the waiter gets the key after the end of the ttl", "it has not %s later", c.Limit())
		}
		got := p.granted(c.Limit(), "the end of "+a.name+"'s ttl")
		c.Claim("TTL-002").Must(!p.at.Before(deadline), "nobody gets the key before "+a.name+"'s deadline", waiter.name+" got it %s before", deadline.Sub(p.at))
		if p.at.After(latest) {
			c.lateness().Fatal(fmt.Sprintf("the waiter gets the key no more than %s after the end of the ttl", late), "it came %s after it", p.at.Sub(h.at.Add(c.Unit())))
		}
		c.Is(h.Err(), locker.ErrLost, "the Err of a lease whose ttl is over")
		got.mustLive(a)
		got.mustUnlock()
	}
}

// tellsRest says whether the backend tells with ErrHeld how long the key stays held.
func (c *trial) tellsRest() bool {
	d := c.driver()
	r := driver.Request{Key: c.Key("rest"), Owner: c.Owner(), TTL: far, Hold: newRecorder()}
	_, err := d.Acquire(c.CtxFor(c.Limit()), r)
	c.OK(err, "the driver's Acquire of a free key")
	r.Owner = c.Owner()
	_, err = d.Acquire(c.CtxFor(c.Limit()), r)
	c.Is(err, driver.ErrHeld, "the driver's Acquire of a key that is held")
	rest, ok := driver.Remaining(err)
	return ok && rest >= 0 // whether it is true is for TTL-005
}

// lateness is the clause that is broken where a waiter came late at the end of a lease: that
// of what it was told, if a lease ends in time and it was told something else.
func (c *trial) lateness() harness.Claim {
	x, y := c.raw(), c.raw()
	ttl := c.lifetime()
	g := x.take(c.Key("lateness"), ttl)
	began := time.Now()
	lies := false
	for _, share := range []time.Duration{0, 10, 50} {
		c.Sleep(time.Until(began.Add(ttl * share / 100)))
		told, ok := driver.Remaining(y.refused(g.req.Key, c.Owner(), far))
		left := time.Until(g.after.Add(ttl))
		lies = lies || ok && (told > left+c.Granularity() || told < left-c.Granularity())
	}
	c.Sleep(time.Until(g.after.Add(ttl).Add(c.Granularity())))
	if _, err := y.acquire(g.req.Key, c.Owner(), far); err == nil && lies {
		return c.Claim("TTL-005")
	}
	return c.Claim("TTL-001")
}

// endsBeside: a lease ends when its own time is up, whatever its client does with other keys.
func endsBeside(c *trial) {
	x, y := c.raw(), c.raw()
	ttl := c.lifetime()
	extended, repeated := x.take(c.Key("extended"), ttl), x.take(c.Key("repeated"), ttl)
	released, session := x.take(c.Key("released"), far), x.take(c.Key("session"), 0) // which is renewed meanwhile
	held := y.take(c.Key("held"), far)
	g := x.take(c.Key("k"), ttl)
	c.OK(extended.extend(far), "Extend of another lease of the same client")
	repeated.req.TTL = far
	repeated = repeated.again()
	released.mustRelease()
	later := x.take(c.Key("later"), far)
	x.refused(held.req.Key, c.Owner(), far)
	y.endsAt(g.req.Key, g.before.Add(ttl), g.after.Add(ttl), "beside a lease that is extended, and others,").mustRelease()
	for _, other := range []*grip{extended, repeated, session, held, later} {
		other.untouched(y)
		other.mustRelease()
	}
}

func deadlineIsEarly(c *trial) {
	const drift = 0.1
	a := c.client()
	drifting := c.clientWith(locker.Config{DriftFactor: drift})
	share := func(d time.Duration, f float64) time.Duration { return d - time.Duration(f*float64(d)) }

	standard := locker.DefaultDriftFactor
	if c.Caps.Has.Has(driver.LocalClock) {
		standard = 0 // one clock only: it cannot drift away from itself
	}
	// The tap sees the call later than the core read its clock, and before the backend did
	// anything. That the reply, or the request, takes its time must not matter.
	check := func(what string, h *hold, before time.Time, ttl time.Duration, f float64) {
		sent, asked := a.tap.LastCall()
		if h.cl == drifting {
			sent, asked = drifting.tap.LastCall()
		}
		c.Must(asked == ttl, what+" asks the backend for the whole ttl, "+ttl.String(), "%s", asked)
		late := h.deadline().Sub(sent.Add(share(ttl, f)))
		c.Must(late <= 0, fmt.Sprintf("the deadline after %s is no later than the moment of the call to the backend + %v of the ttl", what, 1-f), "it is %s later", late)
		// A deadline long before that would keep the clause and be of no use.
		early := before.Add(share(ttl, f)).Sub(h.deadline())
		c.Must(early <= c.Granularity(), "the deadline after "+what+" is not much earlier than it must be", "it is %s earlier", early)
	}
	const ttl = far
	for _, speed := range []harness.Fault{nil, harness.SlowReply(c.Unit()), harness.SlowRequest(c.Unit())} {
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
			way.cl.tap.All(speed)
			h := way.cl.mustTry(c.Key(way.name), way.opts...)
			check(way.name, h, h.before, ttl, way.drift)
			before := time.Now()
			c.Claim("EXT-001").OK(h.extend(2*ttl), "Extend after %s", way.name)
			check("Extend after "+way.name, h, before, 2*ttl, way.drift)
			h.mustUnlock()
			way.cl.tap.All(nil)
		}
	}
}

// replyTooLate: a reply that comes after the deadline brings no hold.
func replyTooLate(c *trial) {
	a, b := c.client(), c.client()
	for _, speed := range []harness.Fault{harness.SlowReply(2 * c.Unit()), harness.SlowRequest(2 * c.Unit())} {
		a.tap.Next(harness.OpAcquire, speed)
		_, err := a.try(c.Key("too late"), locker.WithTTL(c.Unit()))
		claim := c.Claim(c.ID)
		if errors.Is(err, locker.ErrUnavailable) { // somebody lost patience with it
			claim = c.Claim("FLT-002")
		}
		claim.Is(err, locker.ErrLost, "TryLock whose reply takes longer than the ttl")
		b.goLock(c.Key("too late"), locker.WithTTL(far), c.Polling()).grantedBy(c.Claim("TTL-001"), c.Unit()+c.HandOver(), "a TryLock whose reply came too late").mustUnlock()
	}
}

// deadlineBeforeStore: whoever gets the key gets it after the deadline, however the lease came
// about, and its holder knows of the end by then.
func deadlineBeforeStore(c *trial) {
	a, b := c.client(), c.client()
	holder := a
	if !c.Caps.Has.Has(driver.LocalClock) {
		holder = c.clientWith(locker.Config{DriftFactor: 0.1})
	}
	unit := locker.WithTTL(c.Unit())
	for i, way := range []string{"TryLock", "a Lock that waited", "Extend", "Extend to less"} {
		key := c.Key(fmt.Sprint("way ", i))
		var h *hold
		switch way {
		case "TryLock":
			h = holder.mustTry(key, unit)
		case "a Lock that waited":
			first := b.mustTry(key, locker.WithTTL(far))
			p := holder.goLock(key, unit, c.Polling())
			c.Settle()
			c.Sleep(c.Unit()) // a ttl that counted from the call would be over now
			released, given := time.Now(), holder.tap.Count(harness.OpRelease)
			first.mustUnlock()
			h = p.granted(c.Limit(), "the release")
			c.Must(holder.tap.Count(harness.OpRelease) == given, "the first grant is taken, because its ttl counts from the grant", "it was given back as one that came too late")
			c.Must(h.deadline().After(released.Add(c.Unit()/2)), "the ttl counts from the grant, not from the call of Lock", "the deadline is %s after the release", h.deadline().Sub(released))
			c.Must(!h.deadline().After(h.at.Add(c.Unit())), "the deadline is no later than the grant + ttl", "it is %s later", h.deadline().Sub(h.at.Add(c.Unit())))
		case "Extend":
			h = holder.mustTry(key, unit)
			c.Sleep(c.Unit() / 4)
			c.OK(h.extend(c.Unit()), "Extend")
		case "Extend to less":
			h = holder.mustTry(key, locker.WithTTL(far))
			c.OK(h.extend(c.Unit()), "Extend")
		}
		deadline, done := h.deadline(), h.Done()
		p := b.goLock(key, locker.WithTTL(far), c.Polling())
		life := "TTL-001"
		if strings.HasPrefix(way, "Extend") {
			life = "EXT-001"
		}
		got := p.grantedBy(c.Claim(life), c.Limit(), "the end of the ttl")
		c.Must(!got.at.Before(deadline), "after "+way+" nobody gets the key before the holder's deadline", b.name+" got it %s before", deadline.Sub(got.at))
		if c.Virtual || c.Caps.Has.Has(driver.LocalClock) {
			c.Must(harness.IsClosed(done), "after "+way+" the holder's Done has closed by the time when somebody else gets the key", "it is open")
		} else { // a busy machine may run the waiter before the timer, though it was due before
			c.Must(h.Err() != nil, "after "+way+" the holder's Err says that it is over by the time when somebody else gets the key", "nil")
			c.Await(done, c.Prompt(), "after %s the holder's Done closes", way)
		}
	}
}

// oddLives: lives that are no round number in any unit, in the store's own time.
func oddLives(c *trial) {
	x, y := c.raw(), c.raw()
	c.Together(4, func(i int) {
		ttl := c.Unit() + time.Duration(9+10*i)*time.Millisecond
		g := x.take(c.Key(fmt.Sprint("odd ", i)), ttl)
		y.endsAt(g.req.Key, g.before.Add(ttl), g.after.Add(ttl), fmt.Sprintf("of %s", ttl)).mustRelease()
	})
}

// begunAnew: a lease is extended when hardly any of it is over. A store that spares itself the write
// takes from the holder what it counts on.
func begunAnew(c *trial) {
	x, y := c.raw(), c.raw()
	c.Together(4, func(i int) {
		ttl := c.Unit()
		g := x.take(c.Key(fmt.Sprint(i)), ttl)
		c.Sleep(ttl * time.Duration(2*i+1) / 100)
		extended := time.Now()
		if err := g.extend(ttl); err != nil && time.Since(g.before) > ttl {
			c.Note("the machine was too slow to extend in time: %v", err)
			return
		} else {
			c.OK(err, "the driver's Extend")
		}
		for end := extended.Add(ttl); time.Since(end) < c.Prompt(); { // how late it may be is for EXT-001
			next, err := y.acquire(g.req.Key, c.Owner(), far)
			if err == nil {
				early := end.Add(-ttl / 100).Sub(next.after) // what clocks may drift apart
				c.Must(early <= 0, "after an Extend soon after the grant the key stays held until its holder's time is up", "it is free %s before", early)
				return
			}
			c.Is(err, driver.ErrHeld, "the driver's Acquire of %s", c.Short(g.req.Key))
			c.Sleep(time.Millisecond)
		}
	})
}

// longLives: nobody waits for the end of a long lease, but the store tells how long it still is.
func longLives(c *trial) {
	c.tellsRemaining()
	x, y := c.raw(), c.raw()
	for _, ttl := range []time.Duration{
		1999 * time.Millisecond,
		5*time.Second + 990*time.Millisecond, 5*time.Second + 740*time.Millisecond, 5*time.Second + 490*time.Millisecond, 5*time.Second + 240*time.Millisecond, // a clock of whole seconds cuts something off one of them
		time.Minute + 1700*time.Millisecond, time.Hour + 59900*time.Millisecond, 49*time.Hour + 1999*time.Millisecond} {
		g := x.take(c.Key(ttl.String()), ttl)
		for _, after := range []string{"a grant", "an Extend"} {
			if after == "an Extend" {
				g.before = time.Now()
				c.OK(g.extend(ttl-time.Millisecond), "the driver's Extend")
				ttl -= time.Millisecond
			}
			told, ok := driver.Remaining(y.refused(g.req.Key, c.Owner(), far))
			if !ok || told < 0 {
				continue // it is not known of this one
			}
			// Its holder counts on as much, less the drift; what is told may be a little less than what is.
			if least := time.Until(g.before.Add(ttl-ttl/100)) - c.Prompt(); told < least {
				claim := c.Claim("TTL-002")
				if in, ok := driver.As[driver.Inspector](x.inner); ok {
					if info, held, err := in.Inspect(c.CtxFor(c.Limit()), g.req.Key); err == nil && held && info.Remaining >= least {
						claim = c.Claim("TTL-005") // the store does keep it
					}
				}
				if c.lateness() == c.Claim("TTL-005") {
					claim = c.Claim("TTL-005")
				}
				claim.Fatal(fmt.Sprintf("after %s of %s the store keeps it for as long as its holder counts on it, %s", after, ttl, least), "a refusal tells %s", told)
			}
		}
		g.mustRelease()
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
		key := c.Key(d.ask.String())
		h, err := a.try(key, locker.WithTTL(d.ask))
		_, asked := a.tap.LastCall()
		c.Must(asked == d.get, fmt.Sprintf("a ttl of %s asks the backend for %s", d.ask, d.get), "%s", asked)
		if d.get == far {
			c.OK(err, "TryLock with a ttl of %s", d.ask)
			c.Must(!h.deadline().After(h.at.Add(far)), "the deadline is no later than the ttl", "%s later", h.deadline().Sub(h.at.Add(far)))
			h.mustLive(b)
			continue
		}
		// So short a lease may be over before the reply of a store that is far away.
		if err != nil {
			c.Is(err, locker.ErrLost, "TryLock with a ttl of %s, which is over before the reply,", d.ask)
		} else {
			c.Must(!h.deadline().After(h.at.Add(d.get)), fmt.Sprintf("the deadline of a lease of %s is no later than %s after the grant", d.ask, d.get), "%s later", h.deadline().Sub(h.at.Add(d.get)))
		}
		p := b.goLock(key, locker.WithTTL(far), c.Polling())
		p.granted(c.HandOver()+d.get, "the end of a ttl of "+d.ask.String()).mustUnlock()
	}

	h := a.mustTry(c.Key("extend"), locker.WithTTL(far))
	calls := a.tap.Count()
	for _, d := range []time.Duration{0, -1, -time.Hour, locker.MaxTTL + 1} {
		_, err := a.try(c.Key("k"), locker.WithTTL(d))
		c.Is(err, locker.ErrInvalidTTL, "TryLock with a ttl of %s", d)
		_, err = a.lock(c.CtxFor(c.Limit()), c.Key("k"), locker.WithTTL(d))
		c.Is(err, locker.ErrInvalidTTL, "Lock with a ttl of %s", d)
		err = h.extend(d)
		c.Is(err, locker.ErrInvalidTTL, "Extend by %s", d)
	}
	c.Must(a.tap.Count() == calls, "an invalid ttl is refused before any I/O", "the backend was called %d times", a.tap.Count()-calls)
	h.mustLive(b)
	a.mustTry(c.Key("k"), locker.WithTTL(far))

	// Far from the store a millisecond may be over before the answer comes.
	if err := h.extend(time.Microsecond); err != nil {
		c.Is(err, locker.ErrLost, "Extend by 1µs, where it does not succeed,")
	}
	_, asked := a.tap.LastCall()
	c.Must(asked == time.Millisecond, "Extend by 1µs asks the backend for 1ms", "%s", asked)
}

func leaseOutlives(c *trial) {
	b := c.client() // the target's own
	name, dying := c.Open()
	t, shown := c.Tap(name, dying)
	l, err := locker.New(shown, locker.Config{})
	c.OK(err, "locker.New")
	a := &client{c, name, l, t}
	key := c.Key("k")
	h := a.mustTry(key, locker.WithTTL(2*c.Unit()))
	c.target.Crash(c.T, dying)
	c.Hist.Add("%s  (its process dies)", name)
	if _, err := b.try(key, locker.WithTTL(far)); time.Now().Before(h.deadline()) {
		c.Must(errors.Is(err, locker.ErrHeld), "the key stays taken until the ttl, although the holder's process has died", "%v", err)
	}
	p := b.goLock(key, locker.WithTTL(far), c.Polling())
	got := p.granted(c.Limit(), "the end of the dead holder's ttl")
	c.Must(!got.at.Before(h.deadline()), "nobody gets the key before the dead holder's deadline", "%s before", h.deadline().Sub(got.at))
	late := got.at.Sub(h.at.Add(2 * c.Unit()))
	c.Must(late <= c.HandOver(), fmt.Sprintf("a waiter gets the key no more than %s after the dead holder's ttl", c.HandOver()), "%s after", late)

	// Long ones too, in the eyes of a client that opens only now: it may put the store in order.
	x := c.raw()
	var long []*grip
	for _, ttl := range []time.Duration{far, 36 * time.Hour, 100 * 24 * time.Hour} {
		long = append(long, x.take(c.Key(ttl.String()), ttl))
	}
	c.target.Crash(c.T, x.inner)
	c.Hist.Add("   (the process of the long leases dies)")
	y := c.raw()
	for _, g := range long {
		y.refusedOr(c.Claim("TTL-004"), g.req.Key, c.Owner(), far)
		_ = y.Release(c.CtxFor(c.Limit()), g.holder()) // where a store asks for no more than the owner, nothing is left
	}
}
