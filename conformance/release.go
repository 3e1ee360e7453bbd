package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var releaseCases = []Case{
	{ID: "REL-001", Kinds: both, fn: releaseFrees, Parts: passed(passedRelease), Clause: "frees at once"},
	{ID: "REL-002", Kinds: both, fn: releaseLate, Parts: passed(passedLate), Clause: "after expiry: ErrLost, and the next holder's lock is untouched"},
	{ID: "REL-003", Kinds: both, fn: releaseTwice, Clause: "a second Unlock: ErrReleased, no I/O; of many concurrent ones exactly one is nil"},
	{ID: "REL-004", Kinds: both, fn: releaseDetached, Clause: "Unlock with a cancelled ctx still releases (detached, bounded)"},
	{ID: "REL-005", Kinds: both, fn: releaseUnknown, Clause: "if the reply is lost, Unlock may be called again"},
}

func releaseFrees(c *trial) {
	a, b := c.client(), c.client()
	key := c.key("k")
	for range 20 {
		h := a.mustTry(key, c.hold()...)
		done := h.Done()
		h.mustUnlock()
		c.must(isClosed(done), "Done is closed when Unlock has returned", "it is open")
		h = b.mustTry(key, c.hold()...) // another client
		h.mustUnlock()
		h = b.mustTry(key, c.hold()...) // and the same one
		h.mustUnlock()
	}
}

// releaseLate is about a Release by one who does not hold the key: by expiry for a lease,
// and for both kinds because he never did, or does not any more.
func releaseLate(c *trial) {
	a, b := c.client(), c.client()
	if c.leaf.kind == Lease {
		key := c.key("free")
		h := a.mustTry(key, locker.WithTTL(c.unit()))
		c.await(h.Done(), c.limit(), "Done closes at the end of the ttl")
		c.is(h.unlock(), locker.ErrLost, "Unlock after expiry, with the key free,")
		c.is(h.unlock(), locker.ErrLost, "a second Unlock after expiry")
		b.goLock(key, locker.WithTTL(far), c.polling()).granted(c.handOver(), "the end of the ttl")

		key = c.key("taken")
		h = a.mustTry(key, locker.WithTTL(c.unit()))
		got := b.goLock(key, locker.WithTTL(far), c.polling()).granted(c.limit(), "the end of the ttl")
		c.is(h.unlock(), locker.ErrLost, "Unlock after expiry, with the key held by another,")
		c.settle() // a release in the background would come now
		got.mustLive(a)
		c.ok(got.extend(far), "the next holder's Extend")
		got.mustUnlock()
	}

	d := c.driver()
	ctx := c.ctxFor(c.limit())
	acquire := func(key string, ttl time.Duration) driver.Holder {
		o := c.owner()
		g, err := d.Acquire(ctx, driver.Request{Key: key, Owner: o, TTL: ttl, Hold: newRecorder()})
		c.ok(err, "the driver's Acquire of a free key")
		return driver.Holder{Key: key, Owner: o, Token: g.Token, Session: ttl == 0}
	}

	x := acquire(c.key("driver, stranger"), c.ttl())
	stranger := x
	stranger.Owner = c.owner()
	c.is(d.Release(ctx, stranger), driver.ErrLost, "the driver's Release by one who does not hold the key")
	stranger.Token = 0
	c.is(d.Release(ctx, stranger), driver.ErrLost, "the driver's Release by one who does not know whether it holds the key, and does not,")
	a.mustHeld(x.Key, c.hold()...)
	b.mustHeld(x.Key, c.hold()...)
	c.ok(d.Release(ctx, x), "the driver's Release by the holder")
	c.is(d.Release(ctx, x), driver.ErrLost, "the driver's Release of what is released")

	got := b.mustTry(x.Key, c.hold()...)
	c.is(d.Release(ctx, x), driver.ErrLost, "the driver's Release by the former holder")
	got.mustLive(a)
	got.mustUnlock()

	y := acquire(x.Key, c.ttl()) // another hold of the same client
	c.is(d.Release(ctx, x), driver.ErrLost, "the driver's Release by the former holder, of the same client,")
	a.mustHeld(x.Key, c.hold()...)
	c.ok(d.Release(ctx, y), "the driver's Release by the holder")
	a.mustTry(x.Key, c.hold()...).mustUnlock()

	if c.leaf.kind == Lease {
		x = acquire(c.key("driver, expired"), c.unit())
		c.sleep(c.unit() + c.granularity())
		c.is(d.Release(ctx, x), driver.ErrLost, "the driver's Release after the ttl, with the key free,")

		x = acquire(c.key("driver, expired and taken"), c.unit())
		got = b.goLock(x.Key, locker.WithTTL(far), c.polling()).granted(c.limit(), "the end of the ttl")
		c.is(d.Release(ctx, x), driver.ErrLost, "the driver's Release after the ttl, with the key held by another,")
		got.mustLive(a)
		got.mustUnlock()
	}
}

func releaseTwice(c *trial) {
	a, b := c.client(), c.client()
	key := c.key("k")
	h := a.mustTry(key, c.hold()...)
	h.mustUnlock()
	calls := a.tap.count()
	err := h.unlock()
	c.is(err, locker.ErrReleased, "a second Unlock")
	c.isNot(err, locker.ErrLost, "a second Unlock")
	next := b.mustTry(key, c.hold()...)
	c.is(h.unlock(), locker.ErrReleased, "a third Unlock, with the key held by another,")
	c.must(a.tap.count() == calls, "a second Unlock asks the backend for nothing", "it was called %d times", a.tap.count()-calls)
	next.mustLive(a)
	next.mustUnlock()
	c.must(!errors.Is(h.Err(), locker.ErrLost) && errors.Is(h.Err(), locker.ErrReleased), "Err is ErrReleased after Unlock", "%v", h.Err())

	for round := range c.rounds(30, 10) {
		h := a.mustTry(key, c.hold()...)
		before := a.tap.count(opRelease)
		var nils, released atomic.Int32
		const n = 16
		c.together(n, func(int) {
			switch err := h.unlock(); {
			case err == nil:
				nils.Add(1)
			case errors.Is(err, locker.ErrReleased):
				released.Add(1)
			default:
				c.fatal("each of many concurrent Unlocks gives nil or ErrReleased", "%v", err)
			}
		})
		c.must(nils.Load() == 1 && released.Load() == n-1, fmt.Sprintf("of %d concurrent Unlocks one gives nil and the others ErrReleased", n),
			"in round %d: %d nil, %d ErrReleased", round, nils.Load(), released.Load())
		sent := a.tap.count(opRelease) - before
		c.must(sent == 1, "concurrent Unlocks release once", "%d times", sent)
	}
}

func releaseDetached(c *trial) {
	a, b := c.client(), c.client()
	key := c.key("k")
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	expired, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Hour))
	defer cancel()
	for _, ctx := range []context.Context{cancelled, expired} {
		h := a.mustTry(key, c.hold()...)
		c.ok(h.unlockCtx(ctx), "Unlock with a ctx that has ended (%v)", ctx.Err())
		b.mustTry(key, c.hold()...).mustUnlock()
	}

	// Bounded: even when the backend does not answer. This takes seconds, by the core alone.
	if !c.suite.virtual {
		return
	}
	h := a.mustTry(key, c.hold()...)
	a.tap.next(opRelease, hang)
	p := c.spawn(func() {
		c.is(h.unlockCtx(cancelled), locker.ErrUnavailable, "Unlock with a cancelled ctx, of a backend that does not answer,")
	})
	c.await(p, time.Minute, "Unlock with a cancelled ctx ends although the backend does not answer")
	b.goLock(key, append(c.hold(), c.polling())...).
		granted(time.Minute, "a release that was not confirmed at first")
}

func releaseUnknown(c *trial) {
	a, b := c.client(), c.client()
	for _, f := range []struct {
		name string
		f    fault
	}{{"lost request", refuse}, {"lost reply", lose}} {
		key := c.key(f.name)
		h := a.mustTry(key, c.hold()...)
		done := h.Done()
		a.tap.next(opRelease, f.f)
		err := h.unlock()
		c.is(err, locker.ErrUnavailable, "Unlock with a %s", f.name)
		c.isNot(err, locker.ErrLost, "Unlock with a %s", f.name)
		c.must(isClosed(done), "Done is closed from the first Unlock on", "it is open")
		c.ok(h.unlock(), "a second Unlock after a %s", f.name)
		c.is(h.unlock(), locker.ErrReleased, "an Unlock after one that was confirmed")
		next := b.mustTry(key, c.hold()...)
		c.settle() // a release that is repeated too often would come now
		next.mustLive(a)
		next.mustUnlock()

		// Somebody else may have the key by the time of the second Unlock.
		h = a.mustTry(key, c.hold()...)
		a.tap.next(opRelease, f.f)
		c.is(h.unlock(), locker.ErrUnavailable, "Unlock with a %s", f.name)
		next = b.goLock(key, append(c.hold(), c.polling())...).granted(c.limit(), "an Unlock with a "+f.name+" that nobody repeats")
		err = h.unlock()
		c.must(err == nil || errors.Is(err, locker.ErrReleased), "a second Unlock, after the core has repeated the first by itself, gives nil or ErrReleased", "%v", err)
		c.settle()
		next.mustLive(a)
		next.mustUnlock()
	}
}
