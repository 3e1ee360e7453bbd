package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var waitCases = []Case{
	{ID: "WAIT-001", Kinds: both, CoreLoop: true, fn: wokenByRelease, Clause: "a waiter is woken by the release, not by the next poll", Parts: []Part{
		{Name: "at-once", fn: atOnce},
		{Name: "polled", fn: foundByPoll},
		{Name: "many-keys", fn: watchedAtOnce},
		{Name: "crowd", fn: crowd},
		{Name: "gives-up", fn: firstGivesUp},
		{Name: "taken-back", fn: wokenByTakeBack},
		passed(wokenByLostRelease)[0],
		passedPart("passed-deleted", wokenByDeletion, needCapability(driver.PromptLoss), needsDelete),
	}},
	{ID: "WAIT-002", Kinds: both, CoreLoop: true, fn: retries, Clause: "Retry: the first attempt, then up to Attempts timed ones, Delay ± Jitter apart; −1 is for ever; early wake-ups use up no attempt; exhausted is ErrHeld"},
	{ID: "WAIT-003", Kinds: both, CoreLoop: true, fn: wakeUpPassedOn, Clause: "a waiter that gives up at the moment of a release never swallows the wake-up", Parts: []Part{{Name: "pace", fn: ownPace}, {Name: "other-keys", fn: othersGoOn}}},
	{ID: "WAIT-004", Kinds: both, CoreLoop: true, fn: inLine, Clause: "FIFO among the waiters of one process", Parts: []Part{{Name: "mixed", fn: mixedInQueue}}},
	{ID: "WAIT-005", Kinds: both, fn: noRetryAfter, Clause: "retry never applies to Unlock or Extend contention"},
	{ID: "WAIT-006", Kinds: both, CoreLoop: true, Clause: "while waiting, a backend that is down and comes back does not leave the waiter stuck", Parts: []Part{
		{Name: "outage", fn: outageWhileWaiting},
		{Name: "lost-reply", fn: lostReply},
		{Name: "lost-reply-in-line", fn: lostReplyInLine},
		{Name: "lost-reply-expired", Kinds: []Kind{Lease}, fn: lostReplyExpired},
		{Name: "patient", Needs: []Need{needsKill, needsNotifier}, fn: func(c *trial) { restartedMeanwhile(c, c.Unit(), (*trial).hinted) }},
		{Name: "polls", Needs: []Need{needsKill}, fn: func(c *trial) { restartedMeanwhile(c, 3*c.recovery(), (*trial).often) }},
	}},
	{ID: "WAIT-007", Kinds: both, CoreLoop: true, fn: turnsEnd, Clause: "waiters of one process do not keep those of another out: a process's turn is bounded, in number and in time", Parts: []Part{
		{Name: "mixed", fn: mixedTurns},
		{Name: "unlike", fn: unlikeTurns},
		passedPart("slow", slowTurns),
		{Name: "crowds", fn: crowdsInTurn},
		{Name: "gone", Needs: []Need{needsCrash}, fn: nextIsGone},
	}},
}

func wokenByRelease(c *trial) {
	a, b := c.client(), c.client()
	r := c.Rand()
	for _, waiter := range []*client{b, a} {
		for round := range c.Rounds(20, 5) {
			key := c.Key(fmt.Sprint(waiter.name, " ", round))
			h := a.mustTry(key, c.hold()...)
			p := waiter.goLock(key, append(c.hold(), harness.Patient())...)
			if round%2 == 0 {
				c.Settle()
			} else {
				c.Sleep(time.Duration(r.Int64N(int64(c.Granularity())))) // also at worse moments
			}
			c.Must(!harness.IsClosed(p.done), "the waiter waits while the key is held", "Lock returned: %v", p.outcome())
			h.mustUnlock()
			released := time.Now()
			got := p.granted(c.Limit(), "the release")
			late := p.at.Sub(released)
			c.Must(late <= c.Prompt(), fmt.Sprintf("the waiter has the lock no more than %s after the release", c.Prompt()), "%s after (its next poll would have been after %s)", late, far)
			got.mustUnlock()
		}
	}

	if c.Failed() {
		return
	}
	// One release, one waiter: each of many gets the key in turn.
	key := c.Key("many")
	h := a.mustTry(key, c.hold()...)
	var all []*pending
	for i := range 6 {
		all = append(all, []*client{a, b}[i%2].goLock(key, append(c.hold(), harness.Patient())...))
	}
	c.Settle()
	h.mustUnlock()
	for range all {
		i, p := c.first(all)
		p.granted(c.Limit(), "the release").mustUnlock()
		all = slices.Delete(all, i, i+1)
	}

	// Nor does a lease that has been passed from one to the other in the same process, but is
	// then not passed on, leave the next one asleep: a session cannot be passed, and the second
	// time an Extend may yet arrive.
	key = c.Key("passed")
	h = a.mustTry(key, locker.WithTTL(far))
	p := a.goLock(key, locker.WithTTL(far), harness.Patient())
	c.Settle()
	q := a.goLock(key, append(c.hold(), harness.Patient())...)
	c.Settle()
	h.mustUnlock()
	h = p.granted(c.Limit(), "the release")
	c.Settle()
	if c.leaf.kind == Lease {
		a.tap.Next(harness.OpExtend, harness.Refuse)
		c.Claim("WAIT-005").Is(h.extend(far), locker.ErrUnavailable, "Extend with a lost request")
	}
	h.mustUnlock()
	released := time.Now()
	q.granted(c.Limit(), "the release").mustUnlock()
	late := q.at.Sub(released)
	c.Must(late <= c.Prompt(), fmt.Sprintf("the waiter has the lock no more than %s after the release", c.Prompt()), "%s after", late)
}

// foundByPoll: whether wake-ups come or not, the next poll finds a release.
func foundByPoll(c *trial) {
	a, b := c.client(), c.client()
	for i, w := range []*client{b, a, b} {
		h := a.mustTry(c.Key(fmt.Sprint(i)), c.hold()...)
		p := w.goLock(h.Key(), append(c.hold(), c.Polling())...)
		c.Settle()
		h.mustUnlock()
		p.granted(c.HandOver(), "the release, by its next poll at the latest,").mustUnlock()
	}
}

// wokenByLostRelease: an Unlock that finds its hold gone is a wake-up too. Nobody else tells the
// next waiter of this Locker where the store announces nothing, and while holds are handed off it
// makes no attempts.
func wokenByLostRelease(c *trial) {
	a := c.client()
	a.tap.Deaf()
	for range c.Rounds(3, 2) {
		key := c.Key("k")
		h := a.mustTry(key, locker.WithTTL(far))
		p := a.goLock(key, locker.WithTTL(far), harness.Patient())
		c.Settle()
		q := a.goLock(key, locker.WithTTL(far), harness.Patient())
		c.Settle()
		h.mustUnlock()
		h = p.granted(c.Limit(), "the release")
		c.Settle()
		c.OK(a.tap.Vanish(c.CtxFor(c.Limit()), key), "the driver's Release of what is held")
		c.Claim("REL-002").Is(h.unlock(), locker.ErrLost, "Unlock of what is gone")
		unlocked := time.Now()
		got := q.granted(c.Limit(), "an Unlock that found its hold gone")
		late := q.at.Sub(unlocked)
		c.Must(late <= c.Prompt(), fmt.Sprintf("the waiter has the free key no more than %s after that Unlock", c.Prompt()), "%s after", late)
		got.mustUnlock()
	}
}

// ownPace: a waiter that comes to the front of its queue because the one before gave up goes on
// at its own pace, whatever the other's was.
func ownPace(c *trial) {
	a, b := c.client(), c.client()
	a.tap.Deaf()
	for _, before := range []locker.Option{harness.Patient(), locker.WithRetry(locker.Retry{Attempts: 1, Delay: c.Unit() / 2, Jitter: 1})} {
		key := c.Key("k")
		h := b.mustTry(key, c.hold()...)
		p := a.goLock(key, append(c.hold(), before)...)
		c.Settle()
		q := a.goLock(key, append(c.hold(), c.Polling())...)
		c.Settle()
		p.stop(nil)
		err := p.refused(c.Limit(), "the end of its patience or ctx")
		if c.Virtual || !errors.Is(err, locker.ErrUnavailable) { // elsewhere its first attempt may still be under way
			c.Is(err, locker.ErrHeld, "a waiter that gives up")
		}
		c.Settle()
		h.mustUnlock()
		q.granted(c.HandOver(), "the release, which nobody told of").mustUnlock()
	}
}

// first waits for the first of all to return.
func (c *trial) first(all []*pending) (int, *pending) {
	timeout := time.NewTimer(c.Limit())
	defer timeout.Stop()
	found := make(chan int, len(all))
	quit := make(chan struct{})
	defer close(quit)
	for i, p := range all {
		c.Spawn(func() {
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
	case <-c.Ctx.Done():
		runtime.Goexit()
	case <-timeout.C:
	}
	c.Claim("WAIT-001").Fatal("one of those who wait gets the key after its release", "none does within %s", c.Limit())
	return 0, nil
}

func retries(c *trial) {
	a, b := c.client(), c.client()
	key := c.Key("k")
	h := a.mustTry(key, c.hold()...)
	delay := 4 * max(c.Granularity(), 5*time.Millisecond)

	for _, w := range []struct {
		timed  int
		jitter time.Duration
	}{{0, 0}, {1, 0}, {3, delay / 2}, {5, delay}} {
		r := locker.Retry{Attempts: w.timed, Delay: delay, Jitter: w.jitter}
		if w.timed == 0 {
			r.Attempts = locker.None
		}
		if w.jitter == 0 {
			r.Jitter = locker.NoJitter
		}
		calls, woken := b.tap.Count(harness.OpAcquire), b.tap.WakeUps()
		began := time.Now()
		_, err := b.lock(c.CtxFor(c.Limit()), key, append(c.hold(), locker.WithRetry(r))...)
		took := time.Since(began)
		kept := c.Claim(c.ID)
		if c.leaf.kind == Session && err == nil { // the session that is held was not kept
			kept = c.Claim("SES-001")
		}
		kept.Is(err, locker.ErrHeld, "Lock with %+v", r)
		c.IsNot(err, locker.ErrUnavailable, "Lock with %+v", r)
		c.Must(!errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled), "a Lock whose retries are used up does not blame the ctx", "%v", err)
		n := time.Duration(w.timed)
		least, most := n*(r.Delay-w.jitter), n*(r.Delay+w.jitter)+(n+1)*c.Prompt()
		c.Must(took >= least && took <= most, fmt.Sprintf("Lock with %+v gives up after %s to %s", r, least, most), "after %s", took)
		calls, woken = b.tap.Count(harness.OpAcquire)-calls, b.tap.WakeUps()-woken
		if b.waits() {
			continue // then the attempts are the backend's own affair
		}
		// The core makes one more when it comes to the front of its line, because a
		// release may have come before it listened, and one for each wake-up: a backend may
		// announce that a session was renewed. Those are not timed.
		c.Must(calls >= 1+w.timed && calls <= 2+w.timed+1+woken, fmt.Sprintf("Lock with %+v makes the first attempt and %d timed ones", r, w.timed), "%d attempts in all", calls)
	}

	// TryLock never waits, whatever the Retry.
	began := time.Now()
	_, err := b.try(key, append(c.hold(), harness.Patient())...)
	c.Is(err, locker.ErrHeld, "TryLock")
	c.Must(time.Since(began) <= c.Prompt(), "TryLock does not wait", "it took %s", time.Since(began))

	// −1 is for ever.
	short := max(c.Granularity()/2, time.Millisecond)
	p := b.goLock(key, append(c.hold(), locker.WithRetry(locker.Retry{Attempts: locker.Forever, Delay: short, Jitter: short}))...)
	c.Sleep(50 * short)
	forever := c.Claim(c.ID)
	if c.leaf.kind == Session && harness.IsClosed(p.done) && p.err == nil { // the session that is held was not kept
		forever = c.Claim("SES-001")
	}
	forever.Must(!harness.IsClosed(p.done), "with Attempts −1 Lock waits for ever", "after %s it returned: %v", 50*short, p.outcome())
	h.mustUnlock()
	p.granted(c.Limit(), "the release").mustUnlock()

	// Wake-ups that lead to nothing use up no attempt.
	if b.waits() {
		return // such a backend tells of none
	}
	h = a.mustTry(key, c.hold()...)
	retry := locker.Retry{Attempts: 2, Delay: 2 * delay, Jitter: locker.NoJitter}
	began = time.Now()
	p = b.goLock(key, append(c.hold(), locker.WithRetry(retry))...)
	for range 20 {
		c.Sleep(delay / 20)
		b.tap.Hint(key)
	}
	c.Is(p.refused(c.Limit(), "the last attempt"), locker.ErrHeld, "Lock with %+v", retry)
	c.Must(p.at.Sub(began) >= 2*retry.Delay, fmt.Sprintf("20 early wake-ups use up no attempt: Lock with %+v gives up after %s", retry, 2*retry.Delay), "after %s", p.at.Sub(began))
	h.mustLive(b)
}

// waits says whether the core leaves the waiting to the backend.
func (cl *client) waits() bool {
	_, ok := driver.As[driver.Waiter](cl.tap.Inner)
	return ok && !cl.c.CoreLoop
}

// wakeUpPassedOn: one holder, one who gives up at about the moment of the release, and one
// who must get the key whatever became of the second.
func wakeUpPassedOn(c *trial) {
	a, b := c.client(), c.client()
	r := c.Rand()
	for round := range c.Rounds(300, 40) {
		key := c.Key(fmt.Sprint(round))
		holder, fickle, steady := a, b, b
		if round%3 == 1 {
			steady = a
		} else if round%3 == 2 {
			fickle = a
		}
		h := holder.mustTry(key, c.hold()...)
		p := fickle.goLock(key, append(c.hold(), harness.Patient())...)
		c.Settle()
		q := steady.goLock(key, append(c.hold(), harness.Patient())...)
		c.Settle()
		var err error
		ctx := c.CtxFor(c.Limit())
		c.collide(r, func() { err = h.Lease.Unlock(ctx) }, func() { p.stop(nil) })
		c.Hist.Add("%s  Unlock %s → %v, while %s gives up", holder.name, c.Short(key), err, fickle.name)
		c.OK(err, "Unlock")
		released := time.Now()
		c.Await(p.done, c.Limit(), "who gives up returns")
		if p.err == nil {
			p.h.mustUnlock() // the release came first
			released = time.Now()
		} else {
			c.Must(errors.Is(p.err, context.Canceled), "who gives up gets its ctx's error", "%v", p.err)
		}
		got := q.granted(c.Limit(), "the release, at which another waiter gave up,")
		late := got.at.Sub(released)
		c.Must(late <= c.Prompt(), fmt.Sprintf("who goes on waiting has the lock no more than %s after the release", c.Prompt()), "%s after", late)
		got.mustUnlock()
	}
	if c.leaf.kind == Lease {
		c.wokenTooEarly(a, b)
	}
}

// othersGoOn: who gives up takes nothing from those who wait for other keys.
func othersGoOn(c *trial) {
	a, b := c.client(), c.client()
	for round := range 2 {
		given, kept := a.mustTry(c.Key(fmt.Sprint("given up ", round)), c.hold()...), a.mustTry(c.Key(fmt.Sprint("kept ", round)), c.hold()...)
		first, second := given, kept
		if round == 1 {
			first, second = kept, given
		}
		p, q := b.goLock(first.Key(), append(c.hold(), harness.Patient())...), b.goLock(second.Key(), append(c.hold(), harness.Patient())...)
		c.Settle()
		if round == 1 {
			p, q = q, p
		}
		p.stop(nil)
		c.Is(p.refused(c.Limit(), "the end of its ctx"), context.Canceled, "a Lock that was given up")
		c.Settle()
		kept.mustUnlock()
		released := time.Now()
		got := q.granted(c.Limit(), "the release, after a waiter for another key had given up,")
		late := got.at.Sub(released)
		c.Must(late <= c.Prompt(), fmt.Sprintf("who waits for another key than one who gives up has the lock no more than %s after the release", c.Prompt()), "%s after", late)
		got.mustUnlock()
		given.mustUnlock()
	}
}

// wokenTooEarly: the holder's release is on its way for so long that its time is up meanwhile.
// Somebody else holds the key and releases it before the store has answered. Whatever was
// to become of that release, the wake-up counts.
func (c *trial) wokenTooEarly(a, b *client) {
	unit := c.Unit()
	key := c.Key("early")
	h := a.mustTry(key, locker.WithTTL(unit))
	p := a.goLock(key, locker.WithTTL(far), harness.Patient())
	c.Settle()
	q := b.goLock(key, locker.WithTTL(far), c.Polling())
	c.Settle()
	a.tap.Next(harness.OpRelease, harness.SlowRequest(2*unit))
	unlocked := c.Spawn(func() { _ = h.unlock() })
	_, first := c.first([]*pending{p, q})
	if first == q { // otherwise the release was none of p's business
		c.Settle()
		q.h.mustUnlock()
		c.Await(unlocked, c.Limit(), "Unlock returns")
		p.granted(c.Prompt(), "a release by another client while the holder's was still under way,").mustUnlock()
		return
	}
	p.h.mustUnlock()
	q.granted(c.Limit(), "the release").mustUnlock()
	c.Await(unlocked, c.Limit(), "Unlock returns")
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
	first := c.Spawn(func() { <-begin; f() })
	second := c.Spawn(func() {
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
	a, b := c.client(), c.client()
	for round := range c.Rounds(10, 3) {
		c.again(func(try int, last bool) bool {
			got, want := c.served(a, []*client{a, b}[round%2], c.Key(fmt.Sprint(round, try)), round%3 == 1)
			inOrder := slices.Equal(got, want)
			c.Must(inOrder || !last, fmt.Sprintf("who came first is served first: %v", want), "%v", got)
			return inOrder
		})
	}
}

// served is in which order eight of a's Locks of a key of the holder are served, and in which they should be. With
// leaving some of them give up before.
func (c *trial) served(a, holder *client, key string, leaving bool) (order, want []int) {
	const n = 8
	h := holder.mustTry(key, c.hold()...)
	var (
		mu   sync.Mutex
		all  []*pending
		ends []<-chan struct{}
	)
	for i := range n {
		p := a.goLock(key, append(c.hold(), c.Polling())...)
		c.Settle() // in line before the next one comes
		all = append(all, p)
		ends = append(ends, c.Spawn(func() {
			select {
			case <-p.done:
			case <-c.Ctx.Done():
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
	want = []int{0, 1, 2, 3, 4, 5, 6, 7}
	if leaving {
		for _, i := range []int{0, 3, 7} {
			all[i].stop(nil)
			c.Await(all[i].done, c.Limit(), "who gives up returns")
			want = slices.DeleteFunc(want, func(k int) bool { return k == i })
		}
	}
	h.mustUnlock()
	for _, end := range ends {
		c.Await(end, c.Limit(), "each of %d waiters gets the lock in turn", n)
	}
	return order, want // all who add to it have ended
}

// turnsEnd: in one process there is always a waiter, and nobody keeps the key for long.
func turnsEnd(c *trial) {
	clients := []*client{c.client(), c.client()}
	for round := range c.Rounds(6, 2) {
		c.turns(clients[round%2], clients[1-round%2], c.Key(fmt.Sprint(round)), c.hold(), nil)
	}
}

// crowdsInTurn: in each of three processes somebody always waits, and each of them has its turns: no two keep the third one out.
func crowdsInTurn(c *trial) {
	const workers, most, want = 6, 10_000, 4
	clients := []*client{c.client(), c.client(), c.client()}
	h := clients[0].mustTry(c.Key("k"), c.hold()...)
	waiting := c.Polling()
	if c.Caps.Has.Has(driver.PromptLoss) {
		waiting = harness.Patient() // who polls may come in between by luck
	}
	ctx, cancel := context.WithCancel(c.Ctx)
	defer cancel()
	var mu sync.Mutex
	last := -1
	turns, without := make([]int, len(clients)), make([]int, len(clients)) // without: holds of others since its own
	granted := func(i int) {
		mu.Lock()
		defer mu.Unlock()
		if last != i {
			last = i
			turns[i]++
		}
		for other := range without {
			without[other]++
		}
		without[i] = 0
		if slices.Min(turns) >= want || slices.Max(without) >= most {
			cancel()
		}
	}
	var busy []<-chan struct{}
	for n := range workers * len(clients) {
		i := n % len(clients)
		busy = append(busy, c.Spawn(func() {
			for ctx.Err() == nil {
				s, err := clients[i].l.Lock(ctx, h.Key(), append(c.hold(), waiting)...)
				if err != nil {
					c.Must(ctx.Err() != nil, "Lock gives a hold", "%v", err)
					return
				}
				granted(i)
				c.OK(s.Unlock(c.Ctx), "Unlock of what is held")
			}
		}))
	}
	c.Settle()
	h.mustUnlock()
	for _, done := range busy {
		c.Await(done, c.Limit(), "each of three processes has %d turns", want)
	}
	for i, cl := range clients {
		c.Must(turns[i] >= want, fmt.Sprintf("each of three processes in which somebody always waits has a turn before the others had %d holds", most), "%s has had %d turns, and the others %d holds since: %v turns in all", cl.name, turns[i], without[i], turns)
	}
}

// nextIsGone: a process that has died while it waited keeps nobody waiting.
func nextIsGone(c *trial) {
	a, b := c.client(), c.client()
	for round := range c.Rounds(4, 2) {
		key := c.Key(fmt.Sprint(round))
		h := a.mustTry(key, c.hold()...)
		dies := c.client()
		gone := dies.goLock(key, append(c.hold(), c.Polling())...)
		c.Settle()
		p := b.goLock(key, append(c.hold(), c.Polling())...)
		c.Settle()
		c.target.Crash(c.T, dies.tap.Inner)
		c.Hist.Add("   (%s crashes)", dies.name)
		c.Settle()                         // its last attempt may be on its way
		patience := c.Caps.SessionValidity // its place may be a session's
		for range 3 {                      // and not only at first
			h.mustUnlock()
			h = p.granted(c.HandOver()+c.Prompt()+patience, "the release, with a process in front that has died,")
			patience = 0
			p = []*client{a, b}[round%2].goLock(key, append(c.hold(), c.Polling())...)
			c.Settle()
		}
		h.mustUnlock()
		p.granted(c.HandOver()+c.Prompt(), "the release, with a process in front that has died,").mustUnlock()
		gone.stop(nil)
	}
}

func noRetryAfter(c *trial) {
	a := c.clientWith(locker.Config{Retry: locker.Retry{Attempts: locker.Forever, Delay: far, Jitter: locker.NoJitter}})
	b := c.client()

	// one makes sure that f, which fails, asks the backend once and does not wait.
	one := func(what, op string, f func() error, target error) {
		calls, began := a.tap.Count(op), time.Now()
		err := f()
		c.Is(err, target, "%s", what)
		took := time.Since(began)
		c.Must(took <= c.Prompt(), what+" does not wait", "it took %s", took)
		calls = a.tap.Count(op) - calls
		c.Must(calls == 1, what+" asks the backend once", "%d times", calls)
	}
	if c.leaf.kind == Lease {
		h := a.mustTry(c.Key("extend, down"), c.hold()...)
		a.tap.Next(harness.OpExtend, harness.Refuse)
		one("Extend while the backend is down", harness.OpExtend, func() error { return h.extend(far) }, locker.ErrUnavailable)
		h.mustUnlock()
		h = a.mustTry(c.Key("extend, lost"), c.hold()...)
		a.tap.Next(harness.OpExtend, harness.Answer(driver.ErrLost))
		one("Extend of what is lost", harness.OpExtend, func() error { return h.extend(far) }, locker.ErrLost)
	}
	h := a.mustTry(c.Key("unlock, lost"), c.hold()...)
	a.tap.Next(harness.OpRelease, harness.Answer(driver.ErrLost))
	one("Unlock of what is lost", harness.OpRelease, h.unlock, locker.ErrLost)

	h = a.mustTry(c.Key("unlock, down"), c.hold()...)
	a.tap.Next(harness.OpRelease, harness.Refuse)
	began := time.Now()
	c.Is(h.unlock(), locker.ErrUnavailable, "Unlock while the backend is down")
	c.Must(time.Since(began) <= c.Prompt(), "Unlock while the backend is down does not wait", "it took %s", time.Since(began))

	// And a hold that others wait for is neither harder to extend nor to unlock.
	h = a.mustTry(c.Key("wanted"), c.hold()...)
	p := b.goLock(h.Key(), append(c.hold(), c.Polling())...)
	c.Settle()
	if c.leaf.kind == Lease {
		c.OK(h.extend(far), "Extend of a hold that others wait for")
	}
	h.mustUnlock()
	p.granted(c.HandOver(), "the release").mustUnlock()
}

func outageWhileWaiting(c *trial) {
	a, b := c.client(), c.client()
	within := 3*c.Unit() + c.Prompt()
	for i, what := range []string{"the key is released during the outage", "the key is released after the outage", "the outage comes first"} {
		key := c.Key(fmt.Sprint(i))
		h := a.mustTry(key, c.hold()...)
		if what == "the outage comes first" {
			b.tap.Down()
		}
		p := b.goLock(key, append(c.hold(), c.Polling())...)
		q := b.goLock(key, append(c.hold(), c.Polling())...)
		c.Settle()
		b.tap.Down()
		c.Sleep(c.Unit() / 2)
		c.Must(!harness.IsClosed(p.done) && !harness.IsClosed(q.done), "Lock waits through an outage", "it returned: %v, %v", p.outcome(), q.outcome())
		if what == "the key is released during the outage" {
			h.mustUnlock() // the wake-up is lost
			c.Sleep(c.Unit() / 4)
		}
		b.tap.Restore()
		if what != "the key is released during the outage" {
			c.Sleep(c.Unit() / 4)
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
	within := 3*c.Unit() + c.Prompt()
	for _, op := range []string{harness.OpAcquire, harness.OpWait} {
		if op == harness.OpWait && !b.waits() {
			continue
		}
		key := c.Key(op)
		if op == harness.OpWait {
			h := a.mustTry(key, c.hold()...)
			b.tap.Next(op, harness.Lose)
			p := b.goLock(key, append(c.hold(), c.Polling())...)
			c.Settle()
			h.mustUnlock()
			got := p.granted(within, "a release whose news was lost")
			got.mustLive(a)
			got.mustUnlock()
			a.mustTry(key, c.hold()...).mustUnlock()
			continue
		}
		for _, times := range []int{1, 3} {
			for range times {
				b.tap.Next(op, harness.Lose)
			}
			p := b.goLock(key, append(c.hold(), c.Polling())...)
			got := p.granted(time.Duration(times)*within, "a lost reply: nobody is locked out by an attempt of one's own,")
			got.mustLive(a)
			got.mustUnlock()
			a.mustTry(key, c.hold()...).mustUnlock()
		}
		// TryLock makes one attempt; what it may have taken is given back.
		b.tap.Next(op, harness.Lose)
		_, err := b.try(key, c.hold()...)
		c.Is(err, locker.ErrUnavailable, "TryLock with a lost reply")
		a.goLock(key, append(c.hold(), c.Polling())...).granted(within, "another client's TryLock with a lost reply").mustUnlock()
	}
}

// lostReplyInLine: who may already hold the key without knowing it must not wait in line
// behind those who wait for it.
func lostReplyInLine(c *trial) {
	a := c.client()
	key := c.Key("k")
	carried, gate := make(chan struct{}), make(chan struct{})
	a.tap.Next(harness.OpAcquire, harness.LoseAfter(carried, gate))
	p := a.goLock(key, append(c.hold(), c.Polling())...)
	c.Await(carried, c.Limit(), "the attempt of a Lock of a free key comes to the store")
	q := a.goLock(key, append(c.hold(), c.Polling())...)
	c.Settle()
	close(gate)
	within := 3*c.Unit() + c.Prompt()
	p.granted(within, "a lost reply, while another one of the process waits for the key,").mustUnlock()
	q.granted(within, "the release").mustUnlock()
}

// lostReplyExpired: what the lost reply granted is over before the next attempt.
func lostReplyExpired(c *trial) {
	a, b := c.client(), c.client()
	key := c.Key("k")
	// The second attempt follows the first at once, and is lost too.
	a.tap.Next(harness.OpAcquire, harness.Lose)
	if a.waits() {
		a.tap.Next(harness.OpWait, harness.Lose)
	} else {
		a.tap.Next(harness.OpAcquire, harness.Lose)
	}
	retry := locker.WithRetry(locker.Retry{Attempts: locker.Forever, Delay: c.Unit() + 2*c.Prompt(), Jitter: locker.NoJitter})
	p := a.goLock(key, locker.WithTTL(c.Unit()), retry)
	got := p.granted(2*(c.Unit()+3*c.Prompt()), "a lost reply and the end of the ttl that it began")
	c.Must(got.deadline().After(got.at.Add(c.Unit()/2)), "the lease that Lock returns is a new one", "its deadline is %s after the return", got.deadline().Sub(got.at))
	if c.Virtual {
		got.mustLive(b)
	}
}

// restartedMeanwhile: who waits without polls, or with many, finds the key free after the store has died and come back
// empty. The attempt that it makes when it hears that its connection broke is in vain.
func restartedMeanwhile(c *trial, outage time.Duration, waits func(*trial, *client) locker.Option) {
	a, w := c.near(), c.near()
	h := a.mustTry(c.Key("k"), c.hold()...)
	p := w.goLock(h.Key(), append(c.hold(), waits(c, w))...)
	c.Settle()
	restart := c.dies()
	c.Sleep(outage)
	waiting := !harness.IsClosed(p.done)
	restart()
	c.Must(waiting, "a waiter waits through the outage", "Lock returned: %v", p.outcome())
	p.granted(c.recovery(), "the store came back").mustUnlock()
}

// often asks as often as the most impatient would.
func (c *trial) often(*client) locker.Option {
	return locker.WithRetry(locker.Retry{Attempts: locker.Forever, Delay: max(c.Granularity()/4, time.Millisecond), Jitter: locker.NoJitter})
}

// wokenByTakeBack: somebody waits for a key that was granted to an attempt which had given up. When that is taken
// back, the waiter is woken.
func wokenByTakeBack(c *trial) {
	a, b := c.client(), c.client()
	for _, waiter := range []*client{a, b} {
		waits := c.Polling()
		if c.announced(waiter) {
			waits = harness.Patient()
		}
		key := c.Key(waiter.name)
		carried := make(chan struct{})
		a.tap.Next(harness.OpAcquire, harness.LoseAfter(carried, nil))
		ctx, cancel := context.WithCancel(c.Ctx)
		var err error
		tried := c.Spawn(func() { _, err = a.tryCtx(ctx, key, c.hold()...) })
		c.Await(carried, c.Limit(), "the attempt of a TryLock of a free key comes to the store")
		p := waiter.goLock(key, append(c.hold(), waits)...)
		c.Settle()
		cancel()
		c.Await(tried, c.Limit(), "TryLock returns when its ctx ends")
		c.Is(err, context.Canceled, "a TryLock whose ctx ends before the reply comes")
		within := c.HandOver() + c.Unit()
		select {
		case <-p.done:
		case <-c.Ctx.Done():
		case <-time.After(within):
			if g, err := c.raw().acquire(key, c.Owner(), c.Unit()); err != nil {
				c.Claim("CTX-004").Fatal("an attempt that gave up before the reply came is taken back", "the key is not free: %v", err)
			} else {
				_ = g.release()
			}
			c.Fatal("a waiter is woken when who held the key without knowing it was taken back", "the key is free, and it waits %s later", within)
		}
		p.granted(within, "who held the key without knowing it was taken back").mustUnlock()
	}
}

// hinted is how w waits where the store's own hints are to wake it: without a poll, unless it has no hints.
func (c *trial) hinted(w *client) locker.Option {
	if w.waits() || !c.announcedBy(c.near, w) {
		return c.Polling()
	}
	return harness.Patient()
}
