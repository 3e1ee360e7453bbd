// Package keeper keeps sessions alive for a backend whose store does not do so itself: one
// whose sessions are leases that the client renews.
//
// A backend gives each session that it was granted to a [Keeper], and one function that renews
// many at a time. The Keeper calls it three times in each validity, tells the listeners of
// sessions that are gone, and by a timer of its own ends those that the store has not confirmed
// for too long (LOSS-001). It knows nothing of the store, and needs the standard library only.
//
//	k := keeper.New(keeper.Config{Validity: c.Validity, Renew: b.renew})
//	…
//	sent := time.Now()
//	token, err := b.acquire(ctx, r)                       // the store takes the key for Validity
//	if err == nil && !k.Keep(r, token, sent) {            // in Acquire
//		return driver.Grant{}, driver.ErrClosed
//	}
//	…
//	k.Forget(h.Owner)                                     // in Release, before the store is asked
//	…
//	k.Close()                                             // in Close
package keeper

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Outcome is the result of a renewal for one session.
type Outcome uint8

const (
	// Unknown says that the store said nothing of this session, or could not renew it just now (its
	// entry is locked by somebody). The session goes on unchanged, and is soon tried again.
	Unknown Outcome = iota
	// Renewed says that the session lasts for another validity.
	Renewed
	// Gone says that the session's owner does not hold the key any more.
	Gone
)

// Config is what a Keeper needs to know.
type Config struct {
	// Validity is how long the store keeps a session that is not renewed.
	Validity time.Duration

	// Renew prolongs sessions by Validity, and returns an outcome for each, in their order. A
	// session that is over must not be brought back: the store renews only what the owner
	// still holds at that instant. An error means that nothing is known of any of them.
	//
	// What is renewed is considered held for Validity, less 1 %, from the moment before Renew was
	// called. So do not wait for a connection in Renew: return an error when there is none, and call
	// [Keeper.Check] as soon as there is. ctx ends after a third of Validity, and when the Keeper is
	// closed. There is never more than one call of Renew at a time.
	Renew func(ctx context.Context, sessions []driver.Holder) ([]Outcome, error)

	// AtOnce is how many sessions one Renew gets at most. 0 is all of them.
	AtOnce int
}

// Keeper keeps the sessions of one client. Its methods are safe for concurrent use. Apart from
// Close they do not block, and may be called from within Renew.
type Keeper struct {
	config Config
	ctx    context.Context // ends with Close
	end    context.CancelFunc
	soon   chan struct{} // holds something while Check has been called
	done   chan struct{}

	mu       sync.Mutex
	closed   bool
	sessions map[driver.Owner]*session
	failed   error // of the last Renew that failed, until one succeeds
}

// session is one that is kept. Its Keeper's mutex guards it.
type session struct {
	holder    driver.Holder
	hears     driver.Listener
	confirmed time.Time   // before the last request that the store is known to have carried out was sent
	end       *time.Timer // when it cannot be considered held any longer
	turn      int         // the last one in which it was renewed
	over      bool
	cause     error // why it ended, while its listener may not have been told yet
}

// New starts a Keeper. It panics without a Validity or a Renew.
func New(c Config) *Keeper {
	if c.Validity <= 0 || c.Renew == nil {
		panic("keeper: Validity and Renew are required")
	}
	k := &Keeper{config: c, soon: make(chan struct{}, 1), done: make(chan struct{}), sessions: map[driver.Owner]*session{}}
	k.ctx, k.end = context.WithCancel(context.Background())
	go k.run()
	return k
}

// HeldFor is how long a session with that validity may be considered held, counted from the
// moment before its last confirmed renewal was sent: 1 % less than the store keeps it, because
// two clocks never quite agree.
func HeldFor(validity time.Duration) time.Duration { return validity - validity/100 }

// Keep begins to keep the session that r was granted. sent is the moment before the request was
// sent, on a connection that was ready. A repeat of r by the same owner takes the place of the
// earlier one. Keep returns false, and keeps nothing, if the Keeper has been closed. It keeps nothing
// either of a grant that took so long that it cannot be considered held any more: r's listener is told
// before Keep returns, and the core gives the session back and tries again.
func (k *Keeper) Keep(r driver.Request, token uint64, sent time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return false
	}
	if old := k.sessions[r.Owner]; old != nil {
		k.drop(old)
	}
	age := time.Since(sent)
	if age >= HeldFor(k.config.Validity) {
		// Not left to a timer: until that has run, its holder would believe in it.
		r.Hold.Lost(fmt.Errorf("%w: the grant was answered after %s, and the validity is %s", driver.ErrUnavailable, age, k.config.Validity))
		return true
	}
	s := &session{
		holder: driver.Holder{Key: r.Key, Owner: r.Owner, Token: token, Session: true},
		hears:  r.Hold, confirmed: sent,
	}
	k.sessions[r.Owner] = s
	s.end = time.AfterFunc(HeldFor(k.config.Validity)-age, func() { k.expire(s) })
	if age > k.config.Validity/2 { // the next turn may come too late for it
		k.check()
	}
	return true
}

// Forget stops keeping what owner holds. Its listener is told nothing from now on.
func (k *Keeper) Forget(owner driver.Owner) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.sessions[owner]; s != nil {
		k.drop(s)
	}
}

// Lose ends the session of owner, for a backend that hears of a loss before the next
// renewal: its listener is told cause, unless it has been forgotten or lost before.
func (k *Keeper) Lose(owner driver.Owner, cause error) {
	k.mu.Lock()
	s := k.sessions[owner]
	if s == nil || s.over {
		k.mu.Unlock()
		return
	}
	k.stop(s, cause)
	k.mu.Unlock()
	k.tell(s)
}

// Check renews all sessions now rather than at the next turn: after a connection was made
// anew, or when somebody may have deleted them.
func (k *Keeper) Check() { k.check() }

func (k *Keeper) check() {
	select {
	case k.soon <- struct{}{}:
	default:
	}
}

// Len is how many sessions are kept.
func (k *Keeper) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.sessions)
}

// SessionErr is driver.SessionClock's: nil while the session of h may be considered held, or
// is not known here.
func (k *Keeper) SessionErr(h driver.Holder) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch s := k.sessions[h.Owner]; {
	case s == nil:
		return nil
	case s.over:
		return s.cause
	case k.held(s):
		return nil
	}
	return k.silence()
}

// held says whether s may be considered held at this instant. The mutex is held.
func (k *Keeper) held(s *session) bool { return time.Since(s.confirmed) < HeldFor(k.config.Validity) }

// Close forgets all sessions, ends the ctx of a Renew in flight and returns when that has
// returned. It may be called more than once, but not from within Renew.
func (k *Keeper) Close() {
	k.mu.Lock()
	k.closed = true
	for _, s := range k.sessions {
		k.drop(s)
	}
	k.mu.Unlock()
	k.end()
	<-k.done
}

// stop ends s. Until tell has told its listener s stays in the map, so that SessionErr, which may be
// asked in between, says why it ended: were it not known any more, it would pass for held. The
// mutex is held.
func (k *Keeper) stop(s *session, cause error) {
	s.over, s.cause = true, cause
	s.end.Stop()
}

// tell tells the listener of s, which has been stopped, and forgets s. The mutex is not held.
func (k *Keeper) tell(s *session) {
	s.hears.Lost(s.cause)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(s)
}

// drop forgets s. The mutex is held.
func (k *Keeper) drop(s *session) {
	s.over = true
	s.end.Stop()
	if k.sessions[s.holder.Owner] == s {
		delete(k.sessions, s.holder.Owner)
	}
}

// silence is the cause of a session that nobody has confirmed. The mutex is held.
func (k *Keeper) silence() error {
	if k.failed != nil {
		return fmt.Errorf("%w: the session was not renewed within its validity of %s: %w", driver.ErrUnavailable, k.config.Validity, k.failed)
	}
	return fmt.Errorf("%w: the session was not renewed within its validity of %s", driver.ErrUnavailable, k.config.Validity)
}

// expire is what the timer of s calls. It does not ask the store, which may be silent.
func (k *Keeper) expire(s *session) {
	k.mu.Lock()
	if s.over {
		k.mu.Unlock()
		return
	}
	// A timer that fired just before it was put off says nothing.
	if left := HeldFor(k.config.Validity) - time.Since(s.confirmed); left > 0 {
		s.end.Reset(left)
		k.mu.Unlock()
		return
	}
	k.stop(s, k.silence())
	k.mu.Unlock()
	k.tell(s)
}

// turns is how often a session is renewed in each validity: two turns may fail.
const turns = 3

func (k *Keeper) run() {
	defer close(k.done)
	every := k.config.Validity / turns
	next := time.NewTimer(every)
	defer next.Stop()
	var began time.Time // of the turn
	for turn, again := 0, false; ; {
		select {
		case <-k.ctx.Done():
			return
		case <-k.soon:
			again = false
		case <-next.C:
		}
		if !again || time.Since(began) >= every { // not only what the last attempt left
			turn++
			began = time.Now()
		}
		again = !k.turn(turn)
		pause := max(0, every-time.Since(began))
		if again {
			// Often enough for a row that is busy for a moment, seldom enough for a store
			// that is down.
			pause = min(max(k.config.Validity/60, 5*time.Millisecond), 250*time.Millisecond)
		}
		next.Reset(pause)
	}
}

// turn renews what has not been renewed in it yet. false says that something is left.
func (k *Keeper) turn(turn int) bool {
	k.mu.Lock()
	var due []*session
	for _, s := range k.sessions {
		if s.turn < turn {
			due = append(due, s)
		}
	}
	k.mu.Unlock()
	all := true
	for len(due) > 0 && k.ctx.Err() == nil {
		n := len(due)
		if k.config.AtOnce > 0 {
			n = min(n, k.config.AtOnce)
		}
		all = k.renew(due[:n], turn) && all
		due = due[n:]
	}
	return all
}

// renew is one call of Renew. false says that not all of some is settled.
func (k *Keeper) renew(some []*session, turn int) bool {
	k.mu.Lock()
	asked, holders := make([]*session, 0, len(some)), make([]driver.Holder, 0, len(some))
	for _, s := range some {
		if !s.over { // forgotten, perhaps, while others were renewed
			asked, holders = append(asked, s), append(holders, s.holder)
		}
	}
	k.mu.Unlock()
	if len(asked) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(k.ctx, k.config.Validity/turns)
	sent := time.Now()
	outcomes, err := k.config.Renew(ctx, holders)
	cancel()
	if err == nil && len(outcomes) != len(asked) {
		err = fmt.Errorf("keeper: %d sessions were renewed with %d outcomes", len(asked), len(outcomes))
	}

	settled := err == nil
	var gone []*session
	k.mu.Lock()
	if k.ctx.Err() == nil {
		k.failed = err
	}
	if err == nil {
		for i, s := range asked {
			switch {
			case s.over:
				// Released, replaced or given up meanwhile: the outcome is not this session's.
			case outcomes[i] == Gone:
				k.stop(s, driver.ErrLost)
				gone = append(gone, s)
			case !k.held(s):
				// Its time was up before its timer could run. Whoever asked meanwhile was told so, and
				// lets go of it: renewed, it would be kept with no holder until Release, if ever.
				k.stop(s, k.silence())
				gone = append(gone, s)
			case outcomes[i] == Renewed:
				s.turn = turn
				k.confirm(s, sent)
			default:
				settled = false
			}
		}
	}
	k.mu.Unlock()
	for _, s := range gone {
		k.tell(s)
	}
	return settled
}

// confirm notes that the store has renewed s by a request that was sent then. The mutex is held.
func (k *Keeper) confirm(s *session, sent time.Time) {
	if sent.After(s.confirmed) {
		s.confirmed = sent
		s.end.Reset(HeldFor(k.config.Validity) - time.Since(sent))
	}
}
