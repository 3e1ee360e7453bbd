//go:build go1.25

package locker_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// local is a fake in this process, which does not wait by itself.
type local struct {
	notifying
	epoch time.Time
}

func newLocal() *local {
	f := &fake{caps: driver.Capabilities{Name: "local", Has: driver.NewSet(driver.LocalClock, driver.PromptLoss)}}
	return &local{notifying: notifying{f}, epoch: time.Now()}
}

func (f *local) Epoch() time.Time { return f.epoch }

func (f *local) Shut() (held []driver.Listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = func(_ context.Context, op, _ string, do func() error) error {
		if op == "acquire" {
			return driver.ErrClosed
		}
		return do()
	}
	for key := range f.holds {
		if h := f.live(key); h != nil && h.listener != nil {
			held = append(held, h.listener)
		}
	}
	return held
}

// WAIT-004: where a local backend leaves the waiting to the core, who comes later gets in line.
func TestNobodyJumpsTheLineOfLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newLocal()
		l := newLocker(t, f, locker.Config{})
		s := mustLock(t, l, "k")
		line(l, bg, 1, locker.WithRetry(locker.Retry{Attempts: locker.Forever, Delay: time.Hour}))
		before := f.count("acquire")
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		if _, err := l.Lock(ctx, "k"); err == nil {
			t.Fatal("granted")
		}
		if n := f.count("acquire") - before; n != 0 {
			t.Errorf("%d attempts by one who is second in line", n)
		}
		_ = s.Unlock(bg)
	})
}

// The Observer hears of the end of each hold that it heard the beginning of, and Close waits
// for it, although a local backend's calls are not counted.
func TestEventsInOrderOfLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		var l *locker.Locker
		slowly := locker.ObserverFunc(func(ctx context.Context, e locker.Event) {
			if e.Kind == locker.EventAcquired {
				go func() { _ = l.Close(bg) }()
				time.Sleep(time.Second)
			}
			rec.Observe(ctx, e)
		})
		l = newLocker(t, newLocal(), locker.Config{Observer: slowly})
		s := mustLock(t, l, "k")
		wantError(t, s.Err(), locker.Closed)
		_ = l.Close(bg)
		rec.want(t, "k", "Acquired", "Released")
	})
}

// A wrapper that is found to be local through what it wraps may have put its own Listener
// before the core's. Close ends such a hold, too (CLO-003).
func TestCloseEndsHoldOfWrappedListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newLocal()
		l := newLocker(t, listening{f}, locker.Config{})
		lease, session := mustLock(t, l, "lease", locker.WithTTL(time.Hour)), mustLock(t, l, "session")
		if err := l.Close(bg); err != nil {
			t.Error(err)
		}
		for _, s := range []*locker.Lease{lease, session} {
			wantError(t, s.Err(), locker.Closed, locker.ErrClosed)
			wantError(t, s.Unlock(bg), locker.Closed, locker.ErrClosed)
		}
	})
}

// listening is a backend with an ear of its own.
type listening struct{ driver.Backend }

func (l listening) Unwrap() driver.Backend { return l.Backend }

func (l listening) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	r.Hold = ear{r.Hold}
	return l.Backend.Acquire(ctx, r)
}

type ear struct{ driver.Listener }

// A local backend may tell of a loss before Acquire has returned, like any other.
func TestEarlyLossOfLocal(t *testing.T) {
	f := newLocal()
	l := newLocker(t, losing{f}, locker.Config{})
	for range 200 {
		if s, err := l.TryLock(bg, "k", locker.WithTTL(time.Minute)); err == nil {
			<-s.Done()
		} else {
			wantError(t, err, locker.Lost, locker.ErrLost)
		}
	}
}

// losing tells of each hold's loss while its grant is on its way.
type losing struct{ *local }

func (l losing) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	g, err := l.local.Acquire(ctx, r)
	if err == nil {
		go l.lose(r.Key, driver.ErrLost)
		time.Sleep(time.Microsecond)
	}
	return g, err
}

// REL-002: the core says what the time is in a Release, so that it must have looked itself
// whether the hold's was up.
func TestUnlockAtTheDeadlineOfLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocker(t, lenient{newLocal()}, locker.Config{})
		for late, want := range map[time.Duration]error{-1: nil, 0: driver.ErrExpired, 1: driver.ErrExpired} {
			s := mustLock(t, l, "k", locker.WithTTL(time.Second))
			time.Sleep(time.Second + late)
			if err := s.Unlock(bg); want == nil && err != nil {
				t.Error(err)
			} else if want != nil {
				wantError(t, err, locker.Lost, want)
			}
			time.Sleep(time.Second)
		}
	})
}

// lenient believes what the core says of the time.
type lenient struct{ *local }

func (l lenient) Release(context.Context, driver.Holder) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.holds)
	return nil
}
