package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/once"
)

var onceCases = []Case{
	{ID: "ONCE-001", fn: oncePerSlot, Parts: []Part{{Name: "run-lost", Needs: []Need{needsDelete}, fn: onceRunLost}}, Clause: "of all callers of a slot one runs the job; the others learn that it runs, or is done"},
	{ID: "ONCE-002", fn: onceStaysDone, Clause: "a slot stays done for AtLeast, however short the job was, and although the process that did it has ended"},
	{ID: "ONCE-003", fn: onceFailed, Clause: "a job that failed may be done by the next caller, unless a failure counts as done"},
	{ID: "ONCE-004", fn: onceFilled, Clause: "Fill has one caller compute a value and the others wait for it; after a failure nobody tries again for Pause"},
}

func noJob(context.Context, *locker.Lease) error { return nil }

func oncePerSlot(c *trial) {
	clients := []*client{c.client(), c.client(), c.client()}
	slots := c.Rounds(20, 6)
	ran := make([]atomic.Int32, slots)
	name := c.Key("job")
	c.Together(9, func(i int) {
		cl := clients[i%len(clients)]
		for slot := range slots {
			err := once.Do(c.CtxFor(c.Limit()), cl.l, name, fmt.Sprint(slot), func(context.Context, *locker.Lease) error {
				ran[slot].Add(1)
				return nil
			}, once.AtLeast(far))
			c.Hist.Add("%s  once %d → %v", cl.name, slot, err)
			if err != nil && !errors.Is(err, once.ErrRunning) && !errors.Is(err, once.ErrDone) {
				c.Fatal("Do gives nil, ErrRunning or ErrDone", "%v", err)
			}
		}
	})
	for slot := range ran {
		c.Must(ran[slot].Load() == 1, "each slot's job runs once", "that of slot %d ran %d times", slot, ran[slot].Load())
	}
	// While it runs, the others are told so.
	a, b := clients[0], clients[1]
	c.OK(once.Do(c.CtxFor(c.Limit()), a.l, name, "long", func(ctx context.Context, lease *locker.Lease) error {
		c.Must(lease.Token() > 0, "the job has a token", "it has none")
		c.Sleep(4 * c.Unit()) // longer than its locks
		err := once.Do(c.CtxFor(c.Limit()), b.l, name, "long", noJob)
		c.Is(err, once.ErrRunning, "Do while another one runs the job")
		c.OK(ctx.Err(), "the job's ctx")
		return nil
	}, once.TTL(2*c.Unit()), once.AtLeast(far)), "Do of a long job")
	c.Is(once.Do(c.CtxFor(c.Limit()), b.l, name, "long", noJob), once.ErrDone, "Do after the job")
}

// onceRunLost: a job loses only the key that says that it runs. The other one says that the slot is done, which it is
// not, whatever the job returns.
func onceRunLost(c *trial) {
	a, b := c.client(), c.client()
	name := c.Key("job")
	run := fmt.Sprintf("once-run/%d/%s/slot", len(name), name) // docs/command.md names it
	err := once.Do(c.CtxFor(2*c.Limit()), a.l, name, "slot", func(ctx context.Context, _ *locker.Lease) error {
		c.target.Delete(c.T, run)
		c.Hist.Add("   (an administrator deletes %s)", run)
		c.Await(ctx.Done(), c.Limit(), "the job's ctx ends when its key was deleted")
		return nil
	}, once.TTL(2*c.Unit()), once.AtLeast(far))
	c.Is(err, locker.ErrLost, "Do of a job that lost the key that says that it runs")
	c.OK(once.Do(c.CtxFor(c.Limit()), b.l, name, "slot", noJob), "Do of the slot, by the next caller")
}

func onceStaysDone(c *trial) {
	a, b := c.client(), c.client()
	name := c.Key("job")
	fire := time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)
	slots := once.Slots(time.Hour)
	d := 6 * c.Unit()
	c.OK(once.Do(c.CtxFor(c.Limit()), a.l, name, slots.At(fire), noJob, once.TTL(c.Unit()), once.AtLeast(d)), "Do of a slot that nobody has done")
	done := time.Now()
	c.OK(a.l.Close(c.CtxFor(c.Limit())), "Close")
	late := slots.At(fire.Add(2 * time.Second).In(time.FixedZone("", 3600))) // another clock, another zone
	for time.Since(done) < d-2*c.Unit() {
		err := once.Do(c.CtxFor(c.Limit()), b.l, name, late, noJob, once.TTL(c.Unit()))
		if time.Since(done) < d {
			c.Is(err, once.ErrDone, "Do of a slot that is done")
		}
		c.Sleep(c.Unit() / 2)
	}
	c.OK(once.Do(c.CtxFor(c.Limit()), b.l, name, slots.At(fire.Add(time.Hour)), noJob), "Do of the next slot")
	c.Sleep(time.Until(done.Add(d + c.Prompt())))
	c.OK(once.Do(c.CtxFor(c.Limit()), b.l, name, late, noJob), "Do when AtLeast is over")
}

func onceFailed(c *trial) {
	a, b := c.client(), c.client()
	name := c.Key("job")
	bad := errors.New("the job failed")
	fails := func(context.Context, *locker.Lease) error { return bad }
	c.Is(once.Do(c.CtxFor(c.Limit()), a.l, name, "s", fails), bad, "Do of a job that fails")
	c.OK(once.Do(c.CtxFor(c.Limit()), b.l, name, "s", noJob), "Do after a failure")
	c.Is(once.Do(c.CtxFor(c.Limit()), a.l, name, "s", fails), once.ErrDone, "Do after a success")
	c.Is(once.Do(c.CtxFor(c.Limit()), a.l, name, "t", fails, once.FailedIsDone()), bad, "Do of a job that fails")
	c.Is(once.Do(c.CtxFor(c.Limit()), b.l, name, "t", noJob), once.ErrDone, "Do after a failure that counts")
	// A panic is a failure, and leaves nothing.
	func() {
		defer func() { c.Must(recover() == "x", "the panic goes on", "it does not") }()
		_ = once.Do(c.CtxFor(c.Limit()), a.l, name, "u", func(context.Context, *locker.Lease) error { panic("x") })
	}()
	c.OK(once.Do(c.CtxFor(c.Limit()), b.l, name, "u", noJob), "Do after a panic")
}

func onceFilled(c *trial) {
	clients := []*client{c.client(), c.client()}
	key := c.Key("value")
	var cached, filled, failures, bad atomic.Int32
	var lastFail atomic.Int64
	pause := 2 * c.Unit()
	run := func() {
		c.Together(6, func(i int) {
			v, err := once.Fill(c.CtxFor(3*c.Limit()), clients[i%2].l, key,
				func(context.Context) (int32, bool, error) { v := cached.Load(); return v, v != 0, nil },
				func(context.Context, *locker.Lease) (int32, error) {
					if at := lastFail.Load(); at != 0 {
						since := time.Since(time.Unix(0, at))
						c.Must(since >= pause-c.Granularity(), "after a failure nobody tries again for Pause", "somebody did after %s of %s", since, pause)
					}
					c.Must(cached.Load() == 0, "nobody computes what is there already", "somebody does")
					c.Sleep(c.Unit() / 2)
					filled.Add(1)
					if failures.Add(-1) >= 0 {
						lastFail.Store(time.Now().UnixNano())
						return 0, errors.New("the source is down")
					}
					cached.Store(42)
					return 42, nil
				}, once.Pause(pause))
			if err != nil {
				bad.Add(1)
				return
			}
			c.Must(v == 42, "all get the value", "one got %d", v)
		})
	}
	run()
	c.Must(filled.Load() == 1 && bad.Load() == 0, "one computes", "%d did, %d failed", filled.Load(), bad.Load())
	cached.Store(0)
	filled.Store(0)
	failures.Store(1)
	run()
	c.Must(filled.Load() == 2 && bad.Load() == 1, "one computes after another's failure", "%d computed, %d failed", filled.Load(), bad.Load())
}
