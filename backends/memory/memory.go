// Package memory is the Lockstep backend for locks within one process: named
// locks with leases, sessions, fencing tokens and a fair queue, without any
// server and without a goroutine of its own.
//
// Most programs do not call this package. They import it, and package locker opens it by the type
// "memory". The rest of this comment is for those who size it, read its code, or look for a model
// of a backend that waits by itself.
//
// # What it keeps
//
//   - A lease ends at its ttl without anyone calling anything, never early, and
//     normally within two milliseconds; its holder is told before anybody else
//     gets the key (TTL-001, LOSS-001). An operation that meets a holder whose
//     time is up never waits for the timer: it ends that hold on the spot.
//   - The holder that releases the key hands it to the first waiter: first come, first served
//     among all the backends of the store; nobody else can take it in between (WAIT-001,
//     WAIT-004). Giving up costs O(1) and swallows no wake-up (WAIT-003).
//   - A session lives until it is released or its backend is closed.
//   - Tokens rise on every key for the life of the process, even when a store is
//     closed and opened again (TOK-001). They do not survive the process.
//   - Keys without a holder take no memory, except that each shard keeps up to 14 KB for the next
//     ones, and that keys are kept in groups of four. A store in which no lease is held has no
//     timer, except that one per shard, set for a lease that was released early, may still run
//     out and do nothing.
//
// # Stores
//
// Backends that are opened with the same [Config.Store] in one process share
// their keys, as two clients of one Redis do. A store is made by the first
// [Open] and vanishes with the last Close.
//
// # In testing/synctest
//
// A store that is made inside a bubble uses the bubble's clock, and a lease of whole milliseconds
// then ends to the nanosecond at its ttl. Give each bubble a store name of its own (t.Name() is a
// good one) and close it there: a store that was made elsewhere uses another clock, and sharing
// one between bubbles ends in a panic of the runtime.
package memory

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// Config says which store to open, and how it is built. The zero value works.
//
//lockgen:check checkShards
type Config struct {
	//lockgen:default default

	// Store is the name of the store within this process. Backends of the same store share
	// their keys.
	Store string `json:"store"`

	//lockgen:min 0
	//lockgen:max maxShards

	// Shards is the number of parts, each with its own mutex and timer, into which the
	// keys are divided: a power of two, or 0 for what an open store already has and
	// otherwise for a number chosen from GOMAXPROCS. More parts let more processors work
	// at the same time; an empty part takes about half a kilobyte.
	Shards int `json:"shards"`
}

const maxShards = 1 << 16

func (c *Config) checkShards() error {
	if c.Shards&(c.Shards-1) != 0 {
		return driver.Invalid("shards", "%d is not a power of two from 1 to %d, nor 0 for a number chosen from GOMAXPROCS", c.Shards, maxShards)
	}
	return nil
}

func init() {
	driver.Register("memory", Open, driver.Names{Aliases: []string{"inMemory"}})
}

// New opens a backend on the store that c names, and makes a Locker over it, which owns
// it. settings.Type and settings.Backend stay empty. Errors are those of locker.Open.
func New(c Config, settings locker.Config) (*locker.Locker, error) {
	if settings.Type != "" || settings.Backend != nil {
		return nil, &locker.Error{Op: "open", Backend: "memory", Code: locker.CodeInvalidConfig,
			Err: errors.New("type, backend: they are for locker.Open; here the backend's configuration is the argument before")}
	}
	settings.Type, settings.Backend = "memory", c
	return locker.Open(context.Background(), settings)
}

// Open opens a backend on the store that c names, and makes the store if no other
// backend has it open. It does no I/O and never waits. May be called by any number
// of goroutines at the same time.
//
// The backend also implements [driver.Waiter], [driver.Inspector] and
// [driver.Pinger]. Close it, or its store stays.
//
// The error matches [driver.ErrInvalidConfig] when c is wrong, or asks for another
// number of shards than the open store has (ERR-003), and ctx.Err() when ctx has
// ended.
func Open(ctx context.Context, c Config) (driver.Backend, error) {
	if ctx == nil {
		return nil, errors.New("memory: Open needs a context, not nil")
	}
	if err := ctxError(ctx); err != nil {
		return nil, fmt.Errorf("memory: Open: %w", err)
	}
	c.SetDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s, err := openStore(c)
	if err != nil {
		return nil, err
	}
	return &backend{store: s}, nil
}

// ctxError is nil while ctx goes on; then it matches ctx.Err() and the cause.
func ctxError(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != err {
		return fmt.Errorf("%w: %w", err, cause)
	}
	return err
}
