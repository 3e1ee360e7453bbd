package adapters

import (
	"context"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
)

// fleet makes Lockers on one store: each is what one process of a fleet has.
type fleet struct {
	t *testing.T
	// config is how a Locker is opened.
	config locker.Config
	// lose deletes a key, as an administrator would.
	lose func(key string)
}

// eachStore runs test on memory and on a real Redis of its own.
func eachStore(t *testing.T, test func(t *testing.T, f *fleet)) {
	t.Run("memory", func(t *testing.T) {
		test(t, &fleet{t: t, config: locker.Config{Type: "memory", Backend: memory.Config{Store: t.Name()}}})
	})
	t.Run("redis", func(t *testing.T) {
		srv := redistest.Start(t)
		test(t, &fleet{t: t,
			config: locker.Config{Type: "redis", Backend: redis.Config{Addrs: []string{srv.Addr()}}},
			lose:   func(key string) { srv.Do(t, "FLUSHALL") },
		})
	})
}

func (f *fleet) open(observer locker.Observer) *locker.Locker {
	f.t.Helper()
	cfg := f.config
	cfg.Observer = observer
	l, err := locker.Open(f.t.Context(), cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := l.Close(context.Background()); err != nil {
			f.t.Error(err)
		}
	})
	return l
}

// eventually waits until ok, which no event announces.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}
