package conformance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// A store that stands still for a while, and then goes on with what it has: a long pause of its
// garbage collection, a disk that is full of others' work, a virtual machine that is moved.

// interrupted: a session that had been renewed early enough lives through a time without renewals.
func interrupted(c *trial, begin func() (end func())) {
	y, sleeps := c.nearRaw(), c.pulse()
	brief := c.leastLeft(y) * 6 / 10 // it has to connect again, perhaps, and to be renewed
	for round := range c.Rounds(4, 2) {
		all := c.renewedInTurn(round, 6)
		end := begin()
		c.Sleep(brief)
		end()
		c.Sleep(c.Caps.SessionValidity / 3) // whatever comes of it has come
		if slept := sleeps.longest(); slept > c.Caps.SessionValidity/16 {
			c.Skip(fmt.Sprintf("this machine is too busy: its process slept for %s, and a session lasts %s", slept.Round(time.Millisecond), c.Caps.SessionValidity))
		}
		for _, g := range all {
			g.silent(fmt.Sprintf("a session that could not be renewed for %s", brief))
			y.refused(g.req.Key, c.Owner(), far)
			g.mustRelease()
		}
	}
}

// stallsLong: a session may be over when the store goes on. Its holder hears so before anybody else has the
// key, whoever comes first.
func stallsLong(c *trial) {
	y, f, sleeps := c.nearRaw(), c.figures(), c.pulse()
	least := c.leastLeft(y)
	rng := c.Rand()
	for round := range c.Rounds(4, 2) {
		all := c.renewedInTurn(round, 4)
		goOn := c.stalls()
		c.Sleep(least*9/10 + time.Duration(rng.Int64N(int64(max(1, c.Caps.SessionValidity-least)))))
		goOn()
		c.Together(len(all), func(i int) {
			if next := all[i].outlived(y); next != nil {
				f.add(believed, all[i].heardBy(next, sleeps))
			}
		})
	}
	c.tell(f)
}

// outlived is who gets the key of g after a stall; nil if g was renewed in time, and lives.
func (g *grip) outlived(y *raw) *grip {
	c := g.r.c
	for end := time.Now().Add(c.Caps.SessionValidity / 3); time.Now().Before(end); c.Sleep(max(time.Millisecond, c.Granularity()/40)) {
		next, err := y.acquire(g.req.Key, c.Owner(), far)
		if err == nil {
			return next
		}
		if !errors.Is(err, driver.ErrUnavailable) { // it connects again
			c.Is(err, driver.ErrHeld, "the driver's Acquire of another client")
		}
	}
	_ = g.release()
	return nil
}

// heardBy is by how much later than next had the key g, the session before, heard of its end.
func (g *grip) heardBy(next *grip, sleeps *pulse) time.Duration {
	c := g.r.c
	select {
	case <-g.rec.heard:
		next.mustRelease()
		return 0
	default:
	}
	timer := time.NewTimer(c.Limit())
	defer timer.Stop()
	select {
	case <-g.rec.heard:
	case <-c.Ctx.Done():
		runtime.Goexit()
	case <-timer.C:
		c.Fatal("the holder of a session hears of its end when its store stood still", "somebody else got the key, and %s later it had heard nothing", c.Limit())
	}
	late := time.Since(next.after)
	c.Must(late <= sleeps.longest()+time.Millisecond, "the holder of a session has heard of its end when somebody else gets the key, after the store stood still", "it heard %s later (and nothing in this process was late by more than %s)", late, sleeps.longest())
	next.mustRelease()
	return late
}

// renewedInTurn are sessions of n clients, whose renewals come one after the other.
func (c *trial) renewedInTurn(round, n int) (all []*grip) {
	for i := range n {
		all = append(all, c.nearRaw().take(c.Key(fmt.Sprint(round, "/", i)), 0))
		c.Sleep(c.Caps.SessionValidity / 3 / time.Duration(n))
	}
	c.Sleep(time.Duration(c.Rand().Int64N(int64(c.Caps.SessionValidity / 3))))
	return all
}

// leastLeft is what a session has left, at the least, when it is renewed, in the eyes of y.
func (c *trial) leastLeft(y *raw) time.Duration {
	if c.Caps.SessionValidity == 0 {
		c.Skip("the backend's sessions have no end of their own")
	}
	g := c.nearRaw().take(c.Key("watched"), 0)
	least := c.Caps.SessionValidity
	for end := time.Now().Add(c.Caps.SessionValidity); time.Now().Before(end); c.Sleep(c.Caps.SessionValidity / 50) {
		left, ok := driver.Remaining(y.refused(g.req.Key, c.Owner(), far))
		if !ok {
			c.Skip("the backend does not say how long a key stays held")
		}
		least = min(least, left)
	}
	g.mustRelease()
	return least
}

// extendedInStall: a lease ends while its Extend waits for the store to go on, and nobody else wants the key.
// It is over all the same: what counts is when the store carries the Extend out, not when it came.
func extendedInStall(c *trial) {
	x, y := c.nearRaw(), c.nearRaw()
	for _, r := range []*raw{x, y} { // what a first use costs is paid
		g := r.take(c.Key("first"), far)
		c.OK(g.extend(far), "the driver's Extend")
		g.mustRelease()
	}
	for i := range 3 {
		g := x.take(c.Key(fmt.Sprint(i)), c.Unit())
		goOn := c.stalls()
		var err error
		extended := c.Spawn(func() { err = g.extend(far) })
		c.Sleep(time.Until(g.after.Add(c.Unit() + c.Granularity() + c.Unit()/10)))
		goOn()
		c.Await(extended, 2*c.Limit(), "an Extend returns when the store goes on")
		c.Must(err != nil, "an Extend that the store carries out after the end of the lease is refused", "it is granted")
		c.reaches(y)
		y.takeSoon(g.req.Key, far).mustRelease()
	}
}

// reaches waits until the store answers r again, which may have to connect.
func (c *trial) reaches(r *raw) {
	o := c.Owner() // one for all: an attempt whose answer was lost may have been granted
	for end := time.Now().Add(c.Limit()); ; c.Sleep(c.Granularity()) {
		g, err := r.acquire(c.Key("reachable"), o, far)
		if err == nil {
			g.mustRelease()
			return
		}
		c.Is(err, driver.ErrUnavailable, "the driver's Acquire of a free key, before a client has connected again,")
		c.Must(time.Now().Before(end), "a client connects again", "%v", err)
	}
}

// orphansOfStall: attempts are given up one after the other while the store stands still. It may carry out
// all of them when it goes on.
func orphansOfStall(c *trial) {
	a, b := c.near(), c.near()
	a.mustTry(c.Key("first"), c.hold()...).mustUnlock() // what a first use costs is paid
	b.mustTry(c.Key("first"), c.hold()...).mustUnlock()
	var keys []string
	var wrong error // is told when the store has gone on
	goOn := c.stalls()
	for i := range 8 {
		key := c.Key(fmt.Sprint(i))
		ctx, cancel := context.WithTimeout(c.Ctx, c.Unit()/8)
		var err error
		if i%2 == 0 {
			_, err = a.tryCtx(ctx, key, c.hold()...)
		} else {
			_, err = a.lock(ctx, key, append(c.hold(), c.Polling())...)
		}
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, locker.ErrUnavailable) { // it may have given the connection up
			wrong = cmp.Or(err, errors.New("a hold"))
		}
		keys = append(keys, key)
	}
	goOn()
	c.Claim("FLT-005").Must(wrong == nil, "an attempt whose ctx ends while the store stands still says so, or that the store is unavailable", "%v", wrong)
	c.free(b, c.recovery(), keys...)
}
