// Package memory is a store for the tests and Examples of the packages below locker, which cannot
// require the module of the real one. Its backends share it, and it can be down.
package memory

import (
	"context"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// Store is what several backends share. Its zero value is empty.
type Store struct {
	// MinTTL is the capability of that name.
	MinTTL time.Duration

	mu    sync.Mutex
	holds map[string]*hold
	wakes map[string]map[*func()]struct{}
	token uint64
	down  bool

	refusal error
}

type hold struct {
	owner    driver.Owner
	token    uint64
	until    time.Time // zero for a session
	listener driver.Listener
}

// New is a Locker of s. Its only error is a wrong configuration's.
func New(s *Store, cfg locker.Config) (*locker.Locker, error) {
	return locker.New(backend{s}, cfg)
}

// SetDown makes s unreachable, or reachable again.
func (s *Store) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// SetRefusal has every Extend and Leave fail with err, or work again.
func (s *Store) SetRefusal(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = err
}

// Delete takes the hold on key away, and says so to its holder.
func (s *Store) Delete(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.live(key); h != nil {
		h.listener.Lost(driver.ErrLost)
		s.free(key)
	}
}

// Held says whether somebody holds key.
func (s *Store) Held(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live(key) != nil
}

func (s *Store) live(key string) *hold {
	h := s.holds[key]
	if h != nil && !h.until.IsZero() && !time.Now().Before(h.until) {
		delete(s.holds, key)
		return nil
	}
	return h
}

func (s *Store) free(key string) {
	delete(s.holds, key)
	for wake := range s.wakes[key] {
		(*wake)()
	}
}

type backend struct{ s *Store }

func (b backend) enter(ctx context.Context) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.s.mu.Lock()
	if b.s.down {
		b.s.mu.Unlock()
		return nil, driver.ErrUnavailable
	}
	return b.s.mu.Unlock, nil
}

func (b backend) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	leave, err := b.enter(ctx)
	if err != nil {
		return driver.Grant{}, err
	}
	defer leave()
	h := b.s.live(r.Key)
	switch {
	case h == nil:
		b.s.token++
		h = &hold{owner: r.Owner, token: b.s.token}
		if b.s.holds == nil {
			b.s.holds = make(map[string]*hold)
		}
		b.s.holds[r.Key] = h
	case h.owner == r.Owner:
	case h.until.IsZero():
		return driver.Grant{}, driver.ErrHeld
	default:
		return driver.Grant{}, driver.Held(time.Until(h.until))
	}
	h.listener = r.Hold
	if r.TTL > 0 {
		h.until = time.Now().Add(r.TTL)
	}
	return driver.Grant{Token: h.token, TTL: r.TTL}, nil
}

func (b backend) Extend(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	leave, err := b.enter(ctx)
	if err != nil {
		return driver.Grant{}, err
	}
	defer leave()
	if b.s.refusal != nil {
		return driver.Grant{}, b.s.refusal
	}
	held := b.s.live(h.Key)
	if held == nil || held.owner != h.Owner {
		return driver.Grant{}, driver.ErrLost
	}
	held.until = time.Now().Add(ttl)
	return driver.Grant{Token: held.token, TTL: ttl}, nil
}

func (b backend) Release(ctx context.Context, h driver.Holder) error {
	leave, err := b.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	held := b.s.live(h.Key)
	if held == nil || held.owner != h.Owner {
		return driver.ErrLost
	}
	b.s.free(h.Key)
	return nil
}

func (b backend) Inspect(ctx context.Context, key string) (driver.Info, bool, error) {
	leave, err := b.enter(ctx)
	if err != nil {
		return driver.Info{}, false, err
	}
	defer leave()
	h := b.s.live(key)
	if h == nil {
		return driver.Info{}, false, nil
	}
	info := driver.Info{Owner: h.owner.String(), Token: h.token, Session: h.until.IsZero()}
	if !info.Session {
		info.Remaining = time.Until(h.until)
	}
	return info, true, nil
}

func (b backend) Notify(key string, wake func()) (stop func()) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.s.wakes == nil {
		b.s.wakes = make(map[string]map[*func()]struct{})
	}
	if b.s.wakes[key] == nil {
		b.s.wakes[key] = make(map[*func()]struct{})
	}
	b.s.wakes[key][&wake] = struct{}{}
	return func() {
		b.s.mu.Lock()
		defer b.s.mu.Unlock()
		delete(b.s.wakes[key], &wake)
	}
}

func (b backend) Capabilities() driver.Capabilities {
	return driver.Capabilities{Name: "memory", MinTTL: b.s.MinTTL, Has: driver.NewSet(driver.PromptLoss)}
}

func (b backend) Close(context.Context) error { return nil }
