package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var errorCases = []Case{
	{ID: "ERR-001", Kinds: both, fn: errorsMatch, Parts: []Part{{Name: "several", fn: errorNamesKey}}, Clause: "ErrHeld, ErrLost, ErrReleased, ErrClosed, ErrUnavailable, ErrInvalidKey, ErrInvalidTTL, ErrInvalidConfig, ErrUnknownBackend, ErrUnsupported work through errors.Is; a typed *locker.Error says operation, key, backend and code"},
	{ID: "ERR-002", Kinds: both, CoreLoop: true, fn: errorsApart, Parts: []Part{
		{Name: "hung", Needs: []Need{needsPause}, fn: unknownToHung},
		{Name: "refusing", Needs: []Need{needsRefuse}, fn: refusingStore},
	}, Clause: "contention and unavailability are never confused"},
	{ID: "ERR-003", fn: configErrors, Clause: "bad configuration names the field, the value and the allowed range, and both numbers where two fields disagree"},
	{ID: "ERR-004", Kinds: both, CoreLoop: true, Clause: "after a refusal by the store nothing is in doubt: nothing is taken back or shortened, a waiting Lock waits on, a release is repeated until it is done", Parts: []Part{
		{Name: "attempt", fn: refusedNothingTaken},
		{Name: "waiting", fn: refusedWaitedFor},
		{Name: "unlock", fn: refusedUnlock},
		{Name: "held", fn: refusalOfHeld},
		{Name: "cause", fn: causeOfOthers},
		{Name: "store", Needs: []Need{needsRefuse}, fn: refusedByStore},
	}},
}

var sentinels = map[locker.Code]error{
	locker.CodeHeld: locker.ErrHeld, locker.CodeLost: locker.ErrLost, locker.CodeReleased: locker.ErrReleased, locker.CodeClosed: locker.ErrClosed,
	locker.CodeUnavailable: locker.ErrUnavailable, locker.CodeInvalidKey: locker.ErrInvalidKey, locker.CodeInvalidTTL: locker.ErrInvalidTTL,
	locker.CodeInvalidConfig: locker.ErrInvalidConfig, locker.CodeUnknownBackend: locker.ErrUnknownBackend, locker.CodeUnsupported: locker.ErrUnsupported,
}

// describes makes sure that err is a *locker.Error for code and nothing else.
func (c *trial) describes(err error, op, key, backend string, code locker.Code) {
	var e *locker.Error
	claim := c.Claim(c.ID)
	if err == nil && op == "unlock" { // it tried again
		claim = c.Claim("WAIT-005")
	}
	claim.Must(errors.As(err, &e), "a *locker.Error", "%T: %v", err, err)
	switch {
	case code == locker.CodeUnavailable && e.Code == locker.CodeHeld:
		claim = c.Claim("ERR-002")
	case code == locker.CodeClosed && op == "hold" && e.Code == locker.CodeReleased:
		claim = c.Claim("CLO-003")
	}
	claim.Must(e.Op == op && e.Key == key && e.Backend == backend && e.Code == code,
		fmt.Sprintf("an error of operation %q, key %q, backend %q, code %s", op, key, backend, code), "%q, %q, %q, %s: %v", e.Op, e.Key, e.Backend, e.Code, err)
	for other, s := range sentinels {
		c.Must(errors.Is(err, s) == (other == code), fmt.Sprintf("the error matches “%v” and no other sentinel", sentinels[code]), "“%v”: %v (%v)", s, errors.Is(err, s), err)
	}
	text := err.Error()
	c.Must(strings.Contains(text, op) && !strings.ContainsAny(text, "\n\r\x00"), "the text names the operation in one line", "%q", text)
	c.Must(code.String() != "" && !strings.HasPrefix(code.String(), "Code("), "the code has a name", "%q", code.String())
}

func errorsMatch(c *trial) {
	a, b := c.client(), c.client()
	name := c.Caps.Name
	key := c.Key("k")
	h := a.mustTry(key, c.hold()...)
	_, err := b.try(key, c.hold()...)
	c.describes(err, "trylock", key, name, locker.CodeHeld)
	_, err = b.lock(c.Ctx, key, append(c.hold(), locker.WithRetry(locker.Retry{Attempts: 1, Delay: time.Millisecond, Jitter: locker.NoJitter}))...)
	c.describes(err, "lock", key, name, locker.CodeHeld)
	h.mustUnlock()
	c.describes(h.unlock(), "unlock", key, name, locker.CodeReleased)
	c.describes(h.Err(), "hold", key, name, locker.CodeReleased)

	a.tap.Next(harness.OpAcquire, harness.Refuse)
	_, err = a.try(key, c.hold()...)
	c.describes(err, "trylock", key, name, locker.CodeUnavailable)

	h = b.mustTry(c.Key("lost"), c.hold()...)
	b.tap.Next(harness.OpRelease, harness.Answer(driver.ErrLost))
	c.describes(h.unlock(), "unlock", h.Key(), name, locker.CodeLost)
	h = b.mustTry(c.Key("unknown"), c.hold()...)
	b.tap.Next(harness.OpRelease, harness.Refuse)
	c.describes(h.unlock(), "unlock", h.Key(), name, locker.CodeUnavailable)
	_ = h.unlock()

	_, err = a.try("", c.hold()...)
	c.describes(err, "trylock", "", name, locker.CodeInvalidKey)
	_, err = a.try(key, locker.WithTTL(-1))
	c.describes(err, "trylock", key, name, locker.CodeInvalidTTL)
	_, err = a.try(key, locker.WithRetry(locker.Retry{Attempts: -2}))
	c.describes(err, "trylock", key, name, locker.CodeInvalidConfig)

	if c.leaf.kind == Session {
		h = a.mustTry(key)
		c.describes(h.extend(far), "extend", key, name, locker.CodeUnsupported)
		h.mustUnlock()
	} else {
		h = a.mustTry(key, c.hold()...)
		c.describes(h.extend(-1), "extend", key, name, locker.CodeInvalidTTL)
		h.mustUnlock()
		c.describes(h.extend(far), "extend", key, name, locker.CodeReleased)
		h = a.mustTry(key, locker.WithTTL(c.Unit()))
		ends := c.Claim("LOSS-001")
		if c.Caps.Has.Has(driver.LocalClock) { // the backend's timer alone
			ends = c.Claim("TTL-001")
		}
		ends.Await(h.Done(), c.Limit(), "Done closes at the end of the ttl")
		c.describes(h.Err(), "hold", key, name, locker.CodeLost)
		c.describes(h.extend(far), "extend", key, name, locker.CodeLost)
		c.describes(h.unlock(), "unlock", key, name, locker.CodeLost)
	}

	_, err = locker.Open(c.Ctx, locker.Config{Type: "no-such-backend"})
	var unknown *locker.Error
	if errors.As(err, &unknown) {
		name = unknown.Backend // the name that was asked for, or none
	}
	c.describes(err, "open", "", name, locker.CodeUnknownBackend)
	name = c.Caps.Name

	h = a.mustTry(c.Key("closed"), c.hold()...)
	c.OK(a.l.Close(c.CtxFor(c.Limit())), "Close")
	_, err = a.try(key, c.hold()...)
	c.describes(err, "trylock", key, name, locker.CodeClosed)
	_, err = a.lock(c.Ctx, key, c.hold()...)
	c.describes(err, "lock", key, name, locker.CodeClosed)
	c.describes(h.Err(), "hold", h.Key(), name, locker.CodeClosed)
	c.describes(h.unlock(), "unlock", h.Key(), name, locker.CodeClosed)
}

// errorNamesKey: the error of a LockAll that does not wait names the key that is held, whichever of
// the keys it is, also where the store takes several in one step.
func errorNamesKey(c *trial) {
	a, b := c.client(), c.client()
	for _, name := range []func(string) string{c.Key, c.neighbour} {
		keys := []string{name("x"), name("y"), name("z")}
		for _, key := range keys {
			h := b.mustTry(key, c.hold()...)
			_, err := a.lockAll(c.CtxFor(c.Limit()), keys, append(c.hold(), locker.WithRetry(locker.NoRetry()))...)
			c.Claim("MULTI-001").Must(err != nil, "LockAll of keys of which one is held gives an error", "it was granted")
			c.describes(err, "lock", key, c.Caps.Name, locker.CodeHeld)
			for _, other := range keys {
				if other != key {
					got, err := b.try(other, c.hold()...)
					c.Claim("MULTI-001").OK(err, "TryLock of what a LockAll that was refused has not kept")
					got.mustUnlock()
				}
			}
			h.mustUnlock()
		}
		all, err := a.lockAll(c.CtxFor(c.Limit()), keys, append(c.hold(), locker.WithRetry(locker.NoRetry()))...)
		c.Claim("MULTI-001").OK(err, "LockAll of keys that are free, after others that were refused,")
		c.OK(all.Unlock(c.CtxFor(c.Limit())), "Unlock of all")
	}
}

func errorsApart(c *trial) {
	a, b := c.client(), c.client()
	key := c.Key("k")
	h := a.mustTry(key, c.hold()...)
	few := locker.WithRetry(locker.Retry{Attempts: 2, Delay: time.Millisecond, Jitter: locker.NoJitter})

	contention := func(err error, what string) {
		c.Is(err, locker.ErrHeld, "%s", what)
		c.IsNot(err, locker.ErrUnavailable, "%s", what)
	}
	outage := func(err error, what string) {
		c.Is(err, locker.ErrUnavailable, "%s", what)
		c.IsNot(err, locker.ErrHeld, "%s", what)
	}
	_, err := b.try(key, c.hold()...)
	contention(err, "TryLock of a key that is held")
	_, err = b.lock(c.CtxFor(c.Limit()), key, append(c.hold(), few)...)
	contention(err, "Lock of a key that is held")
	_, err = b.lock(c.CtxFor(c.Unit()), key, append(c.hold(), harness.Patient())...)
	contention(err, "Lock, given up, of a key that is held")

	// Many at once, of which one can win: the others meet contention and nothing else.
	for round := range c.Rounds(20, 5) {
		k := c.Key(fmt.Sprint("race ", round))
		c.Together(8, func(i int) {
			got, err := []*client{a, b}[i%2].try(k, c.hold()...)
			if err != nil {
				contention(err, "TryLock of a key that another one is just taking")
				return
			}
			c.OK(got.unlock(), "Unlock")
		})
	}

	// An outage, whether the key is held or free.
	for _, k := range []string{key, c.Key("free")} {
		b.tap.All(harness.Refuse)
		_, err = b.try(k, c.hold()...)
		outage(err, "TryLock during an outage")
		_, err = b.lock(c.CtxFor(c.Limit()), k, append(c.hold(), few)...)
		outage(err, "Lock during an outage")
		b.tap.All(nil)
	}

	// An error that is none of the driver's is an outage too.
	b.tap.Next(harness.OpAcquire, harness.Answer(errors.New("something strange")))
	_, err = b.try(c.Key("strange"), c.hold()...)
	outage(err, "TryLock with an error that nobody knows")

	h.mustLive(b)

	// The backend itself.
	d := c.driver()
	r := driver.Request{Key: key, Owner: c.Owner(), TTL: c.ttl(), Hold: newRecorder()}
	for range 10 {
		_, err = d.Acquire(c.CtxFor(c.Limit()), r)
		contention(err, "the driver's Acquire of a key that is held")
	}
	ctx, cancel := context.WithCancel(c.Ctx)
	cancel()
	r.Key = c.Key("cancelled")
	if _, err = d.Acquire(ctx, r); err != nil {
		c.IsNot(err, driver.ErrHeld, "the driver's Acquire of a free key, with a ctx that has ended,")
	}
	_ = d.Release(c.CtxFor(c.Limit()), driver.Holder{Key: r.Key, Owner: r.Owner, Session: r.TTL == 0})
}

func configErrors(c *trial) {
	_, b := c.Open()
	c.OnClose(func(ctx context.Context) { _ = b.Close(ctx) })
	a := c.client()
	retry := func(r locker.Retry) locker.Config { return locker.Config{Retry: r} }
	for _, bad := range []struct {
		cfg   locker.Config
		names []string
	}{
		{locker.Config{TTL: -time.Second}, []string{"ttl", "-1s"}},
		{locker.Config{TTL: locker.MaxTTL + time.Second}, []string{"ttl", (locker.MaxTTL + time.Second).String(), short(locker.MaxTTL)}},
		{retry(locker.Retry{Attempts: -2}), []string{"attempts", "-2", "-1"}},
		{retry(locker.Retry{Delay: -time.Millisecond}), []string{"delay", "-1ms", short(locker.MaxRetryDelay)}},
		{retry(locker.Retry{Delay: locker.MaxRetryDelay + 1}), []string{"delay", (locker.MaxRetryDelay + 1).String(), short(locker.MaxRetryDelay)}},
		{retry(locker.Retry{Delay: 20 * time.Millisecond, Jitter: 30 * time.Millisecond}), []string{"jitter", "30ms", "delay", "20ms"}},
		{retry(locker.Retry{Jitter: -time.Millisecond}), []string{"jitter", "-1ms"}},
		{retry(locker.Retry{Jitter: time.Second}), []string{"jitter", "1s", "delay", locker.DefaultDelay.String()}},
		{locker.Config{DriftFactor: 0.75}, []string{"driftFactor", "0.75", "0.5"}},
		{locker.Config{DriftFactor: -0.25}, []string{"driftFactor", "-0.25"}},
		{locker.Config{Namespace: "a:b"}, []string{"namespace", "a:b", "colon"}},
		{locker.Config{Namespace: strings.Repeat("n", locker.MaxNamespace+1)}, []string{"namespace", fmt.Sprint(locker.MaxNamespace)}},
		{locker.Config{Type: "x"}, []string{"type"}},
	} {
		_, err := locker.New(b, bad.cfg)
		c.Is(err, locker.ErrInvalidConfig, "New with %+v", bad.cfg)
		for _, name := range bad.names {
			c.Must(strings.Contains(err.Error(), name), fmt.Sprintf("the error of New with %+v names %q", bad.cfg, name), "%v", err)
		}
		if bad.cfg.Retry != (locker.Retry{}) { // the same of one call
			calls := a.tap.Count()
			_, err := a.try(c.Key("k"), locker.WithRetry(bad.cfg.Retry))
			c.Is(err, locker.ErrInvalidConfig, "TryLock with %+v", bad.cfg.Retry)
			for _, name := range bad.names {
				c.Must(strings.Contains(err.Error(), name), fmt.Sprintf("the error of TryLock with %+v names %q", bad.cfg.Retry, name), "%v", err)
			}
			c.Must(a.tap.Count() == calls, "it is refused before any I/O", "%d calls", a.tap.Count()-calls)
		}
	}
}

// short is how messages write whole hours: 24h, where d.String says 24h0m0s.
func short(d time.Duration) string { return strings.TrimSuffix(d.String(), "0m0s") }
