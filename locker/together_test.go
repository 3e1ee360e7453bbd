//go:build go1.25

package locker_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// stepping is a fake that takes several keys in one step.
type stepping struct {
	*fake
	short bool // a grant is missing
}

func (s stepping) AcquireAll(ctx context.Context, rs []driver.Request) (grants []driver.Grant, at int, err error) {
	var keys []string
	for _, r := range rs {
		keys = append(keys, r.Key)
	}
	at = -1
	err = s.run(ctx, "all", strings.Join(keys, " "), func() error {
		for i, r := range rs {
			if h := s.live(r.Key); h != nil && h.owner != r.Owner {
				at = i
				return driver.Held(time.Until(h.until))
			}
		}
		if s.holds == nil {
			s.holds = make(map[string]*fakeHold)
		}
		for _, r := range rs {
			s.token++
			s.holds[r.Key] = &fakeHold{Request: r, owner: r.Owner, token: s.token, ttl: r.TTL, until: time.Now().Add(r.TTL), listener: r.Hold}
			grants = append(grants, driver.Grant{Token: s.token, TTL: r.TTL})
		}
		return nil
	})
	if s.short && err == nil {
		grants = grants[1:]
	}
	return grants, at, err
}

// MULTI-001, MULTI-004: one call, one deadline, an event for each.
func TestLockAllInOneStep(t *testing.T) {
	f := &fake{}
	rec := &recorder{}
	bubbleOf(t, stepping{fake: f}, locker.Config{Observer: rec}, func(t *testing.T, l *locker.Locker) {
		all, err := l.Namespace("n").LockAll(bg, []string{"b", "a"}, locker.WithTTL(time.Minute), locker.WithLabel("l"))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(f.calls, []string{"all n:a n:b"}) || !slices.Equal(all.Keys(), []string{"n:a", "n:b"}) {
			t.Errorf("%q, %q", f.calls, all.Keys())
		}
		events := rec.all()
		for i, e := range events[:min(len(events), 2)] {
			if e.Kind != locker.EventAcquired || e.Key != all.Keys()[i] || e.Label != "l" || e.Token != all.Token(e.Key) || e.Queued {
				t.Errorf("%+v", e)
			}
		}
		if len(events) != 2 {
			t.Error(events)
		}
		time.Sleep(time.Minute)
		if reasonOf(all.Err()) != locker.ReasonExpired {
			t.Error(all.Err(), "are they kept?")
		}
	})
}

// Whatever goes wrong after the step was sent, nothing stays held.
func TestLockAllStepFails(t *testing.T) {
	once := locker.WithRetry(locker.NoRetry())
	for name, c := range map[string]struct {
		short bool
		hook  func(*fake) hook
		want  error
	}{
		"the reply is lost": {false, func(*fake) hook {
			return func(_ context.Context, op, _ string, do func() error) error {
				if err := do(); op != "all" || err != nil {
					return err
				}
				return driver.ErrUnavailable
			}
		}, locker.ErrUnavailable},
		"one is lost before the reply": {false, func(f *fake) hook {
			return func(_ context.Context, op, _ string, do func() error) error {
				err := do()
				if op == "all" {
					f.lose("b", driver.ErrLost)
				}
				return err
			}
		}, locker.ErrLost},
		"a grant is missing": {true, func(*fake) hook { return nil }, locker.ErrUnavailable},
		"the store refuses": {false, func(*fake) hook {
			return func(_ context.Context, op, _ string, do func() error) error {
				if op == "all" {
					return driver.ErrRefused
				}
				return do()
			}
		}, locker.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			bubbleOf(t, stepping{f, c.short}, locker.Config{}, func(t *testing.T, l *locker.Locker) {
				f.set(c.hook(f))
				_, err := l.LockAll(bg, []string{"a", "b", "c"}, locker.WithTTL(time.Minute), once)
				if !errors.Is(err, c.want) {
					t.Errorf("%v; want %v", err, c.want)
				}
				synctest.Wait()
				f.nothingHeld(t)
				if n := f.count("all"); n != 1 || f.count("acquire") != 0 {
					t.Errorf("%q", f.calls)
				}
				if n := f.count("release"); c.want == locker.ErrUnavailable && name != "the store refuses" && n != 3 || name == "the store refuses" && n != 0 {
					t.Errorf("%d releases: %q", n, f.calls)
				}
			})
		})
	}
}

// A Locker that is closed, a namespace that is none, and a ctx that has ended ask nothing.
func TestLockAllAsksNothing(t *testing.T) {
	f := &fake{}
	bubbleOf(t, stepping{fake: f}, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		ended, cancel := context.WithCancel(bg)
		cancel()
		_, err := l.LockAll(ended, []string{"a", "b"})
		wantError(t, err, locker.CodeCanceled, context.Canceled)
		_, err = l.Namespace("a:b").LockAll(bg, []string{"a", "b"})
		wantError(t, err, locker.CodeInvalidKey, locker.ErrInvalidKey)
		if err := l.Close(bg); err != nil {
			t.Fatal(err)
		}
		_, err = l.LockAll(bg, []string{"a", "b"})
		wantError(t, err, locker.CodeClosed, locker.ErrClosed)
		if n := f.count("all"); n != 0 {
			t.Errorf("%q", f.calls)
		}
	})
}
