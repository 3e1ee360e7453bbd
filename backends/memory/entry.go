package memory

import (
	"math"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// An entry is a key that is held. It is at the same time the element of the hash
// table, of the timer wheel, and of the free list, so that none of them allocates.
// Guarded by the lock of its shard.
type entry struct {
	key  string
	hash uint64
	next *entry // in the bucket of the table, or in the free list

	owner driver.Owner
	token uint64
	due   int64 // when the hold ends, in nanoseconds since the store's base; never, for a session
	hold  driver.Listener
	by    *backend // through which it is held

	first, last *waiter // the queue

	earlier, later *entry // the neighbours in the wheel's slot
	slot           uint16 // the wheel's slot, or unarmed
}

// never is the due time of a session, later than that of any lease.
const never = math.MaxInt64

func (e *entry) session() bool { return e.due == never }

func (e *entry) heldBy(h *driver.Holder) bool {
	return e.owner == h.Owner && (h.Token == 0 || h.Token == e.token)
}

// A waiter is a call of Wait in the queue of a key that somebody holds. Guarded by the
// lock of the shard until ready is sent; then it belongs to the caller of Wait.
type waiter struct {
	request driver.Request
	by      *backend

	queue      *entry // nil when not in a queue
	prev, next *waiter

	// The outcome, and the word that it is there. The channel holds one and is sent to
	// by whoever takes the waiter from the queue, once, so sending never blocks.
	token uint64
	due   int64 // as in entry
	err   error
	ready chan struct{}
}

// enqueue puts w at the end of the queue.
func (e *entry) enqueue(w *waiter) {
	w.queue, w.prev = e, e.last
	if e.last == nil {
		e.first = w
	} else {
		e.last.next = w
	}
	e.last = w
}

// dequeue takes w from wherever in the queue it stands.
func (e *entry) dequeue(w *waiter) {
	if w.prev == nil {
		e.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		e.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.queue, w.prev, w.next = nil, nil, nil
}
