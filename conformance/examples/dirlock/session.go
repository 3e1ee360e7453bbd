package dirlock

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// session is one session that this client keeps alive.
type session struct {
	holder driver.Holder
	hold   driver.Listener
	until  time.Time   // its end in the directory, as far as we know
	end    *time.Timer // when it runs out, nobody can be sure of the session any more
}

// belief is how long a session is believed in, from before its last renewal began: a
// little less than it lasts in the directory, because two clocks never agree quite.
func (b *backend) belief() time.Duration { return b.config.Validity - b.config.Validity/100 }

// keep begins to keep alive what r was granted until until; before is the moment before
// the grant. false says that b has been closed.
func (b *backend) keep(r driver.Request, before, until time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	if old := b.sessions[r.Owner]; old != nil { // the core repeats itself
		old.end.Stop()
	}
	s := &session{holder: driver.Holder{Key: r.Key, Owner: r.Owner, Session: true}, hold: r.Hold, until: until}
	s.end = time.AfterFunc(b.belief()-time.Since(before), func() {
		b.lose(s, fmt.Errorf("%w: the session could not be renewed within its validity", driver.ErrUnavailable))
	})
	b.sessions[r.Owner] = s
	return true
}

// forget stops keeping alive what owner holds.
func (b *backend) forget(owner driver.Owner) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.sessions[owner]; s != nil {
		s.end.Stop()
		delete(b.sessions, owner)
	}
}

// kept says whether s is still to be kept alive, and until when it is.
func (b *backend) kept(s *session) (until time.Time, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return s.until, b.sessions[s.holder.Owner] == s
}

// lose tells the holder of s, unless it has let go of it.
func (b *backend) lose(s *session, cause error) {
	b.mu.Lock()
	mine := b.sessions[s.holder.Owner] == s
	if mine {
		s.end.Stop()
		delete(b.sessions, s.holder.Owner)
	}
	b.mu.Unlock()
	if mine {
		s.hold.Lost(cause)
	}
}

// sweepEvery is how often a client looks for files that nobody needs.
const sweepEvery = time.Minute

// keepAlive renews the sessions three times in each validity, so that one renewal may
// fail.
func (b *backend) keepAlive() {
	defer b.background.Done()
	beat := time.NewTicker(b.config.Validity / 3)
	defer beat.Stop()
	for swept := time.Now(); ; {
		select {
		case <-b.done:
			return
		case <-beat.C:
		}
		b.renew()
		if time.Since(swept) >= sweepEvery {
			swept = time.Now()
			b.quietly((*step).sweep)
		}
	}
}

// quietly runs a step whose error nobody hears: what it did not do is done at the next beat.
func (b *backend) quietly(f func(*step) error) {
	ctx, cancel := context.WithTimeout(context.Background(), b.config.Validity)
	defer cancel()
	_ = b.step(ctx, f)
}

// renewAtOnce is how many sessions one step renews: others want a turn as well.
const renewAtOnce = 64

func (b *backend) renew() {
	b.mu.Lock()
	mine := slices.Collect(maps.Values(b.sessions))
	b.mu.Unlock()
	for some := range slices.Chunk(mine, renewAtOnce) {
		before := time.Now()
		b.quietly(func(d *step) error {
			for _, s := range some {
				seen, ok := b.kept(s)
				if !ok {
					continue // released meanwhile; its file may be somebody else's
				}
				until := d.now.Add(b.config.Validity)
				switch err := d.renew(s.holder, seen, until); {
				case err == nil:
					b.believe(s, before, until)
				case errors.Is(err, driver.ErrLost):
					b.lose(s, err)
				}
			}
			return nil
		})
	}
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

// believe puts off the end of s, which was renewed by a step that began after before.
func (b *backend) believe(s *session, before, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sessions[s.holder.Owner] == s {
		s.until = until
		s.end.Reset(b.belief() - time.Since(before))
	}
}
