package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// overtaken: an attempt is given up while it is under way, and taken back by a release that is
// quicker. Whichever comes to the store first, the key is free in the end, and stays so.
func overtaken(c *trial) {
	b := c.near()
	a, line := c.distant()
	c.can(line.Latency != nil, "Latency")
	d := a.tap.Inner
	a.mustTry(c.Key("first"), c.hold()...).mustUnlock() // what a first use costs is paid
	const way = 250 * time.Millisecond
	for i, patience := range []time.Duration{way / 5, way / 2, way * 3 / 2} { // the last has arrived, but is not answered
		r := driver.Request{Key: c.Key(fmt.Sprint(i)), Owner: c.Owner(), TTL: c.ttl(), Hold: newRecorder()}
		line.Latency(way)
		ctx, cancel := context.WithTimeout(c.Ctx, patience)
		_, err := d.Acquire(ctx, r)
		cancel()
		c.Hist.Add("   the driver's Acquire of %s, %s each way, given up after %s → %v", c.Short(r.Key), way, patience, err)
		c.Must(err != nil && !errors.Is(err, driver.ErrHeld), "an Acquire whose ctx ends while it is under way gives an error", "%v", err)
		line.Latency(0) // from now on requests are quicker than those under way
		ctx, cancel = context.WithTimeout(c.Ctx, c.Limit())
		err = d.Release(ctx, driver.Holder{Key: r.Key, Owner: r.Owner, Session: r.TTL == 0})
		cancel()
		c.Hist.Add("   the driver's Release of it, without delay → %v", err)
		c.Must(err == nil || errors.Is(err, driver.ErrLost) || errors.Is(err, driver.ErrUnavailable), "the Release of what was given up gives nil, ErrLost or ErrUnavailable", "%v", err)
		if errors.Is(err, driver.ErrUnavailable) { // then the core would repeat it
			c.OK(ignoreLost(d.Release(c.CtxFor(c.Limit()), driver.Holder{Key: r.Key, Owner: r.Owner, Session: r.TTL == 0})), "a second Release")
		}
		c.Sleep(3 * way) // whatever is still under way arrives
		h := b.mustTry(r.Key, c.hold()...)
		h.mustLive()
		h.mustUnlock()
	}
}

// arrivesLate: attempts are given up while they are under way, and their connection breaks. The releases
// go over the next one, and are quicker. What arrives then has been taken back, whatever became of the key meanwhile.
func arrivesLate(c *trial) {
	b, x, y := c.near(), c.nearRaw(), c.nearRaw()
	a, line := c.distant()
	c.can(line.Latency != nil && line.Sever != nil, "Latency and Sever")
	d := a.tap.Inner
	a.mustTry(c.Key("first"), c.hold()...).mustUnlock()
	const way, late = 250 * time.Millisecond, 4 * 250 * time.Millisecond
	meanwhile := []func(key string){
		func(string) {},
		func(key string) { b.mustTry(key, c.hold()...).mustUnlock() },
		func(key string) { // from hand to hand, in one process
			h := b.mustTry(key, c.hold()...)
			for range 2 {
				p := b.goLock(key, append(c.hold(), c.Polling())...)
				c.Settle()
				h.mustUnlock()
				h = p.granted(c.HandOver(), "the release")
			}
			h.mustUnlock()
		},
		func(key string) { c.wornBy(x, y, key) },
	}
	for round := range 2 {
		requests := make([]driver.Request, len(meanwhile))
		line.Latency(way)
		sent := time.Now()
		c.Together(len(meanwhile), func(i int) {
			requests[i] = driver.Request{Key: c.Key(fmt.Sprint(round, " ", i)), Owner: c.Owner(), TTL: c.ttl(), Hold: newRecorder()}
			_, err := d.Acquire(c.CtxFor(way/5), requests[i])
			c.Must(err != nil && !errors.Is(err, driver.ErrHeld), "an Acquire whose ctx ends while it is under way gives an error", "%v", err)
		})
		line.Sever(late)
		line.Latency(0)
		c.Hist.Add("   (the connection of the driver's Acquires of %d keys breaks, and they are on their way for %s)", len(meanwhile), late)
		c.Together(len(meanwhile), func(i int) {
			r := requests[i]
			holder := driver.Holder{Key: r.Key, Owner: r.Owner, Session: r.TTL == 0}
			err := d.Release(c.CtxFor(way), holder)
			for errors.Is(err, driver.ErrUnavailable) && time.Since(sent) < late/2 {
				c.Sleep(c.Granularity()) // the core repeats it
				err = d.Release(c.CtxFor(way), holder)
			}
			c.Hist.Add("   the driver's Release of %s, which was given up, over another connection → %v", c.Short(r.Key), err)
			if time.Since(sent) >= late*3/4 {
				c.Note("the release was not quicker than the attempt")
				if errors.Is(err, driver.ErrUnavailable) { // a machine that stands still
					err = d.Release(c.CtxFor(c.Limit()), holder)
				}
			}
			c.OK(ignoreLost(err), "the Release of what was given up")
			meanwhile[i](r.Key)
		})
		c.Sleep(time.Until(sent.Add(late + way)))
		for _, r := range requests {
			b.mustTry(r.Key, c.hold()...).mustUnlock() // the attempt has arrived
		}
	}
}

// copyArrivesLate: the first attempt of a Lock is under way when its connection breaks. The repeat is granted and
// released, and then the first one arrives, of which the store must know that it is over.
func copyArrivesLate(c *trial) {
	b := c.near()
	const way, late = 250 * time.Millisecond, 4 * 250 * time.Millisecond
	c.Together(4, func(i int) {
		a, line := c.distant()
		c.can(line.Latency != nil && line.Sever != nil, "Latency and Sever")
		a.mustTry(c.Key(fmt.Sprint("first ", i)), c.hold()...).mustUnlock() // what a first use costs is paid
		line.Latency(way)
		sent := time.Now()
		p := a.goLock(c.Key(fmt.Sprint(i)), append(c.hold(), c.Polling())...)
		c.Sleep(way / 5)
		line.Sever(late)
		line.Latency(0)
		c.Hist.Add("%s  (its connection breaks, and what it has sent is on its way for %s)", a.name, late)
		h := p.granted(c.recovery()+late, "its first attempt did not arrive")
		h.mustLive(b)
		h.mustUnlock()
		if i%2 == 1 { // whoever has the key meanwhile leaves it as it was
			b.mustTry(h.Key(), c.hold()...).mustUnlock()
		}
		c.Sleep(time.Until(sent.Add(late + way)))
		b.mustTry(h.Key(), c.hold()...).mustUnlock() // the first attempt has arrived
	})
}

// oneStepLate is arrivesLate for several keys in one step. Each of them is taken back, or the last one
// alone: a step of which one key has been taken back takes none.
func oneStepLate(c *trial) {
	b := c.near()
	a, line := c.distant()
	c.can(line.Latency != nil && line.Sever != nil, "Latency and Sever")
	d := a.tap.Inner
	together, _ := driver.As[driver.Together](d)
	first, err := a.lockAll(c.CtxFor(c.Limit()), []string{c.neighbour("first"), c.neighbour("second")}, c.hold()...)
	c.OK(err, "LockAll of two free keys")
	c.OK(first.Unlock(c.CtxFor(c.Limit())), "Unlock of all")
	b.mustTry(c.neighbour("first"), c.hold()...).mustUnlock() // what a first use costs is paid
	const way, late = 250 * time.Millisecond, time.Second
	steps := make([][]driver.Request, 2)
	line.Latency(way)
	sent := time.Now()
	for n := range steps {
		for i := range 3 {
			steps[n] = append(steps[n], driver.Request{Key: c.neighbour(fmt.Sprint(n, " ", i)), Owner: c.Owner(), TTL: c.ttl(), Hold: newRecorder()})
		}
		ctx, cancel := context.WithTimeout(c.Ctx, way/8)
		_, _, err := together.AcquireAll(ctx, steps[n])
		cancel()
		c.Must(err != nil && !errors.Is(err, driver.ErrHeld), "an AcquireAll whose ctx ends while it is under way gives an error", "%v", err)
	}
	line.Sever(late)
	line.Latency(0)
	c.Hist.Add("   the driver's AcquireAll of three keys, twice, given up; its connection breaks, and it is on its way for %s", late)
	if time.Since(sent) >= way*3/4 {
		c.Note("the steps may have arrived before their connection broke")
		return
	}
	for _, r := range append(steps[0], steps[1][2]) {
		holder := driver.Holder{Key: r.Key, Owner: r.Owner, Session: r.TTL == 0}
		for err = d.Release(c.CtxFor(way), holder); errors.Is(err, driver.ErrUnavailable) && time.Since(sent) < late/2; {
			c.Sleep(c.Granularity()) // the core repeats it
			err = d.Release(c.CtxFor(way), holder)
		}
		if time.Since(sent) < late/2 {
			c.OK(ignoreLost(err), "the Release of what was given up")
		}
	}
	if time.Since(sent) >= late/2 {
		c.Note("the releases were not quicker than the steps")
		return // what was not taken back may rightly be held
	}
	c.Sleep(time.Until(sent.Add(late + way)))
	for _, r := range append(steps[0], steps[1]...) {
		b.mustTry(r.Key, c.hold()...).mustUnlock()
	}
}

func ignoreLost(err error) error {
	if errors.Is(err, driver.ErrLost) {
		return nil
	}
	return err
}
