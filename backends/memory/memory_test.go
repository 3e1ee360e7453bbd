package memory

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

var ctx = context.Background()

func TestOpenRefuses(t *testing.T) {
	for _, n := range []int{-1, 3, 6, 100, maxShards * 2, math.MinInt} {
		_, err := Open(ctx, Config{Store: t.Name(), Shards: n})
		if !errors.Is(err, driver.ErrInvalidConfig) {
			t.Fatalf("Shards %d: %v, want ErrInvalidConfig", n, err)
		}
		for _, part := range []string{"shards", fmt.Sprint(n), "65536"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("Shards %d: %q does not say %q", n, err, part)
			}
		}
	}
	var none context.Context
	if _, err := Open(none, Config{Store: t.Name()}); err == nil {
		t.Error("nil ctx: no error")
	}
	because := errors.New("because")
	ended, cancel := context.WithCancelCause(ctx)
	cancel(because)
	if _, err := Open(ended, Config{Store: t.Name()}); !errors.Is(err, context.Canceled) || !errors.Is(err, because) {
		t.Errorf("ended ctx: %v", err)
	}
	stores.mu.Lock()
	defer stores.mu.Unlock()
	if stores.byName[t.Name()] != nil {
		t.Error("a refused Open left a store behind")
	}
}

func TestShards(t *testing.T) {
	for procs, want := range map[int]int{1: 8, 2: 16, 3: 32, 64: 512, 1 << 20: maxShards} {
		if got := chooseShards(procs); got != want {
			t.Errorf("%d processors: %d shards, want %d", procs, got, want)
		}
	}
	for _, n := range []int{1, 2, 256} {
		b := open(t, Config{Store: fmt.Sprint(t.Name(), n), Shards: n})
		used := make(map[*shard]bool)
		for i := range 100 * n {
			s, _ := b.store.shard(fmt.Sprint("key", i))
			used[s] = true
		}
		if len(used) != n {
			t.Errorf("%d shards: keys lie in %d", n, len(used))
		}
	}
}

func TestStores(t *testing.T) {
	a := open(t, Config{Shards: 4})
	b := open(t, Config{}) // takes what is there
	elsewhere := open(t, Config{Store: t.Name() + "/elsewhere"})
	if a.store != b.store || a.store == elsewhere.store {
		t.Fatal("stores are not by name")
	}
	_, err := Open(ctx, Config{Store: t.Name(), Shards: 8})
	if !errors.Is(err, driver.ErrInvalidConfig) || !strings.Contains(err.Error(), "4") || !strings.Contains(err.Error(), "8") {
		t.Errorf("8 shards of a store with 4: %v", err)
	}

	first, err := a.Acquire(ctx, request("k", 1, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Acquire(ctx, request("k", 2, time.Hour)); !errors.Is(err, driver.ErrHeld) {
		t.Errorf("held through another backend: %v", err)
	}
	if _, err := elsewhere.Acquire(ctx, request("k", 2, time.Hour)); err != nil {
		t.Errorf("held in another store: %v", err)
	}

	// The store goes when its last backend has gone, but tokens go on (TOK-001).
	a.Close(ctx)
	if _, err := b.Acquire(ctx, request("k", 3, time.Hour)); err != nil {
		t.Errorf("after the holder's backend was closed: %v", err)
	}
	b.Close(ctx)
	stores.mu.Lock()
	gone := stores.byName[t.Name()] == nil
	stores.mu.Unlock()
	if !gone {
		t.Error("the store is still there after its last Close")
	}
	again := open(t, Config{Shards: 8})
	if again.store == a.store {
		t.Error("the same store as before")
	}
	second, err := again.Acquire(ctx, request("k", 4, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if second.Token <= first.Token {
		t.Errorf("token %d after %d in the store before", second.Token, first.Token)
	}
}

func TestDefaultStore(t *testing.T) {
	a, err := Open(ctx, Config{})
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, Config{Store: "default"})
	if a.(*backend).store != b.store {
		t.Error(`"" is not "default"`)
	}
	if err := a.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestCapabilities(t *testing.T) {
	b := open(t, Config{})
	c := b.Capabilities()
	if c.Name != "memory" || c.Has != driver.NewSet(driver.LocalClock, driver.PromptLoss, driver.Notes, driver.Listing, driver.Breaking) || c.SessionValidity != 0 || c.Granularity <= 0 {
		t.Errorf("%+v", c)
	}
	if err := b.Ping(ctx); err != nil {
		t.Error("Ping:", err)
	}
}

// TestOneHolder walks through the life of one key.
func TestOneHolder(t *testing.T) {
	b := open(t, Config{})
	var last uint64
	acquire := func(n int, ttl time.Duration) driver.Grant {
		t.Helper()
		g, err := b.Acquire(ctx, request("k", n, ttl))
		if err != nil {
			t.Fatal(err)
		}
		if g.TTL != ttl {
			t.Errorf("granted %v, want %v", g.TTL, ttl)
		}
		if g.Token <= last || g.Token > driver.MaxToken {
			t.Errorf("token %d after %d", g.Token, last)
		}
		last = g.Token
		return g
	}
	for round, ttl := range []time.Duration{time.Hour, 0, time.Millisecond * 3_600_000, math.MaxInt64 / 1e6 * 1e6} {
		n := 10 * round
		g := acquire(n, ttl)
		// Nobody else, in either kind (MX-001, MX-004).
		for _, other := range []time.Duration{time.Hour, 0} {
			_, err := b.Acquire(ctx, request("k", n+1, other))
			if !errors.Is(err, driver.ErrHeld) {
				t.Fatalf("held as %v, wanted as %v: %v", ttl, other, err)
			}
			if rest, ok := driver.Remaining(err); ok != (ttl > 0) || rest > ttl || (ok && rest <= 0) {
				t.Errorf("held as %v: remaining %v, %v", ttl, rest, ok)
			}
		}
		// Again by the same owner: the same token, and the kind of hold stays.
		for _, repeat := range []time.Duration{time.Hour, 0} {
			same, err := b.Acquire(ctx, request("k", n, repeat))
			if err != nil || same.Token != g.Token {
				t.Errorf("repeat: %+v, %v; want token %d", same, err, g.Token)
			}
			info, ok, err := b.Inspect(ctx, "k")
			if err != nil || !ok || info.Session != (ttl == 0) || info.Token != g.Token || info.Owner != owner(n).String() {
				t.Errorf("after a repeat: %+v, %v, %v", info, ok, err)
			}
		}
		// Strangers, and the right owner with a wrong token.
		wrong := holder("k", n)
		wrong.Token = g.Token + 1
		for _, h := range []driver.Holder{holder("k", n+1), holder("other", n), wrong} {
			if err := b.Release(ctx, h); !errors.Is(err, driver.ErrLost) {
				t.Errorf("Release by %v: %v", h, err)
			}
			if _, err := b.Extend(ctx, h, time.Hour); !errors.Is(err, driver.ErrLost) {
				t.Errorf("Extend by %v: %v", h, err)
			}
		}
		h := holder("k", n)
		h.Token = g.Token
		e, err := b.Extend(ctx, h, time.Minute)
		if ttl == 0 {
			if !errors.Is(err, driver.ErrUnsupported) || errors.Is(err, driver.ErrLost) {
				t.Errorf("Extend of a session: %v", err)
			}
		} else {
			if err != nil || e.Token != g.Token || e.TTL != time.Minute {
				t.Errorf("Extend: %+v, %v", e, err)
			}
			if info, _, _ := b.Inspect(ctx, "k"); info.Remaining > time.Minute || info.Remaining < time.Second {
				t.Errorf("after Extend: remaining %v", info.Remaining)
			}
		}
		h.Token = uint64(round%2) * g.Token // 0: not known
		if err := b.Release(ctx, h); err != nil {
			t.Errorf("Release: %v", err)
		}
		if err := b.Release(ctx, h); !errors.Is(err, driver.ErrLost) {
			t.Errorf("a second Release: %v", err)
		}
		if _, err := b.Extend(ctx, h, time.Hour); !errors.Is(err, driver.ErrLost) {
			t.Errorf("Extend after Release: %v", err)
		}
		if _, ok, _ := b.Inspect(ctx, "k"); ok || live(b) != 0 {
			t.Errorf("still there after Release: %v, %d", ok, live(b))
		}
	}
}

func TestEndedContext(t *testing.T) {
	b := open(t, Config{})
	because := errors.New("because")
	ended, cancel := context.WithCancelCause(ctx)
	cancel(because)
	if _, err := b.Acquire(ctx, request("k", 1, time.Hour)); err != nil {
		t.Fatal(err)
	}
	calls := map[string]func() error{
		"Acquire": func() error { _, err := b.Acquire(ended, request("free", 2, time.Hour)); return err },
		"Wait":    func() error { _, err := b.Wait(ended, request("free", 2, time.Hour)); return err },
		"Extend":  func() error { _, err := b.Extend(ended, holder("k", 1), time.Hour); return err },
		"Inspect": func() error { _, _, err := b.Inspect(ended, "k"); return err },
		"Ping":    func() error { return b.Ping(ended) },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, context.Canceled) || !errors.Is(err, because) || errors.Is(err, driver.ErrHeld) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := b.Release(ended, holder("k", 1)); err != nil { // REL-004
		t.Errorf("Release: %v", err)
	}
	if live(b) != 0 {
		t.Errorf("%d keys left", live(b))
	}
}

// TestGiveUpAgainstRelease lets a waiter give up at the moment of the release, with another
// behind it: whoever returns without an error holds the key, and nobody is forgotten
// (WAIT-003).
func TestGiveUpAgainstRelease(t *testing.T) {
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	b := open(t, Config{})
	granted, gaveUp := 0, 0
	for round := range rounds {
		n := round * 3
		if _, err := b.Acquire(ctx, request("k", n, time.Hour)); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		waiting, cancel := context.WithCancel(ctx)
		first, second := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := b.Wait(waiting, request("k", n+1, time.Hour))
			first <- err
		}()
		go func() {
			_, err := b.Wait(ctx, request("k", n+2, time.Hour))
			second <- err
		}()
		start := make(chan struct{})
		go func() {
			<-start
			cancel()
		}()
		if round%8 != 0 {
			waitFor(t, func() bool { return waitingFor(b, "k") == 2 })
		}
		close(start)
		if round%2 == 0 {
			runtime.Gosched()
		}
		if err := b.Release(ctx, holder("k", n)); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		switch err := <-first; {
		case err == nil:
			granted++
			if err := b.Release(ctx, holder("k", n+1)); err != nil {
				t.Fatalf("round %d: granted, but %v", round, err)
			}
		case errors.Is(err, context.Canceled):
			gaveUp++
			if err := b.Release(ctx, holder("k", n+1)); !errors.Is(err, driver.ErrLost) {
				t.Fatalf("round %d: gave up, but holds the key: %v", round, err)
			}
		default:
			t.Fatalf("round %d: %v", round, err)
		}
		select {
		case err := <-second:
			if err != nil {
				t.Fatalf("round %d: second: %v", round, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("round %d: the second was forgotten", round)
		}
		if err := b.Release(ctx, holder("k", n+2)); err != nil {
			t.Fatalf("round %d: second: %v", round, err)
		}
		cancel()
	}
	t.Logf("%d granted, %d gave up", granted, gaveUp)
	if live(b) != 0 {
		t.Errorf("%d keys left", live(b))
	}
}

// waitingFor is the number of waiters for key.
func waitingFor(b *backend, key string) (n int) {
	s, hash := b.store.shard(key)
	s.lock()
	defer s.mu.Unlock()
	if _, e := s.table.find(&s.slab, hash, key); e != nil {
		n = e.waiting()
	}
	return n
}

// waitFor spins until cond holds.
func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for give := time.Now().Add(10 * time.Second); !cond(); runtime.Gosched() {
		if time.Now().After(give) {
			t.Fatal("nothing happened for 10 s")
		}
	}
}

// TestExclusion has goroutines on two backends do everything at once on few keys, with
// leases that expire under them. A hold is believed in until its listener hears otherwise,
// and no two believe at the same time; tokens rise.
func TestExclusion(t *testing.T) {
	backends := []*backend{open(t, Config{Shards: 2}), open(t, Config{})}
	const keys = 3
	var believers [keys]atomic.Int32
	var tokens [keys]atomic.Uint64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			b := backends[g%2]
			for i := range 400 {
				key := (g + i) % keys
				hold := &belief{believers: &believers[key], token: &tokens[key], errorf: t.Errorf}
				r := driver.Request{Key: fmt.Sprint("k", key), Owner: owner(g*1000 + i), Hold: hold}
				if i%5 != 0 {
					r.TTL = time.Duration(1+i%3) * time.Millisecond
				}
				ended, cancel := context.WithTimeout(ctx, time.Duration(i%7)*time.Millisecond+time.Microsecond)
				var grant driver.Grant
				var err error
				if i%4 == 0 {
					grant, err = b.Acquire(ctx, r)
				} else {
					grant, err = b.Wait(ended, r)
				}
				cancel()
				if err != nil {
					if !errors.Is(err, driver.ErrHeld) && !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					continue
				}
				hold.begin(grant.Token)
				if i%3 == 0 {
					time.Sleep(time.Duration(i%4) * time.Millisecond)
				}
				h := driver.Holder{Key: r.Key, Owner: r.Owner, Token: grant.Token}
				if i%2 == 0 && r.TTL > 0 {
					if _, err := b.Extend(ctx, h, r.TTL); err != nil && !errors.Is(err, driver.ErrLost) {
						t.Error(err)
					}
				}
				hold.end()
				if err := b.Release(ctx, h); err != nil && !errors.Is(err, driver.ErrLost) {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	if live(backends[0]) != 0 {
		t.Errorf("%d keys left", live(backends[0]))
	}
}

// belief is one holder's belief that it holds a key.
type belief struct {
	believers *atomic.Int32
	token     *atomic.Uint64
	errorf    func(string, ...any)

	mu       sync.Mutex
	begun    bool
	finished bool
}

func (b *belief) begin(token uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.finished {
		return // lost before Acquire had returned
	}
	b.begun = true
	if n := b.believers.Add(1); n != 1 {
		b.errorf("%d believe that they hold the key", n)
	}
	if before := b.token.Swap(token); before >= token {
		b.errorf("token %d after %d", token, before)
	}
}

func (b *belief) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.begun && !b.finished {
		b.believers.Add(-1)
	}
	b.finished = true
}

func (b *belief) Lost(cause error) {
	if cause != driver.ErrExpired {
		b.errorf("Lost: %v", cause)
	}
	b.end()
}

func TestClose(t *testing.T) {
	dying, other := open(t, Config{}), open(t, Config{})
	heard := &losses{}
	for i := range 100 {
		r := request(fmt.Sprint("mine", i), i, time.Duration(i%2)*time.Hour)
		r.Hold = heard
		if _, err := dying.Acquire(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	for i, key := range []string{"theirs", "contended"} {
		if _, err := other.Acquire(ctx, request(key, 200+i, time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	errs, passed := make(chan error, 2), make(chan error, 2)
	wait := func(b *backend, key string, n int, result chan error) {
		before := waitingFor(b, key)
		go func() {
			_, err := b.Wait(ctx, request(key, n, time.Hour))
			result <- err
		}()
		waitFor(t, func() bool { return waitingFor(b, key) == before+1 })
	}
	wait(dying, "theirs", 300, errs)    // first in a queue for another's key
	wait(other, "theirs", 301, passed)  // and who stands behind it
	wait(other, "mine0", 302, passed)   // another, for a key of the dying
	wait(dying, "contended", 303, errs) // last in a queue

	for range 2 {
		if err := dying.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := <-errs; err != driver.ErrClosed {
			t.Errorf("Wait in flight: %v", err)
		}
	}
	if err := <-passed; err != nil { // mine0, at once
		t.Errorf("waiter of the other backend: %v", err)
	}
	if n := live(other); n != 3 {
		t.Errorf("%d keys are held, want theirs, contended and mine0", n)
	}
	if err := other.Release(ctx, holder("theirs", 200)); err != nil {
		t.Errorf("Release through the other backend: %v", err)
	}
	if err := <-passed; err != nil {
		t.Errorf("waiter of the other backend: %v", err)
	}
	if causes := heard.heard(); len(causes) != 0 {
		t.Errorf("listeners heard %v", causes)
	}

	for range 10 { // what ended with an error is no error for whoever waits next
		w := dying.store.waiters.Get().(*waiter)
		if w.shard != nil || w.by != nil || w.hold != nil || w.err != nil || w.queue != none || w.prev != nil || w.next != nil || len(w.ready) != 0 {
			t.Errorf("a waiter for reuse keeps %+v", w)
		}
	}

	calls := map[string]func() error{
		"Acquire": func() error { _, err := dying.Acquire(ctx, request("new", 2, time.Hour)); return err },
		"Wait":    func() error { _, err := dying.Wait(ctx, request("new", 2, time.Hour)); return err },
		"Extend":  func() error { _, err := dying.Extend(ctx, holder("mine1", 1), time.Hour); return err },
		"Release": func() error { return dying.Release(ctx, holder("mine1", 1)) },
		"Inspect": func() error { _, _, err := dying.Inspect(ctx, "mine1"); return err },
		"Ping":    func() error { return dying.Ping(ctx) },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, driver.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
}

// TestCloseAfterHandOver: a key that Close took back before Wait had returned is not
// returned as a grant.
func TestCloseAfterHandOver(t *testing.T) {
	// On one processor the waiter does not run between Release and Close, but for the odd
	// round in which it is let in.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	other := open(t, Config{})
	closed := 0
	for n := range 50 {
		dying := open(t, Config{})
		if _, err := other.Acquire(ctx, request("k", 2*n, 0)); err != nil {
			t.Fatal(err)
		}
		result := make(chan error, 1)
		go func() {
			_, err := dying.Wait(ctx, request("k", 2*n+1, 0))
			result <- err
		}()
		waitFor(t, func() bool { return waitingFor(other, "k") == 1 })
		if err := other.Release(ctx, holder("k", 2*n)); err != nil {
			t.Fatal(err)
		}
		dying.Close(ctx)
		if err := <-result; err == driver.ErrClosed {
			closed++
		}
	}
	if closed == 0 {
		t.Error("every Wait returned a key that was taken back")
	}
}

// TestCloseAgainstEverything closes a backend while it is in use: nothing of it may stay,
// whatever it was doing.
func TestCloseAgainstEverything(t *testing.T) {
	watch := open(t, Config{Shards: 1})
	for round := range 200 {
		b := open(t, Config{})
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := 0; ; i++ {
					r := request("k", round<<20|g<<16|i, time.Duration(i%2)*time.Hour)
					if _, err := b.Wait(ctx, r); err == driver.ErrClosed {
						return
					} else if err != nil {
						t.Error(err)
						return
					}
					if err := b.Release(ctx, driver.Holder{Key: "k", Owner: r.Owner}); err != nil && err != driver.ErrClosed {
						t.Error(err)
						return
					}
				}
			}()
		}
		for range round % 50 {
			runtime.Gosched()
		}
		if err := b.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if n, m := live(watch), waiting(watch); n != 0 || m != 0 {
			t.Fatalf("round %d: %d keys and %d waiters left", round, n, m)
		}
		wg.Wait()
	}
}

// TestNothingLingers: after a burst, what is left of it is a bounded free list.
func TestNothingLingers(t *testing.T) {
	b := open(t, Config{Shards: 4})
	const burst = 50_000
	for i := range burst {
		if _, err := b.Acquire(ctx, request(fmt.Sprint("k", i), i, time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range burst {
		if err := b.Release(ctx, holder(fmt.Sprint("k", i), i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range b.store.shards {
		s := &b.store.shards[i].shard
		s.lock()
		chunks := 0
		for _, c := range s.slab.chunks {
			if c == nil {
				continue
			}
			chunks++
			for i := range c.entries {
				if e := &c.entries[i]; e.key != "" || e.hold != nil || e.by != nil || e.first != nil {
					t.Errorf("a free entry keeps %+v", e)
				}
			}
		}
		if chunks != s.slab.spare || chunks > maxSpare || cap(s.slab.chunks) > 256 {
			t.Errorf("%d chunks, counted as %d, memory for %d", chunks, s.slab.spare, cap(s.slab.chunks))
		}
		for more := true; more; {
			_, more = s.wheel.step(&s.slab, s.wheel.now)
		}
		if s.wheel.inUse != 0 {
			t.Error("something is still armed although the wheel was turned")
		}
		if s.table.n != 0 || cap(s.table.buckets) > 8*minBuckets {
			t.Errorf("%d keys and memory for %d buckets left", s.table.n, cap(s.table.buckets))
		}
		s.mu.Unlock()
	}
}

func TestUncontendedAllocatesNothing(t *testing.T) {
	b := open(t, Config{})
	for _, ttl := range []time.Duration{30 * time.Second, 0} {
		r := request("k", 0, ttl)
		if n := testing.AllocsPerRun(1000, func() {
			r.Owner.Seq++
			lockUnlock(ctx, t, b, r)
		}); n != 0 {
			t.Errorf("ttl %v: %v allocations", ttl, n)
		}
	}
}

// TestNoGoroutines: neither holds nor an idle store cost a goroutine.
func TestNoGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	b := open(t, Config{})
	for i := range 10_000 {
		if _, err := b.Acquire(ctx, request(fmt.Sprint("k", i), i, time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines, %d before", after, before)
	}
}

// TestExpiresInRealTime is the one test on the real clock: the rest is in bubbles.
func TestExpiresInRealTime(t *testing.T) {
	b := open(t, Config{})
	heard := &losses{}
	r := request("k", 1, 20*time.Millisecond)
	r.Hold = heard
	start := time.Now()
	if _, err := b.Acquire(ctx, r); err != nil {
		t.Fatal(err)
	}
	granted := time.Now()
	if _, err := b.Wait(ctx, request("k", 2, 20*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	if took < r.TTL {
		t.Errorf("handed over after %v, early", took)
	}
	if late := time.Since(granted) - r.TTL; late > time.Second {
		t.Errorf("%v late", late)
	}
	if causes := heard.heard(); len(causes) != 1 || causes[0] != driver.ErrExpired {
		t.Errorf("the holder heard %v", causes)
	}
	waitFor(t, func() bool { return live(b) == 0 && armed(b) == 0 })
}
