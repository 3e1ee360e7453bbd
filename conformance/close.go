package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var closeCases = []Case{
	{ID: "CLO-001", Kinds: both, CoreLoop: true, fn: closedForNew, Clause: "no new holds (ErrClosed)"},
	{ID: "CLO-002", Kinds: both, CoreLoop: true, fn: closeWakes, Clause: "waiters wake with ErrClosed"},
	{ID: "CLO-003", Kinds: both, CoreLoop: true, fn: closeReleases, Clause: "held leases end with cause closed and are released, best effort, within ctx"},
	{ID: "CLO-004", Kinds: both, CoreLoop: true, fn: closeLeavesNothing, Clause: "idempotent; leaks no goroutine, no key, no connection"},
}

func closedForNew(c *trial) {
	a, b := c.client(), c.client()
	free, held := c.key("free"), c.key("held")
	h := b.mustTry(held, c.hold()...)
	c.ok(a.l.Close(c.ctxFor(c.limit())), "Close")
	calls := a.tap.count()
	for _, key := range []string{free, held} {
		_, err := a.try(key, c.hold()...)
		c.is(err, locker.ErrClosed, "TryLock after Close")
		c.isNot(err, locker.ErrHeld, "TryLock after Close")
		c.isNot(err, locker.ErrUnavailable, "TryLock after Close")
		_, err = a.lock(c.ctxFor(c.limit()), key, c.hold()...)
		c.is(err, locker.ErrClosed, "Lock after Close")
		_, err = a.l.LockNS(c.ctx, key, c.hold()...)
		c.is(err, locker.ErrClosed, "LockNS after Close")
		_, err = a.l.TryLockNS(c.ctx, key, c.hold()...)
		c.is(err, locker.ErrClosed, "TryLockNS after Close")
		c.is(a.l.Do(c.ctx, key, func(context.Context) error { return nil }, c.hold()...), locker.ErrClosed, "Do after Close")
	}
	c.must(a.tap.count() == calls || c.local(), "after Close the backend is not called", "%d calls", a.tap.count()-calls)
	h.mustLive() // one client's Close is nothing to the others
	b.mustTry(free, c.hold()...).mustUnlock()
	b.mustHeld(held, c.hold()...)

	// The backend itself says so too, to calls that come late.
	d := c.driver()
	r := driver.Request{Key: c.key("driver"), Owner: c.owner(), TTL: c.ttl(), Hold: newRecorder()}
	holder := driver.Holder{Key: r.Key, Owner: r.Owner, Session: r.TTL == 0}
	ctx := c.ctxFor(c.limit())
	c.ok(d.Close(ctx), "the driver's Close")
	_, err := d.Acquire(ctx, r)
	c.is(err, driver.ErrClosed, "the driver's Acquire after Close")
	_, err = d.Extend(ctx, holder, far)
	c.is(err, driver.ErrClosed, "the driver's Extend after Close")
	c.is(d.Release(ctx, holder), driver.ErrClosed, "the driver's Release after Close")
	if w, ok := driver.As[driver.Waiter](d); ok {
		r.Key = held
		_, err = w.Wait(ctx, r)
		c.is(err, driver.ErrClosed, "the driver's Wait after Close")
	}

	// Locks that race with Close: each gives a hold that Close ends, or an error.
	for round := range c.rounds(30, 8) {
		x := c.client()
		key := c.key(fmt.Sprint("race ", round))
		var mu sync.Mutex
		var holds []*hold
		c.together(6, func(i int) {
			if i == 0 {
				c.ok(x.l.Close(c.ctxFor(c.limit())), "Close while others call Lock")
				return
			}
			got, err := x.try(fmt.Sprint(key, i), c.hold()...)
			if err != nil {
				c.is(err, locker.ErrClosed, "a TryLock that races with Close")
				return
			}
			mu.Lock()
			defer mu.Unlock()
			holds = append(holds, got)
		})
		for _, got := range holds {
			c.must(isClosed(got.Done()), "a hold that was granted during Close has ended after it", "it lives")
		}
		for i := 1; i < 6; i++ {
			b.goLock(fmt.Sprint(key, i), append(c.hold(), c.polling())...).granted(c.limit(), "the Close of the client that wanted it").mustUnlock()
		}
	}
}

func closeWakes(c *trial) {
	a, b := c.client(), c.client()
	var waiting []*pending
	for i := range 6 {
		key := c.key(fmt.Sprint("k", i/2))
		if i%2 == 0 {
			b.mustTry(key, c.hold()...)
		}
		waiting = append(waiting, a.goLock(key, append(c.hold(), patient())...))
	}
	own := a.mustTry(c.key("own"), c.hold()...)
	waiting = append(waiting, a.goLock(own.Key(), append(c.hold(), patient())...))
	other := b.goLock(own.Key(), append(c.hold(), c.polling())...)
	c.settle()

	// One whose attempt is under way, and would hang for ever.
	hangs := b.mustTry(c.key("hangs"), c.hold()...)
	a.tap.next(opAcquire, refuse)
	a.tap.next(opAcquire, hang)
	a.tap.next(opWait, hang)
	waiting = append(waiting, a.goLock(hangs.Key(), append(c.hold(), patient())...))
	c.settle()
	for _, p := range waiting {
		c.must(!isClosed(p.done), "the waiter waits while the key is held", "Lock returned: %v", p.outcome())
	}
	closing := c.spawn(func() { c.ok(a.l.Close(c.ctxFor(c.limit())), "Close") })
	for _, p := range waiting {
		err := p.refused(c.prompt(), "Close")
		c.is(err, locker.ErrClosed, "a Lock that waits at the Close")
		var e *locker.Error
		c.must(errors.As(err, &e) && e.Code == locker.Closed, "it is a *locker.Error with the code Closed", "%v", err)
	}
	c.await(closing, c.limit(), "Close ends")
	// The waiters of other clients are not concerned, but for what Close released.
	other.granted(c.limit(), "the Close of the holder's client").mustUnlock()

	// The core ends its waits by itself; a backend that waits must do so too, because the
	// core's patience with calls under way is short.
	d := c.driver()
	w, ok := driver.As[driver.Waiter](d)
	if !ok {
		return
	}
	h := b.mustTry(c.key("driver"), c.hold()...)
	var err error
	waits := c.spawn(func() {
		_, err = w.Wait(c.ctx, driver.Request{Key: h.Key(), Owner: c.owner(), TTL: c.ttl(), Hold: newRecorder()})
	})
	c.settle()
	c.must(!isClosed(waits), "the driver's Wait waits while the key is held", "it returned: %v", err)
	c.ok(d.Close(c.ctxFor(c.limit())), "the driver's Close")
	c.await(waits, c.prompt(), "the driver's Wait ends after its Close")
	c.is(err, driver.ErrClosed, "the driver's Wait at its Close")
	h.mustLive()
	h.mustUnlock()
}

func closeReleases(c *trial) {
	a, b := c.client(), c.client()
	var holds []*hold
	for i := range 20 {
		holds = append(holds, a.mustTry(c.key(fmt.Sprint(i)), c.hold()...))
	}
	p := b.goLock(holds[0].Key(), append(c.hold(), c.polling())...)
	ctx, cancel := holds[1].Context(c.ctx)
	defer cancel()
	c.settle()
	c.ok(a.l.Close(c.ctxFor(c.limit())), "Close with %d holds", len(holds))
	for _, h := range holds {
		h.ended(locker.ReasonClosed)
	}
	var e *locker.Error
	c.must(errors.As(context.Cause(ctx), &e) && e.Reason == locker.ReasonClosed, "the cause of a Context tells ReasonClosed", "%v", context.Cause(ctx))
	p.granted(c.handOver(), "the Close of the holder's client").mustUnlock()
	for _, h := range holds {
		b.mustTry(h.Key(), c.hold()...).mustUnlock()
		c.is(h.unlock(), locker.ErrClosed, "Unlock after Close")
	}

	// Best effort, within ctx: a backend that does not answer does not keep Close.
	for _, f := range []struct {
		name string
		f    fault
	}{{"does not answer", hang}, {"refuses", refuse}} {
		x := c.client()
		h := x.mustTry(c.key(f.name), c.hold()...)
		free := x.mustTry(c.key("and one that works, "+f.name), c.hold()...)
		x.tap.next(opRelease, f.f)
		patience := c.unit()
		began := time.Now()
		done := c.spawn(func() {
			err := x.l.Close(c.ctxFor(patience))
			c.must(err != nil, "Close says that a hold was not released", "nil")
		})
		c.await(done, patience+c.prompt()+c.limit(), "Close ends when its ctx does, with a backend that %s,", f.name)
		took := time.Since(began)
		c.must(took <= patience+c.prompt(), "Close with a backend that "+f.name+" takes no longer than its ctx", "%s", took)
		h.ended(locker.ReasonClosed)
		free.ended(locker.ReasonClosed)
	}
}

func closeLeavesNothing(c *trial) {
	stay := c.client() // so that the store itself remains, and what it has is known
	stay.mustTry(c.key("warm-up"), c.hold()...).mustUnlock()
	persistent := func() (names []string) {
		if c.target.Keys == nil {
			return nil
		}
		for _, k := range c.target.Keys(c.t) {
			if !k.Expires && strings.Contains(k.Name, c.id) {
				names = append(names, k.Name)
			}
		}
		return names
	}
	connections := func() int {
		if c.target.Connections == nil {
			return 0
		}
		return c.target.Connections(c.t)
	}
	if c.target.Keys == nil {
		c.note("the target has no Keys: a leaked key is seen only if it is still held")
	}
	if c.target.Connections == nil {
		c.note("the target has no Connections: a leaked connection is not seen")
	}
	const mark = "/closed"
	before, keys := connections(), []string{}
	for round := range 5 {
		key := c.key(fmt.Sprint(round))
		for _, k := range []string{"", " expired", " waited", " extended", " held"} {
			keys = append(keys, key+k)
		}
		done := make(chan struct{})
		c.wg.Add(1)
		go func() { // everything that is started in here carries the mark
			defer c.wg.Done()
			defer close(done)
			label(c.t.Name() + mark)
			c.guard(func(c *trial) { c.useAndClose(stay, key, round) })
		}()
		c.await(done, c.limit(), "a client that is used and closed comes to its end")
	}

	gone := func(what string, left func() string) {
		pause := max(c.granularity(), 5*time.Millisecond)
		for deadline := time.Now().Add(c.limit()); ; pause *= 2 {
			text := left()
			if text == "" {
				return
			}
			c.must(time.Now().Before(deadline), "after Close no "+what+" is left", "%s", text)
			c.sleep(pause)
		}
	}
	gone("goroutine", func() string { return labelled(c.t.Name() + mark) })
	gone("connection", func() string {
		if n := connections(); n > before {
			return fmt.Sprintf("%d connections instead of %d", n, before)
		}
		return ""
	})
	gone("key", func() string { return strings.Join(persistent(), "\n") })
	for _, key := range keys {
		stay.goLock(key, append(c.hold(), c.polling())...).granted(c.unit()+c.prompt(), "the Close of the client that held it").mustUnlock()
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
	waiting := []*pending{x.goLock(key, append(c.hold(), patient())...)}
	released := x.mustTry(key+" extended", locker.WithTTL(far))
	c.ok(released.extend(2*far), "Extend")
	released.mustUnlock()
	if round%2 == 0 {
		short := x.mustTry(key+" expired", locker.WithTTL(c.unit()))
		c.await(short.Done(), c.limit(), "Done closes at the end of the ttl")
	}
	taken := other.mustTry(key+" waited", c.hold()...)
	waiting = append(waiting, x.goLock(taken.Key(), append(c.hold(), c.polling())...))
	gaveUp := x.goLock(taken.Key(), append(c.hold(), patient())...)
	c.settle()
	gaveUp.stop(nil)
	c.await(gaveUp.done, c.limit(), "who gives up returns")
	// A listener of the driver that is still there at the end.
	before := x.tap.count(opClose)

	ctx := c.ctxFor(c.limit())
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs[1:] {
		wg.Add(1)
		go func() { defer wg.Done(); errs[i+1] = x.l.Close(ctx) }()
	}
	errs[0] = x.l.Close(ctx)
	wg.Wait()
	for _, err := range append(errs, x.l.Close(ctx), x.l.Close(context.Background())) {
		c.ok(err, "every Close, of many,")
	}
	n := x.tap.count(opClose) - before
	c.must(n == 1, "the backend is closed once", "%d times", n)
	for _, p := range waiting {
		c.await(p.done, c.limit(), "a waiter returns at the Close")
		c.is(p.err, locker.ErrClosed, "a Lock that waits at the Close")
	}
	taken.mustLive()
	taken.mustUnlock()
	c.is(h.unlock(), locker.ErrClosed, "Unlock after Close")

	// The backend's own Close, with a hold that is still there: it ends by its ttl.
	name, b := c.open()
	t, _ := c.tap(name, b)
	r := driver.Request{Key: key + " held", Owner: c.owner(), Hold: newRecorder(), TTL: c.unit()}
	_, err := t.Acquire(ctx, r)
	c.ok(err, "the driver's Acquire of a free key")
	c.ok(t.Close(ctx), "the driver's Close")
}
