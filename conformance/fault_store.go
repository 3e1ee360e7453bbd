package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// restartEmpty kills the store, for longer than a hold lasts or not. When it has forgotten everything, nobody can
// tell the others apart from the former holder any more: what is asked is that this one
// learns of it soon, and that its token gives it away until then.
func restartEmpty(c *trial, long bool) {
	a, b := c.near(), c.near()
	down := c.Unit()
	if long {
		down += c.life()
	}
	f, sleeps := c.figures(), c.pulse()
	key, idle := c.Key("wanted"), c.Key("idle")
	opts := c.living()
	if c.leaf.kind == Lease && !long {
		opts = c.hold() // the end of its ttl shall not be what it learns from
		if !c.Caps.Has.Has(driver.PromptLoss) {
			opts = []locker.Option{locker.WithTTL(2 * c.life())}
		}
	}
	h, alone := a.mustTry(key, opts...), a.mustTry(idle, opts...)
	ends := []*harness.Moment{c.Moment(h.Done()), c.Moment(alone.Done())}
	p := b.goLock(key, append(c.hold(), c.Polling())...)
	c.Settle()
	restart := c.dies()
	killed := time.Now()
	c.Sleep(down)
	c.Must(!harness.IsClosed(p.done), "a waiter waits through the outage", "Lock returned: %v", p.outcome())
	restart()
	back := time.Now()

	got := p.granted(c.recovery(), "the store came back")
	f.add(proceeded, got.at.Sub(back))
	within := c.recovery()
	if !c.Caps.Has.Has(driver.PromptLoss) {
		within = 2 * c.life()
	}
	for i, h := range []*hold{h, alone} {
		c.Await(ends[i].Seen, within, "Done closes after the store came back empty")
		c.Is(h.Err(), locker.ErrLost, "the Err of a hold that the store has forgotten")
		f.add("holder noticed, after the store came back, after", ends[i].At.Sub(back))
	}
	if long && (c.leaf.kind == Lease || c.Caps.SessionValidity > 0) {
		f.add(believed, c.overtaken(h, ends[0], got, sleeps))
		late := ends[1].At.Sub(killed.Add(c.life()))
		c.Must(late <= c.Prompt()+sleeps.longest(), fmt.Sprintf("Done closes no more than %s after the store has died", c.life()), "%s later", late)
	} else {
		f.add(believed+" in the empty store", ends[0].At.Sub(got.at))
	}
	if c.Caps.Has.Has(driver.TokensSurviveDataLoss) {
		c.Must(got.Token() > h.Token(), "the token tells the new holder from the former one", "%d after %d", got.Token(), h.Token())
	}
	c.Is(h.unlock(), locker.ErrLost, "Unlock of a hold that the store has forgotten")
	c.Settle()
	got.mustLive(a)
	got.mustUnlock()
	for _, cl := range []*client{a, b} {
		cl.goLock(c.Key("after"), append(c.hold(), c.Polling())...).granted(c.recovery(), "the store came back").mustUnlock()
	}
	c.free(b, c.recovery(), key, idle, c.Key("after"))
	c.tell(f)
}

func hungCore(c *trial) {
	a := c.client()
	hung(c, a, c.client(), func() func() {
		a.tap.All(harness.Hang)
		return func() { a.tap.All(nil) }
	})
}

func hungStore(c *trial) {
	hung(c, c.near(), c.near(), c.stalls)
}

// hung calls everything that takes a ctx while nothing answers. b is not asked meanwhile.
func hung(c *trial, a, b *client, stall func() (goOn func())) {
	f, sleeps := c.figures(), c.pulse()
	held, released := a.mustTry(c.Key("held"), c.hold()...), a.mustTry(c.Key("released"), c.hold()...)
	foreign := b.mustTry(c.Key("foreign"), c.hold()...)
	patience := c.Unit()
	waiting := a.goLockCtx(c.CtxFor(c.Unit()+c.Granularity()), foreign.Key(), append(c.hold(), c.Polling())...)
	var closing *client
	var first *pending
	if c.leaf.part == "store" {
		closing = c.near()
		closing.mustTry(c.Key("closed"), c.hold()...)
	}
	c.Settle()
	paused := time.Now()
	goOn := stall()
	c.Hist.Add("   (nothing answers any more)")

	expired := func() context.Context { return c.CtxFor(patience) }
	calls := c.boundedCalls(a, held, released, foreign.Key(), patience)
	closed := c.Spawn(func() {
		if closing == nil {
			return
		}
		first = closing.goLockCtx(context.Background(), c.Key("first"), append(c.hold(), c.Polling())...)
		c.Settle()
		err := closing.l.Close(expired())
		left := time.Since(paused.Add(patience))
		f.add("Close ended, after its ctx, after", left)
		c.Check(err != nil, "Close says that it could not release a hold when nothing answers", "nil")
		// What is under way then has a second to end.
		c.Check(left <= time.Second+c.Prompt()+sleeps.longest(), "Close ends soon after its ctx when nothing answers", "%s after", left)
	})
	bounded := func(call ctxCall, connected bool) {
		if call.what == "Extend" && c.leaf.kind == Session {
			return
		}
		began := time.Now()
		ctx := call.ctx()
		err := call.call(ctx)
		left := time.Since(began.Add(patience))
		f.add("calls ended, after their ctx, after", left)
		if connected || ctx.Err() != nil {
			c.Check(ctx.Err() != nil && errors.Is(err, ctx.Err()), call.what+" ends with its ctx's error when nothing answers", "%v, after %s", err, time.Since(paused))
		} else {
			// It was told that there is no connection.
			c.Check(err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled), call.what+" ends with no ctx's error but its own", "%v", err)
		}
		c.Check(errors.Is(err, locker.ErrUnavailable), call.what+" says that the backend is unavailable when nothing answers", "%v", err)
		c.Claim("ERR-002").Must(!errors.Is(err, locker.ErrHeld), call.what+" does not say that somebody holds the key when nothing answers", "%v", err)
		c.Check(left <= c.Prompt()+sleeps.longest(), fmt.Sprintf("%s ends no more than %s after its ctx when nothing answers", call.what, c.Prompt()), "%s after", left)
	}
	c.Together(len(calls), func(i int) { bounded(calls[i], true) })
	c.Await(closed, c.Limit(), "Close ends when nothing answers")
	if first != nil {
		claim := c.Claim("CLO-002")
		err := first.refusedBy(claim, c.Prompt()+sleeps.longest(), "Close, when nothing answers its first attempt")
		claim.Is(err, locker.ErrClosed, "a Lock whose first attempt nothing answers, after Close,")
	}
	err := waiting.refused(c.Prompt()+c.Granularity()+sleeps.longest(), "the end of its ctx, when nothing answers any more")
	c.Is(err, context.DeadlineExceeded, "a Lock that was waiting when the store began to hang")
	if c.leaf.part == "store" && c.inject().Silence > 0 {
		c.Sleep(c.inject().Silence - time.Since(paused) + c.Unit())
		c.Hist.Add("   (connections have been given up)")
		c.Together(len(calls), func(i int) {
			if calls[i].what != "Unlock" { // its hold has ended; a session's may be lost by now
				bounded(calls[i], false)
			}
		})
	}

	goOn()
	c.Hist.Add("   (it answers again)")
	pausedFor := time.Since(paused)
	if c.leaf.kind == Lease || c.Caps.SessionValidity == 0 || pausedFor < c.Caps.SessionValidity/2 {
		c.OK(held.Err(), "a hold that outlasts the silence (of %s): Err", pausedFor)
		b.mustHeld(held.Key(), c.hold()...)
		held.mustUnlock()
	} else {
		_ = held.unlock() // the session may have survived all the same
	}
	if c.leaf.kind == Lease || c.Caps.SessionValidity == 0 || pausedFor < c.Caps.SessionValidity/2 {
		foreign.mustUnlock()
	} else {
		_ = foreign.unlock() // it may be lost
	}
	f.add("tried keys free after", c.free(b, c.recovery(), c.Key("try"), c.Key("try, cancelled"), c.Key("lock"), c.Key("lock, cancelled"), released.Key(), foreign.Key(), held.Key()))
	c.tell(f)
}

// unknownToHung: who holds a key, and whether anybody does, nobody knows while nothing answers, however well it was known a moment ago.
func unknownToHung(c *trial) {
	a, b := c.near(), c.near()
	own, foreign, free := a.mustTry(c.Key("own"), c.hold()...), b.mustTry(c.Key("foreign"), c.hold()...), c.Key("free")
	a.mustHeld(own.Key(), c.hold()...)
	a.mustHeld(foreign.Key(), c.hold()...)
	a.mustTry(free, c.hold()...).mustUnlock()
	goOn := c.stalls()
	opts := [][]locker.Option{{locker.WithTTL(far)}, nil} // one who asks for a lease or for a session
	var calls []func()
	for _, key := range []string{own.Key(), foreign.Key(), free} {
		for _, opts := range opts {
			calls = append(calls, func() {
				c.unavailable(second(a.tryCtx(c.CtxFor(c.Unit()), key, opts...)), "TryLock of "+c.Short(key), "nothing answers")
			}, func() {
				few := locker.WithRetry(locker.Retry{Attempts: 2, Delay: time.Millisecond, Jitter: locker.NoJitter})
				c.unavailable(second(a.lock(c.CtxFor(c.Unit()), key, append(slices.Clone(opts), few)...)), "Lock of "+c.Short(key), "nothing answers")
			})
		}
	}
	c.Together(len(calls), func(i int) { calls[i]() })
	goOn()
	_, _ = own.unlock(), foreign.unlock() // sessions may be lost
	c.free(b, c.recovery(), own.Key(), foreign.Key(), free)
}

// boundedCalls are all calls that take a ctx, each with one that ends after patience.
func (c *trial) boundedCalls(a *client, held, released *hold, foreign string, patience time.Duration) []ctxCall {
	cancelled := func() context.Context {
		ctx, cancel := context.WithCancel(c.Ctx)
		c.OnClose(func(context.Context) { cancel() })
		time.AfterFunc(patience, cancel)
		return ctx
	}
	expired := func() context.Context { return c.CtxFor(patience) }
	calls := []ctxCall{
		{"TryLock", expired, func(ctx context.Context) error { return second(a.tryCtx(ctx, c.Key("try"), c.hold()...)) }},
		{"TryLock, cancelled,", cancelled, func(ctx context.Context) error { return second(a.tryCtx(ctx, c.Key("try, cancelled"), c.hold()...)) }},
		{"TryLock of what the same client holds", expired, func(ctx context.Context) error { return second(a.tryCtx(ctx, held.Key(), c.hold()...)) }},
		{"Lock", expired, func(ctx context.Context) error {
			return second(a.lock(ctx, c.Key("lock"), append(c.hold(), c.Polling())...))
		}},
		{"Lock, cancelled,", cancelled, func(ctx context.Context) error {
			return second(a.lock(ctx, c.Key("lock, cancelled"), append(c.hold(), c.Polling())...))
		}},
		{"Unlock", expired, released.unlockCtx},
		{"Extend", expired, func(ctx context.Context) error { return held.extendCtx(ctx, far) }},
	}
	if c.leaf.part == "store" { // these do not go through the tap
		if p, ok := driver.As[driver.Pinger](a.tap.Inner); ok {
			calls = append(calls, ctxCall{"Ping", expired, p.Ping})
		}
		if i, ok := driver.As[driver.Inspector](a.tap.Inner); ok {
			calls = append(calls, ctxCall{"Inspect", expired, func(ctx context.Context) error {
				_, _, err := i.Inspect(ctx, foreign)
				return err
			}})
		}
	}
	return calls
}

type ctxCall struct {
	what string
	ctx  func() context.Context
	call func(context.Context) error
}

func second[T any](_ T, err error) error { return err }

// restartAlone: the store comes back empty, and nobody asks it for anything. What was held is over all the same.
func restartAlone(c *trial) {
	a, sleeps := c.near(), c.pulse()
	opts := c.living()
	if c.leaf.kind == Lease && c.Caps.Has.Has(driver.PromptLoss) {
		opts = c.hold() // the end of its ttl shall not be what it learns from
	}
	h, key := a.mustTry(c.Key("k"), opts...), c.Key("k")
	end := c.Moment(h.Done())
	const many = 600 // more than a client asks about at once
	crowd := make([]*hold, many)
	c.Together(20, func(i int) {
		for ; i < many; i += 20 {
			crowd[i] = a.mustTry(c.Key(fmt.Sprint("one of many ", i)), opts...)
		}
	})
	c.Settle()
	c.dies()()
	back, within := time.Now(), c.recovery()
	if !c.Caps.Has.Has(driver.PromptLoss) {
		within += c.life()
	}
	c.Await(end.Seen, within+c.Limit(), "Done closes after the store came back empty, though nobody else asks for anything")
	late := end.At.Sub(back)
	c.Must(late <= within+sleeps.longest(), fmt.Sprintf("Done closes no more than %s after the store came back empty, though nobody else asks for anything", within), "%s after", late)
	c.Is(h.Err(), locker.ErrLost, "the Err of a hold that the store has forgotten")
	for _, h := range crowd {
		c.Await(h.Done(), within+c.Limit(), "Done closes, of each of %d holds, after the store came back empty", many)
	}
	c.free(c.near(), c.recovery(), key)
}

// hungForLong: calls that have waited for long end with their ctx as well as those that have just begun.
func hungForLong(c *trial) {
	sleeps, ttl := c.pulse(), min(c.ttl(), c.Unit()) // what the store carries out afterwards is soon over
	var all []*raw
	for i := range 8 {
		x := c.nearRaw()
		x.take(c.Key(fmt.Sprint("first ", i)), c.ttl()).mustRelease() // what a first use costs is paid
		all = append(all, x)
	}
	goOn := c.stalls()
	c.Together(len(all), func(i int) {
		patience := time.Duration(i+1) * 300 * time.Millisecond
		ctx, cancel := context.WithTimeout(c.Ctx, patience)
		defer cancel()
		began := time.Now()
		life := ttl
		if c.leaf.kind == Session {
			life = 0
		}
		second := c.Spawn(func() { // somebody else of this process wants the same key, and has less time
			c.Sleep(patience / 4)
			ctx, cancel := context.WithTimeout(c.Ctx, patience/4)
			defer cancel()
			_, err := all[i].Acquire(ctx, driver.Request{Key: c.Key(fmt.Sprint(i)), Owner: c.Owner(), TTL: life, Hold: newRecorder()})
			late := time.Since(began.Add(patience / 2))
			c.Must(err != nil, "an Acquire of a key that another Acquire of its process waits for ends with an error when nothing answers", "nil")
			c.Check(late <= c.Prompt()+sleeps.longest(), fmt.Sprintf("an Acquire whose ctx ends after %s ends no more than %s after it when nothing answers, although another one of its process waits for the key for longer", patience/4, c.Prompt()), "%s after", late)
		})
		_, err := all[i].Acquire(ctx, driver.Request{Key: c.Key(fmt.Sprint(i)), Owner: c.Owner(), TTL: life, Hold: newRecorder()})
		late := time.Since(began.Add(patience))
		<-second
		c.Check(err != nil, "an Acquire ends with an error when nothing answers", "nil")
		c.Claim("ERR-002").Must(!errors.Is(err, driver.ErrHeld), "an Acquire of a free key does not say that it is held when nothing answers", "%v, after %s", err, patience)
		c.Check(late <= c.Prompt()+sleeps.longest(), fmt.Sprintf("an Acquire whose ctx ends after %s ends no more than %s after it when nothing answers", patience, c.Prompt()), "%s after", late)
	})
	goOn()
}
