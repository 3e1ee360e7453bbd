package dirlock

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/driver/keeper"
)

// renewAtOnce is how many sessions one step renews: others want a turn as well.
const renewAtOnce = 64

// renew is what the keeper of the sessions calls.
func (b *backend) renew(ctx context.Context, sessions []driver.Holder) ([]keeper.Outcome, error) {
	outcomes := make([]keeper.Outcome, len(sessions))
	err := b.step(ctx, func(s *step) error {
		until := s.now.Add(b.config.Validity)
		for i, h := range sessions {
			seen, ok := b.end(h.Owner)
			if !ok {
				continue // released meanwhile; its file may be somebody else's
			}
			switch err := s.renew(h, seen, until); {
			case err == nil:
				outcomes[i] = keeper.Renewed
				b.ends(h.Owner, until)
			case errors.Is(err, driver.ErrLost):
				outcomes[i] = keeper.Gone
				b.mu.Lock()
				delete(b.until, h.Owner)
				b.mu.Unlock()
			}
		}
		return nil
	})
	return outcomes, err
}

// renew makes the session of h end at until, if it has not ended. seen is the end that this
// client gave it: a file that has it, to the nanosecond, need not be read.
func (s *step) renew(h driver.Holder, seen, until time.Time) error {
	info, err := os.Lstat(filepath.Join(s.dir, fileName(h.Key)))
	if err != nil || !info.ModTime().Equal(seen) || !s.now.Before(seen) {
		e, err := s.read(h.Key)
		if err != nil {
			return err
		}
		if err := e.heldBy(h, s.now); err != nil {
			return err
		}
	}
	return s.prolong(h.Key, until)
}

// end is when the session of owner ends in the directory, as far as this client knows. false:
// it is none of this client's any more.
func (b *backend) end(owner driver.Owner) (until time.Time, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	until, ok = b.until[owner]
	return until, ok
}

// ends notes the end of a session that is still this client's.
func (b *backend) ends(owner driver.Owner, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.until[owner]; ok {
		b.until[owner] = until
	}
}

// keep begins to keep alive what r was granted until until; before is the moment before the
// grant. false says that b has been closed.
func (b *backend) keep(r driver.Request, token uint64, before, until time.Time) bool {
	b.mu.Lock()
	b.until[r.Owner] = until
	b.mu.Unlock()
	return b.sessions.Keep(r, token, before)
}

// forget stops keeping alive what owner holds.
func (b *backend) forget(owner driver.Owner) {
	b.sessions.Forget(owner)
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.until, owner)
}

// SessionErr implements driver.SessionClock.
func (b *backend) SessionErr(h driver.Holder) error { return b.sessions.SessionErr(h) }

// sweepEvery is how often a client looks for files that nobody needs.
const sweepEvery = time.Minute

func (b *backend) sweepLoop() {
	defer b.background.Done()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-b.done:
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), sweepEvery)
		_ = b.step(ctx, (*step).sweep) // what it did not do is done the next time
		cancel()
		b.mu.Lock()
		maps.DeleteFunc(b.until, func(_ driver.Owner, until time.Time) bool { return time.Since(until) > sweepEvery })
		b.mu.Unlock()
	}
}
