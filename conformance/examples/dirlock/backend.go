package dirlock

import (
	"context"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/driver/keeper"
)

// A backend is one client of the directory.
type backend struct {
	config Config
	turn   chan struct{} // holds something while a step runs
	done   chan struct{} // closed by Close

	sessions   *keeper.Keeper
	background sync.WaitGroup
	mu         sync.Mutex // never held during a step
	closed     bool
	until      map[driver.Owner]time.Time // the ends of our sessions in the directory, as far as we know
	watches    map[*watch]bool
	watcher    int // the number of the goroutine that looks at them
}

var (
	_ driver.Backend      = (*backend)(nil)
	_ driver.Notifier     = (*backend)(nil)
	_ driver.Inspector    = (*backend)(nil)
	_ driver.Pinger       = (*backend)(nil)
	_ driver.SessionClock = (*backend)(nil)
)

// Capabilities: a counter that a clock takes part in survives everything. PromptLoss is
// not there: nobody looks at the files of what is held, only at those that somebody waits for.
func (b *backend) Capabilities() driver.Capabilities {
	return driver.Capabilities{
		Name: "dir",
		Has: driver.NewSet(driver.SharedStore, driver.LeaseOutlivesProcess,
			driver.TokensSurviveRestart, driver.TokensSurviveDataLoss),
		SessionValidity: b.config.Validity,
		Granularity:     20 * time.Millisecond,
	}
}

// Acquire makes one attempt.
func (b *backend) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	life := r.TTL
	if r.Session() {
		life = b.config.Validity
	}
	before := time.Now()
	var token uint64
	var until time.Time
	err := b.step(ctx, func(s *step) error {
		e, err := s.read(r.Key)
		if err != nil {
			return err
		}
		owner := r.Owner.String()
		until = s.now.Add(life)
		switch {
		case e.taken(s.now) && e.Owner == owner:
			token = e.Token // the core repeats itself: it has not heard our answer
			return s.prolong(r.Key, until)
		case e.taken(s.now):
			return driver.Held(e.Until.Sub(s.now))
		}
		if token, err = s.mint(); err != nil {
			return err
		}
		return s.create(entry{Key: []byte(r.Key), Owner: owner, Token: token, Session: r.Session(), Until: until})
	})
	if err != nil {
		return driver.Grant{}, err
	}
	if r.Session() && !b.keep(r, token, before, until) {
		return driver.Grant{}, driver.ErrClosed
	}
	return driver.Grant{Token: token, TTL: r.TTL}, nil
}

// Release frees the key.
func (b *backend) Release(ctx context.Context, h driver.Holder) error {
	b.forget(h.Owner)
	return b.step(ctx, func(s *step) error {
		e, err := s.read(h.Key)
		if err != nil {
			return err
		}
		if err := e.heldBy(h, s.now); err != nil {
			return err
		}
		return s.remove(fileName(h.Key))
	})
}

// Extend makes a lease end ttl from now.
func (b *backend) Extend(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	var token uint64
	err := b.step(ctx, func(s *step) error {
		e, err := s.read(h.Key)
		if err != nil {
			return err
		}
		if err := e.heldBy(h, s.now); err != nil {
			return err
		}
		token = e.Token
		return s.prolong(h.Key, s.now.Add(ttl))
	})
	if err != nil {
		return driver.Grant{}, err
	}
	return driver.Grant{Token: token, TTL: ttl}, nil
}

// Inspect says who holds key.
func (b *backend) Inspect(ctx context.Context, key string) (info driver.Info, ok bool, err error) {
	err = b.step(ctx, func(s *step) error {
		e, err := s.read(key)
		if err == nil && e.taken(s.now) {
			ok = true
			info = driver.Info{Owner: e.Owner, Token: e.Token, Session: e.Session, Remaining: max(0, e.Until.Sub(s.now)), Waiters: -1}
		}
		return err
	})
	return info, ok, err
}

// Ping says whether the directory is there and can be locked, and whether there are tokens to be had.
func (b *backend) Ping(ctx context.Context) error {
	return b.step(ctx, func(s *step) error {
		f, err := s.openTokens()
		if err != nil {
			return err
		}
		return f.Close()
	})
}

// Close ends what waits in a step, and the keeping alive. The core has released the
// holds before; what is left frees itself.
func (b *backend) Close(context.Context) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	close(b.done)
	clear(b.watches)
	b.mu.Unlock()
	b.sessions.Close()
	b.background.Wait()
	return nil
}
