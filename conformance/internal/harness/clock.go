package harness

import (
	"runtime"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// Far is a time that no case waits for: of polls that must not matter, and of leases
// that end by other means.
const Far = 10 * time.Minute

// Granularity is the backend's own, at least 1 ms.
func (c *Trial) Granularity() time.Duration { return max(c.Caps.Granularity, time.Millisecond) }

// Prompt is how late what the contract calls prompt may be: the backend's own word, and
// in real time a margin for a machine with other things to do.
func (c *Trial) Prompt() time.Duration {
	d := c.Granularity() + time.Millisecond // one for stores that round to it
	if !c.Virtual {
		d = 5*c.Granularity() + 100*time.Millisecond
	}
	return time.Duration(float64(d) * c.Slack)
}

// Unit is the ttl of leases that a case lets expire: long against the granularity, and against
// the time for which a machine that needs Slack may stand still.
func (c *Trial) Unit() time.Duration {
	d := max(10*c.Granularity(), 50*time.Millisecond, c.slacked(100*time.Millisecond))
	return (d + time.Millisecond - 1).Truncate(time.Millisecond)
}

// slacked is d times the slack, where there is one.
func (c *Trial) slacked(d time.Duration) time.Duration {
	if c.Virtual || c.Slack <= 1 {
		return 0
	}
	return time.Duration(float64(d) * c.Slack)
}

// Life is the ttl of leases that must live through a fault.
func (c *Trial) Life() time.Duration { return max(3*c.Unit(), c.slacked(500*time.Millisecond)) }

// HandOver is how late a waiter that polls may have the key after it has become free. Only
// WAIT-001 and its like insist on the wake-up: the other cases shall not fail for the want
// of it.
func (c *Trial) HandOver() time.Duration {
	r := c.Retry()
	return c.Prompt() + r.Delay + r.Jitter
}

// Retry is what Polling waits by.
func (c *Trial) Retry() locker.Retry {
	return locker.Retry{Attempts: locker.Forever, Delay: c.Unit() / 5, Jitter: c.Unit() / 10}
}

// Polling waits with polls that come soon.
func (c *Trial) Polling() locker.Option { return locker.WithRetry(c.Retry()) }

// Patient waits without polls that could hide a missing wake-up.
func Patient() locker.Option {
	return locker.WithRetry(locker.Retry{Attempts: locker.Forever, Delay: Far, Jitter: locker.NoJitter})
}

// Limit is a bound for what must happen, however late. In a case that is known to fail nothing is
// waited for that long: four times what is prompt tells whether it has begun to pass.
func (c *Trial) Limit() time.Duration {
	if c.Known {
		return max(time.Second, 4*c.Prompt())
	}
	return time.Duration(float64(5*time.Second+10*c.Unit()+10*c.Prompt()) * max(1, c.Slack))
}

// Watchdog is how long a case may take.
func (c *Trial) Watchdog() time.Duration {
	switch {
	case c.Virtual:
		return 10 * Far
	case c.Timeout > 0:
		return c.Timeout
	}
	return 30*time.Second + 6*c.Limit()
}

// Rounds is how often something random is tried.
func (c *Trial) Rounds(virtual, realTime int) int {
	if c.Virtual {
		return virtual
	}
	return realTime
}

// Sleep ends the calling goroutine when the case ends before. It is not a settle: in a
// bubble a timer fires when all others wait, even one of no time at all, and so it is not asked.
func (c *Trial) Sleep(d time.Duration) {
	if d <= 0 {
		if c.Ctx.Err() != nil {
			runtime.Goexit()
		}
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.Ctx.Done():
		runtime.Goexit()
	}
}

// Settle lets what was started come to where it waits. No event tells that of a backend
// that waits by itself; coming too early makes a case weaker, never wrong.
func (c *Trial) Settle() {
	if c.Virtual {
		synctest.Wait()
		return
	}
	c.Sleep(max(5*time.Millisecond, 2*c.Granularity()))
}
