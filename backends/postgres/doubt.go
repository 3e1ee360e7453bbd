package postgres

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// lateness is for how long after an attempt of unknown outcome was taken back it is refused
// should it arrive (docs/adr/0008-late-requests.md). Nobody sends it any more, but a closed
// connection's bytes are retransmitted: by Linux for 102 s after the first retransmission.
const lateness = 120 * time.Second

// doubts are the owners of attempts whose outcome is unknown. The core repeats such an
// attempt, and when the repeat was granted and the hold is released, the first copy may still
// be on its way: the release then is a take-back.
type doubts struct {
	n     atomic.Int64 // how many; almost always none
	mu    sync.Mutex
	since map[driver.Owner]time.Time
	swept time.Time
}

// note notes the outcome of an attempt.
func (d *doubts) note(owner driver.Owner, err error) {
	if !errors.Is(err, driver.ErrUnavailable) || errors.Is(err, driver.ErrRefused) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if d.since == nil {
		d.since = make(map[driver.Owner]time.Time)
	}
	d.sweep(now)
	d.since[owner] = now
	d.n.Store(int64(len(d.since)))
}

// sweep forgets those whose request cannot be under way any more, now and then: in an outage
// there are many. The mutex is held.
func (d *doubts) sweep(now time.Time) {
	if now.Sub(d.swept) <= time.Second {
		return
	}
	d.swept = now
	for o, t := range d.since {
		if now.Sub(t) > lateness {
			delete(d.since, o)
		}
	}
	d.n.Store(int64(len(d.since)))
}

func (d *doubts) has(owner driver.Owner) bool {
	if d.n.Load() == 0 {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.since[owner]
	d.sweep(time.Now()) // after an outage nobody else does
	return ok
}
