package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
)

// lossy is a client whose next requests, or replies, can be lost.
type lossy struct {
	*client
	loseReplies, loseRequests func(n int)
	heal                      func()
}

func replyLostInCore(c *trial) {
	a := c.client()
	lost := func(f harness.Fault) func(int) {
		return func(n int) {
			for range n {
				a.tap.Next(harness.OpAcquire, f)
			}
		}
	}
	repliesLost(c, lossy{a, lost(harness.Lose), lost(harness.Refuse), func() {}}, c.client())
}

func replyLostOnLine(c *trial) {
	b := c.near()
	a, line := c.distant()
	c.can(line.LoseReplies != nil && line.LoseRequests != nil, "LoseReplies and LoseRequests")
	repliesLost(c, lossy{a, line.LoseReplies, line.LoseRequests, line.Heal}, b)
}

func repliesLost(c *trial, a lossy, b *client) {
	f := c.figures()
	// What a store learns at its first use, such as scripts, shall not be what is lost.
	a.mustTry(c.Key("first"), c.hold()...).mustUnlock()
	b.mustTry(c.Key("first"), c.hold()...).mustUnlock()

	for i, lose := range []func(int){a.loseReplies, a.loseRequests, a.loseReplies} {
		// Far longer than the time that is allowed: who is locked out by an attempt of
		// one's own stays so.
		key, times := c.Key(fmt.Sprint("k", i)), 1+i/2*2
		lose(times)
		began := time.Now()
		p := a.goLock(key, append(c.hold(), c.Polling())...)
		got := p.granted(time.Duration(times)*c.recovery(), fmt.Sprintf("%d lost replies or requests (nobody is locked out by an attempt of one's own)", times))
		f.add("locked after", got.at.Sub(began))
		got.mustLive(b)
		got.mustUnlock()
		next := b.mustTry(key, c.hold()...)
		c.Must(next.Token() > got.Token(), "the next hold has a greater token", "%d after %d", next.Token(), got.Token())
		next.mustUnlock()
	}

	// TryLock makes one attempt. What it may have taken is given back.
	key := c.Key("try")
	a.loseReplies(1)
	_, err := a.try(key, c.hold()...)
	c.Is(err, locker.ErrUnavailable, "TryLock whose reply is lost")
	c.IsNot(err, locker.ErrHeld, "TryLock whose reply is lost")
	f.add("free after", c.free(b, c.recovery(), key))

	// Beside somebody else, who must never hold it too.
	log := c.contend(a, b, c.Key("contended"))
	c.checkSpans(log)
	a.heal()
	c.free(b, c.recovery(), c.Key("contended"))
	c.tell(f)
}

// contend lets both take one key in turn, and loses what a sends and gets, at random.
func (c *trial) contend(a lossy, b *client, key string) *spanLog {
	log := &spanLog{}
	r, rounds := c.Rand(), c.Rounds(20, 6)
	c.Together(4, func(i int) {
		cl := []*client{a.client, b}[i%2]
		for range rounds {
			if i == 0 { // one of them only: r is not for several
				switch r.IntN(3) {
				case 0:
					a.loseReplies(1)
				case 1:
					a.loseRequests(1)
				}
			}
			s := span{client: cl.name, call: log.next()}
			ctx, cancel := context.WithTimeout(c.Ctx, 4*c.Limit())
			h, err := cl.lock(ctx, key, append(c.hold(), c.Polling())...)
			cancel()
			c.OK(err, "Lock, whatever is lost on the way,")
			s.at, s.from, s.token = time.Now(), log.next(), h.Token()
			c.Sleep(c.Granularity() / 4)
			s.unlockAt, s.to = time.Now(), log.next()
			log.add(key, s)
			// Its reply may be lost too.
			if err := h.unlock(); err != nil {
				c.Must(errors.Is(err, locker.ErrUnavailable), "Unlock of what is held gives nil or ErrUnavailable", "%v", err)
			}
		}
	})
	return log
}
