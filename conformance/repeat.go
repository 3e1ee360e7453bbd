package conformance

import (
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// The second half of a repeated attempt: the first one's reply was lost, and from now on the
// hold is what the second one asked for.

// repeatLease: the ttl counts from the repeat, for the store as for the core.
func repeatLease(c *trial) {
	x, y := c.raw(), c.raw()
	shares := []time.Duration{20, 60, 80}
	c.Together(len(shares), func(i int) {
		key := c.Key(fmt.Sprint(shares[i]))
		first := x.take(key, c.lifetime())
		c.Sleep(time.Until(first.before.Add(c.lifetime() * shares[i] / 100)))
		if time.Since(first.before) > c.lifetime()*95/100 {
			return // a busy machine has missed it
		}
		second := first.again()
		got := y.endsAt(key, second.before.Add(c.lifetime()), second.after.Add(c.lifetime()), fmt.Sprintf("after an attempt that was repeated when %d %% of its ttl were over", shares[i]))
		first.silent("the listener of the attempt that was repeated")
		got.mustRelease()
	})
}

// repeatHeard: the repeat's listener hears of the loss, and the first one does not.
func repeatHeard(c *trial) {
	x, y := c.raw(), c.raw()
	if c.Caps.Has.Has(driver.PromptLoss) { // what LOSS-003 is about, without a repeat
		plain := x.take(c.Key("plain"), c.ttl())
		c.target.Delete(c.T, plain.req.Key)
		c.Hist.Add("   (an administrator deletes %s)", c.Short(plain.req.Key))
		_ = plain.hearsOr(c.Claim("LOSS-003"), c.Prompt(), "the listener of an attempt that was not repeated")
	}
	first := x.take(c.Key("k"), c.ttl())
	second := first.again()
	third := second.again()
	c.target.Delete(c.T, first.req.Key)
	c.Hist.Add("   (an administrator deletes %s)", c.Short(first.req.Key))
	within := c.Prompt()
	if !c.Caps.Has.Has(driver.PromptLoss) {
		if c.leaf.kind == Lease {
			return // it hears at its next call
		}
		within += c.Caps.SessionValidity
	}
	err := third.hears(within, "the last listener of an attempt that was repeated twice")
	c.Is(err, driver.ErrLost, "what it hears")
	c.Settle()
	first.silent("the listener of the first attempt")
	second.silent("the listener of the second attempt")
	y.take(first.req.Key, c.ttl()).mustRelease()
}

// repeatRenewed: a session lives on after a repeat, as one, and ends with one release.
func repeatRenewed(c *trial) {
	x, y := c.raw(), c.raw()
	first := x.take(c.Key("k"), 0)
	second := first.again()
	second.lasts(y, "a session whose attempt was repeated")
	first.silent("the listener of the attempt that was repeated")
	second.again().mustRelease()
	c.Is(second.release(), driver.ErrLost, "a second Release of a session whose attempt was repeated")
	next := y.take(first.req.Key, 0) // whoever renews by key would take it back
	next.lasts(x, "the next session of the key")
	next.mustRelease()
}

// repeatFirst: a repeat that finds nothing is a first attempt: the earlier hold is over.
func repeatFirst(c *trial) {
	x, y := c.raw(), c.raw()
	first := x.take(c.Key("k"), c.Unit())
	c.Sleep(time.Until(first.after.Add(c.Unit() + c.Granularity())))
	between := y.takeSoon(first.req.Key, c.ttl())
	x.refused(first.req.Key, first.req.Owner, c.ttl())
	between.mustRelease()
	again := x.takeAs(first.req.Key, first.req.Owner, c.ttl())
	c.Must(again.token > between.token, "what an owner is granted after its earlier hold has expired has a new token", "%d after %d", again.token, between.token)
	y.refused(first.req.Key, c.Owner(), far)
	again.mustRelease()

	// Nothing that its owner says of itself makes it another.
	noted, err := x.ask(driver.Request{Key: c.Key("noted"), Owner: c.Owner(), TTL: c.ttl(), Identity: hostileText, Note: hostileText})
	c.OK(err, "the driver's Acquire with a note")
	noted.again()
	noted.mustRelease()
}
