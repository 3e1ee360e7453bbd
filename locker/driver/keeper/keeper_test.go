//go:build go1.25

package keeper_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/driver/keeper"
)

const validity = 3 * time.Second

// store is a store of sessions, and what is to go wrong in it.
type store struct {
	mu     sync.Mutex
	until  map[driver.Owner]time.Time
	busy   map[driver.Owner]bool
	fail   error
	takes  time.Duration // a renewal
	silent bool          // until its ctx ends
	calls  []int         // how many sessions each renewal was for
}

func newStore() *store {
	return &store{until: map[driver.Owner]time.Time{}, busy: map[driver.Owner]bool{}}
}

func (s *store) renew(ctx context.Context, all []driver.Holder) ([]keeper.Outcome, error) {
	s.mu.Lock()
	s.calls = append(s.calls, len(all))
	takes, silent, fail := s.takes, s.silent, s.fail
	s.mu.Unlock()
	time.Sleep(takes / 2)
	if silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if fail != nil {
		return nil, fail
	}
	s.mu.Lock()
	outcomes := make([]keeper.Outcome, len(all))
	for i, h := range all {
		switch {
		case s.busy[h.Owner]:
		case s.until[h.Owner].After(time.Now()):
			s.until[h.Owner] = time.Now().Add(validity)
			outcomes[i] = keeper.Renewed
		default:
			outcomes[i] = keeper.Gone
		}
	}
	s.mu.Unlock()
	time.Sleep(takes / 2)
	return outcomes, nil
}

func (s *store) set(f func()) { s.mu.Lock(); defer s.mu.Unlock(); f() }

// listener notes what it hears, and when.
type listener struct {
	mu    sync.Mutex
	cause error
	at    time.Time
	times int
}

func (l *listener) Lost(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cause, l.at = cause, time.Now()
	l.times++
}

func (l *listener) heard() error { l.mu.Lock(); defer l.mu.Unlock(); return l.cause }

// world is a store, a keeper over it, and one session after the other.
type world struct {
	t *testing.T
	*store
	*keeper.Keeper
	seq uint64
}

// run runs f in virtual time.
func run(t *testing.T, atOnce int, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		w := &world{t: t, store: s, Keeper: keeper.New(keeper.Config{Validity: validity, Renew: s.renew, AtOnce: atOnce})}
		f(w)
		w.Close()
	})
}

func (w *world) session() (driver.Owner, *listener) {
	w.seq++
	r := driver.Request{Key: "k", Owner: driver.Owner{Seq: w.seq}, Hold: &listener{}}
	w.set(func() { w.until[r.Owner] = time.Now().Add(validity) })
	if !w.Keep(r, w.seq, time.Now()) {
		w.t.Fatal("Keep says that the keeper is closed")
	}
	return r.Owner, r.Hold.(*listener)
}

func (w *world) alive(l *listener, after time.Duration) {
	w.t.Helper()
	time.Sleep(after)
	synctest.Wait()
	if err := l.heard(); err != nil {
		w.t.Fatalf("after %s it is lost: %v", after, err)
	}
}

// One call renews all, three times in each validity.
func TestRenewal(t *testing.T) {
	run(t, 0, func(w *world) {
		_, first := w.session()
		for range 99 {
			w.session()
		}
		w.alive(first, 10*validity+validity/6)
		if n := len(w.calls); n < 30 || n > 31 {
			t.Errorf("%d renewals in ten validities", n)
		}
		for _, n := range w.calls {
			if n != 100 {
				t.Errorf("a renewal is for %d of 100 sessions", n)
			}
		}
	})
}

func TestAtOnce(t *testing.T) {
	run(t, 40, func(w *world) {
		for range 100 {
			w.session()
		}
		time.Sleep(validity/3 + time.Millisecond)
		synctest.Wait()
		if len(w.calls) != 3 || w.calls[0] != 40 || w.calls[1] != 40 || w.calls[2] != 20 {
			t.Errorf("renewed %v at once, at most 40 are allowed", w.calls)
		}
	})
}

// LOSS-001: a store that is silent ends sessions by the clock, counted from the last
// confirmation, and no sooner.
func TestSilence(t *testing.T) {
	for name, break_ := range map[string]func(*store){
		"no answer": func(s *store) { s.silent = true },
		"an error":  func(s *store) { s.fail = errors.New("the disk is full") },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, 0, func(w *world) {
				began := time.Now()
				_, l := w.session()
				w.alive(l, validity/3+time.Millisecond) // renewed once
				confirmed := began.Add(validity / 3)
				w.set(func() { break_(w.store) })
				time.Sleep(2 * validity)
				synctest.Wait()
				if !errors.Is(l.heard(), driver.ErrUnavailable) {
					t.Fatalf("the cause is %v", l.heard())
				}
				if late := l.at.Sub(confirmed.Add(keeper.HeldFor(validity))); late < 0 || late > time.Millisecond {
					t.Errorf("it ended %s after the last confirmation, %s off", l.at.Sub(confirmed), late)
				}
				if w.fail != nil && !strings.Contains(l.heard().Error(), "the disk is full") {
					t.Errorf("the cause does not say what the store said: %v", l.heard())
				}
				if l.times != 1 || w.Len() != 0 {
					t.Errorf("told %d times, %d sessions left", l.times, w.Len())
				}
			})
		})
	}
}

// The count begins before a renewal is asked for: a reply that takes long leaves less.
func TestCountsFromBefore(t *testing.T) {
	run(t, 0, func(w *world) {
		w.set(func() { w.takes = validity / 4 })
		began := time.Now()
		_, l := w.session()
		w.alive(l, validity/3+validity/4+time.Millisecond) // asked at a third, answered a quarter later
		w.set(func() { w.silent = true })
		time.Sleep(2 * validity)
		synctest.Wait()
		if late := l.at.Sub(began.Add(validity/3 + keeper.HeldFor(validity))); late < 0 || late > time.Millisecond {
			t.Errorf("it ended %s late", late)
		}
	})
}

func TestGone(t *testing.T) {
	run(t, 0, func(w *world) {
		o, l := w.session()
		_, other := w.session()
		w.set(func() { delete(w.until, o) })
		w.Check()
		synctest.Wait()
		if l.heard() != driver.ErrLost || other.heard() != nil || w.Len() != 1 {
			t.Errorf("lost %v, other %v, %d left", l.heard(), other.heard(), w.Len())
		}
	})
}

// A session whose entry is busy is not lost, and tried again soon, alone.
func TestBusy(t *testing.T) {
	run(t, 0, func(w *world) {
		o, l := w.session()
		w.session()
		w.set(func() { w.busy[o] = true })
		w.alive(l, validity/3+validity/6)
		if w.calls[0] != 2 || len(w.calls) < 3 || w.calls[1] != 1 || w.calls[2] != 1 {
			t.Errorf("renewals of %v sessions", w.calls)
		}
		w.set(func() { w.busy[o] = false })
		w.alive(l, 3*validity)
	})
}

// An outage that is shorter than the validity is survived.
func TestOutage(t *testing.T) {
	run(t, 0, func(w *world) {
		_, l := w.session()
		for range 5 {
			w.set(func() { w.fail = errors.New("down") })
			w.alive(l, validity*3/5)
			w.set(func() { w.fail = nil })
			w.alive(l, validity/2)
		}
	})
}

// A grant whose reply took long is renewed at once.
func TestLateGrant(t *testing.T) {
	run(t, 0, func(w *world) {
		o := driver.Owner{Seq: 1}
		sent := time.Now()
		time.Sleep(validity * 9 / 10)
		w.set(func() { w.until[o] = time.Now().Add(validity / 10) })
		l := &listener{}
		w.Keep(driver.Request{Key: "k", Owner: o, Hold: l}, 1, sent)
		w.alive(l, validity)
	})
}

// A renewal that is under way while a session is released, or taken again by a repeat of
// its attempt, says nothing of it.
func TestRaces(t *testing.T) {
	run(t, 0, func(w *world) {
		w.set(func() { w.takes = validity / 6 })
		released, l := w.session()
		repeated, old := w.session()
		w.set(func() { delete(w.until, released); delete(w.until, repeated) })
		time.Sleep(validity/3 + validity/12 + validity/24) // the store has decided, and its reply is on the way
		w.Forget(released)
		next := &listener{}
		w.set(func() { w.until[repeated] = time.Now().Add(validity) })
		w.Keep(driver.Request{Key: "k", Owner: repeated, Hold: next}, 2, time.Now())
		w.alive(next, 2*validity)
		if l.heard() != nil || old.heard() != nil {
			t.Errorf("released: %v, replaced: %v", l.heard(), old.heard())
		}
	})
}

// TOK-004: a grant whose reply took longer than the session may be considered held is none. Its listener
// hears of that before Keep returns.
func TestTooLateGrant(t *testing.T) {
	run(t, 0, func(w *world) {
		l := &listener{}
		h := driver.Holder{Key: "k", Owner: driver.Owner{Seq: 9}}
		if !w.Keep(driver.Request{Key: "k", Owner: h.Owner, Hold: l}, 1, time.Now().Add(-keeper.HeldFor(validity))) {
			t.Error("Keep says that the keeper is closed")
		}
		if !errors.Is(l.heard(), driver.ErrUnavailable) || w.Len() != 0 {
			t.Errorf("it heard %v, and %d are kept", l.heard(), w.Len())
		}
		if err := w.SessionErr(h); err != nil {
			t.Errorf("one that is not known: %v", err)
		}
	})
}

// asker is a listener who asks for the state of the session while it is being told.
type asker struct {
	k    *keeper.Keeper
	h    driver.Holder
	told chan error
}

func (a *asker) Lost(error) { a.told <- a.k.SessionErr(a.h) }

// LOSS-001: there is no instant at which a session that has ended passes for one that is held,
// however it ended, although its listener is told a moment later.
func TestNeverUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(w *world, o driver.Owner)
		want error
	}{
		"expired": {func(w *world, _ driver.Owner) { w.set(func() { w.silent = true }) }, driver.ErrUnavailable},
		"gone":    {func(w *world, o driver.Owner) { w.set(func() { delete(w.until, o) }) }, driver.ErrLost},
		"lost":    {func(w *world, o driver.Owner) { w.Lose(o, driver.ErrBroken) }, driver.ErrBroken},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, 0, func(w *world) {
				o := driver.Owner{Seq: 9}
				l := &asker{w.Keeper, driver.Holder{Key: "k", Owner: o}, make(chan error, 1)}
				w.set(func() { w.until[o] = time.Now().Add(validity) })
				w.Keep(driver.Request{Key: "k", Owner: o, Hold: l}, 1, time.Now())
				c.end(w, o)
				time.Sleep(2 * validity)
				synctest.Wait()
				if err := <-l.told; !errors.Is(err, c.want) {
					t.Errorf("while it is told: %v; want %v", err, c.want)
				}
				if err := w.SessionErr(l.h); err != nil || w.Len() != 0 {
					t.Errorf("when it has been told: %v, and %d are kept", err, w.Len())
				}
			})
		})
	}
}

func TestLose(t *testing.T) {
	run(t, 0, func(w *world) {
		o, l := w.session()
		w.Lose(o, driver.ErrLost)
		w.Lose(o, driver.ErrUnavailable)
		if l.heard() != driver.ErrLost || l.times != 1 {
			t.Errorf("%v, %d times", l.heard(), l.times)
		}
	})
}

func TestClose(t *testing.T) {
	run(t, 0, func(w *world) {
		w.set(func() { w.silent = true })
		_, l := w.session()
		time.Sleep(validity/3 + time.Millisecond) // a renewal waits
		before := time.Now()
		w.Close()
		w.Close()
		if time.Since(before) != 0 || l.heard() != nil || w.Keep(driver.Request{Hold: l}, 1, time.Now()) {
			t.Errorf("Close took %s; lost %v", time.Since(before), l.heard())
		}
	})
}

func TestWrongNumberOfOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keeper.New(keeper.Config{Validity: validity, Renew: func(context.Context, []driver.Holder) ([]keeper.Outcome, error) { return nil, nil }})
		defer k.Close()
		l := &listener{}
		k.Keep(driver.Request{Key: "k", Hold: l}, 1, time.Now())
		time.Sleep(validity)
		if err := l.heard(); err == nil || !strings.Contains(err.Error(), "1 sessions were renewed with 0 outcomes") {
			t.Error(err)
		}
	})
}
