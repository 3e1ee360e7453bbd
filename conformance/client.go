package conformance

import (
	"context"
	"runtime"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// client is a Locker over a tapped backend; its calls go into the history.
type client struct {
	c    *trial
	name string
	l    *locker.Locker
	tap  *tap
}

// open takes the next backend: the target's own first, then its peers.
func (c *trial) open() (name string, b driver.Backend) {
	c.mu.Lock()
	name = "A"
	if c.clients > 0 {
		name = string(rune('A' + c.clients%26))
	}
	c.clients++
	first := !c.used
	c.used = true
	c.mu.Unlock()
	if first {
		return name, c.target.Backend
	}
	return name, c.target.Peer(c.t)
}

// client opens a client with no configuration of its own.
func (c *trial) client() *client { return c.clientWith(locker.Config{}) }

func (c *trial) clientWith(cfg locker.Config) *client {
	name, b := c.open()
	t, shown := c.tap(name, b)
	l, err := locker.New(shown, cfg)
	c.ok(err, "locker.New")
	c.onClose(func(ctx context.Context) { t.all(nil); t.restore(); _ = l.Close(ctx) })
	return &client{c, name, l, t}
}

// rawClient is a Locker over the bare backend, for what the tap's mutexes would hide.
func (c *trial) rawClient() *locker.Locker {
	_, b := c.open()
	l, err := locker.New(b, locker.Config{})
	c.ok(err, "locker.New")
	c.onClose(func(ctx context.Context) { _ = l.Close(ctx) })
	return l
}

// driver opens a client without a core above it.
func (c *trial) driver() driver.Backend {
	name, b := c.open()
	t, shown := c.tap(name, b)
	c.onClose(func(ctx context.Context) {
		if t.count(opClose) == 0 { // a backend is closed once
			_ = t.Close(ctx)
		}
	})
	return shown
}

// hold is a locker.Lease with what the suite knows of it.
type hold struct {
	*locker.Lease
	cl     *client
	before time.Time // when the call was made
	at     time.Time // when it returned
}

func (cl *client) try(key string, opts ...locker.Option) (*hold, error) {
	return cl.tryCtx(cl.c.ctxFor(cl.c.limit()), key, opts...)
}

func (cl *client) tryCtx(ctx context.Context, key string, opts ...locker.Option) (*hold, error) {
	return cl.take(ctx, "TryLock", cl.l.TryLock, key, opts)
}

func (cl *client) lock(ctx context.Context, key string, opts ...locker.Option) (*hold, error) {
	cl.c.hist.add("%s  Lock %s …", cl.name, cl.c.short(key))
	return cl.take(ctx, "Lock", cl.l.Lock, key, opts)
}

func (cl *client) take(ctx context.Context, op string, f func(context.Context, string, ...locker.Option) (*locker.Lease, error), key string, opts []locker.Option) (*hold, error) {
	h := &hold{cl: cl, before: time.Now()}
	s, err := f(ctx, key, opts...)
	h.at = time.Now()
	if err != nil {
		cl.c.hist.add("%s  %s %s → %v", cl.name, op, cl.c.short(key), err)
		if s != nil {
			cl.c.fatal("no Lease beside an error", "a Lease and %v", err)
		}
		return nil, err
	}
	h.Lease = s
	cl.c.hist.add("%s  %s %s → token %d", cl.name, op, cl.c.short(key), s.Token())
	return h, nil
}

// mustTry takes a key that is free.
func (cl *client) mustTry(key string, opts ...locker.Option) *hold {
	h, err := cl.try(key, opts...)
	cl.c.ok(err, "%s's TryLock of %s, which is free,", cl.name, cl.c.short(key))
	return h
}

// mustHeld makes sure that somebody else holds key.
func (cl *client) mustHeld(key string, opts ...locker.Option) {
	h, err := cl.try(key, opts...)
	if err == nil {
		cl.c.fatal(cl.name+"'s TryLock of "+cl.c.short(key)+", which is held, gives ErrHeld", "it was granted, token %d", h.Token())
	}
	cl.c.is(err, locker.ErrHeld, "%s's TryLock of %s, which is held,", cl.name, cl.c.short(key))
}

// pending is a Lock under way.
type pending struct {
	cl   *client
	key  string
	done <-chan struct{}
	stop context.CancelCauseFunc
	h    *hold
	err  error
	at   time.Time // when it returned
}

// goLock waits for key in a goroutine, until the case ends or stop is called.
func (cl *client) goLock(key string, opts ...locker.Option) *pending {
	return cl.goLockCtx(cl.c.ctx, key, opts...)
}

func (cl *client) goLockCtx(ctx context.Context, key string, opts ...locker.Option) *pending {
	p := &pending{cl: cl, key: key}
	ctx, p.stop = context.WithCancelCause(ctx)
	cl.c.onClose(func(context.Context) { p.stop(nil) })
	begun := make(chan struct{})
	p.done = cl.c.spawn(func() {
		close(begun)
		p.h, p.err = cl.lock(ctx, key, opts...)
		p.at = time.Now()
	})
	<-begun // a busy machine may take longer to begin than settle waits
	return p
}

// outcome is what has come of it so far, for the text of a failure: err itself belongs to
// the waiting goroutine until done is closed.
func (p *pending) outcome() error {
	if isClosed(p.done) {
		return p.err
	}
	return nil
}

// granted waits for the hold.
func (p *pending) granted(within time.Duration, since string) *hold {
	c := p.cl.c
	c.await(p.done, within, "%s's Lock of %s gets the lock after %s,", p.cl.name, c.short(p.key), since)
	if c.ctx.Err() != nil {
		runtime.Goexit()
	}
	c.ok(p.err, "%s's Lock of %s after %s", p.cl.name, c.short(p.key), since)
	return p.h
}

// refused waits for the error.
func (p *pending) refused(within time.Duration, since string) error {
	c := p.cl.c
	c.await(p.done, within, "%s's Lock of %s ends after %s,", p.cl.name, c.short(p.key), since)
	if c.ctx.Err() != nil {
		runtime.Goexit()
	}
	c.must(p.err != nil, p.cl.name+"'s Lock of "+c.short(p.key)+" gives an error after "+since, "it was granted")
	return p.err
}

func (h *hold) unlock() error { return h.unlockCtx(h.cl.c.ctxFor(h.cl.c.limit())) }

func (h *hold) unlockCtx(ctx context.Context) error {
	err := h.Lease.Unlock(ctx)
	h.cl.c.hist.add("%s  Unlock %s token %d → %v", h.cl.name, h.cl.c.short(h.Key()), h.Token(), err)
	return err
}

// mustUnlock releases a hold that is held.
func (h *hold) mustUnlock() {
	h.cl.c.ok(h.unlock(), "%s's Unlock of %s, which it holds,", h.cl.name, h.cl.c.short(h.Key()))
}

func (h *hold) extend(d time.Duration) error { return h.extendCtx(h.cl.c.ctxFor(h.cl.c.limit()), d) }

func (h *hold) extendCtx(ctx context.Context, d time.Duration) error {
	err := h.Lease.Extend(ctx, d)
	h.cl.c.hist.add("%s  Extend %s token %d to %s → %v", h.cl.name, h.cl.c.short(h.Key()), h.Token(), d, err)
	return err
}

// mustLive makes sure that the hold goes on for its holder and for everybody else.
func (h *hold) mustLive(others ...*client) {
	c := h.cl.c
	c.ok(h.Err(), "%s's hold of %s goes on: Err", h.cl.name, c.short(h.Key()))
	c.must(!isClosed(h.Done()), "Done is open while the hold lasts", "it is closed")
	for _, o := range others {
		o.mustHeld(h.Key())
	}
}

// deadline is the local end of a lease.
func (h *hold) deadline() time.Time {
	d, ok := h.Deadline()
	h.cl.c.must(ok, "a lease has a Deadline", "it has none")
	return d
}

// recorder is a driver.Listener of a case without a core.
type recorder struct{ heard chan error }

func newRecorder() *recorder { return &recorder{make(chan error, 16)} }

func (r *recorder) Lost(cause error) {
	select {
	case r.heard <- cause:
	default:
	}
}
