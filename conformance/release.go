package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var releaseCases = []Case{
	{ID: "REL-001", Kinds: both, fn: releaseFrees, Parts: passed(passedRelease), Clause: "frees at once"},
	{ID: "REL-002", Kinds: both, fn: releaseLate, Parts: []Part{
		{Name: "refused", fn: refusedRelease},
		{Name: "numbers", fn: releaseByNumber},
		{Name: "late", fn: refusedLate},
		{Name: "race", Kinds: []Kind{Lease}, fn: releaseRace},
		passed(passedLate)[0],
	}, Clause: "after expiry: ErrLost, and the next holder's lock is untouched"},
	{ID: "REL-003", Kinds: both, fn: releaseTwice, Clause: "a second Unlock: ErrReleased, no I/O; of many concurrent ones exactly one is nil"},
	{ID: "REL-004", Kinds: both, fn: releaseDetached, Clause: "Unlock with a cancelled ctx still releases (detached, bounded)"},
	{ID: "REL-005", Kinds: both, fn: releaseUnknown, Parts: []Part{
		{Name: "line", Needs: []Need{needsLine}, fn: releaseOnLine},
		{Name: "hung", Needs: []Need{needsPause}, fn: releaseHung},
	}, Clause: "if the reply is lost, Unlock may be called again"},
	{ID: "REL-006", fn: longestOrphan, Clause: "a release that was not confirmed goes on for as long as the store may hold the key, the longest ttl of all requests that may have arrived"},
}

func releaseFrees(c *trial) {
	a, b := c.client(), c.client()
	key := c.Key("k")
	for range 20 {
		h := a.mustTry(key, c.hold()...)
		done := h.Done()
		h.mustUnlock()
		c.Must(harness.IsClosed(done), "Done is closed when Unlock has returned", "it is open")
		h = b.mustTry(key, c.hold()...) // another client
		h.mustUnlock()
		h = b.mustTry(key, c.hold()...) // and the same one
		h.mustUnlock()
	}
	// Also for those who were refused a moment ago.
	x, y, z := c.raw(), c.raw(), c.raw()
	for _, by := range []*raw{x, y, z} {
		g := by.take(key, c.ttl())
		for _, r := range []*raw{x, y, z} {
			r.refused(key, c.Owner(), c.ttl())
		}
		g.mustRelease()
		for _, r := range []*raw{z, y, x} {
			next, err := r.acquire(key, c.Owner(), c.ttl())
			c.OK(err, "the driver's Acquire of what was released, for a client that was refused before,")
			next.mustRelease()
		}
	}
	if c.leaf.kind == Session {
		return
	}
	// However little is left of a lease.
	for i, ttl := range []time.Duration{c.lifetime(), c.Unit(), c.Unit() / 2, c.Unit() / 4} {
		for _, share := range []time.Duration{0, 60} {
			g := x.take(c.Key(fmt.Sprint(i, share)), ttl)
			c.Sleep(time.Until(g.after.Add(ttl * share / 100)))
			err := g.release()
			next, refused := y.acquire(g.req.Key, c.Owner(), far)
			if time.Since(g.before) < ttl { // a busy machine may miss it
				c.OK(err, "the driver's Release of a lease of %s, at %d %% of its ttl,", ttl, share)
				c.OK(refused, "the driver's Acquire after the release of a lease of %s, at %d %% of its ttl,", ttl, share)
			}
			if refused == nil {
				next.mustRelease()
			}
		}
	}
}

// releaseLate is about a Release by one who does not hold the key: by expiry for a lease,
// and for both kinds because he never did, or does not any more.
func releaseLate(c *trial) {
	a, b := c.client(), c.client()
	if c.leaf.kind == Lease {
		key := c.Key("free")
		h := a.mustTry(key, locker.WithTTL(c.Unit()))
		c.Await(h.Done(), c.Limit(), "Done closes at the end of the ttl")
		c.Is(h.unlock(), locker.ErrLost, "Unlock after expiry, with the key free,")
		c.Is(h.unlock(), locker.ErrLost, "a second Unlock after expiry")
		b.goLock(key, locker.WithTTL(far), c.Polling()).grantedBy(c.Claim("TTL-001"), c.HandOver(), "the end of the ttl")

		key = c.Key("taken")
		h = a.mustTry(key, locker.WithTTL(c.Unit()))
		got := b.goLock(key, locker.WithTTL(far), c.Polling()).grantedBy(c.Claim("TTL-001"), c.Limit(), "the end of the ttl")
		c.Is(h.unlock(), locker.ErrLost, "Unlock after expiry, with the key held by another,")
		c.Settle() // a release in the background would come now
		got.mustLive(a)
		c.OK(got.extend(far), "the next holder's Extend")
		got.mustUnlock()
	}

	d := c.driver()
	ctx := c.CtxFor(c.Limit())
	acquire := func(key string, ttl time.Duration) driver.Holder {
		o := c.Owner()
		g, err := d.Acquire(ctx, driver.Request{Key: key, Owner: o, TTL: ttl, Hold: newRecorder()})
		c.OK(err, "the driver's Acquire of a free key")
		return driver.Holder{Key: key, Owner: o, Token: g.Token, Session: ttl == 0}
	}

	x := acquire(c.Key("driver, stranger"), c.ttl())
	stranger := x
	stranger.Owner = c.Owner()
	c.Is(d.Release(ctx, stranger), driver.ErrLost, "the driver's Release by one who does not hold the key")
	stranger.Token = 0
	c.Is(d.Release(ctx, stranger), driver.ErrLost, "the driver's Release by one who does not know whether it holds the key, and does not,")
	a.mustHeld(x.Key, c.hold()...)
	b.mustHeld(x.Key, c.hold()...)
	c.OK(d.Release(ctx, x), "the driver's Release by the holder")
	c.Is(d.Release(ctx, x), driver.ErrLost, "the driver's Release of what is released")

	got := b.mustTry(x.Key, c.hold()...)
	c.Is(d.Release(ctx, x), driver.ErrLost, "the driver's Release by the former holder")
	got.mustLive(a)
	got.mustUnlock()

	// What a late release has left to do would come now.
	next := b.mustTry(x.Key, c.hold()...)
	c.Sleep(c.Unit())
	next.mustLive(a)
	next.mustUnlock()
	c.Is(d.Release(ctx, x), driver.ErrLost, "the driver's Release by the former holder, with the key free,")
	next = b.mustTry(x.Key, c.hold()...)
	c.Sleep(c.Unit())
	next.mustLive(a)
	next.mustUnlock()

	y := acquire(x.Key, c.ttl()) // another hold of the same client
	c.Is(d.Release(ctx, x), driver.ErrLost, "the driver's Release by the former holder, of the same client,")
	a.mustHeld(x.Key, c.hold()...)
	c.OK(d.Release(ctx, y), "the driver's Release by the holder")
	a.mustTry(x.Key, c.hold()...).mustUnlock()

	if c.target.Delete != nil {
		x = acquire(c.Key("driver, deleted and taken"), c.ttl())
		c.target.Delete(c.T, x.Key)
		got = b.mustTry(x.Key, c.hold()...)
		c.Is(d.Release(ctx, x), driver.ErrLost, "the driver's Release of what was deleted, with the key held by another,")
		got.mustLive(a)
		got.mustUnlock()
	}

	if c.leaf.kind == Lease {
		x = acquire(c.Key("driver, expired"), c.Unit())
		c.Sleep(c.Unit() + c.Granularity())
		c.Is(d.Release(ctx, x), driver.ErrLost, "the driver's Release after the ttl, with the key free,")

		x = acquire(c.Key("driver, expired and taken"), c.Unit())
		got = b.goLock(x.Key, locker.WithTTL(far), c.Polling()).grantedBy(c.Claim("TTL-001"), c.Limit(), "the end of the ttl")
		c.Is(d.Release(ctx, x), driver.ErrLost, "the driver's Release after the ttl, with the key held by another,")
		got.mustLive(a)
		got.mustUnlock()
	}
}

// likeNumbers are of owners of one process: the one may be the beginning or the end of the other, and
// so may be all of its name.
var likeNumbers = [][2]uint64{
	{10, 1}, {1, 10}, {160, 16}, {16, 160}, {21, 1}, {1, 21}, {1<<40 + 7, 7},
	{1234, 1235}, {123_456, 123_457}, {1<<40 + 7, 1<<40 + 8}, {1<<53 + 1, 1 << 53}, {1<<63 + 1, 1<<63 + 2}, // of which only the end differs
}

// releaseByNumber: who has a number like the holder's is another owner.
func releaseByNumber(c *trial) {
	x, y := c.raw(), c.raw()
	for _, numbers := range likeNumbers {
		owner := c.Owner()
		other := owner
		owner.Seq, other.Seq = numbers[0], numbers[1]
		g := x.takeAs(c.Key(fmt.Sprint(numbers)), owner, c.ttl())
		for _, by := range []*raw{x, y} {
			h := g.holder()
			h.Owner = other
			c.Is(by.Release(c.CtxFor(c.Limit()), h), driver.ErrLost, "the driver's Release by owner %d of what owner %d of the same instance holds", other.Seq, owner.Seq)
			if c.leaf.kind == Lease {
				_, err := by.Extend(c.CtxFor(c.Limit()), h, far/2)
				c.Claim("EXT-002").Is(err, driver.ErrLost, "the driver's Extend by owner %d of what owner %d of the same instance holds", other.Seq, owner.Seq)
			}
			h.Token = 0
			c.Is(by.Release(c.CtxFor(c.Limit()), h), driver.ErrLost, "the driver's Release, without a token, by owner %d of what owner %d of the same instance holds", other.Seq, owner.Seq)
			by.refused(g.req.Key, c.Owner(), far)
		}
		if clock, ok := driver.As[driver.SessionClock](x.inner); ok && c.leaf.kind == Session {
			c.OK(clock.SessionErr(g.holder()), "SessionErr of a session that another owner could not release")
		}
		g.silent("the holder")
		if c.leaf.kind == Lease {
			c.OK(g.extend(far), "the holder's Extend")
		}
		g.mustRelease()
	}
}

func releaseTwice(c *trial) {
	a, b := c.client(), c.client()
	key := c.Key("k")
	h := a.mustTry(key, c.hold()...)
	h.mustUnlock()
	calls := a.tap.Count()
	err := h.unlock()
	c.Is(err, locker.ErrReleased, "a second Unlock")
	c.IsNot(err, locker.ErrLost, "a second Unlock")
	next := b.mustTry(key, c.hold()...)
	c.Is(h.unlock(), locker.ErrReleased, "a third Unlock, with the key held by another,")
	c.Must(a.tap.Count() == calls, "a second Unlock asks the backend for nothing", "it was called %d times", a.tap.Count()-calls)
	next.mustLive(a)
	next.mustUnlock()
	c.Must(!errors.Is(h.Err(), locker.ErrLost) && errors.Is(h.Err(), locker.ErrReleased), "Err is ErrReleased after Unlock", "%v", h.Err())

	for round := range c.Rounds(30, 10) {
		h := a.mustTry(key, c.hold()...)
		before := a.tap.Count(harness.OpRelease)
		var nils, released atomic.Int32
		const n = 16
		c.Together(n, func(int) {
			switch err := h.unlock(); {
			case err == nil:
				nils.Add(1)
			case errors.Is(err, locker.ErrReleased):
				released.Add(1)
			default:
				c.Fatal("each of many concurrent Unlocks gives nil or ErrReleased", "%v", err)
			}
		})
		c.Must(nils.Load() == 1 && released.Load() == n-1, fmt.Sprintf("of %d concurrent Unlocks one gives nil and the others ErrReleased", n),
			"in round %d: %d nil, %d ErrReleased", round, nils.Load(), released.Load())
		sent := a.tap.Count(harness.OpRelease) - before
		c.Must(sent == 1, "concurrent Unlocks release once", "%d times", sent)
	}
}

func releaseDetached(c *trial) {
	a, b := c.client(), c.client()
	key := c.Key("k")
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	expired, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Hour))
	defer cancel()
	for _, ctx := range []context.Context{cancelled, expired} {
		h := a.mustTry(key, c.hold()...)
		c.OK(h.unlockCtx(ctx), "Unlock with a ctx that has ended (%v)", ctx.Err())
		b.mustTry(key, c.hold()...).mustUnlock()
	}

	// Bounded: even when the backend does not answer. This takes seconds, by the core alone.
	if !c.Virtual {
		return
	}
	h := a.mustTry(key, c.hold()...)
	a.tap.Next(harness.OpRelease, harness.Hang)
	p := c.Spawn(func() {
		c.Is(h.unlockCtx(cancelled), locker.ErrUnavailable, "Unlock with a cancelled ctx, of a backend that does not answer,")
	})
	c.Await(p, time.Minute, "Unlock with a cancelled ctx ends although the backend does not answer")
	b.goLock(key, append(c.hold(), c.Polling())...).
		granted(time.Minute, "a release that was not confirmed at first")
}

func releaseUnknown(c *trial) {
	a, b := c.client(), c.client()
	for _, f := range []struct {
		name string
		f    harness.Fault
	}{{"lost request", harness.Refuse}, {"lost reply", harness.Lose}} {
		key := c.Key(f.name)
		h := a.mustTry(key, c.hold()...)
		done := h.Done()
		a.tap.Next(harness.OpRelease, f.f)
		err := h.unlock()
		c.Is(err, locker.ErrUnavailable, "Unlock with a %s", f.name)
		c.IsNot(err, locker.ErrLost, "Unlock with a %s", f.name)
		c.Must(harness.IsClosed(done), "Done is closed from the first Unlock on", "it is open")
		c.OK(h.unlock(), "a second Unlock after a %s", f.name)
		c.Is(h.unlock(), locker.ErrReleased, "an Unlock after one that was confirmed")
		next := b.mustTry(key, c.hold()...)
		c.Settle() // a release that is repeated too often would come now
		next.mustLive(a)
		next.mustUnlock()

		// Somebody else may have the key by the time of the second Unlock.
		h = a.mustTry(key, c.hold()...)
		a.tap.Next(harness.OpRelease, f.f)
		c.Is(h.unlock(), locker.ErrUnavailable, "Unlock with a %s", f.name)
		next = b.goLock(key, append(c.hold(), c.Polling())...).granted(c.Limit(), "an Unlock with a "+f.name+" that nobody repeats")
		err = h.unlock()
		c.Must(err == nil || errors.Is(err, locker.ErrReleased), "a second Unlock, after the core has repeated the first by itself, gives nil or ErrReleased", "%v", err)
		c.Settle()
		next.mustLive(a)
		next.mustUnlock()
	}
}

// releaseOnLine: the store frees the key, and its answer is lost. That is no loss of the hold: Unlock does not know, and
// the next one is told.
func releaseOnLine(c *trial) {
	b := c.near()
	a, line := c.distant()
	c.can(line.LoseReplies != nil, "LoseReplies")
	for i := range 3 {
		h := a.mustTry(c.Key(fmt.Sprint(i)), c.hold()...)
		c.Settle()
		line.LoseReplies(1)
		c.Hist.Add("%s  (the reply to its next request is lost)", a.name)
		err := h.unlock()
		line.Heal() // if something else was asked meanwhile
		c.IsNot(err, locker.ErrLost, "Unlock of what nobody has taken, when its reply is lost,")
		for end := time.Now().Add(c.Limit()); errors.Is(err, locker.ErrUnavailable) && time.Now().Before(end); c.Sleep(c.Granularity()) {
			err = h.unlock()
		}
		c.Must(err == nil || errors.Is(err, locker.ErrReleased), "a later Unlock, after one whose reply was lost, gives nil, or ErrReleased where the core has repeated it by itself", "%v", err)
		b.goLock(h.Key(), append(c.hold(), c.Polling())...).granted(c.recovery(), "the Unlock").mustUnlock()
	}
}

// releaseHung: a Release that nothing answered is repeated, and frees the key then.
func releaseHung(c *trial) {
	x, y, ttl := c.nearRaw(), c.nearRaw(), c.ttl()
	if ttl == 0 && c.Caps.SessionValidity > 0 && c.Caps.SessionValidity < 3*c.Unit() {
		c.Skip("the backend's sessions are too short")
	}
	g := x.take(c.Key("k"), ttl)
	goOn := c.stalls()
	err := x.Release(c.CtxFor(c.Unit()/2), g.holder())
	goOn()
	c.Must(err != nil && !errors.Is(err, driver.ErrLost), "the driver's Release that nothing answers is an error that the core repeats", "%v", err)
	began := time.Now()
	for errors.Is(err, driver.ErrUnavailable) && time.Since(began) < c.Limit() {
		err = x.Release(c.CtxFor(c.Limit()), g.holder())
	}
	c.OK(ignoreLost(err), "the driver's Release, again")
	next, err := y.acquire(g.req.Key, c.Owner(), ttl)
	c.OK(err, "the driver's Acquire, by another client, of what was released when the store answered again,")
	next.mustRelease()
}
