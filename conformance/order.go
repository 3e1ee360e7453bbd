package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// announced says whether w hears at once of what another client does to a key it waits for: it must where
// the backend waits or declares PromptLoss, and elsewhere it is tried. Otherwise its next poll finds out.
func (c *trial) announced(w *client) bool { return c.announcedBy(c.client, w) }

// announcedBy is announced where open opens a client of the store of w.
func (c *trial) announcedBy(open func() *client, w *client) bool {
	if w.waits() || c.Caps.Has.Has(driver.PromptLoss) {
		return true
	}
	// A lease, whose end is far away: who is refused by a session may come again at the end of what it was told.
	h := open().mustTry(c.Key("announced"), locker.WithTTL(far))
	ctx, cancel := context.WithCancel(c.Ctx)
	defer cancel()
	p := w.goLockCtx(ctx, h.Key(), append(c.hold(), harness.Patient())...)
	c.Settle()
	h.mustUnlock()
	select {
	case <-p.done:
	case <-time.After(2 * c.Prompt()):
		return false
	}
	p.granted(c.Limit(), "the release").mustUnlock()
	return true
}

// shortened: who waits for a lease that its holder then shortens need not wait for the end
// that it had at first.
func shortened(c *trial) {
	a, b := c.client(), c.client()
	waits, late := c.Polling(), c.HandOver()
	if c.announced(b) {
		waits, late = harness.Patient(), c.Prompt()
	}
	for _, waiter := range []*client{b, a} {
		h := a.mustTry(c.Key(waiter.name), locker.WithTTL(far))
		p := waiter.goLock(h.Key(), append(c.hold(), waits)...)
		c.Settle()
		asked := time.Now()
		err, end := h.extend(c.Unit()), time.Now().Add(c.Unit())
		if errors.Is(err, driver.ErrExpired) && end.Sub(asked) > c.Unit()*19/10 {
			c.Skip(fmt.Sprintf("this store is too busy: an answer to Extend took %s, and the lease was to last %s", end.Sub(asked)-c.Unit(), c.Unit()))
		}
		c.OK(err, "Extend to less, while somebody waits,")
		select {
		case <-p.done:
		case <-c.Ctx.Done():
		case <-time.After(c.Limit()):
			c.shortens().Fatal("the waiter has the lock after the end of a lease that was shortened", "it has not")
		}
		got := p.granted(c.Limit(), "the end of a lease that was shortened while it waited")
		if after := p.at.Sub(end); after > late {
			c.shortens().Fatal(fmt.Sprintf("the waiter has the lock no more than %s after the end of a lease that was shortened", late), "%s after", after)
		}
		got.mustUnlock()
	}
}

// shortens is the clause that is broken where a waiter came late at the end of a lease that was
// shortened: EXT-001 if the key is not free then even where nobody waits.
func (c *trial) shortens() harness.Claim {
	x, y := c.raw(), c.raw()
	g := x.take(c.Key("shortens"), far)
	c.OK(g.extend(c.Unit()), "the driver's Extend to less")
	c.Sleep(c.Unit() + c.Granularity())
	if _, err := y.acquire(g.req.Key, c.Owner(), far); err != nil {
		return c.Claim("EXT-001")
	}
	return c.Claim("TTL-001")
}

// lostAfterExtend: an Extend does not end the watching of the hold.
func lostAfterExtend(c *trial) {
	a := c.client()
	h := a.mustTry(c.Key("k"), locker.WithTTL(far))
	for range 3 {
		c.OK(h.extend(far), "Extend")
	}
	c.deleted(h, "a deletion after several Extends")
}

// deleted lets an administrator delete h, whose holder hears of it.
func (c *trial) deleted(h *hold, what string) {
	done := h.Done()
	c.target.Delete(c.T, h.Key())
	c.Hist.Add("   (an administrator deletes %s)", c.Short(h.Key()))
	c.Await(done, c.Prompt(), "Done closes after %s, as PromptLoss is declared,", what)
	h.ended(locker.ReasonLost)
}

// lostAgain: the same client takes the key again at once, and loses it again. What was told of
// the first hold must not end the second, and the second must be told of all the same.
func lostAgain(c *trial) {
	a, b := c.client(), c.client()
	key := c.Key("k")
	for round := range c.Rounds(20, 5) {
		h := a.mustTry(key, c.hold()...)
		c.target.Delete(c.T, key)
		c.Hist.Add("   (an administrator deletes %s)", c.Short(key))
		if round%2 == 1 {
			c.Await(h.Done(), c.Prompt(), "Done closes after a deletion")
		}
		next := a.mustTry(key, c.hold()...)
		c.Await(h.Done(), c.Prompt(), "Done closes after a deletion")
		c.Settle()
		next.mustLive(b)
		c.deleted(next, "the deletion of a hold that followed one that was deleted")
	}
}

// atOnce: the key is released directly after the grant, again and again, while the next one
// just begins to wait. Where nothing is announced, only its own Locker can tell it so: the others
// would pass or fail by chance, which no Known can declare.
func atOnce(c *trial) {
	a, b := c.client(), c.client()
	pairs := [][2]*client{{a, a}}
	if c.announced(a) {
		pairs = append(pairs, [2]*client{b, a}, [2]*client{a, b})
	}
	key := c.Key("k")
	r := c.Rand()
	for round := range c.Rounds(1000, 100) {
		holder, waiter := pairs[round%len(pairs)][0], pairs[round%len(pairs)][1]
		h := holder.mustTry(key, c.hold()...)
		var p *pending
		c.collide(r, func() { p = waiter.goLock(key, append(c.hold(), harness.Patient())...) }, func() { h.mustUnlock() })
		released := time.Now()
		got := p.granted(c.Limit(), "a release that came just as it began to wait")
		late := p.at.Sub(released)
		c.Must(late <= c.Prompt(), fmt.Sprintf("the waiter has the lock no more than %s after the release that came just as it began to wait", c.Prompt()), "%s after", late)
		got.mustUnlock()
	}
}

// endTogether: many leases end at one instant, and each of those who wait gets its key.
func endTogether(c *trial) {
	a, b := c.client(), c.client()
	const n, waited = 160, 20
	waits, late := c.Polling(), c.HandOver()
	if b.waits() || c.tellsRest() {
		waits, late = harness.Patient(), c.Prompt()
	}
	// They are taken long before, and extended to the same end.
	ttl := c.lifetime() + 2*c.Prompt()
	holds := make([]*hold, n)
	for i := range holds {
		holds[i] = a.mustTry(c.Key(fmt.Sprint(i)), locker.WithTTL(far))
	}
	c.Together(n, func(i int) { c.OK(holds[i].extend(ttl), "Extend to the common end") })
	end := time.Now().Add(ttl)
	var waiting []*pending
	for i := range waited {
		waiting = append(waiting, b.goLock(holds[i*n/waited].Key(), append(c.hold(), waits)...))
	}
	for _, h := range holds {
		// Looked at one after the other: those that have ended in time may be looked at later.
		c.Await(h.Done(), max(time.Until(end)+c.Prompt(), c.Granularity()), "Done of each of %d leases that end together closes", n)
		h.ended(locker.ReasonExpired)
	}
	for _, p := range waiting {
		got := p.granted(c.Limit(), fmt.Sprintf("the end of %d leases", n)) // releasing the others takes its time
		after := p.at.Sub(end)
		c.Must(after <= late+c.Prompt(), fmt.Sprintf("a waiter has the lock no more than %s after the end of %d leases", late+c.Prompt(), n), "%s after", after)
		got.mustUnlock()
	}
	c.Sleep(time.Until(end.Add(c.Granularity())))
	for _, h := range holds {
		b.mustTry(h.Key(), c.hold()...).mustUnlock()
	}
}

// watchedAtOnce: many keys have waiters at the same time, and each one is woken by the release
// of its own.
func watchedAtOnce(c *trial) {
	a, b := c.client(), c.client()
	const keys = 100
	holds, waiting := make([]*hold, keys), make([]*pending, keys)
	for i := range holds {
		holds[i] = a.mustTry(c.Key(fmt.Sprint(i)), c.hold()...)
		waiting[i] = b.goLock(holds[i].Key(), append(c.hold(), harness.Patient())...)
	}
	c.Settle()
	for _, i := range c.Rand().Perm(keys) {
		claim := c.Claim(c.ID)
		if v := c.Caps.SessionValidity; c.leaf.kind == Session && v > 0 && time.Since(holds[i].before) > v/3 {
			claim = c.Claim("SES-001") // nobody kept it
		}
		claim.Must(!harness.IsClosed(waiting[i].done), "a waiter waits until its own key is released", "Lock returned: %v", waiting[i].outcome())
		holds[i].mustUnlock()
		released := time.Now()
		got := waiting[i].granted(c.Limit(), "the release")
		late := waiting[i].at.Sub(released)
		c.Must(late <= c.Prompt(), fmt.Sprintf("with %d keys watched at once the waiter has the lock no more than %s after the release", keys, c.Prompt()), "%s after", late)
		if i%2 == 0 {
			got.mustUnlock()
		}
	}
}

// crowd: very many waiters over many keys all get their turn.
func crowd(c *trial) {
	a, b := c.client(), c.client()
	busy := map[string]*pulse{a.name: c.trips(a), b.name: c.trips(b)}
	const keys, each = 100, 10
	holds := make([]*hold, keys)
	for i := range holds {
		holds[i] = a.mustTry(c.Key(fmt.Sprint(i)), c.hold()...)
	}
	var ends []<-chan struct{}
	// A store that does one thing after the other must have time for the holds beside the polls.
	polls := locker.WithRetry(locker.Retry{Attempts: locker.Forever, Delay: c.Unit(), Jitter: c.Unit() / 2})
	for i := range keys * each {
		cl := []*client{a, b}[i/keys%2]
		p := cl.goLock(holds[i%keys].Key(), append(c.hold(), polls)...)
		ends = append(ends, c.Spawn(func() {
			select {
			case <-p.done:
				if p.err == nil {
					c.leaves(p.h, busy[cl.name])
				}
			case <-c.Ctx.Done():
			}
		}))
	}
	c.Settle()
	for _, h := range holds {
		c.leaves(h, busy[a.name])
	}
	for _, end := range ends {
		c.Await(end, 3*c.Limit(), "each of %d waiters over %d keys gets the lock in turn", keys*each, keys)
	}
}

// leaves releases one of a crowd. A store that has so much to do may be too late with the renewals: a
// session is then over, as its holder or the store sees it.
func (c *trial) leaves(h *hold, busy *pulse) {
	err := h.unlock()
	validity := c.Caps.SessionValidity
	if took := busy.longest(); c.leaf.kind == Session && errors.Is(err, driver.ErrLost) && validity > 0 && took > validity/4 {
		c.Skip(fmt.Sprintf("this store is too busy with a crowd: an answer took %s, and sessions last %s", took.Round(time.Millisecond), validity))
	}
	claim := c.Claim(c.ID)
	if c.leaf.kind == Session && errors.Is(err, driver.ErrLost) {
		claim = c.Claim("SES-001")
	}
	claim.OK(err, "%s's Unlock of %s, which it holds,", h.cl.name, c.Short(h.Key()))
}

// trips knows how long the store's answers take for cl, while others ask it for much.
func (c *trial) trips(cl *client) *pulse {
	p := &pulse{}
	if c.Virtual {
		return p
	}
	r := driver.Request{Key: c.Key("trips of " + cl.name), Owner: c.Owner(), TTL: c.ttl(), Hold: newRecorder()}
	pause := c.Granularity()
	c.Spawn(func() {
		for c.Ctx.Err() == nil {
			p.begin(pause)
			_, _ = cl.tap.Inner.Acquire(c.Ctx, r) // how it ends is for other cases
			c.Sleep(pause)                        // that a process sleeps for longer counts as well
			p.add(time.Since(p.since) - pause)
		}
	})
	return p
}

// lostTogether: many holds are deleted at once, and each holder hears of it.
func lostTogether(c *trial) {
	a := c.client()
	const n = 100
	var holds []*hold
	for i := range n {
		holds = append(holds, a.mustTry(c.Key(fmt.Sprint(i)), c.hold()...))
	}
	lives := map[int]bool{}
	for _, i := range c.Rand().Perm(n)[:n/10] {
		lives[i] = true
	}
	for i, h := range holds {
		if !lives[i] {
			c.target.Delete(c.T, h.Key())
		}
	}
	c.Hist.Add("   (an administrator deletes %d of %d)", n-len(lives), n)
	deleted := time.Now()
	for i, h := range holds {
		if lives[i] {
			continue
		}
		c.Await(h.Done(), time.Until(deleted.Add(c.Prompt())), "Done of each of %d holds that were deleted together closes", n-len(lives))
		h.ended(locker.ReasonLost)
	}
	for i := range lives {
		holds[i].mustLive()
		holds[i].mustUnlock()
	}
}

// siblings are owners of one process, and of one instance: they exclude each other as any others.
func siblings(c *trial) {
	x, y := c.raw(), c.raw()
	for _, cl := range []*raw{x, y} {
		first := c.Owner()
		for who, o := range c.strangers(first) {
			key := c.Key(who)
			g := x.takeAs(key, first, c.ttl())
			cl.refused(key, o, c.ttl())
			g.mustRelease()
			next := cl.takeAs(key, o, c.ttl())
			x.refusedOr(c.Claim("FLT-001"), key, first, c.ttl()) // who asks again is too late
			c.Claim("REL-002").Is(g.release(), driver.ErrLost, "the driver's Release by the former holder, when %s has the key,", who)
			next.mustRelease()
		}
		for _, numbers := range likeNumbers {
			first.Seq = numbers[0]
			g := x.takeAs(c.Key(fmt.Sprint(numbers)), first, c.ttl())
			cl.refused(g.req.Key, driver.Owner{Instance: first.Instance, Seq: numbers[1]}, c.ttl())
			g.mustRelease()
		}
	}
}

// tokensOfProcesses: the tokens of another process and ours are of one order.
func tokensOfProcesses(c *trial) {
	cl := c.near()
	key := c.Key("k")
	last := uint64(0)
	for range 2 {
		h := cl.mustTry(key, c.hold()...)
		c.Must(h.Token() > last, "a grant after that of another process has a greater token", "%d after %d", h.Token(), last)
		last = h.Token()
		h.mustUnlock()
		p := c.process()
		token := p.hold(key)
		c.Must(token > last, "another process's grant has a greater token than the one before", "%d after %d", token, last)
		last = token
		c.OK(p.Kill(), "Kill")
		got := cl.goLock(key, append(c.hold(), c.Polling())...).granted(c.life()+c.Limit(), "the end of another process")
		c.Must(got.Token() > last, "a grant after that of another process has a greater token", "%d after %d", got.Token(), last)
		last = got.Token()
		got.mustUnlock()
	}
}
