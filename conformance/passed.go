package conformance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// What the clauses ask of a hold that went from hand to hand inside of a process, through
// a driver.Handoff. Most cases of waiting and releasing meet such holds anyway: the parts here
// are about what these would not tell.

// passed is a part about holds that were passed on.
func passed(fn func(*trial)) []Part { return []Part{passedPart("passed", fn)} }

func passedPart(name string, fn func(*trial), needs ...Need) Part {
	return Part{Name: name, Kinds: []Kind{Lease}, Needs: append(needs, needsPasser), fn: func(c *trial) {
		if _, waits := driver.As[driver.Waiter](c.target.Backend); waits && !c.CoreLoop {
			c.Skip("the backend waits by itself: nobody stands in the core's line, from which it could be served")
		}
		fn(c)
	}}
}

// again repeats what a busy machine may spoil, until once says that it did not. In the last try, which is the first one
// in virtual time, once has to fail instead.
func (c *trial) again(once func(try int, last bool) bool) {
	const tries = 4
	for try := 1; !once(try, c.Virtual || try == tries); try++ {
	}
}

// jumped says whether one of others was granted what was released to first: on a busy machine a Lock
// that was called later may begin to wait earlier.
func (c *trial) jumped(first *pending, others []*pending) bool {
	for end := time.Now().Add(c.Limit() / 2); !harness.IsClosed(first.done) && time.Now().Before(end); c.pause(c.Granularity()/5, first.done) {
		if slices.ContainsFunc(others, func(p *pending) bool { return harness.IsClosed(p.done) }) {
			return true
		}
	}
	return false
}

// drain lets those who wait have their turns, in whichever order.
func (c *trial) drain(line []*pending) {
	for end := time.Now().Add(c.Limit()); len(line) > 0 && time.Now().Before(end); {
		i := slices.IndexFunc(line, func(p *pending) bool { return harness.IsClosed(p.done) })
		if i < 0 {
			c.Sleep(c.Granularity() / 5)
			continue
		}
		if line[i].err == nil {
			_ = line[i].h.unlock()
		}
		line = slices.Delete(line, i, i+1)
	}
}

// inOrder is the clause that is broken if first is not granted what was released: where one of those
// who came after it is, that of the order.
func (c *trial) inOrder(first *pending, others []*pending) harness.Claim {
	if c.Virtual { // elsewhere it takes time that a short ttl may not have
		c.Settle()
	}
	if !harness.IsClosed(first.done) && slices.ContainsFunc(others, func(p *pending) bool { return harness.IsClosed(p.done) && p.err == nil }) {
		return c.Claim("WAIT-004")
	}
	return c.Claim(c.ID)
}

// chain has a lease of key passed from one to the next in cl's line until it comes to the
// last one, each with this ttl and most of them at once, and returns the last one's.
func (c *trial) chain(cl *client, key string, ttl time.Duration) *hold {
	// In real time a waiter may just be making an attempt, and then nothing is handed off to it.
	const most = 20
	disorder := 0
tries:
	for range most {
		h := cl.mustTry(key, locker.WithTTL(far))
		var line []*pending
		for range 5 { // the last one at once after the one before
			line = append(line, cl.goLock(key, locker.WithTTL(ttl), c.Polling()))
			c.Settle()
		}
		last := 0
		for i, p := range line {
			if i%2 == 1 {
				c.Sleep(min(ttl, c.Unit()) / 10)
			}
			last = cl.tap.HandOffs()
			if err := h.unlock(); err != nil { // a machine too slow for the ttl
				// Nothing was done to the hold but that others in this process asked for it.
				id := "MX-001"
				for _, other := range line[i:] {
					if harness.IsClosed(other.done) && other.err == nil {
						id = "MX-003"
					}
				}
				c.Claim(id).Must(!c.Virtual && errors.Is(err, locker.ErrLost), "Unlock of what is held gives nil", "%v", err)
			}
			if !c.Virtual && c.jumped(p, line[i+1:]) { // it was too slow to come first
				c.drain(line[i:])
				disorder++
				continue tries
			}
			h = p.grantedBy(c.inOrder(p, line[i+1:]), c.Limit(), "the release")
		}
		if cl.tap.HandOffs() > last {
			return h
		}
		_ = h.unlock()
	}
	c.Claim("WAIT-004").Must(disorder < most, "who waits longest in a process is handed the hold", "in %d of %d tries it was somebody else", disorder, most)
	c.Skip(fmt.Sprintf("in %d tries no hold was passed on", most))
	return nil
}

func passedExclusive(c *trial) {
	a, b := c.client(), c.client()
	h := c.chain(a, c.Key("k"), far)
	h.mustLive(a, b)
	h.mustUnlock()
	log := c.hammer(hammer{
		clients: []*client{a, b}, keys: []string{c.Key("x")}, rounds: c.Rounds(40, 10), stay: c.Granularity() / 8,
		ttl: func(*rand.Rand) time.Duration { return c.Unit() },
	}, 12)
	c.checkSpans(log)
}

// passedExpires: one whose hold was passed to it lets it run out, alone or after others who
// might have kept it for longer.
func passedExpires(c *trial) {
	a := c.client()
	waiting, late := c.Polling(), c.HandOver()
	if c.tellsRest() {
		waiting, late = harness.Patient(), c.Prompt()
	}
	for _, before := range []time.Duration{0, answeredLate, far, c.Unit() / 2} {
		c.again(func(try int, last bool) bool {
			return c.runsOut(a, c.Key(fmt.Sprint(before, try)), before, waiting, late, last)
		})
	}
}

const answeredLate = 1 // the hand-off takes longer than it is until the next poll

// runsOut has one who is handed a hold of key, after another one that asked for before, let it run out. It reports
// false if they got it in another order than they were called in, unless this is the last try.
func (c *trial) runsOut(a *client, key string, before time.Duration, waiting locker.Option, late time.Duration, last bool) bool {
	h := a.mustTry(key, locker.WithTTL(far))
	if before == answeredLate {
		before = 0
		a.tap.Next(harness.OpRelease, harness.SlowReply(c.Unit()/2))
	}
	var line []*pending
	if before > 0 {
		line = append(line, a.goLock(key, locker.WithTTL(before), c.Polling()))
		c.Settle()
	}
	opts := []locker.Option{locker.WithTTL(c.Unit()), c.Polling()}
	if before == far { // a store may have to be told more than a new end
		opts = append(opts, locker.WithNote("the last one"))
	}
	line = append(line, a.goLock(key, opts...))
	c.Settle()
	p := a.goLock(key, append(c.hold(), waiting)...)
	c.Settle()
	h.mustUnlock()
	for i, q := range line {
		rest := append(line[i+1:len(line):len(line)], p)
		if !last && c.jumped(q, rest) {
			c.drain(append(rest, q))
			return false
		}
		h = q.grantedBy(c.inOrder(q, rest), c.Limit(), "the release")
		if i < len(line)-1 {
			if before == far { // whatever would look at the key when its time is up is set for then
				c.Sleep(c.Unit() / 2)
			}
			_ = h.unlock()
		}
	}
	deadline, latest := h.deadline(), h.at.Add(c.Unit()).Add(late)
	got := p.granted(c.Limit(), "the end of the ttl of what was passed on")
	c.Must(!got.at.Before(deadline), "nobody gets the key before the deadline of what was passed on", "%s before", deadline.Sub(got.at))
	c.Must(!got.at.After(latest), fmt.Sprintf("the next in line gets the key no more than %s after the end of the ttl of what was passed on", late), "%s after it", got.at.Sub(h.at.Add(c.Unit())))
	c.Is(h.Err(), locker.ErrLost, "the Err of a lease whose ttl is over")
	got.mustUnlock()
	return true
}

func passedDeadline(c *trial) {
	a, b := c.client(), c.client()
	c.chain(a, c.Key("long"), far).mustLive(b)
	for round := range 3 {
		key := c.Key(fmt.Sprint(round))
		h := c.chain(a, key, c.Unit())
		d := h.deadline()
		c.Must(!d.After(h.at.Add(c.Unit())), "the deadline of what was passed on is no later than the grant + ttl", "%s later", d.Sub(h.at.Add(c.Unit())))
		c.Must(!c.Virtual || d.After(h.at.Add(c.Unit()*9/10)), "who is passed a hold gets the life that it asked for", "%s of %s", d.Sub(h.at), c.Unit())
		got := b.goLock(key, locker.WithTTL(far), c.Polling()).grantedBy(c.Claim("TTL-001"), c.Limit(), "the end of the ttl")
		c.Must(!got.at.Before(d), "nobody gets the key before the deadline of what was passed on", "%s before", d.Sub(got.at))
		c.Must(h.Err() != nil, "the Err of a hold that was passed on tells of its end by the time when somebody else gets the key", "nil")
		got.mustUnlock()
	}

	// Who is next after one that was shortened has its own ttl, in the store as well.
	var nexts []*hold
	for round := range c.Rounds(6, 3) {
		h := a.mustTry(c.Key(fmt.Sprint("shortened ", round)), locker.WithTTL(far))
		p, q := a.goLock(h.Key(), locker.WithTTL(far), c.Polling()), a.goLock(h.Key(), locker.WithTTL(far), c.Polling())
		c.Settle()
		h.mustUnlock()
		_, first := c.first([]*pending{p, q})
		next := p
		if first == p {
			next = q
		}
		shortened := first.granted(c.Limit(), "the release")
		if err := cmp.Or(shortened.extend(c.Unit()), shortened.unlock()); err != nil {
			c.Must(!c.Virtual && errors.Is(err, locker.ErrLost), "Extend and Unlock of what was handed off succeed", "%v", err)
			c.Note("the machine was too slow to unlock in time: %v", err)
		}
		nexts = append(nexts, next.granted(c.Limit(), "the release of a lease that was shortened"))
	}
	c.Sleep(c.Unit() + c.Granularity())
	for _, h := range nexts {
		h.mustLive(b)
		h.mustUnlock()
	}
}

func passedExtend(c *trial) {
	a, b := c.client(), c.client()
	unit := c.Unit()
	h := c.chain(a, c.Key("shorter"), far)
	c.OK(h.extend(unit), "Extend to less of what was passed on")
	d, after := h.deadline(), time.Now()
	c.Must(!d.After(after.Add(unit)), "after Extend to less the deadline is no later than now + d", "%s later", d.Sub(after.Add(unit)))
	got := b.goLock(h.Key(), locker.WithTTL(far), c.Polling()).granted(c.Limit(), "the end of the ttl")
	c.Must(!got.at.Before(d), "nobody gets the key before the deadline", "%s before", d.Sub(got.at))
	late := got.at.Sub(after.Add(unit))
	c.Must(late <= c.HandOver(), fmt.Sprintf("the key is free no more than %s after now + d", c.HandOver()), "%s after it", late)

	h = c.chain(a, c.Key("longer"), unit)
	d = h.deadline()
	if err := h.extend(far); err != nil && !c.Virtual && !time.Now().Before(d) {
		c.Note("the machine was too slow to extend in time: %v", err)
		return
	} else {
		c.OK(err, "Extend to more of what was passed on")
	}
	c.Sleep(time.Until(d) + unit)
	h.mustLive(a, b)
	h.mustUnlock()
}

// passedInDoubt: a request for the hold whose fate is not known may come to the store
// after the hold was passed on, and would change the next one's.
func passedInDoubt(c *trial) {
	a := c.client()
	for _, f := range []struct {
		name string
		f    harness.Fault
	}{{"lost request", harness.Refuse}, {"lost reply", harness.Lose}, {"request under way", harness.SlowReply(c.Unit())}} {
		key := c.Key(f.name)
		h := a.mustTry(key, locker.WithTTL(far))
		p := a.goLock(key, locker.WithTTL(far), harness.Patient())
		c.Settle()
		a.tap.Next(harness.OpExtend, f.f)
		asked := a.tap.Count(harness.OpExtend)
		extended := c.Spawn(func() {
			if err := h.extend(far / 2); f.name != "request under way" {
				c.Is(err, locker.ErrUnavailable, "Extend with a %s", f.name)
			}
		})
		if c.Settle(); f.name != "request under way" {
			<-extended
		}
		for range 100 { // a busy machine may take its time to begin
			if a.tap.Count(harness.OpExtend) > asked {
				break
			}
			c.Settle()
		}
		before := a.tap.HandOffs()
		h.mustUnlock()
		got := p.granted(c.Limit(), "the release")
		c.Must(a.tap.HandOffs() == before, "after an Extend with a "+f.name+" the hold is released and not passed on", "it was passed on")
		<-extended
		got.mustLive(a)
		c.Must(got.deadline().After(time.Now().Add(far*9/10-c.Limit())), "the next one's deadline is its own", "%s from now", time.Until(got.deadline()))
		got.mustUnlock()
	}
}

func passedRelease(c *trial) {
	a, b := c.client(), c.client()
	key := c.Key("k")
	for range c.Rounds(5, 2) {
		h := c.chain(a, key, far)
		h.mustUnlock()
		b.mustTry(key, locker.WithTTL(far)).mustUnlock()
		a.mustTry(key, locker.WithTTL(far)).mustUnlock()
		c.Is(h.unlock(), locker.ErrReleased, "a second Unlock of what was passed on")
	}
}

// passedLate: the request to pass a hold on comes to the store after the hold's end.
func passedLate(c *trial) {
	a, b := c.client(), c.client()
	unit := c.Unit()
	for _, taken := range []bool{true, false} {
		key := c.Key(fmt.Sprint(taken))
		h := a.mustTry(key, locker.WithTTL(unit))
		p := a.goLock(key, locker.WithTTL(far), c.Polling())
		c.Settle()
		var q *pending
		if taken {
			q = b.goLock(key, locker.WithTTL(far), c.Polling())
			c.Settle()
		}
		a.tap.Next(harness.OpRelease, harness.SlowRequest(2*unit))
		var err error
		unlocked := c.Spawn(func() { err = h.unlock() })
		var next *hold
		if taken {
			var first *pending
			if _, first = c.first([]*pending{p, q}); first == p {
				// It was making an attempt when it might have been passed the hold.
				p.h.mustUnlock()
				q.granted(c.Limit(), "the release").mustUnlock()
				<-unlocked
				continue
			}
			next = q.h
		}
		c.Await(unlocked, c.Limit(), "Unlock returns")
		c.Is(err, locker.ErrLost, "Unlock whose request comes after the end of the hold")
		if taken {
			c.Settle()
			c.Must(!harness.IsClosed(p.done), "who was to be passed a hold that had ended waits on", "Lock returned: %v", p.outcome())
			next.mustLive(a)
			c.OK(next.extend(far), "the next holder's Extend")
			next.mustUnlock()
		}
		got := p.granted(c.HandOver(), "the end of all that was before")
		got.mustLive(b)
		got.mustUnlock()
	}

	// By the driver alone.
	d := c.driver()
	pass, ok := driver.As[driver.Handoff](d)
	c.Must(ok, "the tap shows the Handoff", "it does not")
	ctx := c.CtxFor(c.Limit())
	acquire := func(key string, ttl time.Duration) driver.Holder {
		o := c.Owner()
		g, err := d.Acquire(ctx, driver.Request{Key: key, Owner: o, TTL: ttl, Hold: newRecorder()})
		c.OK(err, "the driver's Acquire of a free key")
		return driver.Holder{Key: key, Owner: o, Token: g.Token}
	}
	lost := func(h driver.Holder, what string) {
		g, err := pass.HandOff(ctx, h, driver.Request{Key: h.Key, Owner: c.Owner(), TTL: far, Hold: newRecorder()})
		c.Is(err, driver.ErrLost, "the driver's HandOff %s", what)
		c.Must(g.Token == 0, "no grant beside an error", "token %d", g.Token)
	}
	x := acquire(c.Key("driver, stranger"), far)
	stranger := x
	stranger.Owner = c.Owner()
	lost(stranger, "by one who does not hold the key")
	a.mustHeld(x.Key, c.hold()...)
	c.OK(d.Release(ctx, x), "the driver's Release by the holder")
	lost(x, "of what is released, with the key free,")
	got := b.mustTry(x.Key, c.hold()...)
	lost(x, "of what is released, with the key held by another,")
	got.mustLive(a)
	got.mustUnlock()
	x = acquire(c.Key("driver, expired"), unit)
	c.Sleep(unit + c.Granularity())
	lost(x, "after the ttl, with the key free,")
	a.mustTry(x.Key, c.hold()...).mustUnlock()
}

func passedTokens(c *trial) {
	a, b := c.client(), c.client()
	tokens := c.rising()
	key := c.Key("k")
	for range c.Rounds(4, 2) {
		h := tokens.grant(a.mustTry(key, locker.WithTTL(far)), "a release")
		tokens.throughLine(h, c.Rounds(40, 12), locker.WithTTL(far)).mustUnlock()
		tokens.grant(b.mustTry(key, locker.WithTTL(far)), "many hand-overs in another process").mustUnlock()

		// The store passed it on, or did not, and nobody knows.
		for _, f := range []harness.Fault{harness.Lose, harness.Refuse} {
			h = tokens.grant(a.mustTry(key, locker.WithTTL(far)), "a release")
			p := a.goLock(key, locker.WithTTL(far), c.Polling())
			c.Settle()
			a.tap.Next(harness.OpRelease, f)
			c.Is(h.unlock(), locker.ErrUnavailable, "Unlock whose request or reply is lost")
			got := tokens.grant(p.grantedBy(c.Claim("REL-005"), c.Limit(), "a release that was not confirmed at first"), "a hand-over whose outcome was unknown")
			c.Settle()
			got.mustLive(b)
			got.mustUnlock()
		}
	}
}

func passedTokenKept(c *trial) {
	a, b := c.client(), c.client()
	h := c.chain(a, c.Key("k"), far)
	token := h.Token()
	c.OK(h.extend(far), "Extend of what was passed on")
	c.Must(h.Token() == token, "Extend keeps the token", "%d became %d", token, h.Token())
	h.mustUnlock()

	d := c.driver()
	pass, ok := driver.As[driver.Handoff](d)
	c.Must(ok, "the tap shows the Handoff", "it does not")
	ctx := c.CtxFor(c.Limit())
	r := driver.Request{Key: c.Key("driver"), Owner: c.Owner(), TTL: far, Hold: newRecorder()}
	g, err := d.Acquire(ctx, r)
	c.OK(err, "the driver's Acquire")
	x := driver.Holder{Key: r.Key, Owner: r.Owner, Token: g.Token}
	for range 3 {
		r.Owner, r.Hold = c.Owner(), newRecorder()
		next, err := pass.HandOff(ctx, x, r)
		if errors.Is(err, driver.ErrYielded) {
			c.Note("the backend gave way to others at once")
			return
		}
		c.OK(err, "the driver's HandOff")
		c.Claim("TOK-001").Must(next.Token > x.Token, "what is passed on gets a greater token", "%d after %d", next.Token, x.Token)
		c.Must(next.Owner != (driver.Owner{}), "the outcome of a HandOff says by which owner the store knows it", "none")
		x.Owner, x.Token = next.Owner, next.Token
		e, err := d.Extend(ctx, x, far)
		c.OK(err, "the driver's Extend of what was passed on")
		c.Must(e.Token == x.Token, "the driver's Extend returns the token of the hold", "%d instead of %d", e.Token, x.Token)
	}
	b.mustHeld(x.Key)
	c.OK(d.Release(ctx, x), "the driver's Release of what was passed on")
	b.mustTry(x.Key).mustUnlock()
}

func passedLoss(c *trial) {
	a, b := c.client(), c.client()
	for i := range 4 {
		key := c.Key(fmt.Sprint(i))
		var h *hold
		if i < 3 {
			h = c.chain(a, key, far)
		} else { // so much of it is over that the store has to be asked
			ttl := 40 * c.Unit()
			first := a.mustTry(key, locker.WithTTL(ttl))
			p := a.goLock(key, locker.WithTTL(ttl), harness.Patient())
			c.Sleep(c.Unit())
			first.mustUnlock()
			h = p.granted(c.Limit(), "the release")
		}
		end := c.Moment(h.Done())
		c.Settle()
		c.Must(!harness.IsClosed(end.Seen), "the hold lasts until it is deleted", "%v", h.Err())
		deleted := time.Now()
		c.target.Delete(c.T, h.Key())
		c.Hist.Add("   (an administrator deletes %s)", c.Short(h.Key()))
		c.Await(end.Seen, c.Limit(), "Done of what was passed on closes after a deletion")
		late := end.At.Sub(deleted)
		c.Must(late <= c.Prompt(), fmt.Sprintf("Done closes no more than %s after a deletion", c.Prompt()), "%s after", late)
		h.ended(locker.ReasonLost)
		c.Is(h.unlock(), locker.ErrLost, "Unlock of what was passed on and deleted")
		b.mustTry(h.Key(), c.hold()...).mustUnlock()
	}
}

// passedToNobody: who is to get the hold gives up while the store passes it on.
func passedToNobody(c *trial) {
	a, b := c.client(), c.client()
	for behind := range 3 {
		key := c.Key(fmt.Sprint(behind))
		h := a.mustTry(key, locker.WithTTL(far))
		p := a.goLock(key, locker.WithTTL(far), harness.Patient())
		c.Settle()
		var line []*pending
		for range behind {
			line = append(line, a.goLock(key, locker.WithTTL(far), harness.Patient()))
			c.Settle()
		}
		a.tap.Next(harness.OpRelease, harness.SlowReply(c.Unit()))
		unlocked := c.Spawn(h.mustUnlock)
		c.Settle()
		p.stop(nil)
		c.Is(p.refused(c.Limit(), "the end of its ctx"), context.Canceled, "a waiter that gives up while a hold is passed to it")
		c.Await(unlocked, c.Limit(), "Unlock returns")
		for _, q := range line {
			q.granted(c.Prompt(), "the release, at which the one before gave up,").mustUnlock()
		}
		b.goLock(key, locker.WithTTL(far), c.Polling()).granted(c.HandOver(), "all others have gone").mustUnlock()
	}
}

// wokenByDeletion: what the store passed on is deleted before it answers. Who was to have it has nothing to release
// then: the next in line hears of the deletion itself.
func wokenByDeletion(c *trial) {
	a := c.client()
	for round := range c.Rounds(5, 2) {
		key := c.Key(fmt.Sprint(round))
		h := a.mustTry(key, locker.WithTTL(far))
		p := a.goLock(key, locker.WithTTL(far), harness.Patient())
		c.Settle()
		q := a.goLock(key, locker.WithTTL(far), harness.Patient())
		c.Settle()
		tell := func() {}
		if round%2 == 0 { // the loss may come before the answer, or after it
			tell = a.tap.LateLosses()
			c.OnClose(func(context.Context) { tell() })
		}
		before := a.tap.HandOffs()
		passed, gate := make(chan struct{}), make(chan struct{})
		a.tap.Next(harness.OpRelease, func(ctx context.Context, call func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
			defer func() { <-gate }()
			defer close(passed)
			return call(ctx)
		})
		unlocked := c.Spawn(h.mustUnlock)
		c.Await(passed, c.Limit(), "the release comes to the store")
		c.target.Delete(c.T, key)
		c.Hist.Add("   (an administrator deletes %s)", c.Short(key))
		c.Settle()
		close(gate)
		c.Await(unlocked, c.Limit(), "Unlock returns")
		answered := time.Now()
		c.Settle()
		tell()
		if a.tap.HandOffs() == before || !c.Virtual && c.jumped(p, []*pending{q}) {
			c.drain([]*pending{p, q})
			continue
		}
		c.Await(p.done, c.Limit(), "a Lock that was handed what is deleted returns")
		if !c.Virtual && p.err == nil && harness.IsClosed(q.done) && (q.err != nil || q.h.Token() < p.h.Token()) {
			c.drain([]*pending{p, q}) // on a busy machine q began to wait earlier, and was handed it
			continue
		}
		if p.err == nil {
			c.Claim("LOSS-003").Await(p.h.Done(), c.Prompt(), "Done of what was deleted before the answer came closes")
		} else {
			c.Is(p.err, locker.ErrLost, "a Lock that was handed what is deleted")
		}
		got := q.granted(c.Limit(), "the deletion of what was passed on, before the answer to that")
		late := got.at.Sub(answered)
		c.Must(late <= c.Prompt(), fmt.Sprintf("the next in line has the lock no more than %s after the answer to a hand-off of what was deleted meanwhile", c.Prompt()), "%s after", late)
		got.mustUnlock()
	}
}
