package conformance

import (
	"fmt"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// spoiled has an administrator spoil what is held.
func spoiled(c *trial, spoil func(testing.TB, string)) {
	a, b := c.near(), c.near()
	f, sleeps := c.figures(), c.pulse()
	// Where nobody announces the loss, a session hears of it while it is kept alive, and a
	// lease at its end.
	opts, within := c.hold(), c.prompt()
	if !c.caps.Has.Has(driver.PromptLoss) {
		opts, within = c.living(), c.life()+c.prompt()
	}
	for i := range c.rounds(5, 3) {
		key := c.key(fmt.Sprint("wanted ", i))
		h := a.mustTry(key, opts...)
		end := c.moment(h.Done())
		p := b.goLock(key, append(c.hold(), c.polling())...)
		c.sleep(c.granularity()) // not only of a hold that is new
		h.mustLive()
		spoil(c.t, key)
		began := time.Now()
		c.hist.add("   (an administrator spoils %s)", c.short(key))
		if c.leaf.part == "overwritten" {
			c.settle()
			c.inject().Delete(c.t, key) // or it would stay for ever
		}
		gone := time.Now()
		got := p.granted(c.handOver()+sleeps.longest(), "the key was spoiled, and is free")
		f.add(proceeded, got.at.Sub(gone))
		c.await(end.seen, within+sleeps.longest(), "Done closes after an administrator spoiled the key")
		f.add(noticed, end.at.Sub(began))
		if c.leaf.part == "overwritten" {
			f.add(believed, end.at.Sub(got.at))
		} else {
			// Both hear of it at the same time.
			f.add(believed+", who was told at the same time,", end.at.Sub(got.at))
		}
		if c.caps.Has.Has(driver.PromptLoss) {
			h.ended(locker.ReasonLost)
		}
		c.is(h.Err(), locker.ErrLost, "the Err of a hold that was spoiled")
		c.is(h.unlock(), locker.ErrLost, "Unlock of a hold that was spoiled")
		if c.leaf.part != "wiped" || c.caps.Has.Has(driver.TokensSurviveDataLoss) {
			c.must(got.Token() > h.Token(), "the token tells the new holder from the former one", "%d after %d", got.Token(), h.Token())
		}
		c.settle()
		got.mustLive(a)
		got.mustUnlock()

		// Who asks learns of it at once.
		key = c.key(fmt.Sprint("asked ", i))
		h = a.mustTry(key, c.hold()...)
		spoil(c.t, key)
		if c.leaf.kind == Lease && i%2 == 0 {
			c.is(h.extend(far), locker.ErrLost, "Extend of a hold that was spoiled")
		}
		c.is(h.unlock(), locker.ErrLost, "Unlock of a hold that was spoiled")
		c.await(h.Done(), c.prompt(), "Done closes")
		if c.leaf.part == "overwritten" {
			c.inject().Delete(c.t, key)
		}
		c.free(b, c.recovery(), key)
	}
	c.tell(f)
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
			c.sleep(c.life() / 12)
			line.Heal()
			other.Heal()
		}
		line.Cut()
		other.Cut()
	})
}

func cutByStore(c *trial) {
	cut(c, c.near(), c.near(), c.near(), func() { c.inject().Disconnect(c.t) })
}

// cut breaks the connections of a holder and of a waiter again and again, for longer than
// a hold would last if it did not survive that. b only watches, and may be cut off too.
func cut(c *trial, a, w, b *client, sever func()) {
	f, sleeps := c.figures(), c.pulse()
	key := c.key("held")
	h := a.mustTry(key, c.living()...)
	done := h.Done()
	p := w.goLock(key, append(c.hold(), c.polling())...)
	c.settle()
	for began := time.Now(); time.Since(began) < c.life()*3/2; {
		sever()
		c.hist.add("   (connections are cut)")
		extended := time.Now()
		for c.leaf.kind == Lease { // one attempt may meet the broken connection
			err := h.extend(c.life())
			if err == nil {
				f.add("extended after", time.Since(extended))
				break
			}
			h.survives("an intact hold survives a killed connection", sleeps)
			c.is(err, locker.ErrUnavailable, "Extend of an intact hold")
			c.must(time.Since(extended) < c.recovery(), "Extend works again after a connection was killed", "%v", err)
			c.sleep(c.granularity())
		}
		c.pause(c.life()/16, done)
		h.survives("an intact hold survives a killed connection", sleeps)
		c.must(!isClosed(p.done), "the waiter waits on", "Lock returned: %v", p.outcome())
	}
	c.free(b, c.recovery(), c.key("reachable")) // b's own connection may be new too
	h.survives("an intact hold survives a killed connection", sleeps)
	b.mustHeld(key, c.hold()...)

	// The waiter's next poll is soon, but a wake-up comes sooner.
	before := time.Now()
	h.mustUnlock()
	got := p.granted(c.handOver()+sleeps.longest(), "the release")
	f.add(proceeded, got.at.Sub(before))
	got.mustUnlock()

	// What is announced of a loss still comes, on the new connection.
	if c.caps.Has.Has(driver.PromptLoss) {
		h := a.mustTry(key, c.hold()...)
		sever()
		c.sleep(c.recovery())
		h.mustLive()
		end := c.moment(h.Done())
		before := time.Now()
		c.inject().Delete(c.t, key)
		c.await(end.seen, c.prompt()+sleeps.longest(), "Done closes after a deletion, on a new connection,")
		f.add("deletion noticed, on a new connection, after", end.at.Sub(before))
	}
	c.free(b, c.recovery(), key)
	c.tell(f)
}
