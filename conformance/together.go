package conformance

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var needsTogether = Need{
	name: "driver.Together", why: "the backend is no driver.Together",
	met: func(t *Target) bool { _, ok := driver.As[driver.Together](t.Backend); return ok },
}

// neighbour is a key that a store which divides its keys puts beside the others of this trial: by the
// hash tag of a Redis Cluster, which ends at the first brace.
func (c *trial) neighbour(name string) string { return c.Key("}" + name) }

// askAll asks for keys in one step, each for an owner of its own.
func (r *raw) askAll(keys []string, owners []driver.Owner, ttl time.Duration) (all []*grip, at int, err error) {
	together, _ := driver.As[driver.Together](r.Backend)
	requests := make([]driver.Request, len(keys))
	all = make([]*grip, len(keys))
	for i, key := range keys {
		rec := newRecorder()
		requests[i] = driver.Request{Key: key, Owner: owners[i], TTL: ttl, Hold: rec}
		all[i] = &grip{r: r, rec: rec, req: requests[i], before: time.Now()}
	}
	grants, at, err := together.AcquireAll(r.c.CtxFor(r.c.Limit()), requests)
	if err != nil {
		r.c.Must(at >= -1 && at < len(keys), "AcquireAll says of which request its error is, or -1", "%d of %d", at, len(keys))
		return all, at, err
	}
	r.c.Must(len(grants) == len(keys), "AcquireAll returns a grant for each request", "%d for %d", len(grants), len(keys))
	for i, g := range grants {
		r.c.Must(g.Token > 0 && g.Token <= driver.MaxToken, "each grant has a token", "%d", g.Token)
		r.c.Must(g.TTL == ttl, "each grant lasts as long as was asked for", "%s, not %s", g.TTL, ttl)
		all[i].token, all[i].after = g.Token, time.Now()
	}
	return all, at, nil
}

func oneStep(c *trial) {
	a, b := c.client(), c.client()
	keys := []string{c.neighbour("x"), c.neighbour("y")}
	before := a.tap.Count()
	all, err := a.lockAll(c.CtxFor(c.Limit()), keys, c.hold()...)
	c.OK(err, "LockAll of two free keys")
	c.Must(a.tap.Count(harness.OpAcquire) == 1 && a.tap.Count()-before == 1, "two free keys are one call of the store", "%d calls", a.tap.Count()-before)
	for _, key := range keys {
		b.mustHeld(key, c.hold()...)
	}
	tokens := []uint64{all.Token(keys[0]), all.Token(keys[1])}
	c.OK(all.Unlock(c.CtxFor(c.Limit())), "Unlock of all")
	for i, key := range keys {
		h := b.mustTry(key, c.hold()...)
		c.Must(h.Token() > tokens[i] && tokens[i] > 0, "tokens rise", "%d after %d", h.Token(), tokens[i])
		h.mustUnlock()
	}

	if _, waits := driver.As[driver.Waiter](c.target.Backend); !waits || c.CoreLoop {
		notBefore(c, a, b, keys) // a backend that waits by itself decides who is first
	}

	// Each grant is that of its own request, and a repeat by the present owners has the same.
	r := c.raw()
	owners := []driver.Owner{c.Owner(), {}}
	owners[1] = c.sibling(owners[0])
	grips, _, err := r.askAll(keys, owners, c.ttl())
	c.OK(err, "AcquireAll of two free keys")
	again, _, err := r.askAll(keys, owners, c.ttl())
	c.OK(err, "a repeat of AcquireAll by the present owners")
	for i, g := range grips {
		one, err := r.acquire(keys[i], owners[i], c.ttl())
		c.OK(err, "a repeat of one of the requests")
		c.Must(one.token == g.token && again[i].token == g.token, "a repeat has the same token", "%d, then %d, and %d alone", g.token, again[i].token, one.token)
		c.OK(r.Release(c.CtxFor(c.Limit()), g.holder()), "Release")
	}
}

// notBefore: who waits in this process is first, although the key is free (WAIT-004).
func notBefore(c *trial, a, b *client, keys []string) {
	held := b.mustTry(keys[1], c.hold()...)
	p := a.goLock(keys[1], append(c.hold(), c.Polling())...)
	c.Settle()
	a.tap.Deaf()
	held.mustUnlock()
	served := make(chan struct{})
	done := c.Spawn(func() {
		all, err := a.lockAll(c.CtxFor(2*c.Limit()), keys, append(c.hold(), c.Polling())...)
		c.OK(err, "LockAll of keys for one of which another one waits")
		c.Must(harness.IsClosed(served), "who waits for one of the keys comes before a LockAll", "the LockAll was first")
		c.OK(all.Unlock(c.CtxFor(2*c.Limit())), "Unlock of all")
	})
	c.Settle()
	next := p.granted(c.HandOver()+c.Limit(), "the release")
	close(served)
	next.mustUnlock()
	c.Await(done, 3*c.Limit(), "LockAll has had its keys")
}

func oneStepRefused(c *trial) {
	a, b, r := c.client(), c.client(), c.raw()
	x, y, z := c.neighbour("x"), c.neighbour("y"), c.neighbour("z")
	held := b.mustTry(y, c.hold()...)
	names := func() []string { return slices.Sorted(slices.Values(c.stored())) }
	before := names()
	owners := []driver.Owner{c.Owner(), c.Owner(), c.Owner()}
	all, at, err := r.askAll([]string{x, y, z}, owners, c.ttl())
	c.Is(err, driver.ErrHeld, "AcquireAll of three keys, of which one is held,")
	c.Must(at == 1 || at == -1, "AcquireAll names the key that is held, or none", "it names the one at %d", at)
	after := names()
	c.Must(slices.Equal(before, after), "a refusal leaves nothing in the store", "%q before, %q after", before, after)
	for i, key := range []string{x, z} {
		b.mustTry(key, c.hold()...).mustUnlock()
		g := r.take(key, c.ttl())
		if c.target.Delete != nil {
			c.target.Delete(c.T, key)
			c.Settle()
		}
		c.Must(len(all[2*i].rec.heard) == 0, "who was refused hears of nothing", "it hears of a loss")
		_ = r.Release(c.CtxFor(c.Limit()), g.holder())
	}

	// One attempt is one call, and the error names the key.
	asked := a.tap.Count()
	_, err = a.lockAll(c.CtxFor(c.Limit()), []string{x, y, z}, append(c.hold(), locker.WithRetry(locker.NoRetry()))...)
	c.Is(err, locker.ErrHeld, "LockAll without patience while one of the keys is held")
	c.Must(a.tap.Count()-asked == 1, "LockAll without patience is one call of the store", "%d calls", a.tap.Count()-asked)
	var e *locker.Error
	c.Must(errors.As(err, &e) && (e.Key == y || at == -1), "the error names the key that is held", "%v", err)

	// With patience it waits, and then has all.
	done := c.Spawn(func() {
		all, err := a.lockAll(c.CtxFor(2*c.Limit()), []string{x, y, z}, append(c.hold(), c.Polling())...)
		c.OK(err, "LockAll that waits for one of its keys")
		c.OK(all.Unlock(c.CtxFor(c.Limit())), "Unlock of all")
	})
	c.Settle()
	held.mustUnlock()
	c.Await(done, 3*c.Limit(), "LockAll has had its keys")
}

// oneStepUnknown is about the core: what may have been granted is taken back, all of it.
func oneStepUnknown(c *trial) {
	a := c.client()
	lost := func(f harness.Fault) func(int) { return func(int) { a.tap.Next(harness.OpAcquire, f) } }
	togetherLost(c, lossy{a, lost(harness.Lose), lost(harness.Refuse), func() {}}, c.client())
}

func oneStepUnknownOnLine(c *trial) {
	b := c.near()
	a, line := c.distant()
	c.can(line.LoseReplies != nil && line.LoseRequests != nil, "LoseReplies and LoseRequests")
	togetherLost(c, lossy{a, line.LoseReplies, line.LoseRequests, line.Heal}, b)
}

func togetherLost(c *trial, a lossy, b *client) {
	// What a store learns at its first use shall not be what is lost.
	first := []string{c.neighbour("first"), c.neighbour("second")}
	all, err := a.lockAll(c.CtxFor(c.Limit()), first, c.hold()...)
	c.OK(err, "LockAll of two free keys")
	c.OK(all.Unlock(c.CtxFor(c.Limit())), "Unlock of all")
	b.mustTry(first[0], c.hold()...).mustUnlock()

	for i, lose := range []func(int){a.loseReplies, a.loseRequests} {
		keys := []string{c.neighbour("x"), c.neighbour("y"), c.neighbour("z")}
		lose(1)
		_, err := a.lockAll(c.CtxFor(c.Limit()), keys, append(c.hold(), locker.WithRetry(locker.NoRetry()))...)
		c.Is(err, locker.ErrUnavailable, "LockAll whose reply or request is lost")
		c.IsNot(err, locker.ErrHeld, "LockAll whose reply or request is lost")
		c.free(b, c.recovery(), keys...)

		lose(1)
		var all *locker.Leases
		done := c.Spawn(func() {
			var err error
			all, err = a.lockAll(c.CtxFor(c.Limit()+c.recovery()), keys, append(c.hold(), c.Polling())...)
			c.OK(err, "LockAll whose first attempt has no answer")
		})
		c.Await(done, 3*c.recovery()+2*c.Limit(), "nobody is locked out by an attempt of one's own (round %d)", i)
		for _, key := range keys {
			b.mustHeld(key, c.hold()...)
		}
		c.OK(all.Unlock(c.CtxFor(c.Limit())), "Unlock of all")
		c.free(b, c.recovery(), keys...)
	}
	a.heal()
}

// notInOneStep is about the core: a backend may say that just these keys cannot be taken together.
func notInOneStep(c *trial) {
	a, b := c.client(), c.client()
	keys := []string{c.neighbour("x"), c.neighbour("y")}
	for _, patience := range []locker.Option{c.Polling(), locker.WithRetry(locker.NoRetry())} {
		a.tap.Next(harness.OpAcquire, harness.Answer(driver.ErrNotTogether))
		all, err := a.lockAll(c.CtxFor(c.Limit()), keys, append(c.hold(), patience)...)
		c.OK(err, "LockAll of keys that the backend cannot take in one step")
		for _, key := range keys {
			b.mustHeld(key, c.hold()...)
		}
		c.OK(all.Unlock(c.CtxFor(c.Limit())), "Unlock of all")
	}
}

func oneStepLoss(c *trial) {
	a := c.client()
	keys := []string{c.neighbour("x"), c.neighbour("y"), c.neighbour("z")}
	for i, key := range keys {
		all, err := a.lockAll(c.CtxFor(c.Limit()), keys, c.hold()...)
		c.OK(err, "LockAll of free keys")
		c.Sleep(c.Granularity())
		c.target.Delete(c.T, key)
		c.Await(all.Done(), c.Limit(), "Done closes after a deletion")
		var e *locker.Error
		c.Must(errors.As(all.Err(), &e) && e.Key == key && errors.Is(e, locker.ErrLost), "Err names the key that was lost", "%v, not %s, number %d", all.Err(), c.Short(key), i)
		c.Is(all.Unlock(c.CtxFor(c.Limit())), locker.ErrLost, "Unlock after the loss of one")
	}
}

func oneStepEnds(c *trial) {
	a, b := c.client(), c.client()
	ttl := 2 * c.Unit()
	keys := []string{c.neighbour("x"), c.neighbour("y"), c.neighbour("z")}
	asked := time.Now()
	all, err := a.lockAll(c.CtxFor(c.Limit()), keys, locker.WithTTL(ttl))
	c.OK(err, "LockAll of free keys")
	c.Must(a.tap.Count(harness.OpExtend) == 0, "what begins together need not be levelled", "%d calls of Extend", a.tap.Count(harness.OpExtend))
	end, ok := all.Deadline()
	c.Must(ok && end.Before(asked.Add(ttl+c.Prompt())), "the deadline counts from the attempt", "%s after it", end.Sub(asked))
	c.Await(all.Done(), ttl+c.Limit(), "the leases end")
	for _, key := range keys {
		p := b.goLock(key, locker.WithTTL(far), c.Polling())
		p.granted(ttl+c.Limit(), "the end of what nobody keeps").mustUnlock()
	}

	// One that comes when its time is up is none.
	a.tap.Next(harness.OpAcquire, harness.SlowReply(ttl+ttl/2))
	_, err = a.lockAll(c.CtxFor(c.Limit()+2*ttl), keys, locker.WithTTL(ttl), locker.WithRetry(locker.NoRetry()))
	c.Is(err, locker.ErrLost, "LockAll whose reply takes longer than the ttl")
	c.free(b, c.recovery(), keys...)

	// WithKeepAlive keeps all of them.
	all, err = a.lockAll(c.CtxFor(c.Limit()), keys, locker.WithTTL(ttl), locker.WithKeepAlive(0))
	c.OK(err, "LockAll of free keys")
	c.Sleep(2 * ttl)
	c.OK(all.Err(), "Err of leases that are kept")
	for _, key := range keys {
		b.mustHeld(key, locker.WithTTL(far))
	}
	c.OK(all.Unlock(context.Background()), "Unlock of all")
}
