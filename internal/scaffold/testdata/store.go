package etcd

import (
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// A store stands for what a backend talks to: a map that its clients share, with a clock, and
// some who watch it.
type store struct {
	mu      sync.Mutex
	entries map[string]entry
	token   uint64
	watches map[*func()]string
}

type entry struct {
	owner driver.Owner
	token uint64
	until time.Time
}

var stores struct {
	mu sync.Mutex
	at map[string]*store
}

func connect(addr string) *store {
	stores.mu.Lock()
	defer stores.mu.Unlock()
	if stores.at == nil {
		stores.at = map[string]*store{}
	}
	if stores.at[addr] == nil {
		stores.at[addr] = &store{entries: map[string]entry{}, watches: map[*func()]string{}}
	}
	return stores.at[addr]
}

// step is the atomic step: it lets decide change what stands under key.
func (s *store) step(key string, decide func(e *entry, now time.Time) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	err := decide(&e, time.Now())
	if err != nil {
		return err
	}
	if s.entries[key] = e; !time.Now().Before(e.until) {
		delete(s.entries, key) // the token is the store's, and need not stay
	}
	for wake, of := range s.watches {
		if of == key {
			(*wake)()
		}
	}
	return nil
}

func (s *store) acquire(key string, owner driver.Owner, life time.Duration) (token uint64, err error) {
	err = s.step(key, func(e *entry, now time.Time) error {
		switch rest := e.until.Sub(now); {
		case rest > 0 && e.owner != owner:
			return driver.Held(rest)
		case rest <= 0:
			s.token++
			*e = entry{owner: owner, token: s.token}
		}
		e.until, token = now.Add(life), e.token
		return nil
	})
	return token, err
}

func (s *store) release(h driver.Holder) error { return s.extend(h, 0) }

func (s *store) extend(h driver.Holder, life time.Duration) error {
	return s.step(h.Key, func(e *entry, now time.Time) error {
		switch {
		case e.owner != h.Owner, h.Token != 0 && e.token != h.Token:
			return driver.ErrLost
		case !now.Before(e.until):
			return driver.ErrExpired
		}
		e.until = now.Add(life)
		return nil
	})
}

func (s *store) notify(key string, wake func()) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watches[&wake] = key
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watches, &wake)
	}
}

// sessions are what one client keeps alive.
type sessions struct {
	mu     sync.Mutex
	closed bool
	timers map[driver.Owner]*time.Timer
}

func (b *backend) renew(h driver.Holder, hold driver.Listener) error {
	b.sessions.mu.Lock()
	defer b.sessions.mu.Unlock()
	if b.sessions.closed {
		return driver.ErrClosed
	}
	b.forgetLocked(h.Owner)
	var timer *time.Timer
	timer = time.AfterFunc(b.config.Validity/3, func() {
		b.sessions.mu.Lock()
		defer b.sessions.mu.Unlock()
		if b.sessions.timers[h.Owner] != timer {
			return
		}
		if err := b.store.extend(h, b.config.Validity); err != nil {
			hold.Lost(err)
			return
		}
		timer.Reset(b.config.Validity / 3)
	})
	b.sessions.timers[h.Owner] = timer
	return nil
}

func (b *backend) forgetLocked(owner driver.Owner) {
	if timer := b.sessions.timers[owner]; timer != nil {
		timer.Stop()
		delete(b.sessions.timers, owner)
	}
}

func (b *backend) endSessions() {
	b.sessions.mu.Lock()
	defer b.sessions.mu.Unlock()
	b.sessions.closed = true
	for owner := range b.sessions.timers {
		b.forgetLocked(owner)
	}
}
