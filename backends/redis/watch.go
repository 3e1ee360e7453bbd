package redis

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// watched is who wants to hear of which lock: leases that are held here, which a change
// by somebody else may have ended, and waiters, for whom it may have become free.
// Sessions are not in it: rueidislock looks after those.
type watched struct {
	seed   maphash.Seed
	shards [64]watchedShard
	verify chan struct{} // something is due in some shard
}

type watchedShard struct {
	mu    sync.Mutex
	holds map[string][]*hold // by lock; more than one while an old one is not yet given up
	wakes map[string][]*waker
	due   []*hold // to be looked at by verifyLoop
	many  int     // so many locks are held when it is time to forget
}

// hold is one lease of this client's.
type hold struct {
	lock    string
	owner   string
	hears   driver.Listener
	held    bool // granted; until then a change proves nothing
	changed bool // it was, or may have been, changed by somebody else, since look began
	doubted bool // changed, and Redis has not confirmed it since
	gone    bool

	// What Pass needs; see line.go.
	token, last uint64    // the present owner's, and the last that was set aside for it
	from        time.Time // when the command was sent that the server has confirmed last
	ttl         time.Duration
	unsure      bool      // an Extend is under way, or its outcome is not known
	since       time.Time // when the turn of this process began
	passes      int       // in this turn
	turn        int       // how many it has
}

type waker struct {
	wake   func()
	inLine bool // the server knows that this process waits
}

func (w *watched) init() {
	w.seed = maphash.MakeSeed()
	w.verify = make(chan struct{}, 1)
	for i := range w.shards {
		w.shards[i].holds = make(map[string][]*hold)
		w.shards[i].wakes = make(map[string][]*waker)
	}
}

func (w *watched) shard(lock string) *watchedShard {
	return &w.shards[maphash.String(w.seed, lock)%uint64(len(w.shards))]
}

func (w *watched) hold(lock, owner string, hears driver.Listener) *hold {
	h := &hold{lock: lock, owner: owner, hears: hears}
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds[lock] = append(s.holds[lock], h)
	if len(s.holds) > s.many {
		s.forget(time.Now())
		s.many = max(2*len(s.holds), 64)
	}
	return h
}

// forget drops the leases that have expired. Nobody need unlock those, and an expiry may be
// announced late or, to a client that polls, never. Long expired: an Extend that was in time
// may still wait for its answer.
func (s *watchedShard) forget(now time.Time) {
	for lock := range s.holds {
		s.drop(lock, func(h *hold) bool { return h.held && now.Sub(h.from) > h.ttl+time.Minute })
	}
}

// granted reports whether h was changed in the meantime and must be looked at.
func (w *watched) granted(h *hold, token uint64, sent time.Time, ttl time.Duration) bool {
	s := w.shard(h.lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	h.held = true
	h.token, h.last, h.from, h.ttl = token, token, sent, ttl
	h.since, h.turn = sent, turnPasses
	return h.changed
}

func (w *watched) unhold(h *hold) {
	s := w.shard(h.lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(h.lock, func(other *hold) bool { return other == h })
}

// extending notes that what is confirmed of a lease is about to change, and extended to what.
func (w *watched) extending(lock, owner string) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.find(lock, owner); h != nil {
		h.unsure = true
	}
}

func (w *watched) extended(lock, owner string, sent time.Time, ttl time.Duration) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.find(lock, owner); h != nil {
		h.unsure, h.from, h.ttl = false, sent, ttl
	}
}

func (w *watched) unholdOwner(lock, owner string) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(lock, func(other *hold) bool { return other.owner == owner })
}

func (s *watchedShard) drop(lock string, which func(*hold) bool) {
	left := slices.DeleteFunc(s.holds[lock], func(h *hold) bool {
		h.gone = h.gone || which(h)
		return which(h)
	})
	if len(left) == 0 {
		delete(s.holds, lock)
	} else {
		s.holds[lock] = left
	}
}

// Notify implements driver.Notifier.
func (b *backend) Notify(key string, wake func()) (stop func()) {
	lock := b.layout.lockKey(key)
	s, w := b.watched.shard(lock), &waker{wake: wake}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakes[lock] = append(s.wakes[lock], w)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if left := slices.DeleteFunc(s.wakes[lock], func(other *waker) bool { return other == w }); len(left) > 0 {
			s.wakes[lock] = left
		} else {
			delete(s.wakes, lock)
		}
		if w.inLine {
			b.leaveLine(key)
		}
	}
}

// wake wakes this process's waiters for lock.
func (w *watched) wake(lock string) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, waker := range s.wakes[lock] {
		waker.wake()
	}
}

// onInvalidations hears what Redis announces, in the goroutine that reads the
// connection: it must not block nor call the client. rueidislock's own handler, theirs,
// comes after it and gets only what is one of its locks; at anything else it may panic.
// nil keys: the connection broke, or everything was flushed, and any key may have changed.
func (b *backend) onInvalidations(keys []rueidis.RedisMessage, theirs func([]rueidis.RedisMessage)) {
	if keys == nil {
		for i := range b.watched.shards {
			s := &b.watched.shards[i]
			s.mu.Lock()
			for lock := range s.holds {
				s.changed(lock)
			}
			for lock := range s.wakes {
				s.changed(lock)
			}
			s.mu.Unlock()
		}
		b.startVerify()
		theirs(nil)
		return
	}
	ours := keys[:0:0]
	for _, k := range keys {
		lock, err := k.ToString()
		if err != nil || !b.layout.isLock(lock) {
			continue
		}
		ours = append(ours, k)
		s := b.watched.shard(lock)
		s.mu.Lock()
		due := s.changed(lock)
		s.mu.Unlock()
		if due {
			b.startVerify()
		}
	}
	if len(ours) > 0 {
		theirs(ours)
	}
}

// changed notes that lock was changed by somebody else.
func (s *watchedShard) changed(lock string) (due bool) {
	for _, h := range s.holds[lock] {
		if !h.changed && h.held {
			s.due, due = append(s.due, h), true
		}
		h.changed, h.doubted = true, true
	}
	for _, w := range s.wakes[lock] {
		w.wake()
	}
	return due
}

// verify has h looked at.
func (b *backend) verify(h *hold) {
	s := b.watched.shard(h.lock)
	s.mu.Lock()
	s.due = append(s.due, h)
	s.mu.Unlock()
	b.startVerify()
}

func (b *backend) startVerify() {
	select {
	case b.watched.verify <- struct{}{}:
	default:
	}
}

// verifyLoop looks at the leases that may have been changed, all of them in one go: after
// a broken connection these are all that there are. One that is no more ours is lost
// (LOSS-003). Where Redis does not answer, it is asked again, which also connects again,
// so that the tracking begins anew; meanwhile the deadline stands.
func (b *backend) verifyLoop() {
	defer close(b.done)
	const pause = 100 * time.Millisecond
	again := time.NewTimer(pause)
	defer again.Stop()
	for {
		select {
		case <-b.closing.Done():
			return
		case <-b.watched.verify:
		case <-again.C:
		}
		again.Stop()
		for i := range b.watched.shards {
			if unanswered := b.look(&b.watched.shards[i]); unanswered {
				again.Reset(pause)
			}
		}
	}
}

// look asks Redis about the leases that are due in one shard.
func (b *backend) look(s *watchedShard) (unanswered bool) {
	s.mu.Lock()
	due := slices.DeleteFunc(s.due, func(h *hold) bool {
		h.changed = false // a change from here on is another one
		return h.gone
	})
	s.due = nil
	s.mu.Unlock()
	if len(due) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(b.closing, b.cfg.Timeout)
	defer cancel()
	gets := make([]rueidis.Completed, len(due))
	for i, h := range due {
		gets[i] = b.client.B().Get().Key(h.lock).Build()
	}
	for i, reply := range b.client.DoMulti(ctx, gets...) {
		owner, err := reply.ToString()
		h := due[i]
		switch {
		case err != nil && !rueidis.IsRedisNil(err):
			// A server that is loading its data, say, will answer; one that refuses will not.
			if errors.Is(classify(ctx, err), driver.ErrUnavailable) {
				s.mu.Lock()
				s.due, unanswered = append(s.due, h), true
				s.mu.Unlock()
			}
			continue
		case err == nil && owner == h.owner:
			s.mu.Lock()
			h.doubted = h.changed
			s.mu.Unlock()
			continue
		}
		s.mu.Lock()
		gone := h.gone   // released by ourselves meanwhile
		hears := h.hears // it may have been passed on since
		s.drop(h.lock, func(other *hold) bool { return other == h })
		s.mu.Unlock()
		if !gone {
			hears.Lost(driver.ErrLost)
		}
	}
	return unanswered
}
