package memory

import (
	"context"
	"iter"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Inspect says who holds key.
func (b *backend) Inspect(ctx context.Context, key string) (driver.Info, bool, error) {
	if err := ctxError(ctx); err != nil {
		return driver.Info{}, false, err
	}
	s, hash := b.store.shard(key)
	s.lock()
	defer s.mu.Unlock()
	if b.state.Load() == closed {
		return driver.Info{}, false, driver.ErrClosed
	}
	_, e := s.live(hash, key)
	if e == nil {
		return driver.Info{}, false, nil
	}
	return s.info(e), true, nil
}

// info is what there is to say of a hold.
func (s *shard) info(e *entry) driver.Info {
	i := driver.Info{
		Key:       e.key,
		Owner:     driver.Owner{Instance: e.by.instance, Seq: e.owner}.String(),
		Identity:  e.by.identity,
		Token:     e.token,
		Session:   e.session(),
		Remaining: s.remaining(e),
	}
	if n, ok := e.hold.(*noted); ok {
		i.Note = n.note
	}
	if e.since > 0 {
		i.Since = s.base.Add(time.Duration(e.since))
	}
	for w := e.first; w != nil; {
		i.Waiters++
		if w = w.next; w == e.first {
			break
		}
	}
	return i
}

// List yields what is held, a part of a shard at a time.
func (b *backend) List(ctx context.Context, prefix string) iter.Seq2[driver.Info, error] {
	return func(yield func(driver.Info, error) bool) {
		if err := ctxError(ctx); err != nil {
			yield(driver.Info{}, err)
			return
		}
		var part []driver.Info
		for i := range b.store.shards {
			s := &b.store.shards[i].shard
			for from := 0; from >= 0; {
				s.lock()
				if b.state.Load() == closed {
					s.mu.Unlock()
					yield(driver.Info{}, driver.ErrClosed)
					return
				}
				part, from = s.list(prefix, from, part[:0])
				s.mu.Unlock()
				for _, info := range part {
					if err := ctxError(ctx); err != nil {
						yield(driver.Info{}, err)
						return
					}
					if !yield(info, nil) {
						return
					}
				}
			}
		}
	}
}

// list appends what is held in the chunks from that number on, in so many of them that nobody
// waits for long. It returns the number of the next one, or -1.
//
// It goes by the slab and not by the table: an entry keeps its number for as long as its key is
// held, but the buckets of the table split and merge while nobody has the lock.
func (s *shard) list(prefix string, from int, part []driver.Info) (_ []driver.Info, next int) {
	const chunks = 64 // 256 entries, some 20 µs
	for i := from; i < len(s.slab.chunks); i++ {
		if i == from+chunks {
			return part, i
		}
		c := s.slab.chunks[i]
		if c == nil || c.used == 0 {
			continue
		}
		for j := range c.entries {
			if e := &c.entries[j]; e.held() && !s.over(e) && strings.HasPrefix(e.key, prefix) {
				part = append(part, s.info(e))
			}
		}
	}
	return part, -1
}

// Break ends the hold with token and hands the key to whoever waits first. Its holder has been
// told when it returns.
func (b *backend) Break(ctx context.Context, key string, token uint64) error {
	if err := ctxError(ctx); err != nil {
		return err
	}
	s, hash := b.store.shard(key)
	s.lock()
	defer s.mu.Unlock()
	if b.state.Load() == closed {
		return driver.ErrClosed
	}
	n, e := s.live(hash, key)
	if e == nil || e.token != token {
		return driver.ErrLost
	}
	e.hold.Lost(driver.ErrBroken)
	s.handOver(n, e)
	return nil
}
