package redis

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// unknowns are the owners of attempts whose outcome is unknown. The core repeats such an attempt,
// and when the repeat was granted and the hold is released, the first copy may still be on its
// way: the release then is a take-back (lua/takeback.lua).
type unknowns struct {
	n     atomic.Int64 // how many; almost always none
	mu    sync.Mutex
	since map[string]time.Time // by owner
	swept time.Time
	keep  time.Duration
}

// note notes the outcome of an attempt. Unknown outcomes are kept for as long as its request may be
// under way.
func (d *unknowns) note(owner string, err error, keep time.Duration) {
	if !errors.Is(err, driver.ErrUnavailable) || errors.Is(err, driver.ErrRefused) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if d.since == nil {
		d.since = make(map[string]time.Time)
	}
	d.keep = keep
	d.sweep(now)
	d.since[owner] = now
	d.n.Store(int64(len(d.since)))
}

// sweep forgets what is past, now and then: in an outage there are many.
func (d *unknowns) sweep(now time.Time) {
	if now.Sub(d.swept) <= time.Second {
		return
	}
	d.swept = now
	for o, t := range d.since {
		if now.Sub(t) > d.keep {
			delete(d.since, o)
		}
	}
	d.n.Store(int64(len(d.since)))
}

func (d *unknowns) has(owner string) bool {
	if d.n.Load() == 0 {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.since[owner]
	d.sweep(time.Now()) // after an outage nobody else does
	return ok
}
