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

// refusals are what a store says that has answered, and did not do it.
var refusals = []struct {
	name string
	err  error
}{
	{"refused", fmt.Errorf("%w: it is full", driver.ErrRefused)},
	{"a wrong peer", fmt.Errorf("%w: it is a standby", driver.ErrWrongPeer)},
}

// refusedNothingTaken: after a refusal nothing was done, and so nothing is undone.
func refusedNothingTaken(c *trial) {
	a, b := c.client(), c.client()
	for _, r := range refusals {
		key := c.Key(r.name)
		a.tap.Next(harness.OpAcquire, harness.Answer(r.err))
		_, err := a.try(key, c.hold()...)
		c.Is(err, locker.ErrUnavailable, "TryLock that is refused (%s)", r.name)
		c.Is(err, driver.ErrRefused, "TryLock that is refused (%s), for whoever looks closer,", r.name)
		c.Is(err, r.err, "TryLock that is refused (%s): the store's own words", r.name)
		c.IsNot(err, locker.ErrHeld, "TryLock that is refused (%s)", r.name)
		calls := a.tap.Count()
		c.Sleep(2 * c.Unit()) // what the core does in the background would come now
		c.Must(a.tap.Count() == calls, "after a refusal there is nothing to take back or to repeat: the backend is asked for nothing more", "%d calls", a.tap.Count()-calls)
		b.mustTry(key, c.hold()...).mustUnlock()
	}
}

// refusedWaitedFor: a Lock waits through refusals, and its lease is as good as any.
func refusedWaitedFor(c *trial) {
	a, b := c.client(), c.client()
	for _, r := range refusals {
		key := c.Key(r.name)
		for range 3 {
			a.tap.Next(harness.OpAcquire, harness.Answer(r.err))
			a.tap.Next(harness.OpWait, harness.Answer(r.err))
		}
		p := a.goLock(key, append(c.hold(), c.Polling())...)
		got := p.granted(6*c.HandOver()+c.Limit(), "a few refusals")
		got.mustLive(b)
		if c.leaf.kind == Lease {
			began := time.Now()
			c.OK(got.extend(2*far), "Extend, after refusals of the Lock,")
			least := began.Add(2 * far * 9 / 10)
			c.Must(got.deadline().After(least), "a lease that was granted after refusals can be extended to its full length", "its deadline is %s from now", time.Until(got.deadline()))

			a.tap.Next(harness.OpExtend, harness.Answer(r.err))
			was := got.deadline()
			c.Is(got.extend(far/2), locker.ErrUnavailable, "Extend that is refused (%s)", r.name)
			c.Must(got.deadline().Equal(was), "an Extend that is refused leaves the deadline where it was", "it is %s later", got.deadline().Sub(was))
			c.OK(got.extend(2*far), "Extend after one that was refused")
			c.Must(got.deadline().After(least), "an Extend after one that was refused is worth its full length", "its deadline is %s from now", time.Until(got.deadline()))
		}
		got.mustUnlock()
		b.mustTry(key, c.hold()...).mustUnlock()
	}
}

// refusedRelease: a release that is refused is repeated until it is done.
func refusedUnlock(c *trial) {
	a, b := c.client(), c.client()
	for _, r := range refusals {
		h := a.mustTry(c.Key(r.name), c.hold()...)
		for range 3 {
			a.tap.Next(harness.OpRelease, harness.Answer(r.err))
		}
		err := h.unlock()
		c.Is(err, locker.ErrUnavailable, "Unlock that is refused (%s)", r.name)
		c.Is(err, r.err, "Unlock that is refused (%s): the store's own words", r.name)
		p := b.goLock(h.Key(), append(c.hold(), c.Polling())...)
		p.granted(2*c.Limit(), "an Unlock that was refused three times, and that nobody called again").mustUnlock()
	}
}

// heldThoughRefusing: contention is contention, whatever else the store refuses.
func refusalOfHeld(c *trial) {
	a, b := c.client(), c.client()
	h := a.mustTry(c.Key("k"), c.hold()...)
	b.tap.Next(harness.OpAcquire, harness.Answer(driver.ErrRefused))
	_, err := b.try(h.Key(), c.hold()...)
	c.IsNot(err, locker.ErrHeld, "TryLock that is refused, of a key that is held,")
	var e *locker.Error
	c.Must(errors.As(err, &e) && e.Code == locker.CodeUnavailable, "it is a *locker.Error with the code Unavailable", "%v", err)
	b.mustHeld(h.Key(), c.hold()...)
	h.mustLive(b)
	h.mustUnlock()
}

// longestOrphan: an Extend whose reply was lost may have made the hold long. The release goes on
// for as long as the store may hold it, not for as long as its holder believed.
func longestOrphan(c *trial) {
	a, b := c.client(), c.client()
	unit := c.Unit()
	outage := 6*time.Second + 2*unit // longer than the hold was considered held, and than one release may take (REL-004)
	h := a.mustTry(c.Key("k"), locker.WithTTL(unit))
	a.tap.Next(harness.OpExtend, harness.Lose)
	c.Is(h.extend(6*far), locker.ErrUnavailable, "Extend with a lost reply")
	a.tap.Down()
	c.Is(h.unlock(), locker.ErrUnavailable, "Unlock during an outage")
	c.Sleep(outage)
	a.tap.Restore()
	c.Hist.Add("   (the outage is over)")
	p := b.goLock(h.Key(), locker.WithTTL(far), c.Polling())
	p.granted(c.Limit(), "the outage: a key must not stay taken for the hour that a lost Extend asked for,").mustUnlock()
}

// superseded: what becomes of a hold that the store has forgotten, without a word, when the same
// Locker is granted the key again.
func superseded(c *trial) {
	if c.Local() {
		c.Skip("the backend keeps the holds of this process: it cannot forget one without a word")
	}
	a, b := c.client(), c.client()
	for _, waits := range []bool{false, true} {
		h := a.mustTry(c.Key(fmt.Sprint(waits)), c.hold()...)
		a.tap.Mute()
		var p *pending
		if waits {
			p = a.goLock(h.Key(), append(c.hold(), c.Polling())...)
			c.Settle()
		}
		c.OK(a.tap.Vanish(c.CtxFor(c.Limit()), h.Key()), "the store's forgetting of a hold")
		c.Hist.Add("   (the store forgets %s without a word)", c.Short(h.Key()))
		var next *hold
		if waits {
			next = p.granted(c.HandOver(), "the store has forgotten the hold")
		} else {
			next = a.mustTry(h.Key(), c.hold()...)
		}
		c.Must(harness.IsClosed(h.Done()), "Done of a hold closes when its own Locker is granted the key again", "it is open: two holds of one key")
		c.Is(h.Err(), locker.ErrLost, "the Err of a hold whose Locker was granted the key again")
		c.Is(h.unlock(), locker.ErrLost, "Unlock of a hold that was superseded")
		next.mustLive(b, a)
		next.mustUnlock()
	}
}

// causeOfOthers: a ctx ends with the cause that its owner gave it, such as the loss of another hold
// (Lease.Context). That says nothing of this one.
func causeOfOthers(c *trial) {
	x, y := c.raw(), c.raw()
	for _, cause := range []error{driver.ErrLost, driver.ErrHeld, driver.ErrClosed} {
		g := x.take(c.Key(cause.Error()), c.ttl())
		over := func() context.Context {
			ctx, cancel := context.WithCancelCause(c.Ctx)
			cancel(fmt.Errorf("another hold: %w", cause))
			return ctx
		}
		told := func(err error, what string) {
			c.Must(!errors.Is(err, cause) || errors.Is(err, context.Canceled), what+" with a ctx that ended with what became of another hold says that its ctx ended, or nothing of that", "%v", err)
		}
		_, err := y.Acquire(over(), driver.Request{Key: c.Key("free, " + cause.Error()), Owner: c.Owner(), TTL: c.ttl(), Hold: newRecorder()})
		told(err, "the driver's Acquire of a free key")
		if c.leaf.kind == Lease {
			_, err = x.Extend(over(), g.holder(), far)
			told(err, "the driver's Extend")
		}
		y.refused(g.req.Key, c.Owner(), far)
		told(x.Release(over(), g.holder()), "the driver's Release")
		_ = g.release()
		y.takeSoon(g.req.Key, far).mustRelease()
	}
}

// refusedByStore: what the store itself refuses is told as a refusal.
func refusedByStore(c *trial) {
	a, x := c.near(), c.nearRaw()
	h := a.mustTry(c.Key("held"), c.hold()...)
	accept := c.refuses()
	for i := range 3 {
		key := c.Key(fmt.Sprint("free ", i))
		_, err := x.acquire(key, c.Owner(), c.ttl())
		c.Claim("ERR-002").Is(err, driver.ErrUnavailable, "the driver's Acquire of a free key, while the store grants nothing,")
		c.Is(err, driver.ErrRefused, "the driver's Acquire that the store refuses, after which nothing is in doubt,")
		_, err = a.try(key, c.hold()...)
		c.Is(err, driver.ErrRefused, "TryLock that the store refuses, for whoever looks closer,")
	}
	if c.leaf.kind == Lease {
		was := h.deadline()
		if err := h.extend(c.Unit()); err != nil { // it may be able to do that
			c.Is(err, driver.ErrRefused, "Extend that the store refuses, for whoever looks closer,")
			c.Must(h.deadline().Equal(was), "an Extend that the store refuses changes no deadline", "it is %s earlier", was.Sub(h.deadline()))
			h.mustLive()
		}
	}
	accept()
}
