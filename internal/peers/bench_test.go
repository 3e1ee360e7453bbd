package peers

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/lockstep-go/lockstep/internal/redistest"
)

// The first row of each table alone, and what keeps two from running side by side, to be profiled:
//
//	go test -run '^$' -bench 'LockUnlock/memory$' -cpuprofile cpu.out ./internal/peers

func BenchmarkLockUnlock(b *testing.B) {
	b.Run("memory", func(b *testing.B) { lockUnlock(b, lockstep, "") })
	b.Run("memory parallel", func(b *testing.B) {
		ctx, workers := context.Background(), atomic.Int64{}
		l, err := openLocks(ctx, lockstep, "")
		if err != nil {
			b.Fatal(err)
		}
		defer l.close()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			key := "orders:" + strconv.FormatInt(workers.Add(1), 10)
			for pb.Next() {
				if err := l.pair(ctx, key); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	b.Run("redis", func(b *testing.B) {
		lockUnlock(b, lockstepRedis, redistest.Start(b, redistest.Process()).Addr())
	})
}

func lockUnlock(b *testing.B, name, server string) {
	ctx := context.Background()
	l, err := openLocks(ctx, name, server)
	if err != nil {
		b.Fatal(err)
	}
	defer l.close()
	b.ReportAllocs()
	for b.Loop() {
		if err := l.pair(ctx, "orders:42"); err != nil {
			b.Fatal(err)
		}
	}
}
