package conformance

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// A Task is one thing that [Benchmark] measures. It is for programs that measure a store which is
// configured elsewhere, by testing.Benchmark.
type Task struct {
	// Name is that of the sub-benchmark.
	Name string
	// What is one operation, in words.
	What string
	// Peers says that it takes two clients of one store.
	Peers bool

	run func(b *testing.B, x, y *locker.Locker)
}

// Run measures the task on two Lockers of one client, or of two clients of one store with Peers.
func (t Task) Run(b *testing.B, first, second *locker.Locker) { t.run(b, first, second) }

// Tasks are those of [Benchmark], in its order.
func Tasks() []Task {
	return []Task{
		{Name: "lease", What: "Lock and Unlock of one key that nobody else wants, with a ttl", run: func(b *testing.B, l, _ *locker.Locker) {
			alone(b, l, locker.WithTTL(time.Minute))
		}},
		{Name: "session", What: "the same without a ttl", run: func(b *testing.B, l, _ *locker.Locker) {
			alone(b, l, locker.WithSession())
		}},
		{Name: "parallel", What: "leases by all processors, each with a key of its own", run: func(b *testing.B, l, _ *locker.Locker) { parallel(b, l) }},
		{Name: "contended/client", What: "two who want the same key all the time, in one client: a release, a wake-up and a grant", run: contend},
		{Name: "contended/peer", What: "the same in two clients", Peers: true, run: contend},
	}
}

// Benchmark measures what users of a backend notice, so that backends can be compared: the [Tasks].
// It calls newTarget once for each.
func Benchmark(b *testing.B, newTarget func(b *testing.B) *Target) {
	for _, task := range Tasks() {
		b.Run(task.Name, func(b *testing.B) {
			t := newTarget(b)
			first, err := locker.New(t.Backend, locker.Config{})
			if err != nil {
				b.Fatal(err)
			}
			second := first
			if task.Peers {
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
			task.Run(b, first, second)
		})
	}
}

func benchKey(i int64) string { return fmt.Sprintf("conformance/benchmark/%d", i) }

func cycle(b *testing.B, l *locker.Locker, key string, opts ...locker.Option) error {
	s, err := l.Lock(b.Context(), key, opts...)
	if err != nil {
		return err
	}
	return s.Unlock(b.Context())
}

func alone(b *testing.B, l *locker.Locker, opt locker.Option) {
	b.ReportAllocs()
	key := benchKey(0)
	for b.Loop() {
		if err := cycle(b, l, key, opt); err != nil {
			b.Fatal(err)
		}
	}
}

func parallel(b *testing.B, l *locker.Locker) {
	b.ReportAllocs()
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		k := benchKey(n.Add(1))
		for pb.Next() {
			if err := cycle(b, l, k, locker.WithTTL(time.Minute)); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// contend lets two goroutines take one lock in turn.
func contend(b *testing.B, x, y *locker.Locker) {
	key := benchKey(0)
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
