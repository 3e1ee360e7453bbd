package conformance

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// Benchmark measures what users of a backend notice, so that backends can be compared:
//
//   - lease, session: Lock and Unlock of one key that nobody else wants
//   - parallel: the same by all processors, each with a key of its own
//   - contended: two who want the same key all the time, in one client, and in two: each
//     turn is a release, a wake-up and a grant
//
// It calls newTarget once for each.
func Benchmark(b *testing.B, newTarget func(b *testing.B) *Target) {
	open := func(b *testing.B, peer bool) (first, second *locker.Locker) {
		t := newTarget(b)
		var err error
		if first, err = locker.New(t.Backend, locker.Config{}); err != nil {
			b.Fatal(err)
		}
		second = first
		if peer {
			if second, err = locker.New(t.Peer(b), locker.Config{}); err != nil {
				b.Fatal(err)
			}
		}
		b.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_ = first.Close(ctx)
			_ = second.Close(ctx)
		})
		return first, second
	}
	key := func(i int64) string { return fmt.Sprintf("conformance/benchmark/%d", i) }
	cycle := func(b *testing.B, l *locker.Locker, key string, opts ...locker.Option) error {
		s, err := l.Lock(b.Context(), key, opts...)
		if err != nil {
			return err
		}
		return s.Unlock(b.Context())
	}
	ttl := locker.WithTTL(time.Minute)

	b.Run("lease", func(b *testing.B) {
		l, _ := open(b, false)
		b.ReportAllocs()
		for b.Loop() {
			if err := cycle(b, l, key(0), ttl); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("session", func(b *testing.B) {
		l, _ := open(b, false)
		b.ReportAllocs()
		for b.Loop() {
			if err := cycle(b, l, key(0)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		l, _ := open(b, false)
		b.ReportAllocs()
		var n atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			k := key(n.Add(1))
			for pb.Next() {
				if err := cycle(b, l, k, ttl); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	for _, peer := range []bool{false, true} {
		name := map[bool]string{false: "contended/client", true: "contended/peer"}[peer]
		b.Run(name, func(b *testing.B) { contend(b, key(0), peer, open) })
	}
}

// contend lets two goroutines take one lock in turn.
func contend(b *testing.B, key string, peer bool, open func(*testing.B, bool) (x, y *locker.Locker)) {
	x, y := open(b, peer)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			s, err := y.Lock(ctx, key, locker.WithTTL(time.Minute))
			if err != nil {
				return
			}
			_ = s.Unlock(ctx)
		}
	}()
	for b.Loop() {
		s, err := x.Lock(b.Context(), key, locker.WithTTL(time.Minute))
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Unlock(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	<-gone
}
