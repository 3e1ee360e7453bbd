package locker

import (
	"errors"
	"strings"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/internal/text"
)

// The sentinels of clause ERR-001. Every error of this package matches exactly the
// ones that describe it through errors.Is, and carries the rest in an [*Error].
var (
	// ErrHeld: somebody else holds the lock. Of TryLock, or of a Lock whose
	// patience (Retry, ctx) ran out. Nothing is wrong with the backend.
	ErrHeld = driver.ErrHeld
	// ErrLost: the hold ended before it was unlocked: its time was up, it was taken
	// over or deleted, or the backend was silent for too long. Error.Reason says
	// which. What was done under the lock may have been done beside somebody else,
	// unless the store checked the fencing token.
	ErrLost = driver.ErrLost
	// ErrReleased: this lease has been unlocked already.
	ErrReleased = errors.New("lock has been released already")
	// ErrClosed: the Locker has been closed.
	ErrClosed = driver.ErrClosed
	// ErrUnavailable: the backend cannot be reached or does not answer. The outcome
	// is unknown; the core sees to it that nothing is left behind.
	ErrUnavailable = driver.ErrUnavailable
	// ErrInvalidKey: the key is empty or longer than MaxKey bytes, or the namespace
	// is not usable.
	ErrInvalidKey = errors.New("invalid key")
	// ErrInvalidTTL: the ttl is zero, negative, or above MaxTTL.
	ErrInvalidTTL = errors.New("invalid ttl")
	// ErrInvalidConfig: the message names the field, the value and what would be right.
	ErrInvalidConfig = driver.ErrInvalidConfig
	// ErrInvalidArgument: a nil ctx, function, or Lease, or a Lease that no Locker made.
	ErrInvalidArgument = errors.New("invalid argument")
	// ErrUnknownBackend: no backend is registered under that type; the message lists
	// those that are. A missing blank import is the usual cause.
	ErrUnknownBackend = errors.New("unknown backend")
	// ErrUnsupported: this backend cannot do what was asked.
	ErrUnsupported = driver.ErrUnsupported
)

// Code says in one word what an [*Error] is about. Each has its sentinel.
type Code uint8

//go:generate go tool stringer -type=Code,Reason -output=enum_string.go
const (
	_               Code = iota
	Held                 // ErrHeld
	Lost                 // ErrLost
	Released             // ErrReleased
	Closed               // ErrClosed
	Unavailable          // ErrUnavailable
	InvalidKey           // ErrInvalidKey
	InvalidTTL           // ErrInvalidTTL
	InvalidConfig        // ErrInvalidConfig
	InvalidArgument      // ErrInvalidArgument
	UnknownBackend       // ErrUnknownBackend
	Unsupported          // ErrUnsupported
	Canceled             // context.Canceled or context.DeadlineExceeded: the ctx ended before anything was tried
)

var sentinels = [...]error{
	Held: ErrHeld, Lost: ErrLost, Released: ErrReleased, Closed: ErrClosed, Unavailable: ErrUnavailable,
	InvalidKey: ErrInvalidKey, InvalidTTL: ErrInvalidTTL, InvalidConfig: ErrInvalidConfig,
	InvalidArgument: ErrInvalidArgument, UnknownBackend: ErrUnknownBackend, Unsupported: ErrUnsupported,
	Canceled: nil,
}

// Reason says why a hold ended (LOSS-002).
type Reason uint8

const (
	_                 Reason = iota
	ReasonExpired            // its time was up
	ReasonLost               // taken over by another owner, or deleted
	ReasonUnreachable        // the backend was silent for so long that the hold could be believed in no longer
	ReasonReleased           // Unlock
	ReasonClosed             // Close of the Locker
)

// Error is the type of every error that this package returns.
type Error struct {
	Op      string // "lock", "trylock", "extend", "unlock", "open", …; "hold" for a hold's end
	Key     string // as given by the caller, with its namespace; may be empty
	Backend string // "memory", "redis", …; may be empty
	Code    Code
	Reason  Reason // why the hold ended; 0 where no hold is concerned
	Err     error  // what lies beneath; may be nil
}

// Error holds no secret. Keys are quoted and cut, because they are anybody's bytes.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("lockstep: ")
	b.WriteString(e.Op)
	if e.Key != "" {
		b.WriteByte(' ')
		b.WriteString(quote(e.Key))
	}
	if e.Backend != "" {
		b.WriteString(" on ")
		b.WriteString(e.Backend)
	}
	b.WriteString(": ")
	s := e.sentinel()
	switch {
	case e.Err == nil && s != nil:
		b.WriteString(s.Error())
	case e.Err != nil && (s == nil || errors.Is(e.Err, s)):
		b.WriteString(e.Err.Error())
	case e.Err != nil:
		b.WriteString(s.Error() + ": " + e.Err.Error())
	default:
		b.WriteString(e.Code.String())
	}
	return b.String()
}

// Is makes errors.Is(err, ErrHeld) and its siblings work.
func (e *Error) Is(target error) bool {
	s := e.sentinel()
	return s != nil && target == s
}

// Unwrap returns what lies beneath.
func (e *Error) Unwrap() error { return e.Err }

func (e *Error) sentinel() error {
	if int(e.Code) < len(sentinels) {
		return sentinels[e.Code]
	}
	return nil
}

// quote makes anybody's bytes fit for one line of a log.
func quote(s string) string { return text.Quote(s) }

// errClosing is the cause of what Close ends. It is not ErrClosed, so that a caller's ctx
// that ended with another Locker is not taken for this one's end.
var errClosing = errors.New("this Locker is being closed")

// codeOf classifies an error of a backend. What matches no sentinel is Unavailable:
// an unknown failure has an unknown outcome.
func codeOf(err error) Code {
	for _, c := range [...]Code{Held, Lost, Closed, Unsupported, InvalidConfig} {
		if errors.Is(err, sentinels[c]) {
			return c
		}
	}
	return Unavailable
}

// reasonOf is codeOf for Listener.Lost.
func reasonOf(cause error) Reason {
	switch {
	case errors.Is(cause, driver.ErrExpired):
		return ReasonExpired
	case errors.Is(cause, driver.ErrClosed):
		return ReasonClosed
	case errors.Is(cause, driver.ErrUnavailable):
		return ReasonUnreachable
	}
	return ReasonLost
}

// endings holds, for each reason, the code of the hold's error and its text.
var endings = [...]struct {
	code Code
	err  error
}{
	ReasonExpired:     {Lost, driver.ErrExpired},
	ReasonLost:        {Lost, nil},
	ReasonUnreachable: {Lost, errors.New("the backend was silent for too long")},
	ReasonReleased:    {Released, nil},
	ReasonClosed:      {Closed, nil},
}
