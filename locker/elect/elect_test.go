//go:build go1.25

package elect_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/elect"
	"github.com/lockstep-go/lockstep/locker/internal/memory"
)

var opts = elect.Options{TTL: 3 * time.Second, StopWithin: time.Second}

// bubble runs f on virtual time with two Lockers of one store, which are closed at the end.
func bubble(t *testing.T, f func(t *testing.T, s *memory.Store, a, b *locker.Locker)) {
	synctest.Test(t, func(t *testing.T) {
		var s memory.Store
		open := func() *locker.Locker {
			l, err := memory.New(&s, locker.Config{})
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		a, b := open(), open()
		f(t, &s, a, b)
		s.SetDown(false)
		for _, l := range []*locker.Locker{a, b} {
			if err := l.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
}

// leaders counts who leads at one time.
type leaders struct {
	now    atomic.Int32
	mu     sync.Mutex
	tokens []uint64
}

func (n *leaders) enter(t *testing.T, term *elect.Term) (leave func()) {
	if n.now.Add(1) > 1 {
		t.Error("two leaders at one time")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.tokens) > 0 && term.Token() <= n.tokens[len(n.tokens)-1] {
		t.Errorf("token %d after %d", term.Token(), n.tokens[len(n.tokens)-1])
	}
	n.tokens = append(n.tokens, term.Token())
	return func() { n.now.Add(-1) }
}

// ELECT-001: an outage costs the term, and the successor leads only after the leader stopped.
func TestOutage(t *testing.T) {
	bubble(t, func(t *testing.T, s *memory.Store, a, b *locker.Locker) {
		ctx, cancel := context.WithCancel(context.Background())
		var n leaders
		var ended time.Duration
		began := time.Now()
		var wg sync.WaitGroup
		for _, l := range []*locker.Locker{a, b} {
			wg.Go(func() {
				err := elect.Run(ctx, l, "e", func(ctx context.Context, term *elect.Term) error {
					defer n.enter(t, term)()
					<-ctx.Done()
					if errors.Is(context.Cause(ctx), locker.ErrLost) {
						ended = time.Since(began)
					}
					time.Sleep(900 * time.Millisecond) // it may take that long to stop
					return nil
				}, opts)
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		time.Sleep(10 * time.Second)
		s.SetDown(true)
		down := time.Since(began)
		time.Sleep(10 * time.Second)
		s.SetDown(false)
		time.Sleep(10 * time.Second)
		cancel()
		wg.Wait()
		if len(n.tokens) != 2 {
			t.Errorf("%d terms", len(n.tokens))
		}
		if ended < down+time.Second-50*time.Millisecond || ended > down+2*time.Second {
			t.Errorf("the ctx ended %s after the beginning of the outage", ended-down)
		}
	})
}

// A shutdown hands over at once, when the function has returned, and not before.
func TestShutdownHandsOver(t *testing.T) {
	bubble(t, func(t *testing.T, s *memory.Store, a, b *locker.Locker) {
		ctxA, shutdown := context.WithCancel(context.Background())
		ctxB, end := context.WithCancel(context.Background())
		var n leaders
		var wg sync.WaitGroup
		lead := func(began chan<- struct{}) func(context.Context, *elect.Term) error {
			return func(ctx context.Context, term *elect.Term) error {
				defer n.enter(t, term)()
				close(began)
				<-ctx.Done()
				time.Sleep(500 * time.Millisecond)
				return nil
			}
		}
		first, second := make(chan struct{}), make(chan struct{})
		wg.Go(func() { _ = elect.Run(ctxA, a, "e", lead(first), opts) })
		<-first
		wg.Go(func() { _ = elect.Run(ctxB, b, "e", lead(second), opts) })
		synctest.Wait()
		shutdown()
		began := time.Now()
		<-second
		if took := time.Since(began); took != 500*time.Millisecond {
			t.Errorf("the successor leads after %s", took)
		}
		end()
		wg.Wait()
	})
}

// ELECT-003: who does not stop is reported once, and does not lead for ever.
func TestOverrun(t *testing.T) {
	bubble(t, func(t *testing.T, s *memory.Store, a, b *locker.Locker) {
		ctx, cancel := context.WithCancel(context.Background())
		o := opts
		var reports atomic.Int32
		o.OnOverrun = func(term *elect.Term, cause error) {
			reports.Add(1)
			if !errors.Is(cause, context.Canceled) || term.Token() == 0 {
				t.Error(cause)
			}
		}
		hang := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = elect.Run(ctx, a, "e", func(context.Context, *elect.Term) error { <-hang; return nil }, o)
		})
		synctest.Wait()
		cancel()
		began := time.Now()
		if err := b.Do(context.Background(), "e", func(context.Context, *locker.Lease) error { return nil }); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < time.Second || took > 4*time.Second {
			t.Errorf("the lock was free %s after the end of the ctx", took)
		}
		close(hang)
		wg.Wait()
		if n := reports.Load(); n != 1 {
			t.Errorf("%d reports", n)
		}
	})
}

func TestEnds(t *testing.T) {
	bubble(t, func(t *testing.T, s *memory.Store, a, b *locker.Locker) {
		bg := context.Background()
		calls := 0
		began := time.Now()
		err := elect.Run(bg, a, "e", func(context.Context, *elect.Term) error {
			if calls++; calls < 4 {
				return errors.New("it fails")
			}
			return nil
		}, opts)
		if took := time.Since(began); err != nil || calls != 4 || took < 500*time.Millisecond || took > 700*time.Millisecond {
			t.Errorf("%v after %d calls and %s", err, calls, took)
		}
		final := errors.New("for good")
		if err := elect.Run(bg, a, "e", func(context.Context, *elect.Term) error { return elect.Stop(final) }, opts); err != final {
			t.Error(err)
		}
		func() {
			defer func() { _ = recover() }()
			_ = elect.Run(bg, a, "e", func(context.Context, *elect.Term) error { panic("x") }, opts)
		}()
		if s.Held("e") {
			t.Error("the lock is still held")
		}
		for _, o := range []elect.Options{{TTL: time.Second, StopWithin: time.Second}, {Backoff: -1}, {Poll: -1}} {
			if err := elect.Run(bg, a, "e", func(context.Context, *elect.Term) error { return nil }, o); !errors.Is(err, locker.ErrInvalidConfig) {
				t.Errorf("%+v: %v", o, err)
			}
		}
		if err := elect.Run(bg, a, "", func(context.Context, *elect.Term) error { return nil }, opts); !errors.Is(err, locker.ErrInvalidKey) {
			t.Error(err)
		}
		if err := elect.Run(bg, a, "e", nil, opts); !errors.Is(err, locker.ErrInvalidArgument) {
			t.Error(err)
		}
	})
}

// ELECT-002, and the changes that Observe yields.
func TestCandidate(t *testing.T) {
	bubble(t, func(t *testing.T, s *memory.Store, a, b *locker.Locker) {
		ctx, cancel := context.WithCancel(context.Background())
		k, err := elect.NewCandidate(ctx, a, "e", opts)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !k.IsLeader() || k.Term() == nil {
			t.Fatal("the only candidate does not lead")
		}
		other, err := elect.NewCandidate(ctx, b, "e", opts)
		if err != nil {
			t.Fatal(err)
		}
		var seen []uint64
		observed := make(chan struct{})
		go func() {
			defer close(observed)
			for leader := range other.Observe(ctx) {
				seen = append(seen, leader.Token)
			}
		}()
		synctest.Wait()
		first := k.Term().Token()
		if who, ok, err := other.Leader(ctx); err != nil || !ok || who.Token != first || who.Owner == "" {
			t.Error(who, ok, err)
		}
		if err := k.Resign(ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if k.IsLeader() || !other.IsLeader() {
			t.Fatal("the successor does not lead at once")
		}
		second := other.Term().Token()
		time.Sleep(2 * time.Second)

		lost := other.Term()
		s.Delete("e") // the loss ends the term at once; either of the two may win the next one
		if lost.Leads() {
			t.Error("it leads after the loss")
		}
		synctest.Wait()
		if k.IsLeader() == other.IsLeader() {
			t.Fatal("not one leader after the loss")
		}
		third := k
		if other.IsLeader() {
			third = other
		}
		time.Sleep(2 * time.Second)
		s.SetDown(true)
		at := time.Now()
		for third.IsLeader() {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(at); took < 900*time.Millisecond || took > 2*time.Second {
			t.Errorf("it led for %s of an outage", took)
		}
		s.SetDown(false)
		time.Sleep(5 * time.Second)
		if k.IsLeader() == other.IsLeader() {
			t.Error("not one leader after the outage")
		}
		cancel()
		<-k.Done()
		<-other.Done()
		<-observed
		if k.Err() != nil || s.Held("e") {
			t.Error(k.Err(), "the lock is held:", s.Held("e"))
		}
		if len(seen) < 3 || seen[0] != first || seen[1] != second {
			t.Errorf("seen: %v, want %d, %d, …", seen, first, second)
		}
	})
}

// The ctx of a term, for work of a Candidate, ends with it and with its parent, each with its cause.
func TestTermContext(t *testing.T) {
	bubble(t, func(t *testing.T, s *memory.Store, a, _ *locker.Locker) {
		c, err := elect.NewCandidate(context.Background(), a, "e", opts)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		term := c.Term()
		stopped := errors.New("stopped")
		parent, stop := context.WithCancelCause(context.Background())
		ofParent, cancel := term.Context(parent)
		defer cancel()
		stop(stopped)
		synctest.Wait()
		if err := context.Cause(ofParent); err != stopped {
			t.Errorf("with its parent it ended with %v", err)
		}
		ofTerm, cancel := term.Context(context.Background())
		defer cancel()
		given, cancel := term.Context(context.Background())
		cancel()
		if err := context.Cause(given); err != context.Canceled {
			t.Errorf("with cancel it ended with %v", err)
		}
		if err := ofTerm.Err(); err != nil {
			t.Errorf("during the term: %v", err)
		}
		s.SetDown(true)
		<-ofTerm.Done()
		if err := context.Cause(ofTerm); !errors.Is(err, elect.ErrTooLate) {
			t.Errorf("with the term it ended with %v", err)
		}
		if term.Leads() {
			t.Error("the term goes on")
		}
		late, cancel := term.Context(context.Background())
		defer cancel()
		<-late.Done()
		s.SetDown(false)
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// A leader that ends the campaign has not failed, and needs no error for it.
func TestStopIsLogged(t *testing.T) {
	bubble(t, func(t *testing.T, s *memory.Store, a, b *locker.Locker) {
		bad := errors.New("bad")
		for _, c := range []struct {
			name       string
			stop, want error
		}{
			{"nil", elect.Stop(nil), nil},
			{"wrapped nil", fmt.Errorf("why: %w", elect.Stop(nil)), nil},
			{"an error", elect.Stop(bad), bad},
		} {
			var log strings.Builder
			o := opts
			o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			err := elect.Run(context.Background(), a, "e", func(context.Context, *elect.Term) error { return c.stop }, o)
			if err != c.want {
				t.Errorf("%s: %v", c.name, err)
			}
			if got := log.String(); strings.Contains(got, "level=WARN") || !strings.Contains(got, `level=INFO msg="elect: leader ends the campaign"`) ||
				strings.Contains(got, "error=bad") != (c.want == bad) {
				t.Errorf("%s: logged\n%s", c.name, got)
			}
			_ = c.stop.Error()
		}
	})
}
