package dirlock

import (
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// entry is what stands under a key. Its zero value is what stands under a free one.
type entry struct {
	Key     []byte
	Owner   string
	Token   uint64
	Session bool
	Until   time.Time `json:"-"` // by the clock that all clients share; the file's modification time

	// foreign says that something stands there which no client of ours wrote.
	foreign bool
}

// taken says whether the key is anybody's at the instant now. What we do not understand
// is not free: somebody may count on it.
func (e *entry) taken(now time.Time) bool {
	return e.foreign || e.Owner != "" && now.Before(e.Until)
}

// heldBy is nil if h holds the key at the instant now, and otherwise says why not.
func (e *entry) heldBy(h driver.Holder, now time.Time) error {
	switch {
	case e.Owner != h.Owner.String(), h.Token != 0 && h.Token != e.Token:
		return driver.ErrLost
	case !now.Before(e.Until):
		return driver.ErrExpired
	}
	return nil
}
