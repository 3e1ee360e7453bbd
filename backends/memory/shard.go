package memory

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// A shard is a part of the keys with everything that belongs to them, under one mutex.
//
// Each has a wheel and a timer of its own. One wheel for the store would need a second
// mutex in every operation, and that one shared by all of them.
type shard struct {
	mu      sync.Mutex
	base    time.Time // the store's; times are nanoseconds since then, by the monotonic clock
	instant int64     // of the operation that has the lock, or unread
	table   table
	wheel   wheel
	// token is the last one that was minted. It is one for all the keys of the shard,
	// so that a key needs no memory after its release. At a hundred million grants a
	// second it reaches driver.MaxToken after two years and ten months.
	token uint64

	free  *entry // entries for reuse, linked by next
	nfree int

	timer *time.Timer // calls turn; made when first needed
	// wake is the tick for which timer is set, asleep when it is not, or awake while turn
	// is at work and will set it. Never later than the wheel's next slot.
	wake int64
}

// A padded shard keeps its neighbours off its cache lines, which processors fetch in pairs.
type padded struct {
	shard
	_ [(128 - unsafe.Sizeof(shard{})%128) % 128]byte
}

const (
	unread = -1

	awake  = math.MinInt64
	asleep = math.MaxInt64

	// maxFree bounds what a shard keeps for reuse, to some 20 KB. More would help only
	// where more than this many keys of one shard come and go all the time.
	maxFree = 128

	// batch bounds the steps of the wheel under one hold of the mutex. Measured with a million
	// leases due together, 16 shards, two processors: 64 steps take 20 µs, 256 take 81 µs,
	// and all at one go 67 to 170 ms, during which nobody gets in; the whole takes as long
	// in each case.
	batch = 64
)

func (s *shard) init(base time.Time, token uint64) {
	s.base, s.token = base, token
	s.wheel = newWheel(0)
	s.wake = asleep
}

// lock begins an operation: what follows, up to Unlock, happens at one instant.
func (s *shard) lock() {
	s.mu.Lock()
	s.instant = unread
}

// now is the instant of the operation. The clock is read when first asked for: it costs as
// much as all the rest of an acquire, and a session does without. It is read under the lock,
// always: then time never goes back from one operation on a shard to the next, and a
// hand-over never counts a ttl from before the waiter came.
func (s *shard) now() int64 {
	if s.instant == unread {
		s.instant = int64(time.Since(s.base))
	}
	return s.instant
}

// acquire grants r, or returns the entry of the other owner who holds the key.
func (s *shard) acquire(b *backend, hash uint64, r *driver.Request) (driver.Grant, *entry) {
	e := s.live(hash, r.Key)
	switch {
	case e == nil:
		e = s.newEntry(hash, r.Key)
		s.table.add(e)
		s.grant(e, b, r)
	case e.owner == r.Owner:
		// Again, because the reply to the first was lost. It stays the kind of hold that
		// it is; the listener may be another.
		e.hold, e.by = r.Hold, b
		switch {
		case e.session():
			return driver.Grant{Token: e.token}, nil
		case r.Session():
			return driver.Grant{Token: e.token, TTL: s.remaining(e)}, nil
		}
		s.arm(e, r.TTL)
	default:
		return driver.Grant{}, e
	}
	return driver.Grant{Token: e.token, TTL: r.TTL}, nil
}

func (s *shard) extend(hash uint64, h *driver.Holder, ttl time.Duration) (driver.Grant, error) {
	e := s.table.find(hash, h.Key)
	if e == nil || !e.heldBy(h) {
		return driver.Grant{}, driver.ErrLost
	}
	if e.session() {
		return driver.Grant{}, fmt.Errorf("%w: memory: a session has no ttl to extend", driver.ErrUnsupported)
	}
	if s.over(e) {
		s.expire(e)
		return driver.Grant{}, driver.ErrExpired
	}
	s.arm(e, ttl)
	return driver.Grant{Token: e.token, TTL: ttl}, nil
}

func (s *shard) release(hash uint64, h *driver.Holder) error {
	e := s.table.find(hash, h.Key)
	if e == nil || !e.heldBy(h) {
		return driver.ErrLost
	}
	var err error
	if s.over(e) {
		err = driver.ErrExpired // the result tells the holder; its Listener is not called from here
	}
	s.handOver(e)
	return err
}

func (s *shard) inspect(hash uint64, key string) (driver.Info, bool) {
	e := s.live(hash, key)
	if e == nil {
		return driver.Info{}, false
	}
	return driver.Info{
		Owner:     e.owner.String(),
		Token:     e.token,
		Session:   e.session(),
		Remaining: s.remaining(e),
	}, true
}

// live returns the entry of key's present holder, or nil when key is free. Correctness
// never depends on the timer: a holder whose time is up is ended here, and if somebody
// waits, the one who holds the key now is the first of those.
func (s *shard) live(hash uint64, key string) *entry {
	e := s.table.find(hash, key)
	for e != nil && s.over(e) {
		if !s.expire(e) {
			return nil
		}
	}
	return e
}

// over says whether the time of e's holder is up.
func (s *shard) over(e *entry) bool { return !e.session() && e.due <= s.now() }

// remaining is the rest of the time of e's holder, or 0 for a session.
func (s *shard) remaining(e *entry) time.Duration {
	if e.session() {
		return 0
	}
	return time.Duration(e.due - s.now())
}

// expire ends the hold of e, whose time is up. The holder hears of it before anybody else
// can hold the key, which is why Lost is called under the lock. It says whether e lives
// on, held by the first who waited.
func (s *shard) expire(e *entry) bool {
	e.hold.Lost(driver.ErrExpired)
	return s.handOver(e)
}

// handOver ends the hold of e, gives the key to the first who waits and says true; or
// frees it and says false, and e is then no more.
func (s *shard) handOver(e *entry) bool {
	w := e.first
	if w == nil {
		s.wheel.remove(e)
		s.table.remove(e)
		s.freeEntry(e)
		return false
	}
	e.dequeue(w)
	s.grant(e, w.by, &w.request)
	w.token, w.due = e.token, e.due
	w.ready <- struct{}{}
	return true
}

// grant makes r's owner the holder of e.
func (s *shard) grant(e *entry, b *backend, r *driver.Request) {
	s.token++
	e.token = s.token
	e.owner, e.hold, e.by = r.Owner, r.Hold, b
	if r.Session() {
		s.wheel.remove(e)
		e.due = never
		return
	}
	s.arm(e, r.TTL)
}

// arm makes e end ttl from now, and sees to it that the timer is set.
func (s *shard) arm(e *entry, ttl time.Duration) {
	now := s.now()
	due := int64(latest)
	if int64(ttl) < latest-now {
		due = now + int64(ttl)
	}
	if e.slot != unarmed {
		if due >= e.due {
			// Later than it was: its slot comes up early and step moves it on. Extending
			// a lease again and again thus touches neither wheel nor timer.
			e.due = due
			return
		}
		s.wheel.remove(e)
	}
	e.due = due
	if t := now / tick; t < s.wake && s.wake != awake {
		s.wheel.forward(t) // no slot begins before wake
	}
	if at := s.wheel.add(e); at < s.wake {
		s.setTimer(at, now)
	}
}

func (s *shard) setTimer(at, now int64) {
	s.wake = at
	d := time.Duration(at*tick - now)
	if s.timer == nil {
		s.timer = time.AfterFunc(d, s.turn)
	} else {
		s.timer.Reset(d)
	}
}

// turn is the timer's function: it expires what is due and sets the timer for what comes
// next, if anything does.
//
// A release does not stop the timer: stopping and setting it again would add half to
// the cost of an uncontended lock. So it may find nothing to do, and then stays asleep.
func (s *shard) turn() {
	s.lock()
	for !s.turnBatch() {
		s.mu.Unlock()
		runtime.Gosched() // those who wait for the mutex first
		s.lock()
	}
	s.mu.Unlock()
}

// turnBatch does a bounded part of turn and says whether that was all.
func (s *shard) turnBatch() bool {
	s.wake = awake
	now := s.now()
	for range batch {
		e, more := s.wheel.step(now / tick)
		if !more {
			s.wake = asleep
			if _, at, ok := s.wheel.next(); ok {
				s.setTimer(at, now)
			}
			return true
		}
		if e != nil {
			s.expire(e)
		}
	}
	return false
}

// evict ends everything that b has in this shard: its waiters hear ErrClosed, and its
// holds are released.
func (s *shard) evict(b *backend) {
	s.lock()
	defer s.mu.Unlock()
	var held []*entry // handOver changes the table
	s.table.each(func(e *entry) {
		for w := e.first; w != nil; {
			next := w.next
			if w.by == b {
				e.dequeue(w)
				w.err = driver.ErrClosed
				w.ready <- struct{}{}
			}
			w = next
		}
		if e.by == b {
			held = append(held, e)
		}
	})
	for _, e := range held {
		s.handOver(e)
	}
}

// stop ends the background work of a shard that holds nothing, and returns its last
// token. turn may be running, finds nothing to do and ends too.
func (s *shard) stop() uint64 {
	s.lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.wake = asleep
	}
	s.free, s.nfree = nil, 0
	return s.token
}

func (s *shard) newEntry(hash uint64, key string) *entry {
	e := s.free
	if e == nil {
		e = &entry{slot: unarmed}
	} else {
		s.free, e.next = e.next, nil
		s.nfree--
	}
	e.hash, e.key = hash, key
	return e
}

// freeEntry keeps e, which is in neither table nor wheel and has no queue, for reuse, and
// nothing of what it referred to.
func (s *shard) freeEntry(e *entry) {
	if s.nfree == maxFree {
		return
	}
	*e = entry{slot: unarmed, next: s.free}
	s.free = e
	s.nfree++
}
