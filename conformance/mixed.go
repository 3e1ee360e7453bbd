package conformance

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// Most cases ask for one kind of hold. Here leases and sessions wait for one key, of which a backend
// may hand off the ones and not the others.

// otherKind is the options for a hold that does not end by itself and is not of the case's kind.
func (c *trial) otherKind() []locker.Option {
	if c.leaf.kind == Lease {
		return nil
	}
	return []locker.Option{locker.WithTTL(far)}
}

// turns has goroutines of a take key again and again, each with theirs and what is its own, and makes sure that
// one of b comes in between. In a's process there is always a waiter, and nobody keeps the key for long.
func (c *trial) turns(a, b *client, key string, theirs []locker.Option, own func(i int) locker.Option) {
	c.turnsOf(a, b, key, theirs, own, 0)
}

// turnsOf has each of them keep the key for a time.
func (c *trial) turnsOf(a, b *client, key string, theirs []locker.Option, own func(i int) locker.Option, stay time.Duration) {
	// Far more than any turn, and few enough to be done in no time.
	const workers, most = 6, 10_000
	h := a.mustTry(key, theirs...)
	ctx, cancel := context.WithCancel(c.Ctx)
	defer cancel()
	var grants atomic.Int64
	var busy []<-chan struct{}
	for i := range workers {
		opts := append(slices.Clone(theirs), c.Polling())
		if own != nil {
			opts = append(opts, own(i))
		}
		busy = append(busy, c.Spawn(func() {
			for ctx.Err() == nil && grants.Load() < most {
				s, err := a.l.Lock(ctx, key, opts...)
				if err != nil {
					c.Must(ctx.Err() != nil, "Lock gives a hold", "%v", err)
					return
				}
				grants.Add(1)
				if stay > 0 {
					c.Sleep(stay)
				}
				c.OK(s.Unlock(c.Ctx), "Unlock of what is held")
			}
		}))
	}
	c.Settle()
	p := b.goLock(key, append(c.hold(), c.Polling())...)
	c.Settle()
	c.Must(grants.Load() == 0, "all wait while the key is held", "%d grants", grants.Load())
	h.mustUnlock()
	others := fmt.Sprintf("with %d of %s who ask for the key again and again,", workers, a.name)
	for range 4 { // not only at the first release, which may end a turn in any case
		got := p.granted(c.Limit(), "a release, "+others)
		n := grants.Load()
		c.Must(n < most, fmt.Sprintf("a process in which somebody always waits lets others have the key after less than %d holds", most), "they had to end before anybody else got it")
		grants.Store(0)
		got.mustUnlock()
		p = b.goLock(key, append(c.hold(), c.Polling())...)
	}
	p.granted(c.Limit(), "a release, "+others).mustUnlock()
	cancel()
	for _, done := range busy {
		c.Await(done, c.Limit(), "the others end")
	}
}

// slowTurns: where each hold takes a while, a turn of as many of them as where they take no time would last for
// long. It ends after a time, too.
func slowTurns(c *trial) {
	if !c.Caps.Has.Has(driver.PromptLoss) {
		c.Skip("the backend does not declare the capability PromptLoss: others find a release by polling")
	}
	for _, own := range []func(i int) locker.Option{nil, ownNote} { // which a store may have to be told
		a, stay := c.client(), c.Granularity()/3
		if own != nil {
			stay = c.Granularity() / 10
		}
		c.turnsOf(a, c.client(), c.Key(stay.String()), c.hold(), own, stay)
		const most = 50
		n := a.tap.LongestTurn()
		c.Must(n < most, fmt.Sprintf("of holds of %s each less than %d are handed off until others have their turn", stay, most), "%d", n)
	}
}

// ownNote is another one for each.
func ownNote(i int) locker.Option { return locker.WithNote(fmt.Sprint("worker ", i)) }

// unlikeTurns: a store may have to be asked at each hand-off to one who wants the key otherwise.
func unlikeTurns(c *trial) {
	a, b := c.client(), c.client()
	c.turns(a, b, c.Key("notes"), c.hold(), ownNote)
	if c.leaf.kind == Lease {
		c.turns(b, a, c.Key("ttls"), c.hold(), func(i int) locker.Option {
			return locker.WithTTL(far + time.Duration(i)*far/4)
		})
	}
}

// mixedTurns is turnsEnd where those who ask again and again want the other kind of hold.
func mixedTurns(c *trial) {
	c.turns(c.client(), c.client(), c.Key("k"), c.otherKind(), nil)
}

// mixedInQueue is the same within a process, where nobody is overtaken at all.
func mixedInQueue(c *trial) {
	a := c.client()
	if !a.waits() { // otherwise one who has just come may be granted what those who wait are only told of
		c.turns(a, a, c.Key("k"), c.otherKind(), nil)
	}

	c.again(func(try int, last bool) bool {
		key := c.Key(fmt.Sprint("order ", try))
		h := a.mustTry(key, c.otherKind()...)
		p := a.goLock(key, append(c.hold(), c.Polling())...)
		c.Settle()
		q := a.goLock(key, append(c.otherKind(), c.Polling())...)
		c.Settle()
		h.mustUnlock()
		if !last && c.jumped(p, []*pending{q}) {
			c.drain([]*pending{p, q})
			return false
		}
		got := p.granted(c.Limit(), "the release, although the next one wants the kind of hold that was released,")
		c.Must(!harness.IsClosed(q.done), "who came later, and wants the kind of hold that was released, waits on", "Lock returned: %v", q.outcome())
		got.mustUnlock()
		q.granted(c.Limit(), "the release by the one before").mustUnlock()
		return true
	})
}

// firstGivesUp: the one in front of the queue, who would be told of the release, is not there any more
// when it comes.
func firstGivesUp(c *trial) {
	a, b, d := c.client(), c.client(), c.client()
	for i, first := range []*client{b, b, a} {
		h := a.mustTry(c.Key(fmt.Sprint(i)), c.hold()...)
		p := first.goLock(h.Key(), append(c.hold(), harness.Patient())...)
		c.Settle()
		q := d.goLock(h.Key(), append(c.hold(), harness.Patient())...)
		c.Settle()
		p.stop(nil)
		_ = p.refused(c.Limit(), "the end of its ctx")
		if first == b && i == 0 {
			c.Settle() // otherwise the release comes while it still leaves
		}
		h.mustUnlock()
		released := time.Now()
		got := q.granted(c.Limit(), "the release, before which the one in front of it gave up,")
		late := q.at.Sub(released)
		c.Must(late <= c.Prompt(), fmt.Sprintf("the waiter has the lock no more than %s after the release, before which the one in front of it gave up", c.Prompt()), "%s after", late)
		got.mustUnlock()
	}
}
