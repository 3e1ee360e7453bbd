//go:build go1.25

package locker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

func steady(attempts int) locker.Option {
	if attempts == 0 {
		attempts = locker.None
	}
	return locker.WithRetry(locker.Retry{Attempts: attempts, Delay: 100 * time.Millisecond, Jitter: locker.NoJitter})
}

// WAIT-002: the first attempt, then up to Attempts timed ones; exhausted is ErrHeld.
func TestRetryAttempts(t *testing.T) {
	for _, attempts := range []int{0, 1, 3} {
		t.Run(fmt.Sprint(attempts), func(t *testing.T) {
			f := &fake{quiet: true}
			bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
				f.take("k", 0)
				began, before := time.Now(), f.count("acquire")
				_, err := l.Lock(bg, "k", steady(attempts))
				wantError(t, err, locker.CodeHeld, locker.ErrHeld)
				if got, want := time.Since(began), time.Duration(attempts)*100*time.Millisecond; got != want {
					t.Errorf("gave up after %s, want %s", got, want)
				}
				want := 1 + attempts
				if attempts > 0 {
					want++ // the early one, after wake-ups were asked for
				}
				if got := f.count("acquire") - before; got != want {
					t.Errorf("%d attempts, want %d", got, want)
				}
			})
		})
	}
}

func TestRetryJitter(t *testing.T) {
	f := &fake{quiet: true}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		f.take("k", 0)
		var times []time.Time
		f.set(func(_ context.Context, _, _ string, do func() error) error {
			times = append(times, time.Now())
			return do()
		})
		_, _ = l.Lock(bg, "k", locker.WithRetry(locker.Retry{Attempts: 100, Delay: 100 * time.Millisecond, Jitter: 100 * time.Millisecond}))
		f.set(nil)
		var least, most time.Duration = time.Hour, 0
		for i := 2; i < len(times); i++ { // 0 and 1 are not timed
			least, most = min(least, times[i].Sub(times[i-1])), max(most, times[i].Sub(times[i-1]))
		}
		if least < time.Millisecond || least > 50*time.Millisecond || most < 150*time.Millisecond || most > 200*time.Millisecond {
			t.Errorf("delays from %s to %s", least, most)
		}
	})
}

// Early wake-ups use up no attempt: a hundred hints, and still all the patience.
func TestEarlyWakeupsUseNoAttempt(t *testing.T) {
	f := &fake{quiet: true}
	bubbleOf(t, notifying{f}, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		f.take("k", 0)
		began := time.Now()
		failed := make(chan error, 1)
		go func() {
			_, err := l.Lock(bg, "k", steady(2))
			failed <- err
		}()
		for range 100 {
			time.Sleep(time.Millisecond)
			f.mu.Lock()
			if wake := f.wakes["k"]; wake != nil {
				wake()
			}
			f.mu.Unlock()
		}
		wantError(t, <-failed, locker.CodeHeld)
		if got := time.Since(began); got != 200*time.Millisecond {
			t.Errorf("gave up after %s, want 200ms", got)
		}
		if n := f.count("acquire"); n < 100 {
			t.Errorf("%d attempts: the wake-ups were not used", n)
		}
		if len(f.wakes) != 0 {
			t.Error("Notify was not stopped")
		}
	})
}

// WAIT-001: the release wakes, not the poll.
func TestWakeup(t *testing.T) {
	f := &fake{}
	bubbleOf(t, notifying{f}, locker.Config{Retry: locker.Retry{Attempts: locker.Forever, Delay: time.Hour, Jitter: locker.NoJitter}}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k")
		got := make(chan *locker.Lease)
		go func() {
			s, err := l.Lock(bg, "k")
			if err != nil {
				t.Error(err)
			}
			got <- s
		}()
		time.Sleep(time.Second)
		released := time.Now()
		_ = s.Unlock(bg)
		next := <-got
		if d := time.Since(released); d != 0 {
			t.Errorf("woken after %s", d)
		}
		if next.Token() <= s.Token() {
			t.Error("the token did not rise")
		}
	})
}

// WAIT-001, WAIT-003: within one Locker no hint of the backend's is needed, and no poll.
func TestWakeupWithoutHints(t *testing.T) {
	f := &fake{quiet: true}
	bubbleOf(t, plain{f}, locker.Config{Retry: locker.Retry{Attempts: locker.Forever, Delay: time.Hour, Jitter: locker.NoJitter}}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k")
		began := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				s, err := l.Lock(bg, "k")
				if err != nil {
					t.Error(err)
					return
				}
				_ = s.Unlock(bg)
			})
			synctest.Wait()
		}
		_ = s.Unlock(bg)
		wg.Wait()
		if d := time.Since(began); d != 0 {
			t.Errorf("they waited for %s", d)
		}
	})
}

// A release between the first attempt and the registration must not be missed.
func TestReleaseBeforeNotify(t *testing.T) {
	f := &fake{}
	b := lateNotify{notifying{f}, nil}
	bubbleOf(t, &b, locker.Config{Retry: locker.Retry{Attempts: locker.Forever, Delay: time.Hour, Jitter: locker.NoJitter}}, func(t *testing.T, l *locker.Locker) {
		b.release = f.take("k", 0)
		began := time.Now()
		if _, err := l.Lock(bg, "k"); err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

type lateNotify struct {
	notifying
	release func()
}

func (b *lateNotify) Notify(key string, wake func()) func() {
	b.release()
	return b.notifying.Notify(key, wake)
}

// TTL-001: the timer at the end of the holder's time, whether or not anything is announced.
func TestWaiterWakesAtExpiry(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		f.take("k", 10*time.Second)
		began := time.Now()
		s, err := l.Lock(bg, "k", locker.WithRetry(locker.Retry{Attempts: 1, Delay: time.Hour, Jitter: locker.NoJitter}))
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != 10*time.Second+time.Millisecond {
			t.Errorf("%s after the attempt, want 10.001s", d)
		}
		if n := f.count("acquire"); n != 4 { // take, first, in front, at expiry
			t.Errorf("%d attempts", n)
		}
		_ = s.Unlock(bg)
	})
}

// The attempt at the holder's end is an early one too: the timed ones are still to come.
func TestExpiryUsesNoAttempt(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		f.take("k", time.Second)
		time.AfterFunc(500*time.Millisecond, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.holds["k"].until = time.Time{} // extended
		})
		began := time.Now()
		_, err := l.Lock(bg, "k", locker.WithRetry(locker.Retry{Attempts: 1, Delay: time.Hour, Jitter: locker.NoJitter}))
		wantError(t, err, locker.CodeHeld)
		if d := time.Since(began); d != time.Hour {
			t.Errorf("gave up after %s", d)
		}
	})
}

// WAIT-004: who comes while others wait gets in line, even if the key is free just now.
func TestNobodyJumpsTheLine(t *testing.T) {
	f := &fake{quiet: true}
	bubble(t, f, locker.Config{Retry: locker.Retry{Attempts: locker.Forever, Delay: time.Hour, Jitter: locker.NoJitter}}, func(t *testing.T, l *locker.Locker) {
		f.take("k", 0)
		first := make(chan error)
		go func() {
			s, err := l.Lock(bg, "k")
			if err == nil {
				err = s.Unlock(bg)
			}
			first <- err
		}()
		synctest.Wait()
		f.mu.Lock()
		delete(f.holds, "k") // nobody is told
		f.mu.Unlock()
		_, err := l.Lock(bg, "k", steady(1))
		wantError(t, err, locker.CodeHeld)
		if err := <-first; err != nil {
			t.Error(err)
		}
	})
}

// A rest that makes no sense is no rest, and no busy loop.
func TestStrangeRests(t *testing.T) {
	for _, rest := range []time.Duration{-1, -1 << 63, 1<<63 - 1, 0} {
		t.Run(rest.String(), func(t *testing.T) {
			f := &fake{}
			f.hook = only("acquire", func(context.Context, string, string, func() error) error { return driver.Held(rest) })
			bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
				_, err := l.Lock(bg, "k", steady(2))
				wantError(t, err, locker.CodeHeld)
				if n := f.count("acquire"); n > 205 {
					t.Errorf("%d attempts in 200 ms", n)
				}
			})
		})
	}
}

// WAIT-004: first come, first served, and only the front costs the store anything.
func TestFIFO(t *testing.T) {
	f := &fake{quiet: true}
	bubbleOf(t, notifying{f}, locker.Config{Retry: locker.Retry{Attempts: locker.Forever, Delay: time.Hour, Jitter: locker.NoJitter}}, func(t *testing.T, l *locker.Locker) {
		first := mustLock(t, l, "k")
		var (
			mu    sync.Mutex
			order []int
			wg    sync.WaitGroup
		)
		for i := range 50 {
			wg.Go(func() {
				s, err := l.Lock(bg, "k")
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				_ = s.Unlock(bg)
			})
			synctest.Wait()
		}
		before := f.count("acquire")
		_ = first.Unlock(bg)
		wg.Wait()
		if !slices.IsSorted(order) || len(order) != 50 {
			t.Errorf("served in the order %v", order)
		}
		if n := f.count("acquire") - before; n > 3*50 {
			t.Errorf("%d attempts for 50 grants", n)
		}
	})
}

// WAIT-003: whoever gives up at the moment of a release does not swallow the wake-up.
func TestGivingUpSwallowsNothing(t *testing.T) {
	f := &fake{quiet: true}
	bubbleOf(t, notifying{f}, locker.Config{Retry: locker.Retry{Attempts: locker.Forever, Delay: time.Hour, Jitter: locker.NoJitter}}, func(t *testing.T, l *locker.Locker) {
		for i := range 100 {
			s := mustLock(t, l, "k")
			ctx, cancel := context.WithCancel(bg)
			front := make(chan *locker.Lease, 1)
			go func() {
				s, _ := l.Lock(ctx, "k")
				front <- s
			}()
			synctest.Wait()
			second := make(chan *locker.Lease, 1)
			go func() {
				s, err := l.Lock(bg, "k")
				if err != nil {
					t.Error(err)
				}
				second <- s
			}()
			synctest.Wait()
			began := time.Now()
			if i%2 == 0 { // both at once, in either order
				go cancel()
				_ = s.Unlock(bg)
			} else {
				go func() { _ = s.Unlock(bg) }()
				cancel()
			}
			if s := <-front; s != nil {
				_ = s.Unlock(bg)
			}
			next := <-second
			if d := time.Since(began); d != 0 {
				t.Fatalf("the second waited %s", d)
			}
			_ = next.Unlock(bg)
			cancel()
			synctest.Wait()
		}
	})
}

// Those behind the front lose their patience, and their ctx, on their own; the front's end
// moves the next one up.
func TestLeavingTheLine(t *testing.T) {
	f := &fake{quiet: true}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		release := f.take("k", 0)
		ctx, cancel := context.WithCancel(bg)
		results := make([]chan error, 4)
		start := func(i int, ctx context.Context, opts ...locker.Option) {
			results[i] = make(chan error, 1)
			go func() {
				s, err := l.Lock(ctx, "k", opts...)
				if err == nil {
					err = s.Unlock(bg)
				}
				results[i] <- err
			}()
			synctest.Wait()
		}
		start(0, ctx)           // in front
		start(1, bg, steady(3)) // runs out of attempts behind it
		start(2, ctx)           // is cancelled behind it
		start(3, bg)
		wantError(t, <-results[1], locker.CodeHeld, locker.ErrHeld)
		cancel()
		wantError(t, <-results[0], locker.CodeHeld, locker.ErrHeld, context.Canceled)
		wantError(t, <-results[2], locker.CodeHeld, locker.ErrHeld, context.Canceled)
		release()
		if err := <-results[3]; err != nil {
			t.Error(err)
		}
	})
}

// CTX-003, ERR-002: an attempt that was cut short by its own ctx says nothing of the
// backend, neither to its caller nor to those behind.
func TestObstacleIsTheLastAnswer(t *testing.T) {
	f := &fake{quiet: true}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		f.take("k", 0)
		ctx, cancel := context.WithTimeoutCause(bg, 250*time.Millisecond, errBoom)
		defer cancel()
		front := make(chan error)
		go func() {
			_, err := l.Lock(ctx, "k", steady(-1))
			front <- err
		}()
		synctest.Wait()
		behind := make(chan error)
		go func() {
			_, err := l.Lock(bg, "k", locker.WithRetry(locker.Retry{Attempts: 1, Delay: 260 * time.Millisecond, Jitter: locker.NoJitter}))
			behind <- err
		}()
		synctest.Wait()
		f.set(only("acquire", slow(100*time.Millisecond))) // 200 ms: over at 250
		wantError(t, <-front, locker.CodeHeld, locker.ErrHeld, context.DeadlineExceeded, errBoom)
		err := <-behind
		wantError(t, err, locker.CodeHeld, locker.ErrHeld)
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q is the end of another's ctx", err)
		}
	})
}

// WAIT-006: through an outage, and FLT-005: a call ends with its ctx.
func TestOutage(t *testing.T) {
	for name, b := range map[string]func(*fake) driver.Backend{
		"by timer": func(f *fake) driver.Backend { return f },
		"by hints": func(f *fake) driver.Backend { return notifying{f} },
		"natively": func(f *fake) driver.Backend { return waiting{f} },
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{hook: unavailable}
			bubbleOf(t, b(f), locker.Config{}, func(t *testing.T, l *locker.Locker) {
				ctx, cancel := context.WithTimeoutCause(bg, time.Minute, errBoom)
				defer cancel()
				_, err := l.Lock(ctx, "k")
				wantError(t, err, locker.CodeUnavailable, locker.ErrUnavailable, context.DeadlineExceeded, errBoom)
				_, err = l.Lock(bg, "k", steady(3))
				wantError(t, err, locker.CodeUnavailable, locker.ErrUnavailable)

				time.AfterFunc(10*time.Minute, func() { f.set(nil) })
				began := time.Now()
				s, err := l.Lock(bg, "k")
				if d := time.Since(began); err != nil || d < 10*time.Minute || d > 10*time.Minute+200*time.Millisecond {
					t.Fatalf("%v after %s", err, d)
				}
				_ = s.Unlock(bg)

				f.set(only("acquire", hung))
				ctx, cancel = context.WithTimeout(bg, time.Second)
				defer cancel()
				_, err = l.Lock(ctx, "k")
				wantError(t, err, locker.CodeUnavailable, context.DeadlineExceeded)
			})
		})
	}
}

// What will be the same next time is not tried again.
func TestHopelessIsNotRetried(t *testing.T) {
	for _, err := range []error{driver.ErrUnsupported, driver.ErrInvalidConfig, driver.ErrClosed, driver.ErrLost} {
		for _, native := range []bool{false, true} {
			t.Run(fmt.Sprint(err, native), func(t *testing.T) {
				f := &fake{quiet: true}
				var b driver.Backend = f
				if native {
					b = waiting{f}
				}
				bubbleOf(t, b, locker.Config{}, func(t *testing.T, l *locker.Locker) {
					n := 0
					f.set(only("acquire", func(context.Context, string, string, func() error) error {
						if n++; n == 1 {
							return driver.ErrHeld
						}
						return err
					}))
					_, got := l.Lock(bg, "k")
					if !errors.Is(got, err) || n != 2 {
						t.Errorf("%v after %d attempts", got, n)
					}
				})
			})
		}
	}
}

// CTX-002: the ctx bounds the waiting only.
func TestHoldOutlivesItsCtx(t *testing.T) {
	for _, wait := range []bool{false, true} {
		f := &fake{}
		bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
			if wait {
				f.take("k", time.Second)
			}
			ctx, cancel := context.WithTimeout(bg, time.Minute)
			s, err := l.Lock(ctx, "k")
			cancel()
			if err != nil || s.Err() != nil {
				t.Fatal(err, s.Err())
			}
			if err := s.Unlock(bg); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNativeWait(t *testing.T) {
	f := &fake{quiet: true}
	bubbleOf(t, waiting{f}, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		release := f.take("k", 0)
		began := time.Now()
		_, err := l.Lock(bg, "k", steady(3))
		wantError(t, err, locker.CodeHeld, locker.ErrHeld)
		if errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 300*time.Millisecond {
			t.Errorf("%q after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeoutCause(bg, time.Second, errBoom)
		defer cancel()
		_, err = l.Lock(ctx, "k")
		wantError(t, err, locker.CodeHeld, locker.ErrHeld, context.DeadlineExceeded, errBoom)

		time.AfterFunc(10*time.Minute, release)
		s, err := l.Lock(bg, "k", locker.WithTTL(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		// TTL-002: the ttl counts from the grant, not from the call ten minutes ago.
		if d, _ := s.Deadline(); time.Until(d) < 50*time.Second {
			t.Errorf("deadline in %s", time.Until(d))
		}
	})
}

// The ctx of a hold of another Locker, which was closed, is a ctx like any other.
func TestCtxOfAnotherClosedLocker(t *testing.T) {
	f := &fake{quiet: true}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		other := newLocker(t, &fake{}, locker.Config{})
		ctx, cancel := mustLock(t, other, "k").Context(bg)
		defer cancel()
		f.take("k", 0)
		time.AfterFunc(time.Second, func() { _ = other.Close(bg) })
		_, err := l.Lock(ctx, "k")
		wantError(t, err, locker.CodeHeld, locker.ErrHeld, context.Canceled)
	})
}

// Somebody behind the front whose own attempt may have been granted goes on trying: the one in
// front waits for a lock that may be ours, and we for our turn.
func TestDoubtBehindTheFront(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{TTL: time.Hour}, func(t *testing.T, l *locker.Locker) {
		f.set(only("acquire", func(ctx context.Context, _, _ string, do func() error) error {
			f.set(nil)
			err := do()
			_ = sleep(ctx, time.Second) // while another one comes
			return errors.Join(driver.ErrUnavailable, err)
		}))
		out := make([]chan *locker.Lease, 2)
		for i := range out {
			out[i] = make(chan *locker.Lease, 1)
			go func() {
				s, err := l.Lock(bg, "k", steady(locker.Forever))
				if err != nil {
					t.Error(err)
				}
				out[i] <- s
			}()
			synctest.Wait()
		}
		began := time.Now()
		s := <-out[0]
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("the holder learnt after %s that it is", d)
		}
		_ = s.Unlock(bg)
		_ = (<-out[1]).Unlock(bg)
	})
}

// doubtBehindTheFront puts two in line for k: the first has met a holder, of the second's attempt the
// outcome is unknown. From then on the store is down.
func doubtBehindTheFront(f *fake, l *locker.Locker, first, second locker.Retry, ctx context.Context) (front, behind chan error) {
	var n atomic.Int64
	f.set(only("acquire", func(ctx context.Context, op, key string, do func() error) error {
		switch n.Add(1) {
		case 1, 3: // the first one's own attempt, and the one in front
			return errors.Join(sleep(ctx, time.Second), driver.ErrHeld)
		case 2:
			_ = sleep(ctx, 3*time.Second)
		}
		return unavailable(ctx, op, key, do)
	}))
	lock := func(ctx context.Context, r locker.Retry) chan error {
		done := make(chan error, 1)
		go func() {
			_, err := l.Lock(ctx, "k", locker.WithRetry(r))
			done <- err
		}()
		synctest.Wait()
		return done
	}
	front, behind = lock(bg, first), lock(ctx, second)
	return front, behind
}

// WAIT-006: the one in front is asked for again when somebody leaves whose attempts came before its own.
func TestDoubtLeavesTheLine(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		ctx, cancel := context.WithTimeout(bg, 90*time.Second)
		defer cancel()
		front, behind := doubtBehindTheFront(f, l,
			locker.Retry{Attempts: locker.Forever, Delay: time.Minute, Jitter: locker.NoJitter},
			locker.Retry{Attempts: 10, Delay: time.Minute, Jitter: locker.NoJitter}, ctx)
		wantError(t, <-behind, locker.CodeUnavailable, context.DeadlineExceeded)
		f.set(only("release", unavailable)) // its clean-up wakes nobody
		select {
		case err := <-front:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(2 * time.Minute):
			t.Error("the first one waits on, for a key that is free")
		}
	})
}

// WAIT-002: patience ends also where the attempts are made for another one.
func TestPatienceEndsBeforeADoubt(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		ctx, cancel := context.WithTimeout(bg, time.Hour)
		defer cancel()
		began := time.Now()
		front, behind := doubtBehindTheFront(f, l,
			locker.Retry{Attempts: 1, Delay: 10 * time.Second, Jitter: locker.NoJitter},
			locker.Retry{Attempts: locker.Forever, Delay: 10 * time.Minute, Jitter: locker.NoJitter}, ctx)
		wantError(t, <-front, locker.CodeHeld, locker.ErrHeld)
		if d := time.Since(began); d != 11*time.Second {
			t.Errorf("it waited for %s", d)
		}
		wantError(t, <-behind, locker.CodeUnavailable, context.DeadlineExceeded)
	})
}
