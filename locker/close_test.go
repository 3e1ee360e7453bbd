//go:build go1.25

package locker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// CLO-002, CLO-003: waiters wake, holds end and are released.
func TestCloseWithWaitersAndHolds(t *testing.T) {
	for name, b := range map[string]func(*fake) driver.Backend{
		"by timer": func(f *fake) driver.Backend { return f },
		"natively": func(f *fake) driver.Backend { return waiting{f} },
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{quiet: true}
			rec := &recorder{}
			bubbleOf(t, b(f), locker.Config{Observer: rec}, func(t *testing.T, l *locker.Locker) {
				release := f.take("other", 0)
				var holds []*locker.Lease
				for i := range 200 {
					opts := []locker.Option{locker.WithTTL(time.Minute)}
					if i%2 == 0 {
						opts = nil
					}
					holds = append(holds, mustLock(t, l, fmt.Sprint(i), opts...))
				}
				waiters := make(chan error, 20)
				for range 20 {
					go func() {
						_, err := l.Lock(bg, "other")
						waiters <- err
					}()
				}
				time.Sleep(time.Second)
				began := time.Now()
				if err := l.Close(bg); err != nil {
					t.Error(err)
				}
				for range 20 {
					wantError(t, <-waiters, locker.CodeClosed, locker.ErrClosed)
				}
				if d := time.Since(began); d != 0 {
					t.Errorf("it took %s", d)
				}
				for i, s := range holds {
					wantError(t, s.Err(), locker.CodeClosed, locker.ErrClosed)
					rec.want(t, fmt.Sprint(i), "Acquired", "Released")
				}
				f.closed = false
				release()
				f.nothingHeld(t)
			})
		})
	}
}

// CLO-003: best effort within ctx; the error counts what was not released.
func TestCloseWhenTheBackendIsGone(t *testing.T) {
	t.Run("down", func(t *testing.T) {
		f := &fake{}
		bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
			mustLock(t, l, "a")
			mustLock(t, l, "b")
			f.set(unavailable)
			_, _ = l.TryLock(bg, "c") // a clean-up that cannot end
			time.Sleep(time.Second)
			began := time.Now()
			err := l.Close(bg)
			wantError(t, err, locker.CodeUnavailable, locker.ErrUnavailable)
			if !strings.Contains(err.Error(), "2 of 2 holds were not released") || time.Since(began) != 0 {
				t.Errorf("%q after %s", err, time.Since(began))
			}
			if again := l.Close(bg); again != err {
				t.Errorf("the second Close: %v", again)
			}
		})
	})
	t.Run("hung", func(t *testing.T) {
		f := &fake{}
		bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
			mustLock(t, l, "a")
			f.set(hung)
			call, stop := context.WithCancel(bg)
			defer stop()
			go func() { _, _ = l.TryLock(call, "b") }() // will not end by itself
			synctest.Wait()
			ctx, cancel := context.WithTimeout(bg, 3*time.Second)
			defer cancel()
			second := make(chan error)
			go func() {
				ctx, cancel := context.WithTimeout(bg, time.Second)
				defer cancel()
				time.Sleep(time.Millisecond)
				second <- l.Close(ctx)
			}()
			began := time.Now()
			err := l.Close(ctx)
			wantError(t, err, locker.CodeUnavailable, context.DeadlineExceeded)
			if d := time.Since(began); d != 4*time.Second { // and a second for the backend's own Close to bite
				t.Errorf("it took %s", d)
			}
			wantError(t, <-second, locker.CodeCanceled, context.DeadlineExceeded)
			stop()
			time.Sleep(10 * time.Second)
		})
	})
	t.Run("ctx has ended", func(t *testing.T) {
		f := &fake{}
		bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
			s := mustLock(t, l, "a")
			ctx, cancel := context.WithCancel(bg)
			cancel()
			wantError(t, l.Close(ctx), locker.CodeUnavailable, context.Canceled)
			wantError(t, s.Err(), locker.CodeClosed)
			if !f.closed {
				t.Error("the backend is open")
			}
		})
	})
}

// The backend is not closed under calls that could still end by themselves, and nothing new
// is asked of it afterwards.
func TestCloseWaitsForCalls(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		a, b := mustLock(t, l, "a"), mustLock(t, l, "b", locker.WithTTL(time.Hour))
		late := 0
		f.set(func(ctx context.Context, op, key string, do func() error) error {
			err := slow(time.Second)(ctx, op, key, do)
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.closed {
				late++
			}
			return err
		})
		errs := make(chan error, 4)
		go func() { errs <- a.Unlock(bg) }()
		go func() { errs <- l.Ping(bg) }()
		synctest.Wait()
		go func() { _ = b.Extend(bg, time.Hour) }()
		go func() { // granted after Close has begun
			_, err := l.TryLock(bg, "c")
			if !errors.Is(err, locker.ErrClosed) {
				t.Errorf("TryLock during Close: %v", err)
			}
		}()
		synctest.Wait()
		if err := l.Close(bg); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if late != 0 {
			t.Errorf("%d calls ended after the backend's Close", late)
		}
		f.nothingHeld(t)
	})
}

// CLO-003, CLO-004, CTX-004: Close drops no clean-up untried, however many there are at once.
func TestCloseMakesTheCleanUps(t *testing.T) {
	const many = 40
	tryAll := func(ctx context.Context, l *locker.Locker) (wait func()) {
		var wg sync.WaitGroup
		for i := range many {
			wg.Go(func() { _, _ = l.TryLock(ctx, fmt.Sprint(i)) })
		}
		synctest.Wait()
		return wg.Wait
	}
	t.Run("of what is granted while it goes on", func(t *testing.T) {
		f := &fake{hook: slow(time.Second)}
		bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
			wait := tryAll(bg, l)
			if err := l.Close(bg); err != nil {
				t.Error(err)
			}
			wait()
			f.nothingHeld(t)
		})
	})
	t.Run("of what was given up just before", func(t *testing.T) {
		f := &fake{hook: func(ctx context.Context, op, _ string, do func() error) error {
			err := do()
			if op == "acquire" {
				<-ctx.Done()
				return ctx.Err()
			}
			time.Sleep(time.Millisecond)
			return err
		}}
		bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
			ctx, cancel := context.WithCancel(bg)
			wait := tryAll(ctx, l)
			cancel()
			wait()
			time.Sleep(10 * time.Millisecond) // the first ones are done, the others wait for their turn
			if n := f.count("release"); n == 0 || n == many {
				t.Errorf("%d releases before Close", n)
			}
			if err := l.Close(bg); err != nil {
				t.Error(err)
			}
			f.nothingHeld(t)
		})
	})
	t.Run("a few of many, of a backend that is down", func(t *testing.T) {
		f := &fake{hook: func(ctx context.Context, op, key string, do func() error) error {
			if op == "release" {
				return unavailable(ctx, op, key, do)
			}
			return lostReply(ctx, op, key, do)
		}}
		bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
			tryAll(bg, l)()
			before, began := f.count("release"), time.Now()
			if err := l.Close(bg); err != nil {
				t.Error(err)
			}
			if n := f.count("release") - before; n == 0 || n > 8 || time.Since(began) != 0 {
				t.Errorf("%d attempts in %s", n, time.Since(began))
			}
		})
	})
}

// Everything at once, on real time, for the race detector: every hold has exactly one end,
// nothing is left, and each call's error is one of those that it may have.
func TestCloseRaces(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	for round := range rounds {
		f := &fake{}
		rec := &recorder{}
		var b driver.Backend = notifying{f}
		if round%2 == 0 {
			b = waiting{f}
		}
		l, err := locker.New(b, locker.Config{Observer: rec})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var acquired atomic.Int64
		ctx, cancel := context.WithCancel(bg)
		for g := range 8 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(round), uint64(g)))
				for ctx.Err() == nil {
					key := fmt.Sprint("k", rnd.IntN(3))
					s, err := l.Lock(ctx, key, locker.WithTTL(time.Duration(1+rnd.IntN(3))*time.Millisecond))
					switch {
					case err == nil:
					case errors.Is(err, locker.ErrClosed):
						return
					case errors.Is(err, context.Canceled), errors.Is(err, locker.ErrLost):
						continue
					default:
						t.Error(err)
					}
					acquired.Add(1)
					switch rnd.IntN(4) {
					case 0:
						_ = s.Extend(ctx, 2*time.Millisecond)
					case 1:
						go func() { _ = s.Unlock(bg) }()
					case 2:
						time.Sleep(2 * time.Millisecond)
					}
					switch err := s.Unlock(ctx); {
					case err == nil, errors.Is(err, locker.ErrReleased), errors.Is(err, locker.ErrLost), errors.Is(err, locker.ErrClosed):
					default:
						t.Error(err)
					}
				}
			})
		}
		time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
		for range 2 {
			wg.Go(func() {
				if err := l.Close(bg); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		cancel()
		f.nothingHeld(t)
		counts := map[locker.EventKind]int{}
		for _, e := range rec.all() {
			counts[e.Kind]++
		}
		if n := counts[locker.EventAcquired]; n != int(acquired.Load()) {
			t.Errorf("%d Acquired events of %d holds", n, acquired.Load())
		}
		if a, r, l := counts[locker.EventAcquired], counts[locker.EventReleased], counts[locker.EventLost]; a < r+l || a > r+l+8 {
			t.Errorf("%d Acquired, %d Released, %d Lost", a, r, l) // an Unlock beside this may be about to tell
		}
	}
}
