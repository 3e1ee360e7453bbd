package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var contextCases = []Case{
	{ID: "CTX-001", Kinds: both, CoreLoop: true, fn: cancelledBefore, Clause: "an already-cancelled ctx makes no attempt"},
	{ID: "CTX-002", Kinds: both, CoreLoop: true, fn: holdOutlivesContext, Clause: "the ctx given to Lock bounds the waiting only; the hold lives on after it"},
	{ID: "CTX-003", Kinds: both, CoreLoop: true, Clause: "the error matches both the ctx's error and the last cause (errors.Is)", Parts: []Part{
		{Name: "held", fn: givesUpHeld},
		{Name: "unavailable", fn: givesUpUnavailable},
	}},
	{ID: "CTX-004", Kinds: both, CoreLoop: true, Clause: "an attempt in flight when ctx ends leaves no orphan behind", Parts: []Part{
		{Name: "random", fn: noOrphan},
		{Name: "no-reply", fn: noOrphanWithoutReply},
		{Name: "line", Needs: []Need{needsLine}, fn: overtaken},
		{Name: "severed", Needs: []Need{needsLine}, fn: arrivesLate},
		{Name: "repeated", Needs: []Need{needsLine}, fn: copyArrivesLate},
		{Name: "stall", Needs: []Need{needsPause}, fn: orphansOfStall},
		{Name: "answered", fn: noOrphanAtAnswer},
		passed(passedToNobody)[0],
	}},
}

func cancelledBefore(c *trial) {
	a, b := c.client(), c.client()
	why := errors.New("the caller's own reason")
	ctx, cancel := context.WithCancelCause(c.Ctx)
	cancel(why)
	expired, cancelExpired := context.WithDeadline(c.Ctx, time.Now().Add(-time.Hour))
	defer cancelExpired()

	free, held := c.Key("free"), c.Key("held")
	h := b.mustTry(held, c.hold()...)
	mine := a.mustTry(c.Key("mine"), c.hold()...)
	calls := a.tap.Count()
	for _, key := range []string{free, held} {
		_, err := a.lock(ctx, key, c.hold()...)
		c.Is(err, context.Canceled, "Lock with a cancelled ctx")
		c.Is(err, why, "Lock with a cancelled ctx (its cause)")
		c.IsNot(err, locker.ErrHeld, "Lock with a cancelled ctx, which made no attempt,")
		_, err = a.tryCtx(ctx, key, c.hold()...)
		c.Is(err, context.Canceled, "TryLock with a cancelled ctx")
		_, err = a.lock(expired, key, c.hold()...)
		c.Is(err, context.DeadlineExceeded, "Lock with a ctx whose deadline is over")
		_, err = a.l.LockNS(ctx, key, c.hold()...)
		c.Is(err, context.Canceled, "LockNS with a cancelled ctx")
		_, err = a.l.TryLockNS(ctx, key, c.hold()...)
		c.Is(err, context.Canceled, "TryLockNS with a cancelled ctx")
	}
	if c.leaf.kind == Lease {
		was := mine.deadline()
		err := mine.extendCtx(ctx, time.Millisecond)
		c.Is(err, context.Canceled, "Extend with a cancelled ctx")
		c.Must(mine.deadline().Equal(was), "an Extend that made no attempt leaves the deadline alone", "it moved by %s", mine.deadline().Sub(was))
	}
	err := a.l.Do(ctx, free, func(context.Context, *locker.Lease) error {
		c.Fatal("Do with a cancelled ctx does not run its function", "it ran")
		return nil
	}, c.hold()...)
	c.Is(err, context.Canceled, "Do with a cancelled ctx")
	c.Must(a.tap.Count() == calls, "with a cancelled ctx the backend is not called", "%d calls", a.tap.Count()-calls)
	b.mustTry(free, c.hold()...)
	h.mustLive(a)
	mine.mustLive(b)
}

func holdOutlivesContext(c *trial) {
	a, b := c.client(), c.client()
	type end struct {
		name string
		ctx  func() (context.Context, context.CancelFunc)
	}
	for _, e := range []end{
		{"cancelled", func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) }},
		{"past its deadline", func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), 2*c.HandOver()) // time for a poll, where nothing wakes
		}},
	} {
		for _, waited := range []bool{false, true} {
			key := c.Key(fmt.Sprint(e.name, waited))
			ctx, cancel := e.ctx()
			c.OnClose(func(context.Context) { cancel() })
			var h *hold
			var err error
			if waited {
				first := b.mustTry(key, c.hold()...)
				p := a.goLockCtx(ctx, key, append(c.hold(), c.Polling())...)
				c.Settle()
				first.mustUnlock()
				h = p.granted(c.Limit(), "the release")
				p.stop(nil)
			} else {
				h, err = a.lock(ctx, key, c.hold()...)
				c.OK(err, "Lock of a free key")
			}
			if _, limited := ctx.Deadline(); !limited {
				cancel()
			}
			<-ctx.Done()
			c.Settle()
			h.mustLive(b)
			c.Sleep(c.awhile())
			h.mustLive(b)
			if c.leaf.kind == Lease {
				c.OK(h.extend(far), "Extend of a lease whose Lock's ctx has ended")
			}
			h.mustUnlock()
			b.mustTry(key, c.hold()...).mustUnlock()
		}
	}
}

// awhile is a time that a hold must outlast by itself: for a session more than its validity, so
// that it has been renewed.
func (c *trial) awhile() time.Duration {
	d := c.Unit()
	if c.Virtual {
		d = far / 4
	}
	if c.leaf.kind == Session {
		d = max(d, c.Caps.SessionValidity*3/2)
	}
	return d
}

func givesUpHeld(c *trial) {
	a, b := c.client(), c.client()
	key := c.Key("k")
	h := a.mustTry(key, c.hold()...)
	why := errors.New("the caller's own reason")

	for _, waiter := range []*client{b, a} {
		wait := c.Unit()
		began := time.Now()
		_, err := waiter.lock(c.CtxFor(wait), key, append(c.hold(), harness.Patient())...)
		took := time.Since(began)
		c.Is(err, context.DeadlineExceeded, "a Lock whose ctx ends while it waits")
		c.Is(err, locker.ErrHeld, "a Lock whose ctx ends while it waits for a holder")
		c.IsNot(err, locker.ErrUnavailable, "a Lock whose ctx ends while it waits for a holder")
		var e *locker.Error
		c.Must(errors.As(err, &e) && e.Code == locker.CodeHeld, "it is a *locker.Error with the code Held", "%v", err)
		c.Must(took >= wait && took <= wait+c.Prompt(), fmt.Sprintf("it returns when its ctx ends, %s to %s after the call", wait, wait+c.Prompt()), "after %s", took)

		met := func() int { return waiter.tap.Refused() + waiter.tap.Count(harness.OpWait) }
		before := met()
		p := waiter.goLock(key, append(c.hold(), harness.Patient())...)
		for c.Settle(); met() == before && c.Ctx.Err() == nil; {
			c.Sleep(c.Granularity()) // until it has met the holder: before, nobody has told it that the key is held
		}
		p.stop(why)
		err = p.refused(c.Prompt(), "the end of its ctx")
		c.Is(err, context.Canceled, "a Lock whose ctx is cancelled while it waits")
		c.Is(err, why, "a Lock whose ctx is cancelled with a cause while it waits")
		c.Is(err, locker.ErrHeld, "a Lock whose ctx is cancelled while it waits for a holder")
	}
	h.mustLive(b)

	if w, ok := driver.As[driver.Waiter](b.tap.Inner); ok {
		ctx, cancel := context.WithTimeout(c.Ctx, c.Unit()/4)
		defer cancel()
		_, err := w.Wait(ctx, driver.Request{Key: key, Owner: c.Owner(), TTL: c.ttl(), Hold: newRecorder()})
		c.Is(err, context.DeadlineExceeded, "the driver's Wait whose ctx ends")
		c.Is(err, driver.ErrHeld, "the driver's Wait whose ctx ends")
	}
}

func givesUpUnavailable(c *trial) {
	a, b := c.client(), c.client()
	for _, f := range []struct {
		name string
		f    harness.Fault
	}{{"refuses", harness.Refuse}, {"does not answer", harness.Hang}} {
		key := c.Key(f.name)
		a.tap.All(f.f)
		wait := c.Unit() / 2
		began := time.Now()
		_, err := a.lock(c.CtxFor(wait), key, append(c.hold(), c.Polling())...)
		took := time.Since(began)
		c.Is(err, context.DeadlineExceeded, "a Lock whose ctx ends while the backend %s", f.name)
		c.Is(err, locker.ErrUnavailable, "a Lock whose ctx ends while the backend %s", f.name)
		c.IsNot(err, locker.ErrHeld, "a Lock whose ctx ends while the backend %s", f.name)
		var e *locker.Error
		c.Must(errors.As(err, &e) && e.Code == locker.CodeUnavailable, "it is a *locker.Error with the code Unavailable", "%v", err)
		c.Must(took >= wait && took <= wait+c.Prompt(), fmt.Sprintf("it returns when its ctx ends, %s to %s after the call", wait, wait+c.Prompt()), "after %s", took)
		a.tap.All(nil)
	}

	// The last obstacle counts: held at first, then down, and the other way round.
	key := c.Key("held, then down")
	h := b.mustTry(key, c.hold()...)
	p := a.goLock(key, append(c.hold(), c.Polling())...)
	c.Sleep(c.Unit() / 2)
	a.tap.Down()
	c.Sleep(c.Unit())
	p.stop(nil)
	err := p.refused(c.Prompt(), "the end of its ctx")
	c.Is(err, context.Canceled, "a Lock that is cancelled during an outage")
	c.Is(err, locker.ErrUnavailable, "a Lock that is cancelled during an outage, after it had waited for a holder,")
	p = a.goLock(key, append(c.hold(), c.Polling())...)
	c.Sleep(c.Unit() / 2)
	a.tap.Restore()
	c.Sleep(c.Unit())
	p.stop(nil)
	err = p.refused(c.Prompt(), "the end of its ctx")
	c.Is(err, context.Canceled, "a Lock that is cancelled while it waits")
	c.Is(err, locker.ErrHeld, "a Lock that is cancelled while it waits for a holder, after an outage,")
	h.mustLive(a)
}

// noOrphan cancels at random moments, and afterwards the key must be free.
func noOrphan(c *trial) {
	a, b := c.client(), c.client()
	busy := []*pulse{c.trips(a), c.trips(b)}
	for round := range c.Rounds(12, 4) {
		key := c.Key(fmt.Sprint(round))
		rngs := []*rand.Rand{c.Rand(), c.Rand(), c.Rand(), c.Rand(), c.Rand(), c.Rand()}
		c.Together(len(rngs), func(i int) {
			cl, r := []*client{a, b}[i%2], rngs[i]
			for range c.Rounds(20, 10) {
				ctx, cancel := context.WithCancel(c.Ctx)
				ended := make(chan struct{})
				stop := c.Spawn(func() {
					defer cancel()
					if r.IntN(3) > 0 { // in flight, or already waiting
						c.pause(time.Duration(r.Int64N(int64(c.Granularity()))), ended)
						return
					}
					for range r.IntN(50) {
						_ = time.Now() // a few hundred nanoseconds at most
					}
				})
				h, err := cl.lock(ctx, key, append(c.hold(), c.Polling())...)
				close(ended)
				<-stop
				if err == nil {
					c.OK(h.unlock(), "Unlock of what Lock returned, although its ctx has ended")
				} else if c.Ctx.Err() == nil {
					c.Must(errors.Is(err, context.Canceled), "Lock gives a hold or its ctx's error", "%v", err)
				}
			}
		})
		c.Hist.Add("   (all have ended)")
		end := time.Now()
		// Not by waiting: that might take as long as those who are gone are called, which is for WAIT-007.
		got := b.trySoon(key)
		within := c.Prompt() + c.Unit() + 2*max(busy[0].longest(), busy[1].longest()) // those who are taken back stand in line
		c.Must(got.at.Sub(end) <= within, fmt.Sprintf("the key is free no more than %s after the end of all who wanted the lock", within), "%s after", got.at.Sub(end))
		got.mustLive(a)
		got.mustUnlock()
	}
}

// trySoon tries to take key, which is free soon, until it is.
func (cl *client) trySoon(key string) *hold {
	c := cl.c
	for end := time.Now().Add(c.Limit()); ; c.Sleep(c.Granularity() / 10) {
		h, err := cl.try(key, c.hold()...)
		if err == nil {
			return h
		}
		c.Claim("ERR-002").Is(err, locker.ErrHeld, "%s's TryLock of %s", cl.name, c.Short(key))
		c.Must(time.Now().Before(end), "the key is free soon", "%v", err)
	}
}

// pause waits for d, or until quit.
func (c *trial) pause(d time.Duration, quit <-chan struct{}) {
	if d <= 0 {
		return // see sleep
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-quit:
	case <-c.Ctx.Done():
	}
}

// noOrphanWithoutReply: the store carried the attempt out and the caller gave up before
// the reply came.
func noOrphanWithoutReply(c *trial) {
	a, b := c.client(), c.client()
	for _, try := range []bool{false, true} {
		key := c.Key(fmt.Sprint(try))
		a.tap.Next(harness.OpAcquire, harness.HangAfter)
		ctx := c.CtxFor(c.Unit() / 4)
		var err error
		if try {
			_, err = a.tryCtx(ctx, key, c.hold()...)
		} else {
			_, err = a.lock(ctx, key, append(c.hold(), c.Polling())...)
		}
		c.Is(err, context.DeadlineExceeded, "an attempt whose ctx ends before the reply comes")
		c.Is(err, locker.ErrUnavailable, "an attempt whose ctx ends before the reply comes")
		got := b.goLock(key, append(c.hold(), c.Polling())...).granted(c.Prompt()+c.Unit(), "another client gave up before the reply came")
		c.Settle() // whatever takes the attempt back must not take this one
		got.mustLive(a)
		got.mustUnlock()
	}
	if a.waits() {
		key := c.Key("wait")
		h := b.mustTry(key, c.hold()...)
		a.tap.Next(harness.OpWait, harness.HangAfter)
		p := a.goLock(key, append(c.hold(), c.Polling())...)
		c.Settle()
		h.mustUnlock() // and the key goes to who will never hear of it
		c.Settle()
		p.stop(nil)
		c.Is(p.refused(c.Limit(), "the end of its ctx"), context.Canceled, "a waiter that gives up before the news of its grant comes")
		b.goLock(key, append(c.hold(), c.Polling())...).granted(c.Prompt()+c.Unit(), "the waiter gave up").mustUnlock()
	}

	// What the core relies on: a Release by an owner that does not know its token, sent after
	// its Acquire, takes the hold back; and a call whose ctx has ended says so.
	d := c.driver()
	r := driver.Request{Key: c.Key("driver"), Owner: c.Owner(), TTL: c.ttl(), Hold: newRecorder()}
	_, err := d.Acquire(c.CtxFor(c.Limit()), r)
	c.OK(err, "the driver's Acquire")
	err = d.Release(c.CtxFor(c.Limit()), driver.Holder{Key: r.Key, Owner: r.Owner, Session: r.TTL == 0})
	c.OK(err, "the driver's Release by an owner that does not know its token")
	b.mustTry(r.Key, c.hold()...).mustUnlock()

	ended, cancel := context.WithCancel(c.Ctx)
	cancel()
	r.Owner = c.Owner()
	if _, err = d.Acquire(ended, r); err != nil {
		c.Claim("ERR-002").Must(!errors.Is(err, driver.ErrHeld), "the driver's Acquire of a free key does not say that it is held", "%v", err)
		c.Is(err, context.Canceled, "the driver's Acquire with a ctx that has ended")
	}
	_ = d.Release(c.CtxFor(c.Limit()), driver.Holder{Key: r.Key, Owner: r.Owner, Session: r.TTL == 0})
	b.mustTry(r.Key, c.hold()...).mustUnlock()
}

// noOrphanAtAnswer: the ctx of an attempt ends just when the store has carried it out. The backend must not say
// then that nothing was done (ErrRefused): the hold would stay, for nobody.
func noOrphanAtAnswer(c *trial) {
	a, b := c.client(), c.client()
	r := c.Rand()
	takes := c.Limit()
	for range 10 {
		h := a.mustTry(c.Key("takes"), c.hold()...)
		takes = min(takes, h.at.Sub(h.before))
		h.mustUnlock()
	}
	if c.Virtual {
		return // an answer takes no time
	}
	var refused []string
	until := time.Now().Add(c.Limit() / 16)
	for i := 0; i < 1000 && (i < 20 || time.Now().Before(until)); i++ {
		key := c.Key(fmt.Sprint(i))
		ctx, cancel := context.WithCancel(c.Ctx)
		most := max(1, takes+takes/2)
		if i%2 == 0 {
			most *= 8 // the machine may have other things to do now
		}
		ends := time.Now().Add(time.Duration(r.Int64N(int64(most))))
		returned := make(chan struct{})
		done := c.Spawn(func() {
			defer cancel()
			c.pause(time.Until(ends)-time.Millisecond, returned)
			for time.Now().Before(ends) && !harness.IsClosed(returned) {
				runtime.Gosched() // a timer may be late by more than an answer takes
			}
		})
		h, err := a.tryCtx(ctx, key, c.hold()...)
		close(returned)
		<-done
		if err == nil {
			c.OK(h.unlock(), "Unlock of what TryLock returned, although its ctx has ended")
		} else {
			c.Is(err, context.Canceled, "a TryLock of a free key whose ctx ends")
			refused = append(refused, key)
		}
	}
	refused = refused[max(0, len(refused)-50):]
	c.free(b, c.recovery()+time.Duration(len(refused))*4*takes, refused...)
}
