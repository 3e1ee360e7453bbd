package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// What the clauses ask of a hold that went from hand to hand inside of a process, through
// a driver.Passer. Most cases of waiting and releasing meet such holds anyway: the parts here
// are about what these would not tell.

// passed is a part about holds that were passed on.
func passed(fn func(*trial)) []Part {
	return []Part{{Name: "passed", Kinds: []Kind{Lease}, Needs: []Need{needsPasser}, fn: func(c *trial) {
		if _, waits := driver.As[driver.Waiter](c.target.Backend); waits && !c.leaf.coreLoop {
			c.skip("the backend waits by itself: nobody stands in the core's line, from which it could be served")
		}
		fn(c)
	}}}
}

// chain has a lease of key passed from one to the next in cl's line until it comes to the
// last one, each with this ttl and most of them at once, and returns the last one's.
func (c *trial) chain(cl *client, key string, ttl time.Duration) *hold {
	// In real time somebody in line may just be making an attempt, and then is passed nothing.
	for range 20 {
		h := cl.mustTry(key, locker.WithTTL(far))
		var line []*pending
		for range 4 {
			line = append(line, cl.goLock(key, locker.WithTTL(ttl), c.polling()))
			c.settle()
		}
		last := 0
		for i, p := range line {
			if i%2 == 1 {
				c.sleep(min(ttl, c.unit()) / 10)
			}
			last = cl.tap.passed()
			if err := h.unlock(); err != nil { // a machine too slow for the ttl
				c.must(!c.suite.virtual && errors.Is(err, locker.ErrLost), "Unlock of what is held gives nil", "%v", err)
			}
			h = p.granted(c.limit(), "the release")
		}
		if cl.tap.passed() > last {
			return h
		}
		_ = h.unlock()
	}
	c.skip("in 20 tries no hold was passed on")
	return nil
}

func passedExclusive(c *trial) {
	a, b := c.client(), c.client()
	h := c.chain(a, c.key("k"), far)
	h.mustLive(a, b)
	h.mustUnlock()
	log := c.hammer(hammer{
		clients: []*client{a, b}, keys: []string{c.key("x")}, rounds: c.rounds(40, 10), stay: c.granularity() / 8,
		ttl: func(*rand.Rand) time.Duration { return c.unit() },
	}, 12)
	c.checkSpans(log)
}

// passedExpires: one whose hold was passed to it lets it run out, alone or after others who
// might have kept it for longer.
func passedExpires(c *trial) {
	a := c.client()
	waiting, late := c.polling(), c.handOver()
	if c.tellsRest() {
		waiting, late = patient(), c.prompt()
	}
	for _, before := range []time.Duration{0, far, c.unit() / 2} {
		key := c.key(before.String())
		h := a.mustTry(key, locker.WithTTL(far))
		var first *pending
		if before > 0 {
			first = a.goLock(key, locker.WithTTL(before), c.polling())
			c.settle()
		}
		second := a.goLock(key, locker.WithTTL(c.unit()), c.polling())
		c.settle()
		p := a.goLock(key, append(c.hold(), waiting)...)
		c.settle()
		h.mustUnlock()
		if first != nil {
			_ = first.granted(c.limit(), "the release").unlock()
		}
		h = second.granted(c.limit(), "the release")
		deadline, latest := h.deadline(), h.at.Add(c.unit()).Add(late)
		got := p.granted(c.limit(), "the end of the ttl of what was passed on")
		c.must(!got.at.Before(deadline), "nobody gets the key before the deadline of what was passed on", "%s before", deadline.Sub(got.at))
		c.must(!got.at.After(latest), fmt.Sprintf("the next in line gets the key no more than %s after the end of the ttl of what was passed on", late), "%s after it", got.at.Sub(h.at.Add(c.unit())))
		c.is(h.Err(), locker.ErrLost, "the Err of a lease whose ttl is over")
		got.mustUnlock()
	}
}

func passedDeadline(c *trial) {
	a, b := c.client(), c.client()
	for round := range 3 {
		key := c.key(fmt.Sprint(round))
		h := c.chain(a, key, c.unit())
		d := h.deadline()
		c.must(!d.After(h.at.Add(c.unit())), "the deadline of what was passed on is no later than the grant + ttl", "%s later", d.Sub(h.at.Add(c.unit())))
		c.must(!c.suite.virtual || d.After(h.at.Add(c.unit()*9/10)), "who is passed a hold gets the life that it asked for", "%s of %s", d.Sub(h.at), c.unit())
		got := b.goLock(key, locker.WithTTL(far), c.polling()).granted(c.limit(), "the end of the ttl")
		c.must(!got.at.Before(d), "nobody gets the key before the deadline of what was passed on", "%s before", d.Sub(got.at))
		c.must(h.Err() != nil, "the Err of a hold that was passed on tells of its end by the time when somebody else gets the key", "nil")
		got.mustUnlock()
	}
}

func passedExtend(c *trial) {
	a, b := c.client(), c.client()
	unit := c.unit()
	h := c.chain(a, c.key("shorter"), far)
	c.ok(h.extend(unit), "Extend to less of what was passed on")
	d, after := h.deadline(), time.Now()
	c.must(!d.After(after.Add(unit)), "after Extend to less the deadline is no later than now + d", "%s later", d.Sub(after.Add(unit)))
	got := b.goLock(h.Key(), locker.WithTTL(far), c.polling()).granted(c.limit(), "the end of the ttl")
	c.must(!got.at.Before(d), "nobody gets the key before the deadline", "%s before", d.Sub(got.at))
	late := got.at.Sub(after.Add(unit))
	c.must(late <= c.handOver(), fmt.Sprintf("the key is free no more than %s after now + d", c.handOver()), "%s after it", late)

	h = c.chain(a, c.key("longer"), unit)
	d = h.deadline()
	if err := h.extend(far); err != nil && !c.suite.virtual && !time.Now().Before(d) {
		c.note("the machine was too slow to extend in time: %v", err)
		return
	} else {
		c.ok(err, "Extend to more of what was passed on")
	}
	c.sleep(time.Until(d) + unit)
	h.mustLive(a, b)
	h.mustUnlock()
}

// passedInDoubt: a request for the hold whose fate is not known may come to the store
// after the hold was passed on, and would change the next one's.
func passedInDoubt(c *trial) {
	a := c.client()
	for _, f := range []struct {
		name string
		f    fault
	}{{"lost request", refuse}, {"lost reply", lose}, {"request under way", slowReply(c.unit())}} {
		key := c.key(f.name)
		h := a.mustTry(key, locker.WithTTL(far))
		p := a.goLock(key, locker.WithTTL(far), patient())
		c.settle()
		a.tap.next(opExtend, f.f)
		extended := c.spawn(func() {
			if err := h.extend(far / 2); f.name != "request under way" {
				c.is(err, locker.ErrUnavailable, "Extend with a %s", f.name)
			}
		})
		if c.settle(); f.name != "request under way" {
			<-extended
		}
		before := a.tap.passed()
		h.mustUnlock()
		got := p.granted(c.limit(), "the release")
		c.must(a.tap.passed() == before, "after an Extend with a "+f.name+" the hold is released and not passed on", "it was passed on")
		<-extended
		got.mustLive(a)
		c.must(got.deadline().After(time.Now().Add(far*9/10-c.limit())), "the next one's deadline is its own", "%s from now", time.Until(got.deadline()))
		got.mustUnlock()
	}
}

func passedRelease(c *trial) {
	a, b := c.client(), c.client()
	key := c.key("k")
	for range c.rounds(5, 2) {
		h := c.chain(a, key, far)
		h.mustUnlock()
		b.mustTry(key, locker.WithTTL(far)).mustUnlock()
		a.mustTry(key, locker.WithTTL(far)).mustUnlock()
		c.is(h.unlock(), locker.ErrReleased, "a second Unlock of what was passed on")
	}
}

// passedLate: the request to pass a hold on comes to the store after the hold's end.
func passedLate(c *trial) {
	a, b := c.client(), c.client()
	unit := c.unit()
	for _, taken := range []bool{true, false} {
		key := c.key(fmt.Sprint(taken))
		h := a.mustTry(key, locker.WithTTL(unit))
		p := a.goLock(key, locker.WithTTL(far), c.polling())
		c.settle()
		var q *pending
		if taken {
			q = b.goLock(key, locker.WithTTL(far), c.polling())
			c.settle()
		}
		a.tap.next(opRelease, slowRequest(2*unit))
		var err error
		unlocked := c.spawn(func() { err = h.unlock() })
		var next *hold
		if taken {
			var first *pending
			if _, first = c.first([]*pending{p, q}); first == p {
				// It was making an attempt when it might have been passed the hold.
				p.h.mustUnlock()
				q.granted(c.limit(), "the release").mustUnlock()
				<-unlocked
				continue
			}
			next = q.h
		}
		c.await(unlocked, c.limit(), "Unlock returns")
		c.is(err, locker.ErrLost, "Unlock whose request comes after the end of the hold")
		if taken {
			c.settle()
			c.must(!isClosed(p.done), "who was to be passed a hold that had ended waits on", "Lock returned: %v", p.outcome())
			next.mustLive(a)
			c.ok(next.extend(far), "the next holder's Extend")
			next.mustUnlock()
		}
		got := p.granted(c.handOver(), "the end of all that was before")
		got.mustLive(b)
		got.mustUnlock()
	}

	// By the driver alone.
	d := c.driver()
	pass, ok := driver.As[driver.Passer](d)
	c.must(ok, "the tap shows the Passer", "it does not")
	ctx := c.ctxFor(c.limit())
	acquire := func(key string, ttl time.Duration) driver.Holder {
		o := c.owner()
		g, err := d.Acquire(ctx, driver.Request{Key: key, Owner: o, TTL: ttl, Hold: newRecorder()})
		c.ok(err, "the driver's Acquire of a free key")
		return driver.Holder{Key: key, Owner: o, Token: g.Token}
	}
	lost := func(h driver.Holder, what string) {
		g, err := pass.Pass(ctx, h, driver.Request{Key: h.Key, Owner: c.owner(), TTL: far, Hold: newRecorder()})
		c.is(err, driver.ErrLost, "the driver's Pass %s", what)
		c.must(g.Token == 0, "no grant beside an error", "token %d", g.Token)
	}
	x := acquire(c.key("driver, stranger"), far)
	stranger := x
	stranger.Owner = c.owner()
	lost(stranger, "by one who does not hold the key")
	a.mustHeld(x.Key, c.hold()...)
	c.ok(d.Release(ctx, x), "the driver's Release by the holder")
	lost(x, "of what is released, with the key free,")
	got := b.mustTry(x.Key, c.hold()...)
	lost(x, "of what is released, with the key held by another,")
	got.mustLive(a)
	got.mustUnlock()
	x = acquire(c.key("driver, expired"), unit)
	c.sleep(unit + c.granularity())
	lost(x, "after the ttl, with the key free,")
	a.mustTry(x.Key, c.hold()...).mustUnlock()
}

func passedTokens(c *trial) {
	a, b := c.client(), c.client()
	tokens := c.rising()
	key := c.key("k")
	for range c.rounds(4, 2) {
		h := tokens.grant(a.mustTry(key, locker.WithTTL(far)), "a release")
		var line []*pending
		for range c.rounds(40, 12) {
			line = append(line, a.goLock(key, locker.WithTTL(far), c.polling()))
		}
		c.settle()
		for range len(line) {
			h.mustUnlock()
			i, p := c.first(line)
			line = append(line[:i], line[i+1:]...)
			h = tokens.grant(p.granted(c.limit(), "the release"), "a hand-over")
		}
		h.mustUnlock()
		tokens.grant(b.mustTry(key, locker.WithTTL(far)), "many hand-overs in another process").mustUnlock()

		// The store passed it on, or did not, and nobody knows.
		for _, f := range []fault{lose, refuse} {
			h = tokens.grant(a.mustTry(key, locker.WithTTL(far)), "a release")
			p := a.goLock(key, locker.WithTTL(far), c.polling())
			c.settle()
			a.tap.next(opRelease, f)
			c.is(h.unlock(), locker.ErrUnavailable, "Unlock whose request or reply is lost")
			got := tokens.grant(p.granted(c.limit(), "a release that was not confirmed at first"), "a hand-over whose outcome was unknown")
			c.settle()
			got.mustLive(b)
			got.mustUnlock()
		}
	}
}

func passedTokenKept(c *trial) {
	a, b := c.client(), c.client()
	h := c.chain(a, c.key("k"), far)
	token := h.Token()
	c.ok(h.extend(far), "Extend of what was passed on")
	c.must(h.Token() == token, "Extend keeps the token", "%d became %d", token, h.Token())
	h.mustUnlock()

	d := c.driver()
	pass, ok := driver.As[driver.Passer](d)
	c.must(ok, "the tap shows the Passer", "it does not")
	ctx := c.ctxFor(c.limit())
	r := driver.Request{Key: c.key("driver"), Owner: c.owner(), TTL: far, Hold: newRecorder()}
	g, err := d.Acquire(ctx, r)
	c.ok(err, "the driver's Acquire")
	x := driver.Holder{Key: r.Key, Owner: r.Owner, Token: g.Token}
	for range 3 {
		r.Owner, r.Hold = c.owner(), newRecorder()
		next, err := pass.Pass(ctx, x, r)
		c.ok(err, "the driver's Pass")
		if next.Token == 0 {
			c.note("the backend gave way to others at once")
			return
		}
		c.must(next.Token > x.Token, "what is passed on gets a greater token", "%d after %d", next.Token, x.Token)
		c.must(next.Owner != (driver.Owner{}), "the grant of a Pass says by which owner the store knows it", "none")
		x.Owner, x.Token = next.Owner, next.Token
		e, err := d.Extend(ctx, x, far)
		c.ok(err, "the driver's Extend of what was passed on")
		c.must(e.Token == x.Token, "the driver's Extend returns the token of the hold", "%d instead of %d", e.Token, x.Token)
	}
	b.mustHeld(x.Key)
	c.ok(d.Release(ctx, x), "the driver's Release of what was passed on")
	b.mustTry(x.Key).mustUnlock()
}

func passedLoss(c *trial) {
	a, b := c.client(), c.client()
	for i := range 3 {
		h := c.chain(a, c.key(fmt.Sprint(i)), far)
		end := c.moment(h.Done())
		c.settle()
		c.must(!isClosed(end.seen), "the hold lasts until it is deleted", "%v", h.Err())
		deleted := time.Now()
		c.target.Delete(c.t, h.Key())
		c.hist.add("   (an administrator deletes %s)", c.short(h.Key()))
		c.await(end.seen, c.limit(), "Done of what was passed on closes after a deletion")
		late := end.at.Sub(deleted)
		c.must(late <= c.prompt(), fmt.Sprintf("Done closes no more than %s after a deletion", c.prompt()), "%s after", late)
		h.ended(locker.ReasonLost)
		c.is(h.unlock(), locker.ErrLost, "Unlock of what was passed on and deleted")
		b.mustTry(h.Key(), c.hold()...).mustUnlock()
	}
}

// passedToNobody: who is to get the hold gives up while the store passes it on.
func passedToNobody(c *trial) {
	a, b := c.client(), c.client()
	for behind := range 3 {
		key := c.key(fmt.Sprint(behind))
		h := a.mustTry(key, locker.WithTTL(far))
		p := a.goLock(key, locker.WithTTL(far), patient())
		c.settle()
		var line []*pending
		for range behind {
			line = append(line, a.goLock(key, locker.WithTTL(far), patient()))
			c.settle()
		}
		a.tap.next(opRelease, slowReply(c.unit()))
		unlocked := c.spawn(h.mustUnlock)
		c.settle()
		p.stop(nil)
		c.is(p.refused(c.limit(), "the end of its ctx"), context.Canceled, "a waiter that gives up while a hold is passed to it")
		c.await(unlocked, c.limit(), "Unlock returns")
		for _, q := range line {
			q.granted(c.prompt(), "the release, at which the one before gave up,").mustUnlock()
		}
		b.goLock(key, locker.WithTTL(far), c.polling()).granted(c.handOver(), "all others have gone").mustUnlock()
	}
}
