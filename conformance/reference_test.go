package conformance

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// refStore is the simplest store that keeps the contract: a map under a mutex. The
// mutants are made from it, and what it passes is what a healthy backend passes.
type refStore struct {
	now func() time.Time

	mu    sync.Mutex
	m     map[string]refEntry
	token uint64
	wiped bool
	wakes hub
}

type refEntry struct {
	driver.Request
	token  uint64
	until  time.Time // zero: a session
	passes int       // how often it has been passed on since it was acquired
}

// refTurn is how often a hold goes from hand to hand until others get their turn.
const refTurn = 16

func newRefStore() *refStore { return &refStore{now: time.Now, m: map[string]refEntry{}} }

// live is the present holder of key.
func (s *refStore) live(key string) (refEntry, bool) {
	e, ok := s.m[key]
	if ok && !e.until.IsZero() && !s.now().Before(e.until) {
		delete(s.m, key)
		ok = false
	}
	return e, ok
}

// remove ends the hold on key from outside: its holder hears of it.
func (s *refStore) remove(key string) {
	s.mu.Lock()
	e, ok := s.live(key)
	delete(s.m, key)
	s.mu.Unlock()
	if ok {
		e.Hold.Lost(driver.ErrLost)
	}
	s.wakes.wake(key)
}

// reference is one client.
type reference struct {
	*refStore
	mu     sync.Mutex
	closed bool
}

var (
	_ driver.Notifier = (*reference)(nil)
	_ driver.Passer   = (*reference)(nil)
)

func (b *reference) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	if err := b.ready(ctx); err != nil {
		return driver.Grant{}, err
	}
	b.refStore.mu.Lock()
	defer b.refStore.mu.Unlock()
	e, ok := b.live(r.Key)
	switch {
	case ok && e.Owner != r.Owner && e.until.IsZero():
		return driver.Grant{}, driver.ErrHeld
	case ok && e.Owner != r.Owner:
		return driver.Grant{}, driver.Held(e.until.Sub(b.now()))
	case !ok:
		b.token++
		e.token = b.token
	}
	e.Request = r
	if e.until = (time.Time{}); r.TTL > 0 {
		e.until = b.now().Add(r.TTL)
	}
	b.m[r.Key] = e
	return driver.Grant{Token: e.token, TTL: r.TTL}, nil
}

func (b *reference) Extend(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	if err := b.ready(ctx); err != nil {
		return driver.Grant{}, err
	}
	b.refStore.mu.Lock()
	defer b.refStore.mu.Unlock()
	e, ok := b.live(h.Key)
	if !ok || e.Owner != h.Owner {
		return driver.Grant{}, driver.ErrLost
	}
	e.until = b.now().Add(ttl)
	b.m[h.Key] = e
	return driver.Grant{Token: e.token, TTL: ttl}, nil
}

func (b *reference) Release(ctx context.Context, h driver.Holder) error {
	if err := b.ready(ctx); err != nil {
		return err
	}
	b.refStore.mu.Lock()
	e, ok := b.live(h.Key)
	if ok = ok && e.Owner == h.Owner; ok {
		delete(b.m, h.Key)
	}
	b.refStore.mu.Unlock()
	if !ok {
		return driver.ErrLost
	}
	b.wakes.wake(h.Key)
	return nil
}

// Pass leaves the first owner's name in the store, as one does who need not tell it of each
// pass.
func (b *reference) Pass(ctx context.Context, h driver.Holder, r driver.Request) (driver.Grant, error) {
	if err := b.ready(ctx); err != nil {
		return driver.Grant{}, err
	}
	b.refStore.mu.Lock()
	e, ok := b.live(h.Key)
	if !ok || e.Owner != h.Owner || e.passes == refTurn {
		b.refStore.mu.Unlock()
		return driver.Grant{}, b.Release(ctx, h)
	}
	defer b.refStore.mu.Unlock()
	b.token++
	e.Request, e.token, e.until = r, b.token, b.now().Add(r.TTL)
	e.Owner = h.Owner
	e.passes++
	b.m[h.Key] = e
	return driver.Grant{Token: e.token, TTL: r.TTL, Owner: h.Owner}, nil
}

func (b *reference) Notify(key string, wake func()) (stop func()) { return b.wakes.notify(key, wake) }

func (b *reference) Capabilities() driver.Capabilities {
	return driver.Capabilities{
		Name: "reference", Granularity: 2 * time.Millisecond,
		Has: driver.NewSet(driver.PromptLoss, driver.LeaseOutlivesProcess, driver.TokensSurviveRestart, driver.TokensSurviveDataLoss),
	}
}

func (b *reference) Close(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

func (b *reference) ready(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return driver.ErrClosed
	}
	return ctx.Err()
}

// refTarget is a target over a store of its own, each client of which wrap may change.
func refTarget(wrap func(*reference) driver.Backend) func(*testing.T) *Target {
	return refTargetAt(time.Now, wrap)
}

// refTargetAt is refTarget whose store has a clock of its own.
func refTargetAt(now func() time.Time, wrap func(*reference) driver.Backend) func(*testing.T) *Target {
	return func(*testing.T) *Target {
		s := newRefStore()
		s.now = now
		open := func(testing.TB) driver.Backend {
			b := &reference{refStore: s}
			if wrap != nil {
				return wrap(b)
			}
			return b
		}
		return &Target{
			Backend: open(nil), Peer: open,
			Delete:  func(_ testing.TB, key string) { s.remove(key) },
			Crash:   func(_ testing.TB, b driver.Backend) { _ = b.Close(context.Background()) },
			Restart: func(testing.TB) {},
			Wipe: func(testing.TB) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.m, s.wiped = map[string]refEntry{}, true
			},
			Keys: func(testing.TB) (keys []StoreKey) {
				s.mu.Lock()
				defer s.mu.Unlock()
				for name := range s.m {
					if _, ok := s.live(name); ok {
						keys = append(keys, StoreKey{Name: strings.Clone(name)})
					}
				}
				return keys
			},
			Connections: func(testing.TB) int { return 0 },
		}
	}
}
