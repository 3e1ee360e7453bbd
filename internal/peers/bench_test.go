package peers

import (
	"context"
	"runtime"
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
		lockUnlock(b, lockstepRedis, redistest.Start(b).Addr())
	})
	for _, callers := range []int{8, 32, 64, 512} {
		b.Run("redis "+strconv.Itoa(callers), func(b *testing.B) {
			ctx, workers := context.Background(), atomic.Int64{}
			l, err := openLocks(ctx, lockstepRedis, redistest.Start(b).Addr())
			if err != nil {
				b.Fatal(err)
			}
			defer l.close()
			b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
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
	}
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
