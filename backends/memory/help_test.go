package memory

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// open opens a backend and closes it at the end of the test.
func open(tb testing.TB, c Config) *backend {
	tb.Helper()
	if c.Store == "" {
		c.Store = tb.Name()
	}
	b, err := Open(context.Background(), c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			tb.Error("Close:", err)
		}
	})
	return b.(*backend)
}

// ignore is a Listener that does not listen.
type ignore struct{}

func (ignore) Lost(error) {}

// losses is a Listener that keeps what it hears, and when.
type losses struct {
	mu     sync.Mutex
	causes []error
	at     time.Time
}

func (l *losses) Lost(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.causes = append(l.causes, cause)
	l.at = time.Now()
}

func (l *losses) heard() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]error(nil), l.causes...)
}

func owner(n int) driver.Owner { return driver.Owner{Seq: uint64(n)} }

func request(key string, n int, ttl time.Duration) driver.Request {
	return driver.Request{Key: key, Owner: owner(n), TTL: ttl, Hold: ignore{}}
}

func holder(key string, n int) driver.Holder { return driver.Holder{Key: key, Owner: owner(n)} }

// live is the number of keys that are held in the whole store, waiting that of the
// waiters, armed that of the shards whose timer is set.
func live(b *backend) int {
	return count(b, func(s *shard) int { return s.table.n })
}

func waiting(b *backend) int {
	return count(b, func(s *shard) (n int) {
		s.table.each(&s.slab, func(_ ref, e *entry) { n += e.waiting() })
		return n
	})
}

// waiting is the length of e's queue.
func (e *entry) waiting() (n int) {
	for w := e.first; w != nil; {
		n++
		if w = w.next; w == e.first {
			break
		}
	}
	return n
}

func armed(b *backend) int {
	return count(b, func(s *shard) int {
		if s.wake != asleep {
			return 1
		}
		return 0
	})
}

func count(b *backend, f func(*shard) int) (n int) {
	for i := range b.store.shards {
		s := &b.store.shards[i].shard
		s.lock()
		n += f(s)
		s.mu.Unlock()
	}
	return n
}
