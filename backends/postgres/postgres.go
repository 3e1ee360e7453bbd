// Package postgres keeps Lockstep's locks in PostgreSQL. It is tested with version 15.
//
//	l, err := postgres.New(ctx, postgres.Config{Host: []string{"db"}, Database: "app"}, locker.Config{})
//
// or over a pool that the program has already, with [NewPool], or by configuration alone,
// importing this package for its registration,
//
//	l, err := locker.Open(ctx, cfg) // cfg.Type == "postgres"
//
// Every operation is one round trip, of one statement that is atomic on the server: it looks at
// the key's row, sets when the hold ends, by the server's clock alone, and mints the fencing
// token in the same step. A refused attempt writes nothing.
//
// docs/postgres.md of the project has the schema, the rights that a role needs, what each
// SQLSTATE becomes, and what poolers, standbys and settings of durability do to locks.
//
// # What it can promise, and what not
//
// As long as the primary keeps what it has committed, all clauses hold. A standby that is
// promoted without the newest commits does not know the newest locks: two holders may then
// consider the same lock held until the first one's deadline. Make the standby synchronous if
// that matters. The fencing token tells the two apart, if the store that the lock protects checks
// it.
//
// A server whose clock is set forward ends holds early by as much. Holders count on their own
// monotonic clock, which stands still while a machine is suspended: after that, only the fencing
// token tells.
//
// # Waiting and loss
//
// One connection beside the pool listens. A client that frees a key with waiters notifies, and
// triggers do so when somebody else deletes or changes what is held. Through a pooler in
// transaction mode no notification arrives: then the keys of waiters are looked at every 20 ms,
// losses are noticed at the next renewal or the deadline, and driver.PromptLoss is not among the
// capabilities, unless Config.ListenHost names the server itself.
package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

func init() {
	driver.Register("postgres", Open, driver.Names{Aliases: []string{"postgresql", "pgx"}, Schemes: []string{"postgresql", "pgx"}})
}

// New opens the backend and makes a Locker over it, which owns it. settings.Type and
// settings.Backend stay empty. Errors are those of locker.Open.
func New(ctx context.Context, c Config, settings locker.Config) (*locker.Locker, error) {
	if err := unset(settings); err != nil {
		return nil, err
	}
	settings.Type, settings.Backend = "postgres", c
	return locker.Open(ctx, settings)
}

// NewPool is New over a pool that the program has already, and closes itself, after the
// Locker. See [OpenPool].
func NewPool(ctx context.Context, pool *pgxpool.Pool, c Config, settings locker.Config) (*locker.Locker, error) {
	if err := unset(settings); err != nil {
		return nil, err
	}
	b, err := OpenPool(ctx, pool, c)
	if err != nil {
		code := locker.CodeUnavailable
		if errors.Is(err, driver.ErrInvalidConfig) {
			code = locker.CodeInvalidConfig
		}
		return nil, &locker.Error{Op: "open", Backend: "postgres", Code: code, Err: err}
	}
	l, err := locker.New(b, settings)
	if err != nil {
		// The settings are not valid, and nobody else has b. It is made by now: what is wrong with
		// the settings is for locker.New to say.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = b.Close(ctx)
	}
	return l, err
}

func unset(settings locker.Config) error {
	if settings.Type == "" && settings.Backend == nil {
		return nil
	}
	return &locker.Error{Op: "open", Backend: "postgres", Code: locker.CodeInvalidConfig,
		Err: errors.New("type, backend: they are for locker.Open; here the backend's configuration is the argument before")}
}

var (
	_ driver.Backend      = (*backend)(nil)
	_ driver.Notifier     = (*backend)(nil)
	_ driver.Inspector    = (*backend)(nil)
	_ driver.Pinger       = (*backend)(nil)
	_ driver.SessionClock = (*backend)(nil)
	_ driver.URLConfig    = (*Config)(nil)
)
