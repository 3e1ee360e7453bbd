package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
)

// partition cuts off holders in each direction, at several moments between one word to the
// store and the next: what a holder believes depends on where in between it happens.
func partition(c *trial) {
	b := c.near()
	f, sleeps := c.figures(), c.pulse()
	ways := []struct {
		name     string
		up, down bool
	}{{"requests", true, false}, {"replies", false, true}, {"both", true, true}}
	const phases = 3
	c.Together(len(ways)*phases, func(i int) {
		way, phase := ways[i/phases], i%phases
		a, line := c.distant()
		c.can(line.BlackHole != nil, "BlackHole")
		if phase == 1 && line.Latency != nil {
			// What counts from the reply, and not from the request, counts too long by that.
			line.Latency(c.life() / 10)
		}
		key, other := c.Key(fmt.Sprint("held ", i)), c.Key(fmt.Sprint("tried ", i))
		h := a.mustTry(key, c.living()...)
		h.keep()
		end := c.Moment(h.Done())
		p := b.goLock(key, append(c.hold(), c.Polling())...)

		c.Sleep(c.life() * time.Duration(12+4*phase) / 30)
		if c.leaf.kind == Lease || c.Caps.SessionValidity > 0 {
			c.Must(!harness.IsClosed(p.done), "nobody else gets the key before the partition", "%v", p.outcome())
		}
		h.mustLive()
		line.BlackHole(way.up, way.down)
		began := time.Now()
		c.Hist.Add("%s  (a black hole swallows %s)", a.name, way.name)

		// Nothing that is tried in there stays behind.
		_, err := a.tryCtx(c.CtxFor(c.Unit()/2), other, c.hold()...)
		c.Is(err, locker.ErrUnavailable, "TryLock in a partition")
		c.Is(err, context.DeadlineExceeded, "TryLock in a partition")

		if c.leaf.kind == Session && c.Caps.SessionValidity == 0 {
			// Such a store keeps the key until it hears of its client again.
			c.Sleep(c.life())
			line.Heal()
			h.mustUnlock()
			p.granted(c.recovery(), "the release, after the partition").mustUnlock()
			return
		}
		// Where requests go through, one that renews may have been the last that did.
		got := p.granted(2*c.life()+c.recovery(), "the partition")
		f.add(believed, c.overtaken(h, end, got, sleeps))
		f.add(noticed, end.At.Sub(began))
		f.add(proceeded, got.at.Sub(began))
		late := end.At.Sub(began.Add(c.life()))
		c.Must(late <= c.Prompt()+sleeps.longest(), fmt.Sprintf("Done closes no more than %s after the partition", c.life()), "%s later", late)
		c.Must(errors.Is(h.Err(), locker.ErrLost), "the Err of a hold that was lost in a partition", "%v", h.Err())
		c.Must(got.Token() > h.Token(), "the next hold has a greater token", "%d after %d", got.Token(), h.Token())

		// Back again, the former holder changes nothing.
		line.Heal()
		c.Hist.Add("%s  (the line is in order again)", a.name)
		c.Is(h.unlock(), locker.ErrLost, "Unlock after a partition that outlasted the hold")
		q := a.goLock(key, append(c.hold(), c.Polling())...)
		f.add("tried key free after", c.free(b, c.recovery(), other))
		c.Must(!harness.IsClosed(q.done), "who comes back waits for the new holder", "Lock returned: %v", q.outcome())
		got.mustLive(b)
		healed := time.Now()
		got.mustUnlock()
		again := q.granted(c.recovery(), "the release, after the partition")
		f.add("back in use after", again.at.Sub(healed))
		again.mustUnlock()
		c.free(b, c.recovery(), key)
	})
	f.add("late timers in this process", sleeps.longest())
	c.tell(f)
}

// grantedAfar: who comes to a hold from afar, in any of the ways there are, and is cut off at once, stops believing in it
// before anybody else gets the key. What counts from the answer, and not from the request, counts too long.
// It is a session if ttl is 0.
func grantedAfar(c *trial, ttl time.Duration) {
	b := c.near()
	life, living := ttl, []locker.Option{locker.WithTTL(ttl)}
	if ttl == 0 {
		life, living = c.Caps.SessionValidity, nil
	}
	if life == 0 {
		c.Skip("the backend's sessions have no end of their own")
	}
	f, sleeps := c.figures(), c.pulse()
	latency := life / 8
	handedOver := func(from, a *client, key string) *hold {
		h := from.mustTry(key, locker.WithTTL(far))
		p := a.goLock(key, append(slices.Clone(living), c.Polling())...)
		c.Sleep(4*latency + c.Granularity()) // its first attempt is answered
		h.mustUnlock()
		return p.granted(c.recovery()+4*latency, "the release")
	}
	type way struct {
		name string
		take func(a *client, key string) believer
	}
	ways := []way{
		{"a TryLock", func(a *client, key string) believer { return a.mustTry(key, living...) }},
		{"a LockAll", func(a *client, key string) believer {
			all, err := a.lockAll(c.CtxFor(c.Limit()), []string{key, key + " too"}, living...)
			c.OK(err, "LockAll")
			return all
		}},
		{"a hand-over", func(a *client, key string) believer { return handedOver(b, a, key) }},
		{"a hand-over that is some time ago", func(a *client, key string) believer {
			h := handedOver(b, a, key)
			c.Sleep(2*latency + c.Granularity()) // whatever has to be confirmed is
			return h
		}},
		{"a hand-over in its process", func(a *client, key string) believer { return handedOver(a, a, key) }},
	}
	if ttl > 0 {
		ways = append(ways, way{"an Extend", func(a *client, key string) believer {
			h := a.mustTry(key, living...)
			c.OK(h.extend(ttl), "Extend")
			return h
		}})
	}
	c.Together(len(ways), func(i int) {
		way := ways[i].name
		a, line := c.distant()
		c.can(line.BlackHole != nil && line.Latency != nil, "BlackHole and Latency")
		line.Latency(latency)
		key := c.Key(fmt.Sprint("way ", i))
		h := ways[i].take(a, key)
		if err := h.Err(); err != nil {
			c.Must(sleeps.longest() > life/8, "a hold that has just come about goes on, after "+way, "%v", err)
			c.Note("the machine was too slow for %s: %v", way, err)
			return
		}
		end := c.Moment(h.Done())
		line.BlackHole(true, true)
		c.Hist.Add("%s  (a black hole swallows all, after %s)", a.name, way)
		got := b.goLock(key, locker.WithTTL(far), c.Polling()).granted(2*life+c.recovery(), "the partition")
		f.add(believed, c.believed(h, a.name, end, got, sleeps))
		got.mustLive(b)
		got.mustUnlock()
	})
	c.tell(f)
}

// reconnectedBefore: the connection of a session's client breaks, at some moment between two renewals, and a little later
// nothing gets through any more. Whatever was asked over the next connection, the session lasts as long as its last renewal gave it.
func reconnectedBefore(c *trial) {
	b, life := c.near(), c.Caps.SessionValidity
	if life == 0 {
		c.Skip("the backend's sessions have no end of their own")
	}
	f, sleeps := c.figures(), c.pulse()
	const many = 8
	c.Together(many, func(i int) {
		a, line := c.distant()
		c.can(line.BlackHole != nil && line.Cut != nil, "BlackHole and Cut")
		h := a.mustTry(c.Key(fmt.Sprint(i)))
		c.Sleep(life + life/3*time.Duration(i)/many) // it has been renewed
		line.Cut()
		c.Hist.Add("%s  (its connections are cut)", a.name)
		c.Sleep(life / 12)
		end := c.Moment(h.Done())
		line.BlackHole(true, true)
		c.Hist.Add("%s  (a black hole swallows all)", a.name)
		got := b.goLock(h.Key(), locker.WithTTL(far), c.Polling()).granted(2*life+c.recovery(), "the partition")
		f.add(believed, c.believed(h, a.name, end, got, sleeps))
		got.mustLive(b)
		got.mustUnlock()
	})
	c.tell(f)
}
