package conformance

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
)

var keepCases = []Case{
	{ID: "KEEP-001", fn: keptGoesOn, Clause: "a lease with WithKeepAlive goes on until it is unlocked, through an outage that is shorter than what remains"},
	{ID: "KEEP-002", fn: keptIsCapped, Clause: "at the cap of a kept lease its ctx ends first, with a reason of its own; the key is free only when its time is up, or by Unlock"},
	{ID: "KEEP-003", fn: keptNeedsProgress, Clause: "a kept lease without progress is not extended: its ctx ends, and only then its time"},
	{ID: "KEEP-004", fn: leftRunsOut, Clause: "after Leave(ctx, d) the lease is over here, and the key is held for d: neither Unlock nor Close frees it"},
}

// reason makes sure that err says why a hold ended.
func (c *trial) reason(err error, want locker.Reason, what string) {
	c.Must(endReason(err) == want, what+" gives the reason "+want.String(), "%v", err)
}

func endReason(err error) locker.Reason {
	for err != nil {
		if e, ok := err.(*locker.Error); ok && e.Reason != 0 {
			return e.Reason
		}
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return 0
		}
		err = u.Unwrap()
	}
	return 0
}

func keptGoesOn(c *trial) {
	a, b := c.client(), c.client()
	ttl := 2 * c.Unit()
	kept := a.mustTry(c.Key("kept"), locker.WithTTL(ttl), locker.WithKeepAlive(0))
	plain := a.mustTry(c.Key("plain"), locker.WithTTL(ttl))
	for range 6 {
		c.Sleep(c.Unit())
		kept.mustLive(b)
	}
	c.Is(plain.Err(), locker.ErrLost, "the Err of a lease beside it that nobody keeps")
	// An Extend by hand counts, and is followed by more.
	c.OK(kept.extend(ttl), "Extend of a kept lease")
	c.Sleep(2 * ttl)
	kept.mustLive(b)
	kept.mustUnlock()
	h := b.mustTry(kept.Key(), locker.WithTTL(far))
	c.Sleep(ttl)
	h.mustLive(a)
	c.reason(kept.Err(), locker.ReasonReleased, "the Err of a kept lease after Unlock")
}

func keptIsCapped(c *trial) {
	a, b := c.client(), c.client()
	ttl, limit := 3*c.Unit(), 5*c.Unit()
	for _, unlock := range []bool{false, true} {
		name := "runs out"
		if unlock {
			name = "unlocked"
		}
		h := a.mustTry(c.Key(name), locker.WithTTL(ttl), locker.WithKeepAlive(limit))
		ctx, cancel := h.Context(c.Ctx)
		c.OnClose(func(context.Context) { cancel() })
		ended := c.Moment(ctx.Done())
		c.Await(ended.Seen, limit+c.Limit(), "the ctx of a kept lease ends at its cap")
		if took := ended.At.Sub(h.before); took < limit {
			c.Fatal("a kept lease lasts until its cap", "its ctx ended after %s of %s", took, limit)
		}
		c.Must(ended.At.Sub(h.at) <= limit+c.Prompt(), "the ctx of a kept lease ends at its cap", "it ended %s later", ended.At.Sub(h.at)-limit)
		c.reason(context.Cause(ctx), locker.ReasonCapped, "the cause of the ctx of a kept lease at its cap")
		c.Is(context.Cause(ctx), locker.ErrLost, "the cause of the ctx of a kept lease at its cap")
		if end := h.deadline(); time.Until(end) > c.Granularity() {
			b.mustHeld(h.Key(), locker.WithTTL(far)) // who has just been told is not overtaken
		} else {
			c.Fatal("at the cap time remains for the holder to stop", "its deadline is in %s", time.Until(end))
		}
		if !unlock {
			c.Sleep(time.Until(ended.At.Add(ttl).Add(c.Prompt())))
			b.mustTry(h.Key(), locker.WithTTL(far)).mustUnlock()
			continue
		}
		began := time.Now()
		p := b.goLock(h.Key(), locker.WithTTL(far), c.Polling())
		c.reason(h.unlock(), locker.ReasonCapped, "Unlock after the cap")
		p.granted(c.HandOver(), "the Unlock of a kept lease after its cap").mustUnlock()
		c.Must(time.Since(began) < c.Limit(), "Unlock frees what remains", "it took %s", time.Since(began))
	}
}

func keptNeedsProgress(c *trial) {
	a, b := c.client(), c.client()
	ttl := 4 * c.Unit()
	var moves atomic.Bool
	moves.Store(true)
	h := a.mustTry(c.Key("k"), locker.WithTTL(ttl), locker.WithKeepAlive(0), locker.WithProgress(moves.Load))
	c.Sleep(2 * ttl)
	h.mustLive(b)
	moves.Store(false)
	stopped := time.Now()
	ended := c.Moment(h.Done())
	c.Await(ended.Seen, ttl+c.Limit(), "a kept lease without progress ends")
	c.Must(ended.At.Sub(stopped) <= ttl, "a kept lease without progress ends before its ttl is over", "it ended after %s of %s", ended.At.Sub(stopped), ttl)
	c.reason(h.Err(), locker.ReasonStalled, "the Err of a kept lease without progress")
	if time.Until(h.deadline()) > c.Granularity() {
		b.mustHeld(h.Key(), locker.WithTTL(far))
	} else {
		c.Fatal("when its ctx ends, time remains for the holder to stop", "its deadline is in %s", time.Until(h.deadline()))
	}
	c.Sleep(time.Until(stopped.Add(ttl + c.Prompt())))
	b.mustTry(h.Key(), locker.WithTTL(far)).mustUnlock()
}

func leftRunsOut(c *trial) {
	a, b := c.client(), c.client()
	d := 4 * c.Unit()
	h := a.mustTry(c.Key("k"), locker.WithTTL(far), locker.WithKeepAlive(0))
	short := a.mustTry(c.Key("short"), locker.WithTTL(c.Unit())) // its end becomes a later one
	w := b.goLock(h.Key(), locker.WithTTL(far), c.Polling())
	c.Settle()
	before := time.Now()
	c.OK(h.Leave(c.CtxFor(c.Limit()), d), "Leave")
	after := time.Now()
	c.OK(short.Leave(c.CtxFor(c.Limit()), d), "Leave")
	c.Must(harness.IsClosed(h.Done()), "Done is closed after Leave", "it is open")
	c.reason(h.Err(), locker.ReasonLeft, "Err after Leave")
	c.Is(h.unlock(), locker.ErrReleased, "Unlock after Leave")
	c.Is(h.extend(far), locker.ErrReleased, "Extend after Leave")
	c.OK(a.l.Close(c.CtxFor(c.Limit())), "Close")
	b.mustHeld(short.Key(), locker.WithTTL(far))
	c.Sleep(time.Until(before.Add(d - c.Granularity())))
	if now := time.Now(); now.Before(before.Add(d)) {
		c.Must(!harness.IsClosed(w.done), "nobody gets the key before d is over", "it was granted %s before: %v", before.Add(d).Sub(now), w.outcome())
	}
	got := w.granted(c.Limit(), "the end of what was left")
	c.Must(!w.at.Before(before.Add(d)), "nobody gets the key before d is over", "it was granted %s before", before.Add(d).Sub(w.at))
	c.Must(!w.at.After(after.Add(d).Add(c.HandOver())), "the key is free when d is over", "it was granted %s later", w.at.Sub(after.Add(d)))
	got.mustUnlock()
	// A session has no end to set.
	s := b.mustTry(c.Key("session"))
	c.Is(s.Leave(c.CtxFor(c.Limit()), d), locker.ErrUnsupported, "Leave of a session")
	s.mustUnlock()
}
