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
	number  int       // in the store
	base    time.Time // times are nanoseconds since then, by the monotonic clock
	ahead   int64     // by which they are greater than those of the store
	instant int64     // of the operation that has the lock, or unread
	slab    slab
	table   table
	wheel   wheel
	// token is the last one that was minted. It is one for all the keys of the shard,
	// so that a key needs no memory after its release. At a hundred million grants a
	// second it reaches driver.MaxToken after two years and ten months.
	token uint64

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

	// batch bounds the steps of the wheel under one hold of the mutex. Measured with a million
	// leases due together, 16 shards, two processors: 64 steps take 20 µs, 256 take 81 µs,
	// and all at one go 67 to 170 ms, during which nobody gets in; the whole takes as long
	// in each case.
	batch = 64
)

func (s *shard) init(number, shards int, base time.Time, token uint64) {
	// Their clocks are apart, so that their wheels do not all cascade in the same tick:
	// for a million leases that takes 40 ms. By a share of level 2, and a few ticks more for level 1.
	const cascade = 1 << (2 * levelBits)
	apart := int64(number)*cascade/int64(shards) + int64(number)%slotsPerLevel
	s.ahead = apart % cascade * tick
	s.number, s.base, s.token = number, base.Add(-time.Duration(s.ahead)), token
	s.wheel = newWheel(0)
	s.wake = asleep
}

// lock begins an operation: what follows, up to Unlock, happens at one instant.
func (s *shard) lock() {
	s.mu.Lock()
	s.instant = unread
}

// now is the instant of the operation: what the core says of it (TTL-002 counts from before
// an attempt was sent), otherwise the moment at which it is first asked for, by the clock. That
// costs as much as all the rest of an acquire, and a session does without. It is read under the
// lock. The instants of two operations may be out of order by as long as one of them waited
// for the lock.
func (s *shard) now() int64 {
	if s.instant == unread {
		s.instant = int64(time.Since(s.base))
	}
	return s.instant
}

// acquire grants r and says so in g, or returns the entry of the other owner who holds the key.
func (s *shard) acquire(c *client, hash uint64, r *driver.Request, g *driver.Grant) (holder ref) {
	n, e := s.live(hash, r.Key)
	switch {
	case e == nil:
		n, e = s.slab.take()
		e.hash, e.key = hash, r.Key
		s.table.add(&s.slab, n, e)
		s.grant(n, e, c, r.TTL, listening(r.Hold, r.Note), named(r.Owner.Seq))
		g.TTL = r.TTL
	case e.ownedBy(&r.Owner):
		// Again, because the reply to the first was lost. It stays the kind of hold that
		// it is, and the note; the listener may be another.
		if n, ok := e.hold.(*noted); ok {
			e.hold = &noted{r.Hold, n.note}
		} else {
			e.hold = r.Hold
		}
		e.by = c
		switch {
		case e.session():
		case r.Session():
			g.TTL = s.remaining(e)
		default:
			s.arm(n, e, r.TTL)
			g.TTL = r.TTL
		}
	default:
		return n
	}
	g.Token = e.token
	return none
}

// take is acquire for an owner that asks once: it grants the key and returns the token, or the
// entry of the holder.
func (s *shard) take(c *client, hash uint64, key string, ttl, sent time.Duration, hold driver.Listener) (token uint64, n ref) {
	if sent > 0 {
		s.instant = int64(sent) + s.ahead
	}
	n, e := s.live(hash, key)
	if e != nil {
		return 0, n
	}
	n, e = s.slab.take()
	e.hash, e.key = hash, key
	s.table.add(&s.slab, n, e)
	s.grant(n, e, c, ttl, hold, byToken)
	return e.token, n
}

// whereOf is where Drop finds an entry: in which shard, and its number there.
func (s *shard) whereOf(n ref) uint64 { return uint64(s.number)<<32 | uint64(n) }

func (s *shard) extend(hash uint64, h *driver.Holder, ttl time.Duration) (driver.Grant, error) {
	n, e := s.table.find(&s.slab, hash, h.Key)
	if e == nil || !e.heldBy(h) {
		return driver.Grant{}, driver.ErrLost
	}
	if e.session() {
		return driver.Grant{}, fmt.Errorf("%w: memory: a session has no ttl to extend", driver.ErrUnsupported)
	}
	if s.over(e) {
		s.expire(n, e)
		return driver.Grant{}, driver.ErrExpired
	}
	s.arm(n, e, ttl)
	return driver.Grant{Token: e.token, TTL: ttl}, nil
}

func (s *shard) release(hash uint64, h *driver.Holder) error {
	n, e := s.table.find(&s.slab, hash, h.Key)
	if e == nil || !e.heldBy(h) {
		return driver.ErrLost
	}
	var err error
	if s.over(e) {
		err = driver.ErrExpired // the result tells the holder; its Listener is not called from here
	}
	s.handOver(n, e)
	return err
}

// drop is release for a hold that was taken: nothing has to be searched for. The core has
// looked at the clock; a hold whose time is up since then, but which nobody has ended, is still
// exclusive.
func (s *shard) drop(c *client, n ref, token uint64, at time.Duration) error {
	e := s.slab.find(n)
	if e == nil || e.by != c || e.token != token {
		return driver.ErrLost
	}
	if w := e.first; w != nil && at > 0 {
		s.instant = int64(max(at, w.sent)) + s.ahead // not before w came
	}
	s.handOver(n, e)
	return nil
}

// live returns the entry of key's present holder, or nil when key is free. Correctness
// never depends on the timer: a holder whose time is up is ended here, and if somebody
// waits, the one who holds the key now is the first of those.
func (s *shard) live(hash uint64, key string) (ref, *entry) {
	n, e := s.table.find(&s.slab, hash, key)
	for e != nil && s.over(e) {
		if !s.expire(n, e) {
			return none, nil
		}
	}
	return n, e
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
func (s *shard) expire(n ref, e *entry) bool {
	e.hold.Lost(driver.ErrExpired)
	return s.handOver(n, e)
}

// handOver ends the hold of e, gives the key to the first who waits and says true; or
// frees it and says false, and e is then no more.
func (s *shard) handOver(n ref, e *entry) bool {
	w := e.first
	if w == nil {
		s.table.remove(&s.slab, n, e)
		s.slab.give(&s.wheel, n, e)
		if s.table.n == 0 && len(s.slab.chunks) > manyChunks {
			s.slab, s.wheel = slab{}, newWheel(s.wheel.now) // what a burst of keys made it take
		}
		return false
	}
	e.dequeue(w)
	s.grant(n, e, w.by, w.ttl, w.hold, w.owner)
	w.token, w.where, w.from = e.token, s.whereOf(n), 0
	if !e.session() {
		w.from = time.Duration(e.due-s.ahead) - w.ttl
	}
	w.ready <- struct{}{}
	return true
}

// naming says who the owner of a grant is: the one with a number, or the one that the token gives.
type naming struct {
	seq   uint64
	given bool
}

var byToken = naming{}

func named(seq uint64) naming { return naming{seq, true} }

// grant makes owner the holder of e.
func (s *shard) grant(n ref, e *entry, c *client, ttl time.Duration, hold driver.Listener, owner naming) {
	s.token++
	if !owner.given {
		owner.seq = driver.TakenSeq(s.token)
	}
	e.token, e.owner, e.hold, e.by = s.token, owner.seq, hold, c
	if ttl == 0 {
		s.wheel.remove(&s.slab, e)
		e.due, e.since = never, 0
		if _, ok := hold.(*noted); ok {
			e.since = s.now() // who writes a note can wait for a look at the clock
		}
		return
	}
	s.arm(n, e, ttl)
	e.since = s.now()
}

// arm makes e end ttl from now, and sees to it that the timer is set.
func (s *shard) arm(n ref, e *entry, ttl time.Duration) {
	now := s.now()
	due := int64(latest)
	if int64(ttl) < latest-now {
		due = now + int64(ttl)
	}
	if e.slot != unarmed {
		if due >= e.due {
			// Later than it was, or than that of the hold which had this entry before: its slot
			// comes up early and step moves it on. Extending a lease again and again, or
			// taking and releasing it, thus touches neither wheel nor timer.
			e.due = due
			return
		}
		s.wheel.remove(&s.slab, e)
	}
	e.due = due
	if t := now / tick; t < s.wake && s.wake != awake {
		s.wheel.forward(t) // no slot begins before wake
	}
	if at := s.wheel.add(&s.slab, n, e); at < s.wake {
		s.setTimer(at)
	}
}

// setTimer looks at the clock itself: the instant of an operation may be long past.
func (s *shard) setTimer(at int64) {
	s.wake = at
	d := time.Duration(at*tick) - time.Since(s.base)
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
		due, more := s.wheel.step(&s.slab, now/tick)
		if !more {
			s.wake = asleep
			if _, at, ok := s.wheel.next(); ok {
				s.setTimer(at)
			}
			return true
		}
		if due != none {
			s.expire(due, s.slab.at(due))
		}
	}
	return false
}

// shut ends the waiting of b in this shard with ErrClosed, and returns held with the
// listeners of what b holds.
func (s *shard) shut(b *backend, held []driver.Listener) []driver.Listener {
	s.lock()
	defer s.mu.Unlock()
	s.table.each(&s.slab, func(_ ref, e *entry) {
		if e.by.backend == b {
			hold := e.hold
			if n, ok := hold.(*noted); ok {
				hold = n.Listener // the core knows its own
			}
			held = append(held, hold)
		}
		var mine []*waiter // dequeuing changes the ring
		for w := e.first; w != nil; {
			if w.by.backend == b {
				mine = append(mine, w)
			}
			if w = w.next; w == e.first {
				break
			}
		}
		for _, w := range mine {
			e.dequeue(w)
			w.err = driver.ErrClosed
			w.ready <- struct{}{}
		}
	})
	return held
}

// evict releases what b, which is shut, holds in this shard. Its Shut may still be on the way
// here, if two Lockers share it: then some of its waiters are in line for what they must not get.
func (s *shard) evict(b *backend) {
	s.lock()
	defer s.mu.Unlock()
	var held []ref // handOver changes the table
	s.table.each(&s.slab, func(n ref, e *entry) {
		if e.by.backend == b {
			held = append(held, n)
		}
	})
	for _, n := range held {
		for e := s.slab.at(n); e.by != nil && e.by.backend == b; {
			s.handOver(n, e)
		}
	}
}

// stop ends the background work of a shard that holds nothing but what was left, and returns its last
// token. turn may be running, finds nothing to do and ends too.
func (s *shard) stop() uint64 {
	s.lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.wake = asleep
	}
	s.slab, s.wheel = slab{}, newWheel(s.wheel.now)
	return s.token
}
