package conformance

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// raw is a client without a core above it: the calls are the case's own, and so are the owners.
type raw struct {
	driver.Backend // behind a tap
	c              *trial
	inner          driver.Backend
	self           driver.Owner // of its instance are all who take a key here, as are those of one Locker
}

func (c *trial) raw() *raw { return c.rawOf(c.Open()) }

func (c *trial) rawOf(name string, b driver.Backend) *raw {
	return &raw{c.driverOf(name, b), c, b, c.Owner()}
}

// grip is one hold as its driver's caller knows it.
type grip struct {
	r      *raw
	req    driver.Request
	rec    *recorder
	token  uint64
	before time.Time // the moment before the attempt that was granted
	after  time.Time // the moment after it
}

// acquire makes one attempt.
func (r *raw) acquire(key string, o driver.Owner, ttl time.Duration) (*grip, error) {
	return r.ask(driver.Request{Key: key, Owner: o, TTL: ttl})
}

// ask is acquire for a whole request, but for its listener.
func (r *raw) ask(req driver.Request) (*grip, error) {
	rec := newRecorder()
	req.Hold = rec
	g := &grip{r: r, rec: rec, req: req, before: time.Now()}
	ctx, cancel := context.WithTimeout(r.c.Ctx, r.c.Limit())
	defer cancel()
	grant, err := r.Acquire(ctx, g.req)
	g.token, g.after = grant.Token, time.Now()
	return g, err
}

// take acquires a key that is free, for an owner of its own.
func (r *raw) take(key string, ttl time.Duration) *grip {
	return r.takeAs(key, r.c.sibling(r.self), ttl)
}

func (r *raw) takeAs(key string, o driver.Owner, ttl time.Duration) *grip {
	g, err := r.acquire(key, o, ttl)
	r.c.OK(err, "the driver's Acquire of %s, which is free,", r.c.Short(key))
	return g
}

// refused makes sure that somebody holds key.
func (r *raw) refused(key string, o driver.Owner, ttl time.Duration) error {
	return r.refusedOr(r.c.Claim(r.c.ID), key, o, ttl)
}

// refusedOr is refused where another clause is broken if it is not.
func (r *raw) refusedOr(claim harness.Claim, key string, o driver.Owner, ttl time.Duration) error {
	g, err := r.acquire(key, o, ttl)
	if err == nil {
		claim.Fatal("the driver's Acquire of "+r.c.Short(key)+", which is held, gives ErrHeld", "it was granted, token %d", g.token)
	}
	r.c.Is(err, driver.ErrHeld, "the driver's Acquire of %s, which is held,", r.c.Short(key))
	return err
}

// sibling is an owner of the same instance.
func (c *trial) sibling(o driver.Owner) driver.Owner {
	o.Seq = c.Owner().Seq
	return o
}

func (g *grip) holder() driver.Holder {
	return driver.Holder{Key: g.req.Key, Owner: g.req.Owner, Token: g.token, Session: g.req.TTL == 0}
}

func (g *grip) release() error { return g.r.Release(g.r.c.CtxFor(g.r.c.Limit()), g.holder()) }

func (g *grip) mustRelease() {
	g.r.c.OK(g.release(), "the driver's Release of %s by its holder", g.r.c.Short(g.req.Key))
}

func (g *grip) extend(ttl time.Duration) error {
	_, err := g.r.Extend(g.r.c.CtxFor(g.r.c.Limit()), g.holder(), ttl)
	return err
}

// again repeats the attempt, as the core does when it does not know what became of the first
// one, and makes sure that it finds the hold. The repeat has a listener of its own.
func (g *grip) again() *grip {
	c := g.r.c
	next, err := g.r.ask(g.req)
	c.Claim("FLT-001").OK(err, "a repetition of the attempt by the present holder of %s", c.Short(g.req.Key))
	c.Claim("TOK-002").Must(next.token == g.token, "a repetition of the attempt by the present holder gives the same token", "%d became %d", g.token, next.token)
	return next
}

// silent makes sure that nobody told g of a loss.
func (g *grip) silent(what string) {
	select {
	case err := <-g.rec.heard:
		g.r.c.Fatal(what+" is told of no loss", "it heard: %v", err)
	default:
	}
}

// hears waits for the news that g is lost.
func (g *grip) hears(within time.Duration, what string) error {
	return g.hearsOr(g.r.c.Claim(g.r.c.ID), within, what)
}

// hearsOr is hears where another clause is broken if it does not.
func (g *grip) hearsOr(claim harness.Claim, within time.Duration, what string) error {
	c := g.r.c
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case err := <-g.rec.heard:
		return err
	case <-c.Ctx.Done():
		runtime.Goexit()
	case <-timer.C:
		claim.Fatal(fmt.Sprintf("%s hears of its loss within %s", what, within), "it does not")
	}
	return nil
}

// lasts makes sure that g, a session, outlives its validity: somebody renews it.
func (g *grip) lasts(by *raw, what string) {
	c := g.r.c
	c.Sleep(c.outlast())
	if next, err := by.acquire(g.req.Key, c.Owner(), far); err == nil {
		c.renews(g.r, by).Fatal(what+" is held for longer than its validity", "it was granted to somebody else, token %d", next.token)
	}
	g.silent(what)
}

// renews is the clause that is broken where a session of r did not outlive its validity: SES-001 if no other
// one does either.
func (c *trial) renews(r, by *raw) harness.Claim {
	g := r.take(c.Key("renews"), 0)
	c.Sleep(c.outlast())
	if _, err := by.acquire(g.req.Key, c.Owner(), far); err == nil {
		return c.Claim("SES-001")
	}
	return c.Claim(c.ID)
}

// outlast is a time that a session can last only if it is renewed.
func (c *trial) outlast() time.Duration {
	if c.Caps.SessionValidity == 0 {
		return 3 * c.Unit()
	}
	return c.Caps.SessionValidity*3/2 + c.Prompt()
}

// endsAt makes sure that key, which is held by a lease that must end between from and to,
// does so: it is held until then, and free not much later. Somebody else takes it, and is
// returned.
func (r *raw) endsAt(key string, from, to time.Time, what string) *grip {
	c := r.c
	early, tooLate := c.Claim(c.ID), c.Claim(c.ID)
	if c.ID == "TTL-002" { // which is about the one of the two only
		tooLate = c.Claim("TTL-001")
	}
	before := c.Granularity() / 2
	if c.Virtual {
		before = time.Millisecond
	}
	if d := time.Until(from.Add(-before)); d > 0 {
		c.Sleep(d)
		g, err := r.acquire(key, c.Owner(), far)
		if err == nil && g.after.Before(from) {
			early.Fatal(fmt.Sprintf("%s the key stays held until its holder's time is up", what), "it is free %s before", from.Sub(g.after))
		}
		if err == nil {
			return g
		}
	}
	for {
		g, err := r.acquire(key, c.Owner(), far)
		switch {
		case err == nil:
			early.Must(!g.after.Before(from), what+" the key stays held until its holder's time is up", "it is free %s before", from.Sub(g.after))
			return g
		case !errors.Is(err, driver.ErrHeld):
			c.OK(err, "the driver's Acquire of %s", c.Short(key))
		}
		late := time.Since(to)
		tooLate.Must(late <= c.Prompt(), fmt.Sprintf("%s the key is free no more than %s after its holder's time", what, c.Prompt()), "it is held %s after it", late)
		c.Sleep(max(time.Millisecond, c.Granularity()/10))
	}
}

// ended is a ctx that has ended.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// lifetime is that of a lease that a case follows to its end.
func (c *trial) lifetime() time.Duration {
	if c.Virtual {
		return 4 * c.Unit()
	}
	return max(2*c.Unit(), 4*c.Prompt())
}

// shortest is the shortest ttl that the core asks for.
func (c *trial) shortest() time.Duration { return max(time.Millisecond, c.Caps.MinTTL) }
