package locker

import (
	"context"
	"errors"
)

// Do runs fn under the lock on key: Lock, fn, Unlock. fn's ctx ends when the hold does,
// with the reason as its context.Cause; FromContext(ctx) gives fn the Lease and with it the
// fencing token.
//
// The error joins fn's and Unlock's. ErrLost means that the hold ended while fn was
// running: others may have run beside it, whatever fn itself returned. If fn panics,
// the lock is released and the panic goes on. A nil fn is ErrInvalidArgument, before
// anything is tried; the other errors are Lock's.
func (l *Locker) Do(ctx context.Context, key string, fn func(ctx context.Context) error, opts ...Option) error {
	var wrapped func(context.Context) (struct{}, error)
	if fn != nil {
		wrapped = func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) }
	}
	_, err := Call(ctx, l, key, wrapped, opts...)
	return err
}

// Call is Do for a function with a result. The result is returned as fn returned it,
// even beside an error of Unlock.
func Call[T any](ctx context.Context, l *Locker, key string, fn func(ctx context.Context) (T, error), opts ...Option) (result T, err error) {
	if fn == nil {
		return result, &Error{Op: "do", Key: key, Code: InvalidArgument, Err: errors.New("the function is nil")}
	}
	lease, err := l.Lock(ctx, key, opts...)
	if err != nil {
		return result, err
	}
	held, cancel := lease.Context(ctx)
	defer func() {
		cancel()
		unlockErr := lease.Unlock(ctx)
		if errors.Is(unlockErr, ErrReleased) {
			unlockErr = nil // fn unlocked by itself
		}
		switch {
		case err == nil:
			err = unlockErr
		case unlockErr != nil:
			err = errors.Join(err, unlockErr)
		}
	}()
	return fn(held)
}
