//go:build go1.25

package memory

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// bubble runs f in a bubble, on a store of its own.
func bubble(t *testing.T, f func(t *testing.T, b *backend)) {
	synctest.Test(t, func(t *testing.T) { f(t, open(t, Config{})) })
}

// TestExpiresOnTime: on a clock that stands still while anybody works, a lease of whole
// milliseconds ends at its ttl to the nanosecond, and one that began off the tick within a
// tick; none ends early (TTL-001).
func TestExpiresOnTime(t *testing.T) {
	ttls := []time.Duration{
		time.Millisecond, 2 * time.Millisecond, 63 * time.Millisecond, 64 * time.Millisecond, 65 * time.Millisecond,
		time.Second, 4096 * time.Millisecond, 30 * time.Second, time.Hour, 90 * 24 * time.Hour, 100 * 365 * 24 * time.Hour,
	}
	for _, ttl := range ttls {
		for _, phase := range []time.Duration{0, 1, time.Millisecond - 1, 12345678} {
			t.Run(fmt.Sprint(ttl, "+", phase), func(t *testing.T) {
				bubble(t, func(t *testing.T, b *backend) {
					time.Sleep(phase)
					start := time.Now()
					heard := &losses{}
					r := request("k", 1, ttl)
					r.Hold = heard
					if _, err := b.Acquire(ctx, r); err != nil {
						t.Fatal(err)
					}
					time.Sleep(ttl - 1)
					synctest.Wait()
					if causes := heard.heard(); len(causes) != 0 || live(b) != 1 {
						t.Fatalf("1 ns early: heard %v, %d keys", causes, live(b))
					}
					time.Sleep(1 + time.Millisecond)
					synctest.Wait()
					if causes := heard.heard(); len(causes) != 1 || causes[0] != driver.ErrExpired {
						t.Fatalf("heard %v", causes)
					}
					late := heard.at.Sub(start) - ttl
					if late < 0 || late >= time.Millisecond || phase%time.Millisecond == 0 && late != 0 {
						t.Errorf("late by %v", late)
					}
					if live(b) != 0 || armed(b) != 0 {
						t.Errorf("%d keys and %d timers left", live(b), armed(b))
					}
				})
			})
		}
	}
}

// TestWaitSaysFromWhen: a lease that was waited for counts from the hand-over, not from the
// call, which may have begun long before (TTL-002).
func TestWaitSaysFromWhen(t *testing.T) {
	bubble(t, func(t *testing.T, b *backend) {
		if _, err := b.Acquire(ctx, request("k", 1, 3*time.Second)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		g, err := b.Wait(ctx, request("k", 2, time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		if from := g.From.Sub(start); from != 3*time.Second || g.TTL != time.Minute {
			t.Errorf("a ttl of %v from %v after the call; want 1m from 3s", g.TTL, from)
		}
	})
}

// TestNeverEnds: ttls at the end of what a Duration holds do not overflow into the past.
func TestNeverEnds(t *testing.T) {
	bubble(t, func(t *testing.T, b *backend) {
		time.Sleep(time.Hour) // now + ttl is beyond the largest int64
		for i, ttl := range []time.Duration{math.MaxInt64, math.MaxInt64 / 1e6 * 1e6, 292 * 365 * 24 * time.Hour} {
			r := request(fmt.Sprint("k", i), i, time.Minute)
			r.Hold = &losses{}
			if i != 1 {
				r.TTL = ttl
			}
			g, err := b.Acquire(ctx, r)
			if err == nil && i == 1 {
				g, err = b.Extend(ctx, holder(r.Key, i), ttl)
			}
			if err != nil || g.TTL != ttl {
				t.Fatalf("%+v, %v", g, err)
			}
		}
		time.Sleep(200 * 365 * 24 * time.Hour)
		synctest.Wait()
		if live(b) != 3 {
			t.Errorf("%d of 3 left after 200 years", live(b))
		}
	})
}

// TestOnTheSpot: with the timer out of action, every operation itself ends a hold whose
// time is up.
func TestOnTheSpot(t *testing.T) {
	cases := []struct {
		name  string
		do    func(b *backend) error
		err   error // of do, when nobody waits
		heard bool  // whether the Listener is called: not from within Release
	}{
		{"Acquire", func(b *backend) error { _, err := b.Acquire(ctx, request("k", 3, time.Hour)); return err }, nil, true},
		{"Acquire by the owner", func(b *backend) error { _, err := b.Acquire(ctx, request("k", 1, time.Hour)); return err }, nil, true},
		{"Wait", func(b *backend) error { _, err := b.Wait(ctx, request("k", 3, time.Hour)); return err }, nil, true},
		{"Extend", func(b *backend) error { _, err := b.Extend(ctx, holder("k", 1), time.Hour); return err }, driver.ErrExpired, true},
		{"Release", func(b *backend) error { return b.Release(ctx, holder("k", 1)) }, driver.ErrExpired, false},
		{"Inspect", func(b *backend) error {
			if _, ok, _ := b.Inspect(ctx, "k"); ok {
				return errors.New("still held")
			}
			return nil
		}, nil, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, waiter := range []bool{false, true} {
				if waiter && c.name == "Wait" {
					continue // it would wait
				}
				bubble(t, func(t *testing.T, b *backend) {
					heard := &losses{}
					r := request("k", 1, time.Second)
					r.Hold = heard
					first, err := b.Acquire(ctx, r)
					if err != nil {
						t.Fatal(err)
					}
					s, _ := b.store.shard("k")
					s.lock()
					s.timer.Stop()
					s.mu.Unlock()
					waited := make(chan driver.Grant, 1)
					if waiter {
						go func() {
							g, err := b.Wait(ctx, request("k", 2, time.Hour))
							if err != nil {
								t.Error(err)
							}
							waited <- g
						}()
						synctest.Wait()
						s.lock()
						s.timer.Stop()
						s.mu.Unlock()
					}
					time.Sleep(time.Second)
					synctest.Wait()
					if len(heard.heard()) != 0 {
						t.Fatal("the timer was not out of action")
					}
					err = c.do(b)
					if causes := heard.heard(); len(causes) != 0 != c.heard || c.heard && causes[0] != driver.ErrExpired {
						t.Errorf("waiter %v: heard %v", waiter, causes)
					}
					switch {
					case !waiter || c.err != nil:
						if err != c.err {
							t.Errorf("waiter %v: %v, want %v", waiter, err, c.err)
						}
					case c.name == "Inspect":
						if err == nil {
							t.Error("free, although somebody waits")
						}
					case !errors.Is(err, driver.ErrHeld):
						t.Errorf("%v, although somebody waits", err)
					}
					if waiter {
						if g := <-waited; g.Token <= first.Token {
							t.Errorf("token %d after %d", g.Token, first.Token)
						}
						if info, ok, _ := b.Inspect(ctx, "k"); !ok || info.Owner != owner(2).String() || info.Remaining != time.Hour {
							t.Errorf("held by %+v, %v", info, ok)
						}
					}
				})
			}
		})
	}
}

// TestGivesUpOnTheSpot: whoever stops waiting when the holder's time is up, and is first
// in the queue, has got the key.
func TestGivesUpOnTheSpot(t *testing.T) {
	bubble(t, func(t *testing.T, b *backend) {
		if _, err := b.Acquire(ctx, request("k", 1, time.Second)); err != nil {
			t.Fatal(err)
		}
		s, _ := b.store.shard("k")
		s.lock()
		s.timer.Stop()
		s.mu.Unlock()
		ended, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		g, err := b.Wait(ended, request("k", 2, time.Hour))
		if err != nil || g.TTL != time.Hour {
			t.Errorf("%+v, %v", g, err)
		}
	})
}

// TestExtendMovesTheEnd, in both directions (EXT-001), as often as one likes.
func TestExtendMovesTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, b *backend) {
		heard := &losses{}
		r := request("k", 1, 10*time.Second)
		r.Hold = heard
		if _, err := b.Acquire(ctx, r); err != nil {
			t.Fatal(err)
		}
		var end time.Time
		for _, d := range []time.Duration{20 * time.Second, time.Second, 100 * time.Millisecond, time.Hour, time.Minute, time.Second} {
			end = time.Now().Add(d)
			if _, err := b.Extend(ctx, holder("k", 1), d); err != nil {
				t.Fatal(err)
			}
			if info, _, _ := b.Inspect(ctx, "k"); info.Remaining != d {
				t.Errorf("remaining %v after Extend by %v", info.Remaining, d)
			}
			time.Sleep(d / 2)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !heard.at.Equal(end) {
			t.Errorf("ended %v after the time of the last Extend", heard.at.Sub(end))
		}
		if _, err := b.Extend(ctx, holder("k", 1), time.Hour); !errors.Is(err, driver.ErrLost) { // EXT-002
			t.Errorf("Extend after the end: %v", err)
		}
		if err := b.Release(ctx, holder("k", 1)); !errors.Is(err, driver.ErrLost) { // REL-002
			t.Errorf("Release after the end: %v", err)
		}
	})
}

// TestRepeatRestartsTTL: a repeated Acquire counts anew, and the newest listener hears.
func TestRepeatRestartsTTL(t *testing.T) {
	bubble(t, func(t *testing.T, b *backend) {
		start := time.Now()
		before, after := &losses{}, &losses{}
		r := request("k", 1, time.Second)
		for _, r.Hold = range []driver.Listener{before, after} {
			if _, err := b.Acquire(ctx, r); err != nil {
				t.Fatal(err)
			}
			time.Sleep(600 * time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(before.heard()) != 0 || after.at.Sub(start) != 1600*time.Millisecond {
			t.Errorf("heard %v, and %v after %v", before.heard(), after.heard(), after.at.Sub(start))
		}
	})
}

// TestFIFO: the key goes from hand to hand in the order of arrival, at releases and at
// expiries, across backends, past those who gave up; each ttl counts from its hand-over.
func TestFIFO(t *testing.T) {
	bubble(t, func(t *testing.T, b *backend) {
		other := open(t, Config{})
		var order, want []int
		done := make(chan struct{})
		if _, err := b.Acquire(ctx, request("k", 0, time.Second)); err != nil {
			t.Fatal(err)
		}
		const waiters = 60
		cancels := make([]context.CancelFunc, waiters+1)
		for n := 1; n <= waiters; n++ {
			through := b
			if n%2 == 0 {
				through = other
			}
			waitCtx, cancel := context.WithCancel(ctx)
			defer cancel()
			cancels[n] = cancel
			go func() {
				defer func() { done <- struct{}{} }()
				g, err := through.Wait(waitCtx, request("k", n, 100*time.Millisecond))
				if n%5 == 0 {
					if !errors.Is(err, driver.ErrHeld) || !errors.Is(err, context.Canceled) {
						t.Errorf("%d gave up: %v", n, err)
					}
					return
				}
				if err != nil {
					t.Errorf("%d: %v", n, err)
					return
				}
				order = append(order, n) // the lock guards it
				if g.TTL != 100*time.Millisecond {
					t.Errorf("%d: ttl %v", n, g.TTL)
				}
				if info, _, _ := b.Inspect(ctx, "k"); info.Token != g.Token || info.Remaining != g.TTL {
					t.Errorf("%d: %+v at the hand-over", n, info)
				}
				if n%3 == 0 {
					return // and let it expire
				}
				time.Sleep(10 * time.Millisecond)
				if _, err := b.Acquire(ctx, request("k", 1000+n, 0)); !errors.Is(err, driver.ErrHeld) {
					t.Errorf("somebody pushed in before %d: %v", n, err)
				}
				if err := through.Release(ctx, holder("k", n)); err != nil {
					t.Errorf("%d: %v", n, err)
				}
			}()
			synctest.Wait()
			if n%5 != 0 {
				want = append(want, n)
			}
		}
		for n := 5; n <= waiters; n += 5 {
			cancels[n]()
		}
		for range waiters {
			<-done
		}
		if !slices.Equal(order, want) {
			t.Errorf("order %v", order)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if live(b) != 0 || armed(b) != 0 {
			t.Errorf("%d keys and %d timers left", live(b), armed(b))
		}
	})
}

// slow is a Listener that takes its time, so that whoever does not wait for it is seen.
type slow struct{ heard bool }

func (s *slow) Lost(error) {
	time.Sleep(time.Second)
	s.heard = true
}

// TestHearsFirst: the holder has heard of its end before the next one holds the key.
func TestHearsFirst(t *testing.T) {
	bubble(t, func(t *testing.T, b *backend) {
		hold := &slow{}
		r := request("k", 1, time.Second)
		r.Hold = hold
		if _, err := b.Acquire(ctx, r); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Wait(ctx, request("k", 2, time.Hour)); err != nil {
			t.Fatal(err)
		}
		if !hold.heard {
			t.Error("the key was handed over before its holder had heard")
		}
	})
}

// TestKindsFollow: a session that takes over from a lease does not inherit its end, nor a
// lease the endlessness of a session, at a release, an expiry and on the spot.
func TestKindsFollow(t *testing.T) {
	bubble(t, func(t *testing.T, b *backend) {
		ttls := []time.Duration{time.Second, 0, time.Second, time.Second, 0, 0, time.Second}
		heard := make([]losses, len(ttls))
		start := time.Now()
		for n, ttl := range ttls {
			r := request("k", n, ttl)
			r.Hold = &heard[n]
			go func() {
				if _, err := b.Wait(ctx, r); err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}
		at := func(want time.Duration, n int) {
			t.Helper()
			synctest.Wait()
			info, ok, _ := b.Inspect(ctx, "k")
			if ok != (n < len(ttls)) || ok && (info.Owner != owner(n).String() || info.Session != (ttls[n] == 0)) || time.Since(start) != want {
				t.Fatalf("after %v: held by %+v, %v; want %d after %v", time.Since(start), info, ok, n, want)
			}
		}
		release := func(n int) {
			t.Helper()
			if err := b.Release(ctx, holder("k", n)); err != nil {
				t.Fatal(err)
			}
		}
		at(0, 0)
		time.Sleep(time.Second) // 0 expires
		at(time.Second, 1)
		time.Sleep(time.Hour)
		at(time.Hour+time.Second, 1)
		release(1)
		at(time.Hour+time.Second, 2)
		time.Sleep(time.Second / 2)
		release(2) // before its time
		at(time.Hour+3*time.Second/2, 3)
		time.Sleep(time.Second / 2)
		release(3)
		at(time.Hour+2*time.Second, 4)
		time.Sleep(time.Hour) // past the end that 3 would have had
		at(2*time.Hour+2*time.Second, 4)
		release(4)
		release(5)
		at(2*time.Hour+2*time.Second, 6)
		time.Sleep(time.Second)
		at(2*time.Hour+3*time.Second, 7)
		for n := range heard {
			if got := len(heard[n].heard()); got != map[int]int{0: 1, 6: 1}[n] {
				t.Errorf("%d heard of %d losses", n, got)
			}
		}
	})
}

// TestWaitEnds: the error of a wait says that the key is held, and why the waiting ended
// (CTX-003).
func TestWaitEnds(t *testing.T) {
	for _, ttl := range []time.Duration{time.Hour, 0} {
		bubble(t, func(t *testing.T, b *backend) {
			if _, err := b.Acquire(ctx, request("k", 1, ttl)); err != nil {
				t.Fatal(err)
			}
			because := errors.New("because")
			ended, cancel := context.WithTimeoutCause(ctx, time.Minute, because)
			defer cancel()
			_, err := b.Wait(ended, request("k", 2, time.Hour))
			for _, want := range []error{driver.ErrHeld, context.DeadlineExceeded, because} {
				if !errors.Is(err, want) {
					t.Errorf("%v does not match %v", err, want)
				}
			}
			if rest, ok := driver.Remaining(err); ok != (ttl > 0) || ok && rest != 59*time.Minute {
				t.Errorf("remaining %v, %v", rest, ok)
			}
			if waiting(b) != 0 {
				t.Error("still in the queue")
			}
		})
	}
}

// TestIdle: a held session sets no timer; a lease that was released leaves at most the one
// timer behind, which runs out without effect; Close stops even that.
func TestIdle(t *testing.T) {
	bubble(t, func(t *testing.T, b *backend) {
		if _, err := b.Acquire(ctx, request("session", 1, 0)); err != nil {
			t.Fatal(err)
		}
		if armed(b) != 0 {
			t.Error("a session sets a timer")
		}
		for i := range 1000 {
			lockUnlock(ctx, t, b, request("k", i, time.Minute))
		}
		if n := armed(b); n > 1 {
			t.Errorf("%d timers for one key", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := armed(b); n != 0 {
			t.Errorf("%d timers are set while nothing is due", n)
		}
		if live(b) != 1 {
			t.Errorf("%d keys left, want the session", live(b))
		}
		if _, err := b.Acquire(ctx, request("k", 1, time.Minute)); err != nil {
			t.Fatal(err)
		}
		b.Close(ctx)
		s, _ := b.store.shard("k")
		if armed(b) != 0 || live(b) != 0 || s.timer.Stop() {
			t.Error("a timer is set after Close")
		}
	})
}

// TestWakesAreFew: what the store does by itself is bounded by the leases that end, not by
// the time for which they last.
func TestWakesAreFew(t *testing.T) {
	bubble(t, func(t *testing.T, b *backend) {
		s, _ := b.store.shard("k")
		wakes := 0
		s.timer = time.AfterFunc(time.Hour, func() {
			wakes++
			s.turn()
		})
		s.timer.Stop()
		if _, err := b.Acquire(ctx, request("k", 1, 24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		for range 24*60 - 1 { // kept alive the whole day
			time.Sleep(time.Minute)
			if _, err := b.Extend(ctx, holder("k", 1), 24*time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		if live(b) != 0 || wakes > 3*levels {
			t.Errorf("%d wake-ups in three days, %d keys left", wakes, live(b))
		}
	})
}

// TestRandomLeases checks the whole against a model: many keys, random ttls, extensions
// and releases at random times; every hold ends at the due time of the model.
func TestRandomLeases(t *testing.T) {
	for seed := range uint64(8) {
		bubble(t, func(t *testing.T, b *backend) {
			r := rand.New(rand.NewPCG(seed, 1))
			type hold struct {
				losses
				key      string
				n        int
				due      time.Time
				released bool
			}
			var holds []*hold
			ttl := func() time.Duration { return time.Millisecond * time.Duration(1+magnitude(r, 22)) }
			for n := range 3000 {
				switch k := r.IntN(8); {
				case k < 4:
					h := &hold{key: fmt.Sprint("k", n), n: n}
					q := request(h.key, n, ttl())
					q.Hold = h
					if _, err := b.Acquire(ctx, q); err != nil {
						t.Fatal(err)
					}
					h.due = time.Now().Add(q.TTL)
					holds = append(holds, h)
				case k < 6 && len(holds) > 0:
					h := holds[r.IntN(len(holds))]
					over := h.released || !h.due.After(time.Now())
					d := ttl()
					if _, err := b.Extend(ctx, holder(h.key, h.n), d); over != errors.Is(err, driver.ErrLost) {
						t.Fatalf("Extend: %v, over %v", err, over)
					}
					if !over {
						h.due = time.Now().Add(d)
					}
				case k < 7 && len(holds) > 0:
					h := holds[r.IntN(len(holds))]
					over := h.released || !h.due.After(time.Now())
					if err := b.Release(ctx, holder(h.key, h.n)); over != errors.Is(err, driver.ErrLost) {
						t.Fatalf("Release: %v, over %v", err, over)
					}
					h.released = h.released || !over
				default:
					time.Sleep(ttl() / 16)
				}
			}
			time.Sleep(2 << 22 * time.Millisecond)
			synctest.Wait()
			for _, h := range holds {
				late := h.at.Sub(h.due)
				switch causes := h.heard(); {
				case h.released && len(causes) != 0:
					t.Fatalf("%s was released, and heard %v", h.key, causes)
				case !h.released && len(causes) == 0:
					// Its end was met by a Release, and reported there.
				case !h.released && (len(causes) != 1 || late < 0 || late >= time.Millisecond):
					t.Fatalf("%s heard %v, %v late", h.key, causes, late)
				}
			}
			if live(b) != 0 || armed(b) != 0 {
				t.Errorf("%d keys and %d timers left", live(b), armed(b))
			}
		})
	}
}

// TestHerd: a hundred thousand leases that end at the same moment all do.
func TestHerd(t *testing.T) {
	bubble(t, func(t *testing.T, b *backend) {
		heard := &losses{}
		const herd = 100_000
		for i := range herd {
			r := request(fmt.Sprint("k", i), i, 5*time.Second)
			r.Hold = heard
			if _, err := b.Acquire(ctx, r); err != nil {
				t.Fatal(err)
			}
		}
		if n := runtime.NumGoroutine(); n > 20 {
			t.Errorf("%d goroutines", n)
		}
		time.Sleep(5*time.Second - 1)
		synctest.Wait()
		if live(b) != herd {
			t.Errorf("%d left 1 ns before the end", live(b))
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if live(b) != 0 || len(heard.heard()) != herd || armed(b) != 0 {
			t.Errorf("%d left, %d heard, %d timers", live(b), len(heard.heard()), armed(b))
		}
	})
}

// wrapped is a wrapper of somebody's that shows no more than what it must, and waiting.
type wrapped struct{ driver.Backend }

func (w wrapped) Wait(ctx context.Context, r driver.Request) (driver.Grant, error) {
	return w.Backend.(driver.Waiter).Wait(ctx, r)
}

// TestWrapped: a core that does not see the driver.Local has a clock of its own, which must
// not be taken for the store's: the hold would end that much earlier than it is believed in
// (MX-001, TTL-002).
func TestWrapped(t *testing.T) {
	bubble(t, func(t *testing.T, b *backend) {
		time.Sleep(time.Hour)
		l, err := locker.New(wrapped{b}, locker.Config{})
		if err != nil {
			t.Fatal(err)
		}
		for _, lock := range []func(context.Context, string, ...locker.Option) (*locker.Lease, error){l.TryLock, l.Lock} {
			s, err := lock(ctx, "k", locker.WithTTL(time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(59 * time.Second)
			if _, err := l.TryLock(ctx, "k", locker.WithTTL(time.Minute)); !errors.Is(err, locker.ErrHeld) || s.Err() != nil {
				t.Errorf("a second before the end: %v, and the holder has %v", err, s.Err())
			}
			if err := s.Unlock(ctx); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestSharedClock: the core and the backend tell each other the time, and mean the same by it
// in each shard: a lease ends at its ttl to the nanosecond, also one that was waited for, and
// the next one counts from no moment before it was asked for (TTL-001, TTL-002).
func TestSharedClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := New(Config{Store: t.Name(), Shards: 8}, locker.Config{TTL: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close(ctx)
		time.Sleep(time.Minute) // at 0 the clock counts as not read
		for i := range 64 {
			key := strconv.Itoa(i)
			ends := func(s *locker.Lease, err error) {
				if err != nil {
					t.Fatal(err)
				}
				got := time.Now()
				if <-s.Done(); time.Since(got) != time.Second {
					t.Errorf("key %s: over after %s", key, time.Since(got))
				}
			}
			ends(l.Lock(ctx, key))
			s, err := l.Lock(ctx, key)
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(500*time.Millisecond, func() { _ = s.Unlock(ctx) })
			ends(l.Lock(ctx, key))
		}
	})
	bubble(t, func(t *testing.T, b *backend) {
		time.Sleep(time.Minute)
		hand := b.Attach([16]byte{1}, "")
		token, where, _, err := hand.Take("k", time.Hour, time.Since(b.Epoch()), ignore{}, false, "")
		if err != nil {
			t.Fatal(err)
		}
		at := time.Since(b.Epoch()) // an Unlock that is held up here
		time.Sleep(time.Minute)
		sent := time.Since(b.Epoch())
		_, _, turn, err := hand.Take("k", time.Second, sent, ignore{}, true, "")
		if turn == nil {
			t.Fatal("no turn:", err)
		}
		if err := hand.Drop(where, token, at); err != nil {
			t.Fatal(err)
		}
		if _, _, from, err := turn.Await(ctx); err != nil || from < sent {
			t.Errorf("it counts from %s before it was asked for: %v", sent-from, err)
		}
	})
}
