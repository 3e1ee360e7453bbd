package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var multiCases = []Case{
	{ID: "MULTI-001", Kinds: both, CoreLoop: true, fn: allOrNothing, Clause: "LockAll takes all keys or none, each once, with a token each; what it could not complete it leaves free", Parts: []Part{
		{Name: "one-step", Needs: []Need{needsTogether}, fn: oneStep},
		{Name: "one-step-refused", Needs: []Need{needsTogether}, fn: oneStepRefused},
		{Name: "one-step-unknown", Needs: []Need{needsTogether}, fn: oneStepUnknown},
		{Name: "one-step-unknown-line", Needs: []Need{needsTogether, needsLine}, fn: oneStepUnknownOnLine},
		{Name: "one-step-late", Needs: []Need{needsTogether, needsLine}, fn: oneStepLate},
		{Name: "not-in-one-step", Needs: []Need{needsTogether}, fn: notInOneStep},
	}},
	{ID: "MULTI-002", Kinds: both, fn: allInOrder, Clause: "callers of LockAll whose keys overlap never wait for each other for ever"},
	{ID: "MULTI-003", Kinds: both, fn: firstLossEndsAll, Clause: "the first loss ends all holds of a LockAll; what remains stays taken until Unlock or its time", Parts: []Part{
		{Name: "one-step", Needs: []Need{needsTogether, needCapability(driver.PromptLoss), needsDelete}, fn: oneStepLoss},
	}},
	{ID: "MULTI-004", fn: allEndTogether, Clause: "the leases of a LockAll end at one time, however long the last key was waited for; Unlock frees them in reverse order", Parts: []Part{
		{Name: "one-step", Needs: []Need{needsTogether}, fn: oneStepEnds},
	}},
	{ID: "FAM-001", fn: familiesApart, Clause: "no two families share a key, and no two members of one; their events carry the family's label"},
}

// lockAll takes keys.
func (cl *client) lockAll(ctx context.Context, keys []string, opts ...locker.Option) (*locker.Leases, error) {
	all, err := cl.l.LockAll(ctx, keys, opts...)
	cl.c.Hist.Add("%s  LockAll %d keys → %v", cl.name, len(keys), err)
	return all, err
}

func allOrNothing(c *trial) {
	a, b := c.client(), c.client()
	x, y, z := c.Key("x"), c.Key("y"), c.Key("z")
	all, err := a.lockAll(c.CtxFor(c.Limit()), []string{z, x, y, x}, c.hold()...)
	c.OK(err, "LockAll of three free keys, one of them twice,")
	want := []string{x, y, z}
	slices.Sort(want)
	c.Must(slices.Equal(all.Keys(), want), "Keys are the three, in order", "%q", all.Keys())
	for _, key := range want {
		c.Must(all.Token(key) > 0, "each key has a token", "%q has none", key)
		b.mustHeld(key, c.hold()...)
	}
	c.OK(all.Err(), "Err while all last")
	first := all.Token(y)
	c.OK(all.Unlock(c.CtxFor(c.Limit())), "Unlock of all")
	for _, key := range want {
		h := b.mustTry(key, c.hold()...)
		c.Must(key != y || h.Token() > first, "tokens rise", "%d after %d", h.Token(), first)
		h.mustUnlock()
	}

	// One of them is held: the others are free again.
	held := b.mustTry(y, c.hold()...)
	patience := locker.WithRetry(locker.Retry{Attempts: 1, Delay: c.Unit() / 4})
	_, err = a.lockAll(c.CtxFor(c.Limit()), want, append(c.hold(), patience)...)
	c.Is(err, locker.ErrHeld, "LockAll while one of the keys is held")
	_, err = a.lockAll(c.CtxFor(c.Unit()), want, append(c.hold(), c.Polling())...)
	c.Is(err, locker.ErrHeld, "LockAll whose ctx ends")
	c.Is(err, context.DeadlineExceeded, "LockAll whose ctx ends")
	for _, key := range []string{x, z} {
		b.mustTry(key, c.hold()...).mustUnlock()
	}
	held.mustUnlock()

	// Nothing is tried with a key that is none.
	calls := a.tap.Count()
	_, err = a.lockAll(c.Ctx, []string{x, ""}, c.hold()...)
	c.Is(err, locker.ErrInvalidKey, "LockAll with an empty key")
	_, err = a.lockAll(c.Ctx, nil, c.hold()...)
	c.Is(err, locker.ErrInvalidKey, "LockAll of no keys")
	c.Must(a.tap.Count() == calls, "no call for keys that are none", "%d calls", a.tap.Count()-calls)
}

func allInOrder(c *trial) {
	clients := []*client{c.client(), c.client()}
	keys := make([]string, 4)
	inside := make([]atomic.Int32, len(keys))
	for i := range keys {
		keys[i] = c.Key(fmt.Sprint(i))
	}
	opposed(c, clients, keys[0], keys[1])
	rounds := c.Rounds(30, 6)
	c.Together(6, func(i int) {
		cl := clients[i%2]
		for n := range rounds {
			// Each in an order of its own.
			mine := []int{(i + n) % 4, (i + n + 1 + n%3) % 4}
			if i%2 == 1 {
				slices.Reverse(mine)
			}
			all, err := cl.lockAll(c.CtxFor(2*c.Limit()), []string{keys[mine[0]], keys[mine[1]]}, append(c.hold(), c.Polling())...)
			claim := c.Claim(c.ID)
			if errors.Is(err, locker.ErrLost) { // nobody ended what it held, but one who was granted it as well
				claim = c.Claim("MX-001")
			}
			claim.OK(err, "LockAll of keys that others want too, in another order,")
			for _, k := range mine {
				c.Must(inside[k].Add(1) == 1, "one holder of each key at a time", "there are more")
			}
			for _, k := range mine {
				inside[k].Add(-1)
			}
			c.OK(all.Unlock(c.CtxFor(c.Limit())), "Unlock of all")
		}
	})
}

// opposed has two callers wait for their first key of two, named in opposite orders, and then
// frees both keys at the worst time: were each to take the one that it named first, neither would
// ever get the other. The crowd of allInOrder meets that by chance alone.
func opposed(c *trial, clients []*client, x, y string) {
	holder := c.client()
	hx, hy := holder.mustTry(x, c.hold()...), holder.mustTry(y, c.hold()...)
	var ends []<-chan struct{}
	for i, cl := range clients {
		mine := []string{x, y}
		if i%2 == 1 {
			slices.Reverse(mine)
		}
		ends = append(ends, c.Spawn(func() {
			all, err := cl.lockAll(c.CtxFor(2*c.Limit()), mine, append(c.hold(), c.Polling())...)
			c.OK(err, "LockAll of two keys that another caller names in the opposite order")
			c.OK(all.Unlock(c.CtxFor(c.Limit())), "Unlock of all")
		}))
	}
	c.Settle()
	hy.mustUnlock()
	c.Settle()
	hx.mustUnlock()
	for _, end := range ends {
		c.Await(end, 3*c.Limit(), "both callers have had their two keys")
	}
}

func firstLossEndsAll(c *trial) {
	a, b := c.client(), c.client()
	x, y, z := c.Key("x"), c.Key("y"), c.Key("z")
	all, err := a.lockAll(c.CtxFor(c.Limit()), []string{x, y, z}, c.hold()...)
	c.OK(err, "LockAll of three free keys")
	ctx, cancel := all.Context(c.Ctx)
	c.OnClose(func(context.Context) { cancel() })
	a.tap.Lose(y)
	c.Await(ctx.Done(), c.Prompt(), "the ctx of all ends with the loss of one")
	c.Is(context.Cause(ctx), locker.ErrLost, "the cause of the ctx of all")
	c.Is(all.Err(), locker.ErrLost, "the Err of all")
	var e *locker.Error
	c.Must(errors.As(all.Err(), &e) && e.Key == y, "Err names the key that was lost", "%v", all.Err())
	c.Must(harness.IsClosed(all.Done()), "Done is closed", "it is open")
	c.Settle()
	for _, key := range []string{x, z} {
		b.mustHeld(key, c.hold()...) // its holder may still be stopping
	}
	c.Is(all.Unlock(c.CtxFor(c.Limit())), locker.ErrLost, "Unlock after the loss of one")
	for _, key := range []string{x, z} {
		p := b.goLock(key, append(c.hold(), c.Polling())...)
		p.granted(c.HandOver()+c.Limit(), "the Unlock of what remained").mustUnlock()
	}
}

func allEndTogether(c *trial) {
	a, b := c.client(), c.client()
	ttl := 4 * c.Unit()
	x, y := c.Key("x"), c.Key("y")
	if x > y {
		x, y = y, x
	}
	b.mustTry(y, locker.WithTTL(3*ttl))
	all, err := a.lockAll(c.CtxFor(c.Limit()+4*ttl), []string{y, x}, locker.WithTTL(ttl), c.Polling())
	c.OK(err, "LockAll that waits for longer than its ttl")
	c.OK(all.Err(), "Err of what LockAll has just returned")
	left, ok := all.Deadline()
	c.Must(ok && time.Until(left) > ttl/2, "all leases have most of their ttl left", "the first has %s of %s", time.Until(left), ttl)
	b.mustHeld(x, locker.WithTTL(far))
	// Nobody keeps them any more.
	ended := c.Moment(all.Done())
	c.Await(ended.Seen, ttl+c.Limit(), "leases that are not kept end")
	c.Must(ended.At.Before(left.Add(c.Prompt())), "they end at their deadline", "%s later", ended.At.Sub(left))
	c.Sleep(time.Until(left.Add(ttl/2 + c.Prompt())))

	all, err = a.lockAll(c.CtxFor(c.Limit()), []string{y, x}, locker.WithTTL(far))
	c.OK(err, "LockAll of two free keys")
	p := b.goLock(x, locker.WithTTL(far), c.Polling())
	c.Settle()
	c.OK(all.Unlock(c.CtxFor(c.Limit())), "Unlock of all")
	got := p.granted(c.HandOver(), "the Unlock of all")
	b.mustTry(y, locker.WithTTL(far)).mustUnlock() // the key that was taken last is free first
	got.mustUnlock()
}

func familiesApart(c *trial) {
	labels := make(chan string, 64)
	a := c.clientWith(locker.Config{Observer: locker.ObserverFunc(func(_ context.Context, e locker.Event) {
		select {
		case labels <- e.Label:
		default:
		}
	})})
	prefix := strings.ReplaceAll(c.Key(""), "/", " ")
	one := locker.NewFamily[string](prefix+"one", locker.WithTTL(far))
	two := locker.NewFamily[string](prefix+"on", locker.WithTTL(far))
	num := locker.NewFamily[int64](prefix+"num", locker.WithTTL(far))
	var held []*locker.Lease
	take := func(s *locker.Lease, err error) {
		c.OK(err, "TryLock of a member of a family that nobody holds")
		held = append(held, s)
	}
	ctx := c.CtxFor(c.Limit())
	for _, k := range []string{"", "e", "/", "e/", "\x00", "1"} {
		take(one.TryLock(ctx, a.l, k))
		take(two.TryLock(ctx, a.l, k))
	}
	for _, k := range []int64{1, -1, 11, 0} {
		take(num.TryLock(ctx, a.l, k))
	}
	_, err := one.TryLock(ctx, a.l, "e")
	c.Is(err, locker.ErrHeld, "TryLock of a member that is held")
	c.Must((<-labels) == one.Name(), "the events carry the family's label", "they do not")
	for _, s := range held {
		c.OK(s.Unlock(ctx), "Unlock")
	}
	_, err = locker.NewFamily[string]("a/b").TryLock(ctx, a.l, "c")
	c.Is(err, locker.ErrInvalidKey, "TryLock in a family whose name holds a slash")
}
