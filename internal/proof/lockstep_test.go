package proof

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/backends/postgres"
	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/pgtest"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// Lockstep is CONC-003: a random program runs on two stores at once, step by step, and
// every outcome, every error's code and reason, and the order of the tokens must be the
// same. Where the two differ, the program is shrunk and printed as a test.

var (
	memoryWorld = world{"memory", func(testing.TB) func() opener { return memoryStore }}

	redisWorld = world{"Redis", func(tb testing.TB) func() opener {
		srv := redistest.Single(tb)
		return redisStore(redis.Config{Addrs: []string{srv.Addr()}, ClientOption: credentials(srv.ClientOption())})
	}}

	clusterWorld = world{"Cluster", func(tb testing.TB) func() opener {
		return redisStore(redis.Config{Addrs: redistest.Cluster(tb).Addrs()})
	}}

	postgresWorld = world{"Postgres", func(tb testing.TB) func() opener {
		srv := pgtest.Single(tb)
		return postgresStore(postgresConfig(srv.Addr(), srv.Database(tb)))
	}}

	memoryAndMemory   = pair{"memoryAndMemory", memoryWorld, memoryWorld}
	memoryAndRedis    = pair{"memoryAndRedis", memoryWorld, redisWorld}
	memoryAndCluster  = pair{"memoryAndCluster", memoryWorld, clusterWorld}
	memoryAndPostgres = pair{"memoryAndPostgres", memoryWorld, postgresWorld}
)

func memoryStore() opener {
	store := fmt.Sprint("lockstep ", stores.Add(1))
	return func(ctx context.Context) (driver.Backend, error) {
		return memory.Open(ctx, memory.Config{Store: store})
	}
}

func redisStore(c redis.Config) func() opener {
	return func() opener {
		own := c
		own.Prefix = fmt.Sprintf("lockstep-%x-%d", processID, targets.Add(1))
		return func(ctx context.Context) (driver.Backend, error) { return redis.Open(ctx, own) }
	}
}

func postgresStore(c postgres.Config) func() opener {
	return func() opener {
		own := c
		own.Schema = fmt.Sprintf("lockstep-%x-%d", processID, targets.Add(1))
		return func(ctx context.Context) (driver.Backend, error) { return postgres.Open(ctx, own) }
	}
}

func TestLockstep(t *testing.T) {
	for _, p := range []pair{memoryAndRedis, memoryAndCluster, memoryAndPostgres} {
		t.Run(p.name, func(t *testing.T) {
			newLockstep(t, p).check(t, 10)
		})
	}
}

// TestLockstepMemory proves the harness: a healthy store never differs from itself.
func TestLockstepMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		newLockstep(t, memoryAndMemory).check(t, 300)
	})
}

// faulty is memory with a fault in it.
type faulty struct {
	driver.Backend
	extend  func(context.Context, driver.Backend, driver.Holder, time.Duration) (driver.Grant, error)
	acquire func(context.Context, driver.Backend, driver.Request) (driver.Grant, error)
}

// No Unwrap: the core would find the short way of the backend beneath, around the fault.

func (b *faulty) Wait(ctx context.Context, r driver.Request) (driver.Grant, error) {
	w, ok := driver.As[driver.Waiter](b.Backend)
	if !ok {
		return driver.Grant{}, driver.ErrUnsupported
	}
	return w.Wait(ctx, r)
}

func (b *faulty) Inspect(ctx context.Context, key string) (driver.Info, bool, error) {
	i, ok := driver.As[driver.Inspector](b.Backend)
	if !ok {
		return driver.Info{}, false, driver.ErrUnsupported
	}
	return i.Inspect(ctx, key)
}

func (b *faulty) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	if b.acquire != nil {
		return b.acquire(ctx, b.Backend, r)
	}
	return b.Backend.Acquire(ctx, r)
}

func (b *faulty) Extend(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	if b.extend != nil {
		return b.extend(ctx, b.Backend, h, ttl)
	}
	return b.Backend.Extend(ctx, h, ttl)
}

// extendAdds breaks EXT-001: what was left is added to what is asked for.
func extendAdds(ctx context.Context, b driver.Backend, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	left := time.Duration(0)
	if i, ok := driver.As[driver.Inspector](b); ok {
		info, _, _ := i.Inspect(ctx, h.Key)
		left = info.Remaining
	}
	return b.Extend(ctx, h, ttl+left)
}

var faultyStores = []struct {
	name  string
	fault faulty
}{
	{"extend adds", faulty{extend: extendAdds}},
	{"ttls in whole seconds", faulty{acquire: func(ctx context.Context, b driver.Backend, r driver.Request) (driver.Grant, error) {
		if r.TTL > 0 {
			r.TTL = max(r.TTL, time.Second)
		}
		return b.Acquire(ctx, r)
	}}},
	{"tokens fall", faulty{acquire: func(ctx context.Context, b driver.Backend, r driver.Request) (driver.Grant, error) {
		g, err := b.Acquire(ctx, r)
		if err == nil {
			g.Token = driver.MaxToken - g.Token
		}
		return g, err
	}}},
	{"contention is called an outage", faulty{acquire: func(ctx context.Context, b driver.Backend, r driver.Request) (driver.Grant, error) {
		g, err := b.Acquire(ctx, r)
		if err != nil {
			err = driver.ErrUnavailable
		}
		return g, err
	}}},
}

func (b faulty) store() opener {
	open := memoryStore()
	return func(ctx context.Context) (driver.Backend, error) {
		inner, err := open(ctx)
		b := b
		b.Backend = inner
		return &b, err
	}
}

// TestLockstepFinds proves that a difference is found, and shrunk to the few steps that
// make it.
func TestLockstepFinds(t *testing.T) {
	for _, tt := range faultyStores {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &lockstep{pair: memoryAndMemory, stores: [2]func() opener{memoryStore, tt.fault.store}}
				failure := l.find(200)
				t.Log(failure)
				if l.least == nil {
					t.Fatal("it was not found")
				}
				if len(l.least) > 4 {
					t.Errorf("it was shrunk to %d steps only", len(l.least))
				}
				if want := l.least.test("memoryAndMemory"); !strings.Contains(failure, want) {
					t.Errorf("the program is not printed:\n%s", want)
				}
			})
		})
	}
}
