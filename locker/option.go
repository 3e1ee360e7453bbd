package locker

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Limits of what a caller may ask for.
const (
	// MaxKey is the greatest length of a key in bytes, namespace included (KEY-001).
	MaxKey = 1024
	// MaxNamespace is the greatest length of a namespace in bytes.
	MaxNamespace = 256
	// MaxTTL is the longest ttl. Whoever needs a longer one wants a session.
	MaxTTL = 100 * 365 * 24 * time.Hour
	// MaxRetryDelay is the longest Retry.Delay.
	MaxRetryDelay = 24 * time.Hour
	// MaxDriftFactor is the greatest DriftFactor.
	MaxDriftFactor = 0.5
)

// Defaults, where Config and the call are silent.
const (
	DefaultNamespace   = "app"
	DefaultDelay       = 100 * time.Millisecond
	DefaultJitter      = 50 * time.Millisecond
	DefaultDriftFactor = 0.01 // of a backend with a clock of its own
)

// Forever is the Retry.Attempts that never gives up.
const Forever = -1

// Retry is how Lock waits for a lock that is held, or for a backend that does not
// answer (WAIT-002). It applies to acquiring only, never to Unlock or Extend
// (WAIT-005).
//
//lockgen:atmost jitter delay
type Retry struct {
	// Attempts is how many timed attempts follow the first one: 0 for none, Forever
	// (-1) for no limit. Attempts made early, because a release was announced, do
	// not count.
	//
	//lockgen:initial Forever
	//lockgen:min Forever
	Attempts int `json:"attempts"`
	// Delay is the time between timed attempts; in Go, 0 means DefaultDelay. Less than a
	// millisecond counts as one.
	//
	//lockgen:default DefaultDelay
	//lockgen:min 1ns
	//lockgen:max MaxRetryDelay
	Delay time.Duration `json:"delay"`
	// Jitter spreads the attempts of many processes: each delay is drawn evenly from
	// Delay ± Jitter. 0 for none.
	//
	//lockgen:initial DefaultJitter
	//lockgen:min 0s
	Jitter time.Duration `json:"jitter"`
}

// DefaultRetry waits until the ctx ends: Forever, 100 ms ± 50 ms.
func DefaultRetry() Retry {
	var r Retry
	r.Reset()
	return r
}

// checked is r with its gap filled, or an error that names the field.
func (r Retry) checked() (Retry, error) {
	r.setDefaults()
	return r, r.validate("retry.")
}

// next draws the time until the next timed attempt. It is never 0, so that a
// waiter cannot spin.
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

// Option changes one thing for one call; what it leaves alone is as in the Locker's
// Config. It is a value, so that it costs no allocation. Of several for the same thing the
// last one counts. A wrong value is the error of the call that gets it, before any I/O.
type Option struct {
	set uint8 // which of the fields below are given
	settings
}

const (
	setTTL = 1 << iota
	setSession
	setRetry
	setNamespace
	setDrift
)

// settings are what Config and Option share.
type settings struct {
	ttl       time.Duration // 0: a session
	retry     Retry
	namespace string
	drift     float64 // 0: the backend's default
}

// WithTTL asks for a lease that ends d from the grant unless it is extended or
// unlocked. Below 1 ms it is rounded up; zero or negative is ErrInvalidTTL (TTL-003).
func WithTTL(d time.Duration) Option {
	return Option{set: setTTL, settings: settings{ttl: d}}
}

// WithSession asks for a session although the Locker's Config has a TTL.
func WithSession() Option { return Option{set: setSession} }

// WithRetry says how long Lock waits. TryLock never waits and ignores it, but for a wrong
// one, which is ErrInvalidConfig.
func WithRetry(r Retry) Option { return Option{set: setRetry, settings: settings{retry: r}} }

// WithNamespace is the namespace for one LockNS, TryLockNS. A wrong one is ErrInvalidKey.
func WithNamespace(ns string) Option {
	return Option{set: setNamespace, settings: settings{namespace: ns}}
}

// WithDriftFactor says how much earlier than the backend's own the local deadline
// of a lease is, as a share of its ttl: 0.01 ends a lease of 30 s 300 ms early. Above
// 0 and at most MaxDriftFactor.
func WithDriftFactor(f float64) Option {
	return Option{set: setDrift, settings: settings{drift: f}}
}

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
				return &Error{Code: InvalidTTL, Err: err}
			}
			s.ttl = roundTTL(o.ttl)
		}
		if o.set&setSession != 0 {
			s.ttl = 0
		}
		if o.set&setRetry != 0 {
			r, err := o.retry.checked()
			if err != nil {
				return &Error{Code: InvalidConfig, Err: err}
			}
			s.retry = r
		}
		if o.set&setNamespace != 0 {
			if err := checkNamespace(o.namespace); err != nil {
				return &Error{Code: InvalidKey, Err: err}
			}
			s.namespace = o.namespace
		}
		if o.set&setDrift != 0 {
			if err := checkDrift(o.drift); err != nil {
				return &Error{Code: InvalidConfig, Err: err}
			}
			s.drift = o.drift
		}
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
	err := Config{Namespace: ns}.Validate()
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
