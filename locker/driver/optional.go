package driver

import (
	"context"
	"iter"
	"reflect"
	"time"
)

// The optional abilities. Ask for them with [As], never with a type assertion: a
// backend may be wrapped.

// Waiter is a backend that can wait by itself. The core then calls Wait where it
// would otherwise run its own loop of attempts; both pass the same cases.
type Waiter interface {
	// Wait is Acquire, except that where Acquire returns ErrHeld it waits for the key, first come
	// first served among the callers of this backend (WAIT-004), until ctx ends. It then returns an
	// error that matches ErrHeld and ctx.Err(), and gives up its place in the queue without
	// swallowing a wake-up: a grant that arrives at the moment of giving up is either returned or
	// given to the next waiter (WAIT-003). A holder's Extend may shorten its lease: the waiters then
	// get the key at the new end, not at the later one that it had before.
	Wait(ctx context.Context, r Request) (Grant, error)
}

// Local is a backend that keeps its holds in this process and declares [LocalClock]. The core
// then takes and gives back a key by the shorter way of a [Hand], which reads the clock once for
// each, and leaves to the backend what it would otherwise do a second time: the list of what is
// held, and the count of the calls in flight. Measured against an Acquire and a Release of such a
// backend, a pair of Lock and Unlock takes 0.4 of the time for a lease and 0.3 for a session
// (docs/adr/0011-local-backends.md).
type Local interface {
	// Epoch is the moment from which the backend's clock and the core's count. It is constant.
	Epoch() time.Time
	// Attach is called once for each Locker, whose owners all have this instance and whose
	// requests all have this identity.
	Attach(instance [16]byte, identity string) Hand
}

// Hand is what one Locker uses of a [Local] backend in place of Acquire, Wait and Release. The
// owner of what it grants has the Seq TakenSeq(token). Its calls do not block, apart from Await,
// and may come during Close and after it: then they return ErrClosed.
type Hand interface {
	// Take is Acquire at the moment sent, which is since the Epoch and may be left 0 for a
	// session. where finds the hold again. If another owner holds the key and wait is set,
	// there is a turn instead of ErrHeld: a place in the key's queue, and Await must be called.
	// note is that of the Request.
	Take(key string, ttl, sent time.Duration, hold Listener, wait bool, note string) (token, where uint64, turn Turn, err error)
	// Drop is Release of the hold with this token. at is when the core last looked at the
	// clock, since the Epoch, and found the hold's time not up; 0 for a session.
	Drop(where, token uint64, at time.Duration) error
	// Shut is the beginning of Close: from now on Take returns ErrClosed, and so do the calls
	// of Await that are under way. It returns the Listener of each hold that this Hand has
	// taken. They stay held, and can be dropped, until Close.
	Shut() []Listener
}

// Turn is a place in a key's queue.
type Turn interface {
	// Await waits for the turn. It returns the hold, and the moment since the Epoch from which
	// it counts; or an error when ctx ends, as Wait does.
	Await(ctx context.Context) (token, where uint64, from time.Duration, err error)
}

// TakenSeq is the Seq of the owner of a hold that was taken by a [Hand]. The core's other owners
// never have the highest bit set.
func TakenSeq(token uint64) uint64 { return token | 1<<63 }

// Notifier is a backend that can hint that a key may have become free. Without it, or
// [Waiter], a release by another client is found by the next timed attempt only;
// docs/write-a-backend.md says which cases have to be declared as known to fail then.
type Notifier interface {
	// Notify calls wake, from any goroutine and without blocking, each time when key
	// may have become free since the last failed Acquire of this backend on it, when
	// it may become free sooner than that one was told (its lease was shortened), and
	// when wake-ups may have been missed (a broken connection). stop ends it; wake may
	// still be called once during stop. A hint too many costs an attempt; a hint that
	// is lost costs the time until the waiter's next timed attempt (Retry.Delay).
	//
	// Neither Notify nor stop waits or does I/O: the core calls them under a mutex of its
	// own, one key at most once at a time. They may take a mutex of the backend under which
	// it calls wake and Listener.Lost, for neither of these takes the core's mutex.
	Notify(key string, wake func()) (stop func())
}

// Queuer is a backend whose store keeps an order among the processes that wait for a key.
type Queuer interface {
	// Queue is Acquire for the attempts of a Lock, which waits where it is refused; those of TryLock go
	// by Acquire. The first Queue comes before Notify, those after it while Notify listens. A refusal
	// may give this client a place in the order, which it gives up when Notify's stop is called.
	Queue(ctx context.Context, r Request) (Grant, error)
}

// Handoff is a backend that can hand off a lease from its holder to another owner of the same
// process without freeing the key in between. The core then does so in Unlock when others of the
// process wait and the first waiter wants a lease, which spares the store all contention within a
// process.
type Handoff interface {
	// HandOff is Release of h and, in the same step, Acquire of r, which names the same key and
	// an owner of the same Locker, who has no attempt in flight. The new holder is owed all
	// that Acquire owes it: a greater token (TOK-001), a life that the store has confirmed
	// (TTL-002), its listener in the place of the old one, and its note in the place of the old
	// one's: the store is asked where the two differ (ADM-002). Without [PromptLoss] each
	// HandOff asks the store: what was deleted there may have been granted to others since,
	// with a greater token, and nobody would be told (TOK-004).
	//
	// A backend hands a key off for a bounded number of times or a bounded time only, so that other
	// processes get their turn (WAIT-007): when that is used up it releases h and returns
	// ErrYielded; r goes on waiting, and is woken as after any release.
	//
	// Any other error is that of Release(h): what is over is not brought back. After an unknown
	// outcome the core releases h again, for as long as the longer of the two holds could last;
	// the store must not have heard of r.Owner, nor may r.Hold be told anything. The core does
	// not ask for a hold to be handed off while a request for it may yet reach the store, such
	// as an Extend of unknown outcome.
	HandOff(ctx context.Context, h Holder, r Request) (Handed, error)
}

// Handed is the good outcome of HandOff.
type Handed struct {
	Grant
	// Owner is the owner that the store knows the hold by from now on: the old holder's, where
	// the store is not told of the change.
	Owner Owner
}

// Together is a backend that can take several keys in one step of its store. A LockAll begins so,
// unless a Lock of this Locker waits for one of the keys; where that fails it takes them one after
// the other, by Acquire, and waits.
type Together interface {
	// AcquireAll is Acquire of all rs in one step: all of them are granted, or none (MULTI-001).
	// rs are two requests or more, in the order of their keys, no key twice, each with an owner
	// and a Listener of its own, all with one TTL. A step that locks its keys one after the
	// other has to keep that order, or two callers whose keys overlap wait for each other
	// (MULTI-002). Each request is owed what Acquire owes it: a grant, in the order of rs, with a
	// token of its key, and the same one for a repeat by the present owners. The grants begin
	// at one moment, so that the core need not level them (MULTI-004).
	//
	// A backend that is a [Waiter] too decides by itself, as in Acquire, whether those who wait in
	// its queue are first.
	//
	// The errors are those of Acquire. at is the index of the request that the error is
	// about, or -1 if it is about all of them, or not known.
	//
	//   - After ErrHeld nothing is held that was not held before, and nothing was written: no
	//     token is used up, no Listener is kept.
	//   - After ErrRefused nothing is held either. Tokens may have been used up.
	//   - After ErrUnavailable the outcome is unknown, for all of them. The core takes back every
	//     one by a Release with Token 0, in any order; a step that arrives later has
	//     to fail as a whole if one of its owners was taken back.
	//   - ErrNotTogether: this cannot be done in one step for these keys, as in a cluster where
	//     they are in different places, or for so many. It comes without I/O.
	AcquireAll(ctx context.Context, rs []Request) (grants []Grant, at int, err error)
}

// SessionClock is a backend that times its sessions by a clock of its own and can look at it
// at any moment. A process that wakes up after a long stop runs before its timers do: the core
// asks in Lease.Err, so that it is right even then (LOSS-001), and when a grant has come, which may have
// taken too long on its way (TOK-004).
type SessionClock interface {
	// SessionErr returns nil while the session h may be considered held, and otherwise the
	// cause that Listener.Lost gets: ErrUnavailable, with the store's last words, when no
	// renewal was confirmed for too long. It does no I/O and calls no Listener. A session that
	// the backend does not know is nil; one that has ended is known until Listener.Lost has returned.
	SessionErr(h Holder) error
}

// Leaver is a backend that can leave a lease in the store when it closes. It is needed only where
// Close frees what is held through the backend, or where the backend would otherwise release a
// lease by itself. Without it the core leaves a lease by Extend: then nothing but its time may
// end it.
type Leaver interface {
	// Leave is Extend, and gives the lease up without releasing it: the lease ends when its time is
	// up (KEEP-004), and Close does not free it. Its Listener need not be told of that end.
	Leave(ctx context.Context, h Holder, ttl time.Duration) (Grant, error)
}

// Inspector is a backend that can tell who holds a key.
type Inspector interface {
	// Inspect reports the present holder of key, or ok == false when it is free.
	// It is a snapshot for people: by the time it is read it may be wrong.
	Inspect(ctx context.Context, key string) (info Info, ok bool, err error)
}

// Info is what is known of one key's present holder.
type Info struct {
	Key   string
	Owner string
	// Identity and Note are those of the [Request], of any bytes: whoever shows them to people
	// has to escape them. Empty where the backend does not know them.
	Identity, Note string
	// Since is when the hold was granted, on this process's clock, as far as the backend knows.
	// It is for people: the clocks of two machines, and the way of the answer, are in it. The
	// zero Time where it is not known.
	Since time.Time
	// Token is the holder's. Of another process that hands the key off ([Handoff]) it may be
	// one that is set aside for a later holder there.
	Token   uint64
	Session bool
	// Remaining is how long the hold lasts unless it is extended; 0 for a session of
	// a backend whose sessions have no end of their own.
	Remaining time.Duration
	// Waiters is how many wait for the key: Locks in a store of this process, and processes
	// in one that many share. -1 where the backend does not know.
	Waiters int
}

// Lister is a backend that can tell what is held. It declares [Listing].
type Lister interface {
	// List yields what is held of the keys that begin with prefix, in any order, as Inspect
	// would report it: at least once what is held from the beginning to the end of the List, and
	// nothing that is not a hold of this backend's (ADM-003). Its memory is bounded, however much
	// is held. It holds no mutex and no connection while it yields. An error is the last thing
	// that it yields; ctx ends it, and so does Close (ADM-004).
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]
}

// Breaker is a backend that can end somebody else's hold. It declares [Breaking].
type Breaker interface {
	// Break frees key at once, if the hold with this token, which is the one that Inspect tells,
	// still has it, and wakes the waiters. Otherwise it returns ErrLost and changes nothing
	// (ADM-005). The holder's Listener, wherever it is, hears ErrBroken: in this client before
	// Break returns, elsewhere as promptly as of any loss. If it makes a call before it has heard, its
	// Extend or Release returns ErrBroken (ADM-006). The hold never comes back.
	Break(ctx context.Context, key string, token uint64) error
}

// Pinger is a backend that can tell whether its store would grant locks now.
type Pinger interface {
	// Ping returns nil, or an error that matches ErrUnavailable. It fails where an Acquire
	// would.
	Ping(ctx context.Context) error
}

// As returns the optional ability T (an interface such as [Waiter]) of b, or of what b wraps: a
// wrapper has a method Unwrap() Backend. A wrapper that must hide an ability of what it wraps
// has no such method, and implements the abilities that it does not hide. A nil pointer in b
// has no abilities. As is safe for concurrent use.
func As[T any](b Backend) (T, bool) {
	for !isNil(b) {
		if t, ok := b.(T); ok {
			return t, true
		}
		u, ok := b.(interface{ Unwrap() Backend })
		if !ok {
			break
		}
		b = u.Unwrap()
	}
	var none T
	return none, false
}

// isNil: an interface that holds a nil pointer is not nil, but calling it panics.
func isNil(b Backend) bool {
	if b == nil {
		return true
	}
	v := reflect.ValueOf(b)
	switch v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Func, reflect.Chan, reflect.Slice:
		return v.IsNil()
	}
	return false
}
