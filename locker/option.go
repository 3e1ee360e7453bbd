package locker

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/internal/conf"
)

// Limits of what a caller may ask for.
const (
	// MaxKey is the greatest length of a key in bytes, namespace included (KEY-001).
	MaxKey = 1024
	// MaxNamespace is the greatest length of a namespace in bytes.
	MaxNamespace = 256
	// MaxIdentity is the greatest length of Config.Identity in bytes.
	MaxIdentity = 256
	// MaxNote is the greatest length of a note in bytes.
	MaxNote = 1024
	// MaxTTL is the longest ttl. For a longer hold take a session.
	MaxTTL = 100 * 365 * 24 * time.Hour
	// MaxRetryDelay is the longest Retry.Delay.
	MaxRetryDelay = 24 * time.Hour
	// MaxOpenWait is the longest Config.OpenWait.
	MaxOpenWait = 24 * time.Hour
	// MaxDriftFactor is the greatest DriftFactor.
	MaxDriftFactor = 0.5
)

// Defaults, where Config and the call are silent. There is no default ttl: without one a hold
// is a session.
const (
	DefaultNamespace   = "app"
	DefaultDelay       = 100 * time.Millisecond // Retry.Delay
	DefaultJitter      = 50 * time.Millisecond  // Retry.Jitter
	DefaultDriftFactor = 0.01                   // of a backend with a clock of its own
)

// Special values of the fields of Retry.
const (
	// Forever is the Retry.Attempts that never gives up. It is the default.
	Forever = -1
	// None is the Retry.Attempts of no retry. In sources and variables it is written as 0.
	None = math.MinInt
	// NoJitter is the Retry.Jitter of equal delays. In sources and variables it is written as 0s.
	NoJitter time.Duration = math.MinInt64
)

// Retry is how Lock waits for a lock that is held, or for a backend that does not
// answer (WAIT-002). It applies to acquiring only, never to Unlock or Extend
// (WAIT-005). The zero value is the default: until the ctx ends, with 100 ms ± 50 ms between
// attempts. Retry{Attempts: locker.None} does not wait.
//
//lockgen:atmost jitter delay
type Retry struct {
	//lockgen:default Forever
	//lockgen:min Forever

	// Attempts is how many timed attempts follow the first one: Forever (-1), the default,
	// for no limit. 0 for none; in Go that is None, because there 0 means the default.
	// Attempts made early, because a release was announced, do not count.
	Attempts int `json:"attempts" lockstep:"none"`

	//lockgen:default DefaultDelay
	//lockgen:min 1ns
	//lockgen:max MaxRetryDelay

	// Delay is the time between timed attempts, the fallback of a waiter that gets no hint of
	// a release. Less than a millisecond counts as one.
	Delay time.Duration `json:"delay"`

	//lockgen:min 0s

	// Jitter spreads the attempts of many processes: each delay is drawn evenly from
	// Delay ± Jitter. The default is DefaultJitter, but at most half of Delay. 0s for none;
	// in Go that is NoJitter, because there 0 means the default.
	Jitter time.Duration `json:"jitter" lockstep:"none"`
}

// DefaultRetry is what the zero Retry means, in numbers: Forever, 100 ms ± 50 ms.
func DefaultRetry() Retry { return Retry{}.resolved() }

// String is r as JSON, as it stands in a source of a configuration:
// {"attempts":0,"delay":"50ms"}.
func (r Retry) String() string { return conf.ShowValue(r) }

// NoRetry is the Retry of a Lock that makes one attempt, as TryLock does.
func NoRetry() Retry { return Retry{Attempts: None} }

// checked is r as the core uses it, or an error that names the field.
func (r Retry) checked() (Retry, error) {
	r.setDefaults()
	return r.resolved(), r.validate("retry.")
}

// resolved is r, which is valid, with the words of the core: there, 0 attempts are none, and
// so is a jitter of 0.
func (r Retry) resolved() Retry {
	r.setDefaults()
	if r.Attempts == None {
		r.Attempts = 0
	}
	switch r.Jitter {
	case NoJitter:
		r.Jitter = 0
	case 0:
		r.Jitter = min(DefaultJitter, r.Delay/2)
	}
	return r
}

// next draws the time until the next timed attempt, which is a waiter's fallback. It is never 0,
// so that a waiter cannot spin.
func (r Retry) next() time.Duration {
	d := r.Delay
	if r.Jitter > 0 {
		d += time.Duration(rand.Int64N(2*int64(r.Jitter)+1)) - r.Jitter
	}
	return max(d, time.Millisecond)
}

// budget is the whole time that a waiter has whose backend does the waiting:
// the sum of its timed attempts' delays. ok is false for ever.
func (r Retry) budget() (d time.Duration, ok bool) {
	if r.Attempts == Forever {
		return 0, false
	}
	const exact = 64 // beyond it the jitters cancel out
	for range min(r.Attempts, exact) {
		d += r.next()
	}
	if rest := float64(r.Attempts-exact) * float64(r.Delay); rest > 0 {
		if rest > float64(math.MaxInt64-d) {
			return 0, false
		}
		d += time.Duration(rest)
	}
	return d, true
}

// Option changes one setting for one call; the others are as in the Locker's Config. It is a
// value, so that it costs no allocation. Of several for the same setting the last one counts. A
// wrong value is the error of the call, before any I/O.
type Option struct {
	set uint16 // which of the fields below are given
	settings
}

const (
	setTTL = 1 << iota
	setSession
	setRetry
	setNamespace
	setDrift
	setKeep
	setProgress
	setLabel
	setNote
)

// settings are what Config and Option share.
type settings struct {
	ttl       time.Duration // 0: a session
	retry     Retry
	namespace string
	drift     float64 // 0: the backend's default

	inNamespace bool // the namespace goes before every key, not only before those of LockNS

	keep     bool
	keepMax  time.Duration // 0: no cap
	progress *func() bool  // nil: every holder makes progress; a pointer, so that an Option is comparable
	label    string
	note     string
}

// WithTTL asks for a lease that ends d after the grant unless it is extended or unlocked. d is
// rounded up to whole milliseconds; zero, negative or above MaxTTL is ErrInvalidTTL (TTL-003).
func WithTTL(d time.Duration) Option {
	return Option{set: setTTL, settings: settings{ttl: d}}
}

// WithSession asks for a session although the Locker's Config has a TTL.
func WithSession() Option { return Option{set: setSession} }

// WithRetry says how long Lock waits. TryLock never waits: it only checks that r is valid. An
// invalid one is ErrInvalidConfig.
func WithRetry(r Retry) Option { return Option{set: setRetry, settings: settings{retry: r}} }

// WithNamespace puts ns and a colon before the key of one call, whichever call it is: a Lock as
// well as a LockNS, in place of the Locker's own namespace. A wrong one is ErrInvalidKey.
func WithNamespace(ns string) Option {
	return Option{set: setNamespace, settings: settings{namespace: ns}}
}

// WithDriftFactor says how much earlier the local deadline of a lease is than the backend's, as a
// share of its ttl: 0.01 ends a lease of 30 s 300 ms early. It must be above 0 and at most
// MaxDriftFactor; otherwise the call returns ErrInvalidConfig.
func WithDriftFactor(f float64) Option {
	return Option{set: setDrift, settings: settings{drift: f}}
}

// WithKeepAlive makes a lease that extends itself: whenever a third of its ttl has passed, it is
// extended to its whole ttl, until max after the grant. A max of 0 is no cap. At the cap its ctx
// ends, with ReasonCapped, and nothing extends it any more: its holder has what remains, at least
// two thirds of the ttl while the backend answers, to stop before anybody else gets the key, and
// frees it with Unlock (KEEP-002). It needs a ttl: with a session it is ErrInvalidTTL. A negative
// max is ErrInvalidConfig.
//
// A session is kept alive too, by the backend, and its key outlives a dead process by the
// backend's SessionValidity rather than by a ttl of the call's. What only a session has: it takes
// no request of its own (the backend renews all of them at once), a process that is the only
// client of its store keeps it for ever, and Extend cannot shorten it. What only a kept lease
// has: a ttl for each call, the cap, WithProgress, Leave, and the hand-off between the goroutines
// of a process.
func WithKeepAlive(max time.Duration) Option {
	return Option{set: setKeep, settings: settings{keep: true, keepMax: max}}
}

// WithProgress has progress called before each extension of a kept lease. While it returns false
// the lease is not extended, and progress is called again from time to time until a third of the
// ttl remains. Then the lease's ctx ends, with ReasonStalled; the key stays taken until the lease
// expires or is unlocked (KEEP-003). progress is called by a goroutine of its own; while it blocks, its own
// lease is not extended. Close does not wait for it. WithProgress does nothing without WithKeepAlive.
func WithProgress(progress func() bool) Option {
	o := Option{set: setProgress}
	if progress != nil {
		o.progress = &progress
	}
	return o
}

// WithLabel puts a word into the Events and the log lines of one call and of its hold, for
// metrics, which cannot have one series per key. A program should have few different labels.
// Family sets its own.
func WithLabel(label string) Option {
	return Option{set: setLabel, settings: settings{label: label}}
}

// WithNote puts a text for people beside the hold, in the same round trip: what it is for, which
// request or job it belongs to. Inspect and List tell it, where the backend keeps it (the capability
// Notes). Everybody who can read the store can read it, so no secret belongs into it. It may hold any
// bytes, at most MaxNote of them; a longer one is ErrInvalidArgument.
func WithNote(text string) Option { return Option{set: setNote, settings: settings{note: text}} }

// change applies opts to s, checked.
func (s *settings) change(opts []Option) *Error {
	for i := range opts {
		o := &opts[i]
		if o.set == setTTL && o.ttl > 0 && o.ttl <= MaxTTL { // as nearly always
			s.ttl = roundTTL(o.ttl)
			continue
		}
		if o.set&setTTL != 0 {
			if err := checkTTL(o.ttl); err != nil {
				return &Error{Code: CodeInvalidTTL, Err: err}
			}
			s.ttl = roundTTL(o.ttl)
		}
		if o.set&setSession != 0 {
			s.ttl = 0
		}
		if o.set&setRetry != 0 {
			r, err := o.retry.checked()
			if err != nil {
				return &Error{Code: CodeInvalidConfig, Err: err}
			}
			s.retry = r
		}
		if o.set&setNamespace != 0 {
			if err := checkNamespace(o.namespace); err != nil {
				return &Error{Code: CodeInvalidKey, Err: err}
			}
			s.namespace, s.inNamespace = o.namespace, true
		}
		if o.set&setDrift != 0 {
			if err := checkDrift(o.drift); err != nil {
				return &Error{Code: CodeInvalidConfig, Err: err}
			}
			s.drift = o.drift
		}
		if o.set&setKeep != 0 {
			if o.keepMax < 0 {
				return &Error{Code: CodeInvalidConfig, Err: fmt.Errorf("keepAlive: %s is below 0; 0 is no cap", o.keepMax)}
			}
			s.keep, s.keepMax = true, o.keepMax
		}
		if o.set&setProgress != 0 {
			s.progress = o.progress
		}
		if o.set&setLabel != 0 {
			s.label = o.label
		}
		if o.set&setNote != 0 {
			if n := len(o.note); n > MaxNote {
				return &Error{Code: CodeInvalidArgument, Err: fmt.Errorf("note: it has %d bytes; at most %d are allowed", n, MaxNote)}
			}
			s.note = o.note
		}
	}
	return nil
}

// checkExtension is checkTTL in the words of an Extend.
func checkExtension(d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("extend needs a duration above 0, not %s; to end the hold, Unlock it", d)
	}
	if d > MaxTTL {
		return fmt.Errorf("%s is above %s", d, MaxTTL)
	}
	return nil
}

func checkTTL(d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("%s is not above 0; leave the ttl out for a session", d)
	}
	if d > MaxTTL {
		return fmt.Errorf("%s is above %s; leave the ttl out for a session", d, MaxTTL)
	}
	return nil
}

// roundTTL rounds up to whole milliseconds, the unit of the stores (TTL-003).
func roundTTL(d time.Duration) time.Duration {
	return (d + time.Millisecond - 1) / time.Millisecond * time.Millisecond
}

// checkNamespace is what Config's Validate says of a namespace, as the error of a key.
func checkNamespace(ns string) error {
	err := config{Namespace: ns, Retry: Retry{Attempts: Forever, Delay: DefaultDelay}}.Validate()
	if err == nil {
		return nil // most calls; what follows costs an allocation
	}
	var wrong *driver.FieldError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s: %s", wrong.Field, wrong.Problem)
	}
	return err
}

func checkDrift(f float64) error {
	if !(f > 0 && f <= MaxDriftFactor) {
		return fmt.Errorf("driftFactor: %v is not above 0 and at most %v", f, MaxDriftFactor)
	}
	return nil
}

func checkKey(key string) error {
	if key == "" {
		return fmt.Errorf("it is empty")
	}
	if len(key) > MaxKey {
		return fmt.Errorf("it has %d bytes; at most %d are allowed", len(key), MaxKey)
	}
	return nil
}
