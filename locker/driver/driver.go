// Package driver is what the author of a Lockstep backend implements, and nothing more.
//
// The split follows database/sql and database/sql/driver: users hold the structs of package
// locker, where every piece of shared logic exists once (namespaces, validation, defaults,
// owners, retries, waiting, the local deadline, loss as a channel and a cause, Close), and a
// backend does raw work, one attempt at a time. Each method below says what the caller has
// already made sure of and what the backend owes in return, with the clauses of the contract
// (docs/contract.md) that depend on it.
//
// A new backend is right when conformance.Run passes.
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
//   - Errors that match one of this package's sentinels through errors.Is. Three of them give no
//     answer about the lock: [ErrUnavailable] (the outcome is unknown), [ErrRefused] (the store
//     did not do it) and [ErrWrongPeer] (it did not, and this server will not later either). Any
//     other error counts as ErrUnavailable: the core must then assume that the operation may or
//     may not have happened.
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
	// again after a lost reply (FLT-001). The repeat's Hold, which is another one, takes
	// the place of the earlier: a loss of what the first attempt was granted says nothing
	// of what the repeat is granted.
	//
	// The grant's token is greater than that of every earlier grant on the key
	// (TOK-001), and minted in the same atomic step as the grant (TOK-004).
	//
	// A store may refuse an owner for good: one who was taken back (CTX-004), or whose hold was broken
	// (ADM-006) before the reply came. That is ErrLost or ErrBroken. The core then goes on with another
	// owner. After ErrRefused it would repeat the attempt with this one, and those who wait behind it
	// would wait as well, although the key is free.
	//
	// Never return ErrHeld for a network error, and never ErrUnavailable for
	// contention (ERR-002): the one is normal, the other alarms an operator.
	Acquire(ctx context.Context, r Request) (Grant, error)

	// Extend makes the lease end ttl from now: never later, never added to what
	// remains (EXT-001). The token stays the same (TOK-002). It returns ErrLost
	// when h does not hold the key at this instant, even if the key is free
	// (EXT-002). The core never calls it for a session.
	Extend(ctx context.Context, h Holder, ttl time.Duration) (Grant, error)

	// Release frees the key at once and wakes the waiters (REL-001), or returns
	// ErrLost and changes nothing when h does not hold it (REL-002). h.Token is 0
	// when the outcome of the Acquire is not known; the owner alone decides then.
	// Whatever the outcome, a session is no longer kept alive: after a failed release the
	// key must become free within the validity.
	//
	// A Release that is sent after an Acquire of the same owner takes effect
	// after it: the core uses it to take back an attempt whose outcome is unknown
	// (CTX-004).
	Release(ctx context.Context, h Holder) error

	// Capabilities is constant for the life of the backend and does no I/O.
	Capabilities() Capabilities

	// Close ends every call in flight with ErrClosed, stops all background work and frees all
	// connections (CLO-004), even if ctx has ended. The core has released the holds before. Close is
	// called once; a call that comes after it gets ErrClosed.
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
	// Identity says who asks: the same for all requests of one Owner.Instance, at most 256
	// bytes. Note says what for, at most 1024 bytes. Both may hold any bytes. A
	// backend that declares [Notes] keeps them with the hold, in the same step as the grant, for
	// people who look (ADM-001); nothing else may depend on them.
	Identity, Note string
}

// Session reports whether a session is asked for rather than a lease.
func (r Request) Session() bool { return r.TTL == 0 }

// Listener is the core's side of one hold.
type Listener interface {
	// Lost says that the hold is over and nobody released it. The cause matches
	// ErrExpired (its time was up), ErrBroken (see [Breaker]), ErrLost (taken over, deleted) or
	// ErrUnavailable (the store has been silent for so long that the hold can no longer
	// be considered held). Only the first call counts. It does not block and
	// calls nothing of the backend, so it may be called under a mutex; but not from
	// within Release for the same hold.
	//
	// For a session this is the only clock: the core ends a lease at its deadline by itself,
	// but only the backend knows how long a session may be considered held without a word
	// from the store. It calls Lost with ErrUnavailable by a timer of its own (LOSS-001).
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
	// monotonic clock that is not after the one at which the store began. Acquire and
	// Extend leave it zero, which means the moment before the call: the reply says nothing
	// of when the store began to count. Wait and HandOff set it, because their hold may
	// begin long after the call, or have begun before it.
	From time.Time
}

// MaxToken is 2^53, the greatest integer up to which every integer is exact in an
// IEEE 754 double: tokens pass through Lua and JSON.
const MaxToken = 1 << 53

// Holder names one hold.
type Holder struct {
	Key     string
	Owner   Owner
	Token   uint64 // 0 when the grant's outcome is unknown
	Session bool
}

// Owner is the identity of one hold: the Locker's random instance and a number
// that it never uses twice. It is comparable, and made without allocating.
type Owner struct {
	Instance [16]byte
	Seq      uint64
}

// String returns the instance in hexadecimal, a hyphen, and the decimal number. It
// holds no secret and no byte that a user chose.
func (o Owner) String() string {
	var buf [32 + 1 + 20]byte
	return string(o.AppendText(buf[:0]))
}

// AppendText appends what String returns to b.
func (o Owner) AppendText(b []byte) []byte {
	b = hex.AppendEncode(b, o.Instance[:])
	b = append(b, '-')
	return strconv.AppendUint(b, o.Seq, 10)
}

// The sentinels of the protocol. Package locker exports those that users see
// under the same names; they are the same values.
var (
	// ErrHeld is returned when another owner holds the key: for contention, and nothing
	// else. Where the holder's remaining time is known, return [Held].
	ErrHeld = errors.New("lock is held by another owner")
	// ErrLost is returned when the caller does not hold the key, or no longer does.
	ErrLost = errors.New("lock is not held any more")
	// ErrExpired is the ErrLost of a hold whose time was up.
	ErrExpired = fmt.Errorf("its time is up: %w", ErrLost)
	// ErrBroken is the ErrLost of a hold that somebody ended by [Breaker.Break].
	ErrBroken = fmt.Errorf("somebody broke the lock: %w", ErrLost)
	// ErrUnavailable is returned when the store could not be reached or gave no answer: the
	// outcome is unknown, and what was asked for may have happened or may happen yet. The
	// core repeats it with the same owner, or takes it back. Where the store has answered,
	// return ErrHeld, ErrLost or ErrRefused.
	ErrUnavailable = errors.New("lock backend is unavailable")
	// ErrRefused is returned when the store answered that it did not do what was asked for,
	// and may do it another time: out of memory, read-only, loading, busy, not permitted, a
	// transaction rolled back. It matches ErrUnavailable too, which is what users see, with
	// the store's words. The outcome is known: the core takes nothing back, and a waiting Lock
	// goes on waiting. Return it only if nothing of the request can have taken effect.
	ErrRefused = refused("the store refused", ErrUnavailable)
	// ErrWrongPeer is the ErrRefused of a server that will go on refusing: a master that was
	// demoted, a standby. The backend gives that connection up and makes it anew, within the
	// time of one operation; the error is for the calls that met it. Ping fails with it too.
	ErrWrongPeer = refused("the server does not take writes", ErrRefused)
	// ErrYielded is returned by HandOff when it released the hold because it is another
	// process's turn.
	ErrYielded = errors.New("lock was released for another process")
	// ErrNotTogether is returned by AcquireAll when the store cannot take just these keys in one
	// step. Nothing was asked; the core takes them one after the other.
	ErrNotTogether = errors.New("these keys cannot be locked in one step")
	// ErrClosed is returned when the backend, or the Locker above it, has been closed.
	ErrClosed = errors.New("locker is closed")
	// ErrUnsupported is returned when this backend, or this server, cannot do what was
	// asked.
	ErrUnsupported = errors.New("not supported by this lock backend")
	// ErrInvalidConfig is returned when the configuration is wrong. The message names the
	// field, the value (never a secret) and what would be right (ERR-003).
	ErrInvalidConfig = errors.New("invalid configuration")
)

// refusal is a sentinel that matches another without repeating its text: a refusal is not
// silence, and must not read like it.
type refusal struct {
	text string
	is   error
}

func refused(text string, is error) error { return &refusal{text, is} }

func (e *refusal) Error() string { return e.text }

func (e *refusal) Unwrap() error { return e.is }

// Held is ErrHeld with the holder's remaining time. The core tries again when that is over, even
// if no wake-up comes (TTL-001). If the remaining time is not known, return ErrHeld itself. A
// negative remaining time counts as not known.
func Held(remaining time.Duration) error { return &heldError{remaining} }

type heldError struct{ remaining time.Duration }

func (e *heldError) Error() string {
	return ErrHeld.Error() + " for another " + e.remaining.String()
}

func (e *heldError) Is(target error) bool { return target == ErrHeld }

// Remaining returns the holder's remaining time that err carries, if [Held] made it.
func Remaining(err error) (time.Duration, bool) {
	var h *heldError
	if errors.As(err, &h) {
		return h.remaining, true
	}
	return 0, false
}
