package conformance

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/elect"
)

var electCases = []Case{
	{ID: "ELECT-001", fn: oneLeader, Clause: "no leader's function begins while another's runs that obeys its ctx within StopWithin; tokens rise by term"},
	{ID: "ELECT-002", fn: leaderKnows, Clause: "IsLeader is false from the instant of a loss on, and after Resign another candidate leads at once"},
	{ID: "ELECT-003", fn: leaderStops, Clause: "a leader that does not stop is reported once, and does not keep the lock for ever"},
}

// terms is what an election's leaders have in common.
type terms struct {
	c    *trial
	now  atomic.Int32
	last atomic.Uint64
	n    atomic.Int32
}

func (e *terms) lead(name string, stay time.Duration) func(context.Context, *elect.Term) error {
	return func(ctx context.Context, t *elect.Term) error {
		c := e.c
		c.Hist.Add("%s  leads, token %d", name, t.Token())
		c.Must(e.now.Add(1) == 1, "one leader at a time", "there are %d", e.now.Load())
		last := e.last.Swap(t.Token())
		c.Must(t.Token() > last, "tokens rise by term", "%d after %d", t.Token(), last)
		e.n.Add(1)
		defer e.now.Add(-1)
		<-ctx.Done()
		c.Hist.Add("%s  stops, token %d: %v", name, t.Token(), context.Cause(ctx))
		timer := time.NewTimer(stay) // as long as it may take; also when the case ends
		defer timer.Stop()
		<-timer.C
		return ctx.Err()
	}
}

func oneLeader(c *trial) {
	o := elect.Options{TTL: 6 * c.Unit(), StopWithin: 2 * c.Unit(), Backoff: time.Millisecond}
	e := &terms{c: c}
	key := c.Key("e")
	stay := c.Unit()
	ctx, cancel := context.WithCancel(c.Ctx)
	c.OnClose(func(context.Context) { cancel() })
	type candidate struct {
		*client
		stop context.CancelFunc
		done <-chan struct{}
	}
	start := func() *candidate {
		k := &candidate{client: c.client()}
		var mine context.Context
		mine, k.stop = context.WithCancel(ctx)
		k.done = c.Spawn(func() {
			err := elect.Run(mine, k.l, key, e.lead(k.name, stay), o)
			c.Must(errors.Is(err, context.Canceled), "Run ends with its ctx", "%v", err)
		})
		return k
	}
	await := func(n int32, what string) {
		end := time.Now().Add(c.Limit() + 2*o.TTL)
		for e.n.Load() < n {
			if time.Now().After(end) {
				c.Fatal("another one leads after "+what, "nobody does")
			}
			c.Sleep(c.Unit() / 10)
		}
	}
	// Who leads is the one who came first.
	first := start()
	await(1, "the first came")
	others := []*candidate{start(), start()}
	c.Settle()
	c.Sleep(o.TTL) // it leads on
	c.Must(e.n.Load() == 1, "a leader in good health leads on", "there were %d terms", e.n.Load())

	first.stop() // a shutdown
	c.Await(first.done, c.Limit(), "Run returns")
	await(2, "a shutdown")
	// A leader that is cut off stops before its lease ends.
	for _, k := range others {
		k.tap.Down()
		if e.now.Load() == 0 {
			c.Fatal("somebody leads", "nobody does")
		}
		c.Sleep(o.TTL + c.HandOver())
		k.tap.Restore()
		c.Sleep(2 * c.Unit())
	}
	await(3, "an outage of each")
	cancel()
	for _, k := range others {
		c.Await(k.done, c.Limit(), "Run returns")
	}
	b := c.client()
	h, err := b.lock(c.CtxFor(c.Limit()), key, locker.WithTTL(far), c.Polling())
	c.OK(err, "Lock of the election's key when all have ended")
	h.mustUnlock()
}

func leaderKnows(c *trial) {
	o := elect.Options{TTL: 6 * c.Unit(), StopWithin: 2 * c.Unit(), Backoff: 4 * c.Unit(), MaxBackoff: 4 * c.Unit(), Poll: c.Unit()}
	key := c.Key("e")
	a, b := c.client(), c.client()
	join := func(cl *client) *elect.Candidate {
		k, err := elect.NewCandidate(c.Ctx, cl.l, key, o)
		c.OK(err, "NewCandidate")
		c.OnClose(func(ctx context.Context) { _ = k.Close(ctx) })
		return k
	}
	await := func(k *elect.Candidate, within time.Duration, what string) time.Time {
		end := time.Now().Add(within)
		for !k.IsLeader() {
			if time.Now().After(end) {
				c.Fatal("the other candidate leads within "+within.String()+" of "+what, "it does not")
			}
			c.Sleep(c.Unit() / 50)
		}
		return time.Now()
	}
	first := join(a)
	await(first, c.Limit(), "its coming")
	token := first.Term().Token()
	second := join(b)
	c.Settle()
	c.Must(!second.IsLeader(), "one leader", "there are two")
	if who, ok, err := second.Leader(c.CtxFor(c.Limit())); !errors.Is(err, locker.ErrUnsupported) {
		c.OK(err, "Leader")
		c.Must(ok && who.Token == token, "Leader says who leads", "%v, %v; the token is %d", who, ok, token)
	}
	c.OK(first.Resign(c.CtxFor(c.Limit())), "Resign")
	c.Must(!first.IsLeader(), "who resigned does not lead", "it does")
	await(second, c.HandOver()+o.Backoff/2, "the resignation")
	c.Must(second.Term().Token() > token, "tokens rise by term", "%d after %d", second.Term().Token(), token)

	// The loss is known at once; until then it leads.
	c.Must(second.IsLeader(), "the successor leads on", "it does not")
	term := second.Term()
	b.tap.Lose(key)
	c.Must(!term.Leads(), "a term does not go on from the instant of the loss on", "it does")
	if next := second.Term(); next != nil { // it may have the lock again already
		c.Must(next.Token() > term.Token(), "a candidate that leads after a loss has a new term", "its token is %d again", next.Token())
	}
	for _, k := range []*elect.Candidate{first, second} {
		c.OK(k.Close(c.CtxFor(c.Limit())), "Close of a candidate")
		c.Must(!k.IsLeader(), "who does not campaign does not lead", "it does")
		c.OK(k.Err(), "Err of a candidate that was closed")
	}
}

func leaderStops(c *trial) {
	reports := make(chan error, 8)
	o := elect.Options{TTL: 6 * c.Unit(), StopWithin: c.Unit(), OnOverrun: func(_ *elect.Term, cause error) { reports <- cause }}
	a, b := c.client(), c.client()
	key := c.Key("e")
	ctx, cancel := context.WithCancel(c.Ctx)
	c.OnClose(func(context.Context) { cancel() })
	leads, hang := make(chan struct{}), make(chan struct{})
	done := c.Spawn(func() {
		_ = elect.Run(ctx, a.l, key, func(context.Context, *elect.Term) error {
			close(leads)
			select {
			case <-hang:
			case <-c.Ctx.Done():
			}
			return nil
		}, o)
	})
	c.Await(leads, c.Limit(), "the only candidate leads")
	p := b.goLock(key, locker.WithTTL(far), c.Polling())
	cancel()
	stopped := time.Now()
	got := p.granted(o.StopWithin+o.TTL+c.Limit(), "the end of a leader that does not stop")
	c.Must(p.at.Sub(stopped) >= o.StopWithin, "a leader has StopWithin to stop", "it was overtaken after %s", p.at.Sub(stopped))
	c.Must(len(reports) == 1, "it is reported once", "%d times", len(reports))
	close(hang)
	c.Await(done, c.Limit(), "Run returns")
	c.Must(len(reports) == 1, "it is reported once", "%d times", len(reports))
	got.mustUnlock()
}
