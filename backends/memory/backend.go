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
// Every method checks state under the lock of its shard, and shut and Close walk the
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
	_ driver.Hand      = (*client)(nil)
	_ driver.Turn      = (*waiter)(nil)
	_ driver.Leaver    = (*backend)(nil)
	_ driver.Inspector = (*backend)(nil)
	_ driver.Pinger    = (*backend)(nil)
	_ driver.Lister    = (*backend)(nil)
	_ driver.Breaker   = (*backend)(nil)
)

// client finds or makes that of instance, whose identity is always the same.
func (b *backend) client(instance *[16]byte, identity string) *client {
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
		left := &client{backend: &b.store.left, instance: *instance, identity: identity}
		c = &client{b, *instance, identity, left}
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
	c := b.client(&r.Owner.Instance, r.Identity)
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
	c := b.client(&r.Owner.Instance, r.Identity)
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
	w := b.waiter(s, c, r.TTL, 0, listening(r.Hold, r.Note))
	w.owner = named(r.Owner.Seq)
	s.slab.at(holder).enqueue(holder, w)
	s.mu.Unlock()
	token, _, from, err := w.Await(ctx)
	if err != nil {
		return g, err
	}
	g.Token, g.TTL = token, r.TTL
	if !r.Session() {
		g.From = b.store.base.Add(from)
	}
	return g, nil
}

// waiter is a waiter for the queue of a key in s.
func (b *backend) waiter(s *shard, c *client, ttl, sent time.Duration, hold driver.Listener) *waiter {
	w := b.store.waiters.Get().(*waiter)
	w.shard, w.by, w.ttl, w.sent, w.hold = s, c, ttl, sent, hold
	return w
}

// Await implements driver.Turn, and is the waiting of Wait. When ctx ends the error matches
// ErrHeld, ctx.Err() and context.Cause(ctx); a grant that came at the same moment is returned,
// with a nil error.
func (w *waiter) Await(ctx context.Context) (token, where uint64, from time.Duration, err error) {
	s, b := w.shard, w.by.backend
	done := ctx.Done()
	if done == nil {
		<-w.ready // a select would take as long again as all the rest of a hand-off
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
			return 0, 0, 0, fmt.Errorf("%w: %w", held(remaining), ctxError(ctx))
		}
		s.mu.Unlock()
		// The key was handed off, or the backend shut, before the lock was ours. What took w
		// from the queue has sent, under that lock: this does not wait.
		<-w.ready
	}
	return w.outcome(b)
}

// outcome is what b's Await returns after w.ready.
func (w *waiter) outcome(b *backend) (token, where uint64, from time.Duration, err error) {
	token, where, from, err = w.token, w.where, w.from, w.err
	b.recycle(w)
	if err == nil && b.state.Load() == closed {
		// Handed off, and taken back by Close before we could say so.
		return 0, 0, 0, driver.ErrClosed
	}
	return token, where, from, err
}

// recycle puts back a waiter that is in no queue and whose channel is empty. It keeps alive
// nothing of what it referred to.
func (b *backend) recycle(w *waiter) {
	w.shard, w.by, w.hold, w.err, w.owner = nil, nil, nil, nil, byToken
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

// Leave implements driver.Leaver: it is Extend, and then the lease is no longer this backend's to
// free. The store ends with its last backend, and with it what was left.
func (b *backend) Leave(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	if err := ctxError(ctx); err != nil {
		return driver.Grant{}, err
	}
	s, hash := b.store.shard(h.Key)
	s.lock()
	defer s.mu.Unlock()
	if b.state.Load() == closed {
		return driver.Grant{}, driver.ErrClosed
	}
	g, err := s.extend(hash, &h, ttl)
	if err == nil {
		_, e := s.table.find(&s.slab, hash, h.Key)
		if e.by.left != nil {
			e.by = e.by.left
		}
	}
	return g, err
}

// Release frees the key and hands it to whoever waits first (REL-001). The error
// matches ErrLost (and ErrExpired, where the hold's end is met here) when h does not
// hold the key (REL-002), or ErrClosed. ctx is not looked at, as nothing here takes
// time: a release that could be refused would leave an orphan (REL-004).
func (b *backend) Release(_ context.Context, h driver.Holder) error {
	s, hash := b.store.shard(h.Key)
	s.lock()
	defer s.mu.Unlock()
	if b.state.Load() == closed {
		return driver.ErrClosed
	}
	return s.release(hash, &h)
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
		Has:         driver.NewSet(driver.LocalClock, driver.PromptLoss, driver.Notes, driver.Listing, driver.Breaking),
		Granularity: 5 * time.Millisecond,
	}
}

// Close shuts the backend, if that has not been done; it releases what is still held
// through it, without a word to its listeners, and leaves the store to the other
// backends. It takes time in proportion to the keys of the whole store, looks at no
// ctx, and may be called again.
func (b *backend) Close(context.Context) error {
	b.shut()
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

// Attach implements driver.Local.
func (b *backend) Attach(instance [16]byte, identity string) driver.Hand {
	return b.client(&instance, identity)
}

// Take implements driver.Hand. If the key is held, and nobody waits for it, remaining is in the
// error.
func (c *client) Take(key string, ttl, sent time.Duration, hold driver.Listener, wait bool, note string) (token, where uint64, turn driver.Turn, err error) {
	b := c.backend
	if note != "" {
		hold = listening(hold, note)
	}
	s, hash := b.store.shard(key)
	s.lock()
	if b.state.Load() != working {
		s.mu.Unlock()
		return 0, 0, nil, driver.ErrClosed
	}
	token, n := s.take(c, hash, key, ttl, sent, hold)
	switch {
	case token != 0:
		where = s.whereOf(n)
	case wait:
		w := b.waiter(s, c, ttl, sent, hold)
		s.slab.at(n).enqueue(n, w)
		turn = w
	default:
		err = held(s.remaining(s.slab.at(n)))
	}
	s.mu.Unlock()
	return token, where, turn, err
}

// Drop implements driver.Hand.
func (c *client) Drop(where, token uint64, at time.Duration) error {
	i := where >> 32
	if i >= uint64(len(c.backend.store.shards)) {
		return driver.ErrLost
	}
	s := &c.backend.store.shards[i].shard
	s.lock()
	err := driver.ErrClosed
	if c.backend.state.Load() != closed {
		err = s.drop(c, ref(where), token, at)
	}
	s.mu.Unlock()
	return err
}

// Shut ends this backend's waiting calls with ErrClosed, refuses new ones, and returns the
// listeners of what is held through it. It takes as long as Close.
func (c *client) Shut() []driver.Listener { return c.backend.shut() }

func (b *backend) shut() []driver.Listener {
	if !b.state.CompareAndSwap(working, shut) {
		return nil
	}
	var all []driver.Listener
	for i := range b.store.shards {
		all = b.store.shards[i].shut(b, all)
	}
	return all
}

// held is ErrHeld with the rest of the holder's time, which a session has not.
func held(remaining time.Duration) error {
	if remaining == 0 {
		return driver.ErrHeld
	}
	return driver.Held(remaining)
}
