package locker

import (
	"context"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// queues are the lines of waiters of this process, one a key (WAIT-004). Only the
// first in line makes attempts, so that a thousand waiters cost the store no more
// than one, and a wake-up goes to whom it belongs.
//
// mu is taken before a mutex of the backend (Notify and stop are called under it) and
// after none: neither wake nor Listener.Lost, which a backend calls, takes it.
type queues struct {
	mu sync.Mutex
	m  map[string]*queue
}

// queue is one line. The first one in it is called to the front and makes attempts from
// then on. But where the backend is a driver.Passer, a holder of this process passes its
// hold to the first one, called or not. As long as that goes on nobody is called, because
// an attempt would only find the holder of the next room; an attendant listens to the
// wake-ups meanwhile.
type queue struct {
	key  string
	line []*waiting // the first one is in front
	wake chan struct{}
	stop func()
	last error // the front's last obstacle

	attended bool
	due      time.Duration // when what was passed last is over, on the Locker's clock
	timer    *time.Timer   // the attendant's
	armed    time.Duration // when it rings
	over     chan struct{} // closed with the line, to end the attendant
}

// waiting is one who waits. queues.mu guards it, but for s and signal.
type waiting struct {
	s      *Lease
	signal chan struct{} // something below has changed; see poke
	called bool
	missed bool // it wanted to make an attempt while it was offered a hold
	state  waitingState
	passed driver.Grant
	sent   time.Duration // when passed began to count
}

type waitingState uint8

const (
	parked  waitingState = iota
	trying               // makes an attempt: one owner asks for one thing at a time
	offered              // somebody is about to pass it a hold; it makes no attempt meanwhile
	served               // it was passed one
	left                 // it gave up while it was offered one
)

func (q *queues) busy(key string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.m[key] != nil
}

func (l *Locker) join(s *Lease, first error) (*queue, *waiting) {
	qs, key := &l.queues, s.key
	qs.mu.Lock()
	defer qs.mu.Unlock()
	q := qs.m[key]
	w := &waiting{s: s, signal: make(chan struct{}, 1)}
	if q == nil {
		q = &queue{key: key, wake: make(chan struct{}, 1), last: first}
		if qs.m == nil {
			qs.m = make(map[string]*queue)
		}
		qs.m[key] = q
		if l.notifier != nil {
			q.stop = l.notifier.Notify(key, func() { poke(q.wake) })
		}
		w.call()
	}
	q.line = append(q.line, w)
	return q, w
}

// poke tells who listens to c, which has room for one, to look.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// call tells w, once, that it is in front. queues.mu is held.
func (w *waiting) call() {
	if !w.called {
		w.called = true
		poke(w.signal)
	}
}

// leaveLine lets the next one come to the front, who makes an attempt at once: no
// wake-up is swallowed by one who gives up (WAIT-003). It reports whether w has been
// passed a hold.
func (l *Locker) leaveLine(q *queue, w *waiting) bool {
	qs := &l.queues
	qs.mu.Lock()
	defer qs.mu.Unlock()
	if w.state == served {
		return true // and has left the line
	}
	if w.state == offered {
		w.state = left
	}
	for i, other := range q.line {
		if other != w {
			continue
		}
		if i > 0 {
			q.line = append(q.line[:i], q.line[i+1:]...)
		} else if q.line = q.line[1:]; len(q.line) > 0 {
			q.line[0].call()
		}
		break
	}
	l.dissolve(q)
	return false
}

// dissolve forgets a line that is empty. queues.mu is held.
func (l *Locker) dissolve(q *queue) {
	if len(q.line) > 0 || l.queues.m[q.key] != q {
		return
	}
	delete(l.queues.m, q.key)
	if q.stop != nil {
		q.stop()
	}
	if q.attended {
		close(q.over)
	}
}

// look says whether w is in front, whether it has been passed a hold, and whether it has
// to make up for an attempt. One whose timer rang need not have been called to be in front.
func (l *Locker) look(q *queue, w *waiting, timer bool) (inFront, got, missed bool) {
	l.queues.mu.Lock()
	defer l.queues.mu.Unlock()
	if timer && w.state != served && q.line[0] == w {
		w.call()
	}
	if w.state == parked {
		missed, w.missed = w.missed, false
	}
	return w.called, w.state == served, missed
}

// begin asks for leave to make an attempt; answered gives it back. Who is offered a hold
// has to wait for what becomes of that: then it is told to make up for the attempt, because
// the wake-up that led to it will not come again (WAIT-003).
func (l *Locker) begin(w *waiting) bool {
	l.queues.mu.Lock()
	defer l.queues.mu.Unlock()
	if w.state != parked {
		w.missed = true
		return false
	}
	w.state = trying
	return true
}

func (l *Locker) answered(w *waiting) {
	l.queues.mu.Lock()
	defer l.queues.mu.Unlock()
	w.state = parked
}

func (q *queue) lastObstacle(qs *queues) error {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	return q.last
}

func (q *queue) setObstacle(qs *queues, err error) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	q.last = err
}

// release frees what s holds, for Unlock, or passes it to the first one in line. The error
// is that of s's release alone. first is false for one whose outcome was unknown before.
func (l *Locker) release(ctx context.Context, s *Lease, first bool) error {
	if l.passer == nil || !first || s.session || s.mayBeChanged() {
		return l.free(ctx, s.holder())
	}
	own := s.holder()
	h, left := own, time.Duration(0)
	err, done := error(nil), false
	for !done {
		q, w := l.offer(h.Key)
		if w == nil {
			err = l.free(ctx, h)
			break
		}
		sent := l.now()
		var g driver.Grant
		g, err = l.passer.Pass(ctx, h, driver.Request{Key: h.Key, Owner: w.s.owner(), TTL: w.s.asked(), Hold: (*listener)(w.s)})
		if !g.From.IsZero() {
			sent = g.From.Sub(l.epoch)
		}
		if done = l.handOver(q, w, g, sent); !done {
			// It has given up meanwhile: the hold goes to the next one.
			h, left = w.s.passedAs(g), g.TTL
		}
	}
	if h == own {
		return err
	}
	if err != nil && codeOf(err) == Unavailable {
		l.abandon(h, left) // s itself has been released
	}
	return nil
}

// free releases h, and wakes who is in line for its key where the backend gives no hints.
func (l *Locker) free(ctx context.Context, h driver.Holder) error {
	err := l.backend.Release(ctx, h)
	if err == nil && l.notifier == nil && l.waiter == nil {
		l.queues.mu.Lock()
		defer l.queues.mu.Unlock()
		if q := l.queues.m[h.Key]; q != nil {
			poke(q.wake)
		}
	}
	return err
}

// mayBeChanged says whether a request for s may yet reach the store. It would meet the hold
// of whoever s is passed to, under the same owner: such a hold is released instead.
func (s *Lease) mayBeChanged() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seldom().doubtful || s.seldom().late > 0 || bool(s.extending)
}

// passedAs is s's hold if it was given g: the store may know it by another owner.
func (s *Lease) passedAs(g driver.Grant) driver.Holder {
	h := s.holder()
	h.Token = g.Token
	if g.Owner != (driver.Owner{}) {
		h.Owner = g.Owner
	}
	return h
}

// offer reserves the first one in line, if it can be passed a lease now.
func (l *Locker) offer(key string) (*queue, *waiting) {
	l.queues.mu.Lock()
	defer l.queues.mu.Unlock()
	q := l.queues.m[key]
	if q == nil || len(q.line) == 0 {
		return nil, nil
	}
	w := q.line[0]
	if w.state != parked || w.s.session || w.s.unknown {
		return nil, nil
	}
	w.state = offered
	return q, w
}

// handOver gives w what was passed, if anything was. It reports false if w has left and
// the hold still needs a holder.
func (l *Locker) handOver(q *queue, w *waiting, g driver.Grant, sent time.Duration) bool {
	l.queues.mu.Lock()
	defer l.queues.mu.Unlock()
	granted := g.Token != 0
	switch {
	case w.state == left:
		return !granted
	case !granted:
		w.state = parked
		if w.missed {
			poke(w.signal)
		}
		if l.notifier == nil { // otherwise the backend has woken it, as after any release
			poke(q.wake)
		}
		return true
	}
	w.state, w.passed, w.sent = served, g, sent
	poke(w.signal)
	q.line = q.line[1:]
	if len(q.line) > 0 {
		q.due = sent + g.TTL + time.Millisecond
		switch {
		case !q.attended && l.background.enter():
			q.attended, q.over, q.armed = true, make(chan struct{}), q.due
			q.timer = time.NewTimer(q.due - l.now())
			go l.attend(q)
		case q.attended && q.due < q.armed: // later ones it finds when it rings
			q.armed = q.due
			q.timer.Reset(q.due - l.now())
		}
	}
	l.dissolve(q)
	return true
}

// attend calls the first one in line when the passing on may have come to an end: with a
// wake-up, or when the time of what was passed last is up.
func (l *Locker) attend(q *queue) {
	defer l.background.leave()
	timer := q.timer
	defer timer.Stop()
	for {
		wakened := false
		select {
		case <-q.wake:
			wakened = true
		case <-timer.C:
		case <-q.over:
			return
		case <-l.closing.Done():
			return
		}
		l.queues.mu.Lock()
		if left := q.due - l.now(); !wakened && left > 0 {
			q.armed = q.due
			timer.Reset(left)
			l.queues.mu.Unlock()
			continue
		}
		q.attended = false
		switch {
		case len(q.line) == 0:
		case wakened && q.line[0].called: // by its own timer, or by one who left
			poke(q.wake) // this one was meant for it
		default:
			q.line[0].call()
		}
		l.queues.mu.Unlock()
		return
	}
}
