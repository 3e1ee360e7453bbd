package memory

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// A backend is one user of a store.
//
// Every method checks state under the lock of its shard, and Shut and Close walk the
// shards after they have set it: what a method granted or queued is therefore either
// seen by that walk or refused.
type backend struct {
	store *store
	state atomic.Int32

	// latest is the client that came last; in practice there is only one, the Locker above.
	latest  atomic.Pointer[client]
	mu      sync.Mutex
	clients map[[16]byte]*client
}

// The states of a backend.
const (
	working = iota
	shut    // grants nothing more
	closed
)

var (
	_ driver.Backend   = (*backend)(nil)
	_ driver.Waiter    = (*backend)(nil)
	_ driver.Local     = (*backend)(nil)
	_ driver.Inspector = (*backend)(nil)
	_ driver.Pinger    = (*backend)(nil)
)

// client finds or makes that of instance.
func (b *backend) client(instance *[16]byte) *client {
	if c := b.latest.Load(); c != nil && c.instance == *instance {
		return c
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.clients[*instance]
	if c == nil {
		if b.clients == nil {
			b.clients = make(map[[16]byte]*client)
		}
		c = &client{b, *instance}
		b.clients[*instance] = c
	}
	b.latest.Store(c)
	return c
}

// Acquire makes one attempt. The error matches ErrHeld, ErrClosed or ctx.Err().
func (b *backend) Acquire(ctx context.Context, r driver.Request) (g driver.Grant, err error) {
	if err := ctxError(ctx); err != nil {
		return g, err
	}
	c := b.client(&r.Owner.Instance)
	s, hash := b.store.shard(r.Key)
	s.lock()
	if b.state.Load() != working {
		s.mu.Unlock()
		return g, driver.ErrClosed
	}
	if holder := s.acquire(c, hash, &r, &g); holder != none {
		err = held(s.remaining(s.slab.at(holder)))
	}
	s.mu.Unlock()
	return g, err
}

// Wait is Acquire that queues for the key until ctx ends. A lease's ttl counts from
// the moment when the key is handed over. When ctx ends the error matches ErrHeld,
// ctx.Err() and context.Cause(ctx); a grant that came at the same moment is
// returned, with a nil error.
func (b *backend) Wait(ctx context.Context, r driver.Request) (g driver.Grant, err error) {
	if err := ctxError(ctx); err != nil {
		return g, err
	}
	c := b.client(&r.Owner.Instance)
	s, hash := b.store.shard(r.Key)
	s.lock()
	if b.state.Load() != working {
		s.mu.Unlock()
		return g, driver.ErrClosed
	}
	holder := s.acquire(c, hash, &r, &g)
	if holder == none {
		s.mu.Unlock()
		return g, nil
	}
	w := b.store.waiters.Get().(*waiter)
	w.request, w.by = r, c
	s.slab.at(holder).enqueue(holder, w)
	s.mu.Unlock()

	done := ctx.Done()
	if done == nil {
		<-w.ready // a select would take as long again as all the rest of a hand-over
		return w.outcome(b)
	}
	select {
	case <-w.ready:
	case <-done:
		s.lock()
		if w.queue != none {
			if e := s.slab.at(w.queue); s.over(e) {
				s.expire(w.queue, e) // in favour of w, if it is the first
			}
		}
		if w.queue != none {
			e := s.slab.at(w.queue)
			e.dequeue(w)
			remaining := s.remaining(e)
			s.mu.Unlock()
			b.recycle(w)
			return g, fmt.Errorf("%w: %w", held(remaining), ctxError(ctx))
		}
		s.mu.Unlock()
		// The key was handed over, or the backend shut, before the lock was ours.
		// Whoever took w from the queue has sent, under that lock: this does not wait.
		<-w.ready
	}
	return w.outcome(b)
}

// outcome is what b's Wait returns after w.ready.
func (w *waiter) outcome(b *backend) (driver.Grant, error) {
	g, err := w.grant, w.err
	b.recycle(w)
	if err == nil && b.state.Load() == closed {
		// Handed over, and taken back by Close before we could say so.
		return driver.Grant{}, driver.ErrClosed
	}
	return g, err
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
	if b.state.Load() == closed {
		return driver.Grant{}, driver.ErrClosed
	}
	return s.extend(hash, &h, ttl)
}

// Release frees the key and hands it to whoever waits first (REL-001). The error
// matches ErrLost (and ErrExpired, where the hold's end is met here) when h does not
// hold the key (REL-002), or ErrClosed. ctx is not looked at, as nothing here takes
// time: a release that could be refused would leave an orphan (REL-004).
func (b *backend) Release(_ context.Context, h driver.Holder) error {
	var s *shard
	var hash uint64
	byRef := h.Ref != 0 && (h.At > 0 || h.Session)
	if i := h.Ref >> 32; byRef && i < uint64(len(b.store.shards)) {
		s = &b.store.shards[i].shard
	} else {
		s, hash = b.store.shard(h.Key)
	}
	s.lock()
	err := driver.ErrClosed
	switch {
	case b.state.Load() == closed:
	case byRef:
		err = s.releaseRef(&h)
	default:
		err = s.release(hash, &h)
	}
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
	if b.state.Load() == closed {
		return driver.Info{}, false, driver.ErrClosed
	}
	info, ok := s.inspect(hash, key)
	return info, ok, nil
}

// Ping returns nil until ctx ends or the backend is closed.
func (b *backend) Ping(ctx context.Context) error {
	if b.state.Load() == closed {
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

// Close is Shut, if that has not been; it releases what is still held
// through it, without a word to its listeners, and leaves the store to the other
// backends. It takes time in proportion to the keys of the whole store, looks at no
// ctx, and may be called again.
func (b *backend) Close(context.Context) error {
	b.Shut()
	if b.state.Swap(closed) == closed {
		return nil
	}
	for i := range b.store.shards {
		b.store.shards[i].evict(b)
	}
	b.store.leave()
	return nil
}

// Epoch is the beginning of the store's clock.
func (b *backend) Epoch() time.Time { return b.store.base }

// Shut ends this backend's calls of Wait with ErrClosed, refuses new ones and Acquire, and
// returns the listeners of what is held through it. It takes as long as Close.
func (b *backend) Shut() []driver.Listener {
	if !b.state.CompareAndSwap(working, shut) {
		return nil
	}
	var held []driver.Listener
	for i := range b.store.shards {
		held = b.store.shards[i].shut(b, held)
	}
	return held
}

// held is ErrHeld with the rest of the holder's time, which a session has not.
func held(remaining time.Duration) error {
	if remaining == 0 {
		return driver.ErrHeld
	}
	return driver.Held(remaining)
}
