// Package driver is what the author of a Lockstep backend implements, and nothing more.
//
// The split follows database/sql and database/sql/driver: users hold the
// structs of package locker, where every piece of shared logic exists once
// (namespaces, validation, defaults, owners, retries, waiting, the local
// deadline, loss as a channel and a cause, Close), and a backend does raw work,
// one attempt at a time. Each method below says what the caller has already
// made sure of and what the backend owes in return, with the clauses of the
// contract (docs/contract.md) that hang on it.
//
// A new backend is right when conformance.Run says so.
package driver

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Backend is one client of one store of locks. All methods may be called by
// any number of goroutines at the same time.
//
// # What the core guarantees
//
//   - Keys have 1 to 1024 bytes, of any value.
//   - A TTL is at least one millisecond and a whole number of milliseconds, or 0,
//     which asks for a session.
//   - One [Owner] is used for one hold only. The same Request is repeated while the
//     outcome of an earlier attempt is unknown, never two at the same time, and
//     never after the hold was granted.
//   - Close is called once, when nothing is under way any more, except for calls that did
//     not end in the time that the caller of Locker.Close allowed. Nothing new is asked of
//     the backend afterwards.
//
// # What a backend owes
//
//   - Errors that match one of this package's sentinels through errors.Is. Any other
//     error counts as [ErrUnavailable]: the core must then assume that the operation
//     may or may not have happened.
//   - Calls that end soon after their ctx does, with an error that matches ctx.Err().
//   - No panic, and no retained ctx.
type Backend interface {
	// Acquire makes one attempt and never waits for another holder.
	//
	// It returns ErrHeld (see [Held]) when anybody else holds the key, in this
	// process or elsewhere, as a lease or as a session (MX-001, MX-003, MX-004).
	// A holder whose time is up does not count, whether or not its entry has
	// been cleaned away yet.
	//
	// It is idempotent for one owner: a repeat by the owner who holds the key
	// restarts its ttl and returns the same token, so that the core may try
	// again after a lost reply (FLT-001). The repeat's Hold takes the place of the
	// earlier one.
	//
	// The grant's token is greater than that of every earlier grant on the key
	// (TOK-001), and minted in the same atomic step as the grant (TOK-004).
	//
	// Never return ErrHeld for a network error, and never ErrUnavailable for
	// contention (ERR-002): one is retried in peace, the other wakes an operator.
	Acquire(ctx context.Context, r Request) (Grant, error)

	// Extend makes the lease end ttl from now: never later, never added to what
	// was left (EXT-001). The token stays the same (TOK-002). It returns ErrLost
	// when h does not hold the key at this instant, even if the key is free
	// (EXT-002). The core never calls it for a session.
	Extend(ctx context.Context, h Holder, ttl time.Duration) (Grant, error)

	// Release frees the key at once and wakes whoever waits (REL-001), or returns
	// ErrLost and changes nothing when h does not hold it (REL-002). h.Token is 0
	// when the outcome of the Acquire is not known; the owner alone decides then.
	// Whatever the outcome, a session is not kept alive any longer: a lock that nobody
	// wants must not outlive its validity.
	//
	// A Release that is sent after an Acquire of the same owner takes effect
	// after it: the core uses it to take back an attempt whose reply never came
	// (CTX-004).
	Release(ctx context.Context, h Holder) error

	// Capabilities is constant for the life of the backend and does no I/O.
	Capabilities() Capabilities

	// Close ends every call in flight with ErrClosed, stops all background work
	// and frees all connections (CLO-004), even if ctx has ended. The core has released
	// the holds before. Called once; a call that is late all the same gets ErrClosed.
	Close(ctx context.Context) error
}

// Request asks for one hold.
type Request struct {
	Key   string
	Owner Owner
	// TTL is the life of a lease, or 0 for a session, which lives until it is
	// released, kept alive by the backend.
	TTL time.Duration
	// Hold hears of the loss of what this request was granted. Never nil. It may be
	// called from the moment of the grant on, even before Acquire has returned: the
	// core keeps a loss that comes early.
	Hold Listener
	// Waiting says that this is one of the attempts of a Lock that waits in line, rather
	// than its first one or a TryLock. A store that keeps an order among processes gives it
	// its place by that; anybody else ignores it.
	Waiting bool
	// Sent is when the core sent it, for a [Local] backend only, since its Epoch. It spares
	// a second look at the clock, which costs as much as all the rest of an Acquire.
	Sent time.Duration
}

// Session says whether a session is asked for rather than a lease.
func (r Request) Session() bool { return r.TTL == 0 }

// Listener is the core's side of one hold.
type Listener interface {
	// Lost says that the hold is over and nobody released it. The cause matches
	// ErrExpired (its time was up), ErrLost (taken over, deleted) or
	// ErrUnavailable (the store has been silent for so long that the hold can be
	// believed in no longer). Only the first call counts. It does not block and
	// calls nothing of the backend, so it may be called under a lock; not from
	// within Release for the same hold.
	//
	// For a session this is the only clock: the core ends a lease at its deadline by itself,
	// but how long a session may be believed in without a word from the store only the
	// backend knows. It calls Lost with ErrUnavailable by a timer of its own (LOSS-001).
	Lost(cause error)
}

// Grant is the good outcome of Acquire and Extend. It carries durations only:
// a timestamp would be of another machine's clock.
type Grant struct {
	// Token is the fencing token, 0 < Token <= MaxToken (TOK-003).
	Token uint64
	// TTL is how long the lease lasts, counted by the store from From or later.
	// 0 for a session.
	TTL time.Duration
	// From is where the core begins to count TTL (TTL-002): a moment on this process's
	// monotonic clock that is not after the one at which the store began. Zero means
	// the moment before the call, which is right for Acquire and Extend. Wait sets
	// it, because its call may have begun long before the hold did.
	From time.Time
	// Owner is set by [Passer] only: the owner that the store knows the hold by.
	Owner Owner
	// Ref is the backend's own: the core passes it on in the hold's Holder. It lets a
	// backend find again what it granted without searching for the key.
	Ref uint64
}

// MaxToken is 2^53, the greatest integer up to which every integer is exact in an
// IEEE 754 double: tokens pass through Lua and JSON.
const MaxToken = 1 << 53

// Holder names one hold.
type Holder struct {
	Key     string
	Owner   Owner
	Token   uint64 // 0 when the grant's outcome is unknown
	Ref     uint64 // the grant's; 0 when its outcome is unknown, or from a backend that sets none
	Session bool
	// At is when the core last looked at the clock, if it did so for this call: for a Release
	// on a [Local] backend, since its Epoch.
	At time.Duration
}

// Owner is the identity of one hold: the Locker's random instance and a number
// that it never uses twice. It is comparable, and made without allocating.
type Owner struct {
	Instance [16]byte
	Seq      uint64
}

// String is the instance in hexadecimal, a hyphen, and the decimal number. It
// holds no secret and no byte that a user chose.
func (o Owner) String() string {
	var buf [32 + 1 + 20]byte
	return string(o.AppendText(buf[:0]))
}

// AppendText appends what String returns.
func (o Owner) AppendText(b []byte) []byte {
	b = hex.AppendEncode(b, o.Instance[:])
	b = append(b, '-')
	return strconv.AppendUint(b, o.Seq, 10)
}

// The sentinels of the protocol. Package locker exports those that users see
// under the same names; they are the same values.
var (
	// ErrHeld: somebody else holds the key. Return it, or [Held] where the rest of
	// the holder's time is known, for contention and nothing else.
	ErrHeld = errors.New("lock is held by another owner")
	// ErrLost: the caller does not hold the key, or no longer.
	ErrLost = errors.New("lock is not held any more")
	// ErrExpired is the ErrLost of a hold whose time was up.
	ErrExpired = fmt.Errorf("its time is up: %w", ErrLost)
	// ErrUnavailable: the store could not be reached or gave no answer, so that the
	// outcome is unknown. Do not return it where the outcome is known.
	ErrUnavailable = errors.New("lock backend is unavailable")
	// ErrClosed: the backend, or the Locker above it, has been closed.
	ErrClosed = errors.New("locker is closed")
	// ErrUnsupported: this backend, or this server, cannot do what was asked.
	ErrUnsupported = errors.New("not supported by this lock backend")
	// ErrInvalidConfig: the configuration is wrong; the message names the field, the
	// value (never a secret) and what would be right (ERR-003).
	ErrInvalidConfig = errors.New("invalid configuration")
)

// Held is ErrHeld with what remains of the holder's time. The core tries again
// when it is over even if no wake-up comes (TTL-001). Without a known rest, return
// ErrHeld itself. A rest below zero counts as not known.
func Held(remaining time.Duration) error { return &heldError{remaining} }

type heldError struct{ remaining time.Duration }

func (e *heldError) Error() string {
	return ErrHeld.Error() + " for another " + e.remaining.String()
}

func (e *heldError) Is(target error) bool { return target == ErrHeld }

// Remaining is the rest of the holder's time that err carries, if it was made by
// [Held].
func Remaining(err error) (time.Duration, bool) {
	var h *heldError
	if errors.As(err, &h) {
		return h.remaining, true
	}
	return 0, false
}
