//go:build go1.25

package locker_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// passing is a fake that hints and passes, a few times in a row.
type passing struct {
	notifying
	turn int // how often in a row; 0 for no end
	n    int
}

func (p *passing) HandOff(ctx context.Context, h driver.Holder, r driver.Request) (g driver.Handed, err error) {
	yield := false
	err = p.run(ctx, "hand off", h.Key, func() error {
		held := p.live(h.Key)
		if held == nil || held.owner != h.Owner || held.token != h.Token {
			return driver.ErrLost
		}
		if p.n++; p.turn > 0 && p.n > p.turn {
			yield, p.n = true, 0
			return nil
		}
		p.token++
		held.token, held.listener = p.token, r.Hold
		held.ttl, held.until = r.TTL, time.Now().Add(r.TTL)
		g = driver.Handed{Grant: driver.Grant{Token: p.token, TTL: r.TTL}, Owner: h.Owner}
		return nil
	})
	if yield {
		return driver.Handed{}, yielded(p.Release(ctx, h))
	}
	if err != nil {
		g = driver.Handed{}
	}
	return g, err
}

// yielded is what HandOff returns after a release that ended with err.
func yielded(err error) error {
	if err == nil {
		return driver.ErrYielded
	}
	return err
}

var leases = locker.Config{TTL: time.Minute, Retry: locker.Retry{Attempts: locker.Forever, Delay: time.Hour, Jitter: locker.NoJitter}}

// line puts n waiters in line for k, one after the other. Each one's outcome comes on its
// channel.
func line(l *locker.Locker, ctx context.Context, n int, opts ...locker.Option) []chan result {
	out := make([]chan result, n)
	for i := range out {
		out[i] = make(chan result, 1)
		go func() {
			s, err := l.Lock(ctx, "k", opts...)
			out[i] <- result{s, err}
		}()
		synctest.Wait()
	}
	return out
}

type result struct {
	s   *locker.Lease
	err error
}

func (r result) lease(t *testing.T) *locker.Lease {
	t.Helper()
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.s
}

// A lease goes through the line in order, and the store is asked for nothing else; each
// holder's token, deadline and loss are its own.
func TestHandOff(t *testing.T) {
	p := &passing{notifying: notifying{&fake{}}}
	bubbleOf(t, p, leases, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k")
		waiters := line(l, bg, 10)
		attempts := p.count("acquire")
		for i, w := range waiters {
			time.Sleep(time.Second)
			if err := s.Unlock(bg); err != nil {
				t.Fatal(err)
			}
			next := (<-w).lease(t)
			if next.Token() <= s.Token() {
				t.Errorf("waiter %d: token %d after %d", i, next.Token(), s.Token())
			}
			if d, _ := next.Deadline(); time.Until(d) > time.Minute || time.Until(d) < 59*time.Second {
				t.Errorf("waiter %d: %s left", i, time.Until(d))
			}
			wantError(t, s.Unlock(bg), locker.CodeReleased, locker.ErrReleased)
			if err := next.Extend(bg, time.Minute); err != nil {
				t.Error(err)
			}
			s = next
			synctest.Wait()
		}
		if n := p.count("acquire") - attempts; n != 0 {
			t.Errorf("%d attempts although the hold was handed off", n)
		}
		if n := p.count("release"); n != 0 || p.count("hand off") != 10 {
			t.Errorf("%d releases, %d passes", n, p.count("hand off"))
		}
		if err := s.Unlock(bg); err != nil || p.held("k") {
			t.Errorf("the last one's Unlock: %v", err)
		}
	})
}

// Loss is the present holder's, not that of the one whose owner the store knows.
func TestHandedOffAndLost(t *testing.T) {
	p := &passing{notifying: notifying{&fake{}}}
	bubbleOf(t, p, leases, func(t *testing.T, l *locker.Locker) {
		first := mustLock(t, l, "k")
		waiters := line(l, bg, 2)
		_ = first.Unlock(bg)
		s := (<-waiters[0]).lease(t)
		p.lose("k", driver.ErrLost)
		if !isDone(s) {
			t.Error("the holder was not told")
		}
		wantError(t, s.Unlock(bg), locker.CodeLost, locker.ErrLost)
		wantError(t, first.Err(), locker.CodeReleased, locker.ErrReleased)
	})
}

// Nobody is called to the front while a hold is handed off; the next one in line must be,
// by a wake-up and when the time of the hold is up (TTL-001, WAIT-001).
func TestPassingStops(t *testing.T) {
	for name, stop := range map[string]func(p *passing, s *locker.Lease) (after time.Duration){
		"expired": func(*passing, *locker.Lease) time.Duration { return time.Minute + time.Millisecond },
		"woken": func(p *passing, _ *locker.Lease) time.Duration {
			p.mu.Lock()
			delete(p.holds, "k")
			wake := p.wakes["k"]
			p.mu.Unlock()
			wake()
			return 0
		},
		"doubtful": func(p *passing, s *locker.Lease) time.Duration {
			p.set(only("extend", unavailable))
			_ = s.Extend(bg, time.Minute)
			p.set(nil)
			_ = s.Unlock(bg)
			if p.count("hand off") != 1 {
				panic("a hold was passed whose Extend may yet arrive")
			}
			return 0
		},
		"yielded": func(p *passing, s *locker.Lease) time.Duration {
			p.turn, p.n = 1, 1
			_ = s.Unlock(bg)
			return 0
		},
		"yielded, woken before it is known": func(p *passing, s *locker.Lease) time.Duration {
			p.turn, p.n = 1, 1
			p.set(only("release", func(_ context.Context, _, _ string, do func() error) error {
				err := do()
				synctest.Wait()
				return err
			}))
			_ = s.Unlock(bg)
			p.set(nil)
			return 0
		},
		"lost reply": func(p *passing, s *locker.Lease) time.Duration {
			p.set(only("hand off", unavailable))
			if err := s.Unlock(bg); !errors.Is(err, locker.ErrUnavailable) {
				panic(err)
			}
			return 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := &passing{notifying: notifying{&fake{}}}
			bubbleOf(t, p, leases, func(t *testing.T, l *locker.Locker) {
				s := mustLock(t, l, "k")
				waiters := line(l, bg, 3)
				_ = s.Unlock(bg)
				s = (<-waiters[0]).lease(t)
				began := time.Now()
				want := stop(p, s)
				s = (<-waiters[1]).lease(t)
				if took := time.Since(began); took != want {
					t.Errorf("the next one waited %s, want %s", took, want)
				}
				_ = s.Unlock(bg)
				s = (<-waiters[2]).lease(t)
				_ = s.Unlock(bg)
				synctest.Wait()
				p.nothingHeld(t)
			})
		})
	}
}

// WAIT-003, CTX-004: who gives up while a hold is being passed to it leaves it to the next
// one, and the last one leaves nothing behind.
func TestGivingUpWhatIsPassed(t *testing.T) {
	p := &passing{notifying: notifying{&fake{}}}
	bubbleOf(t, p, leases, func(t *testing.T, l *locker.Locker) {
		for behind := range 3 {
			s := mustLock(t, l, "k")
			ctx, cancel := context.WithCancel(bg)
			leaving := line(l, ctx, 1)
			staying := line(l, bg, behind)
			p.set(only("hand off", func(_ context.Context, _, _ string, do func() error) error {
				cancel()
				synctest.Wait() // the waiter has gone
				return do()
			}))
			if err := s.Unlock(bg); err != nil {
				t.Error(err)
			}
			wantError(t, (<-leaving[0]).err, locker.CodeHeld, context.Canceled)
			for _, w := range staying {
				s := (<-w).lease(t)
				if err := s.Unlock(bg); err != nil {
					t.Error(err)
				}
			}
			synctest.Wait()
			p.nothingHeld(t)
			cancel()
		}
	})
}

// A session has a life of its own, and is not passed a lease nor from one.
func TestSessionsAreNotPassed(t *testing.T) {
	p := &passing{notifying: notifying{&fake{}}}
	cfg := leases
	cfg.TTL = 0
	bubbleOf(t, p, cfg, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k", locker.WithTTL(time.Minute))
		sessions := line(l, bg, 1)
		lease := line(l, bg, 1, locker.WithTTL(time.Minute))
		_ = s.Unlock(bg)
		_ = (<-sessions[0]).lease(t).Unlock(bg)
		_ = (<-lease[0]).lease(t).Unlock(bg)
		if n := p.count("hand off"); n != 0 {
			t.Errorf("%d passes", n)
		}
	})
}

// Close ends the waiting of those to whom nothing was passed, and leaves nothing.
func TestCloseWhilePassing(t *testing.T) {
	p := &passing{notifying: notifying{&fake{}}}
	bubbleOf(t, p, leases, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k")
		waiters := line(l, bg, 3)
		_ = s.Unlock(bg)
		s = (<-waiters[0]).lease(t)
		if err := l.Close(bg); err != nil {
			t.Error(err)
		}
		for _, w := range waiters[1:] {
			wantError(t, (<-w).err, locker.CodeClosed, locker.ErrClosed)
		}
		wantError(t, s.Err(), locker.CodeClosed, locker.ErrClosed)
		p.nothingHeld(t)
	})
}

// Many at once, some of whom lose their patience: nobody holds at the same time, tokens
// rise, and everybody is served.
func TestPassingUnderLoad(t *testing.T) {
	p := &passing{notifying: notifying{&fake{}}, turn: 7}
	bubbleOf(t, p, leases, func(t *testing.T, l *locker.Locker) {
		var (
			wg     sync.WaitGroup
			inside int
			tokens []uint64
		)
		for i := range 32 {
			wg.Go(func() {
				for n := range 20 {
					ctx, cancel := context.WithTimeout(bg, time.Duration(1+(i+n)%40)*time.Millisecond)
					s, err := l.Lock(ctx, "k")
					cancel()
					if err != nil {
						continue
					}
					if inside++; inside != 1 {
						t.Errorf("%d hold at once", inside)
					}
					tokens = append(tokens, s.Token())
					time.Sleep(time.Millisecond)
					inside--
					if err := s.Unlock(bg); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if !slices.IsSorted(tokens) || len(tokens) < 100 {
			t.Errorf("%d grants, tokens in order: %v", len(tokens), slices.IsSorted(tokens))
		}
		synctest.Wait()
		p.nothingHeld(t)
	})
}

// WAIT-003: a wake-up that comes while the waiter is offered a hold is not lost when nothing
// comes of the offer.
func TestWakeUpWhileOffered(t *testing.T) {
	for name, stop := range map[string]func(p *passing, s *locker.Lease) (after time.Duration){
		"yielded": func(p *passing, s *locker.Lease) time.Duration {
			p.turn, p.n = 1, 1
			p.set(only("release", func(_ context.Context, _, _ string, do func() error) error {
				err := do() // which wakes
				synctest.Wait()
				return err
			}))
			_ = s.Unlock(bg)
			return 0
		},
		"deleted": func(p *passing, s *locker.Lease) time.Duration {
			p.set(only("hand off", func(_ context.Context, _, _ string, do func() error) error {
				p.mu.Lock()
				delete(p.holds, "k")
				wake := p.wakes["k"]
				p.mu.Unlock()
				wake()
				synctest.Wait()
				return do()
			}))
			_ = s.Unlock(bg)
			return 0
		},
		// The waiter does not ask again and again meanwhile either.
		"slow": func(p *passing, s *locker.Lease) time.Duration {
			p.set(only("hand off", func(ctx context.Context, _, _ string, do func() error) error {
				time.Sleep(90 * time.Second)
				return do()
			}))
			_ = s.Unlock(bg)
			return 90 * time.Second
		},
	} {
		for _, front := range []bool{true, false} { // whether the waiter has been called before
			t.Run(name, func(t *testing.T) {
				p := &passing{notifying: notifying{&fake{}}}
				bubbleOf(t, p, leases, func(t *testing.T, l *locker.Locker) {
					s := mustLock(t, l, "k")
					waiters := line(l, bg, 3)
					if !front {
						_ = s.Unlock(bg)
						s = (<-waiters[0]).lease(t)
						waiters = waiters[1:]
					}
					began := time.Now()
					want := stop(p, s)
					p.set(nil)
					for _, w := range waiters {
						s = (<-w).lease(t)
						if took := time.Since(began); took != want {
							t.Errorf("waited %s, want %s", took, want)
						}
						_ = s.Unlock(bg)
					}
					synctest.Wait()
					p.nothingHeld(t)
				})
			})
		}
	}
}

// WAIT-001: the hint of a deletion may come between the store's hand-off and its answer. Who was
// handed the hold is told of the loss afterwards, and its Unlock wakes nobody: the next one in
// line relies on that.
func TestDeletedBeforeHandOffReturns(t *testing.T) {
	p := &passing{notifying: notifying{&fake{}}}
	bubbleOf(t, p, leases, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k")
		waiters := line(l, bg, 3)
		began := time.Now()
		var handed driver.Listener
		p.set(only("hand off", func(_ context.Context, _, _ string, do func() error) error {
			err := do()
			p.mu.Lock()
			handed = p.holds["k"].listener
			delete(p.holds, "k")
			wake := p.wakes["k"]
			p.mu.Unlock()
			wake()
			synctest.Wait()
			return err
		}))
		_ = s.Unlock(bg)
		p.set(nil)
		s = (<-waiters[0]).lease(t)
		handed.Lost(driver.ErrLost)
		wantError(t, s.Unlock(bg), locker.CodeLost, locker.ErrLost)
		for _, w := range waiters[1:] {
			s = (<-w).lease(t)
			if took := time.Since(began); took != 0 {
				t.Errorf("waited %s", took)
			}
			_ = s.Unlock(bg)
		}
		synctest.Wait()
		p.nothingHeld(t)
	})
}

// WAIT-001: one who was called while an attendant listens, by its own timer or by one who
// left, gets the wake-up whichever of the two hears it.
func TestWakeUpBesideAttendant(t *testing.T) {
	p := &passing{notifying: notifying{&fake{}}}
	cfg := leases
	cfg.Retry = locker.Retry{Attempts: locker.Forever, Delay: time.Second, Jitter: locker.NoJitter}
	bubbleOf(t, p, cfg, func(t *testing.T, l *locker.Locker) {
		for round := range 40 {
			s := mustLock(t, l, "k")
			ctx, leave := context.WithCancel(bg)
			waiters := append(line(l, bg, 1), append(line(l, ctx, 1), line(l, bg, 1)...)...)
			_ = s.Unlock(bg)
			_ = (<-waiters[0]).lease(t)
			last := waiters[2]
			if round%2 == 0 {
				leave()
				wantError(t, (<-waiters[1]).err, locker.CodeHeld, context.Canceled)
			} else {
				last = waiters[1]
				time.Sleep(time.Second)
			}
			synctest.Wait()
			began := time.Now()
			p.mu.Lock()
			delete(p.holds, "k")
			wake := p.wakes["k"]
			p.mu.Unlock()
			wake()
			s = (<-last).lease(t)
			if took := time.Since(began); took != 0 {
				t.Fatalf("round %d: waited %s", round, took)
			}
			leave()
			_ = s.Unlock(bg)
			if round%2 == 1 {
				_ = (<-waiters[2]).lease(t).Unlock(bg)
			}
			synctest.Wait()
		}
	})
}

// TTL-001: a hold that was passed ends when it ends, also if those before it were to last longer.
func TestPassedForLess(t *testing.T) {
	p := &passing{notifying: notifying{&fake{}}}
	bubbleOf(t, p, leases, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k")
		long := line(l, bg, 1)
		short := line(l, bg, 1, locker.WithTTL(time.Second))
		last := line(l, bg, 1)
		_ = s.Unlock(bg)
		_ = (<-long[0]).lease(t).Unlock(bg)
		_ = (<-short[0]).lease(t) // and nobody unlocks it
		began := time.Now()
		_ = (<-last[0]).lease(t).Unlock(bg)
		if took := time.Since(began); took != time.Second+time.Millisecond {
			t.Errorf("the next one waited %s", took)
		}
	})
}

// A hold is passed at the very moment of the waiter's timed attempt.
func TestPassedAtTick(t *testing.T) {
	p := &passing{notifying: notifying{&fake{}}}
	cfg := leases
	cfg.Retry = locker.Retry{Attempts: locker.Forever, Delay: time.Second, Jitter: locker.NoJitter}
	bubbleOf(t, p, cfg, func(t *testing.T, l *locker.Locker) {
		for range 100 {
			s := mustLock(t, l, "k")
			w := line(l, bg, 1)
			time.Sleep(time.Second)
			_ = s.Unlock(bg)
			_ = (<-w[0]).lease(t).Unlock(bg)
			synctest.Wait()
		}
		p.nothingHeld(t)
	})
}

// CTX-004: a hold that was passed to one who has gone, and then to another with an unknown
// outcome, is taken back.
func TestPassedToNobodyAndLost(t *testing.T) {
	p := &passing{notifying: notifying{&fake{}}}
	bubbleOf(t, p, leases, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k")
		ctx, cancel := context.WithCancel(bg)
		leaving := line(l, ctx, 1)
		staying := line(l, bg, 1)
		passes := 0
		p.set(only("hand off", func(ctx context.Context, op, key string, do func() error) error {
			if passes++; passes > 1 {
				return unavailable(ctx, op, key, do)
			}
			cancel()
			err := do()
			synctest.Wait() // the waiter has gone, the next one has met the holder
			return err
		}))
		began := time.Now()
		if err := s.Unlock(bg); err != nil {
			t.Error(err)
		}
		wantError(t, (<-leaving[0]).err, locker.CodeHeld, context.Canceled)
		_ = (<-staying[0]).lease(t).Unlock(bg)
		if took := time.Since(began); took != 0 || passes != 2 {
			t.Errorf("the next one waited %s; %d passes", took, passes)
		}
		synctest.Wait()
		p.nothingHeld(t)
	})
}

// EXT-003: an Extend that is under way may yet arrive, and would change the hold of whoever
// it was passed to.
func TestExtendUnderWayIsNotPassed(t *testing.T) {
	p := &passing{notifying: notifying{&fake{}}}
	bubbleOf(t, p, leases, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k")
		w := line(l, bg, 1)
		p.set(only("extend", slow(time.Second)))
		extended := make(chan error, 1)
		go func() { extended <- s.Extend(bg, time.Millisecond) }()
		synctest.Wait()
		if err := s.Unlock(bg); err != nil {
			t.Error(err)
		}
		next := (<-w[0]).lease(t)
		wantError(t, <-extended, locker.CodeReleased, locker.ErrReleased)
		time.Sleep(time.Second)
		if n := p.count("hand off"); n != 0 || !p.held("k") {
			t.Errorf("%d passes, held: %v", n, p.held("k"))
		}
		if err := next.Unlock(bg); err != nil {
			t.Error(err)
		}
	})
}

// One owner asks for one thing at a time: nothing is passed to who makes an attempt, nor to
// one whose attempt may have been granted, or may yet be.
func TestNotPassedBesideAnAttempt(t *testing.T) {
	for name, attempt := range map[string]hook{
		"under way": slow(time.Second),
		"unknown":   unavailable,
	} {
		t.Run(name, func(t *testing.T) {
			p := &passing{notifying: notifying{&fake{}}}
			bubbleOf(t, p, leases, func(t *testing.T, l *locker.Locker) {
				s := mustLock(t, l, "k")
				p.set(only("acquire", attempt))
				waiter := line(l, bg, 1, locker.WithRetry(locker.Retry{Attempts: locker.Forever, Delay: 10 * time.Second, Jitter: locker.NoJitter}))
				time.Sleep(1500 * time.Millisecond) // the first attempt is over, the one in front is not
				if name == "unknown" {
					time.Sleep(10 * time.Second)
				}
				if err := s.Unlock(bg); err != nil {
					t.Error(err)
				}
				p.set(nil)
				next := (<-waiter[0]).lease(t)
				if n := p.count("hand off"); n != 0 {
					t.Errorf("%d passes", n)
				}
				if err := next.Unlock(bg); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// An Unlock that repeats one whose outcome is unknown passes nothing on: what was to be passed
// may be somebody else's by now.
func TestRepeatedUnlockDoesNotPass(t *testing.T) {
	p := &passing{notifying: notifying{&fake{}}}
	bubbleOf(t, p, leases, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k")
		waiter := line(l, bg, 1)
		p.set(func(ctx context.Context, op, key string, do func() error) error {
			if op == "hand off" || op == "release" {
				return unavailable(ctx, op, key, do)
			}
			return do()
		})
		wantError(t, s.Unlock(bg), locker.CodeUnavailable)
		synctest.Wait()
		p.set(nil)
		if err := s.Unlock(bg); err != nil {
			t.Error(err)
		}
		if n := p.count("hand off"); n != 1 {
			t.Errorf("%d passes", n)
		}
		_ = (<-waiter[0]).lease(t).Unlock(bg)
	})
}

// mute is a Handoff that hints at nothing.
type mute struct{ *fake }

func (m mute) HandOff(ctx context.Context, h driver.Holder, _ driver.Request) (driver.Handed, error) {
	return driver.Handed{}, yielded(m.Release(ctx, h)) // the turn is always over
}

// WAIT-001: where the backend gives no hints, the core wakes who was not passed the hold.
func TestYieldWithoutHints(t *testing.T) {
	f := &fake{quiet: true}
	bubbleOf(t, mute{f}, leases, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "k")
		waiters := line(l, bg, 3)
		began := time.Now()
		for _, w := range waiters {
			if err := s.Unlock(bg); err != nil {
				t.Fatal(err)
			}
			s = (<-w).lease(t)
		}
		_ = s.Unlock(bg)
		if d := time.Since(began); d != 0 {
			t.Errorf("they waited for %s", d)
		}
		f.nothingHeld(t)
	})
}

// WAIT-001: a hint that comes in the pause after a grant that was too late counts when the pause ends,
// also if a hold was passed meanwhile.
func TestHintInThePause(t *testing.T) {
	p := &passing{notifying: notifying{&fake{caps: driver.Capabilities{Has: driver.NewSet(driver.PromptLoss)}}}}
	cfg := leases
	cfg.Retry.Delay = 10 * time.Second
	bubbleOf(t, p, cfg, func(t *testing.T, l *locker.Locker) {
		release := p.take("k", 0)
		waiters := line(l, bg, 2)
		p.set(only("acquire", func(_ context.Context, _, _ string, do func() error) error {
			p.set(nil)
			err := do()
			time.Sleep(2 * time.Minute) // longer than its ttl
			return err
		}))
		release()
		time.Sleep(2*time.Minute + time.Second)
		_ = mustLock(t, l, "k").Unlock(bg)
		first := (<-waiters[0]).lease(t)
		began := time.Now()
		if err := p.Break(bg, "k", first.Token()); err != nil {
			t.Fatal(err)
		}
		_ = (<-waiters[1]).lease(t).Unlock(bg)
		if took := time.Since(began); took != 9*time.Second {
			t.Errorf("the next one waited %s", took)
		}
	})
}

// A Lock with patience asks again if what was passed to it was over when it could take it.
func TestPassedTooLate(t *testing.T) {
	for name, retry := range map[string]locker.Retry{
		"for ever":     leases.Retry,
		"with an end":  {Attempts: 2, Delay: time.Hour, Jitter: locker.NoJitter},
		"no more left": {Attempts: 1, Delay: time.Second, Jitter: locker.NoJitter},
	} {
		t.Run(name, func(t *testing.T) {
			p := &passing{notifying: notifying{&fake{}}}
			bubbleOf(t, p, leases, func(t *testing.T, l *locker.Locker) {
				s := mustLock(t, l, "k")
				w := line(l, bg, 1, locker.WithRetry(retry))
				p.set(only("hand off", func(_ context.Context, _, _ string, do func() error) error {
					p.set(nil)
					err := do()
					time.Sleep(2 * time.Minute) // longer than its ttl
					return err
				}))
				if err := s.Unlock(bg); err != nil {
					t.Error(err)
				}
				got := <-w[0]
				if retry.Delay == time.Second {
					wantError(t, got.err, locker.CodeLost, locker.ErrLost)
					return
				}
				if next := got.lease(t); next.Err() != nil {
					t.Error(next.Err())
				} else if err := next.Unlock(bg); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				p.nothingHeld(t)
			})
		})
	}
}
