package conformance

import (
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// refusingStore: the store answers, and grants nothing. Whoever asks for a free key hears that, and whoever
// asks for one that is held hears that it is held; what is held stays held, and what waits waits on.
func refusingStore(c *trial) {
	a, b, x := c.near(), c.near(), c.nearRaw()
	validity := c.Caps.SessionValidity
	if c.leaf.kind == Lease {
		validity = 0
	}
	for round := range c.Rounds(3, 2) {
		key := func(name string) string { return c.Key(fmt.Sprint(name, " ", round)) }
		held, wanted, released := a.mustTry(key("held"), c.hold()...), a.mustTry(key("wanted"), c.hold()...), a.mustTry(key("released"), c.hold()...)
		waiting := b.goLock(wanted.Key(), append(c.hold(), c.Polling())...)
		c.Settle()
		began := time.Now()
		accept := c.refuses()

		// Each returns what is then to be said of its outcome, if that came in time.
		var freed bool
		calls := []func() func(){
			func() func() {
				err := second(b.try(held.Key(), c.hold()...))
				return func() { c.busyThoughRefusing(err, "TryLock") }
			},
			func() func() {
				err := second(a.try(held.Key(), c.hold()...))
				return func() { c.busyThoughRefusing(err, "TryLock by the holder's own Locker") }
			},
			func() func() { // one that waits has something to write down, perhaps
				few := locker.WithRetry(locker.Retry{Attempts: 2, Delay: c.Unit() / 20, Jitter: locker.NoJitter})
				err := second(b.lock(c.CtxFor(c.Limit()), held.Key(), append(c.hold(), few)...))
				return func() { c.busyThoughRefusing(err, "Lock, which gives up after two attempts,") }
			},
			func() func() {
				err := second(x.acquire(held.Key(), c.Owner(), c.ttl()))
				return func() { c.busyThoughRefusing(err, "the driver's Acquire") }
			},
			func() func() {
				err := second(b.try(key("free"), c.hold()...))
				return func() { c.unavailable(err, "TryLock of a free key", "the store grants nothing") }
			},
			func() func() {
				few := locker.WithRetry(locker.Retry{Attempts: 2, Delay: time.Millisecond, Jitter: locker.NoJitter})
				err := second(b.lock(c.CtxFor(c.Limit()), key("also free"), append(c.hold(), few)...))
				return func() {
					c.unavailable(err, "Lock of a free key, which gives up after two attempts", "the store grants nothing")
				}
			},
			func() func() {
				keys := []string{key("one of several"), key("another of several")}
				_, err := a.lockAll(c.CtxFor(c.Limit()), keys, append(c.hold(), locker.WithRetry(locker.NoRetry()))...)
				return func() { c.unavailable(err, "LockAll of free keys", "the store grants nothing") }
			},
			func() func() {
				err := released.unlockCtx(c.CtxFor(c.Limit()))
				if freed = err == nil; freed {
					return func() {}
				}
				return func() { c.unavailable(err, "Unlock", "the store grants nothing") }
			},
			func() func() {
				if c.leaf.kind == Session {
					return func() {}
				}
				err := held.extend(far)
				return func() {
					if err != nil {
						c.unavailable(err, "Extend", "the store grants nothing")
					}
				}
			},
			func() func() { return c.looksThoughRefusing(x, held, key("never held")) },
		}
		outcomes := make([]func(), len(calls))
		c.Together(len(calls), func(i int) { outcomes[i] = calls[i]() })
		ended, waits := held.Err(), !harness.IsClosed(waiting.done)
		refused := time.Since(began)
		accept()
		if validity > 0 && refused > validity/2 {
			c.Skip(fmt.Sprintf("this machine is too busy: the store refused for %s, and sessions last %s", refused.Round(time.Millisecond), validity))
		}
		for _, told := range outcomes {
			told()
		}
		c.Claim("ERR-004").OK(ended, "the Err of a hold of a store that grants nothing")
		c.Claim("ERR-004").Must(waits, "a waiting Lock waits on while the store grants nothing", "it returned: %v", waiting.outcome())
		held.mustLive(b)
		held.mustUnlock()
		wanted.mustUnlock()
		waiting.granted(c.recovery()+c.HandOver(), "a release, after the store granted nothing for a while").mustUnlock()
		if freed {
			b.mustTry(released.Key(), c.hold()...).mustUnlock()
		}
		next := b.goLock(held.Key(), append(c.hold(), c.Polling())...).granted(c.recovery(), "a release, after the store granted nothing for a while")
		c.Claim("TOK-001").Must(next.Token() > held.Token(), "the token rises across a time in which the store granted nothing", "%d after %d", next.Token(), held.Token())
		next.mustUnlock()
		c.free(b, c.recovery(), released.Key(), key("free"), key("also free"), key("one of several"), key("another of several"))
	}
}

// busyThoughRefusing: that a key is held is no reason to ask for a grant.
func (c *trial) busyThoughRefusing(err error, what string) {
	what += " of a key that is held, while the store grants nothing,"
	c.Is(err, driver.ErrHeld, "%s", what)
	c.IsNot(err, driver.ErrUnavailable, "%s", what)
}

// unavailable makes sure that err says so, and nothing of a holder or of a loss.
func (c *trial) unavailable(err error, what, while string) {
	what += ", while " + while + ","
	c.Is(err, locker.ErrUnavailable, "%s", what)
	for _, other := range []error{locker.ErrHeld, locker.ErrLost, locker.ErrReleased, locker.ErrClosed} {
		c.IsNot(err, other, "%s", what)
	}
}

// looksThoughRefusing: what can be seen is true.
func (c *trial) looksThoughRefusing(x *raw, held *hold, free string) (told func()) {
	in, ok := driver.As[driver.Inspector](x.inner)
	if !ok {
		return func() {}
	}
	taken, isTaken, errTaken := in.Inspect(c.CtxFor(c.Limit()), held.Key())
	other, isOther, errOther := in.Inspect(c.CtxFor(c.Limit()), free)
	sees := c.Claim("INS-001")
	return func() {
		sees.Must(errTaken != nil || isTaken && taken.Token == held.Token(), "Inspect of a key that is held tells its holder, or fails, while the store grants nothing", "%v, %+v", isTaken, taken)
		sees.Must(errOther != nil || !isOther, "Inspect of a key that is free says so, or fails, while the store grants nothing", "%+v", other)
		sees.Must(!errors.Is(errOther, driver.ErrHeld), "Inspect of a free key does not fail with ErrHeld", "%v", errOther)
	}
}
