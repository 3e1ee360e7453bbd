package locker

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/internal/conf"
)

// Config selects a backend and sets defaults for calls without options. Only Type is required.
//
// docs/configuration.md lists all fields, also those of the backends, with defaults, ranges and
// environment variables. In JSON, durations are strings with a unit ("30s", "250ms").
//
// A Config prints, marshals and logs as JSON without secrets.
type Config struct {
	// Type names the backend: "memory" (also "inMemory"), "redis", "postgres" (also "postgresql",
	// "pgx"), or what another package registered. Import the backend's package for its registration.
	Type string `json:"type"`

	//lockgen:default DefaultNamespace
	//lockgen:maxlen MaxNamespace
	//lockgen:not : -- holds a colon, which separates the namespace from the key

	// Namespace is what LockNS, TryLockNS and Key put before a key, with a colon
	// between them. It holds no colon and no control character.
	Namespace string `json:"namespace"`

	//lockgen:min 0s
	//lockgen:max MaxTTL

	// TTL makes every hold a lease of this length unless the call says otherwise. 0
	// means sessions.
	TTL time.Duration `json:"ttl"`

	// Retry is how Lock waits. The zero value waits until the ctx ends.
	Retry Retry `json:"retry"`

	//lockgen:min 0
	//lockgen:max MaxDriftFactor

	// DriftFactor is how much earlier the local deadline of a lease is than the backend's, as a
	// share of its ttl, to allow for clocks that run at different speeds. 0 means the default:
	// DefaultDriftFactor, or nothing where the backend keeps time by this process's own clock.
	DriftFactor float64 `json:"driftFactor"`

	//lockgen:min 0s
	//lockgen:max MaxOpenWait

	// OpenWait is how long Open waits for a store that cannot be reached yet, such as a Redis that
	// boots together with this service; the ctx of Open may end earlier. The default is 0, not to
	// wait: a wrong address cannot be told from a slow store, and is reported at once that way. Only
	// ErrUnavailable is waited through, never ErrInvalidConfig. New, whose backend is open already,
	// does not wait.
	OpenWait time.Duration `json:"openWait"`

	//lockgen:maxlen MaxIdentity

	// Identity says to people who look at the store who holds a lock: it travels with every hold,
	// and Inspect and List tell it. Everybody who can read the store can read it, so no secret
	// belongs into it. It holds no control character. The default is the host's name, the process's number and the program's name,
	// as in "web-3:4711 billing".
	Identity string `json:"identity"`

	// Backend is the backend's own configuration: a value of its Config type, such as
	// redis.Config, or nil for its defaults. In JSON it is an object with the fields of
	// that type.
	Backend any `json:"backend"`

	// Logger gets every loss, and every Extend or release that failed, at level Warn, and everything
	// else at Debug. nil: nothing is logged. Keys appear in it, quoted; secrets never.
	Logger *slog.Logger `json:"-"`

	// Observer is told of every event. nil: nobody is told.
	Observer Observer `json:"-"`

	sources conf.Sources // what Load has found
}

// Secret is a value of a backend's configuration that prints as (hidden), such as
// redis.Config{Password: locker.Secret(os.Getenv("PASSWORD"))}.
func Secret(value string) driver.Secret { return driver.NewSecret(value) }

// LoadConfig reads a configuration from source, which is one of
//
//   - JSON text: {"type": "redis", "ttl": "30s", "backend": {"addrs": ["localhost:6379"]}}
//   - a URL: redis://user:password@host:6379/0?ttl=30s&retry.attempts=5, memory://; the
//     query holds fields by name, of Config and of the backend's configuration
//   - env:NAME: the environment variable NAME, which holds one of the others
//   - the path of a file that holds JSON text
//
// so that a variable or a file can choose the backend. Environment variables of single fields,
// such as LOCKSTEP_TTL, LOCKSTEP_RETRY_DELAY and LOCKSTEP_REDIS_ADDRS=a:6379,b:6379, override it;
// docs/configuration.md lists them. An empty one counts as not set, and other variables are
// ignored.
//
// An unknown field, a wrong type and a value out of range are an ErrInvalidConfig that
// names the source, the line and column in JSON, and the field; never a password.
// errors.As finds a driver.FieldError in it.
func LoadConfig(source string) (Config, error) { return Config{}.Load(source) }

// Load lays what source says (see LoadConfig) over c, and the environment over that: the
// environment wins over the source, which wins over c, which wins over the defaults. This holds
// field by field, also within Retry and Backend; a field that none of them sets stays as it is in
// c. A URL names the whole connection: host, user, password and TLS of c are not used with it.
// Another Type, from the source or from LOCKSTEP_TYPE, drops the backend's configuration for the
// earlier type. Load may be called again: a later source wins over an earlier one.
//
// Only Load reads the environment: Open of a Config that was made in Go does not.
func (c Config) Load(source string) (Config, error) {
	core, sources, err := conf.Load((*config)(&c), c.sources, source)
	if err != nil {
		return c, configError("load", err)
	}
	loaded := Config(*core.(*config))
	loaded.sources = sources
	return loaded, nil
}

// String is c as JSON, for people: with what its sources set in the backend's configuration,
// without fields that are zero, and without secrets.
func (c Config) String() string { return conf.Show((*config)(&c), c.sources) }

// Format prints String for every verb, so that no way of printing c shows a secret.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// MarshalJSON is String. It is no source for LoadConfig if c holds a secret.
func (c Config) MarshalJSON() ([]byte, error) { return []byte(c.String()), nil }

// LogValue is String as JSON.
func (c Config) LogValue() slog.Value { return slog.AnyValue(json.RawMessage(c.String())) }

// Clone and Chosen are for package conf.
func (c *config) Clone() conf.Core {
	own := *c
	return &own
}

func (c *config) Chosen() (typ *string, backend *any) { return &c.Type, &c.Backend }

// settings checks what the core itself needs of c, and fills in the defaults.
func (c Config) settings() (settings, error) {
	own := (*config)(&c)
	own.SetDefaults()
	if err := own.Validate(); err != nil {
		return settings{}, err
	}
	return settings{ttl: roundTTL(c.TTL), retry: c.Retry.resolved(), namespace: c.Namespace, drift: c.DriftFactor}, nil
}
