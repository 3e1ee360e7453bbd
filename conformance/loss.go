package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var lossCases = []Case{
	{ID: "LOSS-001", fn: doneInTime, Clause: "Done() closes no later than the local deadline, even when the backend is silent or the process slept"},
	{ID: "LOSS-002", Kinds: both, Clause: "the cause tells expired, lost (taken or deleted), unreachable, released, closed", Parts: []Part{
		{Name: "expired", Kinds: []Kind{Lease}, fn: causeExpired},
		{Name: "lost", Needs: []Need{needsDelete}, fn: causeLost},
		{Name: "unreachable", fn: causeUnreachable},
		{Name: "released", fn: causeReleased},
		{Name: "closed", fn: causeClosed},
	}},
	{ID: "LOSS-003", Kinds: both, Needs: []Need{needCapability(driver.PromptLoss), needsDelete}, fn: lossPrompt, Parts: passed(passedLoss), Clause: "loss that the backend can see (deleted, taken over) is signalled promptly where the capability is declared"},
	{ID: "LOSS-004", Kinds: both, fn: contextEnds, Clause: "Lease.Context(parent) and Do's ctx end with that cause"},
}

func doneInTime(c *trial) {
	a, b := c.client(), c.client()

	inTime := func(h *hold, what string) {
		end := c.moment(h.Done())
		d := h.deadline()
		c.await(end.seen, c.limit(), "Done closes at the deadline, %s", what)
		c.must(!end.at.Before(d), "Done is open until the deadline, "+what, "it closed %s before", d.Sub(end.at))
		late := end.at.Sub(d)
		c.must(late <= c.prompt(), fmt.Sprintf("Done closes no more than %s after the deadline, %s", c.prompt(), what), "%s after", late)
		c.is(h.Err(), locker.ErrLost, "the Err of a lease whose deadline is over")
	}
	inTime(a.mustTry(c.key("plain"), locker.WithTTL(c.unit())), "with a backend that answers")
	h := a.mustTry(c.key("extended"), locker.WithTTL(c.unit()))
	c.ok(h.extend(2*c.unit()), "Extend")
	inTime(h, "after an Extend")
	h = a.mustTry(c.key("shortened"), locker.WithTTL(far))
	c.ok(h.extend(c.unit()), "Extend to less")
	inTime(h, "after an Extend to less")

	// Silent: nothing comes from the backend any more, neither answers nor losses. A backend that
	// times holds by the very clock of this process has no silence to fear, so
	// there a drift allowance is asked for, which is the core's own to keep.
	h = b.mustTry(c.key("silent"), locker.WithTTL(c.unit()), locker.WithDriftFactor(0.1))
	b.tap.all(hang)
	b.tap.mute()
	inTime(h, "with a backend that is silent")
	b.tap.all(nil)

	// Slept: whoever looks at the hold after the deadline learns of it, whether or not
	// a timer has run. (In real time the timer has run by then, and in virtual time both
	// come at the same instant.)
	h = b.mustTry(c.key("slept"), locker.WithTTL(c.unit()), locker.WithDriftFactor(0.1))
	for d := h.deadline(); ; {
		err, now := h.Err(), time.Now()
		if err != nil {
			c.must(!now.Before(d), "Err is nil before the deadline", "%v, %s before", err, d.Sub(now))
			break
		}
		c.must(!now.After(d.Add(c.prompt())), "Err says at once that the deadline is over", "it is nil %s after", now.Sub(d))
		c.sleep(max(time.Until(d), time.Microsecond))
	}
	c.must(isClosed(h.Done()), "Done is closed once Err has said so", "it is open")
	c.is(h.extend(far), locker.ErrLost, "Extend after the deadline")
}

// ended makes sure that h has ended for reason, in all the ways in which that is said.
func (h *hold) ended(reason locker.Reason) {
	c := h.cl.c
	c.must(isClosed(h.Done()), "Done is closed", "it is open")
	err := h.Err()
	var e *locker.Error
	c.must(errors.As(err, &e), "Err is a *locker.Error", "%T: %v", err, err)
	c.must(e.Reason == reason, "the Reason is "+reason.String(), "%s (%v)", e.Reason, err)
	c.must(e.Key == h.Key() && e.Backend == c.caps.Name, "Err names the key and the backend", "%q and %q", e.Key, e.Backend)
	want := map[locker.Reason]error{
		locker.ReasonExpired: locker.ErrLost, locker.ReasonLost: locker.ErrLost, locker.ReasonUnreachable: locker.ErrLost,
		locker.ReasonReleased: locker.ErrReleased, locker.ReasonClosed: locker.ErrClosed,
	}[reason]
	for _, s := range []error{locker.ErrLost, locker.ErrReleased, locker.ErrClosed, locker.ErrHeld} {
		c.must(errors.Is(err, s) == (s == want), fmt.Sprintf("after %s Err matches “%v” and no other", reason, want), "%v matches “%v”: %v", err, s, errors.Is(err, s))
	}
	ctx, cancel := h.Context(context.Background())
	defer cancel()
	c.must(ctx.Err() != nil, "a Context that is derived after the end has ended", "it has not")
	var cause *locker.Error
	c.must(errors.As(context.Cause(ctx), &cause) && cause.Reason == reason, "the cause of a Context tells "+reason.String(), "%v", context.Cause(ctx))
}

func causeExpired(c *trial) {
	a := c.client()
	h := a.mustTry(c.key("k"), locker.WithTTL(c.unit()))
	c.await(h.Done(), c.limit(), "Done closes at the end of the ttl")
	h.ended(locker.ReasonExpired)
	c.is(h.unlock(), locker.ErrLost, "Unlock after the ttl")
	h.ended(locker.ReasonExpired) // nothing changes the reason afterwards
	c.ok(a.l.Close(c.ctxFor(c.limit())), "Close")
	h.ended(locker.ReasonExpired)
}

func causeLost(c *trial) {
	a, b := c.client(), c.client()
	prompt := c.caps.Has.Has(driver.PromptLoss)
	lose := func(name string) *hold {
		h := a.mustTry(c.key(name), c.hold()...)
		c.target.Delete(c.t, h.Key())
		c.hist.add("   (an administrator deletes %s)", c.short(h.Key()))
		return h
	}
	h := lose("unlocked")
	if prompt {
		c.await(h.Done(), c.prompt(), "Done closes after a deletion, as PromptLoss is declared,")
		h.ended(locker.ReasonLost)
	}
	err := h.unlock()
	c.is(err, locker.ErrLost, "Unlock of a hold that was deleted")
	c.isNot(err, locker.ErrUnavailable, "Unlock of a hold that was deleted")
	b.mustTry(h.Key(), c.hold()...)

	if c.leaf.kind == Lease {
		h = lose("extended")
		c.is(h.extend(far), locker.ErrLost, "Extend of a hold that was deleted")
		c.must(!errors.Is(h.Err(), driver.ErrExpired), "a hold that was deleted has not expired", "%v", h.Err())
		h.ended(locker.ReasonLost)
	}

	h = lose("taken")
	next := b.mustTry(h.Key(), c.hold()...)
	c.is(h.unlock(), locker.ErrLost, "Unlock of a hold that was taken over")
	c.settle()
	next.mustLive(a)
}

func causeUnreachable(c *trial) {
	a, b := c.client(), c.client()
	h := a.mustTry(c.key("k"), c.hold()...)
	// When a backend gives up on a silent store is its own affair (FLT-003). This is
	// what becomes of it.
	a.tap.lost(fmt.Errorf("no word from the store: %w", driver.ErrUnavailable))
	c.await(h.Done(), c.prompt(), "Done closes when the backend has given up on the store")
	h.ended(locker.ReasonUnreachable)
	c.is(h.unlock(), locker.ErrLost, "Unlock after that")
	h.ended(locker.ReasonUnreachable)
	// The store may still hold it for us: that is given back.
	b.goLock(h.Key(), append(c.hold(), c.polling())...).
		granted(c.limit(), "a hold that was given up on, and unlocked")
}

func causeReleased(c *trial) {
	a, b := c.client(), c.client()
	h := a.mustTry(c.key("k"), c.hold()...)
	done := h.Done()
	h.mustUnlock()
	c.must(isClosed(done), "Done is closed when Unlock has returned", "it is open")
	h.ended(locker.ReasonReleased)
	b.mustTry(h.Key(), c.hold()...)
	h.ended(locker.ReasonReleased)
	c.ok(a.l.Close(c.ctxFor(c.limit())), "Close")
	h.ended(locker.ReasonReleased)
	if c.leaf.kind == Lease {
		c.is(h.extend(far), locker.ErrReleased, "Extend after Unlock")
	}
}

func causeClosed(c *trial) {
	a := c.client()
	h := a.mustTry(c.key("k"), c.hold()...)
	done := h.Done()
	c.ok(a.l.Close(c.ctxFor(c.limit())), "Close")
	c.must(isClosed(done), "Done is closed when Close has returned", "it is open")
	h.ended(locker.ReasonClosed)
	c.is(h.unlock(), locker.ErrClosed, "Unlock after Close")
	if c.leaf.kind == Lease {
		c.is(h.extend(far), locker.ErrClosed, "Extend after Close")
	}
	h.ended(locker.ReasonClosed)
}

func lossPrompt(c *trial) {
	a, b := c.client(), c.client()
	for i := range 5 {
		h := a.mustTry(c.key(fmt.Sprint("deleted ", i)), c.hold()...)
		c.sleep(c.granularity()) // not only of a hold that is new
		end := c.moment(h.Done())
		c.settle()
		c.must(!isClosed(end.seen), "the hold lasts until it is deleted", "%v", h.Err())
		deleted := time.Now()
		c.target.Delete(c.t, h.Key())
		c.hist.add("   (an administrator deletes %s)", c.short(h.Key()))
		c.await(end.seen, c.limit(), "Done closes after a deletion")
		late := end.at.Sub(deleted)
		c.must(late <= c.prompt(), fmt.Sprintf("Done closes no more than %s after a deletion", c.prompt()), "%s after", late)
		h.ended(locker.ReasonLost)

		h = a.mustTry(c.key(fmt.Sprint("taken ", i)), c.hold()...)
		end = c.moment(h.Done())
		deleted = time.Now()
		c.target.Delete(c.t, h.Key())
		c.hist.add("   (an administrator deletes %s)", c.short(h.Key()))
		next := b.mustTry(h.Key(), c.hold()...)
		c.await(end.seen, c.limit(), "Done closes after a take-over")
		late = end.at.Sub(deleted)
		c.must(late <= c.prompt(), fmt.Sprintf("Done closes no more than %s after a take-over", c.prompt()), "%s after", late)
		h.ended(locker.ReasonLost)
		c.is(h.unlock(), locker.ErrLost, "Unlock after a take-over")
		next.mustLive(a)
		next.mustUnlock()
	}

	// Of many, each one hears of its own loss and no other.
	const n = 20
	var all []*hold
	for i := range n {
		all = append(all, a.mustTry(c.key(fmt.Sprint("one of many ", i)), c.hold()...))
	}
	for i := 0; i < n; i += 2 {
		c.target.Delete(c.t, all[i].Key())
	}
	for i := 0; i < n; i += 2 {
		c.await(all[i].Done(), c.prompt(), "Done closes after a deletion")
		all[i].ended(locker.ReasonLost)
	}
	for i := 1; i < n; i += 2 {
		all[i].mustLive(b)
	}
}

func contextEnds(c *trial) {
	a := c.client()
	type key struct{}
	parent := context.WithValue(c.ctx, key{}, "value")

	// ends makes sure that ctx has ended with the cause of h's end.
	ends := func(ctx context.Context, h *hold, reason locker.Reason) {
		c.await(ctx.Done(), c.prompt(), "the ctx ends with the hold")
		c.must(errors.Is(ctx.Err(), context.Canceled), "the Err of the ctx is Canceled", "%v", ctx.Err())
		var e *locker.Error
		c.must(errors.As(context.Cause(ctx), &e) && e.Reason == reason, "the cause of the ctx tells "+reason.String(), "%v", context.Cause(ctx))
		h.ended(reason)
	}
	derive := func(h *hold) context.Context {
		ctx, cancel := h.Context(parent)
		c.onClose(func(context.Context) { cancel() })
		c.ok(ctx.Err(), "a Context of a hold that lasts")
		c.must(ctx.Value(key{}) == "value", "a Context passes on the values of its parent", "%v", ctx.Value(key{}))
		found, ok := locker.FromContext(ctx)
		c.must(ok && found == h.Lease, "FromContext finds the Lease", "%v, %v", found, ok)
		return ctx
	}

	h := a.mustTry(c.key("released"), c.hold()...)
	ctx, second := derive(h), derive(h)
	h.mustUnlock()
	ends(ctx, h, locker.ReasonReleased)
	ends(second, h, locker.ReasonReleased)

	if c.leaf.kind == Lease {
		h = a.mustTry(c.key("expired"), locker.WithTTL(c.unit()))
		ctx = derive(h)
		c.sleep(c.unit())
		ends(ctx, h, locker.ReasonExpired)
	}
	h = a.mustTry(c.key("lost"), c.hold()...)
	ctx = derive(h)
	a.tap.lost(driver.ErrLost)
	ends(ctx, h, locker.ReasonLost)
	_ = h.unlock()

	// Its own end, and its parent's, are no end of the hold.
	h = a.mustTry(c.key("parent"), c.hold()...)
	why := errors.New("the parent's own reason")
	up, cancelUp := context.WithCancelCause(parent)
	ctx, cancel := h.Context(up)
	cancelUp(why)
	c.await(ctx.Done(), c.prompt(), "a Context ends with its parent")
	c.must(context.Cause(ctx) == why, "a Context that ends with its parent has its cause", "%v", context.Cause(ctx))
	cancel()
	ctx, cancel = h.Context(parent)
	cancel()
	c.await(ctx.Done(), c.prompt(), "a Context ends with its cancel")
	h.mustLive(a)
	h.mustUnlock()

	// Do.
	var inside context.Context
	err := a.l.Do(parent, c.key("do"), func(ctx context.Context) error {
		inside = ctx
		s, ok := locker.FromContext(ctx)
		c.must(ok && s.Token() > 0 && s.Err() == nil, "FromContext finds the live Lease in Do", "%v, %v", s, ok)
		a.mustHeld(s.Key(), c.hold()...)
		return nil
	}, c.hold()...)
	c.ok(err, "Do")
	c.must(inside.Err() != nil, "the ctx of Do has ended after it", "it has not")
	a.mustTry(c.key("do"), c.hold()...).mustUnlock()

	err = a.l.Do(parent, c.key("do"), func(ctx context.Context) error {
		a.tap.lost(driver.ErrLost)
		c.await(ctx.Done(), c.prompt(), "Do's ctx ends with the hold")
		var e *locker.Error
		c.must(errors.As(context.Cause(ctx), &e) && e.Reason == locker.ReasonLost, "the cause of Do's ctx tells ReasonLost", "%v", context.Cause(ctx))
		return why
	}, c.hold()...)
	c.is(err, locker.ErrLost, "Do whose hold was lost")
	c.must(errors.Is(err, why), "Do also gives the function's own error", "%v", err)

	if c.leaf.kind == Lease {
		err = a.l.Do(parent, c.key("do, expired"), func(ctx context.Context) error {
			c.await(ctx.Done(), c.limit(), "Do's ctx ends with the lease")
			var e *locker.Error
			c.must(errors.As(context.Cause(ctx), &e) && e.Reason == locker.ReasonExpired, "the cause of Do's ctx tells ReasonExpired", "%v", context.Cause(ctx))
			return nil
		}, locker.WithTTL(c.unit()))
		c.is(err, locker.ErrLost, "Do whose lease ran out")
	}
}
