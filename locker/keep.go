package locker

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// keeper extends the kept leases of a Locker. It is one timer for all of them, set to the earliest
// moment at which one has to be looked at; a goroutine exists for the time of an extension only.
// One goroutine that extends them one after the other would let a part of the store that hangs
// take down the leases in all the others.
type keeper struct {
	mu    sync.Mutex // taken under a Lease's, never the other way round
	due   keptHeap
	timer *time.Timer
}

// kept is what the keeper knows of one lease. Guarded by the lease's mutex but for the last two.
type kept struct {
	lease    *Lease
	ttl      time.Duration
	cap      time.Duration // on the Locker's clock; 0 for none
	progress *func() bool
	busy     bool // it is being asked for progress, or extended
	asking   bool // it is being asked
	stalls   bool // it made no progress when it was asked last
	ended    bool // it is not kept any more, though it may be held

	at    time.Duration // when to look, guarded by the keeper's mutex
	index int           // in the heap, or -1
}

// prepare is what a new hold gets beside its grant.
func (s *Lease) prepare(set *settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.own()
	x.label = set.label
	if x.ending != nil {
		x.ending.Label = set.label
	}
	if !set.keep || s.phase != holding {
		return
	}
	k := &kept{lease: s, ttl: set.ttl, progress: set.progress, index: -1}
	if set.keepMax > 0 {
		k.cap = s.l.now() + set.keepMax
	}
	x.kept = k
	s.l.keeper.plan(k, s.dueLocked(k))
}

// dueLocked is when to look at a lease again: when a third of its ttl is over, or at the cap.
func (s *Lease) dueLocked(k *kept) time.Duration {
	return k.orCap(s.deadline - k.ttl/3*2)
}

func (k *kept) orCap(at time.Duration) time.Duration {
	if k.cap > 0 {
		return min(at, k.cap)
	}
	return at
}

// plan has k looked at then. The lease's mutex is held, and the hold lasts.
func (q *keeper) plan(k *kept, at time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k.at = at
	if k.index < 0 {
		heap.Push(&q.due, k)
	} else {
		heap.Fix(&q.due, k.index)
	}
	q.setTimerLocked(k.lease.l)
}

// remove forgets k.
func (q *keeper) remove(k *kept) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if k.index >= 0 {
		heap.Remove(&q.due, k.index)
		q.setTimerLocked(k.lease.l)
	}
}

func (q *keeper) setTimerLocked(l *core) {
	switch {
	case len(q.due) == 0:
		if q.timer != nil {
			q.timer.Stop()
		}
	case q.timer == nil:
		q.timer = time.AfterFunc(q.due[0].at-l.now(), l.lookAtKept)
	default:
		q.timer.Reset(q.due[0].at - l.now())
	}
}

// lookAtKept is what the timer does.
func (l *core) lookAtKept() {
	q := &l.keeper
	q.mu.Lock()
	defer q.mu.Unlock()
	for now := l.now(); len(q.due) > 0 && q.due[0].at <= now; {
		k := heap.Pop(&q.due).(*kept)
		if !l.background.enter() {
			continue // Close has ended the hold
		}
		go k.lease.look(k)
	}
	q.setTimerLocked(l)
}

// look does what is due for a kept lease. It gives back the place in the background that was taken for it.
func (s *Lease) look(k *kept) {
	inside := true
	defer func() {
		if inside {
			s.l.background.leave()
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkDeadlineLocked()
	now, stalled := s.l.now(), s.deadline-k.ttl/3
	switch {
	case s.phase != holding || k.ended:
	case k.cap > 0 && now >= k.cap:
		s.endLocked(ReasonCapped, nil)
	case k.asking && now >= stalled: // a progress that blocks is none
		s.endLocked(ReasonStalled, nil)
	case k.busy: // it is planned again when that has ended
	case now < s.deadline-k.ttl/3*2: // an Extend came between
		s.l.keeper.plan(k, s.dueLocked(k))
	default:
		s.keepLocked(k, &inside)
	}
}

// keepLocked extends a kept lease whose holder makes progress. inside is whether this goroutine has a
// place in the background.
func (s *Lease) keepLocked(k *kept, inside *bool) {
	const asks = 12 // of a ttl: how often a holder without progress is asked again
	l, stalled := s.l, s.deadline-k.ttl/3
	k.busy = true
	defer func() { k.busy = false }()
	if k.progress != nil {
		k.asking = true
		if stalled > l.now() {
			l.keeper.plan(k, k.orCap(stalled))
		}
		moves := s.askLocked(k, inside)
		if k.asking, k.stalls = false, !moves; !*inside {
			return // Close has ended the hold
		}
		s.checkDeadlineLocked()
		switch now := l.now(); {
		case s.phase != holding || k.ended:
			return
		case !moves && now >= stalled:
			s.endLocked(ReasonStalled, nil)
			return
		case !moves:
			l.keeper.plan(k, k.orCap(min(now+k.ttl/asks, stalled)))
			return
		}
	}
	left := s.deadline - l.now()
	if k.cap > 0 {
		l.keeper.plan(k, k.cap)
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), left)
	err := s.extendTo(ctx, k.ttl)
	cancel()
	s.mu.Lock()
	if s.checkDeadlineLocked(); s.phase != holding || k.ended {
		return
	}
	next := s.dueLocked(k)
	if err != nil {
		// Ever sooner, so that a short outage costs no lease, yet never in a loop without a pause.
		next = k.orCap(l.now() + max((s.deadline-l.now())/4, k.ttl/64, time.Millisecond))
	}
	l.keeper.plan(k, next)
}

// askLocked asks the program for progress. That may take for ever: it has no place in the background
// meanwhile, or Close would wait for it in vain. A panic, or a Goexit, leaves mu as it was found: it is the
// program's own, and must not become that of an unlocked mutex.
func (s *Lease) askLocked(k *kept, inside *bool) bool {
	s.mu.Unlock()
	*inside = false
	s.l.background.leave()
	defer func() {
		*inside = s.l.background.enter()
		s.mu.Lock()
	}()
	return (*k.progress)()
}

// keptHeap is a container/heap, the earliest first.
type keptHeap []*kept

func (h keptHeap) Len() int           { return len(h) }
func (h keptHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h keptHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *keptHeap) Push(x any) {
	k := x.(*kept)
	k.index = len(*h)
	*h = append(*h, k)
}

func (h *keptHeap) Pop() any {
	old := *h
	k := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	k.index = -1
	return k
}
