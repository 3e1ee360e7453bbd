package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

var needsInspector = Need{
	name: "driver.Inspector", why: "the backend is no driver.Inspector",
	met: func(t *Target) bool { _, ok := driver.As[driver.Inspector](t.Backend); return ok },
}

var needsPinger = Need{
	name: "driver.Pinger", why: "the backend is no driver.Pinger",
	met: func(t *Target) bool { _, ok := driver.As[driver.Pinger](t.Backend); return ok },
}

var inspectCases = []Case{
	{ID: "INS-001", Kinds: both, Needs: []Need{needsInspector}, fn: inspects, Parts: append(passed(passedInspect),
		Part{Name: "waiters", fn: inspectsWaiters}, Part{Name: "kept", Kinds: []Kind{Lease}, fn: inspectsKept}, Part{Name: "crashed", Kinds: []Kind{Session}, Needs: []Need{needsCrash}, fn: inspectsCrashed}, Part{Name: "gone", Kinds: []Kind{Lease}, Needs: []Need{needsKill}, fn: inspectsNothing}, Part{Name: "overwritten", Needs: []Need{needsOverwrite}, fn: inspectsForeign}), Clause: "Inspect says who holds a key, with which token, as what and for how long; nothing once the hold is over"},
	{ID: "INS-002", Needs: []Need{needsPinger}, fn: pings, Parts: []Part{
		{Name: "stall", Needs: []Need{needsPinger, needsPause}, fn: pingsInStall},
		{Name: "refused", Needs: []Need{needsPinger, needsRefuse}, fn: pingsThoughRefusing},
	}, Clause: "Ping is nil while the store serves, and an error when it does not, or cannot be asked"},
}

// inspected is what key is in the eyes of r.
func (r *raw) inspected(key string) (driver.Info, bool) {
	in, _ := driver.As[driver.Inspector](r.inner)
	info, ok, err := in.Inspect(r.c.CtxFor(r.c.Limit()), key)
	r.c.OK(err, "Inspect of %s", r.c.Short(key))
	r.c.Hist.Add("   inspect %s → %v %+v", r.c.Short(key), ok, info)
	return info, ok
}

// seenAs makes sure that by sees g as it is.
func (g *grip) seenAs(by *raw, ttl time.Duration) {
	c := g.r.c
	began := time.Now()
	info, ok := by.inspected(g.req.Key)
	took := time.Since(began)
	c.Must(ok, "Inspect of a key that is held says that it is", "it says that it is free")
	c.Must(info.Owner == g.req.Owner.String(), "Inspect names the owner, "+g.req.Owner.String(), "%q", info.Owner)
	c.Must(info.Token == g.token, "Inspect tells the holder's token", "%d instead of %d", info.Token, g.token)
	c.Must(info.Session == (g.req.TTL == 0), "Inspect tells a session from a lease", "session: %v", info.Session)
	if ttl == 0 {
		c.Must(info.Remaining >= 0 && info.Remaining <= c.Caps.SessionValidity, "a session has no more than its validity left", "%s", info.Remaining)
		return
	}
	most, least := ttl-began.Sub(g.after)+time.Millisecond, ttl-time.Since(g.before)-took-c.Prompt()
	c.Must(info.Remaining <= most && info.Remaining >= least, "Inspect tells what is left of a lease, "+most.String(), "%s", info.Remaining)
}

// inspectsWaiters: how many wait is told, or that it is not known.
func inspectsWaiters(c *trial) {
	a, b, sees := c.client(), c.client(), c.raw()
	h := a.mustTry(c.Key("k"), c.hold()...)
	info, _ := sees.inspected(h.Key())
	c.Must(info.Waiters == 0 || info.Waiters == -1, "Inspect of a key that nobody waits for tells no waiter, or that it does not know (-1)", "%d", info.Waiters)
	p := b.goLock(h.Key(), append(c.hold(), c.Polling())...)
	for end := time.Now().Add(c.Limit()); info.Waiters == 0 && time.Now().Before(end); {
		c.Sleep(c.Granularity() / 4)
		info, _ = sees.inspected(h.Key())
	}
	c.Must(info.Waiters == 1 || info.Waiters == -1, "Inspect of a key that one waits for tells one waiter, or that it does not know (-1)", "%d", info.Waiters)
	h.mustUnlock()
	p.granted(c.Limit(), "the release").mustUnlock()
}

func inspects(c *trial) {
	x, y := c.raw(), c.raw()
	key, other := c.Key("k"), c.Key("other")
	free := func(key, when string) {
		for _, by := range []*raw{x, y} {
			info, ok := by.inspected(key)
			c.Must(!ok, "Inspect of a key "+when+" says that it is free", "%+v", info)
		}
	}
	free(key, "that nobody ever held")
	beside := x.take(other, far) // a greater token than the first, of another key
	for i, cl := range []*raw{x, y} {
		g := cl.take(key, c.ttl())
		second := cl.take(c.Key("second"), c.ttl()) // the store's last grant is not this key's
		for _, by := range []*raw{x, y} {
			g.seenAs(by, c.ttl())
		}
		if c.leaf.kind == Lease {
			g.before = time.Now()
			c.OK(g.extend(2*far), "the driver's Extend")
			g.after = time.Now()
			g.seenAs(y, 2*far)
		}
		y.refused(key, c.Owner(), far)
		info, _ := y.inspected(key)
		c.Claim("MX-001").Must(info.Token == g.token, "an attempt that is refused leaves the holder's token", "%d became %d", g.token, info.Token)
		g.again().mustRelease()
		free(key, "that was released")
		second.mustRelease()
		if i == 0 {
			beside.seenAs(y, far)
		}
	}
	beside.mustRelease()

	g := x.take(c.Key("expired"), c.Unit())
	c.Sleep(time.Until(g.after.Add(c.Unit() + c.Granularity())))
	free(g.req.Key, "whose holder's time is up")
	next := y.takeSoon(g.req.Key, c.ttl())
	next.seenAs(x, c.ttl())
	next.mustRelease()
	if c.target.Delete != nil {
		g = x.take(c.Key("deleted"), c.ttl())
		c.target.Delete(c.T, g.req.Key)
		free(g.req.Key, "whose hold was deleted")
	}

	in, _ := driver.As[driver.Inspector](y.inner)
	_, _, err := in.Inspect(ended(), key)
	c.Must(err != nil, "Inspect with a ctx that has ended gives an error", "nil")
	c.OK(y.Close(c.CtxFor(c.Limit())), "the driver's Close")
	_, _, err = in.Inspect(c.CtxFor(c.Limit()), key)
	c.Must(err != nil, "Inspect after Close gives an error, and does not say that the key is free", "nil")
}

// passedInspect: the client through which a hold was passed on knows it with its own token.
func passedInspect(c *trial) {
	a := c.client()
	h := c.chain(a, c.Key("k"), far)
	in, _ := driver.As[driver.Inspector](a.tap.Inner)
	info, ok, err := in.Inspect(c.CtxFor(c.Limit()), h.Key())
	c.OK(err, "Inspect of what was passed on")
	c.Must(ok && !info.Session, "Inspect of a lease that was passed on says that it is held", "%v, %+v", ok, info)
	c.Must(info.Token == h.Token(), "Inspect tells the token of who was passed the hold", "%d instead of %d", info.Token, h.Token())
	h.mustUnlock()
}

// inspectsKept: a lease that is extended again and again is the same hold all the time.
func inspectsKept(c *trial) {
	x, y := c.raw(), c.raw()
	ttl := c.lifetime()
	g := x.take(c.Key("k"), ttl)
	for range 5 {
		c.Sleep(ttl * 6 / 10)
		g.before = time.Now()
		c.OK(g.extend(ttl), "the driver's Extend")
		g.after = time.Now()
		g.seenAs(y, ttl)
	}
	if c.Caps.Has.Has(driver.Breaking) {
		c.Claim("ADM-005").OK(y.breaking(g.req.Key, g.token), "Break of a lease that was extended again and again")
		return
	}
	g.mustRelease()
}

// inspectsCrashed: a session of a client that is gone is over when its validity is, whether or not anybody has
// cleared it away.
func inspectsCrashed(c *trial) {
	x, y := c.raw(), c.raw()
	g := x.take(c.Key("k"), 0)
	_, held := y.inspected(g.req.Key)
	c.Must(held, "Inspect of a key that is held says that it is", "it says that it is free")
	c.target.Crash(c.T, x.inner)
	c.Hist.Add("   (the first client crashes)")
	c.Sleep(c.Caps.SessionValidity + c.Prompt()) // the last renewal came before
	info, held := y.inspected(g.req.Key)
	c.Must(!held, "Inspect of a session says that the key is free when its client is gone and its validity over", "%+v", info)
	y.takeSoon(g.req.Key, c.ttl()).mustRelease()
}

// inspectsNothing: of a store that is not there, nothing can be said.
func inspectsNothing(c *trial) {
	x, y := c.nearRaw(), c.nearRaw()
	g := x.take(c.Key("k"), c.ttl())
	restart := c.dies()
	for _, by := range []*raw{x, y} {
		in, _ := driver.As[driver.Inspector](by.inner)
		for _, key := range []string{g.req.Key, c.Key("free")} {
			info, ok, err := in.Inspect(c.CtxFor(c.Unit()), key)
			c.Must(err != nil, "Inspect gives an error when the store is not there", "%v, %+v", ok, info)
			c.Claim("ERR-002").Must(!errors.Is(err, driver.ErrHeld), "Inspect does not give ErrHeld when the store is not there", "%v", err)
		}
		if l, ok := driver.As[driver.Lister](by.inner); ok {
			var last error
			n := 0
			for info, err := range l.List(c.CtxFor(c.Unit()), "") {
				n, last = n+1, err
				c.Hist.Add("   list → %+v, %v", info, err)
			}
			c.Claim("ADM-003").Must(last != nil, "List gives an error when the store is not there", "it told %d holds", n)
		}
	}
	restart()
}

// inspectsForeign: what somebody else put in the place of a hold is not free. Inspect says that it is
// held, or that it cannot tell.
func inspectsForeign(c *trial) {
	x, y := c.nearRaw(), c.nearRaw()
	for i := range 3 {
		g := x.take(c.Key(fmt.Sprint(i)), c.ttl())
		c.overwrite(g.req.Key)
		for _, by := range []*raw{x, y} {
			in, _ := driver.As[driver.Inspector](by.inner)
			info, ok, err := in.Inspect(c.CtxFor(c.Limit()), g.req.Key)
			c.Hist.Add("   inspect %s → %v %+v, %v", c.Short(g.req.Key), ok, info, err)
			c.Must(ok || err != nil, "Inspect of a key that somebody else overwrote does not say that it is free", "it does: %+v", info)
			c.Must(err != nil || info.Owner != g.req.Owner.String(), "Inspect of a key that somebody else overwrote does not name the one who held it", "%+v", info)
		}
		c.inject().Delete(c.T, g.req.Key)
		_, ok := y.inspected(g.req.Key)
		c.Must(!ok, "Inspect of a key that was deleted says that it is free", "it says that it is held")
	}
}

func pings(c *trial) {
	x, y := c.raw(), c.raw()
	ping := func(r *raw, ctx context.Context) error {
		p, _ := driver.As[driver.Pinger](r.inner)
		err := p.Ping(ctx)
		c.Hist.Add("   ping → %v", err)
		return err
	}
	for range 3 {
		c.OK(ping(x, c.CtxFor(c.Limit())), "Ping of a store that serves")
		x.take(c.Key("k"), far).mustRelease()
	}
	c.Must(ping(x, ended()) != nil, "Ping with a ctx that has ended gives an error", "nil")
	y.take(c.Key("a session"), 0) // what a client keeps alive does not speak for the store
	c.OK(y.Close(c.CtxFor(c.Limit())), "the driver's Close")
	c.Must(ping(y, c.CtxFor(c.Limit())) != nil, "Ping after Close gives an error", "nil")
	c.OK(ping(x, c.CtxFor(c.Limit())), "Ping, after another client was closed,")
	if c.target.Crash != nil {
		z := c.raw()
		z.take(c.Key("another session"), 0)
		c.OK(ping(z, c.CtxFor(c.Limit())), "Ping of a store that serves")
		c.target.Crash(c.T, z.inner)
		c.Hist.Add("   (the third client crashes)")
		c.Must(ping(z, c.CtxFor(c.Limit())) != nil, "Ping of a client that has lost its store gives an error", "nil")
	}
}

// pingsInStall: a store that stands still does not serve, whether or not something else of the client waits for it.
func pingsInStall(c *trial) {
	x := c.nearRaw()
	p, _ := driver.As[driver.Pinger](x.inner)
	x.take(c.Key("a session"), 0) // whose renewals would tell, later
	c.OK(p.Ping(c.CtxFor(c.Limit())), "Ping of a store that serves")
	goOn := c.stalls()
	err := p.Ping(c.CtxFor(c.Unit()))
	ctx, cancel := context.WithCancel(c.Ctx)
	waiting := c.Spawn(func() {
		_, _ = x.inner.Acquire(ctx, driver.Request{Key: c.Key("k"), Owner: c.Owner(), TTL: c.Unit(), Hold: newRecorder()})
	})
	c.Settle()
	beside := p.Ping(c.CtxFor(c.Unit()))
	goOn()
	cancel()
	c.Await(waiting, c.Limit(), "an Acquire whose ctx has ended returns")
	c.Must(err != nil, "Ping of a store that stands still gives an error", "nil")
	c.Must(beside != nil, "Ping of a store that stands still gives an error while an Acquire waits", "nil")
	for end := time.Now().Add(c.recovery()); ; c.Sleep(c.Granularity()) {
		if err = p.Ping(c.CtxFor(c.Limit())); err == nil {
			return
		}
		c.Must(time.Now().Before(end), "Ping of a store that serves again succeeds", "%v", err)
	}
}

// pingsThoughRefusing: a store that grants nothing does not serve.
func pingsThoughRefusing(c *trial) {
	if c.inject().RefusesUnseen {
		c.Skip("a Ping cannot know that the target refuses")
	}
	x := c.nearRaw()
	p, _ := driver.As[driver.Pinger](x.inner)
	x.take(c.Key("k"), c.ttl()).mustRelease()
	x.take(c.Key("a session"), 0) // whose renewals would tell, later
	accept := c.refuses()
	err := p.Ping(c.CtxFor(c.Limit()))
	accept()
	c.Must(err != nil, "Ping of a store that grants nothing gives an error", "nil")
	c.Claim("ERR-002").Must(!errors.Is(err, driver.ErrHeld), "Ping does not give ErrHeld", "%v", err)
	for end := time.Now().Add(c.recovery()); ; c.Sleep(c.Granularity()) {
		if err = p.Ping(c.CtxFor(c.Limit())); err == nil {
			return
		}
		c.Must(time.Now().Before(end), "Ping of a store that grants again succeeds", "%v", err)
	}
}
