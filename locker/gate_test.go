package locker

import (
	"context"
	"errors"
	"hash/maphash"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Whoever got in is waited for, and nobody gets in afterwards.
func TestGate(t *testing.T) {
	for range 30 {
		var g gate
		g.open()
		var inside atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for g.enter() {
					inside.Add(1)
					inside.Add(-1)
					g.leave()
				}
				for range 100 { // they are turned away
					if g.enter() {
						t.Error("a shut gate let somebody in")
					}
				}
			}()
		}
		time.Sleep(10 * time.Microsecond)
		g.shut()
		g.shut()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := g.wait(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		if n := inside.Load(); n != 0 {
			t.Fatalf("%d inside a drained gate", n)
		}
		wg.Wait()
		if err := g.wait(ctx); err != nil { // although ctx has ended
			t.Fatal(err)
		}
	}
}

func TestGateWaitsForTheLast(t *testing.T) {
	var g gate
	g.open()
	for range 2 {
		if !g.enter() {
			t.Fatal("an open gate let nobody in")
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	g.shut()
	g.leave()
	if err := g.wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("one is inside: %v", err)
	}
	g.leave()
	if err := g.wait(ctx); err != nil {
		t.Error(err)
	}
}

// The list of live holds: whatever the order of the ends, shut returns the others.
func TestLive(t *testing.T) {
	l := live{seed: maphash.MakeSeed()}
	holds := make([]*Lease, 100)
	for i := range holds {
		holds[i] = &Lease{}
		holds[i].key = strconv.Itoa(i)
		if older, ok := l.add(holds[i]); !ok || older != nil {
			t.Fatal("refused", older)
		}
	}
	for i := 0; i < len(holds); i += 3 {
		l.remove(holds[i])
		l.remove(holds[i])
	}
	left := map[*Lease]bool{}
	for _, s := range l.shut() {
		left[s] = true
	}
	for i, s := range holds {
		if left[s] != (i%3 != 0) {
			t.Errorf("hold %d: left is %v", i, left[s])
		}
		l.remove(s) // after shut: no harm
	}
	if _, ok := l.add(&Lease{}); len(left) != 66 || ok || len(l.shut()) != 0 {
		t.Error("shut is not the end")
	}
}

// What a native waiter gets is the time of its timed attempts, without overflow.
func TestRetryBudget(t *testing.T) {
	if _, ok := DefaultRetry().budget(); ok {
		t.Error("for ever has an end")
	}
	for _, r := range []Retry{{Attempts: 1 << 62, Delay: MaxRetryDelay}, {Attempts: 1<<63 - 1}} {
		if d, ok := r.budget(); ok && d < 0 {
			t.Errorf("%+v: %s", r, d)
		}
	}
	r := Retry{Attempts: 1000, Delay: 100 * time.Millisecond, Jitter: 100 * time.Millisecond}
	if d, ok := r.budget(); !ok || d < 90*time.Second || d > 110*time.Second {
		t.Errorf("%s, %v", d, ok)
	}
}
