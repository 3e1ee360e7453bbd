package conformance

import (
	"fmt"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// spoiled has an administrator spoil what is held.
func spoiled(c *trial, spoil func(testing.TB, string)) {
	a, b := c.near(), c.near()
	f, sleeps := c.figures(), c.pulse()
	// Where nobody announces the loss, a session hears of it while it is kept alive, and a
	// lease at its end.
	opts, within := c.hold(), c.Prompt()
	if !c.Caps.Has.Has(driver.PromptLoss) {
		opts, within = c.living(), c.life()+c.Prompt()
	}
	for i := range c.Rounds(5, 3) {
		key := c.Key(fmt.Sprint("wanted ", i))
		h := a.mustTry(key, opts...)
		end := c.Moment(h.Done())
		p := b.goLock(key, append(c.hold(), c.Polling())...)
		c.Sleep(c.Granularity()) // not only of a hold that is new
		h.mustLive()
		spoil(c.T, key)
		began := time.Now()
		c.Hist.Add("   (an administrator spoils %s)", c.Short(key))
		if c.leaf.part == "overwritten" {
			c.Settle()
			c.inject().Delete(c.T, key) // or it would stay for ever
		}
		gone := time.Now()
		got := p.granted(c.HandOver()+sleeps.longest(), "the key was spoiled, and is free")
		f.add(proceeded, got.at.Sub(gone))
		c.Await(end.Seen, within+sleeps.longest(), "Done closes after an administrator spoiled the key")
		f.add(noticed, end.At.Sub(began))
		if c.leaf.part == "overwritten" {
			f.add(believed, end.At.Sub(got.at))
		} else {
			// Both hear of it at the same time.
			f.add(believed+", who was told at the same time,", end.At.Sub(got.at))
		}
		if c.Caps.Has.Has(driver.PromptLoss) {
			h.ended(locker.ReasonLost)
		}
		c.Is(h.Err(), locker.ErrLost, "the Err of a hold that was spoiled")
		c.Is(h.unlock(), locker.ErrLost, "Unlock of a hold that was spoiled")
		if c.leaf.part != "wiped" || c.Caps.Has.Has(driver.TokensSurviveDataLoss) {
			c.Must(got.Token() > h.Token(), "the token tells the new holder from the former one", "%d after %d", got.Token(), h.Token())
		}
		c.Settle()
		got.mustLive(a)
		got.mustUnlock()

		// Who asks learns of it at once.
		key = c.Key(fmt.Sprint("asked ", i))
		h = a.mustTry(key, c.hold()...)
		spoil(c.T, key)
		if c.leaf.kind == Lease && i%2 == 0 {
			c.Is(h.extend(far), locker.ErrLost, "Extend of a hold that was spoiled")
		}
		c.Is(h.unlock(), locker.ErrLost, "Unlock of a hold that was spoiled")
		c.Await(h.Done(), c.Prompt(), "Done closes")
		if c.leaf.part == "overwritten" {
			c.inject().Delete(c.T, key)
		}
		c.free(b, c.recovery(), key)
	}
	c.tell(f)
}

// spoiledUnwanted: an administrator spoils a few of many holds of one client, which nobody else asks for. Their holders learn of it
// all the same, and those of the others are told nothing.
func spoiledUnwanted(c *trial, spoil func(testing.TB, string)) {
	a, b, sleeps := c.near(), c.near(), c.pulse()
	opts, within := c.hold(), c.Prompt()
	if !c.Caps.Has.Has(driver.PromptLoss) {
		opts, within = c.living(), c.life()+c.Prompt()
	}
	const many = 40
	var all, others []*hold
	spoils := func(i int) bool { return i%8 == 3 || i == many-1 }
	for i := range many {
		living := opts
		if !spoils(i) {
			living = c.hold()
		}
		all = append(all, a.mustTry(c.Key(fmt.Sprint(i)), living...))
	}
	if c.leaf.kind == Session {
		c.Sleep(c.outlast()) // they are renewed together
	}
	var ends []*harness.Moment
	began := time.Now()
	for i, h := range all {
		if !spoils(i) {
			others = append(others, h)
			continue
		}
		ends = append(ends, c.Moment(h.Done()))
		spoil(c.T, h.Key())
		c.Hist.Add("   (an administrator spoils %s)", c.Short(h.Key()))
	}
	for _, end := range ends {
		c.Await(end.Seen, max(0, time.Until(began.Add(within)))+sleeps.longest(), "Done closes after an administrator spoiled a key that nobody else wants")
	}
	c.Settle()
	for i, h := range all {
		if !spoils(i) {
			continue
		}
		if c.Caps.Has.Has(driver.PromptLoss) {
			h.ended(locker.ReasonLost)
		}
		c.Is(h.unlock(), locker.ErrLost, "Unlock of a hold that was spoiled")
	}
	claim := c.Claim("LOSS-003")
	if c.leaf.kind == Session {
		claim = c.Claim("SES-001")
	}
	for _, h := range others {
		claim.OK(h.Err(), "the Err of a hold beside those that were spoiled")
		b.mustHeld(h.Key(), c.hold()...)
		h.mustUnlock()
	}
}

// foreignStays: what an administrator put in the place of a hold is not the holder's to renew, to
// write over or to release, nor anybody's to take.
func foreignStays(c *trial) {
	x, y, w := c.nearRaw(), c.nearRaw(), c.near()
	if c.leaf.kind == Session && c.Caps.SessionValidity == 0 {
		c.Skip("the backend's sessions have no end of their own")
	}
	const many = 4 // the target may put one thing after another there
	var all []*grip
	var waiting []*pending
	for i := range many {
		g := x.take(c.Key(fmt.Sprint(i)), c.ttl())
		all = append(all, g)
		waiting = append(waiting, w.goLock(g.req.Key, append(c.hold(), c.Polling())...))
	}
	c.Settle()
	stands := func(when string) {
		for _, g := range all {
			next, err := y.acquire(g.req.Key, c.Owner(), far)
			c.Must(err != nil, "what an administrator put in the place of a hold stays there "+when, "somebody else was granted %s, token %d", c.Short(g.req.Key), next.token)
			in, ok := driver.As[driver.Inspector](y.inner)
			if !ok {
				continue
			}
			info, held, err := in.Inspect(c.CtxFor(c.Limit()), g.req.Key)
			c.Must(err != nil || !held || info.Owner != g.req.Owner.String(), "what an administrator put in the place of a hold stays there "+when, "the former holder has %s again", c.Short(g.req.Key))
		}
		for _, p := range waiting {
			c.Must(!harness.IsClosed(p.done), "who waits goes on waiting while something else stands in the place of a hold", "%s: Lock returned: %v", when, p.outcome())
		}
	}
	for _, g := range all {
		c.overwrite(g.req.Key)
		_, err := y.acquire(g.req.Key, c.Owner(), c.Unit())
		c.Must(err != nil, "what an administrator put in the place of a hold is not granted", "it was")
	}
	c.Sleep(c.Unit() + c.Granularity())
	stands("for longer than the first attempt asked for it")
	z := c.nearRaw() // one that opens may clear away what is over
	z.take(c.Key("other"), far).mustRelease()
	stands("when another client opens")
	if c.leaf.kind == Session {
		c.Sleep(c.Caps.SessionValidity * 4 / 3) // what the first renewal gives is over by then
		stands("for longer than the validity")
	}
	for i, g := range all {
		switch {
		case c.leaf.kind == Session:
			c.Is(g.hears(c.Prompt(), "a session that was overwritten"), driver.ErrLost, "what a session that was overwritten hears")
		case i < many/2:
			c.Is(g.extend(far), driver.ErrLost, "the driver's Extend of a lease that was overwritten")
		}
		c.Is(g.release(), driver.ErrLost, "the driver's Release of a hold that was overwritten")
	}
	stands("after a Release by the former holder")
	for _, g := range all {
		c.inject().Delete(c.T, g.req.Key)
	}
	for _, p := range waiting {
		p.granted(c.recovery(), "the deletion of what an administrator had put there").mustUnlock()
	}
	for _, g := range all {
		y.takeSoon(g.req.Key, far).mustRelease()
	}
}

func cutOnLine(c *trial) {
	b := c.near()
	a, line := c.distant()
	w, other := c.distant()
	c.can(line.Cut != nil, "Cut")
	cut(c, a, w, b, func() {
		// Whatever is under way when a connection is killed never comes, so that for a while
		// before nothing does.
		if line.BlackHole != nil {
			line.BlackHole(true, true)
			other.BlackHole(true, true)
			c.Sleep(c.life() / 12)
			line.Heal()
			other.Heal()
		}
		line.Cut()
		other.Cut()
	})
}

// releasedMeanwhile: the release that somebody waits for comes while the waiter is cut off, so
// that it is announced to nobody. The waiter has no poll to find it by.
func releasedMeanwhile(c *trial) {
	a := c.near()
	w, line := c.distant()
	c.can(line.BlackHole != nil && line.Cut != nil, "BlackHole and Cut")
	sleeps := c.pulse()
	for i := range 2 {
		h := a.mustTry(c.Key(fmt.Sprint(i)), c.hold()...)
		p := w.goLock(h.Key(), append(c.hold(), c.hinted(w))...)
		c.Settle()
		line.BlackHole(true, true)
		h.mustUnlock()
		c.Sleep(c.Unit() / 2)
		c.Must(!harness.IsClosed(p.done), "who waits behind a black hole waits on", "Lock returned: %v", p.outcome())
		line.Heal()
		line.Cut()
		c.Hist.Add("   (the connections of the waiter are cut)")
		p.granted(c.recovery()+sleeps.longest(), "a release while it was cut off").mustUnlock()
	}
}

func cutByStore(c *trial) {
	cut(c, c.near(), c.near(), c.near(), func() { c.inject().Disconnect(c.T) })
}

// cut breaks the connections of a holder and of a waiter again and again, for longer than
// a hold would last if it did not survive that. b only watches, and may be cut off too.
func cut(c *trial, a, w, b *client, sever func()) {
	f, sleeps := c.figures(), c.pulse()
	key := c.Key("held")
	h := a.mustTry(key, c.living()...)
	done := h.Done()
	var longer *hold // was extended to more than it had at first
	if c.leaf.kind == Lease {
		longer = a.mustTry(c.Key("longer"), c.living()...)
		if err := longer.extend(far); err != nil {
			longer.survives("a lease that is new", sleeps)
			c.OK(err, "Extend")
		}
	}
	p := w.goLock(key, append(c.hold(), c.Polling())...)
	c.Settle()
	pause := c.life() / 16
	if c.leaf.kind == Session {
		pause = c.life() / 6 // to connect and renew, also on a machine that is busy
	}
	for began := time.Now(); time.Since(began) < c.life()*3/2; {
		sever()
		c.Hist.Add("   (connections are cut)")
		extended := time.Now()
		for c.leaf.kind == Lease { // one attempt may meet the broken connection
			err := h.extend(c.life())
			if err == nil {
				f.add("extended after", time.Since(extended))
				break
			}
			h.survives("an intact hold survives a killed connection", sleeps)
			c.Is(err, locker.ErrUnavailable, "Extend of an intact hold")
			c.Must(time.Since(extended) < c.recovery(), "Extend works again after a connection was killed", "%v", err)
			c.Sleep(c.Granularity())
		}
		c.pause(pause, done)
		h.survives("an intact hold survives a killed connection", sleeps)
		c.Must(!harness.IsClosed(p.done), "the waiter waits on", "Lock returned: %v", p.outcome())
	}
	c.free(b, c.recovery(), c.Key("reachable")) // b's own connection may be new too
	h.survives("an intact hold survives a killed connection", sleeps)
	b.mustHeld(key, c.hold()...)
	if longer != nil {
		longer.survives("an intact hold that was extended survives a killed connection", sleeps)
		b.mustHeld(longer.Key(), c.hold()...)
	}

	// The waiter's next poll is soon, but a wake-up comes sooner.
	before := time.Now()
	h.mustUnlock()
	got := p.granted(c.HandOver()+sleeps.longest(), "the release")
	f.add(proceeded, got.at.Sub(before))
	got.mustUnlock()

	// What is announced of a loss still comes, on the new connection.
	if c.Caps.Has.Has(driver.PromptLoss) {
		h := a.mustTry(key, c.hold()...)
		sever()
		c.Sleep(c.recovery())
		h.mustLive()
		end := c.Moment(h.Done())
		before := time.Now()
		c.inject().Delete(c.T, key)
		c.Await(end.Seen, c.Prompt()+sleeps.longest(), "Done closes after a deletion, on a new connection,")
		f.add("deletion noticed, on a new connection, after", end.At.Sub(before))
	}
	c.free(b, c.recovery(), key)
	c.tell(f)
}
