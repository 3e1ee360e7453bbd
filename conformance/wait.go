package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var waitCases = []Case{
	{ID: "WAIT-001", Kinds: both, CoreLoop: true, fn: wokenByRelease, Clause: "a waiter is woken by the release, not by the next poll"},
	{ID: "WAIT-002", Kinds: both, CoreLoop: true, fn: retries, Clause: "Retry: the first attempt, then up to Attempts timed ones, Delay ± Jitter apart; −1 is for ever; early wake-ups use up no attempt; exhausted is ErrHeld"},
	{ID: "WAIT-003", Kinds: both, CoreLoop: true, fn: wakeUpPassedOn, Clause: "a waiter that gives up at the moment of a release never swallows the wake-up"},
	{ID: "WAIT-004", Kinds: both, CoreLoop: true, fn: inLine, Clause: "FIFO among the waiters of one process"},
	{ID: "WAIT-005", Kinds: both, fn: noRetryAfter, Clause: "retry never applies to Unlock or Extend contention"},
	{ID: "WAIT-006", Kinds: both, CoreLoop: true, Clause: "while waiting, a backend that is down and comes back does not leave the waiter stuck", Parts: []Part{
		{Name: "outage", fn: outageWhileWaiting},
		{Name: "lost-reply", fn: lostReply},
		{Name: "lost-reply-in-line", fn: lostReplyInLine},
		{Name: "lost-reply-expired", Kinds: []Kind{Lease}, fn: lostReplyExpired},
	}},
	{ID: "WAIT-007", Kinds: both, CoreLoop: true, fn: turnsEnd, Clause: "waiters of one process do not keep those of another out: a process's turn is bounded"},
}

func wokenByRelease(c *trial) {
	a, b := c.client(), c.client()
	r := c.rand()
	for _, waiter := range []*client{b, a} {
		for round := range c.rounds(20, 5) {
			key := c.key(fmt.Sprint(waiter.name, " ", round))
			h := a.mustTry(key, c.hold()...)
			p := waiter.goLock(key, append(c.hold(), patient())...)
			if round%2 == 0 {
				c.settle()
			} else {
				c.sleep(time.Duration(r.Int64N(int64(c.granularity())))) // also at worse moments
			}
			c.must(!isClosed(p.done), "the waiter waits while the key is held", "Lock returned: %v", p.outcome())
			h.mustUnlock()
			released := time.Now()
			got := p.granted(c.limit(), "the release")
			late := p.at.Sub(released)
			c.must(late <= c.prompt(), fmt.Sprintf("the waiter has the lock no more than %s after the release", c.prompt()), "%s after (its next poll would have been after %s)", late, far)
			got.mustUnlock()
		}
	}

	if c.failed() {
		return
	}
	// One release, one waiter: each of many gets the key in turn.
	key := c.key("many")
	h := a.mustTry(key, c.hold()...)
	var all []*pending
	for i := range 6 {
		all = append(all, []*client{a, b}[i%2].goLock(key, append(c.hold(), patient())...))
	}
	c.settle()
	h.mustUnlock()
	for range all {
		i, p := c.first(all)
		p.granted(c.limit(), "the release").mustUnlock()
		all = slices.Delete(all, i, i+1)
	}

	// Nor does a lease that has been passed from one to the other in the same process, but is
	// then not passed on, leave the next one asleep: a session cannot be passed, and the second
	// time an Extend may yet arrive.
	key = c.key("passed")
	h = a.mustTry(key, locker.WithTTL(far))
	p := a.goLock(key, locker.WithTTL(far), patient())
	c.settle()
	q := a.goLock(key, append(c.hold(), patient())...)
	c.settle()
	h.mustUnlock()
	h = p.granted(c.limit(), "the release")
	c.settle()
	if c.leaf.kind == Lease {
		a.tap.next(opExtend, refuse)
		c.is(h.extend(far), locker.ErrUnavailable, "Extend with a lost request")
	}
	h.mustUnlock()
	released := time.Now()
	q.granted(c.limit(), "the release").mustUnlock()
	late := q.at.Sub(released)
	c.must(late <= c.prompt(), fmt.Sprintf("the waiter has the lock no more than %s after the release", c.prompt()), "%s after", late)
}

// first waits for the first of all to return.
func (c *trial) first(all []*pending) (int, *pending) {
	timeout := time.NewTimer(c.limit())
	defer timeout.Stop()
	found := make(chan int, len(all))
	quit := make(chan struct{})
	defer close(quit)
	for i, p := range all {
		c.spawn(func() {
			select {
			case <-p.done:
				found <- i
			case <-quit:
			}
		})
	}
	select {
	case i := <-found:
		return i, all[i]
	case <-c.ctx.Done():
		runtime.Goexit()
	case <-timeout.C:
	}
	c.fatal("one of those who wait gets the key after its release", "none does within %s", c.limit())
	return 0, nil
}

func retries(c *trial) {
	a, b := c.client(), c.client()
	key := c.key("k")
	h := a.mustTry(key, c.hold()...)
	delay := 4 * max(c.granularity(), 5*time.Millisecond)

	for _, r := range []locker.Retry{
		{Attempts: 0, Delay: delay},
		{Attempts: 1, Delay: delay},
		{Attempts: 3, Delay: delay, Jitter: delay / 2},
		{Attempts: 5, Delay: delay, Jitter: delay},
	} {
		calls, woken := b.tap.count(opAcquire), b.tap.wakeUps()
		began := time.Now()
		_, err := b.lock(c.ctxFor(c.limit()), key, append(c.hold(), locker.WithRetry(r))...)
		took := time.Since(began)
		c.is(err, locker.ErrHeld, "Lock with %+v", r)
		c.isNot(err, locker.ErrUnavailable, "Lock with %+v", r)
		c.must(!errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled), "a Lock whose retries are used up does not blame the ctx", "%v", err)
		n := time.Duration(r.Attempts)
		least, most := n*(r.Delay-r.Jitter), n*(r.Delay+r.Jitter)+time.Duration(r.Attempts+1)*c.prompt()
		c.must(took >= least && took <= most, fmt.Sprintf("Lock with %+v gives up after %s to %s", r, least, most), "after %s", took)
		calls, woken = b.tap.count(opAcquire)-calls, b.tap.wakeUps()-woken
		if b.waits() {
			continue // then the attempts are the backend's own affair
		}
		// The core makes one more when it comes to the front of its line, because a
		// release may have come before it listened, and one for each wake-up: a backend may
		// announce that a session was renewed. Those are not timed.
		c.must(calls >= 1+r.Attempts && calls <= 2+r.Attempts+1+woken, fmt.Sprintf("Lock with %+v makes the first attempt and %d timed ones", r, r.Attempts), "%d attempts in all", calls)
	}

	// TryLock never waits, whatever the Retry.
	began := time.Now()
	_, err := b.try(key, append(c.hold(), patient())...)
	c.is(err, locker.ErrHeld, "TryLock")
	c.must(time.Since(began) <= c.prompt(), "TryLock does not wait", "it took %s", time.Since(began))

	// −1 is for ever.
	short := max(c.granularity()/2, time.Millisecond)
	p := b.goLock(key, append(c.hold(), locker.WithRetry(locker.Retry{Attempts: locker.Forever, Delay: short, Jitter: short}))...)
	c.sleep(50 * short)
	c.must(!isClosed(p.done), "with Attempts −1 Lock waits for ever", "after %s it returned: %v", 50*short, p.outcome())
	h.mustUnlock()
	p.granted(c.limit(), "the release").mustUnlock()

	// Wake-ups that lead to nothing use up no attempt.
	if b.waits() {
		return // such a backend tells of none
	}
	h = a.mustTry(key, c.hold()...)
	retry := locker.Retry{Attempts: 2, Delay: 2 * delay}
	began = time.Now()
	p = b.goLock(key, append(c.hold(), locker.WithRetry(retry))...)
	for range 20 {
		c.sleep(delay / 20)
		b.tap.hint(key)
	}
	c.is(p.refused(c.limit(), "the last attempt"), locker.ErrHeld, "Lock with %+v", retry)
	c.must(p.at.Sub(began) >= 2*retry.Delay, fmt.Sprintf("20 early wake-ups use up no attempt: Lock with %+v gives up after %s", retry, 2*retry.Delay), "after %s", p.at.Sub(began))
	h.mustLive(b)
}

// waits says whether the core leaves the waiting to the backend.
func (cl *client) waits() bool {
	_, ok := driver.As[driver.Waiter](cl.tap.inner)
	return ok && !cl.c.leaf.coreLoop
}

// wakeUpPassedOn: one holder, one who gives up at about the moment of the release, and one
// who must get the key whatever became of the second.
func wakeUpPassedOn(c *trial) {
	a, b := c.client(), c.client()
	r := c.rand()
	for round := range c.rounds(300, 40) {
		key := c.key(fmt.Sprint(round))
		holder, fickle, steady := a, b, b
		if round%3 == 1 {
			steady = a
		} else if round%3 == 2 {
			fickle = a
		}
		h := holder.mustTry(key, c.hold()...)
		p := fickle.goLock(key, append(c.hold(), patient())...)
		c.settle()
		q := steady.goLock(key, append(c.hold(), patient())...)
		c.settle()
		var err error
		ctx := c.ctxFor(c.limit())
		c.collide(r, func() { err = h.Lease.Unlock(ctx) }, func() { p.stop(nil) })
		c.hist.add("%s  Unlock %s → %v, while %s gives up", holder.name, c.short(key), err, fickle.name)
		c.ok(err, "Unlock")
		released := time.Now()
		c.await(p.done, c.limit(), "who gives up returns")
		if p.err == nil {
			p.h.mustUnlock() // the release came first
			released = time.Now()
		} else {
			c.must(errors.Is(p.err, context.Canceled), "who gives up gets its ctx's error", "%v", p.err)
		}
		got := q.granted(c.limit(), "the release, at which another waiter gave up,")
		late := got.at.Sub(released)
		c.must(late <= c.prompt(), fmt.Sprintf("who goes on waiting has the lock no more than %s after the release", c.prompt()), "%s after", late)
		got.mustUnlock()
	}
	if c.leaf.kind == Lease {
		c.wokenTooEarly(a, b)
	}
}

// wokenTooEarly: the holder's release is on its way for so long that its time is up meanwhile.
// Somebody else holds the key and releases it before the store has answered. Whatever was
// to become of that release, the wake-up counts.
func (c *trial) wokenTooEarly(a, b *client) {
	unit := c.unit()
	key := c.key("early")
	h := a.mustTry(key, locker.WithTTL(unit))
	p := a.goLock(key, locker.WithTTL(far), patient())
	c.settle()
	q := b.goLock(key, locker.WithTTL(far), c.polling())
	c.settle()
	a.tap.next(opRelease, slowRequest(2*unit))
	unlocked := c.spawn(func() { _ = h.unlock() })
	_, first := c.first([]*pending{p, q})
	if first == q { // otherwise the release was none of p's business
		c.settle()
		q.h.mustUnlock()
		c.await(unlocked, c.limit(), "Unlock returns")
		p.granted(c.prompt(), "a release by another client while the holder's was still under way,").mustUnlock()
		return
	}
	p.h.mustUnlock()
	q.granted(c.limit(), "the release").mustUnlock()
	c.await(unlocked, c.limit(), "Unlock returns")
}

// collide runs two functions at about the same moment, in either order: one directly after
// the other, so that what the first one wakes comes too late, or side by side.
func (c *trial) collide(r *rand.Rand, f, g func()) {
	switch r.IntN(4) {
	case 0:
		f, g = g, f
	case 1:
		f()
		g()
		return
	case 2:
		g()
		f()
		return
	}
	spin := r.IntN(2000)
	begin := make(chan struct{})
	first := c.spawn(func() { <-begin; f() })
	second := c.spawn(func() {
		<-begin
		for i := range spin {
			if i%64 == 0 {
				runtime.Gosched()
			}
		}
		g()
	})
	close(begin)
	<-first
	<-second
}

func inLine(c *trial) {
	const n = 8
	a, b := c.client(), c.client()
	for round := range c.rounds(10, 3) {
		key := c.key(fmt.Sprint(round))
		holder := []*client{a, b}[round%2]
		h := holder.mustTry(key, c.hold()...)
		var (
			mu    sync.Mutex
			order []int
			all   []*pending
			ends  []<-chan struct{}
		)
		for i := range n {
			p := a.goLock(key, append(c.hold(), c.polling())...)
			c.settle() // in line before the next one comes
			all = append(all, p)
			ends = append(ends, c.spawn(func() {
				select {
				case <-p.done:
				case <-c.ctx.Done():
					return
				}
				if p.err == nil {
					mu.Lock()
					order = append(order, i)
					mu.Unlock()
					p.h.mustUnlock()
				}
			}))
		}
		// Those who leave the line do not change it.
		want := []int{0, 1, 2, 3, 4, 5, 6, 7}
		if round%3 == 1 {
			for _, i := range []int{0, 3, 7} {
				all[i].stop(nil)
				c.await(all[i].done, c.limit(), "who gives up returns")
				want = slices.DeleteFunc(want, func(k int) bool { return k == i })
			}
		}
		h.mustUnlock()
		for _, end := range ends {
			c.await(end, c.limit(), "each of %d waiters gets the lock in turn", n)
		}
		mu.Lock()
		c.must(slices.Equal(order, want), fmt.Sprintf("who came first is served first: %v", want), "%v", order)
		mu.Unlock()
	}
}

// turnsEnd: in one process there is always somebody in line, and nobody keeps the key for long.
func turnsEnd(c *trial) {
	// Far more than any turn, and few enough to be done in no time.
	const workers, most = 6, 10_000
	clients := []*client{c.client(), c.client()}
	for round := range c.rounds(6, 2) {
		a, b := clients[round%2], clients[1-round%2]
		key := c.key(fmt.Sprint(round))
		h := a.mustTry(key, c.hold()...)
		ctx, cancel := context.WithCancel(c.ctx)
		var grants atomic.Int64
		var busy []<-chan struct{}
		for range workers {
			busy = append(busy, c.spawn(func() {
				for ctx.Err() == nil && grants.Load() < most {
					s, err := a.l.Lock(ctx, key, append(c.hold(), c.polling())...)
					if err != nil {
						c.must(ctx.Err() != nil, "Lock gives a hold", "%v", err)
						return
					}
					grants.Add(1)
					c.ok(s.Unlock(c.ctx), "Unlock of what is held")
				}
			}))
		}
		c.settle()
		p := b.goLock(key, append(c.hold(), c.polling())...)
		c.settle()
		c.must(grants.Load() == 0, "all wait while the key is held", "%d grants", grants.Load())
		h.mustUnlock()
		got := p.granted(c.limit(), fmt.Sprintf("the release, with %d of the other process who ask for the key again and again,", workers))
		n := grants.Load()
		c.must(n < most, fmt.Sprintf("a process in which somebody always waits lets others have the key after less than %d holds", most), "they had to end before anybody else got it")
		got.mustUnlock()
		cancel()
		for _, done := range busy {
			c.await(done, c.limit(), "the others end")
		}
	}
}

func noRetryAfter(c *trial) {
	a := c.clientWith(locker.Config{Retry: &locker.Retry{Attempts: locker.Forever, Delay: far}})
	b := c.client()

	// one makes sure that f, which fails, asks the backend once and does not wait.
	one := func(what, op string, f func() error, target error) {
		calls, began := a.tap.count(op), time.Now()
		err := f()
		c.is(err, target, "%s", what)
		took := time.Since(began)
		c.must(took <= c.prompt(), what+" does not wait", "it took %s", took)
		calls = a.tap.count(op) - calls
		c.must(calls == 1, what+" asks the backend once", "%d times", calls)
	}
	if c.leaf.kind == Lease {
		h := a.mustTry(c.key("extend, down"), c.hold()...)
		a.tap.next(opExtend, refuse)
		one("Extend while the backend is down", opExtend, func() error { return h.extend(far) }, locker.ErrUnavailable)
		h.mustUnlock()
		h = a.mustTry(c.key("extend, lost"), c.hold()...)
		a.tap.next(opExtend, answer(driver.ErrLost))
		one("Extend of what is lost", opExtend, func() error { return h.extend(far) }, locker.ErrLost)
	}
	h := a.mustTry(c.key("unlock, lost"), c.hold()...)
	a.tap.next(opRelease, answer(driver.ErrLost))
	one("Unlock of what is lost", opRelease, h.unlock, locker.ErrLost)

	h = a.mustTry(c.key("unlock, down"), c.hold()...)
	a.tap.next(opRelease, refuse)
	began := time.Now()
	c.is(h.unlock(), locker.ErrUnavailable, "Unlock while the backend is down")
	c.must(time.Since(began) <= c.prompt(), "Unlock while the backend is down does not wait", "it took %s", time.Since(began))

	// And a hold that others wait for is neither harder to extend nor to unlock.
	h = a.mustTry(c.key("wanted"), c.hold()...)
	p := b.goLock(h.Key(), append(c.hold(), c.polling())...)
	c.settle()
	if c.leaf.kind == Lease {
		c.ok(h.extend(far), "Extend of a hold that others wait for")
	}
	h.mustUnlock()
	p.granted(c.handOver(), "the release").mustUnlock()
}

func outageWhileWaiting(c *trial) {
	a, b := c.client(), c.client()
	within := 3*c.unit() + c.prompt()
	for i, what := range []string{"the key is released during the outage", "the key is released after the outage", "the outage comes first"} {
		key := c.key(fmt.Sprint(i))
		h := a.mustTry(key, c.hold()...)
		if what == "the outage comes first" {
			b.tap.down()
		}
		p := b.goLock(key, append(c.hold(), c.polling())...)
		q := b.goLock(key, append(c.hold(), c.polling())...)
		c.settle()
		b.tap.down()
		c.sleep(c.unit() / 2)
		c.must(!isClosed(p.done) && !isClosed(q.done), "Lock waits through an outage", "it returned: %v, %v", p.outcome(), q.outcome())
		if what == "the key is released during the outage" {
			h.mustUnlock() // the wake-up is lost
			c.sleep(c.unit() / 4)
		}
		b.tap.restore()
		if what != "the key is released during the outage" {
			c.sleep(c.unit() / 4)
			h.mustUnlock()
		}
		_, first := c.first([]*pending{p, q})
		first.granted(within, "the outage").mustUnlock()
		if first == p {
			p = q
		}
		got := p.granted(within, "the outage and a second release")
		got.mustLive(a)
		got.mustUnlock()
		a.mustTry(key, c.hold()...).mustUnlock()
	}
}

// lostReply: the attempt that takes the lock is carried out, and its reply lost.
func lostReply(c *trial) {
	a, b := c.client(), c.client()
	within := 3*c.unit() + c.prompt()
	for _, op := range []string{opAcquire, opWait} {
		if op == opWait && !b.waits() {
			continue
		}
		key := c.key(op)
		if op == opWait {
			h := a.mustTry(key, c.hold()...)
			b.tap.next(op, lose)
			p := b.goLock(key, append(c.hold(), c.polling())...)
			c.settle()
			h.mustUnlock()
			got := p.granted(within, "a release whose news was lost")
			got.mustLive(a)
			got.mustUnlock()
			a.mustTry(key, c.hold()...).mustUnlock()
			continue
		}
		for _, times := range []int{1, 3} {
			for range times {
				b.tap.next(op, lose)
			}
			p := b.goLock(key, append(c.hold(), c.polling())...)
			got := p.granted(time.Duration(times)*within, "a lost reply: nobody is locked out by an attempt of one's own,")
			got.mustLive(a)
			got.mustUnlock()
			a.mustTry(key, c.hold()...).mustUnlock()
		}
		// TryLock makes one attempt; what it may have taken is given back.
		b.tap.next(op, lose)
		_, err := b.try(key, c.hold()...)
		c.is(err, locker.ErrUnavailable, "TryLock with a lost reply")
		a.goLock(key, append(c.hold(), c.polling())...).granted(within, "another client's TryLock with a lost reply").mustUnlock()
	}
}

// lostReplyInLine: who may already hold the key without knowing it must not wait in line
// behind those who wait for it.
func lostReplyInLine(c *trial) {
	a := c.client()
	key := c.key("k")
	gate := make(chan struct{})
	a.tap.next(opAcquire, loseAfter(gate))
	p := a.goLock(key, append(c.hold(), c.polling())...)
	c.settle()
	q := a.goLock(key, append(c.hold(), c.polling())...)
	c.settle()
	close(gate)
	within := 3*c.unit() + c.prompt()
	p.granted(within, "a lost reply, while another one of the process waits for the key,").mustUnlock()
	q.granted(within, "the release").mustUnlock()
}

// lostReplyExpired: what the lost reply granted is over before the next attempt.
func lostReplyExpired(c *trial) {
	a, b := c.client(), c.client()
	key := c.key("k")
	// The second attempt follows the first at once, and is lost too.
	a.tap.next(opAcquire, lose)
	if a.waits() {
		a.tap.next(opWait, lose)
	} else {
		a.tap.next(opAcquire, lose)
	}
	retry := locker.WithRetry(locker.Retry{Attempts: locker.Forever, Delay: c.unit() + 2*c.prompt()})
	p := a.goLock(key, locker.WithTTL(c.unit()), retry)
	got := p.granted(2*(c.unit()+3*c.prompt()), "a lost reply and the end of the ttl that it began")
	c.must(got.deadline().After(got.at.Add(c.unit()/2)), "the lease that Lock returns is a new one", "its deadline is %s after the return", got.deadline().Sub(got.at))
	if c.suite.virtual {
		got.mustLive(b)
	}
}
