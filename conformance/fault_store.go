package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// restartEmpty kills the store, for longer than a hold lasts or not. When it has forgotten everything, nobody can
// tell the others apart from the former holder any more: what is asked is that this one
// learns of it soon, and that its token gives it away until then.
func restartEmpty(c *trial, long bool) {
	a, b := c.near(), c.near()
	down := c.unit()
	if long {
		down += c.life()
	}
	f, sleeps := c.figures(), c.pulse()
	key, idle := c.key("wanted"), c.key("idle")
	opts := c.living()
	if c.leaf.kind == Lease && !long {
		opts = c.hold() // the end of its ttl shall not be what it learns from
		if !c.caps.Has.Has(driver.PromptLoss) {
			opts = []locker.Option{locker.WithTTL(2 * c.life())}
		}
	}
	h, alone := a.mustTry(key, opts...), a.mustTry(idle, opts...)
	ends := []*moment{c.moment(h.Done()), c.moment(alone.Done())}
	p := b.goLock(key, append(c.hold(), c.polling())...)
	c.settle()
	c.inject().Kill(c.t)
	killed := time.Now()
	c.hist.add("   (the store is killed)")
	c.sleep(down)
	c.must(!isClosed(p.done), "a waiter waits through the outage", "Lock returned: %v", p.outcome())
	c.inject().Restart(c.t)
	back := time.Now()
	c.hist.add("   (the store is back, empty)")

	got := p.granted(c.recovery(), "the store came back")
	f.add(proceeded, got.at.Sub(back))
	within := c.recovery()
	if !c.caps.Has.Has(driver.PromptLoss) {
		within = 2 * c.life()
	}
	for i, h := range []*hold{h, alone} {
		c.await(ends[i].seen, within, "Done closes after the store came back empty")
		c.is(h.Err(), locker.ErrLost, "the Err of a hold that the store has forgotten")
		f.add("holder noticed, after the store came back, after", ends[i].at.Sub(back))
	}
	if long && (c.leaf.kind == Lease || c.caps.SessionValidity > 0) {
		f.add(believed, c.overtaken(h, ends[0], got, sleeps))
		late := ends[1].at.Sub(killed.Add(c.life()))
		c.must(late <= c.prompt()+sleeps.longest(), fmt.Sprintf("Done closes no more than %s after the store has died", c.life()), "%s later", late)
	} else {
		f.add(believed+" in the empty store", ends[0].at.Sub(got.at))
	}
	if c.caps.Has.Has(driver.TokensSurviveDataLoss) {
		c.must(got.Token() > h.Token(), "the token tells the new holder from the former one", "%d after %d", got.Token(), h.Token())
	}
	c.is(h.unlock(), locker.ErrLost, "Unlock of a hold that the store has forgotten")
	c.settle()
	got.mustLive(a)
	got.mustUnlock()
	for _, cl := range []*client{a, b} {
		cl.goLock(c.key("after"), append(c.hold(), c.polling())...).granted(c.recovery(), "the store came back").mustUnlock()
	}
	c.free(b, c.recovery(), key, idle, c.key("after"))
	c.tell(f)
}

func hungCore(c *trial) {
	a := c.client()
	hung(c, a, c.client(), func() { a.tap.all(hang) }, func() { a.tap.all(nil) })
}

func hungStore(c *trial) {
	hung(c, c.near(), c.near(),
		func() { c.inject().Pause(c.t) }, func() { c.inject().Resume(c.t) })
}

// hung calls everything that takes a ctx while nothing answers. b is not asked meanwhile.
func hung(c *trial, a, b *client, pause, resume func()) {
	f, sleeps := c.figures(), c.pulse()
	held, released := a.mustTry(c.key("held"), c.hold()...), a.mustTry(c.key("released"), c.hold()...)
	foreign := b.mustTry(c.key("foreign"), c.hold()...)
	patience := c.unit()
	waiting := a.goLockCtx(c.ctxFor(c.unit()+c.granularity()), foreign.Key(), append(c.hold(), c.polling())...)
	var closing *client
	if c.leaf.part == "store" {
		closing = c.near()
		closing.mustTry(c.key("closed"), c.hold()...)
	}
	c.settle()
	paused := time.Now()
	pause()
	c.hist.add("   (nothing answers any more)")

	cancelled := func() context.Context {
		ctx, cancel := context.WithCancel(c.ctx)
		c.onClose(func(context.Context) { cancel() })
		time.AfterFunc(patience, cancel)
		return ctx
	}
	expired := func() context.Context { return c.ctxFor(patience) }
	calls := []ctxCall{
		{"TryLock", expired, func(ctx context.Context) error { return second(a.tryCtx(ctx, c.key("try"), c.hold()...)) }},
		{"TryLock, cancelled,", cancelled, func(ctx context.Context) error { return second(a.tryCtx(ctx, c.key("try, cancelled"), c.hold()...)) }},
		{"Lock", expired, func(ctx context.Context) error {
			return second(a.lock(ctx, c.key("lock"), append(c.hold(), c.polling())...))
		}},
		{"Lock, cancelled,", cancelled, func(ctx context.Context) error {
			return second(a.lock(ctx, c.key("lock, cancelled"), append(c.hold(), c.polling())...))
		}},
		{"Unlock", expired, released.unlockCtx},
		{"Extend", expired, func(ctx context.Context) error { return held.extendCtx(ctx, far) }},
	}
	if c.leaf.part == "store" { // these do not go through the tap
		if p, ok := driver.As[driver.Pinger](a.tap.inner); ok {
			calls = append(calls, ctxCall{"Ping", expired, p.Ping})
		}
		if i, ok := driver.As[driver.Inspector](a.tap.inner); ok {
			calls = append(calls, ctxCall{"Inspect", expired, func(ctx context.Context) error {
				_, _, err := i.Inspect(ctx, foreign.Key())
				return err
			}})
		}
	}
	closed := c.spawn(func() {
		if closing == nil {
			return
		}
		err := closing.l.Close(expired())
		left := time.Since(paused.Add(patience))
		f.add("Close ended, after its ctx, after", left)
		c.check(err != nil, "Close says that it could not release a hold when nothing answers", "nil")
		// What is under way then has a second to end.
		c.check(left <= time.Second+c.prompt()+sleeps.longest(), "Close ends soon after its ctx when nothing answers", "%s after", left)
	})
	c.together(len(calls), func(i int) {
		call := calls[i]
		if call.what == "Extend" && c.leaf.kind == Session {
			return
		}
		ctx := call.ctx()
		err := call.call(ctx)
		left := time.Since(paused.Add(patience))
		f.add("calls ended, after their ctx, after", left)
		c.check(ctx.Err() != nil && errors.Is(err, ctx.Err()), call.what+" ends with its ctx's error when nothing answers", "%v, after %s", err, time.Since(paused))
		c.check(errors.Is(err, locker.ErrUnavailable), call.what+" says that the backend is unavailable when nothing answers", "%v", err)
		c.check(!errors.Is(err, locker.ErrHeld), call.what+" does not say that somebody holds the key when nothing answers", "%v", err)
		c.check(left <= c.prompt()+sleeps.longest(), fmt.Sprintf("%s ends no more than %s after its ctx when nothing answers", call.what, c.prompt()), "%s after", left)
	})
	c.await(closed, c.limit(), "Close ends when nothing answers")
	err := waiting.refused(c.prompt()+c.granularity()+sleeps.longest(), "the end of its ctx, when nothing answers any more")
	c.is(err, context.DeadlineExceeded, "a Lock that was waiting when the store began to hang")

	resume()
	c.hist.add("   (it answers again)")
	pausedFor := time.Since(paused)
	if c.leaf.kind == Lease || c.caps.SessionValidity == 0 || pausedFor < c.caps.SessionValidity/2 {
		c.ok(held.Err(), "a hold that outlasts the silence (of %s): Err", pausedFor)
		b.mustHeld(held.Key(), c.hold()...)
		held.mustUnlock()
	}
	foreign.mustUnlock()
	f.add("tried keys free after", c.free(b, c.recovery(), c.key("try"), c.key("try, cancelled"), c.key("lock"), c.key("lock, cancelled"), released.Key(), foreign.Key(), held.Key()))
	c.tell(f)
}

type ctxCall struct {
	what string
	ctx  func() context.Context
	call func(context.Context) error
}

func second[T any](_ T, err error) error { return err }
