package redis

import (
	"context"
	"hash/maphash"
	"slices"
	"strings"
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
	leave  func(lock string) // gives up this process's place in the server's queue
	shards [64]watchedShard
	looks  [clusterLanes]looks // of the locks whose slots are in that lane; all in the first if there is no Cluster
}

// looks is what Redis has to be asked about by one lane's verifyLoop: a master that hangs must not
// hold up what is to be heard of the others. It still holds up the masters that share its lane.
type looks struct {
	begin chan struct{} // holds one value when there is something

	mu    sync.Mutex // may be taken under a shard's
	due   []*hold
	stale []string // locks whose waiters may have missed a wake-up, until the server answers again
}

func (l *looks) add(due *hold) {
	l.mu.Lock()
	l.due = append(l.due, due)
	l.mu.Unlock()
	l.start()
}

func (l *looks) addStale(lock string) {
	l.mu.Lock()
	l.stale = append(l.stale, lock)
	l.mu.Unlock()
	l.start()
}

func (l *looks) start() {
	select {
	case l.begin <- struct{}{}:
	default:
	}
}

// take empties it.
func (l *looks) take() (due []*hold, stale []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	due, stale = l.due, l.stale
	l.due, l.stale = nil, nil
	return due, stale
}

type watchedShard struct {
	mu     sync.Mutex
	holds  map[string][]*hold // by lock; more than one while an old one is not yet given up
	wakes  map[string][]*waker
	places map[string]*place
	many   int // so many locks are held when it is time to forget
}

// hold is one lease of this client's.
type hold struct {
	lock        string
	owner       string
	hears       driver.Listener
	held        bool // granted; until then a change proves nothing
	changed     bool // it was, or may have been, changed by somebody else, since look began
	unconfirmed bool // changed, and Redis has not confirmed it since
	gone        bool
	breaking    int // so many calls of Break are under way for it

	// What HandOff needs; see handoff.go.
	token, last uint64    // the present owner's, and the last that was set aside for it
	note        string    // the server's, of the present owner
	taken       time.Time // when the present owner got it
	from        time.Time // when the command was sent that the server has confirmed last
	ttl         time.Duration
	unsure      bool      // an Extend is under way, or its outcome is not known
	counted     time.Time // see counted; zero until the first Extend
	since       time.Time // when the turn of this process began
	handOffs    int       // in this turn
	turn        int       // how many it has
}

type waker struct{ wake func() }

func (w *watched) init() {
	w.seed, w.leave = maphash.MakeSeed(), func(string) {}
	for i := range w.looks {
		w.looks[i].begin = make(chan struct{}, 1)
	}
	for i := range w.shards {
		w.shards[i].holds = make(map[string][]*hold)
		w.shards[i].wakes = make(map[string][]*waker)
		w.shards[i].places = make(map[string]*place)
	}
}

func (w *watched) shard(lock string) *watchedShard {
	return &w.shards[maphash.String(w.seed, lock)%uint64(len(w.shards))]
}

func (w *watched) hold(lock, owner string, r *driver.Request) *hold {
	h := &hold{lock: lock, owner: owner, hears: r.Hold, note: r.Note}
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
	// A repeat takes the place of the attempt before it, and hears of the loss alone.
	s.drop(h.lock, func(other *hold) bool {
		earlier := other != h && other.owner == h.owner
		h.changed = h.changed || earlier && other.changed
		return earlier
	})
	h.token, h.last, h.from, h.ttl = token, token, sent, ttl
	h.since, h.taken, h.turn = sent, sent, turnHandOffs
	return h.changed
}

func (w *watched) unhold(h *hold) {
	s := w.shard(h.lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(h.lock, func(other *hold) bool { return other == h })
}

// supersede ends the holds of a lock that are older than the one with token. One that is
// younger ends owner's own: its grant was overtaken on the way here.
func (w *watched) supersede(lock, owner string, token uint64) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(lock, driver.ErrLost, func(h *hold) bool {
		if !h.held {
			return false
		}
		if h.owner != owner {
			return h.token < token
		}
		return slices.ContainsFunc(s.holds[lock], func(other *hold) bool {
			return other.held && other.owner != owner && other.token > token
		})
	})
}

// end drops holds of a lock and tells their listeners.
func (s *watchedShard) end(lock string, cause error, which func(*hold) bool) {
	var over []*hold
	for _, h := range s.holds[lock] {
		if which(h) {
			over = append(over, h)
		}
	}
	if len(over) == 0 {
		return
	}
	s.drop(lock, func(h *hold) bool { return slices.Contains(over, h) })
	for _, h := range over {
		h.hears.Lost(cause) // which blocks nowhere and calls nothing here
	}
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
		if s.left(lock) {
			b.leaveQueue(key)
		}
	}
}

// wake has this process's waiters for lock ask anew, wherever they stand.
func (w *watched) wake(lock string) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.places[lock]; p != nil {
		p.askAnyway()
	}
	s.wakeAll(lock)
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
				b.changed(s, lock)
			}
			for lock := range s.wakes {
				b.changed(s, lock)
				// An attempt that is made at once may fail, and the next one be far away.
				b.looksAt(lock).addStale(lock)
			}
			for _, p := range s.places {
				p.askAnyway()
			}
			s.mu.Unlock()
		}
		theirs(nil)
		return
	}
	ours := keys[:0:0]
	for _, k := range keys {
		lock, err := k.ToString()
		if err != nil {
			continue
		}
		if !b.layout.isLock(lock) {
			if lock, ok := b.belled(lock); ok {
				b.watched.called(lock)
			}
			continue
		}
		ours = append(ours, k)
		s := b.watched.shard(lock)
		s.mu.Lock()
		b.changed(s, lock)
		s.mu.Unlock()
	}
	if len(ours) > 0 {
		theirs(ours)
	}
}

// changed notes that lock, which is in s, was changed by somebody else, or has expired.
func (b *backend) changed(s *watchedShard, lock string) {
	// An expiry needs no look. One at a key that is no more would have the server track it, and
	// nothing ends that: an entry in its tracking table for each lease that ever expired. The
	// last part of a ttl counts too, because the server's clock may run faster.
	now := time.Now()
	s.end(lock, driver.ErrExpired, func(h *hold) bool {
		return h.held && !h.unsure && now.Sub(h.from) >= h.ttl-time.Duration(driftFactor*float64(h.ttl))
	})
	for _, h := range s.holds[lock] {
		if !h.changed && h.held {
			b.looksAt(lock).add(h)
		}
		h.changed, h.unconfirmed = true, true
	}
	s.stir(lock)
}

// verify has h looked at.
func (b *backend) verify(h *hold) { b.looksAt(h.lock).add(h) }

// looksAt is where lock is looked at.
func (b *backend) looksAt(lock string) *looks {
	if !b.seam.spread {
		return &b.watched.looks[0]
	}
	return &b.watched.looks[laneOf(b.layout.slotOf(lock))]
}

// startWatching begins the goroutines that Close waits for.
func (b *backend) startWatching() {
	loops := 1
	if b.seam.spread {
		loops = len(b.watched.looks)
	}
	for i := range loops {
		b.watching.Go(func() { b.verifyLoop(&b.watched.looks[i]) })
	}
	if b.caps.Has.Has(driver.PromptLoss) {
		b.watching.Go(b.watchTable)
	}
}

// verifyLoop looks at the leases that may have been changed, as many as can be in one go: after
// a broken connection these are all that there are. One that is no more ours is lost
// (LOSS-003). Where Redis does not answer, it is asked again, which also connects again,
// so that the tracking begins anew; meanwhile the deadline stands.
func (b *backend) verifyLoop(l *looks) {
	const pause = 100 * time.Millisecond
	again := time.NewTimer(pause)
	defer again.Stop()
	for {
		select {
		case <-b.closing.Done():
			return
		case <-l.begin:
		case <-again.C:
		}
		again.Stop()
		due, stale := l.take()
		for some := range slices.Chunk(due, maxLook) {
			if !b.look(l, some) {
				again.Reset(pause)
			}
		}
		for some := range slices.Chunk(stale, maxLook) {
			if !b.reach(l, some) {
				again.Reset(pause)
			}
		}
	}
}

// maxLook is how many locks are asked about at once.
const maxLook = 256

// look asks Redis about leases that are due. Those that it does not answer for are due again.
func (b *backend) look(l *looks, due []*hold) (answered bool) {
	due = slices.DeleteFunc(due, func(h *hold) bool {
		s := b.watched.shard(h.lock)
		s.mu.Lock()
		defer s.mu.Unlock()
		h.changed = false // a change from here on is another one
		return h.gone
	})
	if len(due) == 0 {
		return true
	}
	answered = true
	ctx, cancel := context.WithTimeout(b.closing, b.cfg.Timeout)
	defer cancel()
	gets := make([]rueidis.Completed, len(due))
	for i, h := range due {
		gets[i] = b.getOwner(h.lock)
	}
	var lost []*hold
	for i, reply := range b.client.DoMulti(ctx, gets...) {
		h := due[i]
		s := b.watched.shard(h.lock)
		switch standing(reply, h.owner) {
		case unanswerable:
			answered = !b.watched.lookAgain(l, h) && answered
		case ours:
			s.mu.Lock()
			h.unconfirmed = h.changed
			s.mu.Unlock()
		case notOurs:
			lost = append(lost, h)
		}
	}
	for i, cause := range b.causes(ctx, lost) {
		s := b.watched.shard(lost[i].lock)
		s.mu.Lock()
		s.end(lost[i].lock, cause, func(other *hold) bool { return other == lost[i] })
		s.mu.Unlock()
	}
	return answered
}

// reach asks for the locks whose waiters may have missed a wake-up, which connects again and has
// the server announce their next change, and wakes them when it has answered.
func (b *backend) reach(l *looks, stale []string) (answered bool) {
	stale = slices.DeleteFunc(stale, func(lock string) bool {
		s := b.watched.shard(lock)
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.wakes[lock]) == 0
	})
	if len(stale) == 0 {
		return true
	}
	answered = true
	ctx, cancel := context.WithTimeout(b.closing, b.cfg.Timeout)
	defer cancel()
	gets := make([]rueidis.Completed, len(stale))
	for i, lock := range stale {
		gets[i] = b.getOwner(lock)
	}
	for i, reply := range b.client.DoMulti(ctx, gets...) {
		if standing(reply, "") != unanswerable {
			b.watched.wake(stale[i])
			continue
		}
		l.mu.Lock()
		l.stale, answered = append(l.stale, stale[i]), false
		l.mu.Unlock()
	}
	return answered
}

// getOwner asks for the beginning of a lock's value: owners have at most 62 bytes, and what
// anybody else put there may have any number.
func (b *backend) getOwner(lock string) rueidis.Completed {
	return b.client.B().Getrange().Key(lock).Start(0).End(63).Build()
}

// lookAgain has h looked at once more, unless its time is up: that its holder knows.
// Whatever the server says, it may say something else later: it is loading its data, a password
// is being changed, a right was taken away for a while. Nothing but an answer says that a hold is over.
func (w *watched) lookAgain(l *looks, h *hold) bool {
	s := w.shard(h.lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.gone || !h.unsure && time.Since(h.from) >= h.ttl {
		s.drop(h.lock, func(other *hold) bool { return other == h })
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.due = append(l.due, h)
	return true
}

type standingOf uint8

const (
	unanswerable standingOf = iota
	ours
	notOurs
)

// standing reads a look at a lock. Something of another type in its place is nobody's.
func standing(reply rueidis.RedisResult, owner string) standingOf {
	value, err := reply.ToString()
	switch {
	case err == nil && strings.HasPrefix(value, owner) && owner != "":
		return ours
	case err == nil || rueidis.IsRedisNil(err):
		return notOurs
	}
	if said, ok := rueidis.IsRedisErr(err); ok && strings.HasPrefix(said.Error(), "WRONGTYPE") {
		return notOurs
	}
	return unanswerable
}
