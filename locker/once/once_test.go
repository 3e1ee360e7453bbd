//go:build go1.25

package once_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
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

// A job that lost only the key that says that it runs is not said to be done.
func TestRunLostAlone(t *testing.T) {
	for name, bad := range map[string]error{"done": nil, "failed": errors.New("bad")} {
		for _, ended := range []bool{false, true} { // the job's ctx, before the loss
			t.Run(fmt.Sprint(name, ", ended ", ended), func(t *testing.T) {
				bubble(t, func(t *testing.T, s *memory.Store, open func() *locker.Locker) {
					a, b := open(), open()
					ctx, cancel := context.WithCancel(bg)
					defer cancel()
					err := once.Do(ctx, a, "job", "s", func(ctx context.Context, _ *locker.Lease) error {
						if ended {
							cancel()
							synctest.Wait()
							if !s.Held("once/3/job/s") {
								t.Error("the end of its ctx frees the slot of a job that goes on")
							}
						}
						s.Delete("once-run/3/job/s")
						synctest.Wait()
						if err := context.Cause(ctx); !ended && !errors.Is(err, locker.ErrLost) || ended && err != context.Canceled {
							t.Errorf("the job's ctx: %v", err)
						}
						errAgain := errors.New("again")
						if err := once.Do(bg, b, "job", "s", func(context.Context, *locker.Lease) error { return errAgain }); err != errAgain {
							t.Errorf("while it runs: %v", err)
						}
						return bad
					})
					if !errors.Is(err, locker.ErrLost) || bad != nil && !errors.Is(err, bad) {
						t.Error(err)
					}
					if err := once.Do(bg, b, "job", "s", nothing); err != nil {
						t.Errorf("afterwards: %v", err)
					}
				})
			})
		}
	}
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

// secret is a string that tells fmt nothing.
type secret string

func (secret) String() string             { return "***" }
func (secret) Error() string              { return "***" }
func (secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "***") }

// A slot is the string itself, whatever its type prints.
func TestSlotOfAType(t *testing.T) {
	bubble(t, func(t *testing.T, s *memory.Store, open func() *locker.Locker) {
		l := open()
		for _, slot := range []secret{"a", "b"} {
			if err := once.Do(bg, l, "job", slot, nothing); err != nil {
				t.Errorf("%q: %v", string(slot), err)
			}
			if err := once.Do(bg, l, "job", string(slot), nothing); err != once.ErrDone {
				t.Errorf("%q, as a string: %v", string(slot), err)
			}
		}
	})
}

// A job must not run if its slot cannot be left at its end.
func TestDurations(t *testing.T) {
	bubble(t, func(t *testing.T, s *memory.Store, open func() *locker.Locker) {
		s.MinTTL = 10 * time.Millisecond
		l := open()
		s.SetDown(true) // what is wrong is said without asking it
		const most = locker.MaxTTL
		for _, c := range []struct {
			name string
			opt  once.Option
			do   string
			fill string
		}{
			{"AtLeast", once.AtLeast(most + 1), "AtLeast: 876000h0m0.000000001s is not between 10ms and 876000h0m0s", "AtLeast"},
			{"AtLeast, the longest", once.AtLeast(1<<63 - 1), "AtLeast", "AtLeast"},
			{"AtLeast, too short", once.AtLeast(9 * time.Millisecond), "AtLeast: 9ms is not between 10ms and", "AtLeast"},
			{"AtLeast, negative", once.AtLeast(-1), "AtLeast: -1ns", "AtLeast: -1ns"},
			{"Pause", once.Pause(most + 1), "Pause", "Pause: 876000h0m0.000000001s is not between 10ms and 876000h0m0s"},
			{"TTL", once.TTL(most/2 + 1), "TTL: 438000h0m0.000000001s is not between 10ms and 438000h0m0s", ""},
			{"TTL, of both", once.TTL(most + 1), "TTL", "TTL: 876000h0m0.000000001s is not between 10ms and 876000h0m0s"},
			{"the longest", once.AtLeast(most), "", ""},
			{"the shortest", once.AtLeast(9*time.Millisecond + 1), "", ""}, // rounded up
		} {
			check := func(what string, err error, want string) {
				if wrong := errors.Is(err, locker.ErrInvalidTTL); wrong != (want != "") || wrong && !strings.HasPrefix(err.Error(), "once: "+want) {
					t.Errorf("%s of %s: %v", what, c.name, err)
				}
			}
			ctx, cancel := context.WithTimeout(bg, time.Second)
			check("Do", once.Do(ctx, l, "job", "s", nothing, c.opt), c.do)
			_, err := once.Fill(ctx, l, "k", func(context.Context) (int, bool, error) { return 0, false, nil },
				func(context.Context, *locker.Lease) (int, error) { return 0, nil }, c.opt)
			check("Fill", err, c.fill)
			cancel()
		}
		s.SetDown(false)
		s.MinTTL = 2 * 24 * time.Hour // longer than the defaults
		l = open()
		if err := once.Do(bg, l, "job", "s", nothing); err != nil {
			t.Error(err)
		}
	})
}

// A lease that the store does not let be left is not kept until Close.
func TestNotLeft(t *testing.T) {
	bubble(t, func(t *testing.T, s *memory.Store, open func() *locker.Locker) {
		a, b := open(), open()
		s.SetRefusal(driver.ErrUnsupported)
		if err := once.Do(bg, a, "job", "s", nothing); !errors.Is(err, locker.ErrUnsupported) {
			t.Error(err)
		}
		bad := errors.New("bad")
		look := func(context.Context) (int, bool, error) { return 0, false, nil }
		fill := func(context.Context, *locker.Lease) (int, error) { return 0, bad }
		if _, err := once.Fill(bg, a, "k", look, fill); !errors.Is(err, bad) || !errors.Is(err, locker.ErrUnsupported) {
			t.Error(err)
		}
		s.SetRefusal(nil)
		if err := once.Do(bg, b, "job", "s", nothing); err != nil {
			t.Errorf("Do of a slot that was not noted: %v", err)
		}
		ctx, cancel := context.WithTimeout(bg, time.Minute)
		defer cancel()
		if _, err := once.Fill(ctx, b, "k", look, fill); err != bad {
			t.Errorf("Fill after one that was not left: %v", err)
		}
	})
}
