package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var closeCases = []Case{
	{ID: "CLO-001", Kinds: both, CoreLoop: true, fn: closedForNew, Clause: "no new holds (ErrClosed)"},
	{ID: "CLO-002", Kinds: both, CoreLoop: true, fn: closeWakes, Parts: []Part{{Name: "all", fn: closeWakesAll}}, Clause: "waiters wake with ErrClosed"},
	{ID: "CLO-003", Kinds: both, CoreLoop: true, fn: closeReleases, Parts: []Part{{Name: "many", fn: closeMany}}, Clause: "held leases end with cause closed and are released, best effort, within ctx"},
	{ID: "CLO-004", Kinds: both, CoreLoop: true, fn: closeLeavesNothing, Clause: "idempotent; leaks no goroutine, no key, no connection"},
	{ID: "CLO-005", Kinds: both, fn: keepsNothing, Parts: []Part{
		{Name: "listeners", Needs: []Need{needsNotifier}, fn: listenersEnd},
		{Name: "connections", Needs: []Need{needsConnections}, fn: connectionsEnd},
		{Name: "given-up", Kinds: []Kind{Lease}, Needs: []Need{needsLine}, fn: givenUpEnd},
	}, Clause: "while it is open it keeps nothing of what is over"},
}

func closedForNew(c *trial) {
	a, b := c.client(), c.client()
	free, held := c.Key("free"), c.Key("held")
	h := b.mustTry(held, c.hold()...)
	c.OK(a.l.Close(c.CtxFor(c.Limit())), "Close")
	calls := a.tap.Count()
	for _, key := range []string{free, held} {
		_, err := a.try(key, c.hold()...)
		c.Is(err, locker.ErrClosed, "TryLock after Close")
		c.IsNot(err, locker.ErrHeld, "TryLock after Close")
		c.IsNot(err, locker.ErrUnavailable, "TryLock after Close")
		_, err = a.lock(c.CtxFor(c.Limit()), key, c.hold()...)
		c.Is(err, locker.ErrClosed, "Lock after Close")
		_, err = a.l.LockNS(c.Ctx, key, c.hold()...)
		c.Is(err, locker.ErrClosed, "LockNS after Close")
		_, err = a.l.TryLockNS(c.Ctx, key, c.hold()...)
		c.Is(err, locker.ErrClosed, "TryLockNS after Close")
		c.Is(a.l.Do(c.Ctx, key, func(context.Context, *locker.Lease) error { return nil }, c.hold()...), locker.ErrClosed, "Do after Close")
	}
	c.Must(a.tap.Count() == calls || c.Local(), "after Close the backend is not called", "%d calls", a.tap.Count()-calls)
	h.mustLive() // one client's Close is nothing to the others
	b.mustTry(free, c.hold()...).mustUnlock()
	_, err := b.try(held, c.hold()...)
	c.Claim("TTL-004").Is(err, locker.ErrHeld, "TryLock of what another client holds, after a third one was closed,")

	// The backend itself says so too, to calls that come late.
	d := c.driver()
	r := driver.Request{Key: c.Key("driver"), Owner: c.Owner(), TTL: c.ttl(), Hold: newRecorder()}
	holder := driver.Holder{Key: r.Key, Owner: r.Owner, Token: 1, Session: r.TTL == 0}
	ctx := c.CtxFor(c.Limit())
	c.OK(d.Close(ctx), "the driver's Close")
	_, err = d.Acquire(ctx, r)
	c.Is(err, driver.ErrClosed, "the driver's Acquire after Close")
	_, err = d.Extend(ctx, holder, c.Unit())
	c.Is(err, driver.ErrClosed, "the driver's Extend after Close")
	c.Is(d.Release(ctx, holder), driver.ErrClosed, "the driver's Release after Close")
	if w, ok := driver.As[driver.Waiter](d); ok {
		r.Key = held
		_, err = w.Wait(ctx, r)
		c.Is(err, driver.ErrClosed, "the driver's Wait after Close")
	}

	// Locks that race with Close: each gives a hold that Close ends, or an error. More than a
	// client gives back at once in goroutines of their own.
	const races = 20
	for round := range c.Rounds(30, 8) {
		x := c.client()
		key := c.Key(fmt.Sprint("race ", round))
		var mu sync.Mutex
		var holds []*hold
		c.Together(1+races, func(i int) {
			if i == 0 {
				c.OK(x.l.Close(c.CtxFor(c.Limit())), "Close while others call Lock")
				return
			}
			got, err := x.try(fmt.Sprint(key, i), c.hold()...)
			if err != nil {
				c.Is(err, locker.ErrClosed, "a TryLock that races with Close")
				return
			}
			mu.Lock()
			defer mu.Unlock()
			holds = append(holds, got)
		})
		for _, got := range holds {
			c.Must(harness.IsClosed(got.Done()), "a hold that was granted during Close has ended after it", "it lives")
		}
		for i := 1; i <= races; i++ {
			b.goLock(fmt.Sprint(key, i), append(c.hold(), c.Polling())...).grantedBy(c.Claim("CLO-003"), c.Limit(), "the Close of the client that wanted it").mustUnlock()
		}
	}
}

func closeWakes(c *trial) {
	a, b := c.client(), c.client()
	var waiting []*pending
	for i := range 6 {
		key := c.Key(fmt.Sprint("k", i/2))
		if i%2 == 0 {
			b.mustTry(key, c.hold()...)
		}
		waiting = append(waiting, a.goLock(key, append(c.hold(), harness.Patient())...))
	}
	own := a.mustTry(c.Key("own"), c.hold()...)
	waiting = append(waiting, a.goLock(own.Key(), append(c.hold(), harness.Patient())...))
	other := b.goLock(own.Key(), append(c.hold(), c.Polling())...)
	c.Settle()

	// One whose attempt is under way, and would hang for ever.
	hangs := b.mustTry(c.Key("hangs"), c.hold()...)
	a.tap.Next(harness.OpAcquire, harness.Refuse)
	a.tap.Next(harness.OpAcquire, harness.Hang)
	a.tap.Next(harness.OpWait, harness.Hang)
	waiting = append(waiting, a.goLock(hangs.Key(), append(c.hold(), harness.Patient())...))
	c.Settle()
	for _, p := range waiting {
		c.Must(!harness.IsClosed(p.done), "the waiter waits while the key is held", "Lock returned: %v", p.outcome())
	}
	closing := c.Spawn(func() { c.OK(a.l.Close(c.CtxFor(c.Limit())), "Close") })
	for _, p := range waiting {
		err := p.refused(c.Prompt(), "Close")
		c.Is(err, locker.ErrClosed, "a Lock that waits at the Close")
		var e *locker.Error
		c.Must(errors.As(err, &e) && e.Code == locker.CodeClosed, "it is a *locker.Error with the code Closed", "%v", err)
	}
	c.Await(closing, c.Limit(), "Close ends")
	// The waiters of other clients are not concerned, but for what Close released.
	other.granted(c.Limit(), "the Close of the holder's client").mustUnlock()

	// The core ends its waits by itself; a backend that waits must do so too, because the
	// core's patience with calls under way is short.
	d := c.driver()
	w, ok := driver.As[driver.Waiter](d)
	if !ok {
		return
	}
	h := b.mustTry(c.Key("driver"), c.hold()...)
	var err error
	waits := c.Spawn(func() {
		_, err = w.Wait(c.Ctx, driver.Request{Key: h.Key(), Owner: c.Owner(), TTL: c.ttl(), Hold: newRecorder()})
	})
	c.Settle()
	c.Must(!harness.IsClosed(waits), "the driver's Wait waits while the key is held", "it returned: %v", err)
	c.OK(d.Close(c.CtxFor(c.Limit())), "the driver's Close")
	c.Await(waits, c.Prompt(), "the driver's Wait ends after its Close")
	c.Is(err, driver.ErrClosed, "the driver's Wait at its Close")
	h.mustLive()
	h.mustUnlock()
}

func closeReleases(c *trial) {
	a, b := c.client(), c.client()
	var holds []*hold
	for i := range 20 {
		holds = append(holds, a.mustTry(c.Key(fmt.Sprint(i)), c.hold()...))
	}
	p := b.goLock(holds[0].Key(), append(c.hold(), c.Polling())...)
	ctx, cancel := holds[1].Context(c.Ctx)
	defer cancel()
	c.Settle()
	c.OK(a.l.Close(c.CtxFor(c.Limit())), "Close with %d holds", len(holds))
	for _, h := range holds {
		h.ended(locker.ReasonClosed)
	}
	var e *locker.Error
	c.Must(errors.As(context.Cause(ctx), &e) && e.Reason == locker.ReasonClosed, "the cause of a Context tells ReasonClosed", "%v", context.Cause(ctx))
	p.granted(c.HandOver(), "the Close of the holder's client").mustUnlock()
	for _, h := range holds {
		b.mustTry(h.Key(), c.hold()...).mustUnlock()
		c.Is(h.unlock(), locker.ErrClosed, "Unlock after Close")
	}

	// Best effort, within ctx: a backend that does not answer does not keep Close.
	for _, f := range []struct {
		name string
		f    harness.Fault
	}{{"does not answer", harness.Hang}, {"refuses", harness.Refuse}} {
		x := c.client()
		h := x.mustTry(c.Key(f.name), c.hold()...)
		free := x.mustTry(c.Key("and one that works, "+f.name), c.hold()...)
		x.tap.Next(harness.OpRelease, f.f)
		patience := c.Unit()
		began := time.Now()
		done := c.Spawn(func() {
			err := x.l.Close(c.CtxFor(patience))
			c.Must(err != nil, "Close says that a hold was not released", "nil")
		})
		c.Await(done, patience+c.Prompt()+c.Limit(), "Close ends when its ctx does, with a backend that %s,", f.name)
		took := time.Since(began)
		c.Must(took <= patience+c.Prompt(), "Close with a backend that "+f.name+" takes no longer than its ctx", "%s", took)
		h.ended(locker.ReasonClosed)
		free.ended(locker.ReasonClosed)
	}
}

func closeLeavesNothing(c *trial) {
	stay := c.client() // so that the store itself remains, and what it has is known
	stay.mustTry(c.Key("warm-up"), c.hold()...).mustUnlock()
	persistent := func() (names []string) {
		if c.target.Keys == nil {
			return nil
		}
		for _, k := range c.target.Keys(c.T) {
			if !k.Expires && strings.Contains(k.Name, c.Unique) {
				names = append(names, k.Name)
			}
		}
		return names
	}
	connections := func() int {
		if c.target.Connections == nil {
			return 0
		}
		return c.target.Connections(c.T)
	}
	if c.target.Keys == nil {
		c.Note("the target has no Keys: a leaked key is seen only if it is still held")
	}
	if c.target.Connections == nil {
		c.Note("the target has no Connections: a leaked connection is not seen")
	}
	const mark = "/closed"
	before, keys := connections(), []string{}
	for round := range 5 {
		key := c.Key(fmt.Sprint(round))
		for _, k := range []string{"", " expired", " waited", " extended", " held"} {
			keys = append(keys, key+k)
		}
		// Everything that is started in here carries the mark.
		done := c.Spawn(func() {
			harness.Label(c.T.Name() + mark)
			c.useAndClose(stay, key, round)
		})
		c.Await(done, c.Limit(), "a client that is used and closed comes to its end")
	}

	gone := func(what string, left func() string) {
		pause := max(c.Granularity(), 5*time.Millisecond)
		for deadline := time.Now().Add(c.Limit()); ; pause *= 2 {
			text := left()
			if text == "" {
				return
			}
			c.Must(time.Now().Before(deadline), "after Close no "+what+" is left", "%s", text)
			c.Sleep(pause)
		}
	}
	gone("goroutine", func() string { return harness.Labelled(c.T.Name() + mark) })
	gone("connection", func() string {
		if n := connections(); n > before {
			return fmt.Sprintf("%d connections instead of %d", n, before)
		}
		return ""
	})
	gone("key", func() string { return strings.Join(persistent(), "\n") })
	for _, key := range keys {
		stay.goLock(key, append(c.hold(), c.Polling())...).granted(c.Unit()+c.Prompt(), "the Close of the client that held it").mustUnlock()
	}
	gone("key", func() string { return strings.Join(persistent(), "\n") })
}

// useAndClose does a bit of everything with a client, and closes it several times.
func (c *trial) useAndClose(other *client, key string, round int) {
	x := c.client()
	// The suite's own closing of it comes too late for what is measured here, and is one
	// more call that must do nothing.
	h := x.mustTry(key, c.hold()...)
	h.Done()
	x.mustHeld(key, c.hold()...)
	waiting := []*pending{x.goLock(key, append(c.hold(), harness.Patient())...)}
	released := x.mustTry(key+" extended", locker.WithTTL(far))
	c.OK(released.extend(2*far), "Extend")
	released.mustUnlock()
	if round%2 == 0 {
		short := x.mustTry(key+" expired", locker.WithTTL(c.Unit()))
		c.Await(short.Done(), c.Limit(), "Done closes at the end of the ttl")
	}
	taken := other.mustTry(key+" waited", c.hold()...)
	waiting = append(waiting, x.goLock(taken.Key(), append(c.hold(), c.Polling())...))
	gaveUp := x.goLock(taken.Key(), append(c.hold(), harness.Patient())...)
	c.Settle()
	gaveUp.stop(nil)
	c.Await(gaveUp.done, c.Limit(), "who gives up returns")
	// A listener of the driver that is still there at the end.
	before := x.tap.Count(harness.OpClose)

	ctx := c.CtxFor(c.Limit())
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs[1:] {
		wg.Add(1)
		go func() { defer wg.Done(); errs[i+1] = x.l.Close(ctx) }()
	}
	errs[0] = x.l.Close(ctx)
	wg.Wait()
	for _, err := range append(errs, x.l.Close(ctx), x.l.Close(context.Background())) {
		c.OK(err, "every Close, of many,")
	}
	n := x.tap.Count(harness.OpClose) - before
	c.Must(n == 1, "the backend is closed once", "%d times", n)
	for _, p := range waiting {
		c.Await(p.done, c.Limit(), "a waiter returns at the Close")
		c.Is(p.err, locker.ErrClosed, "a Lock that waits at the Close")
	}
	taken.mustLive()
	taken.mustUnlock()
	c.Is(h.unlock(), locker.ErrClosed, "Unlock after Close")

	// The backend's own Close, with a hold that is still there: it ends by its ttl.
	name, b := c.Open()
	t, _ := c.Tap(name, b)
	r := driver.Request{Key: key + " held", Owner: c.Owner(), Hold: newRecorder(), TTL: c.Unit()}
	_, err := t.Acquire(ctx, r)
	c.OK(err, "the driver's Acquire of a free key")
	if round%2 == 0 {
		c.OK(t.Close(ctx), "the driver's Close")
		return
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_ = t.Close(ended) // it may say that it had no time
	r.Owner = c.Owner()
	_, err = t.Acquire(ctx, r)
	c.Is(err, driver.ErrClosed, "the driver's Acquire after a Close whose ctx had ended")
}
