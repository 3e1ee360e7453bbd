//go:build go1.25

package locker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

func refusal(_ context.Context, _, _ string, _ func() error) error {
	return fmt.Errorf("%w: OOM command not allowed", driver.ErrRefused)
}

// A refusal says that nothing was done: nothing is taken back, repeated, or shortened.
func TestRefused(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		f.set(only("acquire", refusal))
		for range 10 {
			_, err := l.TryLock(bg, "k", locker.WithTTL(time.Hour))
			wantError(t, err, locker.CodeUnavailable, locker.ErrUnavailable, driver.ErrRefused)
			if !strings.Contains(err.Error(), "OOM") || strings.Contains(err.Error(), "unavailable") {
				t.Errorf("%q does not say what happened", err)
			}
		}
		time.Sleep(2 * time.Hour)
		if n := f.count("release"); n != 0 {
			t.Errorf("%d releases of what was never granted", n)
		}

		// A Lock waits through it, and its lease is no worse for that.
		time.AfterFunc(time.Second, func() { f.set(nil) })
		s, err := l.Lock(bg, "k", locker.WithTTL(2*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Extend(bg, time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		if err := s.Err(); err != nil {
			t.Errorf("50 s into a minute: %v", err)
		}
		f.set(only("extend", refusal))
		wantError(t, s.Extend(bg, time.Second), locker.CodeUnavailable, driver.ErrRefused)
		time.Sleep(5 * time.Second)
		if err := s.Err(); err != nil {
			t.Errorf("a refused Extend shortened the lease: %v", err)
		}
		f.set(only("release", refusal))
		wantError(t, s.Unlock(bg), locker.CodeUnavailable, driver.ErrRefused)
		f.set(nil)
		time.Sleep(time.Second)
		f.nothingHeld(t) // it was repeated
	})
}

// A clean-up goes on through whatever the store says, until it says that the lock is free.
func TestCleanupGoesOn(t *testing.T) {
	for name, answer := range map[string]error{
		"refused": driver.ErrRefused, "not supported": driver.ErrUnsupported, "login": driver.ErrInvalidConfig, "unknown": errors.New("?"),
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{hook: only("acquire", lostReply)}
			bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
				f.set(func(ctx context.Context, op, key string, do func() error) error {
					if op == "release" {
						return answer
					}
					return lostReply(ctx, op, key, do)
				})
				_, _ = l.TryLock(bg, "k", locker.WithTTL(time.Hour))
				time.Sleep(time.Minute)
				f.set(nil)
				time.Sleep(time.Second)
				f.nothingHeld(t)
			})
		})
	}
}

// What is given back in the background is tried for as long as the longest request may hold the
// key, not only for what the hold had left.
func TestCleanupByTheLongerTTL(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k", locker.WithTTL(2*time.Second))
		f.set(only("extend", lostReply)) // it arrives
		wantError(t, s.Extend(bg, time.Hour), locker.CodeUnavailable)
		f.set(unavailable)
		wantError(t, s.Unlock(bg), locker.CodeUnavailable)
		time.Sleep(time.Minute)
		f.set(nil)
		time.Sleep(time.Second)
		f.nothingHeld(t)
	})
	t.Run("hand-off", func(t *testing.T) {
		p := &passing{notifying: notifying{&fake{}}}
		bubbleOf(t, p, leases, func(t *testing.T, l *locker.Locker) {
			s := mustLock(t, l, "k", locker.WithTTL(2*time.Second))
			ctx, cancel := context.WithCancel(bg)
			waiter := line(l, ctx, 1, locker.WithTTL(time.Hour))
			p.set(func(ctx context.Context, op, key string, do func() error) error {
				if op == "hand off" {
					return lostReply(ctx, op, key, do)
				}
				return unavailable(ctx, op, key, do)
			})
			wantError(t, s.Unlock(bg), locker.CodeUnavailable)
			cancel()
			<-waiter[0]
			time.Sleep(time.Minute)
			p.set(nil)
			time.Sleep(time.Second)
			p.nothingHeld(t)
		})
	})
}

// A later grant of a key in one Locker ends the older hold, whatever the store announces.
func TestOvertaken(t *testing.T) {
	for _, session := range []bool{false, true} {
		f := &fake{}
		bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
			ttl := locker.WithTTL(time.Hour)
			if session {
				ttl = locker.WithSession()
			}
			a := mustLock(t, l, "k", ttl)
			f.mu.Lock()
			delete(f.holds, "k") // nobody says so
			f.mu.Unlock()
			b := mustLock(t, l, "k", ttl)
			wantError(t, a.Err(), locker.CodeLost, locker.ErrLost)
			if !isDone(a) || b.Err() != nil {
				t.Errorf("the older one's Done is open, or the later one is over: %v", b.Err())
			}
			wantError(t, a.Unlock(bg), locker.CodeLost, locker.ErrLost)
			if err := b.Unlock(bg); err != nil {
				t.Error(err)
			}
		})
	}
}

// Of two grants whose answers come in the wrong order the one with the greater token counts.
func TestOvertakenByAnEarlierAnswer(t *testing.T) {
	f := &fake{}
	synctest.Test(t, func(t *testing.T) {
		l := newLocker(t, f, locker.Config{})
		first := true
		f.set(func(_ context.Context, op, _ string, do func() error) error {
			err := do()
			if slow := first && op == "acquire"; slow {
				first = false
				time.Sleep(10 * time.Second)
			}
			return err
		})
		early := make(chan error)
		go func() {
			_, err := l.TryLock(bg, "k", locker.WithTTL(time.Hour))
			early <- err
		}()
		synctest.Wait()
		f.mu.Lock()
		delete(f.holds, "k")
		f.mu.Unlock()
		b := mustLock(t, l, "k", locker.WithTTL(time.Hour))
		wantError(t, <-early, locker.CodeLost, locker.ErrLost)
		if err := b.Err(); err != nil {
			t.Errorf("the later grant: %v", err)
		}
	})
}

// clocked is a fake whose sessions end by a clock that nobody rings.
type clocked struct {
	*fake
	cause  error
	grants func(*clocked, driver.Request) // what comes with a grant
}

func (c *clocked) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	g, err := c.fake.Acquire(ctx, r)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && c.grants != nil {
		c.grants(c, r)
	}
	return g, err
}

func (c *clocked) SessionErr(driver.Holder) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// LOSS-001: Err asks the backend's clock, for its timer may not have run yet.
func TestSessionClock(t *testing.T) {
	c := &clocked{fake: &fake{}}
	l := newLocker(t, c, locker.Config{})
	s, lease := mustLock(t, l, "k"), mustLock(t, l, "lease", locker.WithTTL(time.Minute))
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	c.cause = fmt.Errorf("%w: no renewal was confirmed; the last answer was NOREPLICAS", driver.ErrUnavailable)
	if lease.Err() != nil {
		t.Error("a lease is none of its business")
	}
	err := s.Err()
	wantError(t, err, locker.CodeLost, locker.ErrLost)
	var e *locker.Error
	if errors.As(err, &e); e.Reason != locker.ReasonUnreachable || !strings.Contains(err.Error(), "NOREPLICAS") {
		t.Errorf("%v: %v", e.Reason, err)
	}
	if !isDone(s) {
		t.Error("Done is open")
	}
}

// TOK-004: a session whose grant was answered when it could not be considered held any more is no
// hold, whether the backend's timer has run by then or not: it is given back, and a Lock tries again.
func TestSessionComesTooLate(t *testing.T) {
	late := fmt.Errorf("%w: no renewal was confirmed", driver.ErrUnavailable)
	for name, answer := range map[string]func(*clocked, driver.Request){
		"its clock says so":    func(c *clocked, _ driver.Request) { c.cause = late },
		"its timer has rung":   func(_ *clocked, r driver.Request) { r.Hold.Lost(late) },
		"both, and in a hurry": func(c *clocked, r driver.Request) { c.cause = late; r.Hold.Lost(late) },
	} {
		t.Run(name, func(t *testing.T) {
			c := &clocked{fake: &fake{}, grants: answer}
			bubbleOf(t, c, locker.Config{}, func(t *testing.T, l *locker.Locker) {
				s, err := l.TryLock(bg, "k")
				wantError(t, err, locker.CodeLost, locker.ErrLost)
				if s != nil {
					t.Error("a lease beside an error")
				}
				synctest.Wait()
				c.nothingHeld(t)
				time.AfterFunc(time.Minute, func() {
					c.mu.Lock()
					defer c.mu.Unlock()
					c.grants, c.cause = nil, nil
				})
				ctx, cancel := context.WithTimeout(bg, time.Hour)
				defer cancel()
				if s, err = l.Lock(ctx, "k"); err != nil || s.Err() != nil {
					t.Errorf("a Lock has patience: %v, %v", err, s.Err())
				}
			})
		})
	}
}

// TTL-003: a ttl that the store cannot keep is refused before any I/O.
func TestMinTTL(t *testing.T) {
	f := &fake{caps: driver.Capabilities{Name: "coarse", MinTTL: 2 * time.Second}}
	l := newLocker(t, f, locker.Config{})
	_, err := l.TryLock(bg, "k", locker.WithTTL(time.Second))
	wantError(t, err, locker.CodeInvalidTTL, locker.ErrInvalidTTL)
	for _, want := range []string{"1s", "2s", "coarse"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %s", err, want)
		}
	}
	s := mustLock(t, l, "k", locker.WithTTL(2*time.Second))
	wantError(t, s.Extend(bg, time.Second), locker.CodeInvalidTTL)
	if n := f.count("acquire") + f.count("extend"); n != 1 {
		t.Errorf("%d calls", n)
	}
}

// A Locker in a namespace puts it before every key, whichever call it is.
func TestNamespace(t *testing.T) {
	f := &fake{}
	l := newLocker(t, f, locker.Config{})
	in := l.Namespace("billing")
	s := mustLock(t, in, "42")
	if s.Key() != "billing:42" {
		t.Errorf("the key is %q", s.Key())
	}
	for name, err := range map[string]error{
		"TryLockNS":     second(in.TryLockNS(bg, "42")),
		"WithNamespace": second(l.TryLock(bg, "42", locker.WithNamespace("billing"))),
		"the whole key": second(l.TryLock(bg, "billing:42")),
		"TryDo":         in.TryDo(bg, "42", func(context.Context, *locker.Lease) error { return nil }),
	} {
		if !errors.Is(err, locker.ErrHeld) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, held, err := in.Inspect(bg, "42"); !held || err != nil {
		t.Errorf("Inspect: %v, %v", held, err)
	}
	if other := mustLock(t, in, "42", locker.WithNamespace("other")); other.Key() != "other:42" {
		t.Errorf("the key is %q", other.Key())
	}
	if key, err := in.Key("1"); key != "billing:1" || err != nil {
		t.Errorf("Key: %q, %v", key, err)
	}
	_, err := l.Namespace("a:b").TryLock(bg, "42")
	wantError(t, err, locker.CodeInvalidKey, locker.ErrInvalidKey)
	if err := in.TryDo(bg, "7", func(_ context.Context, s *locker.Lease) error {
		if s.Key() != "billing:7" || s.Token() == 0 {
			t.Errorf("%q, token %d", s.Key(), s.Token())
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func second(_ *locker.Lease, err error) error { return err }

// A wait through an outage is told of once when it begins and once when it ends, by however many.
func TestOutageEvents(t *testing.T) {
	f := &fake{}
	rec := &recorder{}
	bubble(t, f, locker.Config{Observer: rec}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k")
		waiters := line(l, bg, 3)
		f.set(unavailable)
		time.Sleep(time.Minute)
		f.set(nil)
		time.Sleep(time.Minute)
		_ = s.Unlock(bg)
		for _, w := range waiters {
			_ = (<-w).lease(t).Unlock(bg)
		}
		synctest.Wait()
		var outages []string
		for _, kind := range rec.kinds("k") {
			if kind == "Outage" || kind == "Recovered" {
				outages = append(outages, kind)
			}
		}
		if got := fmt.Sprint(outages); got != "[Outage Recovered]" {
			t.Errorf("got %s", got)
		}
	})
}

// An outage is told to be over also where all who waited have left: nobody would find its end.
func TestOutageNobodyWaitsFor(t *testing.T) {
	for name, b := range map[string]func(*fake) driver.Backend{
		"by timer": func(f *fake) driver.Backend { return f },
		"natively": func(f *fake) driver.Backend { return waiting{f} },
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{hook: unavailable}
			rec := &recorder{}
			bubbleOf(t, b(f), locker.Config{Observer: rec}, func(t *testing.T, l *locker.Locker) {
				ctx, cancel := context.WithTimeout(bg, time.Minute)
				defer cancel()
				_, err := l.Lock(ctx, "k")
				wantError(t, err, locker.CodeUnavailable, context.DeadlineExceeded)
				synctest.Wait()
				var outages []string
				for _, e := range rec.all() {
					if e.Kind == locker.EventOutage || e.Kind == locker.EventRecovered {
						outages = append(outages, e.Kind.String())
						wantError(t, e.Err, locker.CodeUnavailable)
					}
				}
				if got := fmt.Sprint(outages); got != "[Outage Recovered]" {
					t.Errorf("got %s", got)
				}
			})
		})
	}
}
