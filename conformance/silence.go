package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// silenced is a client whose store can be made to stand still for it, and another client of that
// store: the one that faults happen to may be another than the target's, and keep its sessions
// for longer.
//
// Where slow is asked for, and the line can be slow, each renewal takes way, which is much more than a clock may drift.
// Otherwise cut closes the client's connections, if the line can.
func (c *trial) silenced(slow bool) (client, other *raw, way time.Duration, cut, silence func()) {
	if in := c.inject(); in != nil && in.Client != nil {
		r, line := c.distantRaw()
		if line.BlackHole != nil {
			other = c.nearRaw()
			if slow && line.Latency != nil {
				way = min(c.Caps.SessionValidity/20, 300*time.Millisecond)
				line.Latency(way)
			} else {
				cut = line.Cut
			}
			return r, other, way, cut, func() { line.BlackHole(true, true) }
		}
	}
	if c.target.Crash == nil {
		c.Skip("the target has neither Inject.Client nor Crash: that a session is not considered held for too long when its store is silent")
	}
	client, other = c.raw(), c.raw()
	return client, other, 0, nil, func() {
		c.target.Crash(c.T, client.inner)
		if _, err := client.acquire(c.Key("crashed"), c.Owner(), far); errors.Is(err, driver.ErrClosed) {
			c.Skip("the target's Crash is Close, and it has no Inject.Client: that a session is not considered held for too long when its store is silent")
		}
	}
}

// silentStore compares the moment at which the holder of a session hears that nobody can be sure
// of it any more with the moment at which somebody else gets the key, to the millisecond.
func silentStore(c *trial) {
	f := c.figures()
	rng := c.Rand()
	for round := range c.Rounds(8, 4) {
		x, y, way, cut, silence := c.silenced(round%2 == 1)
		if c.Caps.SessionValidity == 0 {
			c.Skip("the backend's sessions have no end of their own")
		}
		sleeps := c.pulse()
		after := time.Duration(rng.Int64N(int64(c.Caps.SessionValidity))) // at any moment between two renewals
		var g *grip
		if _, ok := driver.As[driver.Together](x.inner); ok && round%4 == 3 {
			all, _, err := x.askAll([]string{c.neighbour(fmt.Sprint(round, "x")), c.neighbour(fmt.Sprint(round, "y"))}, []driver.Owner{c.Owner(), c.Owner()}, 0)
			c.OK(err, "AcquireAll of two free keys")
			g, after = all[1], after/4 // it is not renewed by then
		} else if g = x.take(c.Key(fmt.Sprint(round)), 0); way > 0 {
			after = (after + c.Caps.SessionValidity) / 2 // it has been renewed by then
		}
		c.Sleep(after)
		if cut != nil {
			cut()
			c.Hist.Add("   (the holder's connections are cut)")
			c.Sleep(c.Caps.SessionValidity / 12) // it connects again, and may look at what it holds, which prolongs nothing
		}
		silence()
		c.Hist.Add("   (the store is silent for the holder)")
		began := time.Now()
		heard := make(chan time.Time, 1)
		c.Spawn(func() {
			select {
			case err := <-g.rec.heard:
				heard <- time.Now()
				c.Check(errors.Is(err, driver.ErrUnavailable), "what the holder hears is that the store is unavailable", "%v", err)
			case <-c.Ctx.Done():
			}
		})
		var next *grip
		for next == nil {
			got, err := y.acquire(g.req.Key, c.Owner(), far)
			if err == nil {
				next = got
				break
			}
			c.Is(err, driver.ErrHeld, "the driver's Acquire of another client")
			late := time.Since(began) - way - c.Caps.SessionValidity
			c.Claim("FLT-009").Must(late <= c.Prompt(), "the key of a session is free no later than its validity after the store has heard the last of it", "it is held %s after that", late)
			c.Sleep(max(time.Millisecond, c.Granularity()/40))
		}
		select {
		case at := <-heard:
			late := at.Sub(next.after)
			f.add(believed, late)
			c.Must(late <= sleeps.longest(), "the holder of a session has heard of its end when somebody else gets the key", "it heard %s later (and nothing in this process was late by more than %s)", late, sleeps.longest())
		case <-time.After(c.Limit()):
			c.Fatal("the holder of a session hears of its end when its store is silent", "somebody else got the key, and %s later it had heard nothing", c.Limit())
		case <-c.Ctx.Done():
			return
		}
		next.mustRelease()
	}
	c.tell(f)
}

// distantRaw is distant without a core.
func (c *trial) distantRaw() (*raw, Line) {
	b, line := c.inject().Client(c.T)
	r := c.rawOf(c.NextName(), b)
	c.OnClose(func(context.Context) { line.Heal() }) // before the client is closed
	return r, line
}

// nearRaw is near without a core.
func (c *trial) nearRaw() *raw {
	in := c.inject()
	if in == nil || in.Open == nil {
		return c.raw()
	}
	b := in.Open(c.T)
	c.injected.Do(func() { c.Caps = b.Capabilities() })
	return c.rawOf(c.NextName(), b)
}
