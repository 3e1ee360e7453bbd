package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/once"
)

// errSkipped is that the command was not run, and that nothing is wrong with it.
var errSkipped = errors.New("skipped")

// hold takes the lock as f says, calls fn while it is held, and gives it back. ctx bounds the
// waiting. fn's ctx ends with the hold.
func (f *runFlags) hold(ctx context.Context, l *locker.Locker, fn func(context.Context, *locker.Lease) error) error {
	if f.once {
		return f.holdOnce(ctx, l, fn)
	}
	opts := []locker.Option{locker.WithNote(f.note)}
	switch {
	case f.ttl > 0:
		opts = append(opts, locker.WithTTL(f.ttl), locker.WithKeepAlive(0))
	case f.session:
		opts = append(opts, locker.WithSession())
	}
	lock := l.Lock
	if f.noWait {
		lock = l.TryLock
	}
	lease, err := lock(ctx, f.key, opts...)
	if err != nil {
		return err
	}
	held, cancel := lease.Context(context.Background())
	defer cancel()
	err = fn(held, lease)
	return errors.Join(err, lease.Unlock(context.Background()))
}

// holdOnce is hold for --once-per.
func (f *runFlags) holdOnce(ctx context.Context, l *locker.Locker, fn func(context.Context, *locker.Lease) error) error {
	opts := []once.Option{once.AtLeast(f.atLeast), once.Note(f.note)}
	if f.ttl > 0 {
		opts = append(opts, once.TTL(f.ttl))
	}
	err := once.Do(ctx, l, f.key, f.slot, fn, opts...)
	switch {
	case errors.Is(err, once.ErrDone):
		return fmt.Errorf("%w: %s has been done for %s", errSkipped, quote(f.key), quote(f.slot))
	case errors.Is(err, once.ErrRunning):
		return fmt.Errorf("%w: %s is being done for %s by another", errSkipped, quote(f.key), quote(f.slot))
	}
	return err
}
