package memory

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// A backend is one client of a store.
//
// Every method checks closed under the lock of its shard, and Close walks the
// shards after it has set closed: what a method granted or queued is therefore either
// seen by that walk or refused.
type backend struct {
	store  *store
	closed atomic.Bool
}

var (
	_ driver.Backend   = (*backend)(nil)
	_ driver.Waiter    = (*backend)(nil)
	_ driver.Inspector = (*backend)(nil)
	_ driver.Pinger    = (*backend)(nil)
)

// Acquire makes one attempt. The error matches ErrHeld, ErrClosed or ctx.Err().
func (b *backend) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	if err := ctxError(ctx); err != nil {
		return driver.Grant{}, err
	}
	s, hash := b.store.shard(r.Key)
	s.lock()
	if b.closed.Load() {
		s.mu.Unlock()
		return driver.Grant{}, driver.ErrClosed
	}
	g, holder := s.acquire(b, hash, &r)
	var remaining time.Duration
	if holder != nil {
		remaining = s.remaining(holder)
	}
	s.mu.Unlock()
	if holder != nil {
		return driver.Grant{}, held(remaining)
	}
	return g, nil
}

// Wait is Acquire that queues for the key until ctx ends. A lease's ttl counts from
// the moment when the key is handed over. When ctx ends the error matches ErrHeld,
// ctx.Err() and context.Cause(ctx); a grant that came at the same moment is
// returned, with a nil error.
func (b *backend) Wait(ctx context.Context, r driver.Request) (driver.Grant, error) {
	if err := ctxError(ctx); err != nil {
		return driver.Grant{}, err
	}
	s, hash := b.store.shard(r.Key)
	s.lock()
	if b.closed.Load() {
		s.mu.Unlock()
		return driver.Grant{}, driver.ErrClosed
	}
	g, holder := s.acquire(b, hash, &r)
	if holder == nil {
		s.mu.Unlock()
		return g, nil
	}
	w := b.store.waiters.Get().(*waiter)
	w.request, w.by = r, b
	holder.enqueue(w)
	s.mu.Unlock()

	select {
	case <-w.ready:
	case <-ctx.Done():
		s.lock()
		if w.queue != nil && s.over(w.queue) {
			s.expire(w.queue) // in favour of w, if it is the first
		}
		if e := w.queue; e != nil {
			e.dequeue(w)
			remaining := s.remaining(e)
			s.mu.Unlock()
			b.recycle(w)
			return driver.Grant{}, fmt.Errorf("%w: %w", held(remaining), ctxError(ctx))
		}
		s.mu.Unlock()
		// The key was handed over, or the backend closed, before the lock was ours.
		// Whoever took w from the queue has sent, under that lock: this does not wait.
		<-w.ready
	}
	token, due, err := w.token, w.due, w.err
	b.recycle(w)
	switch {
	case err != nil:
		return driver.Grant{}, err
	case b.closed.Load():
		// Handed over, and taken back by Close before we could say so.
		return driver.Grant{}, driver.ErrClosed
	}
	if r.Session() {
		return driver.Grant{Token: token}, nil
	}
	from := s.base.Add(time.Duration(due) - r.TTL)
	return driver.Grant{Token: token, TTL: r.TTL, From: from}, nil
}

// recycle puts back a waiter that is in no queue and whose channel is empty.
func (b *backend) recycle(w *waiter) {
	*w = waiter{ready: w.ready}
	b.store.waiters.Put(w)
}

// Extend makes a lease end ttl from now (EXT-001). The error matches ErrLost when h
// does not hold the key (EXT-002), ErrUnsupported for a session (EXT-004), ErrClosed
// or ctx.Err().
func (b *backend) Extend(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	if err := ctxError(ctx); err != nil {
		return driver.Grant{}, err
	}
	s, hash := b.store.shard(h.Key)
	s.lock()
	defer s.mu.Unlock()
	if b.closed.Load() {
		return driver.Grant{}, driver.ErrClosed
	}
	return s.extend(hash, &h, ttl)
}

// Release frees the key and hands it to whoever waits first (REL-001). The error
// matches ErrLost (and ErrExpired, where the hold's end is met here) when h does not
// hold the key (REL-002), or ErrClosed. ctx is not looked at, as nothing here takes
// time: a release that could be refused would leave an orphan (REL-004).
func (b *backend) Release(_ context.Context, h driver.Holder) error {
	s, hash := b.store.shard(h.Key)
	s.lock()
	if b.closed.Load() {
		s.mu.Unlock()
		return driver.ErrClosed
	}
	err := s.release(hash, &h)
	s.mu.Unlock()
	return err
}

// Inspect says who holds key.
func (b *backend) Inspect(ctx context.Context, key string) (driver.Info, bool, error) {
	if err := ctxError(ctx); err != nil {
		return driver.Info{}, false, err
	}
	s, hash := b.store.shard(key)
	s.lock()
	defer s.mu.Unlock()
	if b.closed.Load() {
		return driver.Info{}, false, driver.ErrClosed
	}
	info, ok := s.inspect(hash, key)
	return info, ok, nil
}

// Ping returns nil until ctx ends or the backend is closed.
func (b *backend) Ping(ctx context.Context) error {
	if b.closed.Load() {
		return driver.ErrClosed
	}
	return ctxError(ctx)
}

// Capabilities: this process's clock, and every loss at once. Tokens go on after a
// store was closed and opened again, but there is no data to restart with.
func (b *backend) Capabilities() driver.Capabilities {
	return driver.Capabilities{
		Name:        "memory",
		Has:         driver.NewSet(driver.LocalClock, driver.PromptLoss),
		Granularity: 5 * time.Millisecond,
	}
}

// Close ends this backend's calls of Wait with ErrClosed, releases what is still held
// through it, without a word to its listeners, and leaves the store to the other
// backends. It takes time in proportion to the keys of the whole store, looks at no
// ctx, and may be called again.
func (b *backend) Close(context.Context) error {
	if b.closed.Swap(true) {
		return nil
	}
	for i := range b.store.shards {
		b.store.shards[i].evict(b)
	}
	b.store.leave()
	return nil
}

// held is ErrHeld with the rest of the holder's time, which a session has not.
func held(remaining time.Duration) error {
	if remaining == 0 {
		return driver.ErrHeld
	}
	return driver.Held(remaining)
}
