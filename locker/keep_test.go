//go:build go1.25

package locker_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

func reasonOf(err error) locker.Reason {
	var e *locker.Error
	errors.As(err, &e)
	if e == nil {
		return 0
	}
	return e.Reason
}

// KEEP-001: a kept lease goes on, by one extension each third of its ttl.
func TestKeepAlive(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k", locker.WithTTL(3*time.Second), locker.WithKeepAlive(0))
		time.Sleep(time.Minute)
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		if n := f.count("extend"); n < 59 || n > 62 {
			t.Errorf("%d extensions in 60 thirds of the ttl", n)
		}
		if err := s.Unlock(bg); err != nil {
			t.Fatal(err)
		}
		n := f.count("extend")
		time.Sleep(time.Minute)
		if f.count("extend") != n {
			t.Error("it is extended after its Unlock")
		}
	})
}

// KEEP-001: an outage that is shorter than what remains costs nothing.
func TestKeepAliveThroughAnOutage(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k", locker.WithTTL(3*time.Second), locker.WithKeepAlive(0))
		f.set(unavailable)
		time.Sleep(2500 * time.Millisecond)
		n := f.count("extend")
		f.set(nil)
		time.Sleep(time.Minute)
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		if n < 3 || n > 40 {
			t.Errorf("%d attempts in the outage", n)
		}
		f.set(unavailable)
		time.Sleep(4 * time.Second)
		if r := reasonOf(s.Err()); r != locker.ReasonExpired {
			t.Errorf("after an outage that was longer: %v", s.Err())
		}
		f.set(nil)
	})
}

// KEEP-002: at the cap the ctx ends first, and the key is free only later, or by Unlock.
func TestKeepAliveCap(t *testing.T) {
	for _, unlock := range []bool{false, true} {
		f := &fake{}
		t.Run(fmt.Sprint("unlock ", unlock), func(t *testing.T) {
			bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
				s := mustLock(t, l, "k", locker.WithTTL(3*time.Second), locker.WithKeepAlive(10*time.Second))
				ctx, cancel := s.Context(bg)
				defer cancel()
				began := time.Now()
				<-ctx.Done()
				if took := time.Since(began); took != 10*time.Second {
					t.Errorf("the ctx ended after %s", took)
				}
				err := context.Cause(ctx)
				if reasonOf(err) != locker.ReasonCapped || !errors.Is(err, locker.ErrLost) {
					t.Errorf("the cause is %v", err)
				}
				if !f.held("k") {
					t.Error("the key is free already")
				}
				if unlock {
					if err := s.Unlock(bg); reasonOf(err) != locker.ReasonCapped {
						t.Errorf("Unlock: %v", err)
					}
					synctest.Wait()
				} else {
					time.Sleep(1500 * time.Millisecond)
					if !f.held("k") {
						t.Error("the key was free before its holder could stop")
					}
					time.Sleep(1501 * time.Millisecond)
				}
				if f.held("k") {
					t.Error("the key is still taken")
				}
			})
		})
	}
}

// KEEP-002: an extension that is in flight at the cap brings nothing back, and frees nothing.
func TestKeepAliveCapDuringExtension(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k", locker.WithTTL(3*time.Second), locker.WithKeepAlive(1500*time.Millisecond))
		f.set(only("extend", slow(time.Second)))
		time.Sleep(1501 * time.Millisecond)
		if r := reasonOf(s.Err()); r != locker.ReasonCapped {
			t.Errorf("at the cap: %v", s.Err())
		}
		time.Sleep(time.Second)
		if !f.held("k") || f.count("release") > 0 {
			t.Error("the extension's answer freed the key under its holder, who may still be stopping")
		}
	})
}

// KEEP-003: without progress the ctx ends while a third of the ttl remains.
func TestProgress(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		var moves atomic.Bool
		moves.Store(true)
		s := mustLock(t, l, "k", locker.WithTTL(3*time.Second), locker.WithKeepAlive(0), locker.WithProgress(moves.Load))
		time.Sleep(10 * time.Second)
		moves.Store(false)
		time.Sleep(1200 * time.Millisecond) // a pause that is short enough
		moves.Store(true)
		time.Sleep(10 * time.Second)
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		moves.Store(false)
		<-s.Done()
		d, _ := s.Deadline()
		if r := reasonOf(s.Err()); r != locker.ReasonStalled || time.Until(d) != time.Second {
			t.Errorf("%v, %s before the deadline", s.Err(), time.Until(d))
		}
		if !f.held("k") {
			t.Error("the key is free already")
		}
	})
}

// KEEP-003: a progress that blocks is none, and costs the other leases nothing.
func TestProgressBlocks(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		hang := make(chan struct{})
		s := mustLock(t, l, "k", locker.WithTTL(3*time.Second), locker.WithKeepAlive(0), locker.WithProgress(func() bool { <-hang; return true }))
		other := mustLock(t, l, "other", locker.WithTTL(3*time.Second), locker.WithKeepAlive(0))
		<-s.Done()
		if r := reasonOf(s.Err()); r != locker.ReasonStalled {
			t.Error(s.Err())
		}
		time.Sleep(time.Minute)
		if err := other.Err(); err != nil {
			t.Error(err)
		}
		close(hang)
	})
}

// CLO-004: Close does not wait for a progress that never returns.
func TestProgressBlocksAtClose(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		hang := make(chan struct{})
		s := mustLock(t, l, "k", locker.WithTTL(3*time.Second), locker.WithKeepAlive(0), locker.WithProgress(func() bool { <-hang; return true }))
		<-s.Done()
		_ = s.Unlock(bg)
		began := time.Now()
		if err := l.Close(bg); err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		close(hang)
	})
}

// KEEP-003: a progress that ends its goroutine is none, and harms nothing else.
func TestProgressExits(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k", locker.WithTTL(3*time.Second), locker.WithKeepAlive(0), locker.WithProgress(func() bool { runtime.Goexit(); return true }))
		<-s.Done()
		if r := reasonOf(s.Err()); r != locker.ReasonStalled {
			t.Error(s.Err())
		}
		_ = s.Unlock(bg)
		if err := l.Close(bg); err != nil {
			t.Error(err)
		}
	})
}

func TestKeepAliveArguments(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		_, err := l.Lock(bg, "k", locker.WithKeepAlive(0))
		wantError(t, err, locker.CodeInvalidTTL, locker.ErrInvalidTTL)
		_, err = l.Lock(bg, "k", locker.WithTTL(time.Second), locker.WithKeepAlive(-1))
		wantError(t, err, locker.CodeInvalidConfig, locker.ErrInvalidConfig)
		if len(f.calls) > 0 {
			t.Error(f.calls)
		}
	})
}

// One timer for all: a thousand kept leases are no goroutine.
func TestKeepAliveGoroutines(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		before := runtime.NumGoroutine()
		for i := range 1000 {
			mustLock(t, l, fmt.Sprint(i), locker.WithTTL(3*time.Second), locker.WithKeepAlive(0))
		}
		time.Sleep(time.Minute + 500*time.Millisecond)
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n > 5 {
			t.Errorf("%d goroutines for 1000 kept leases", n)
		}
		for i := range 1000 {
			if !f.held(fmt.Sprint(i)) {
				t.Fatalf("%d is lost", i)
			}
		}
	})
}

// KEEP-004: what is left ends by its time alone.
func TestLeave(t *testing.T) {
	f := &fake{}
	var r recorder
	bubble(t, f, locker.Config{Observer: &r}, func(t *testing.T, l *locker.Locker) {
		err := l.Do(bg, "k", func(ctx context.Context, s *locker.Lease) error {
			if err := s.Leave(ctx, time.Minute); err != nil {
				return err
			}
			if reasonOf(context.Cause(ctx)) != locker.ReasonLeft {
				t.Errorf("the cause is %v", context.Cause(ctx))
			}
			wantError(t, s.Extend(bg, time.Second), locker.CodeReleased, locker.ErrReleased)
			wantError(t, s.Leave(bg, time.Second), locker.CodeReleased, locker.ErrReleased)
			return nil
		}, locker.WithTTL(time.Second), locker.WithKeepAlive(0))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(bg); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute - time.Millisecond)
		if !f.held("k") || f.count("release") > 0 || f.count("extend") != 1 {
			t.Error(f.calls)
		}
		time.Sleep(time.Millisecond)
		if f.held("k") {
			t.Error("it is still held")
		}
		r.want(t, "k", "Acquired", "Released", "Extended") // the Extend that was refused
	})
}

// A Leave whose outcome is unknown leaves nothing: the Lease goes on, and can be left again.
func TestLeaveUnknown(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k", locker.WithTTL(time.Minute))
		f.set(lostReply)
		wantError(t, s.Leave(bg, time.Hour), locker.CodeUnavailable, locker.ErrUnavailable)
		f.set(nil)
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		if err := s.Leave(bg, time.Hour); err != nil || reasonOf(s.Err()) != locker.ReasonLeft {
			t.Error(err, s.Err())
		}
		p := mustLock(t, l, "s")
		wantError(t, p.Leave(bg, time.Hour), locker.CodeUnsupported, locker.ErrUnsupported)
	})
}

// MULTI-001, MULTI-002, MULTI-004.
func TestLockAll(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		all, err := l.LockAll(bg, []string{"c", "a", "b", "a"}, locker.WithTTL(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(all.Keys(), []string{"a", "b", "c"}) || all.Token("b") == 0 || all.Token("x") != 0 {
			t.Error(all.Keys(), all.Token("b"))
		}
		if err := all.Unlock(bg); err != nil {
			t.Fatal(err)
		}
		var released []string
		for _, c := range f.calls {
			if c[:7] == "release" {
				released = append(released, c)
			}
		}
		if !slices.Equal(released, []string{"release c", "release b", "release a"}) {
			t.Error(released)
		}
		wantError(t, all.Err(), locker.CodeReleased, locker.ErrReleased)

		f.take("b", time.Hour)
		ctx, cancel := context.WithTimeout(bg, time.Minute)
		defer cancel()
		_, err = l.LockAll(ctx, []string{"b", "a"}, locker.WithTTL(time.Second))
		wantError(t, err, locker.CodeHeld, locker.ErrHeld, context.DeadlineExceeded)
		if f.held("a") {
			t.Error("a is still held")
		}
		_, err = l.LockAll(bg, []string{"x", ""})
		wantError(t, err, locker.CodeInvalidKey, locker.ErrInvalidKey)
		_, err = l.LockAll(bg, nil)
		wantError(t, err, locker.CodeInvalidKey, locker.ErrInvalidKey)
	})
}

// The keys that came first are kept while the others are waited for, and all end at one time.
func TestLockAllWaits(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		f.take("b", 10*time.Second)
		all, err := l.LockAll(bg, []string{"b", "a"}, locker.WithTTL(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := all.Context(bg)
		defer cancel()
		if d, _ := all.Deadline(); time.Until(d) != 990*time.Millisecond {
			t.Errorf("%s remain", time.Until(d))
		}
		began := time.Now()
		<-ctx.Done()
		if took := time.Since(began); took != 990*time.Millisecond {
			t.Errorf("the ctx ended after %s: is it still being kept?", took)
		}
		if reasonOf(context.Cause(ctx)) != locker.ReasonExpired {
			t.Error(context.Cause(ctx))
		}
	})
}

// KEEP-002, KEEP-003: the cap counts from when all are had, and only then is anybody asked for progress.
func TestLockAllWaitsKept(t *testing.T) {
	for name, c := range map[string]struct {
		opt  locker.Option
		want locker.Reason
		at   time.Duration
	}{
		"cap":      {locker.WithKeepAlive(5 * time.Second), locker.ReasonCapped, 5 * time.Second},
		"progress": {locker.WithKeepAlive(0), locker.ReasonStalled, 1970 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
				f.take("b", 10*time.Second)
				var had atomic.Bool
				progress := func() bool {
					if !had.Load() {
						t.Error("asked while it waits")
					}
					return name == "cap"
				}
				all, err := l.LockAll(bg, []string{"a", "b"}, locker.WithTTL(3*time.Second), c.opt, locker.WithProgress(progress))
				if err != nil {
					t.Fatal(err)
				}
				had.Store(true)
				began := time.Now()
				<-all.Done()
				if took := time.Since(began); took != c.at || reasonOf(all.Err()) != c.want {
					t.Errorf("after %s: %v", took, all.Err())
				}
				_ = all.Unlock(bg)
			})
		})
	}
}

// MULTI-003: the first loss ends all, and what remains is not freed under the holder.
func TestLockAllLoss(t *testing.T) {
	f := &fake{caps: driver.Capabilities{Has: driver.NewSet(driver.PromptLoss)}}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		all, err := l.LockAll(bg, []string{"a", "b", "c"}, locker.WithTTL(time.Minute), locker.WithKeepAlive(0))
		if err != nil {
			t.Fatal(err)
		}
		f.lose("b", driver.ErrLost)
		<-all.Done()
		synctest.Wait()
		if reasonOf(all.Err()) != locker.ReasonLost {
			t.Error(all.Err())
		}
		n := f.count("extend")
		time.Sleep(30 * time.Second)
		if f.count("extend") != n || !f.held("a") || !f.held("c") {
			t.Error("the others must stay taken, and not be kept")
		}
		if err := all.Unlock(bg); !errors.Is(err, locker.ErrLost) {
			t.Error(err)
		}
		synctest.Wait()
		if f.held("a") || f.held("c") {
			t.Error("Unlock does not free what remains")
		}
	})
}

// A loss during the wait ends the wait.
func TestLockAllLossInTheWait(t *testing.T) {
	f := &fake{caps: driver.Capabilities{Has: driver.NewSet(driver.PromptLoss)}}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		f.take("b", time.Hour)
		time.AfterFunc(time.Second, func() { f.lose("a", driver.ErrLost) })
		_, err := l.LockAll(bg, []string{"a", "b"}, locker.WithTTL(time.Minute))
		wantError(t, err, locker.CodeLost, locker.ErrLost)
	})
}

type invoiceID int32

// FAM-001: no two keys of families are the same, and the label is in the events.
func TestFamily(t *testing.T) {
	seen := map[string]string{}
	for what, key := range map[string]string{
		"a 1":         locker.NewFamily[int64]("a").Key(1),
		"a -1":        locker.NewFamily[int64]("a").Key(-1),
		"a big":       locker.NewFamily[uint64]("a").Key(1<<64 - 1),
		"b 1":         locker.NewFamily[invoiceID]("b").Key(1),
		"c b/1":       locker.NewFamily[string]("c").Key("b/1"),
		"c  (empty)":  locker.NewFamily[string]("c").Key(""),
		"d uuid":      locker.NewFamily[[16]byte]("d").Key([16]byte{1, 2}),
		"d uuid more": locker.NewFamily[[16]byte]("d").Key([16]byte{1, 2, 3}),
		"e 1":         locker.NewFamily[uint8]("e").Key(1),
	} {
		if other, ok := seen[key]; ok {
			t.Errorf("%s and %s are both %q", what, other, key)
		}
		seen[key] = what
	}
	f := &fake{}
	rec := &recorder{}
	bubble(t, f, locker.Config{Observer: rec}, func(t *testing.T, l *locker.Locker) {
		invoices := locker.NewFamily[int64]("invoice", locker.WithTTL(time.Minute))
		s, err := invoices.Lock(bg, l, 42)
		if err != nil || s.Key() != "invoice/42" || s.Session() {
			t.Fatal(s.Key(), err)
		}
		if _, err := invoices.TryLock(bg, l, 42); !errors.Is(err, locker.ErrHeld) {
			t.Error(err)
		}
		_ = s.Extend(bg, time.Minute)
		_ = s.Unlock(bg)
		events := rec.all()
		for _, e := range events {
			if e.Label != "invoice" {
				t.Errorf("%v has the label %q", e.Kind, e.Label)
			}
		}
		if len(events) != 4 {
			t.Error(events)
		}
		_, err = locker.NewFamily[int]("a/b").Lock(bg, l, 1)
		wantError(t, err, locker.CodeInvalidKey, locker.ErrInvalidKey)
		var zero locker.Family[int]
		wantError(t, zero.Do(bg, l, 1, nil), locker.CodeInvalidArgument, locker.ErrInvalidArgument)
	})
}

// A LockAll that fails takes its own time once, not once for each key that it had.
func TestLockAllGivesUpInTime(t *testing.T) {
	f := &fake{}
	bubble(t, f, locker.Config{}, func(t *testing.T, l *locker.Locker) {
		f.take("z", 0)
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		f.set(only("release", hung))
		began := time.Now()
		_, err := l.LockAll(ctx, []string{"a", "b", "c", "d", "z"}, locker.WithTTL(time.Minute))
		wantError(t, err, locker.CodeHeld, locker.ErrHeld, context.DeadlineExceeded)
		if took := time.Since(began); took > 7*time.Second {
			t.Errorf("it took %s, for a ctx of 1 s and 5 s to give back what it had", took)
		}
		f.set(nil)
	})
}
