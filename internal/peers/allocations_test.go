package peers

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
)

// The goals of the report that are exact. testing.AllocsPerRun counts the whole process: for
// Redis, the goroutines that write and read the connection too.

func TestMemoryAllocations(t *testing.T) {
	if elsewhere(t) {
		return
	}
	l, err := memory.New(memory.Config{Store: t.Name()}, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	// The handle, and nothing else.
	testAllocations(t, l, 1, "lease, Lock + Unlock", locker.WithTTL(30*time.Second))
	testAllocations(t, l, 1, "session, Lock + Unlock", locker.WithSession())
	testAllocations(t, l, 1, "lease, Lock + Unlock while it may wait only so often", locker.WithRetry(locker.Retry{Attempts: 3}))
	testHandOffAllocations(t, l)
}

// testHandOffAllocations: a Lock that waits allocates no more than one that does not.
func testHandOffAllocations(t *testing.T, l *locker.Locker) {
	const goroutines, turns = 8, 5000
	ctx := context.Background()
	run := func() {
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for range turns {
					lease, err := l.Lock(ctx, "orders:43", locker.WithTTL(30*time.Second))
					if err == nil {
						runtime.Gosched() // for the others to come and wait
						err = lease.Unlock(ctx)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	run()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run()
	runtime.ReadMemStats(&after)
	got := float64(after.Mallocs-before.Mallocs) / (goroutines * turns)
	t.Logf("Lock + Unlock handed over: %.3f allocations", got)
	if got > 1.1 {
		t.Errorf("Lock + Unlock handed over: %.3f allocations; at most 1 is allowed, and what the runtime itself takes", got)
	}
}

func TestRedisAllocations(t *testing.T) {
	if elsewhere(t) {
		return
	}
	l, err := redis.New(t.Context(), redis.Config{Addrs: []string{redistest.Start(t).Addr()}}, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	testAllocations(t, l, 12, "lease, Lock + Unlock", locker.WithTTL(30*time.Second))
}

func testAllocations(t *testing.T, l *locker.Locker, most float64, what string, opt locker.Option) {
	t.Helper()
	ctx := context.Background()
	got := testing.AllocsPerRun(1000, func() {
		lease, err := l.Lock(ctx, "orders:42", opt)
		if err == nil {
			err = lease.Unlock(ctx)
		}
		if err != nil {
			t.Error(err)
		}
	})
	t.Logf("%s: %v allocations", what, got)
	if got > most {
		t.Errorf("%s: %v allocations; at most %v are allowed", what, got, most)
	}
	t.Cleanup(func() { _ = l.Close(context.Background()) })
}
