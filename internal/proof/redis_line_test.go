package proof

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
)

// The line of processes in Redis, and holds that go from hand to hand inside of one.

// handing keeps key held by one client, by several goroutines in turns, until the test ends. It
// counts the holds.
func handing(t *testing.T, l *locker.Locker, key string, hold time.Duration) *atomic.Int64 {
	t.Helper()
	var (
		holds atomic.Int64
		wg    sync.WaitGroup
	)
	ctx, stop := context.WithCancel(t.Context())
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				lease, err := l.Lock(ctx, key)
				if err != nil {
					continue
				}
				holds.Add(1)
				time.Sleep(hold)
				if err := lease.Unlock(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	t.Cleanup(func() { stop(); wg.Wait() })
	for holds.Load() < 8 {
		time.Sleep(time.Millisecond)
	}
	return &holds
}

// A process whose goroutines hand a lock to each other lets another one in.
func TestTurns(t *testing.T) {
	s := redistest.Start(t)
	settings := locker.Config{TTL: time.Minute, Retry: &never}
	a := open(t, redis.Config{Addrs: []string{s.Addr()}}, settings)
	b := open(t, redis.Config{Addrs: []string{s.Addr()}}, settings)
	holds := handing(t, a, "k", 20*time.Millisecond)
	for range 5 {
		before := holds.Load()
		lease := mustLock(t, b, "k")
		if n := holds.Load() - before; n > 4 { // the present one, and those before the line is asked
			t.Errorf("the other process had to wait for %d holds", n)
		}
		if err := lease.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A process that died in line is waited for once, and not for long.
func TestDeadInLine(t *testing.T) {
	s := redistest.Start(t)
	settings := locker.Config{TTL: time.Minute, Retry: &never}
	a := open(t, redis.Config{Addrs: []string{s.Addr()}}, settings)
	b := open(t, redis.Config{Addrs: []string{s.Addr()}}, settings)
	lease := mustLock(t, a, "k")
	line := "token:lockstep:{:k}:line"
	for _, dead := range []string{"1", "2", "3"} {
		s.Do(t, "ZADD", line, dead, "dead"+dead)
	}
	got := make(chan *locker.Lease, 1)
	go func() { got <- mustLock(t, b, "k") }()
	time.Sleep(settle)
	if err := lease.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := (<-got).Unlock(t.Context()); err != nil {
		t.Error(err)
	}
	if left, err := s.Do(t, "ZCARD", line).AsInt64(); err != nil || left != 0 {
		t.Errorf("%d are still in line, %v", left, err)
	}
}

// Where the line cannot be kept (here: something else has its key), locks work without it.
func TestWithoutLine(t *testing.T) {
	s := redistest.Start(t)
	l := open(t, redis.Config{Addrs: []string{s.Addr()}}, locker.Config{TTL: time.Minute, Retry: &never})
	s.Do(t, "SET", "token:lockstep:{:k}:line", "x")
	lease := mustLock(t, l, "k")
	for range 3 {
		got := make(chan *locker.Lease, 1)
		go func() { got <- mustLock(t, l, "k") }()
		time.Sleep(settle)
		if err := lease.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
		next := <-got
		if next.Token() <= lease.Token() {
			t.Errorf("token %d after %d", next.Token(), lease.Token())
		}
		lease = next
	}
}
