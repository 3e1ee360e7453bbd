package memory

import (
	"math"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// An entry is a key that is held. It is at the same time the element of the hash
// table, of the timer wheel, and of the free list, so that none of them allocates.
// Guarded by the lock of its shard.
//
// Entries live in slabs and refer to each other by number: a million of them are few objects
// to the garbage collector, with few pointers.
type entry struct {
	key  string
	hold driver.Listener
	by   *client // through which it is held; nil in the free list
	// first is the head of the queue, a ring: first.prev is the last one.
	first *waiter

	hash  uint64
	owner uint64 // the number; the instance is the client's
	token uint64
	due   int64 // when the hold ends, in nanoseconds since the shard's base; never, for a session
	since int64 // when it was granted, likewise; 0 for a session of which nobody looked

	next           ref    // in the bucket of the table, or in the free list
	earlier, later ref    // the neighbours in the wheel's slot
	slot           uint16 // the wheel's slot, or unarmed
}

// A ref is the number of an entry in its shard, or none.
type ref uint32

const none ref = 0

// A client is one Locker's use of a backend: the part of an entry that many have in common.
type client struct {
	backend  *backend
	instance [16]byte
	identity string
	left     *client // the same instance's, of the store's left backend; nil for such a one itself
}

// A noted is the listener of a hold that has a note: an entry has no room for what few holds
// have.
type noted struct {
	driver.Listener
	note string
}

// listening is hold, with its note if there is one.
func listening(hold driver.Listener, note string) driver.Listener {
	if note == "" {
		return hold
	}
	return &noted{hold, note}
}

// never is the due time of a session, later than that of any lease.
const never = math.MaxInt64

func (e *entry) session() bool { return e.due == never }

func (e *entry) held() bool { return e.by != nil }

func (e *entry) ownedBy(o *driver.Owner) bool {
	return e.owner == o.Seq && e.by.instance == o.Instance
}

func (e *entry) heldBy(h *driver.Holder) bool {
	return e.ownedBy(&h.Owner) && (h.Token == 0 || h.Token == e.token)
}

// A waiter is a call of Await in the queue of a key that somebody holds. Guarded by the
// lock of the shard until ready is sent; then it belongs to the caller of Await.
type waiter struct {
	shard *shard
	by    *client
	hold  driver.Listener
	ttl   time.Duration
	sent  time.Duration // when it came, on the store's clock; 0 if nobody looked
	owner naming

	queue      ref // none when not in a queue
	prev, next *waiter

	// The outcome, and the word that it is there. The channel holds one and is sent to
	// by what takes the waiter from the queue, once, so sending never blocks.
	token, where uint64
	from         time.Duration // when a lease began to count, on the store's clock
	err          error
	ready        chan struct{}
}

// enqueue puts w at the end of the queue of e, which is number r.
func (e *entry) enqueue(r ref, w *waiter) {
	w.queue = r
	if e.first == nil {
		e.first, w.prev, w.next = w, w, w
		return
	}
	w.prev, w.next = e.first.prev, e.first
	w.prev.next, w.next.prev = w, w
}

// dequeue takes w from wherever in the queue it stands.
func (e *entry) dequeue(w *waiter) {
	switch {
	case w.next == w:
		e.first = nil
	case e.first == w:
		e.first = w.next
	}
	w.prev.next, w.next.prev = w.next, w.prev
	w.queue, w.prev, w.next = none, nil, nil
}
