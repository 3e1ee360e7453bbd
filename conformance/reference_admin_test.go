package conformance

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Inspect implements driver.Inspector.
func (b *reference) Inspect(ctx context.Context, key string) (driver.Info, bool, error) {
	if err := b.ready(ctx); err != nil {
		return driver.Info{}, false, err
	}
	b.refStore.mu.Lock()
	defer b.refStore.mu.Unlock()
	info, ok := b.info(key)
	return info, ok, nil
}

func (s *refStore) info(key string) (driver.Info, bool) {
	e, ok := s.live(key)
	if !ok {
		return driver.Info{}, false
	}
	return driver.Info{
		Key: key, Owner: e.Owner.String(), Identity: e.Identity, Note: e.Note, Since: e.since,
		Token: e.token, Session: e.Session(), Remaining: e.until.Sub(s.now()), Waiters: -1,
	}, true
}

// List implements driver.Lister. It takes the names at once, and looks at each when its turn comes.
func (b *reference) List(ctx context.Context, prefix string) iter.Seq2[driver.Info, error] {
	return func(yield func(driver.Info, error) bool) {
		b.refStore.mu.Lock()
		keys := slices.Collect(maps.Keys(b.m))
		b.refStore.mu.Unlock()
		if err := b.ready(ctx); err != nil {
			yield(driver.Info{}, err)
			return
		}
		for _, key := range keys {
			if !strings.HasPrefix(key, prefix) {
				continue
			}
			info, ok, err := b.Inspect(ctx, key)
			if err != nil {
				yield(driver.Info{}, err)
				return
			}
			if ok && !yield(info, nil) {
				return
			}
		}
	}
}

// Break implements driver.Breaker.
func (b *reference) Break(ctx context.Context, key string, token uint64) error {
	if err := b.ready(ctx); err != nil {
		return err
	}
	b.refStore.mu.Lock()
	e, ok := b.live(key)
	if ok = ok && e.token == token; ok {
		delete(b.m, key)
		if b.broke == nil {
			b.broke = map[driver.Owner]bool{}
		}
		b.broke[e.Owner] = true
	}
	b.refStore.mu.Unlock()
	if !ok {
		return driver.ErrLost
	}
	e.Hold.Lost(driver.ErrBroken)
	b.wakes.Wake(key)
	return nil
}

// lost is why owner does not hold what it held.
func (s *refStore) lost(owner driver.Owner) error {
	if s.broke[owner] {
		return driver.ErrBroken
	}
	return driver.ErrLost
}
