//go:build go1.25

package once_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/internal/memory"
	"github.com/lockstep-go/lockstep/locker/once"
)

func bubble(t *testing.T, f func(t *testing.T, s *memory.Store, open func() *locker.Locker)) {
	synctest.Test(t, func(t *testing.T) {
		var s memory.Store
		var all []*locker.Locker
		f(t, &s, func() *locker.Locker {
			l, err := memory.New(&s, locker.Config{})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, l)
			return l
		})
		for _, l := range all {
			if err := l.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
}

var bg = context.Background()

// ONCE-001, ONCE-002.
func TestDo(t *testing.T) {
	bubble(t, func(t *testing.T, s *memory.Store, open func() *locker.Locker) {
		a, b := open(), open()
		slot := once.Slots(time.Hour).At(time.Now())
		ran := 0
		err := once.Do(bg, a, "job", slot, func(ctx context.Context, lease *locker.Lease) error {
			ran++
			time.Sleep(time.Minute) // longer than its locks
			if lease.Token() == 0 || ctx.Err() != nil {
				t.Error(lease.Token(), context.Cause(ctx))
			}
			if err := once.Do(bg, b, "job", slot, nothing); err != once.ErrRunning {
				t.Errorf("while it runs: %v", err)
			}
			return nil
		}, once.AtLeast(10*time.Hour))
		if err != nil || ran != 1 {
			t.Fatal(err, ran)
		}
		if err := a.Close(bg); err != nil { // the process ends after it
			t.Fatal(err)
		}
		for range 3 {
			if err := once.Do(bg, b, "job", slot.In(time.FixedZone("x", 3600)), nothing); err != once.ErrDone {
				t.Errorf("afterwards: %v", err)
			}
		}
		if err := once.Do(bg, b, "job", slot.Add(time.Hour), nothing); err != nil {
			t.Errorf("the next slot: %v", err)
		}
		time.Sleep(9*time.Hour + 59*time.Minute)
		if err := once.Do(bg, b, "job", slot, nothing); err != once.ErrDone {
			t.Errorf("before AtLeast is over: %v", err)
		}
		time.Sleep(time.Minute)
		if err := once.Do(bg, b, "job", slot, nothing); err != nil {
			t.Errorf("when AtLeast is over: %v", err)
		}
	})
}

func nothing(context.Context, *locker.Lease) error { return nil }

// ONCE-003.
func TestFailure(t *testing.T) {
	bubble(t, func(t *testing.T, s *memory.Store, open func() *locker.Locker) {
		a := open()
		bad := errors.New("bad")
		fails := func(context.Context, *locker.Lease) error { return bad }
		if err := once.Do(bg, a, "job", "s", fails); err != bad {
			t.Error(err)
		}
		func() {
			defer func() { _ = recover() }()
			_ = once.Do(bg, a, "job", "s", func(context.Context, *locker.Lease) error { panic("x") })
		}()
		if err := once.Do(bg, a, "job", "s", nothing); err != nil {
			t.Errorf("after a failure: %v", err)
		}
		if err := once.Do(bg, a, "job", "t", fails, once.FailedIsDone()); err != bad {
			t.Error(err)
		}
		if err := once.Do(bg, a, "job", "t", nothing); err != once.ErrDone {
			t.Errorf("after a failure that counts: %v", err)
		}
		// A store that is away when the job has ended is asked again.
		err := once.Do(bg, a, "job", "u", func(context.Context, *locker.Lease) error {
			s.SetDown(true)
			time.AfterFunc(3*time.Second, func() { s.SetDown(false) })
			return nil
		})
		if err != nil && !errors.Is(err, locker.ErrUnavailable) {
			t.Error(err)
		}
		if err := once.Do(bg, a, "job", "u", nothing); err != once.ErrDone {
			t.Errorf("after an outage at its end: %v", err)
		}
		if err := once.Do(bg, a, "job", "u", nil); !errors.Is(err, locker.ErrInvalidArgument) {
			t.Error(err)
		}
		if err := once.Do(bg, a, "job", "u", nothing, once.AtLeast(0)); !errors.Is(err, locker.ErrInvalidTTL) {
			t.Error(err)
		}
	})
}

// A process that died while it ran is never taken for one that is done.
func TestDeath(t *testing.T) {
	bubble(t, func(t *testing.T, s *memory.Store, open func() *locker.Locker) {
		a, b := open(), open()
		ctx, die := context.WithCancel(bg)
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = once.Do(ctx, a, "job", "s", func(ctx context.Context, lease *locker.Lease) error {
				<-ctx.Done()
				time.Sleep(time.Hour)
				return nil
			}, once.TTL(3*time.Second))
		})
		synctest.Wait()
		s.SetDown(true) // for a: its leases run out
		time.Sleep(2 * time.Second)
		died := time.Now()
		s.SetDown(false)
		s.Delete("once/3/job/s") // as if only the one that says that it runs were left
		for {
			err := once.Do(bg, b, "job", "s", nothing, once.TTL(3*time.Second))
			if err == nil {
				break
			}
			if err != once.ErrRunning {
				t.Errorf("%s after: %v", time.Since(died), err)
				break
			}
			if time.Since(died) > 2*time.Hour {
				t.Error("the slot is blocked")
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		die()
		wg.Wait()
	})
}

func TestSlots(t *testing.T) {
	day := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	s := once.Slots(24 * time.Hour)
	for _, late := range []time.Duration{-2 * time.Second, 0, 2 * time.Second, 3 * time.Hour} {
		if got := s.At(day.Add(late).In(time.FixedZone("x", -7200))); !got.Equal(day) {
			t.Errorf("%s: %s", late, got)
		}
	}
}

// ONCE-004: one computes, the others wait for the value.
func TestFill(t *testing.T) {
	bubble(t, func(t *testing.T, s *memory.Store, open func() *locker.Locker) {
		var mu sync.Mutex
		cache, filled := map[string]int{}, 0
		look := func(context.Context) (int, bool, error) {
			mu.Lock()
			defer mu.Unlock()
			v, ok := cache["k"]
			return v, ok, nil
		}
		var fails int
		var at []time.Time
		fill := func(context.Context, *locker.Lease) (int, error) {
			at = append(at, time.Now())
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			if filled++; filled <= fails {
				return 0, errors.New("the source is down")
			}
			cache["k"] = 42
			return 42, nil
		}
		fleet := func() (good, bad int) {
			var wg sync.WaitGroup
			var n sync.Mutex
			for range 4 {
				l := open()
				for range 5 {
					wg.Go(func() {
						v, err := once.Fill(bg, l, "k", look, fill, once.Pause(10*time.Second))
						n.Lock()
						defer n.Unlock()
						if err != nil {
							bad++
						} else if good++; v != 42 {
							t.Error(v)
						}
					})
				}
			}
			wg.Wait()
			return good, bad
		}
		if good, bad := fleet(); good != 20 || bad != 0 || filled != 1 {
			t.Errorf("%d good, %d bad, filled %d times", good, bad, filled)
		}
		delete(cache, "k")
		filled, fails, at = 0, 2, nil
		if good, bad := fleet(); good != 18 || bad != 2 || filled != 3 {
			t.Errorf("%d good, %d bad, filled %d times", good, bad, filled)
		}
		for i := 1; i < len(at); i++ {
			if pause := at[i].Sub(at[i-1]); pause < 11*time.Second {
				t.Errorf("tried again %s after a failure began", pause)
			}
		}
	})
}
