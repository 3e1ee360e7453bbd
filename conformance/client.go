package conformance

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// client is a Locker over a tapped backend; its calls go into the history.
type client struct {
	c    *trial
	name string
	l    *locker.Locker
	tap  *harness.Tap
}

// client opens a client with no configuration of its own.
func (c *trial) client() *client { return c.clientWith(locker.Config{}) }

func (c *trial) clientWith(cfg locker.Config) *client {
	name, b := c.Open()
	t, shown := c.Tap(name, b)
	l, err := locker.New(shown, cfg)
	c.OK(err, "locker.New")
	c.OnClose(func(ctx context.Context) { t.All(nil); t.Restore(); _ = l.Close(ctx) })
	return &client{c, name, l, t}
}

// rawClient is a Locker over the bare backend, for what the tap's mutexes would hide.
func (c *trial) rawClient() *locker.Locker {
	_, b := c.Open()
	l, err := locker.New(b, locker.Config{})
	c.OK(err, "locker.New")
	c.OnClose(func(ctx context.Context) { _ = l.Close(ctx) })
	return l
}

// driver opens a client without a core above it.
func (c *trial) driver() driver.Backend { return c.driverOf(c.Open()) }

func (c *trial) driverOf(name string, b driver.Backend) driver.Backend {
	t, shown := c.Tap(name, b)
	c.OnClose(func(ctx context.Context) {
		if t.Count(harness.OpClose) == 0 { // a backend is closed once
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
	return cl.tryCtx(cl.c.CtxFor(cl.c.Limit()), key, opts...)
}

func (cl *client) tryCtx(ctx context.Context, key string, opts ...locker.Option) (*hold, error) {
	return cl.take(ctx, "TryLock", cl.l.TryLock, key, opts)
}

func (cl *client) lock(ctx context.Context, key string, opts ...locker.Option) (*hold, error) {
	cl.c.Hist.Add("%s  Lock %s …", cl.name, cl.c.Short(key))
	defer cl.c.Waits(cl.name, "the lock of "+cl.c.Short(key), key)()
	return cl.take(ctx, "Lock", cl.l.Lock, key, opts)
}

func (cl *client) take(ctx context.Context, op string, f func(context.Context, string, ...locker.Option) (*locker.Lease, error), key string, opts []locker.Option) (*hold, error) {
	h := &hold{cl: cl, before: time.Now()}
	s, err := f(ctx, key, opts...)
	h.at = time.Now()
	if err != nil {
		cl.c.Hist.Add("%s  %s %s → %v", cl.name, op, cl.c.Short(key), err)
		if s != nil {
			cl.c.Fatal("no Lease beside an error", "a Lease and %v", err)
		}
		return nil, err
	}
	h.Lease = s
	cl.c.holders.Store(key, h)
	cl.c.Hist.Add("%s  %s %s → token %d", cl.name, op, cl.c.Short(key), s.Token())
	return h, nil
}

// mustTry takes a key that is free.
func (cl *client) mustTry(key string, opts ...locker.Option) *hold {
	h, err := cl.try(key, opts...)
	cl.c.OK(err, "%s's TryLock of %s, which is free,", cl.name, cl.c.Short(key))
	return h
}

// mustHeld makes sure that somebody else holds key.
func (cl *client) mustHeld(key string, opts ...locker.Option) {
	before, _ := cl.c.holders.Load(key)
	holder, ok := before.(*hold)
	ok = ok && holder.Err() == nil // before the attempt: a later grant ends an older hold (LOSS-005)
	h, err := cl.try(key, opts...)
	if err == nil {
		cl.exclusion(holder, ok, h).Fatal(cl.name+"'s TryLock of "+cl.c.Short(key)+", which is held, gives ErrHeld", "it was granted, token %d", h.Token())
	}
	cl.c.Claim("ERR-002").Is(err, locker.ErrHeld, "%s's TryLock of %s, which is held,", cl.name, cl.c.Short(key))
}

// exclusion is the clause that is broken when got was granted although the key was held. It is
// the case's own where the case does something to a hold, as by a release by another owner.
func (cl *client) exclusion(h *hold, held bool, got *hold) harness.Claim {
	switch c := cl.c; {
	case !held || !slices.Contains(harmless, c.ID):
		return c.Claim(c.ID)
	case h.Session() && c.Caps.SessionValidity > 0 && time.Since(h.before) > c.Caps.SessionValidity: // nobody kept it
		return c.Claim("SES-001")
	case h.cl == cl:
		return c.Claim("MX-003")
	case h.Session() != got.Session():
		return c.Claim("MX-004")
	default:
		return c.Claim("MX-001")
	}
}

// harmless are the cases in which nothing is done to a hold but by its holder.
var harmless = strings.Fields("KEY-002 KEY-001 KEY-003 TOK-003 REL-001 MX-002 MX-003 MX-004 TTL-001 TTL-002 TTL-003 EXT-001 WAIT-001 WAIT-002 TOK-001 TOK-002 SES-001")

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
	return cl.goLockCtx(cl.c.Ctx, key, opts...)
}

func (cl *client) goLockCtx(ctx context.Context, key string, opts ...locker.Option) *pending {
	p := &pending{cl: cl, key: key}
	ctx, p.stop = context.WithCancelCause(ctx)
	cl.c.OnClose(func(context.Context) { p.stop(nil) })
	begun := make(chan struct{})
	p.done = cl.c.Spawn(func() {
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
	if harness.IsClosed(p.done) {
		return p.err
	}
	return nil
}

// granted waits for the hold.
func (p *pending) granted(within time.Duration, since string) *hold {
	return p.grantedBy(p.cl.c.Claim(p.cl.c.ID), within, since)
}

// grantedBy is granted where it is another clause that is broken if it is not.
func (p *pending) grantedBy(claim harness.Claim, within time.Duration, since string) *hold {
	c := p.cl.c
	claim.Await(p.done, within, "%s's Lock of %s gets the lock after %s,", p.cl.name, c.Short(p.key), since)
	if c.Ctx.Err() != nil {
		runtime.Goexit()
	}
	claim.OK(p.err, "%s's Lock of %s after %s", p.cl.name, c.Short(p.key), since)
	return p.h
}

// refused waits for the error.
func (p *pending) refused(within time.Duration, since string) error {
	return p.refusedBy(p.cl.c.Claim(p.cl.c.ID), within, since)
}

// refusedBy is refused where it is another clause that is broken if it does not end.
func (p *pending) refusedBy(claim harness.Claim, within time.Duration, since string) error {
	c := p.cl.c
	claim.Await(p.done, within, "%s's Lock of %s ends after %s,", p.cl.name, c.Short(p.key), since)
	if c.Ctx.Err() != nil {
		runtime.Goexit()
	}
	c.Must(p.err != nil, p.cl.name+"'s Lock of "+c.Short(p.key)+" gives an error after "+since, "it was granted")
	return p.err
}

func (h *hold) unlock() error { return h.unlockCtx(h.cl.c.CtxFor(h.cl.c.Limit())) }

func (h *hold) unlockCtx(ctx context.Context) error {
	err := h.Lease.Unlock(ctx)
	h.cl.c.Hist.Add("%s  Unlock %s token %d → %v", h.cl.name, h.cl.c.Short(h.Key()), h.Token(), err)
	return err
}

// mustUnlock releases a hold that is held.
func (h *hold) mustUnlock() {
	h.cl.c.OK(h.unlock(), "%s's Unlock of %s, which it holds,", h.cl.name, h.cl.c.Short(h.Key()))
}

func (h *hold) extend(d time.Duration) error { return h.extendCtx(h.cl.c.CtxFor(h.cl.c.Limit()), d) }

func (h *hold) extendCtx(ctx context.Context, d time.Duration) error {
	err := h.Lease.Extend(ctx, d)
	h.cl.c.Hist.Add("%s  Extend %s token %d to %s → %v", h.cl.name, h.cl.c.Short(h.Key()), h.Token(), d, err)
	return err
}

// mustLive makes sure that the hold goes on for its holder and for everybody else.
func (h *hold) mustLive(others ...*client) {
	c := h.cl.c
	c.OK(h.Err(), "%s's hold of %s goes on: Err", h.cl.name, c.Short(h.Key()))
	c.Must(!harness.IsClosed(h.Done()), "Done is open while the hold lasts", "it is closed")
	for _, o := range others {
		o.mustHeld(h.Key())
	}
}

// deadline is the local end of a lease.
func (h *hold) deadline() time.Time {
	d, ok := h.Deadline()
	h.cl.c.Must(ok, "a lease has a Deadline", "it has none")
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
