package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var lossCases = []Case{
	{ID: "LOSS-001", fn: doneInTime, Parts: []Part{{Name: "silence", fn: silentStore}}, Clause: "Done() closes no later than the local deadline, even when the backend is silent or the process slept"},
	{ID: "LOSS-002", Kinds: both, Clause: "the cause tells expired, lost (taken or deleted), unreachable, released, closed", Parts: []Part{
		{Name: "expired", Kinds: []Kind{Lease}, fn: causeExpired},
		{Name: "lost", Needs: []Need{needsDelete}, fn: causeLost},
		{Name: "lost-extended", Kinds: []Kind{Lease}, Needs: []Need{needsDelete, needCapability(driver.PromptLoss)}, fn: causeLostExtended},
		{Name: "unreachable", fn: causeUnreachable},
		{Name: "refused", Kinds: []Kind{Session}, Needs: []Need{needsRefuse}, fn: causeRefused},
		{Name: "released", fn: causeReleased},
		{Name: "closed", fn: causeClosed},
	}},
	{ID: "LOSS-003", Kinds: both, Needs: []Need{needCapability(driver.PromptLoss), needsDelete}, fn: lossPrompt, Parts: []Part{
		{Name: "extended", Kinds: []Kind{Lease}, fn: lostAfterExtend},
		{Name: "again", fn: lostAgain},
		{Name: "together", fn: lostTogether},
		{Name: "late", Kinds: []Kind{Lease}, fn: lostLate},
		{Name: "overwritten", Needs: []Need{needsOverwrite}, fn: lostToForeign},
		{Name: "reconnected", Needs: []Need{needsDisconnect, needsRemove}, fn: lostLater},
		passed(passedLoss)[0],
	}, Clause: "loss that the backend can see (deleted, overwritten, taken over) is signalled promptly where the capability is declared"},
	{ID: "LOSS-004", Kinds: both, Clause: "Lease.Context(parent) and Do's ctx end with that cause", Parts: []Part{
		{Name: "context", fn: contextEnds},
		{Name: "parent", fn: contextOfParent},
		{Name: "do", fn: doEnds},
	}},
	{ID: "LOSS-005", Kinds: both, fn: superseded, Clause: "a hold ends with ErrLost when a later one of the same key is granted in the same Locker, whatever the store has told of it"},
}

func doneInTime(c *trial) {
	a, b := c.client(), c.client()

	inTime := func(h *hold, what string) {
		end := c.Moment(h.Done())
		d := h.deadline()
		c.Await(end.Seen, c.Limit(), "Done closes at the deadline, %s", what)
		c.Must(!end.At.Before(d), "Done is open until the deadline, "+what, "it closed %s before", d.Sub(end.At))
		late := end.At.Sub(d)
		c.Must(late <= c.Prompt(), fmt.Sprintf("Done closes no more than %s after the deadline, %s", c.Prompt(), what), "%s after", late)
		c.Is(h.Err(), locker.ErrLost, "the Err of a lease whose deadline is over")
	}
	inTime(a.mustTry(c.Key("plain"), locker.WithTTL(c.Unit())), "with a backend that answers")
	h := a.mustTry(c.Key("extended"), locker.WithTTL(c.Unit()))
	c.OK(h.extend(2*c.Unit()), "Extend")
	inTime(h, "after an Extend")
	h = a.mustTry(c.Key("shortened"), locker.WithTTL(far))
	c.OK(h.extend(c.Unit()), "Extend to less")
	inTime(h, "after an Extend to less")

	// Silent: nothing comes from the backend any more, neither answers nor losses. A backend that
	// times holds by the very clock of this process has no silence to fear, so
	// there a drift allowance is asked for, which is the core's own to keep.
	h = b.mustTry(c.Key("silent"), locker.WithTTL(c.Unit()), locker.WithDriftFactor(0.1))
	b.tap.All(harness.Hang)
	b.tap.Mute()
	inTime(h, "with a backend that is silent")
	b.tap.All(nil)

	// Slept: whoever looks at the hold after the deadline learns of it, whether or not
	// a timer has run. (In real time the timer has run by then, and in virtual time both
	// come at the same instant.)
	h = b.mustTry(c.Key("slept"), locker.WithTTL(c.Unit()), locker.WithDriftFactor(0.1))
	for d := h.deadline(); ; {
		err, now := h.Err(), time.Now()
		if err != nil {
			c.Must(!now.Before(d), "Err is nil before the deadline", "%v, %s before", err, d.Sub(now))
			break
		}
		c.Must(!now.After(d.Add(c.Prompt())), "Err says at once that the deadline is over", "it is nil %s after", now.Sub(d))
		c.Sleep(max(time.Until(d), time.Microsecond))
	}
	c.Must(harness.IsClosed(h.Done()), "Done is closed once Err has said so", "it is open")
	c.Is(h.extend(far), locker.ErrLost, "Extend after the deadline")
}

// ended makes sure that h has ended for reason, in all the ways in which that is said.
func (h *hold) ended(reason locker.Reason) {
	c := h.cl.c
	c.Must(harness.IsClosed(h.Done()), "Done is closed", "it is open")
	err := h.Err()
	var e *locker.Error
	c.Must(errors.As(err, &e), "Err is a *locker.Error", "%T: %v", err, err)
	c.Claim("LOSS-002").Must(e.Reason == reason, "the Reason is "+reason.String(), "%s (%v)", e.Reason, err)
	c.Must(e.Key == h.Key() && e.Backend == c.Caps.Name, "Err names the key and the backend", "%q and %q", e.Key, e.Backend)
	want := map[locker.Reason]error{
		locker.ReasonExpired: locker.ErrLost, locker.ReasonLost: locker.ErrLost, locker.ReasonUnreachable: locker.ErrLost,
		locker.ReasonReleased: locker.ErrReleased, locker.ReasonClosed: locker.ErrClosed,
	}[reason]
	for _, s := range []error{locker.ErrLost, locker.ErrReleased, locker.ErrClosed, locker.ErrHeld} {
		c.Must(errors.Is(err, s) == (s == want), fmt.Sprintf("after %s Err matches “%v” and no other", reason, want), "%v matches “%v”: %v", err, s, errors.Is(err, s))
	}
	ctx, cancel := h.Context(context.Background())
	defer cancel()
	c.Must(ctx.Err() != nil, "a Context that is derived after the end has ended", "it has not")
	var cause *locker.Error
	c.Must(errors.As(context.Cause(ctx), &cause) && cause.Reason == reason, "the cause of a Context tells "+reason.String(), "%v", context.Cause(ctx))
}

func causeExpired(c *trial) {
	a := c.client()
	h := a.mustTry(c.Key("k"), locker.WithTTL(c.Unit()))
	c.Await(h.Done(), c.Limit(), "Done closes at the end of the ttl")
	h.ended(locker.ReasonExpired)
	c.Is(h.unlock(), locker.ErrLost, "Unlock after the ttl")
	h.ended(locker.ReasonExpired) // nothing changes the reason afterwards
	c.OK(a.l.Close(c.CtxFor(c.Limit())), "Close")
	h.ended(locker.ReasonExpired)
}

// causeLostExtended: what is deleted after the first ttl of a lease that was extended has not expired.
func causeLostExtended(c *trial) {
	a := c.client()
	ttl := c.lifetime()
	for _, longer := range []time.Duration{ttl, 2 * ttl} {
		h := a.mustTry(c.Key(longer.String()), locker.WithTTL(ttl))
		taken := time.Now()
		c.Sleep(ttl * 6 / 10)
		over := taken.Add(ttl * 11 / 10)
		if longer > ttl {
			over = time.Now().Add(ttl * 12 / 10)
		}
		c.OK(h.extend(longer), "Extend")
		c.Sleep(time.Until(over)) // the first ttl is over, and the second one not
		h.mustLive()
		c.target.Delete(c.T, h.Key())
		c.Hist.Add("   (an administrator deletes %s)", c.Short(h.Key()))
		c.Claim("LOSS-003").Await(h.Done(), c.Prompt(), "Done closes after a deletion, as PromptLoss is declared,")
		h.ended(locker.ReasonLost)
	}
}

func causeLost(c *trial) {
	a, b := c.client(), c.client()
	prompt := c.Caps.Has.Has(driver.PromptLoss)
	remove := func(h *hold) *hold {
		c.target.Delete(c.T, h.Key())
		c.Hist.Add("   (an administrator deletes %s)", c.Short(h.Key()))
		return h
	}
	lose := func(name string) *hold { return remove(a.mustTry(c.Key(name), c.hold()...)) }
	hears := func(h *hold) {
		c.Claim("LOSS-003").Await(h.Done(), c.Prompt(), "Done closes after a deletion, as PromptLoss is declared,")
		h.ended(locker.ReasonLost)
	}
	if prompt && c.Caps.Has.Has(driver.Breaking) {
		h := a.mustTry(c.Key("not broken"), c.hold()...)
		c.Claim("ADM-005").Is(c.raw().breaking(h.Key(), h.Token()+1), driver.ErrLost, "Break with a token that nobody has")
		hears(remove(h))
	}
	h := lose("unlocked")
	switch {
	case prompt:
		hears(h)
	case c.leaf.kind == Session && c.Caps.SessionValidity > 0:
		renewed := lose("renewed")
		c.Claim("SES-002").Await(renewed.Done(), c.outlast(), "Done closes after a deletion, at the next renewal,")
		renewed.ended(locker.ReasonLost)
	}
	err := h.unlock()
	c.Is(err, locker.ErrLost, "Unlock of a hold that was deleted")
	c.IsNot(err, locker.ErrUnavailable, "Unlock of a hold that was deleted")
	b.mustTry(h.Key(), c.hold()...)

	if c.leaf.kind == Lease {
		h = lose("extended")
		c.Is(h.extend(far), locker.ErrLost, "Extend of a hold that was deleted")
		c.Must(!errors.Is(h.Err(), driver.ErrExpired), "a hold that was deleted has not expired", "%v", h.Err())
		h.ended(locker.ReasonLost)
	}

	h = lose("taken")
	next := b.mustTry(h.Key(), c.hold()...)
	c.Is(h.unlock(), locker.ErrLost, "Unlock of a hold that was taken over")
	c.Settle()
	next.mustLive(a)
}

func causeUnreachable(c *trial) {
	a, b := c.client(), c.client()
	h := a.mustTry(c.Key("k"), c.hold()...)
	// When a backend gives up on a silent store is its own affair (FLT-003). This is
	// what becomes of it.
	a.tap.Lost(fmt.Errorf("no word from the store: %w", driver.ErrUnavailable))
	c.Await(h.Done(), c.Prompt(), "Done closes when the backend has given up on the store")
	h.ended(locker.ReasonUnreachable)
	c.Is(h.unlock(), locker.ErrLost, "Unlock after that")
	h.ended(locker.ReasonUnreachable)
	// The store may still hold it for us: that is given back.
	b.goLock(h.Key(), append(c.hold(), c.Polling())...).
		granted(c.Limit(), "a hold that was given up on, and unlocked")
}

// causeRefused: of a session whose renewals the store refuses its holder hears why, in the store's words.
func causeRefused(c *trial) {
	if c.Caps.SessionValidity == 0 {
		c.Skip("the backend's sessions have no end of their own")
	}
	a, x := c.near(), c.nearRaw()
	h := a.mustTry(c.Key("k"))
	accept := c.refuses()
	_, refused := x.acquire(c.Key("free"), c.Owner(), far)
	c.Claim("ERR-002").Is(refused, driver.ErrUnavailable, "the driver's Acquire of a free key, while the store grants nothing,")
	if !c.wakes(h.Done(), c.Caps.SessionValidity*4/3+c.Prompt()) {
		c.Note("the store renews sessions while it grants nothing")
		accept()
		h.mustUnlock()
		return
	}
	accept()
	h.ended(locker.ReasonUnreachable)
	said := refused.Error()
	for word := range strings.FieldsSeq(said[strings.LastIndex(said, ": ")+1:]) {
		if len(word) > 5 {
			c.Must(strings.Contains(h.Err().Error(), word), "the Err of a session whose renewals were refused has the store's words, as in: "+said, "%v", h.Err())
			break
		}
	}
}

func causeReleased(c *trial) {
	a, b := c.client(), c.client()
	h := a.mustTry(c.Key("k"), c.hold()...)
	done := h.Done()
	h.mustUnlock()
	c.Must(harness.IsClosed(done), "Done is closed when Unlock has returned", "it is open")
	h.ended(locker.ReasonReleased)
	b.mustTry(h.Key(), c.hold()...)
	h.ended(locker.ReasonReleased)
	c.OK(a.l.Close(c.CtxFor(c.Limit())), "Close")
	h.ended(locker.ReasonReleased)
	if c.leaf.kind == Lease {
		c.Is(h.extend(far), locker.ErrReleased, "Extend after Unlock")
	}
}

func causeClosed(c *trial) {
	a := c.client()
	h := a.mustTry(c.Key("k"), c.hold()...)
	done := h.Done()
	c.OK(a.l.Close(c.CtxFor(c.Limit())), "Close")
	c.Must(harness.IsClosed(done), "Done is closed when Close has returned", "it is open")
	h.ended(locker.ReasonClosed)
	c.Is(h.unlock(), locker.ErrClosed, "Unlock after Close")
	if c.leaf.kind == Lease {
		c.Is(h.extend(far), locker.ErrClosed, "Extend after Close")
	}
	h.ended(locker.ReasonClosed)
}

func lossPrompt(c *trial) {
	a, b := c.client(), c.client()
	for i := range 5 {
		h := a.mustTry(c.Key(fmt.Sprint("deleted ", i)), c.hold()...)
		c.Sleep(c.Granularity()) // not only of a hold that is new
		end := c.Moment(h.Done())
		c.Settle()
		c.Must(!harness.IsClosed(end.Seen), "the hold lasts until it is deleted", "%v", h.Err())
		deleted := time.Now()
		c.target.Delete(c.T, h.Key())
		c.Hist.Add("   (an administrator deletes %s)", c.Short(h.Key()))
		c.Await(end.Seen, c.Limit(), "Done closes after a deletion")
		late := end.At.Sub(deleted)
		c.Must(late <= c.Prompt(), fmt.Sprintf("Done closes no more than %s after a deletion", c.Prompt()), "%s after", late)
		h.ended(locker.ReasonLost)

		h = a.mustTry(c.Key(fmt.Sprint("taken ", i)), c.hold()...)
		end = c.Moment(h.Done())
		deleted = time.Now()
		c.target.Delete(c.T, h.Key())
		c.Hist.Add("   (an administrator deletes %s)", c.Short(h.Key()))
		next := b.mustTry(h.Key(), c.hold()...)
		c.Await(end.Seen, c.Limit(), "Done closes after a take-over")
		late = end.At.Sub(deleted)
		c.Must(late <= c.Prompt(), fmt.Sprintf("Done closes no more than %s after a take-over", c.Prompt()), "%s after", late)
		h.ended(locker.ReasonLost)
		c.Is(h.unlock(), locker.ErrLost, "Unlock after a take-over")
		next.mustLive(a)
		next.mustUnlock()
	}

	// Of many, each one hears of its own loss and no other.
	const n = 20
	var all []*hold
	for i := range n {
		all = append(all, a.mustTry(c.Key(fmt.Sprint("one of many ", i)), c.hold()...))
	}
	for i := 0; i < n; i += 2 {
		c.target.Delete(c.T, all[i].Key())
	}
	for i := 0; i < n; i += 2 {
		c.Await(all[i].Done(), c.Prompt(), "Done closes after a deletion")
		all[i].ended(locker.ReasonLost)
	}
	for i := 1; i < n; i += 2 {
		all[i].mustLive(b)
	}
}

func contextEnds(c *trial) {
	a := c.client()
	type key struct{}
	parent := context.WithValue(c.Ctx, key{}, "value")

	// ends makes sure that ctx has ended with the cause of h's end.
	ends := func(ctx context.Context, h *hold, reason locker.Reason) {
		c.Await(ctx.Done(), c.Prompt(), "the ctx ends with the hold")
		c.Must(errors.Is(ctx.Err(), context.Canceled), "the Err of the ctx is Canceled", "%v", ctx.Err())
		var e *locker.Error
		c.Must(errors.As(context.Cause(ctx), &e) && e.Reason == reason, "the cause of the ctx tells "+reason.String(), "%v", context.Cause(ctx))
		h.ended(reason)
	}
	derive := func(h *hold) context.Context {
		ctx, cancel := h.Context(parent)
		c.OnClose(func(context.Context) { cancel() })
		c.OK(ctx.Err(), "a Context of a hold that lasts")
		c.Must(ctx.Value(key{}) == "value", "a Context passes on the values of its parent", "%v", ctx.Value(key{}))
		found, ok := locker.FromContext(ctx)
		c.Must(ok && found == h.Lease, "FromContext finds the Lease", "%v, %v", found, ok)
		return ctx
	}

	h := a.mustTry(c.Key("released"), c.hold()...)
	ctx, second := derive(h), derive(h)
	h.mustUnlock()
	ends(ctx, h, locker.ReasonReleased)
	ends(second, h, locker.ReasonReleased)

	if c.leaf.kind == Lease {
		h = a.mustTry(c.Key("expired"), locker.WithTTL(c.Unit()))
		ctx = derive(h)
		c.Sleep(c.Unit())
		ends(ctx, h, locker.ReasonExpired)
	}
	h = a.mustTry(c.Key("lost"), c.hold()...)
	ctx = derive(h)
	a.tap.Lost(driver.ErrLost)
	ends(ctx, h, locker.ReasonLost)
	_ = h.unlock()

}

// contextOfParent: the end of a Context itself, and of its parent, is no end of the hold.
func contextOfParent(c *trial) {
	a := c.client()
	h := a.mustTry(c.Key("parent"), c.hold()...)
	why := errors.New("the parent's own reason")
	up, cancelUp := context.WithCancelCause(c.Ctx)
	ctx, cancel := h.Context(up)
	cancelUp(why)
	c.Await(ctx.Done(), c.Prompt(), "a Context ends with its parent")
	c.Must(context.Cause(ctx) == why, "a Context that ends with its parent has its cause", "%v", context.Cause(ctx))
	cancel()
	ctx, cancel = h.Context(c.Ctx)
	cancel()
	c.Await(ctx.Done(), c.Prompt(), "a Context ends with its cancel")
	h.mustLive(a)
	h.mustUnlock()
}

func doEnds(c *trial) {
	a := c.client()
	why := errors.New("the function's own reason")
	var inside context.Context
	err := a.l.Do(c.Ctx, c.Key("do"), func(ctx context.Context, _ *locker.Lease) error {
		inside = ctx
		s, ok := locker.FromContext(ctx)
		c.Must(ok && s.Token() > 0 && s.Err() == nil, "FromContext finds the live Lease in Do", "%v, %v", s, ok)
		a.mustHeld(s.Key(), c.hold()...)
		return nil
	}, c.hold()...)
	c.OK(err, "Do")
	c.Must(inside.Err() != nil, "the ctx of Do has ended after it", "it has not")
	a.mustTry(c.Key("do"), c.hold()...).mustUnlock()

	err = a.l.Do(c.Ctx, c.Key("do"), func(ctx context.Context, _ *locker.Lease) error {
		a.tap.Lost(driver.ErrLost)
		c.Await(ctx.Done(), c.Prompt(), "Do's ctx ends with the hold")
		var e *locker.Error
		c.Must(errors.As(context.Cause(ctx), &e) && e.Reason == locker.ReasonLost, "the cause of Do's ctx tells ReasonLost", "%v", context.Cause(ctx))
		return why
	}, c.hold()...)
	c.Is(err, locker.ErrLost, "Do whose hold was lost")
	c.Must(errors.Is(err, why), "Do also gives the function's own error", "%v", err)

	if c.leaf.kind == Lease {
		err = a.l.Do(c.Ctx, c.Key("do, expired"), func(ctx context.Context, _ *locker.Lease) error {
			c.Await(ctx.Done(), c.Limit(), "Do's ctx ends with the lease")
			var e *locker.Error
			c.Must(errors.As(context.Cause(ctx), &e) && e.Reason == locker.ReasonExpired, "the cause of Do's ctx tells ReasonExpired", "%v", context.Cause(ctx))
			return nil
		}, locker.WithTTL(c.Unit()))
		c.Is(err, locker.ErrLost, "Do whose lease ran out")
	}
}

// lostToForeign: an administrator puts something in the place of a hold, and leaves it there.
func lostToForeign(c *trial) {
	a, sleeps := c.near(), c.pulse()
	for i := range 4 { // the target may put one thing after another there
		h := a.mustTry(c.Key(fmt.Sprint(i)), c.hold()...)
		end := c.Moment(h.Done())
		c.Settle()
		c.Must(!harness.IsClosed(end.Seen), "the hold lasts until it is overwritten", "%v", h.Err())
		c.overwrite(h.Key())
		overwritten := time.Now()
		c.Await(end.Seen, c.Limit(), "Done closes after an administrator overwrote the key")
		late := end.At.Sub(overwritten)
		c.Must(late <= c.Prompt()+sleeps.longest(), fmt.Sprintf("Done closes no more than %s after an administrator overwrote the key", c.Prompt()), "%s after", late)
		h.ended(locker.ReasonLost)
		c.inject().Delete(c.T, h.Key())
	}
}

// lostLater: a hold survives that its client's connection is cut, once or twice, and is deleted only then.
func lostLater(c *trial) {
	a, sleeps := c.near(), c.pulse()
	one, two := a.mustTry(c.Key("cut twice"), c.hold()...), a.mustTry(c.Key("cut twice too"), c.hold()...)
	for i := range 2 {
		h := a.mustTry(c.Key(fmt.Sprint("cut once ", i)), c.hold()...)
		c.inject().Disconnect(c.T)
		c.Hist.Add("   (connections are cut)")
		a.goLock(c.Key(fmt.Sprint("after ", i)), append(c.hold(), c.Polling())...).granted(c.recovery(), "the connection was cut").mustUnlock()
		c.Sleep(c.Prompt()) // whatever it wants to know of its holds it has asked
		h.survives("a killed connection", sleeps)
		gone := []*hold{h}
		if i == 1 {
			gone = append(gone, one, two)
		}
		for _, h := range gone {
			c.inject().Delete(c.T, h.Key())
			c.Hist.Add("   (an administrator deletes %s)", c.Short(h.Key()))
			c.Await(h.Done(), c.Prompt()+sleeps.longest(), "Done closes after a deletion, on a new connection,")
			h.ended(locker.ReasonLost)
		}
	}
}
