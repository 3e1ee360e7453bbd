package peers

import (
	"context"
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
}

func TestRedisAllocations(t *testing.T) {
	if elsewhere(t) {
		return
	}
	l, err := redis.New(t.Context(), redis.Config{Addrs: []string{redistest.Start(t, redistest.Process()).Addr()}}, locker.Config{})
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
