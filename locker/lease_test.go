//go:build go1.25

package locker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// bubble runs each case on virtual time, with a Locker that is closed at the end: a
// goroutine that is left over fails it (CLO-004).
func bubble(t *testing.T, f *fake, cfg locker.Config, run func(t *testing.T, l *locker.Locker)) {
	t.Helper()
	bubbleOf(t, f, cfg, run)
}

func bubbleOf(t *testing.T, b driver.Backend, cfg locker.Config, run func(t *testing.T, l *locker.Locker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLocker(t, b, cfg)
		run(t, l)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = l.Close(ctx)
	})
}

var bg = context.Background()

// LOSS-001, TTL-002: Done closes at the local deadline, earlier than the store's end by the
// drift and the way there, although the backend says nothing.
func TestLeaseEndsAtItsLocalDeadline(t *testing.T) {
	for name, c := range map[string]struct {
		opts []locker.Option
		want time.Duration
	}{
		"default drift": {nil, 9900 * time.Millisecond},
		"own drift":     {[]locker.Option{locker.WithDriftFactor(0.2)}, 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{hook: only("acquire", slow(time.Second))}
			bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
				began := time.Now()
				s, err := l.Lock(bg, "k", append(c.opts, locker.WithTTL(10*time.Second))...)
				if err != nil {
					t.Fatal(err)
				}
				if d, ok := s.Deadline(); !ok || d.Sub(began) != c.want {
					t.Errorf("deadline %s, %v after the call, want %s", d.Sub(began), ok, c.want)
				}
				<-s.Done()
				if got := time.Since(began); got != c.want {
					t.Errorf("Done after %s, want %s", got, c.want)
				}
				wantError(t, s.Err(), locker.CodeLost, locker.ErrLost, driver.ErrExpired)
				if !f.held("k") {
					t.Error("the store's lease ended before the holder's")
				}
			})
		})
	}
}

// A LocalClock backend ends holds itself; the core still never believes in one that is over.
func TestLocalClock(t *testing.T) {
	f := &fake{caps: driver.Capabilities{Has: driver.NewSet(driver.LocalClock)}}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k", locker.WithTTL(time.Second))
		time.Sleep(time.Second - 1)
		if s.Err() != nil || isDone(s) {
			t.Error("ended early")
		}
		time.Sleep(time.Nanosecond)
		wantError(t, s.Err(), locker.CodeLost, driver.ErrExpired)
		wantError(t, s.Unlock(bg), locker.CodeLost, driver.ErrExpired)
		synctest.Wait()
		if n := f.count("release"); n != 0 {
			t.Errorf("%d releases of what is over by the same clock", n)
		}
	})
}

func TestExtend(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k", locker.WithTTL(10*time.Second))
		token := s.Token()
		time.Sleep(9 * time.Second)
		if err := s.Extend(bg, 10*time.Second); err != nil { // EXT-001: from now
			t.Fatal(err)
		}
		time.Sleep(9 * time.Second)
		if s.Err() != nil || s.Token() != token { // TOK-002
			t.Fatalf("%v, token %d after %d", s.Err(), s.Token(), token)
		}
		if err := s.Extend(bg, time.Second); err != nil { // may shorten: from 1 s left to 1 s, then to 100 ms
			t.Fatal(err)
		}
		if err := s.Extend(bg, 100*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		time.Sleep(99 * time.Millisecond)
		if !isDone(s) {
			t.Error("not shortened")
		}
		wantError(t, s.Extend(bg, time.Second), locker.CodeLost, driver.ErrExpired) // EXT-002
		if n := f.count("extend"); n != 3 {
			t.Errorf("%d calls, want none after the end", n)
		}
	})
}

// EXT-003: after an unknown outcome the earlier of the two deadlines holds.
func TestExtendUnknown(t *testing.T) {
	for name, c := range map[string]struct{ d, want time.Duration }{
		"longer":  {time.Minute, 9900 * time.Millisecond},
		"shorter": {time.Second, 990 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{hook: only("extend", lostReply)}
			bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
				s := mustLock(t, l, "k", locker.WithTTL(10*time.Second))
				began := time.Now()
				wantError(t, s.Extend(bg, c.d), locker.CodeUnavailable, locker.ErrUnavailable)
				if s.Err() != nil {
					t.Error("the hold has ended")
				}
				<-s.Done()
				if got := time.Since(began); got != c.want {
					t.Errorf("ended after %s, want %s", got, c.want)
				}
			})
		})
	}
}

// A request whose connection broke can reach the store after a later one, and then cuts
// short what that one was granted: a hold is believed in for no longer than that.
func TestExtendAfterUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		late, next, want time.Duration
	}{
		"the late one is shorter": {2 * time.Second, time.Minute, 1980 * time.Millisecond},
		"the late one is longer":  {time.Minute, 2 * time.Second, 1980 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
				s := mustLock(t, l, "k", locker.WithTTL(10*time.Second))
				f.set(only("extend", unavailable))
				wantError(t, s.Extend(bg, c.late), locker.CodeUnavailable)
				f.set(nil)
				began := time.Now()
				if err := s.Extend(bg, c.next); err != nil {
					t.Fatal(err)
				}
				<-s.Done()
				if got := time.Since(began); got != c.want {
					t.Errorf("believed for %s, want %s", got, c.want)
				}
			})
		})
	}
}

// After an unknown outcome the backend's clock may go on for longer than the hold: the core
// ends it, and Unlock gives back what is left.
func TestExtendUnknownOnLocalClock(t *testing.T) {
	f := &fake{caps: driver.Capabilities{Has: driver.NewSet(driver.LocalClock)}}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k", locker.WithTTL(time.Minute))
		done := s.Done()
		f.set(only("extend", unavailable))
		wantError(t, s.Extend(bg, time.Second), locker.CodeUnavailable)
		began := time.Now()
		<-done
		if d := time.Since(began); d != time.Second {
			t.Errorf("Done after %s", d)
		}
		wantError(t, s.Unlock(bg), locker.CodeLost, driver.ErrExpired)
		synctest.Wait()
		f.nothingHeld(t)
	})
}

// What happened to an earlier attempt says nothing of the repeated one, whenever it is told.
func TestLossOfAnEarlierAttempt(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint("late ", late), func(t *testing.T) {
			f := &fake{}
			b := &firstIsLost{fake: f, late: late}
			bubbleOf(t, b, locker.Config{}, func(t *testing.T, l *locker.Locker) {
				s, err := l.Lock(bg, "k")
				if err != nil {
					t.Fatal(err)
				}
				if late {
					b.first.Lost(driver.ErrLost)
				}
				if s.Err() != nil {
					t.Errorf("ended by the loss of an earlier attempt: %v", s.Err())
				}
				f.lose("k", driver.ErrLost)
				wantError(t, s.Err(), locker.CodeLost, locker.ErrLost)
			})
		})
	}
}

// firstIsLost loses the reply of the first attempt, and then what it was granted.
type firstIsLost struct {
	*fake
	late  bool
	first driver.Listener
}

func (b *firstIsLost) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	if b.first != nil {
		return b.fake.Acquire(ctx, r)
	}
	if b.first = r.Hold; !b.late {
		b.first.Lost(driver.ErrExpired)
	}
	return driver.Grant{}, driver.ErrUnavailable
}

func TestExtendWhileTheHoldEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(f *fake, l *locker.Locker, s *locker.Lease)
		code locker.Code
		is   error
	}{
		"deadline": {func(*fake, *locker.Locker, *locker.Lease) {}, locker.CodeLost, driver.ErrExpired},
		"lost":     {func(f *fake, _ *locker.Locker, _ *locker.Lease) { f.lose("k", driver.ErrLost) }, locker.CodeLost, locker.ErrLost},
		"unlock": {func(_ *fake, _ *locker.Locker, s *locker.Lease) {
			if err := s.Unlock(bg); err != nil {
				panic(err)
			}
		}, locker.CodeReleased, locker.ErrReleased},
		"close": {func(_ *fake, l *locker.Locker, _ *locker.Lease) { _ = l.Close(bg) }, locker.CodeClosed, locker.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
				s := mustLock(t, l, "k", locker.WithTTL(10*time.Second))
				f.set(only("extend", slow(time.Second))) // carried out after 1 s, answered after 2 s
				time.Sleep(8500 * time.Millisecond)
				extended := make(chan error)
				go func() { extended <- s.Extend(bg, time.Hour) }()
				time.Sleep(500 * time.Millisecond)
				synctest.Wait()
				c.end(f, l, s)
				wantError(t, <-extended, c.code, c.is)
				wantError(t, s.Err(), c.code, c.is) // never brought back
				synctest.Wait()
				f.nothingHeld(t) // nor is the store's hour left to run
			})
		})
	}
}

// An answer that took longer than what it grants grants nothing.
func TestExtendTooSlow(t *testing.T) {
	f := &fake{caps: driver.Capabilities{Has: driver.NewSet(driver.LocalClock)}}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k", locker.WithTTL(10*time.Second))
		f.set(only("extend", slow(time.Second)))
		wantError(t, s.Extend(bg, time.Second), locker.CodeLost, driver.ErrExpired)
	})
}

func TestExtendsTakeTurns(t *testing.T) {
	f := &fake{hook: only("extend", slow(time.Second))}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k", locker.WithTTL(time.Hour))
		go func() { _ = s.Extend(bg, time.Minute) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		wantError(t, s.Extend(ctx, time.Second), locker.CodeCanceled, context.DeadlineExceeded)
		if err := s.Extend(bg, 30*time.Minute); err != nil {
			t.Error(err)
		}
		if d, _ := s.Deadline(); time.Until(d) > 30*time.Minute {
			t.Errorf("deadline in %s", time.Until(d))
		}
	})
}

func TestUnlock(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k")
		if err := s.Unlock(bg); err != nil {
			t.Fatal(err)
		}
		f.nothingHeld(t)
		wantError(t, s.Unlock(bg), locker.CodeReleased, locker.ErrReleased)
		wantError(t, s.Extend(bg, time.Second), locker.CodeReleased)
		if n := f.count("release"); n != 1 {
			t.Errorf("%d releases, want 1 (REL-003)", n)
		}

		// REL-003: of many exactly one is nil.
		f.set(only("release", slow(time.Second)))
		s = mustLock(t, l, "k")
		var wg sync.WaitGroup
		var oks, released atomic.Int64
		for range 20 {
			wg.Go(func() {
				switch err := s.Unlock(bg); {
				case err == nil:
					oks.Add(1)
				case errors.Is(err, locker.ErrReleased):
					released.Add(1)
				}
			})
		}
		synctest.Wait()
		if !isDone(s) {
			t.Error("Done is open while the backend is being told")
		}
		wg.Wait()
		if oks.Load() != 1 || released.Load() != 19 {
			t.Errorf("%d nil, %d ErrReleased", oks.Load(), released.Load())
		}

		// REL-002, with the next holder untouched.
		f.set(nil)
		s = mustLock(t, l, "k", locker.WithTTL(time.Second))
		time.Sleep(time.Second)
		next := mustLock(t, l, "k")
		wantError(t, s.Unlock(bg), locker.CodeLost, locker.ErrLost)
		synctest.Wait()
		if !f.held("k") || next.Err() != nil {
			t.Error("the next holder was touched")
		}
		// Lost without notice: only the store knows.
		f.mu.Lock()
		delete(f.holds, "k")
		f.mu.Unlock()
		wantError(t, next.Unlock(bg), locker.CodeLost, locker.ErrLost)
		wantError(t, next.Unlock(bg), locker.CodeReleased, locker.ErrReleased)
	})
}

// What the drift allowance leaves of a lease is given back by Unlock rather than left to run out.
func TestUnlockInTheDrift(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k", locker.WithTTL(time.Hour), locker.WithDriftFactor(0.5))
		<-s.Done()
		for range 2 {
			wantError(t, s.Unlock(bg), locker.CodeLost, driver.ErrExpired)
		}
		synctest.Wait()
		f.nothingHeld(t)
		if n := f.count("release"); n != 1 {
			t.Errorf("%d releases, want 1", n)
		}
	})
}

// REL-004: a cancelled ctx does not keep Unlock from releasing, in bounded time.
func TestUnlockWithEndedCtx(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		ctx, cancel := context.WithCancel(bg)
		cancel()
		if err := mustLock(t, l, "k").Unlock(ctx); err != nil {
			t.Error(err)
		}
		f.nothingHeld(t)
		s := mustLock(t, l, "k")
		f.set(only("release", hung))
		began := time.Now()
		wantError(t, s.Unlock(ctx), locker.CodeUnavailable, locker.ErrUnavailable)
		if d := time.Since(began); d != 5*time.Second {
			t.Errorf("it took %s", d)
		}
		f.set(nil)
	})
}

// REL-005: the reply is lost; Unlock may be called again, and the background repeats too.
func TestUnlockUnconfirmed(t *testing.T) {
	t.Run("done", func(t *testing.T) {
		f := &fake{hook: only("release", lostReply)}
		bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
			s := mustLock(t, l, "k", locker.WithTTL(time.Minute))
			wantError(t, s.Unlock(bg), locker.CodeUnavailable, locker.ErrUnavailable)
			f.nothingHeld(t)
			f.set(nil)
			if err := s.Unlock(bg); err != nil {
				t.Errorf("the second: %v", err)
			}
			wantError(t, s.Unlock(bg), locker.CodeReleased, locker.ErrReleased)
		})
	})
	t.Run("another waits for it", func(t *testing.T) {
		f := &fake{}
		bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
			s := mustLock(t, l, "k", locker.WithTTL(time.Minute))
			f.set(only("release", func(ctx context.Context, op, key string, do func() error) error {
				_ = slow(time.Second)(ctx, op, key, do)
				return driver.ErrUnavailable
			}))
			first := make(chan error)
			go func() { first <- s.Unlock(bg) }()
			synctest.Wait()
			ended, cancel := context.WithCancel(bg)
			cancel()
			short, cancel := context.WithTimeout(bg, time.Second)
			defer cancel()
			wantError(t, s.Unlock(short), locker.CodeUnavailable, context.DeadlineExceeded)
			second := make(chan error)
			go func() { second <- s.Unlock(ended) }() // REL-004 holds for the wait too
			synctest.Wait()
			f.set(nil)
			wantError(t, <-first, locker.CodeUnavailable)
			if err := <-second; err != nil {
				t.Errorf("the second: %v", err)
			}
		})
	})
	t.Run("not done", func(t *testing.T) {
		f := &fake{hook: only("release", unavailable)}
		bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
			s := mustLock(t, l, "k", locker.WithTTL(time.Minute))
			wantError(t, s.Unlock(bg), locker.CodeUnavailable, locker.ErrUnavailable)
			wantError(t, s.Unlock(bg), locker.CodeUnavailable, locker.ErrUnavailable)
			if !isDone(s) || !f.held("k") {
				t.Error("want it ended here and held there")
			}
			time.Sleep(3 * time.Second)
			f.set(nil) // the backend is back
			time.Sleep(200 * time.Millisecond)
			f.nothingHeld(t)
			if err := s.Unlock(bg); err != nil { // the background did it
				t.Error(err)
			}
		})
	})
}

// CTX-004, FLT-001: an attempt whose outcome is unknown is taken back.
func TestUnknownAcquireIsTakenBack(t *testing.T) {
	t.Run("at once", func(t *testing.T) {
		f := &fake{hook: only("acquire", lostReply)}
		bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
			_, err := l.TryLock(bg, "k")
			wantError(t, err, locker.CodeUnavailable, locker.ErrUnavailable)
			synctest.Wait()
			f.nothingHeld(t)
		})
	})
	t.Run("when the backend is back", func(t *testing.T) {
		f := &fake{caps: driver.Capabilities{SessionValidity: time.Minute}}
		bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
			f.set(func(ctx context.Context, op, key string, do func() error) error {
				if op == "acquire" {
					_ = do()
				}
				return driver.ErrUnavailable
			})
			for i := range 100 {
				_, err := l.TryLock(bg, fmt.Sprint("k", i))
				wantError(t, err, locker.CodeUnavailable)
			}
			time.Sleep(10 * time.Second)
			if n := f.count("release"); n > 100+10*8*20 {
				t.Errorf("%d releases in 10 s of outage", n)
			}
			f.set(nil)
			time.Sleep(200 * time.Millisecond)
			f.nothingHeld(t)
			n := f.count("release")
			time.Sleep(time.Minute)
			if f.count("release") != n {
				t.Error("it goes on when all is done")
			}
		})
	})
	t.Run("ctx ends in flight", func(t *testing.T) {
		f := &fake{hook: only("acquire", slow(time.Second))}
		bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
			ctx, cancel := context.WithTimeoutCause(bg, 1500*time.Millisecond, errBoom)
			defer cancel()
			_, err := l.Lock(ctx, "k")
			wantError(t, err, locker.CodeUnavailable, context.DeadlineExceeded, errBoom, locker.ErrUnavailable)
			synctest.Wait()
			f.nothingHeld(t)
		})
	})
	t.Run("the retry wins", func(t *testing.T) { // FLT-001: no self-lock-out
		f := &fake{}
		lost := 0
		f.hook = only("acquire", func(ctx context.Context, op, key string, do func() error) error {
			err := do()
			if lost++; lost <= 2 {
				return driver.ErrUnavailable
			}
			return err
		})
		bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
			s, err := l.Lock(bg, "k")
			if err != nil || s.Token() != 1 {
				t.Fatalf("%v, %v", s.Token(), err)
			}
			synctest.Wait()
			if !f.held("k") || f.count("release") != 0 {
				t.Error("the winner was taken back")
			}
		})
	})
	t.Run("it gives up in the end", func(t *testing.T) {
		f := &fake{hook: unavailable}
		bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
			_, _ = l.TryLock(bg, "k", locker.WithTTL(20*time.Second))
			time.Sleep(20 * time.Second)
			n := f.count("release")
			time.Sleep(time.Hour)
			if f.count("release") > n+1 {
				t.Error("it goes on after the lease could have lived")
			}
		})
	})
}

// A hold that was over before the answer came is no hold, and is given back.
func TestGrantComesTooLate(t *testing.T) {
	for name, h := range map[string]hook{
		"deadline passed": slow(time.Minute),
		"lost before Acquire returned": func(_ context.Context, _, key string, do func() error) error {
			return do()
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{hook: only("acquire", h)}
			early := name != "deadline passed"
			rec := &recorder{}
			synctest.Test(t, func(t *testing.T) {
				var b driver.Backend = f
				if early {
					b = losesEarly{f}
				}
				l := newLocker(t, b, locker.Config{Observer: rec})
				s, err := l.TryLock(bg, "k", locker.WithTTL(30*time.Second))
				wantError(t, err, locker.CodeLost, locker.ErrLost)
				if s != nil {
					t.Error("a lease beside an error")
				}
				time.Sleep(5 * time.Minute)
				f.nothingHeld(t)
				// A Lock has patience: the next grant may come in time.
				ctx, cancel := context.WithTimeout(bg, 5*time.Minute)
				defer cancel()
				_, err = l.Lock(ctx, "k", locker.WithTTL(30*time.Second))
				time.Sleep(5 * time.Minute)
				f.nothingHeld(t)
				if early { // it was taken away: others may have seen it
					wantError(t, err, locker.CodeLost, locker.ErrLost)
					rec.want(t, "k", "Refused", "Refused")
					return
				}
				wantError(t, err, locker.CodeLost, locker.ErrLost, context.DeadlineExceeded)
				rec.want(t, "k", "Refused", "Waiting", "GaveUp")
				time.AfterFunc(time.Minute, func() { f.set(nil) })
				if s, err = l.Lock(bg, "k", locker.WithTTL(30*time.Second)); err != nil || s.Unlock(bg) != nil {
					t.Errorf("after the hang: %v", err)
				}
			})
		})
	}
}

// losesEarly announces the loss from within Acquire.
type losesEarly struct{ *fake }

func (b losesEarly) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	g, err := b.fake.Acquire(ctx, r)
	r.Hold.Lost(driver.ErrLost)
	r.Hold.Lost(driver.ErrExpired) // only the first counts
	return g, err
}

// LOSS-002, LOSS-004: the reason, in Err and as the ctx's cause.
func TestReasons(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(f *fake, l *locker.Locker, s *locker.Lease)
		code   locker.Code
		reason locker.Reason
		is     error
		isNot  error
	}{
		"expired": {func(*fake, *locker.Locker, *locker.Lease) { time.Sleep(time.Minute) }, locker.CodeLost, locker.ReasonExpired, driver.ErrExpired, locker.ErrReleased},
		"told so": {func(f *fake, _ *locker.Locker, _ *locker.Lease) { f.lose("k", driver.ErrExpired) }, locker.CodeLost, locker.ReasonExpired, driver.ErrExpired, nil},
		"deleted": {func(f *fake, _ *locker.Locker, _ *locker.Lease) {
			f.lose("k", fmt.Errorf("deleted: %w", driver.ErrLost))
		}, locker.CodeLost, locker.ReasonLost, locker.ErrLost, driver.ErrExpired},
		"nil cause":   {func(f *fake, _ *locker.Locker, _ *locker.Lease) { f.lose("k", nil) }, locker.CodeLost, locker.ReasonLost, locker.ErrLost, nil},
		"unreachable": {func(f *fake, _ *locker.Locker, _ *locker.Lease) { f.lose("k", driver.ErrUnavailable) }, locker.CodeLost, locker.ReasonUnreachable, locker.ErrLost, locker.ErrUnavailable},
		"released":    {func(_ *fake, _ *locker.Locker, s *locker.Lease) { _ = s.Unlock(bg) }, locker.CodeReleased, locker.ReasonReleased, locker.ErrReleased, locker.ErrLost},
		"closed":      {func(_ *fake, l *locker.Locker, _ *locker.Lease) { _ = l.Close(bg) }, locker.CodeClosed, locker.ReasonClosed, locker.ErrClosed, locker.ErrLost},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
				s := mustLock(t, l, "k", locker.WithTTL(time.Minute))
				ctx, cancel := s.Context(bg)
				defer cancel()
				cancelled, cancelNow := s.Context(bg)
				cancelNow()
				c.end(f, l, s)
				late, cancelLate := s.Context(bg)
				defer cancelLate()
				<-s.Done()
				for _, err := range []error{s.Err(), context.Cause(ctx), context.Cause(late)} {
					wantError(t, err, c.code, c.is)
					var e *locker.Error
					if errors.As(err, &e) && e.Reason != c.reason {
						t.Errorf("reason %v, want %v", e.Reason, c.reason)
					}
					if c.isNot != nil && errors.Is(err, c.isNot) {
						t.Errorf("%q matches %q", err, c.isNot)
					}
				}
				if context.Cause(cancelled) != context.Canceled {
					t.Errorf("after cancel: %v", context.Cause(cancelled))
				}
				if found, ok := locker.FromContext(late); !ok || found != s {
					t.Error("FromContext")
				}
			})
		})
	}
}

func TestOnlyTheFirstLossCounts(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k")
		done, hold := s.Done(), f.holds["k"].listener
		for range 2 {
			hold.Lost(driver.ErrUnavailable)
			hold.Lost(driver.ErrExpired)
		}
		<-done
		var e *locker.Error
		if !errors.As(s.Err(), &e) || e.Reason != locker.ReasonUnreachable {
			t.Errorf("%v", s.Err())
		}
	})
}

// The tokens of one Locker's holds of one key rise, and owners are never the same.
func TestOwnersAreUnique(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		owners := map[driver.Owner]bool{}
		for i := range 100 {
			s := mustLock(t, l, "k")
			owners[f.holds["k"].owner] = true
			if s.Token() != uint64(i+1) {
				t.Errorf("token %d", s.Token())
			}
			if err := s.Unlock(bg); err != nil {
				t.Error(err)
			}
		}
		if len(owners) != 100 {
			t.Errorf("%d owners of 100 holds", len(owners))
		}
	})
}

func TestDo(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		var inside context.Context
		n, err := locker.Call(bg, l, "k", func(ctx context.Context, _ *locker.Lease) (int, error) {
			inside = ctx
			if s, ok := locker.FromContext(ctx); !ok || s.Token() != 1 || !f.held("k") {
				t.Error("not under the lock")
			}
			return 7, errBoom
		})
		if n != 7 || err != errBoom {
			t.Errorf("%d, %v", n, err)
		}
		if inside.Err() == nil {
			t.Error("fn's ctx lives on")
		}
		f.nothingHeld(t)

		t.Log("a panic goes on, with the lock released")
		func() {
			defer func() {
				if r := recover(); r != "oh" {
					t.Errorf("recovered %v", r)
				}
			}()
			_ = l.Do(bg, "k", func(context.Context, *locker.Lease) error { panic("oh") })
		}()
		f.nothingHeld(t)

		t.Log("a lost hold is an error whatever fn says")
		err = l.Do(bg, "k", func(ctx context.Context, _ *locker.Lease) error {
			f.lose("k", driver.ErrLost)
			<-ctx.Done()
			wantError(t, context.Cause(ctx), locker.CodeLost, locker.ErrLost)
			return nil
		})
		wantError(t, err, locker.CodeLost, locker.ErrLost)
		err = l.Do(bg, "k", func(context.Context, *locker.Lease) error {
			f.lose("k", driver.ErrLost)
			return errBoom
		})
		if !errors.Is(err, locker.ErrLost) || !errors.Is(err, errBoom) {
			t.Error(err)
		}

		t.Log("fn unlocks by itself")
		err = l.Do(bg, "k", func(ctx context.Context, _ *locker.Lease) error {
			s, _ := locker.FromContext(ctx)
			return s.Unlock(ctx)
		})
		if err != nil {
			t.Error(err)
		}

		t.Log("the caller's ctx ends")
		ctx, cancel := context.WithCancel(bg)
		err = l.Do(ctx, "k", func(ctx context.Context, _ *locker.Lease) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		f.nothingHeld(t)

		t.Log("no lock, no fn")
		release := f.take("k", 0)
		err = l.Do(bg, "k", func(context.Context, *locker.Lease) error {
			t.Error("fn ran")
			return nil
		}, locker.WithRetry(locker.NoRetry()))
		wantError(t, err, locker.CodeHeld, locker.ErrHeld)
		release()

		t.Log("Close inside")
		err = l.Do(bg, "k", func(context.Context, *locker.Lease) error { return l.Close(bg) })
		wantError(t, err, locker.CodeClosed, locker.ErrClosed)
	})
}

// Of several requests that may arrive late, the one that asks for least counts.
func TestExtendAfterTwoUnknown(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k", locker.WithTTL(10*time.Second))
		f.set(only("extend", unavailable))
		for _, d := range []time.Duration{2 * time.Second, time.Minute} {
			wantError(t, s.Extend(bg, d), locker.CodeUnavailable)
		}
		f.set(nil)
		began := time.Now()
		if err := s.Extend(bg, time.Minute); err != nil {
			t.Fatal(err)
		}
		<-s.Done()
		if got := time.Since(began); got != 1980*time.Millisecond {
			t.Errorf("believed for %s", got)
		}
	})
}
