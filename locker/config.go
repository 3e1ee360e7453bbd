package locker

import (
	"log/slog"
	"time"
)

// Config says which backend, and how its locks behave where the call is silent. The
// zero value but for Type works. SetDefaults lists the defaults, Validate what is allowed,
// LoadEnv the environment variables.
//
// As JSON, durations are strings with a unit ("30s", "250ms").
type Config struct {
	// Type names the backend: "memory" (also "inMemory"), "redis", or what another
	// package registered. Import the backend's package for its registration.
	Type string `json:"type"`

	// Namespace is what LockNS, TryLockNS and Key put before a key, with a colon
	// between them. It holds no colon.
	//
	//lockgen:default DefaultNamespace
	//lockgen:maxlen MaxNamespace
	//lockgen:not : -- holds a colon, which separates the namespace from the key
	Namespace string `json:"namespace"`

	// TTL makes every hold a lease of this length unless the call says otherwise. 0
	// means sessions.
	//
	//lockgen:min 0s
	//lockgen:max MaxTTL
	TTL time.Duration `json:"ttl"`

	// Retry is how Lock waits. nil means DefaultRetry: until the ctx ends.
	Retry *Retry `json:"retry"`

	// DriftFactor is how much earlier than the backend's own the local deadline of a
	// lease is, as a share of its ttl, to allow for clocks that run at different
	// speeds. 0 means the default: DefaultDriftFactor, or nothing where the backend
	// keeps time by this process's own clock.
	//
	//lockgen:min 0
	//lockgen:max MaxDriftFactor
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
	// env is the environment as the last Load found it; nil if there was none.
	env *environment
}

// settings checks what the core itself needs of c, and fills in the defaults.
func (c Config) settings() (settings, error) {
	c.SetDefaults()
	if err := c.Validate(); err != nil {
		return settings{}, err
	}
	s := settings{ttl: roundTTL(c.TTL), retry: DefaultRetry(), namespace: c.Namespace, drift: c.DriftFactor}
	if c.Retry != nil {
		s.retry = *c.Retry
	}
	return s, nil
}
