package once

import (
	"context"
	"fmt"

	"github.com/lockstep-go/lockstep/locker"
)

// Fill gets a value from a cache, or has one caller compute it while all others wait: it calls
// look, takes the lock on key, calls look again, and then fill, which puts the value where look
// finds it. look decides what is fresh enough.
//
// The error of a fill that failed is that caller's. For Pause nobody tries again, and then one of
// the waiters does, so that a source that is down is not asked by all of them one after the
// other. An error of look ends Fill. The other errors are those of Locker.Lock.
func Fill[T any](ctx context.Context, l *locker.Locker, key string, look func(ctx context.Context) (value T, ok bool, err error), fill func(ctx context.Context, lease *locker.Lease) (T, error), opts ...Option) (value T, err error) {
	s, err := set(l, opts, 1)
	if err != nil {
		return value, err
	}
	if look == nil || fill == nil {
		return value, fmt.Errorf("once: a function is nil: %w", locker.ErrInvalidArgument)
	}
	if value, ok, err := look(ctx); ok || err != nil {
		return value, err
	}
	lease, err := l.Lock(ctx, "once-fill/"+key, locker.WithTTL(s.ttl), locker.WithKeepAlive(0), locker.WithRetry(locker.DefaultRetry()))
	if err != nil {
		return value, err
	}
	failed := false
	defer func() {
		if failed {
			err = join(err, leaveOrFree(ctx, lease, s.pause))
		} else {
			err = join(err, lease.Unlock(ctx))
		}
	}()
	held, cancel := lease.Context(ctx)
	defer cancel()
	if value, ok, err := look(held); ok || err != nil {
		return value, err
	}
	failed = true // also if it panics
	value, err = fill(held, lease)
	failed = err != nil
	return value, err
}
