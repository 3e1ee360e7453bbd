package conformance

import (
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// rest is how long after the end of its process a hold may last.
func (c *trial) rest() time.Duration {
	if c.leaf.kind == Session {
		return c.Caps.SessionValidity
	}
	return c.life()
}

// died makes sure that the key frees in time, after its process was killed or stopped.
func (c *trial) died(p *pending, held, died time.Time, sleeps *pulse, f *figures) *hold {
	got := p.granted(c.Limit(), "its holder's process was killed or stopped")
	f.add(proceeded, got.at.Sub(died))
	late := got.at.Sub(died.Add(c.rest()))
	c.Must(late <= c.HandOver()+sleeps.longest(), fmt.Sprintf("the key is free no more than %s after the end of its process, as declared", c.rest()), "%s later", late)
	if c.leaf.kind == Lease && c.Caps.Has.Has(driver.LeaseOutlivesProcess) {
		// From before the request was sent, so that the store cannot have begun earlier.
		early := held.Add(c.life()).Sub(got.at)
		c.Must(early <= c.Granularity(), "a lease outlives its process, as declared, until its ttl", "the key was free %s before", early)
	}
	return got
}

// noMoreThanDeclared: as the store tells, key is free within the declared time if its process dies now. A
// busy machine needs a margin at the end of a hold, which is more than what a renewal may give too much.
func (c *trial) noMoreThanDeclared(sees *raw, key string) {
	most := c.rest() + time.Millisecond
	_, err := sees.acquire(key, c.Owner(), far)
	c.Is(err, driver.ErrHeld, "the driver's Acquire of what a process holds")
	if told, ok := driver.Remaining(err); ok {
		c.Must(told <= most, fmt.Sprintf("a refusal tells that the key is free within %s, as declared", most), "within %s", told)
	}
	if in, ok := driver.As[driver.Inspector](sees.inner); ok {
		info, _, err := in.Inspect(c.CtxFor(c.Limit()), key)
		c.OK(err, "Inspect of what a process holds")
		c.Must(info.Remaining <= most, fmt.Sprintf("Inspect tells that the key is free within %s, as declared", most), "within %s", info.Remaining)
	}
}

func processKilled(c *trial) {
	b, sees := c.near(), c.nearRaw()
	f, sleeps := c.figures(), c.pulse()
	// At several moments between one word to the store and the next.
	const phases = 3
	c.Together(phases, func(i int) {
		proc := c.process()
		key := c.Key(fmt.Sprint(i))
		before := time.Now()
		token := proc.hold(key)
		p := b.goLock(key, append(c.hold(), c.Polling())...)
		c.Sleep(c.life() * time.Duration(1+2*i) / 8)
		c.Must(!harness.IsClosed(p.done), "the key is taken while its process lives", "Lock returned: %v", p.outcome())
		c.noMoreThanDeclared(sees, key)
		died := time.Now()
		c.OK(proc.Kill(), "SIGKILL")
		c.Hist.Add("   (the process is killed)")
		got := c.died(p, before, died, sleeps, f)
		c.Must(got.Token() > token, "the next hold has a greater token", "%d after %d", got.Token(), token)
		got.mustUnlock()
		c.free(b, c.recovery(), key)
	})
	c.tell(f)
}

// processStopped: a process sleeps between the look at its hold and the write that it
// makes because of it, past the end of the hold. No lock in the world can prevent that.
// The token does, in a store that checks it.
func processStopped(c *trial) {
	if c.leaf.kind == Session && c.Caps.SessionValidity == 0 {
		c.Skip("a session of this backend lasts for as long as its process")
	}
	b := c.near()
	f, sleeps := c.figures(), c.pulse()
	const phases = 2
	c.Together(phases, func(i int) {
		proc := c.process()
		key := c.Key(fmt.Sprint(i))
		var protected register
		before := time.Now()
		token := proc.hold(key)
		p := b.goLock(key, append(c.hold(), c.Polling())...)
		c.OK(protected.write(token), "a write with the token of the holder")
		c.Sleep(c.life() * time.Duration(1+3*i) / 8)
		proc.say("look", key, 0)
		proc.answer("live")
		c.Must(!harness.IsClosed(p.done), "the key is taken while its process lives", "Lock returned: %v", p.outcome())

		stopped := time.Now()
		if err := proc.Stop(); errors.Is(err, errors.ErrUnsupported) {
			c.Skip("the target's Process cannot be stopped")
		} else {
			c.OK(err, "SIGSTOP")
		}
		c.Hist.Add("   (the process is stopped)")
		got := c.died(p, before, stopped, sleeps, f)
		c.OK(protected.write(got.Token()), "a write with the token of the next holder")
		proc.say("write", key, 0) // it will read this before it knows anything else
		proc.say("look", key, 0)
		c.OK(proc.Continue(), "SIGCONT")
		woke := time.Now()
		c.Hist.Add("   (the process goes on)")

		err := protected.write(proc.token("token"))
		f.add("wrote, after it woke, after", time.Since(woke))
		c.Is(err, errStale, "a write by a holder that slept past the end of its hold, in a store that checks tokens,")
		select {
		case text := <-proc.answers:
			// A lease looks at the clock. A session may believe until its timer has run.
			c.Hist.Add("   process: %s", text)
			c.Must(c.leaf.kind == Session || text != "live", "a lease knows that it is over as soon as anyone looks", "%s", text)
		case <-time.After(c.Limit()):
			c.Fatal("the process answers", "nothing")
		}
		c.Await(proc.ended.Seen, c.Prompt()+sleeps.longest(), "Done closes once the process goes on")
		f.add("holder noticed, after it woke, after", proc.ended.At.Sub(woke))
		got.mustLive(b)
		got.mustUnlock()
		c.free(b, c.recovery(), key)
	})
	c.tell(f)
}
