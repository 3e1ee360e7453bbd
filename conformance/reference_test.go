package conformance

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// refStore is the simplest store that keeps the contract: a map under a mutex. The
// mutants are made from it, and what it passes is what a healthy backend passes.
type refStore struct {
	now func() time.Time

	mu          sync.Mutex
	m           map[string]refEntry
	token       uint64
	wiped       bool
	broke       map[driver.Owner]bool // whose holds were broken
	clockTokens bool                  // broken: a clock takes part in a token, and is trusted
	wakes       harness.Hub

	// For mutants that several clients make up together.
	silence, wakened atomic.Int64
}

type refEntry struct {
	driver.Request
	token  uint64
	until  time.Time // zero: without end
	since  time.Time
	passes int // how often it has been passed on since it was acquired
}

// refTurn is how often a hold goes from hand to hand until others get their turn.
const refTurn = 16

func newRefStore() *refStore { return &refStore{now: time.Now, m: map[string]refEntry{}} }

// mint is the next token.
func (s *refStore) mint() uint64 {
	s.token++
	if s.clockTokens {
		return s.token + uint64(s.now().UnixMicro())
	}
	return s.token
}

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
	s.wakes.Wake(key)
}

// reference is one client.
type reference struct {
	*refStore
	mu     sync.Mutex
	closed bool
	keeper // of its sessions
}

var (
	_ driver.Notifier     = (*reference)(nil)
	_ driver.Handoff      = (*reference)(nil)
	_ driver.Together     = (*reference)(nil)
	_ driver.Inspector    = (*reference)(nil)
	_ driver.Pinger       = (*reference)(nil)
	_ driver.SessionClock = (*reference)(nil)
	_ driver.Lister       = (*reference)(nil)
	_ driver.Breaker      = (*reference)(nil)
)

func (b *reference) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	if err := b.ready(ctx); err != nil {
		return driver.Grant{}, err
	}
	b.refStore.mu.Lock()
	defer b.refStore.mu.Unlock()
	return b.grant(r)
}

// AcquireAll looks at all keys before it takes one.
func (b *reference) AcquireAll(ctx context.Context, rs []driver.Request) ([]driver.Grant, int, error) {
	if err := b.ready(ctx); err != nil {
		return nil, -1, err
	}
	b.refStore.mu.Lock()
	defer b.refStore.mu.Unlock()
	for i, r := range rs {
		if e, ok := b.live(r.Key); ok && e.Owner != r.Owner {
			_, err := b.grant(r)
			return nil, i, err
		}
	}
	grants := make([]driver.Grant, len(rs))
	for i, r := range rs {
		grants[i], _ = b.grant(r)
	}
	return grants, -1, nil
}

// grant is Acquire under the store's mutex.
func (b *reference) grant(r driver.Request) (driver.Grant, error) {
	sent := time.Now()
	e, ok := b.live(r.Key)
	switch {
	case ok && e.Owner != r.Owner && e.Session():
		return driver.Grant{}, driver.ErrHeld
	case ok && e.Owner != r.Owner:
		return driver.Grant{}, driver.Held(e.until.Sub(b.now()))
	case !ok:
		e.token, e.since = b.mint(), b.now()
	}
	e.Request = r
	life := r.TTL
	if r.Session() {
		life = b.validity
		b.keep(r, sent)
	}
	e.until = b.now().Add(life)
	b.m[r.Key] = e
	return driver.Grant{Token: e.token, TTL: r.TTL}, nil
}

func (b *reference) Extend(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	if err := b.ready(ctx); err != nil {
		return driver.Grant{}, err
	}
	defer b.wakes.Wake(h.Key) // it may be to less
	b.refStore.mu.Lock()
	defer b.refStore.mu.Unlock()
	e, ok := b.live(h.Key)
	if !ok || e.Owner != h.Owner {
		return driver.Grant{}, b.lost(h.Owner)
	}
	e.until = b.now().Add(ttl)
	b.m[h.Key] = e
	return driver.Grant{Token: e.token, TTL: ttl}, nil
}

func (b *reference) Release(ctx context.Context, h driver.Holder) error {
	if !b.broken.forgetsLast {
		b.forgetHolder(h)
	}
	if err := b.ready(ctx); err != nil {
		return err
	}
	b.forgetHolder(h)
	b.refStore.mu.Lock()
	e, ok := b.live(h.Key)
	if ok = ok && e.Owner == h.Owner; ok {
		delete(b.m, h.Key)
	}
	why := b.lost(h.Owner)
	b.refStore.mu.Unlock()
	if !ok {
		return why
	}
	b.wakes.Wake(h.Key)
	return nil
}

// HandOff leaves the first owner's name in the store, as one does who need not tell it of each
// pass.
func (b *reference) HandOff(ctx context.Context, h driver.Holder, r driver.Request) (driver.Handed, error) {
	if err := b.ready(ctx); err != nil {
		return driver.Handed{}, err
	}
	b.refStore.mu.Lock()
	e, ok := b.live(h.Key)
	if !ok || e.Owner != h.Owner || e.passes == refTurn {
		b.refStore.mu.Unlock()
		return driver.Handed{}, yielded(b.Release(ctx, h))
	}
	defer b.refStore.mu.Unlock()
	e.Request, e.token, e.since, e.until = r, b.mint(), b.now(), b.now().Add(r.TTL)
	e.Owner = h.Owner
	e.passes++
	b.m[h.Key] = e
	return driver.Handed{Grant: driver.Grant{Token: e.token, TTL: r.TTL}, Owner: h.Owner}, nil
}

// yielded is what HandOff returns after a release that ended with err.
func yielded(err error) error {
	if err == nil {
		return driver.ErrYielded
	}
	return err
}

func (b *reference) Notify(key string, wake func()) (stop func()) { return b.wakes.Notify(key, wake) }

func (b *reference) Capabilities() driver.Capabilities {
	return driver.Capabilities{
		Name: "reference", Granularity: 2 * time.Millisecond, SessionValidity: b.validity,
		Has: driver.NewSet(driver.PromptLoss, driver.LeaseOutlivesProcess, driver.TokensSurviveRestart, driver.TokensSurviveDataLoss,
			driver.Notes, driver.Listing, driver.Breaking),
	}
}

func (b *reference) Close(context.Context) error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.stopKeeping()
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
			b := newReference(s)
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
