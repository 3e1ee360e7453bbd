package locker

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/internal/text"
)

// The sentinels of clause ERR-001. Every error of this package matches those that describe it
// through errors.Is, and has the details in an [*Error].
var (
	// ErrHeld is returned when another owner holds the key: by TryLock at once, by Lock when
	// its patience (Retry, ctx) runs out. Nothing is wrong with the backend.
	ErrHeld = driver.ErrHeld
	// ErrLost is returned when the hold ended before it was unlocked: its time was up, it was
	// taken over or deleted, or the backend was silent for too long. Error.Reason says
	// which. Another holder may have worked at the same time, unless the store that the lock
	// protects checks the fencing token.
	ErrLost = driver.ErrLost
	// ErrReleased is returned when this lease has been unlocked already.
	ErrReleased = errors.New("lock has been released already")
	// ErrClosed is returned when the Locker has been closed.
	ErrClosed = driver.ErrClosed
	// ErrUnavailable is returned when the store does not answer, so that the outcome is unknown, or
	// when it answers that it refuses; the message then quotes it. Nothing needs to be cleaned up:
	// what may have been granted without an answer is released in the background.
	ErrUnavailable = driver.ErrUnavailable
	// ErrInvalidKey is returned when the key is empty or longer than MaxKey bytes, or the
	// namespace is not valid.
	ErrInvalidKey = errors.New("invalid key")
	// ErrInvalidTTL is returned when a ttl is zero, negative, above MaxTTL, or shorter than
	// the backend can keep (Capabilities.MinTTL).
	ErrInvalidTTL = errors.New("invalid ttl")
	// ErrInvalidConfig is returned when a configuration is wrong. The message names the field,
	// the value and what would be right; it never shows a secret.
	ErrInvalidConfig = driver.ErrInvalidConfig
	// ErrInvalidArgument is returned for a nil ctx, function or Lease, and for a Locker or Lease
	// that this package did not make.
	ErrInvalidArgument = errors.New("invalid argument")
	// ErrUnknownBackend is returned when no backend is registered under Config.Type; the
	// message lists those that are. A missing blank import is the usual cause.
	ErrUnknownBackend = errors.New("unknown backend")
	// ErrUnsupported is returned when this backend, or its server, cannot do what was asked.
	ErrUnsupported = driver.ErrUnsupported
)

// Code says in one word what an [*Error] is about. Each but CodeCanceled has a sentinel.
type Code uint8

//go:generate go tool stringer -type=Code -trimprefix=Code
const (
	_                   Code = iota
	CodeHeld                 // ErrHeld
	CodeLost                 // ErrLost
	CodeReleased             // ErrReleased
	CodeClosed               // ErrClosed
	CodeUnavailable          // ErrUnavailable
	CodeInvalidKey           // ErrInvalidKey
	CodeInvalidTTL           // ErrInvalidTTL
	CodeInvalidConfig        // ErrInvalidConfig
	CodeInvalidArgument      // ErrInvalidArgument
	CodeUnknownBackend       // ErrUnknownBackend
	CodeUnsupported          // ErrUnsupported
	CodeCanceled             // context.Canceled or context.DeadlineExceeded: the ctx ended before anything was tried
)

var sentinels = [...]error{
	CodeHeld: ErrHeld, CodeLost: ErrLost, CodeReleased: ErrReleased, CodeClosed: ErrClosed, CodeUnavailable: ErrUnavailable,
	CodeInvalidKey: ErrInvalidKey, CodeInvalidTTL: ErrInvalidTTL, CodeInvalidConfig: ErrInvalidConfig,
	CodeInvalidArgument: ErrInvalidArgument, CodeUnknownBackend: ErrUnknownBackend, CodeUnsupported: ErrUnsupported,
	CodeCanceled: nil,
}

// Reason says why a hold ended (LOSS-002).
type Reason uint8

//go:generate go tool stringer -type=Reason -linecomment
const (
	// noReason is that of a hold that lasts.
	noReason Reason = iota // none
	// ReasonExpired says that the hold's time was up.
	ReasonExpired // expired
	// ReasonLost says that it was taken over by another owner, or deleted.
	ReasonLost // lost
	// ReasonUnreachable says that the backend has not confirmed it for so long that it can no
	// longer be considered held.
	ReasonUnreachable // unreachable
	// ReasonReleased says that Unlock ended it.
	ReasonReleased // released
	// ReasonClosed says that Close of the Locker ended it.
	ReasonClosed // closed
	// ReasonCapped says that it was kept for as long as WithKeepAlive allows. Nobody else gets
	// the key before the lease's own end.
	ReasonCapped // capped
	// ReasonStalled says that WithProgress saw no progress. Nobody else gets the key before the
	// lease's own end.
	ReasonStalled // stalled
	// ReasonLeft says that Leave ended it in this process; the key stays taken for as long as Leave
	// said.
	ReasonLeft // left
	// ReasonBroken says that somebody ended it by Locker.Break.
	ReasonBroken // broken
)

// Error is the type of every error that this package returns.
type Error struct {
	Op      string // "lock", "trylock", "extend", "unlock", "open", …; "hold" for a hold's end
	Key     string // as given by the caller, with its namespace; may be empty
	Backend string // "memory", "redis", …; may be empty
	Code    Code
	Reason  Reason // why the hold ended; 0 if the error is not about a hold's end
	Err     error  // the underlying error; may be nil
}

// Error implements error. The text holds no secret. Keys are quoted and shortened, because they
// may hold any bytes.
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

// Is reports whether target is the sentinel of e.Code, for errors.Is.
func (e *Error) Is(target error) bool {
	s := e.sentinel()
	return s != nil && target == s
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

func (e *Error) sentinel() error {
	if int(e.Code) < len(sentinels) {
		return sentinels[e.Code]
	}
	return nil
}

// wording is an error in other words.
type wording struct {
	text string
	is   error
}

func (e *wording) Error() string { return e.text }

func (e *wording) Unwrap() error { return e.is }

// joinErrors is errors.Join on one line, which is what a log wants.
func joinErrors(errs ...error) error {
	var all error
	for _, err := range errs {
		switch {
		case err == nil:
		case all == nil:
			all = err
		default:
			all = fmt.Errorf("%w; %w", all, err)
		}
	}
	return all
}

// quote makes arbitrary bytes fit for one line of a log.
func quote(s string) string { return text.Quote(s) }

// errClosing is the cause of what Close ends. It is not ErrClosed, so that a caller's ctx
// that ended with another Locker is not taken for this one's end.
var errClosing = errors.New("this Locker is being closed")

// codeOf classifies an error of a backend. What matches no sentinel is Unavailable:
// an unknown failure has an unknown outcome.
func codeOf(err error) Code {
	for _, c := range [...]Code{CodeHeld, CodeLost, CodeClosed, CodeUnsupported, CodeInvalidConfig} {
		if errors.Is(err, sentinels[c]) {
			return c
		}
	}
	return CodeUnavailable
}

// unknownOutcome says whether what met err may have happened, or may happen yet.
func unknownOutcome(err error) bool {
	return err != nil && codeOf(err) == CodeUnavailable && !errors.Is(err, driver.ErrRefused)
}

// reasonOf is codeOf for Listener.Lost.
func reasonOf(cause error) Reason {
	switch {
	case errors.Is(cause, driver.ErrExpired):
		return ReasonExpired
	case errors.Is(cause, driver.ErrBroken):
		return ReasonBroken
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
	ReasonExpired:     {CodeLost, driver.ErrExpired},
	ReasonLost:        {CodeLost, nil},
	ReasonUnreachable: {CodeLost, errors.New("the backend was silent for too long")},
	ReasonReleased:    {CodeReleased, nil},
	ReasonClosed:      {CodeClosed, nil},
	ReasonCapped:      {CodeLost, errors.New("it was kept for as long as WithKeepAlive allows")},
	ReasonStalled:     {CodeLost, errors.New("WithProgress saw no progress")},
	ReasonLeft:        {CodeReleased, errors.New("Leave ended it here")},
	ReasonBroken:      {CodeLost, driver.ErrBroken},
}
