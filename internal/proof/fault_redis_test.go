package proof

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/conformance"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// broken is a Redis of one case's own, which the case may break. It is started when it is
// first asked for: most cases never do.
type broken struct {
	t    *testing.T
	conf redis.Config // but for the address

	clock shiftedClock

	overwritten atomic.Int64 // how often overwrite was called

	once sync.Once
	srv  *redistest.Server
}

func (b *broken) server() *redistest.Server {
	b.once.Do(func() {
		b.srv = redistest.Start(b.t, b.clock.redis()...)
	})
	return b.srv
}

func (b *broken) open(tb testing.TB, addr string) driver.Backend {
	tb.Helper()
	c := b.conf
	c.Addrs = []string{addr}
	backend, err := redis.Open(context.Background(), c)
	if err != nil {
		tb.Fatalf("opening Redis: %v", err)
	}
	return backend
}

func (b *broken) lock(key string) string { return lockKey(b.conf.Prefix, key) }

// client's line is toxiproxy, in this process.
func (b *broken) client(tb testing.TB) (driver.Backend, conformance.Line) {
	proxy := redistest.NewProxy(tb, b.server().Addr())
	// All that is asked for is a script. EVALSHA becomes EVAL where the server does not know it yet.
	const script = "EVAL"
	return b.open(tb, proxy.Addr()), conformance.Line{
		Latency:      func(d time.Duration) { proxy.Latency(d, d) },
		BlackHole:    proxy.BlackHole,
		LoseReplies:  func(n int) { proxy.LoseReplies(n, script) },
		LoseRequests: func(n int) { proxy.LoseRequests(n, script) },
		Cut:          proxy.Reset,
		Sever:        proxy.Sever,
		Heal:         proxy.Heal,
	}
}

// overwrite puts one thing after another in the place of a lock; no client wrote any of them.
func (b *broken) overwrite(tb testing.TB, key string) {
	lock := b.lock(key)
	switch b.overwritten.Add(1) % 4 {
	case 0:
		b.server().Do(tb, "SET", lock, "lease:mine;")
	case 1:
		b.server().Do(tb, "SET", lock, "mine")
	case 2:
		b.server().Do(tb, "SET", lock, "")
	case 3:
		b.server().Do(tb, "EVAL", "redis.call('DEL', KEYS[1]); return redis.call('RPUSH', KEYS[1], 'mine')", "1", lock)
	}
}

// redisInject is what can be broken of one Redis. c is what its clients have beside the
// address.
func redisInject(t *testing.T, c redis.Config) *conformance.Inject {
	c.Prefix = "faults"
	// A renewal goes out a third of it after the reply to the one before, so that a round
	// trip of 600 ms, for which a case asks, leaves not much of less.
	c.Validity = 2500 * time.Millisecond
	// The longest round trip is 600 ms, and TLS takes three of them.
	c.Timeout, c.DialTimeout = 2*time.Second, 2*time.Second
	b := &broken{t: t, conf: c}
	return &conformance.Inject{
		Open:       func(tb testing.TB) driver.Backend { return b.open(tb, b.server().Addr()) },
		Client:     b.client,
		Pause:      func(tb testing.TB) { b.server().Pause(tb) },
		Silence:    time.Second + c.Timeout + c.DialTimeout, // the idle connection is pinged after a second
		Resume:     func(tb testing.TB) { b.server().Resume(tb) },
		Kill:       func(tb testing.TB) { b.server().Kill(tb) },
		Restart:    func(tb testing.TB) { b.server().Restart(tb) },
		Refuse:     func(tb testing.TB) { b.server().Do(tb, "CONFIG", "SET", "min-replicas-to-write", "1") },
		Accept:     func(tb testing.TB) { b.server().Do(tb, "CONFIG", "SET", "min-replicas-to-write", "0") },
		Disconnect: func(tb testing.TB) { b.server().Do(tb, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") },
		Delete:     func(tb testing.TB, key string) { b.server().Do(tb, "DEL", b.lock(key)) },
		Overwrite:  b.overwrite,
		Wipe:       func(tb testing.TB) { b.server().Do(tb, "FLUSHALL") },
		Skew:       b.clock.set,
		Clock: func(tb testing.TB) time.Time {
			now, err := b.server().Do(tb, "TIME").AsIntSlice()
			if err != nil || len(now) != 2 {
				tb.Fatalf("TIME: %v, %v", now, err)
			}
			return time.Unix(now[0], now[1]*1000)
		},
		Process: func(tb testing.TB) conformance.Process {
			cmd := exec.Command(os.Args[0], "-test.run=^TestHolderProcess$")
			cmd.Env = append(os.Environ(),
				fmt.Sprintf("%s=redis://%s?prefix=%s&validity=%s&tracking=%s", holderEnv, b.server().Addr(), c.Prefix, c.Validity, c.Tracking))
			return conformance.Command(tb, cmd)
		},
	}
}

const holderEnv = "LOCKSTEP_PROOF_HOLDER"
