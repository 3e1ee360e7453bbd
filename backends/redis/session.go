package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// Sessions are rueidislock's: it owns the goroutine that renews a key three times within
// its validity, and hears of its loss. What it sends, though, cannot keep the contract:
//
//   - it names the expiry by the client's wall clock, so that two machines whose clocks
//     disagree by more than the validity both hold;
//   - it believes in a renewal from before the server has confirmed it, and ends a session
//     at the first one that fails;
//   - its lock's value is drawn anew for each attempt, so that after a lost reply it is
//     locked out by its own key;
//   - it cannot mint a token in the step that acquires.
//
// All of that passes through one seam, the rueidis.Client that it is given. sessionClient
// stands there and sends our own scripts in place of rueidislock's: the same acquire.lua
// as for leases, and extend.lua with a duration. What belongs to which session it sees from
// the ctx, which rueidislock passes through. docs/adr/0003-sessions.md has the measurements.

// session is one session, from its attempt on. It is the value of its ctx.
type session struct {
	b     *backend
	key   string
	lock  string
	owner string
	value string // of the lock: the owner, and what it says of itself
	hears driver.Listener

	ask    context.Context // the caller's, during the attempt only
	queued bool            // it is the attempt of a Lock that waits

	mu        sync.Mutex
	phase     phase
	granted   uint64
	err       error // why the attempt failed
	confirmed time.Time
	counted   time.Time // see counted; zero until the first renewal
	answer    error     // to the renewals since then, none of which was carried out
	timer     *time.Timer
	cause     error              // why it ended, while its listener may not have been told yet
	stop      context.CancelFunc // ends rueidislock's part
}

type phase uint8

const (
	asking phase = iota
	holding
	over
)

type sessionKey struct{}

// sessionClient is the client that rueidislock is given.
type sessionClient struct{ rueidis.Client }

// Do carries out a session's next step instead of rueidislock's command.
func (c *sessionClient) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	s, ok := ctx.Value(sessionKey{}).(*session)
	if !ok {
		// Its clean-up, the only thing that it sends with a ctx of its own: deletes the key
		// if it has the value drawn by rueidislock, which no key of ours has. Release does
		// that work; answering here keeps a Redis that hangs from blocking the caller.
		return rueidis.NewErrorResult(errNotSent)
	}
	s.mu.Lock()
	phase := s.phase
	s.mu.Unlock()
	switch phase {
	case asking:
		return s.acquire()
	case holding:
		return s.renew(ctx)
	}
	return rueidis.NewErrorResult(context.Canceled)
}

var errNotSent = errors.New("not sent: the backend releases its sessions itself")

// sessions are the ones of this client, by lock.
type sessions struct {
	mu    sync.Mutex
	holds map[string]*session
	turns map[string]*turn
}

// turn lets one attempt at a lock go on at a time: of two, rueidislock can lose the gate
// that its waiters and its holder share.
type turn struct {
	free chan struct{} // holds one value while nobody has the turn
	n    int           // who has it or waits for it
}

func (ss *sessions) take(ctx context.Context, lock string) error {
	ss.mu.Lock()
	t := ss.turns[lock]
	if t == nil {
		t = &turn{free: make(chan struct{}, 1)}
		t.free <- struct{}{}
		if ss.turns == nil {
			ss.turns, ss.holds = make(map[string]*turn), make(map[string]*session)
		}
		ss.turns[lock] = t
	}
	t.n++
	ss.mu.Unlock()
	select {
	case <-t.free:
		return nil
	case <-ctx.Done():
		ss.give(lock, false)
		return ctx.Err()
	}
}

func (ss *sessions) give(lock string, had bool) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	t := ss.turns[lock]
	if had {
		t.free <- struct{}{}
	}
	if t.n--; t.n == 0 {
		delete(ss.turns, lock)
	}
}

func (ss *sessions) get(lock string) *session {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.holds[lock]
}

func (ss *sessions) put(s *session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.holds[s.lock] = s
}

func (ss *sessions) drop(s *session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.holds[s.lock] == s {
		delete(ss.holds, s.lock)
	}
}

// release stops the renewing, whatever comes of the release itself.
func (ss *sessions) release(lock, owner string) {
	if s := ss.get(lock); s != nil && s.owner == owner {
		s.finish(nil)
	}
}

// supersede ends a session that is older than the grant with token.
func (ss *sessions) supersede(lock, owner string, token uint64) {
	if s := ss.get(lock); s != nil && s.owner != owner && s.granted < token {
		s.finish(driver.ErrLost)
	}
}

func (ss *sessions) endAll() {
	ss.mu.Lock()
	all := make([]*session, 0, len(ss.holds))
	for _, s := range ss.holds {
		all = append(all, s)
	}
	ss.mu.Unlock()
	for _, s := range all {
		s.finish(driver.ErrClosed)
	}
}

func (b *backend) acquireSession(ctx context.Context, r driver.Request, queued bool) (driver.Grant, error) {
	s := &session{b: b, key: r.Key, lock: b.layout.lockKey(r.Key), hears: r.Hold, ask: ctx, queued: queued}
	s.value, s.owner = lockValue(&r)
	if err := b.sessions.take(ctx, s.lock); err != nil {
		return driver.Grant{}, fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
	}
	defer b.sessions.give(s.lock, true)

	if held := b.sessions.get(s.lock); held != nil {
		// Not rueidislock: of two attempts at one lock it can lose one's gate. And not from
		// memory: it may have been deleted or broken a moment ago.
		switch stands, err := held.check(ctx); {
		case err != nil:
			return driver.Grant{}, err
		case !stands:
			held.finish(b.whyLost(ctx, held.lock, held.owner))
		case held.owner != s.owner:
			return driver.Grant{}, held.heldFor()
		case held.adopt(r.Hold):
			return driver.Grant{Token: held.granted}, nil
		default:
			held.finish(held.silence()) // to the server what follows is a repeat
		}
	}

	return b.start(ctx, s)
}

// start has rueidislock begin s. Its turn is taken.
func (b *backend) start(ctx context.Context, s *session) (driver.Grant, error) {
	life, stop := context.WithCancel(context.WithValue(context.Background(), sessionKey{}, s))
	s.stop = stop
	_, _, err := b.lock.TryWithContext(life, b.layout.lockName(s.key))
	s.ask = nil
	if err != nil {
		stop()
		return driver.Grant{}, s.failure(ctx, err)
	}
	b.sessions.put(s)
	b.supersede(s.lock, s.owner, s.granted)
	if err := s.begin(); err != nil {
		return driver.Grant{}, err
	}
	s.mu.Lock()
	late, left := s.late(s.confirmed), time.Until(s.believed())
	s.mu.Unlock()
	if late && left > 0 {
		go s.renew(life)
	}
	return driver.Grant{Token: s.granted}, nil
}

// acquire is the attempt. rueidislock needs to know only whether it succeeded: an error,
// nil for "held by others", or anything else for success.
func (s *session) acquire() rueidis.RedisResult {
	s.mu.Lock()
	granted := s.granted > 0
	if granted {
		s.phase = holding
	}
	s.mu.Unlock()
	if granted { // in one step with others
		return rueidis.NewResult(rueidis.RedisMessage{}, nil)
	}
	sent := time.Now()
	token, err := s.b.acquire(s.ask, wish{s.key, s.lock, s.value, s.owner, s.b.cfg.Validity}, s.queued)
	s.b.unknowns.note(s.owner, err, lateness*time.Second+s.b.cfg.Timeout)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	switch {
	case errors.Is(err, driver.ErrHeld):
		return rueidis.NewErrorResult(rueidis.Nil)
	case err != nil:
		return rueidis.NewErrorResult(err)
	}
	s.granted, s.confirmed, s.phase = token, sent, holding
	return rueidis.NewResult(rueidis.RedisMessage{}, nil)
}

// failure is the error of an attempt that rueidislock reports as failed.
func (s *session) failure(ctx context.Context, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = over
	if s.err != nil {
		return s.err
	}
	// It was granted, but so late that rueidislock had given up, or rueidislock was closed.
	// The core takes it back, because the outcome is unknown to it.
	return s.b.classify(ctx, err)
}

// begin starts the guard: the session ends when no renewal has been confirmed for so long
// that the key may be somebody else's (LOSS-001). It lasts from the moment before the
// last confirmed command was sent, less the drift allowance.
func (s *session) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == over { // lost before it was put among the holds
		s.b.sessions.drop(s)
		return fmt.Errorf("the session was lost as soon as it was granted: %w", s.cause)
	}
	s.timer = time.AfterFunc(time.Until(s.believed()), s.onSilence)
	return nil
}

// driftFactor is how much faster than ours the server's clock may run.
const driftFactor = 0.01

// late says that what was sent then took so long that rueidislock's timer, which begins with the answer, may
// come too late: the next renewal may take as long again.
func (s *session) late(sent time.Time) bool { return time.Since(sent) >= s.b.cfg.Validity/renewals/2 }

func (s *session) believed() time.Time {
	v := s.b.cfg.Validity
	return s.confirmed.Add(v - time.Duration(float64(v)*driftFactor))
}

// confirm notes that the server has carried out what was sent then, and moves the guard:
// left alone, it would start a goroutine once in a validity to find that nothing is amiss. It
// says whether the session goes on. When the answer came after its time was up, though the guard
// has not run yet, whoever asked meanwhile was told that it is over, and lets go of it: it would
// be renewed with no holder until Release, if ever.
func (s *session) confirm(sent time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == over || !time.Now().Before(s.believed()) {
		return false
	}
	s.confirmed, s.answer = sent, nil
	if s.timer != nil {
		s.timer.Reset(time.Until(s.believed()))
	}
	return true
}

func (s *session) onSilence() {
	s.mu.Lock()
	left := time.Until(s.believed())
	if s.phase == holding && left > 0 {
		s.timer.Reset(left)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.finish(s.silence())
}

// silence is the cause of a session that ends without the server's having said so.
func (s *session) silence() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answer == nil {
		return fmt.Errorf("%w: no renewal was confirmed for %s", driver.ErrUnavailable, s.b.cfg.Validity)
	}
	// Its text only: it is a reason, and matches whatever it may.
	return fmt.Errorf("%w: no renewal was confirmed for %s; the last answer was: %s", driver.ErrUnavailable, s.b.cfg.Validity, lastWords(s.answer))
}

// lastWords is what the server or the network said, without what we make of it.
func lastWords(err error) string {
	text := err.Error()
	for _, sentinel := range []error{driver.ErrUnavailable, driver.ErrRefused, driver.ErrWrongPeer} {
		text = strings.TrimPrefix(text, sentinel.Error()+": ")
	}
	return text
}

// SessionErr implements driver.SessionClock.
func (b *backend) SessionErr(h driver.Holder) error {
	s := b.sessions.get(b.layout.lockKey(h.Key))
	if s == nil || s.owner != ownerValue(h.Owner, true) {
		return nil
	}
	s.mu.Lock()
	cause := s.cause // nil of one that was released
	held := s.phase != holding || time.Now().Before(s.believed())
	s.mu.Unlock()
	if held {
		return cause
	}
	return s.silence()
}

// renew answers both of rueidislock's reasons to ask: its timer, and an announcement that
// the key was changed. It goes on trying until the session cannot be believed in any more:
// one broken connection does not end it. The guard then ends ctx too, so that a call needs no
// deadline of its own, which would cost more than all else that is done here.
func (s *session) renew(ctx context.Context) rueidis.RedisResult {
	for pause := leastPause; ; pause = min(2*pause, max(leastPause, s.b.cfg.Validity/20)) {
		s.mu.Lock()
		sent := time.Now()
		recent := sent.Sub(s.confirmed) < s.b.cfg.Validity/renewals/2
		until := s.believed()
		prolongs := !recent && sent.Add(s.b.cfg.Validity).After(s.counted)
		s.mu.Unlock()

		var reply rueidis.RedisResult
		call := patient{ctx}
		if recent {
			// Not the timer. A look is enough, and is not announced to ourselves, as a write
			// would be where the server knows no NOLOOP: it would be answered by the next.
			reply = checkScript.Exec(call, s.b.client, []string{s.lock}, []string{s.owner})
		} else {
			args := []string{s.owner, s.b.validity}
			if prolongs {
				args = append(args, s.b.layout.tokenKey(s.key), counterLife(s.b.cfg.Validity))
			}
			reply = extendScript.Exec(call, s.b.client, []string{s.lock}, args)
		}
		n, err := s.b.number(ctx, s.key, reply, 0, 1)
		switch {
		case err == nil && n == 1:
			goesOn := recent || s.confirm(sent)
			if !goesOn {
				s.finish(s.silence())
			}
			if prolongs {
				s.mu.Lock()
				s.counted = counted(sent, s.b.cfg.Validity)
				s.mu.Unlock()
			}
			if goesOn && s.late(sent) {
				continue
			}
			return reply
		case ctx.Err() != nil:
			return reply
		case err == nil:
			s.finish(s.b.whyLost(ctx, s.lock, s.owner))
			return reply
		}
		s.failed(err)
		next := untilNext(pause, time.Until(until), rand.Float64())
		if next <= 0 {
			return reply
		}
		wait := time.NewTimer(next)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
	}
}

// patient is the ctx of a renewal: when the session ends, what was not sent is not sent any more, and what was is
// waited for. To leave it would cost the connection its trust (seam.go), as often as a session is released while it is being renewed,
// and the renewals of all others would then wait for a worker.
type patient struct{ context.Context }

// Done implements context.Context.
func (patient) Done() <-chan struct{} { return nil }

// leastPause is between two attempts at a renewal, and between the last one and the session's end.
const leastPause = 50 * time.Millisecond

// untilNext is how long a renewal that failed waits for its next attempt; none is left if that is not above 0. A
// server that refuses is asked by all sessions, ever more rarely and not all at a time; but whatever
// the pause, there is a last attempt just before the end.
func untilNext(pause, left time.Duration, jitter float64) time.Duration {
	return min(pause-time.Duration(jitter*float64(pause/2)), left-leastPause)
}

func (s *session) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = err
}

// check asks the server whether the session still stands.
func (s *session) check(ctx context.Context) (bool, error) {
	n, err := s.b.number(ctx, s.key, checkScript.Exec(ctx, s.b.client, []string{s.lock}, []string{s.owner}), 0, 1)
	return n == 1, err
}

// heldFor is the ErrHeld of an attempt that met the session: it tells what is left of its validity, if
// that is known, counted from before the last confirmed command was sent, and so never more than the
// server has (TTL-005).
func (s *session) heldFor() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if left := s.b.cfg.Validity - time.Since(s.confirmed); left > 0 {
		return driver.Held(left)
	}
	return driver.ErrHeld
}

// adopt makes hears the listener from now on, unless the session is over, or its time is up although
// the guard has not run yet.
func (s *session) adopt(hears driver.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != holding || !time.Now().Before(s.believed()) {
		return false
	}
	s.hears = hears
	return true
}

// finish ends the session once, and tells its listener unless cause is nil. Until that has been told,
// the session stays among the holds, so that SessionErr, which may be asked in between, says why it
// ended: were it not known any more, it would pass for held.
func (s *session) finish(cause error) {
	s.mu.Lock()
	if s.phase == over {
		s.mu.Unlock()
		return
	}
	s.phase, s.cause = over, cause
	if s.timer != nil {
		s.timer.Stop()
	}
	hears := s.hears
	s.mu.Unlock()
	s.stop()
	if cause != nil {
		hears.Lost(cause)
	}
	s.b.sessions.drop(s)
}
