//go:build go1.25

package locker_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// local is a fake in this process.
type local struct {
	*fake
	epoch time.Time
}

func newLocal() *local {
	f := &fake{caps: driver.Capabilities{Name: "local", Has: driver.NewSet(driver.LocalClock, driver.PromptLoss)}}
	return &local{f, time.Now()}
}

func (f *local) Epoch() time.Time { return f.epoch }

func (f *local) Attach(instance [16]byte, identity string) driver.Hand {
	return hand{f, instance, identity}
}

// hand is what a Locker uses of a local.
type hand struct {
	f        *local
	instance [16]byte
	identity string
}

func (h hand) Take(key string, ttl, _ time.Duration, hold driver.Listener, wait bool, note string) (token, where uint64, _ driver.Turn, err error) {
	h.f.mu.Lock()
	o := driver.Owner{Instance: h.instance, Seq: driver.TakenSeq(h.f.token + 1)}
	h.f.mu.Unlock()
	r := driver.Request{Key: key, Owner: o, TTL: ttl, Hold: hold, Identity: h.identity, Note: note}
	g, err := h.f.Acquire(context.Background(), r)
	if wait && errors.Is(err, driver.ErrHeld) {
		return 0, 0, turn{h, r}, nil
	}
	return g.Token, 0, nil, err
}

func (h hand) Drop(_, token uint64, _ time.Duration) error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	for key := range h.f.holds {
		if live := h.f.live(key); live != nil && live.token == token {
			delete(h.f.holds, key)
			return nil
		}
	}
	return driver.ErrLost
}

func (h hand) Shut() (held []driver.Listener) {
	f := h.f
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

// turn asks again and again.
type turn struct {
	h hand
	r driver.Request
}

func (t turn) Await(ctx context.Context) (token, where uint64, from time.Duration, err error) {
	for {
		from = time.Since(t.h.f.epoch)
		token, _, _, err = t.h.Take(t.r.Key, t.r.TTL, from, t.r.Hold, false, t.r.Note)
		if !errors.Is(err, driver.ErrHeld) {
			return token, 0, from, err
		}
		if sleep(ctx, time.Millisecond) != nil {
			return 0, 0, 0, errors.Join(driver.ErrHeld, ctx.Err())
		}
	}
}

// A Lock of a local backend waits for as long as its timed attempts would take.
func TestPatienceOfLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocker(t, newLocal(), locker.Config{})
		s := mustLock(t, l, "k")
		began := time.Now()
		_, err := l.Lock(bg, "k", locker.WithRetry(locker.Retry{Attempts: 3, Delay: time.Second, Jitter: locker.NoJitter}))
		wantError(t, err, locker.CodeHeld, locker.ErrHeld)
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v: no ctx of the caller's has ended", err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("it took %s", took)
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
		wantError(t, s.Err(), locker.CodeClosed)
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
			wantError(t, s.Err(), locker.CodeClosed, locker.ErrClosed)
			wantError(t, s.Unlock(bg), locker.CodeClosed, locker.ErrClosed)
		}
	})
}

// listening is a backend with an ear of its own.
type listening struct{ driver.Backend }

func (l listening) Unwrap() driver.Backend { return l.Backend }

func (l listening) Epoch() time.Time { return l.Backend.(*local).Epoch() }

func (l listening) Attach(instance [16]byte, identity string) driver.Hand {
	return listeningHand{l.Backend.(*local).Attach(instance, identity)}
}

type listeningHand struct{ driver.Hand }

func (l listeningHand) Take(key string, ttl, sent time.Duration, hold driver.Listener, wait bool, note string) (uint64, uint64, driver.Turn, error) {
	return l.Hand.Take(key, ttl, sent, ear{hold}, wait, note)
}

type ear struct{ driver.Listener }

// A local backend may tell of a loss before Take has returned, like any other.
func TestEarlyLossOfLocal(t *testing.T) {
	f := newLocal()
	l := newLocker(t, losing{f}, locker.Config{})
	for range 200 {
		if s, err := l.TryLock(bg, "k", locker.WithTTL(time.Minute)); err == nil {
			<-s.Done()
		} else {
			wantError(t, err, locker.CodeLost, locker.ErrLost)
		}
	}
}

// losing tells of each hold's loss while its grant is on its way.
type losing struct{ *local }

func (l losing) Attach(instance [16]byte, identity string) driver.Hand {
	return losingHand{l.local.Attach(instance, identity), l.local}
}

type losingHand struct {
	driver.Hand
	f *local
}

func (l losingHand) Take(key string, ttl, sent time.Duration, hold driver.Listener, wait bool, note string) (uint64, uint64, driver.Turn, error) {
	token, where, turn, err := l.Hand.Take(key, ttl, sent, hold, wait, note)
	if err == nil {
		go l.f.lose(key, driver.ErrLost)
		time.Sleep(time.Microsecond)
	}
	return token, where, turn, err
}

// REL-002: the core says what the time is in a Drop, so that it must have looked itself
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
				wantError(t, err, locker.CodeLost, want)
			}
			time.Sleep(time.Second)
		}
	})
}

// lenient believes what the core says of the time.
type lenient struct{ *local }

func (l lenient) Attach(instance [16]byte, identity string) driver.Hand {
	return lenientHand{l.local.Attach(instance, identity), l.local}
}

type lenientHand struct {
	driver.Hand
	f *local
}

func (l lenientHand) Drop(uint64, uint64, time.Duration) error {
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	clear(l.f.holds)
	return nil
}
