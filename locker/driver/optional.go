package driver

import (
	"context"
	"reflect"
	"time"
)

// The optional abilities. Ask for them with [As], never with a type assertion: a
// backend may be wrapped.

// Waiter is a backend that can wait by itself. The core then calls Wait where it
// would otherwise run its own loop of attempts; both pass the same cases.
type Waiter interface {
	// Wait is Acquire, except that where Acquire returns ErrHeld it waits for the
	// key, first come first served among the callers of this backend (WAIT-004), until
	// ctx ends. It then returns an error that matches ErrHeld and ctx.Err(), and the
	// place in the queue is given up without swallowing a wake-up: a grant that
	// arrives at the moment of giving up is either returned or passed on (WAIT-003).
	Wait(ctx context.Context, r Request) (Grant, error)
}

// Local is a backend that keeps its holds in this process, declares [LocalClock], and whose
// calls take no time, apart from Wait. The core then leaves to it what it would otherwise do
// a second time: the list of what is held, the count of the calls under way, which may come
// during Close and after it (they get ErrClosed), and looking at the clock.
type Local interface {
	// Epoch is the moment from which the backend's clock and the core's count. It is constant.
	// Acquire may take Request.Sent for the present, and Release Holder.At: then the core has
	// made sure that the hold's time was not up.
	Epoch() time.Time

	// Shut is the beginning of Close: from now on Acquire and Wait, those that are waiting
	// included, return ErrClosed. It returns the Hold of each Request of this backend that holds
	// its key. They stay held, and can be released, until Close.
	Shut() []Listener
}

// Notifier is a backend that can hint that a key may have become free. Without it, or
// [Waiter], a release by another client is found by the next timed attempt only, and the
// cases WAIT-001, WAIT-003 and WAIT-007 have to be declared as known to fail.
type Notifier interface {
	// Notify calls wake, from any goroutine and without blocking, each time when key
	// may have become free since the last failed Acquire of this backend on it, and
	// when wake-ups may have been missed (a broken connection). stop ends it; wake may
	// still be called once during stop. A hint too many costs an attempt; a hint that
	// is lost costs the fallback timer's delay.
	//
	// Neither Notify nor stop waits or does I/O: the core calls them under a mutex of its
	// own, one key at most once at a time. They may take a mutex of the backend under which
	// it calls wake and Listener.Lost, for neither of these takes the core's mutex.
	Notify(key string, wake func()) (stop func())
}

// Passer is a backend that can pass a lease from its holder to another owner of the same
// process without freeing the key in between. The core then does so in Unlock when others
// of the process wait in line and the first one wants a lease, which spares the store the
// whole contention inside of a process.
type Passer interface {
	// Pass is Release of h and, in the same step, Acquire of r, which names the same key and
	// an owner of the same Locker, who has no attempt under way. The new holder is owed all
	// that Acquire owes it: a greater token (TOK-001), a life that the store has confirmed
	// (TTL-002), and its listener in the place of the old one. Grant.Owner is the owner
	// that the store knows the hold by from now on: h.Owner, where the store is not told of
	// the change.
	//
	// A backend passes a key on for a bounded number of times or a bounded time only, so that
	// other processes get their turn (WAIT-007): it then returns a Grant without a token,
	// having released h; r goes on waiting, and is woken as after any release.
	//
	// The error is that of Release(h), with a Grant without a token: what is over is not brought
	// back. After an error whose outcome is unknown the core releases h again; the store must
	// not have heard of r.Owner, nor may r.Hold be told anything. The core does not ask for a
	// hold to be passed on while a request for it may yet reach the store, such as an Extend
	// whose outcome is unknown.
	Pass(ctx context.Context, h Holder, r Request) (Grant, error)
}

// Inspector is a backend that can say who holds a key.
type Inspector interface {
	// Inspect reports the present holder of key, or ok == false when it is free.
	// It is a snapshot for people: by the time it is read it may be wrong.
	Inspect(ctx context.Context, key string) (info Info, ok bool, err error)
}

// Info is what is known of one key's present holder.
type Info struct {
	Owner string
	// Token is the holder's. Of another process that passes the key on ([Passer]) it may be
	// one that is set aside for a later holder there.
	Token   uint64
	Session bool
	// Remaining is how long the hold lasts unless it is extended; 0 for a session of
	// a backend whose sessions have no end of their own.
	Remaining time.Duration
}

// Pinger is a backend that can say whether its store answers.
type Pinger interface {
	// Ping returns nil, or an error that matches ErrUnavailable.
	Ping(ctx context.Context) error
}

// As finds the optional ability T (an interface such as [Waiter]) in b, or in what
// b wraps: a wrapper says what it wraps with a method Unwrap() Backend. A wrapper
// that must hide an ability of what it wraps has no Unwrap method, and offers
// again what it wants seen. A nil pointer in b has no abilities. Safe for concurrent use.
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
