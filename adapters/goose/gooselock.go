// Package gooselock has migrations with goose run in one process at a time, under a lock of package
// locker:
//
//	goose.NewProvider(dialect, db, migrations, goose.WithLocker(gooselock.New(l, gooselock.Options{})))
//
// It implements lock.Locker of goose v3, which is of types of the standard library only: that is why
// this module does not require goose.
package gooselock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// Defaults, where Options are silent.
const (
	DefaultKey = "goose"
	DefaultTTL = 30 * time.Second
)

// Options are how migrations are locked. The zero value works.
type Options struct {
	// Key is the name of the lock, and its label: one for each database that is migrated. "" means
	// DefaultKey.
	Key string
	// TTL is how long the others wait after a process died: the length of the lease, which is kept
	// alive. 0 means DefaultTTL, or the backend's MinTTL if that is longer.
	TTL time.Duration
}

// Locker is a lock.Locker of goose. Its methods are safe for concurrent use.
type Locker struct {
	l    *locker.Locker
	key  string
	opts []locker.Option

	mu sync.Mutex
	// held is more than one lease only after a loss, when another Provider that shares this Locker
	// has the lock already.
	held []*locker.Lease
}

// New makes a Locker that takes its lock from l. Providers may share it, or have one each.
func New(l *locker.Locker, o Options) *Locker {
	if o.Key == "" {
		o.Key = DefaultKey
	}
	if o.TTL == 0 {
		o.TTL = max(DefaultTTL, l.Capabilities().MinTTL)
	}
	return &Locker{l: l, key: o.Key, opts: []locker.Option{
		locker.WithTTL(o.TTL), locker.WithKeepAlive(0), locker.WithRetry(locker.DefaultRetry()), locker.WithLabel(o.Key)}}
}

// Lock waits for the lock until ctx ends, through outages of the lock's store too. The database is
// not used.
func (k *Locker) Lock(ctx context.Context, _ *sql.DB) error {
	lease, err := k.l.Lock(ctx, k.key, k.opts...)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held = append(k.held, lease)
	return nil
}

// Unlock releases the lock. The error is locker.ErrLost if it was lost while migrations ran: others
// may have run beside them. goose has no ctx to end, so that this is where it hears of a loss.
func (k *Locker) Unlock(ctx context.Context, _ *sql.DB) error {
	k.mu.Lock()
	if len(k.held) == 0 {
		k.mu.Unlock()
		return fmt.Errorf("gooselock: %q is not locked here: %w", k.key, locker.ErrReleased)
	}
	// The earliest: with the latest, a caller who lost the lock would free it under the one who
	// has it.
	lease := k.held[0]
	k.held = k.held[1:]
	k.mu.Unlock()
	err := lease.Unlock(ctx)
	if errors.Is(err, locker.ErrUnavailable) {
		// goose does not call again; the release is repeated in the background, and at its ttl the
		// key is free.
		return fmt.Errorf("gooselock: the migrations have ended, but not their lock: %w", err)
	}
	return err
}
