package redis

import (
	"context"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Extend implements driver.Backend.
func (b *backend) Extend(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	if b.closed.Load() { // the client of a Cluster may still let a command through
		return driver.Grant{}, driver.ErrClosed
	}
	lock, owner := b.layout.lockKey(h.Key), ownerValue(h.Owner, false)
	b.watched.extending(lock, owner)
	sent := time.Now()
	args := []string{owner, millis(ttl)}
	prolongs := b.watched.prolongs(lock, owner, sent.Add(ttl))
	if prolongs {
		args = append(args, b.layout.tokenKey(h.Key), counterLife(ttl))
	}
	n, err := b.number(ctx, h.Key, extendScript.Exec(ctx, b.client, []string{lock}, args), 0, 1)
	if err != nil {
		return driver.Grant{}, err
	}
	if n == 0 {
		b.watched.unholdOwner(lock, owner)
		return driver.Grant{}, b.whyLost(ctx, lock, owner)
	}
	b.watched.extended(lock, owner, sent, ttl)
	if prolongs {
		b.watched.prolonged(lock, owner, counted(sent, ttl))
	}
	// Our own writes are not announced to us, and a waiter here may have planned its next
	// attempt for the old end.
	b.watched.wake(lock)
	return driver.Grant{Token: h.Token, TTL: ttl}, nil
}

// prolongs says whether the counter is to be prolonged with a hold that will end then.
func (w *watched) prolongs(lock, owner string, ends time.Time) bool {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.find(lock, owner)
	return h == nil || ends.After(h.counted)
}

func (w *watched) prolonged(lock, owner string, counted time.Time) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.find(lock, owner); h != nil {
		h.counted = counted
	}
}
