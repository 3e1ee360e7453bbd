package locker_test

import (
	"context"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// free grants everything and allocates nothing.
type free struct{ caps driver.Set }

func (f free) Acquire(_ context.Context, r driver.Request) (driver.Grant, error) {
	return driver.Grant{Token: r.Owner.Seq, TTL: r.TTL}, nil
}

func (f free) Extend(_ context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	return driver.Grant{Token: h.Token, TTL: ttl}, nil
}
func (f free) Release(context.Context, driver.Holder) error { return nil }
func (f free) Capabilities() driver.Capabilities {
	return driver.Capabilities{Name: "free", Has: f.caps}
}
func (f free) Close(context.Context) error { return nil }

// The core's own cost of a hold is the Lease, and a timer where the backend's clock is not
// the process's.
func TestAllocations(t *testing.T) {
	bg := context.Background()
	local, other := newLocker(t, free{driver.NewSet(driver.LocalClock)}, locker.Config{}), newLocker(t, free{}, locker.Config{})
	for name, c := range map[string]struct {
		most float64
		l    *locker.Locker
		run  func(l *locker.Locker) *locker.Lease
	}{
		"TryLock": {1, local, func(l *locker.Locker) *locker.Lease {
			s, _ := l.TryLock(bg, "k", locker.WithTTL(time.Minute))
			return s
		}},
		"Lock": {1, local, func(l *locker.Locker) *locker.Lease {
			s, _ := l.Lock(bg, "k", locker.WithTTL(time.Minute))
			return s
		}},
		"session": {1, local, func(l *locker.Locker) *locker.Lease {
			s, _ := l.Lock(bg, "k")
			return s
		}},
		"Extend": {1, local, func(l *locker.Locker) *locker.Lease {
			s, _ := l.Lock(bg, "k", locker.WithTTL(time.Minute))
			_ = s.Extend(bg, time.Hour)
			return s
		}},
		"LockNS": {2, local, func(l *locker.Locker) *locker.Lease { // and the key
			s, _ := l.LockNS(bg, "k", locker.WithTTL(time.Minute))
			return s
		}},
		"options": {2, local, func(l *locker.Locker) *locker.Lease {
			s, _ := l.LockNS(bg, "k", locker.WithNamespace("ns"), locker.WithRetry(locker.Retry{Attempts: 1}))
			return s
		}},
		"with the core's timer": {3, other, func(l *locker.Locker) *locker.Lease {
			s, _ := l.TryLock(bg, "k", locker.WithTTL(time.Minute))
			return s
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got := testing.AllocsPerRun(100, func() {
				if err := c.run(c.l).Unlock(bg); err != nil {
					t.Error(err)
				}
			})
			t.Logf("%v allocations", got)
			if got > c.most {
				t.Errorf("%v allocations, want at most %v", got, c.most)
			}
		})
	}
}

func BenchmarkTryLockUnlock(b *testing.B) {
	l, bg := newLocker(b, free{driver.NewSet(driver.LocalClock)}, locker.Config{}), context.Background()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s, err := l.TryLock(bg, "k", locker.WithTTL(time.Minute))
			if err != nil || s.Unlock(bg) != nil {
				b.Fatal(err)
			}
		}
	})
}
