package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var errorCases = []Case{
	{ID: "ERR-001", Kinds: both, fn: errorsMatch, Clause: "ErrHeld, ErrLost, ErrReleased, ErrClosed, ErrUnavailable, ErrInvalidKey, ErrInvalidTTL, ErrInvalidConfig, ErrUnknownBackend, ErrUnsupported work through errors.Is; a typed *locker.Error says operation, key, backend and code"},
	{ID: "ERR-002", Kinds: both, CoreLoop: true, fn: errorsApart, Clause: "contention and unavailability are never confused"},
	{ID: "ERR-003", fn: configErrors, Clause: "bad configuration names the field, the value and the allowed range, and both numbers where two fields disagree"},
}

var sentinels = map[locker.Code]error{
	locker.Held: locker.ErrHeld, locker.Lost: locker.ErrLost, locker.Released: locker.ErrReleased, locker.Closed: locker.ErrClosed,
	locker.Unavailable: locker.ErrUnavailable, locker.InvalidKey: locker.ErrInvalidKey, locker.InvalidTTL: locker.ErrInvalidTTL,
	locker.InvalidConfig: locker.ErrInvalidConfig, locker.UnknownBackend: locker.ErrUnknownBackend, locker.Unsupported: locker.ErrUnsupported,
}

// describes makes sure that err is a *locker.Error for code and nothing else.
func (c *trial) describes(err error, op, key, backend string, code locker.Code) {
	var e *locker.Error
	c.must(errors.As(err, &e), "a *locker.Error", "%T: %v", err, err)
	c.must(e.Op == op && e.Key == key && e.Backend == backend && e.Code == code,
		fmt.Sprintf("an error of operation %q, key %q, backend %q, code %s", op, key, backend, code), "%q, %q, %q, %s: %v", e.Op, e.Key, e.Backend, e.Code, err)
	for other, s := range sentinels {
		c.must(errors.Is(err, s) == (other == code), fmt.Sprintf("the error matches “%v” and no other sentinel", sentinels[code]), "“%v”: %v (%v)", s, errors.Is(err, s), err)
	}
	text := err.Error()
	c.must(strings.Contains(text, op) && !strings.ContainsAny(text, "\n\r\x00"), "the text names the operation in one line", "%q", text)
	c.must(code.String() != "" && !strings.HasPrefix(code.String(), "Code("), "the code has a name", "%q", code.String())
}

func errorsMatch(c *trial) {
	a, b := c.client(), c.client()
	name := c.caps.Name
	key := c.key("k")
	h := a.mustTry(key, c.hold()...)
	_, err := b.try(key, c.hold()...)
	c.describes(err, "trylock", key, name, locker.Held)
	_, err = b.lock(c.ctx, key, append(c.hold(), locker.WithRetry(locker.Retry{Attempts: 1, Delay: time.Millisecond}))...)
	c.describes(err, "lock", key, name, locker.Held)
	h.mustUnlock()
	c.describes(h.unlock(), "unlock", key, name, locker.Released)
	c.describes(h.Err(), "hold", key, name, locker.Released)

	a.tap.next(opAcquire, refuse)
	_, err = a.try(key, c.hold()...)
	c.describes(err, "trylock", key, name, locker.Unavailable)

	h = b.mustTry(c.key("lost"), c.hold()...)
	b.tap.next(opRelease, answer(driver.ErrLost))
	c.describes(h.unlock(), "unlock", h.Key(), name, locker.Lost)
	h = b.mustTry(c.key("unknown"), c.hold()...)
	b.tap.next(opRelease, refuse)
	c.describes(h.unlock(), "unlock", h.Key(), name, locker.Unavailable)
	_ = h.unlock()

	_, err = a.try("", c.hold()...)
	c.describes(err, "trylock", "", name, locker.InvalidKey)
	_, err = a.try(key, locker.WithTTL(-1))
	c.describes(err, "trylock", key, name, locker.InvalidTTL)
	_, err = a.try(key, locker.WithRetry(locker.Retry{Attempts: -2}))
	c.describes(err, "trylock", key, name, locker.InvalidConfig)

	if c.leaf.kind == Session {
		h = a.mustTry(key)
		c.describes(h.extend(far), "extend", key, name, locker.Unsupported)
		h.mustUnlock()
	} else {
		h = a.mustTry(key, c.hold()...)
		c.describes(h.extend(-1), "extend", key, name, locker.InvalidTTL)
		h.mustUnlock()
		c.describes(h.extend(far), "extend", key, name, locker.Released)
		h = a.mustTry(key, locker.WithTTL(c.unit()))
		c.await(h.Done(), c.limit(), "Done closes at the end of the ttl")
		c.describes(h.Err(), "hold", key, name, locker.Lost)
		c.describes(h.extend(far), "extend", key, name, locker.Lost)
		c.describes(h.unlock(), "unlock", key, name, locker.Lost)
	}

	_, err = locker.Open(c.ctx, locker.Config{Type: "no-such-backend"})
	var unknown *locker.Error
	if errors.As(err, &unknown) {
		name = unknown.Backend // the name that was asked for, or none
	}
	c.describes(err, "open", "", name, locker.UnknownBackend)
	name = c.caps.Name

	h = a.mustTry(c.key("closed"), c.hold()...)
	c.ok(a.l.Close(c.ctxFor(c.limit())), "Close")
	_, err = a.try(key, c.hold()...)
	c.describes(err, "trylock", key, name, locker.Closed)
	_, err = a.lock(c.ctx, key, c.hold()...)
	c.describes(err, "lock", key, name, locker.Closed)
	c.describes(h.Err(), "hold", h.Key(), name, locker.Closed)
	c.describes(h.unlock(), "unlock", h.Key(), name, locker.Closed)
}

func errorsApart(c *trial) {
	a, b := c.client(), c.client()
	key := c.key("k")
	h := a.mustTry(key, c.hold()...)
	few := locker.WithRetry(locker.Retry{Attempts: 2, Delay: time.Millisecond})

	contention := func(err error, what string) {
		c.is(err, locker.ErrHeld, "%s", what)
		c.isNot(err, locker.ErrUnavailable, "%s", what)
	}
	outage := func(err error, what string) {
		c.is(err, locker.ErrUnavailable, "%s", what)
		c.isNot(err, locker.ErrHeld, "%s", what)
	}
	_, err := b.try(key, c.hold()...)
	contention(err, "TryLock of a key that is held")
	_, err = b.lock(c.ctxFor(c.limit()), key, append(c.hold(), few)...)
	contention(err, "Lock of a key that is held")
	_, err = b.lock(c.ctxFor(c.unit()), key, append(c.hold(), patient())...)
	contention(err, "Lock, given up, of a key that is held")

	// Many at once, of which one can win: the others meet contention and nothing else.
	for round := range c.rounds(20, 5) {
		k := c.key(fmt.Sprint("race ", round))
		c.together(8, func(i int) {
			got, err := []*client{a, b}[i%2].try(k, c.hold()...)
			if err != nil {
				contention(err, "TryLock of a key that another one is just taking")
				return
			}
			c.ok(got.unlock(), "Unlock")
		})
	}

	// An outage, whether the key is held or free.
	for _, k := range []string{key, c.key("free")} {
		b.tap.all(refuse)
		_, err = b.try(k, c.hold()...)
		outage(err, "TryLock during an outage")
		_, err = b.lock(c.ctxFor(c.limit()), k, append(c.hold(), few)...)
		outage(err, "Lock during an outage")
		b.tap.all(nil)
	}

	// An error that is none of the driver's is an outage too.
	b.tap.next(opAcquire, answer(errors.New("something strange")))
	_, err = b.try(c.key("strange"), c.hold()...)
	outage(err, "TryLock with an error that nobody knows")

	h.mustLive(b)

	// The backend itself.
	d := c.driver()
	r := driver.Request{Key: key, Owner: c.owner(), TTL: c.ttl(), Hold: newRecorder()}
	for range 10 {
		_, err = d.Acquire(c.ctxFor(c.limit()), r)
		contention(err, "the driver's Acquire of a key that is held")
	}
	ctx, cancel := context.WithCancel(c.ctx)
	cancel()
	r.Key = c.key("cancelled")
	if _, err = d.Acquire(ctx, r); err != nil {
		c.isNot(err, driver.ErrHeld, "the driver's Acquire of a free key, with a ctx that has ended,")
	}
	_ = d.Release(c.ctxFor(c.limit()), driver.Holder{Key: r.Key, Owner: r.Owner, Session: r.TTL == 0})
}

func configErrors(c *trial) {
	_, b := c.open()
	c.onClose(func(ctx context.Context) { _ = b.Close(ctx) })
	a := c.client()
	retry := func(r locker.Retry) locker.Config { return locker.Config{Retry: &r} }
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
		c.is(err, locker.ErrInvalidConfig, "New with %+v", bad.cfg)
		for _, name := range bad.names {
			c.must(strings.Contains(err.Error(), name), fmt.Sprintf("the error of New with %+v names %q", bad.cfg, name), "%v", err)
		}
		if bad.cfg.Retry != nil { // the same of one call
			calls := a.tap.count()
			_, err := a.try(c.key("k"), locker.WithRetry(*bad.cfg.Retry))
			c.is(err, locker.ErrInvalidConfig, "TryLock with %+v", *bad.cfg.Retry)
			for _, name := range bad.names {
				c.must(strings.Contains(err.Error(), name), fmt.Sprintf("the error of TryLock with %+v names %q", *bad.cfg.Retry, name), "%v", err)
			}
			c.must(a.tap.count() == calls, "it is refused before any I/O", "%d calls", a.tap.count()-calls)
		}
	}
}

// short is how messages write whole hours: 24h, where d.String says 24h0m0s.
func short(d time.Duration) string { return strings.TrimSuffix(d.String(), "0m0s") }
