package locker

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// queues are the waiters of this Locker, a queue for each key that somebody waits for, first
// come, first served (WAIT-004).
//
// mu is taken before a mutex of the backend (Notify and stop are called under it) and after
// none: neither wake nor Listener.Lost, which a backend calls, takes it.
type queues struct {
	l        *core
	notifier driver.Notifier // nil: the timers alone
	handoff  driver.Handoff  // nil: a hold is released before the next one is granted
	queued   ask             // the attempts of those who wait, or would

	mu sync.Mutex
	m  map[string]*queue
}

// queue is the waiters for one key. Only its goroutine, serve, asks the store, on behalf of the
// first one: a thousand waiters cost the store no more than one, and a wake-up goes to the one
// it belongs to.
//
// Where the backend is a driver.Handoff, an Unlock of this process hands the first waiter its
// hold without an attempt. While that goes on serve sleeps, because an attempt would only find
// another goroutine of this process holding the lock. It wakes with a hint of the backend, when
// a hold of this process was lost, and when the time of what was handed off last is up. A hint
// that comes while a hold is on its way says nothing: of many processes that want the key there
// are such hints all the time, and an attempt would end the turn.
type queue struct {
	key     string
	waiters []*waiter
	wake    chan struct{} // capacity 1: an attempt may succeed, or the front has changed
	stop    func()        // ends the backend's hints
	last    error         // the last obstacle
	down    bool          // the last attempt met an outage
	unknown int           // how many waiters have an attempt of unknown outcome
	quiet   time.Duration // until then, on the Locker's clock, serve's timer means nothing: a hold was handed off
	pause   time.Duration // until then, on the Locker's clock, serve makes no attempt, whatever wakes it
	missed  bool          // serve was woken while the first one was being handed a hold
	timer   *time.Timer   // serve's
	armed   time.Duration // when it rings
}

// waiter is one Lock that waits. queues.mu guards what may change.
type waiter struct {
	attempt
	ctx    context.Context
	retry  Retry
	done   chan error // capacity 1: the outcome
	state  waiterState
	final  bool // its next attempt is its last
	counts bool // in queue.unknown
	handed driver.Handed
	sent   time.Duration // when handed began to count
}

type waiterState uint8

const (
	queueing waiterState = iota
	inFlight             // serve makes an attempt for it: one owner asks for one thing at a time
	offered              // an Unlock is about to hand it a hold; no attempt is made meanwhile
	deserted             // it gave up while it was offered one
	settled              // its outcome is in done, or on the way there
)

const never = time.Duration(math.MaxInt64)

func (qs *queues) acquire(ctx context.Context, a attempt, r Retry) (attempt, error) {
	err := driver.ErrHeld
	if r.Attempts == 0 || !qs.busy(a.lease.key) { // otherwise others are first (WAIT-004)
		how := qs.queued
		if r.Attempts == 0 {
			how = qs.l.backend.Acquire
		}
		err = a.ask(ctx, how)
		if r.Attempts == 0 || err == nil || !mayRetry(err) || ctx.Err() != nil {
			return a, err
		}
	}
	a.waits(ctx, err)
	for {
		q, w := qs.join(ctx, a, r, err)
		if w == nil {
			return a, driver.ErrClosed
		}
		r.Attempts, err = qs.await(q, w)
		a = w.attempt
		// serve goes on by itself after a grant that was too late. What was handed off has no serve
		// behind it, and w has left its queue.
		if !isTooLate(err) || r.Attempts == 0 || ctx.Err() != nil || qs.l.closing.Err() != nil {
			return a, qs.l.unlessClosing(ctx, err)
		}
	}
}

func (qs *queues) busy(key string) bool {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	return qs.m[key] != nil
}

func (qs *queues) join(ctx context.Context, a attempt, r Retry, first error) (*queue, *waiter) {
	key := a.lease.key
	qs.mu.Lock()
	defer qs.mu.Unlock()
	q := qs.m[key]
	if q == nil {
		if !qs.l.background.enter() {
			return nil, nil
		}
		q = &queue{key: key, wake: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
		q.timer.Stop() // serve sets it
		q.meetsLocked(qs.l, first)
		if qs.m == nil {
			qs.m = make(map[string]*queue)
		}
		qs.m[key] = q
		if qs.notifier != nil {
			q.stop = qs.notifier.Notify(key, func() { poke(q.wake) })
		}
		go qs.serve(q)
	}
	w := &waiter{attempt: a, ctx: ctx, retry: r, done: make(chan error, 1)}
	q.waiters = append(q.waiters, w)
	q.countLocked(w, a.unknown && codeOf(first) == CodeUnavailable)
	return q, w
}

// poke tells the goroutine that listens to c, which has room for one, to look.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// countLocked notes whether w's last attempt had an unknown outcome. Until it is answered the
// others would wait for a lock that may be w's own.
func (q *queue) countLocked(w *waiter, unknown bool) {
	switch {
	case unknown && !w.counts:
		q.unknown++
	case !unknown && w.counts:
		q.unknown--
	}
	w.counts = unknown
}

// await is the waiting of w: until it has a hold, or its patience or ctx ends. It returns how many
// timed attempts are left.
func (qs *queues) await(q *queue, w *waiter) (int, error) {
	var timer *time.Timer
	var ticks <-chan time.Time // the timed attempts, where they have an end
	left := w.retry.Attempts
	if left > 0 {
		timer = time.NewTimer(w.retry.next())
		defer timer.Stop()
		ticks = timer.C
	}
	for {
		select {
		case err := <-w.done:
			return left, qs.outcome(q, w, err)
		case <-ticks:
			if left--; qs.tick(q, w, left == 0) {
				if left > 0 {
					timer.Reset(w.retry.next())
				}
				continue
			}
		case <-w.ctx.Done():
		case <-qs.l.closing.Done():
		}
		return left, qs.leave(q, w)
	}
}

// outcome is what w returns after done. Only now is an attempt made for the next waiter: a
// holder that unlocks at once hands its hold off rather than to meet that attempt.
func (qs *queues) outcome(q *queue, w *waiter, err error) error {
	if err != nil || w.handed.Token == 0 {
		poke(q.wake)
		return err
	}
	w.lease.seq = w.handed.Owner.Seq // the store knows the hold by this name
	return w.granted(w.handed.Grant, w.sent)
}

// leave takes w from the queue and returns why it has nothing. If it is too late for that, what
// has come counts. The next waiter is asked for at once: no wake-up is swallowed by one that
// gives up (WAIT-003).
func (qs *queues) leave(q *queue, w *waiter) error {
	qs.mu.Lock()
	switch w.state {
	case inFlight, settled: // an attempt ends soon after its ctx
		qs.mu.Unlock()
		return qs.outcome(q, w, <-w.done)
	case offered:
		w.state = deserted
	}
	defer qs.mu.Unlock()
	qs.removeLocked(q, w)
	return q.last
}

// removeLocked takes w from q, and with the last one q from the queues.
func (qs *queues) removeLocked(q *queue, w *waiter) {
	switch i := slices.Index(q.waiters, w); {
	case i == 0:
		q.waiters[0] = nil
		q.waiters = q.waiters[1:] // without moving the others
		if w.state != settled {
			poke(q.wake)
		}
	case i > 0:
		q.waiters = slices.Delete(q.waiters, i, i+1)
		if w.counts && w.state != settled {
			// Its attempts came before the first one's, whose timer may be off. Its clean-up gives a
			// hint too, but only once the store answers that.
			poke(q.wake)
		}
	}
	q.countLocked(w, false)
	if len(q.waiters) == 0 && qs.m[q.key] == q {
		delete(qs.m, q.key)
		if q.down {
			qs.l.tellUnwatched(q.key, q.last)
		}
		if q.stop != nil {
			q.stop()
		}
		poke(q.wake) // serve ends
	}
}

// tick is one of w's timed attempts, final for the last one. It reports false if w makes no
// attempt any more: it is not the one that serve would make one for, and its patience has ended.
func (qs *queues) tick(q *queue, w *waiter, final bool) bool {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	w.final = final // also where it leaves now: it may become the first, and have an attempt in flight, before it does
	// As in claim: a doubt comes before the first one.
	if w.state == queueing && !w.counts && (q.waiters[0] != w || q.unknown > 0) {
		return !final
	}
	poke(q.wake)
	return true
}

// serve makes the attempts of q until nobody waits.
func (qs *queues) serve(q *queue) {
	defer qs.l.background.leave()
	defer q.timer.Stop()
	// The first attempt comes at once: after the hints were asked for, so that a release between
	// the two is not missed. Not by a timer that is due: of a thousand such in one bubble of
	// testing/synctest, several run at a time, and the race detector of Go 1.26 does not survive it.
	for first := true; ; first = false {
		woken := false
		if !first {
			select {
			case <-q.wake:
				woken = true
			case <-q.timer.C:
			}
		}
		w, more := qs.claim(q, woken)
		if !more {
			return
		}
		if w != nil {
			ctx, cancel := qs.l.untilClose(w.ctx)
			err := w.ask(ctx, qs.queued)
			qs.conclude(ctx, q, w, err)
			cancel()
		}
	}
}

// claim chooses whom to make an attempt for, if it is time for one. more is false when nobody
// waits, and q is no more.
func (qs *queues) claim(q *queue, woken bool) (w *waiter, more bool) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	if len(q.waiters) == 0 {
		return nil, false
	}
	if qs.l.closing.Err() != nil {
		return nil, true // the waiters leave by themselves, and then wake us
	}
	now, until := qs.l.now(), q.pause
	if !woken {
		until = max(until, q.quiet)
	}
	if now < until {
		if woken {
			q.quiet = 0 // the hint will not come again: the timer has to mean something after the pause
		}
		q.armLocked(now, until)
		return nil, true
	}
	w = q.waiters[0]
	if q.unknown > 0 { // see countLocked
		w = q.waiters[slices.IndexFunc(q.waiters, func(w *waiter) bool { return w.counts })]
	}
	if w.state != queueing {
		q.missed = true // the hint will not come again
		return nil, true
	}
	w.state, q.quiet = inFlight, 0
	return w, true
}

// conclude notes what the attempt for w met, and when the next one is due.
func (qs *queues) conclude(ctx context.Context, q *queue, w *waiter, err error) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	retry := err != nil && mayRetry(err)
	if retry && cutShort(ctx, err) {
		err = q.last
	} else {
		q.meetsLocked(qs.l, err)
	}
	if !retry || w.final || w.ctx.Err() != nil || qs.l.closing.Err() != nil { // in the end w waits for this
		w.state = settled
		qs.removeLocked(q, w)
		w.done <- err // and w wakes us for the one that is first now
		return
	}
	w.state = queueing
	q.countLocked(w, w.unknown && codeOf(err) == CodeUnavailable)
	if q.waiters[0] != w && !w.counts {
		poke(q.wake) // it was the first one's turn
		return
	}
	next, now := never, qs.l.now()
	if w.retry.Attempts == Forever { // the fallback: no hint may come; await times attempts that are counted
		next = now + w.retry.next()
	}
	if left, ok := driver.Remaining(err); ok && left >= 0 && left < never-now-time.Millisecond {
		next = min(next, now+left+time.Millisecond) // stores announce an expiry late or never (TTL-001)
	}
	if isTooLate(err) {
		// Giving it back gives a hint: taken at once, it would lead round and round as fast as the
		// store answers.
		q.pause = now + w.retry.next()
		next = min(next, q.pause)
	}
	q.armLocked(now, next)
}

// armLocked sets serve's timer.
func (q *queue) armLocked(now, at time.Duration) {
	if q.armed = at; at == never {
		q.timer.Stop()
	} else {
		q.timer.Reset(at - now)
	}
}

// release hands the hold of s to the first waiter of its key, or frees it.
func (qs *queues) release(ctx context.Context, s *Lease, again bool) error {
	if !qs.mayHandOff(s, again) {
		return qs.free(ctx, s.holder())
	}
	h, own := s.holder(), true
	for {
		q, w := qs.offer(h.Key)
		if w == nil {
			break
		}
		sent := qs.l.now()
		g, err := qs.handoff.HandOff(ctx, h, w.request())
		if !g.From.IsZero() {
			sent = g.From.Sub(qs.l.epoch)
		}
		if !qs.handOver(q, w, g, err, sent) { // it has given up meanwhile: the hold goes to the next one
			h.Token, h.Owner, own = g.Token, g.Owner, false
			continue
		}
		if errors.Is(err, driver.ErrYielded) {
			err = nil
		}
		return qs.released(s, h, own, err, w.ttl)
	}
	return qs.released(s, h, own, qs.free(ctx, h), 0)
}

// released is the outcome of s's Unlock, when err came of the release of h, which is the hold of
// s or one that it was handed off as. ttl is what was asked for in the same step.
func (qs *queues) released(s *Lease, h driver.Holder, own bool, err error, ttl time.Duration) error {
	if own {
		if err != nil {
			s.mu.Lock()
			s.own().longest = max(s.extra.longest, ttl)
			s.mu.Unlock()
		}
		return err
	}
	if err != nil && !errors.Is(err, driver.ErrLost) {
		s.mu.Lock()
		left := max(s.leftLocked(), ttl)
		s.mu.Unlock()
		qs.l.abandon(h, left) // s itself has been released
	}
	return nil
}

// mayHandOff says whether what s holds can be handed off rather than freed.
func (qs *queues) mayHandOff(s *Lease, again bool) bool {
	if qs.handoff == nil || again || s.session {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.mayBeChangedLocked()
}

// free releases h, and wakes the queue of its key where the backend has not done so: it gives
// no hints, or it knew nothing of the hold any more.
func (qs *queues) free(ctx context.Context, h driver.Holder) error {
	err := qs.l.backend.Release(ctx, h)
	if err == nil && qs.notifier == nil || errors.Is(err, driver.ErrLost) {
		qs.wake(h.Key)
	}
	return err
}

// wake has an attempt made for the first waiter of key.
func (qs *queues) wake(key string) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	if q := qs.m[key]; q != nil {
		poke(q.wake)
	}
}

// lost has an attempt made for the waiters of what s held, if it may have been handed off to s: the hint of
// its end may have come while the hand-off was under way, and an Unlock of it wakes nobody any more.
// The backend that tells of it may hold a mutex, under which qs.mu must not be taken.
func (qs *queues) lost(s *Lease) {
	if qs.handoff == nil || s.session || !qs.l.background.enter() {
		return
	}
	go func() {
		defer qs.l.background.leave()
		qs.wake(s.key)
	}()
}

// offer reserves the first waiter, if it can be handed a lease now.
func (qs *queues) offer(key string) (*queue, *waiter) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	q := qs.m[key]
	if q == nil || len(q.waiters) == 0 {
		return nil, nil
	}
	w := q.waiters[0]
	if w.state != queueing || w.lease.session || w.unknown {
		return nil, nil
	}
	w.state = offered
	return q, w
}

// handOver gives w what was handed off, if err is nil. It reports false if w has left and the
// hold still needs a holder.
func (qs *queues) handOver(q *queue, w *waiter, g driver.Handed, err error, sent time.Duration) bool {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	missed := q.missed
	q.missed = false
	switch {
	case w.state == deserted:
		if err != nil { // the key is free, or somebody else's: the next one was not told
			poke(q.wake)
		}
		return err != nil
	case err != nil:
		w.state = queueing
		poke(q.wake)
		return true
	}
	w.state, w.handed, w.sent = settled, g, sent
	w.done <- nil
	q.waiters[0] = nil
	if q.waiters = q.waiters[1:]; len(q.waiters) == 0 {
		qs.removeLocked(q, w)
		return true
	}
	q.quiet = sent + g.TTL + time.Millisecond
	if !qs.l.caps.Has.Has(driver.PromptLoss) { // nobody says that it was deleted: look now and then
		q.quiet = min(q.quiet, sent+q.waiters[0].retry.next())
	}
	if missed || q.quiet < q.armed { // a later time it finds when it rings
		q.armLocked(qs.l.now(), q.quiet)
	}
	return true
}

// meetsLocked notes what an attempt met, which is nil for a grant. An outage is told of once
// when it begins and once when it ends, by however many waiters it is met.
func (q *queue) meetsLocked(l *core, err error) {
	was, is := q.down, err != nil && codeOf(err) == CodeUnavailable
	if q.down = is; was != is {
		l.tellOutage(q.key, is, err)
	}
	if err != nil && mayRetry(err) {
		q.last = err
	}
}
