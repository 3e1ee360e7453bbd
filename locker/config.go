package locker

import (
	"fmt"
	"log/slog"
	"time"
)

// Config says which backend, and how its locks behave where the call is silent. The
// zero value but for Type works.
//
// As JSON, durations are strings with a unit ("30s", "250ms").
type Config struct {
	// Type names the backend: "memory" (also "inMemory"), "redis", or what another
	// package registered. Import the backend's package for its registration.
	Type string `json:"type"`

	// Namespace is what LockNS, TryLockNS and Key put before a key, with a colon
	// between them. It holds no colon. Default "app".
	Namespace string `json:"namespace"`

	// TTL makes every hold a lease of this length unless the call says otherwise. 0
	// means sessions. At most MaxTTL.
	TTL time.Duration `json:"ttl"`

	// Retry is how Lock waits. nil means DefaultRetry: until the ctx ends.
	Retry *Retry `json:"retry"`

	// DriftFactor is how much earlier than the backend's own the local deadline of a
	// lease is, as a share of its ttl, to allow for clocks that run at different
	// speeds. 0 means the default: DefaultDriftFactor, or nothing where the backend
	// keeps time by this process's own clock. At most MaxDriftFactor.
	DriftFactor float64 `json:"driftFactor"`

	// Backend is the backend's own configuration: a value of its Config type, such as
	// redis.Config, or nil for its defaults. In JSON it is an object with the fields of
	// that type.
	Backend any `json:"backend"`

	// Logger hears of every loss, and of every Extend or release that failed, at level
	// Warn, and of everything else at Debug. nil for silence. Keys appear in it, quoted;
	// secrets never.
	Logger *slog.Logger `json:"-"`

	// Observer is told of every event. nil for nobody.
	Observer Observer `json:"-"`

	// layers are what sources said of the backend; applied over Backend by Open. Pointers,
	// so that printing what contains a Config does not reach their secrets.
	layers []*layer
}

// settings checks what the core itself needs of c, and fills in the defaults.
func (c Config) settings() (settings, error) {
	s := settings{ttl: c.TTL, retry: DefaultRetry(), namespace: c.Namespace, drift: c.DriftFactor}
	if s.namespace == "" {
		s.namespace = DefaultNamespace
	}
	if err := checkNamespace(s.namespace); err != nil {
		return s, err
	}
	if c.TTL != 0 {
		if err := checkTTL(c.TTL); err != nil {
			return s, fmt.Errorf("ttl: %w", err)
		}
		s.ttl = roundTTL(c.TTL)
	}
	if c.Retry != nil {
		if err := c.Retry.validate(); err != nil {
			return s, err
		}
		s.retry = *c.Retry
	}
	if c.DriftFactor != 0 {
		if err := checkDrift(c.DriftFactor); err != nil {
			return s, err
		}
	}
	return s, nil
}
