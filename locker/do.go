package locker

import (
	"context"
	"errors"
)

// Do locks key, runs fn and unlocks. fn gets the Lease, and with it the fencing token. Its ctx
// ends when the hold does, with the reason as its context.Cause; FromContext finds the
// Lease in it.
//
// The error joins those of fn and of Unlock. ErrLost means that the hold ended while fn was
// running: another holder may have run at the same time, whatever fn returned. If fn panics,
// the lock is released and the panic goes on. If fn is nil the error is ErrInvalidArgument and
// nothing is locked. The other errors are Lock's.
func (l *Locker) Do(ctx context.Context, key string, fn func(ctx context.Context, lease *Lease) error, opts ...Option) error {
	return l.do(ctx, l.Lock, key, fn, opts)
}

// TryDo is Do with TryLock: if another owner holds the key it returns ErrHeld and does not run
// fn.
func (l *Locker) TryDo(ctx context.Context, key string, fn func(ctx context.Context, lease *Lease) error, opts ...Option) error {
	return l.do(ctx, l.TryLock, key, fn, opts)
}

func (l *Locker) do(ctx context.Context, lock lockFunc, key string, fn func(context.Context, *Lease) error, opts []Option) error {
	var wrapped func(context.Context, *Lease) (struct{}, error)
	if fn != nil {
		wrapped = func(ctx context.Context, s *Lease) (struct{}, error) { return struct{}{}, fn(ctx, s) }
	}
	_, err := call(ctx, lock, key, wrapped, opts)
	return err
}

// Call is Do for a function with a result, which is returned even if Unlock fails.
func Call[T any](ctx context.Context, l *Locker, key string, fn func(ctx context.Context, lease *Lease) (T, error), opts ...Option) (result T, err error) {
	return call(ctx, l.Lock, key, fn, opts)
}

// lockFunc is the signature of Lock and TryLock.
type lockFunc = func(ctx context.Context, key string, opts ...Option) (*Lease, error)

func call[T any](ctx context.Context, lock lockFunc, key string, fn func(context.Context, *Lease) (T, error), opts []Option) (result T, err error) {
	if fn == nil {
		return result, &Error{Op: "do", Key: key, Code: CodeInvalidArgument, Err: errors.New("the function is nil")}
	}
	lease, err := lock(ctx, key, opts...)
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
		err = joinErrors(err, unlockErr)
	}()
	return fn(held, lease)
}
