package locker

import (
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// phase is where a hold stands.
//
//	asking ───────────────┐
//	  │                   │
//	holding ── lapsed ──▶ over
//	  │                   ▲
//	releasing ────────────┘
//	  ⇅
//	unconfirmed
//
// A hold has a Reason from the moment at which it leaves asking or holding, and keeps it. Leave
// goes from holding to over: nothing is left to be done, because nobody may release it. A kept
// lease that reaches its cap, or makes no progress, goes to lapsed: the backend holds it until its
// time is up, so that its holder can stop unmolested, and Unlock frees the remaining time.
type phase uint8

const (
	asking      phase = iota // its Lock is under way; the backend may have granted it already
	holding                  // granted, and considered held
	releasing                // Unlock ended it and awaits the backend's answer
	unconfirmed              // … which did not come: Unlock may be called again (REL-005)
	lapsed                   // over for this process, but perhaps not yet for the backend
	over                     // nothing is left to be done
)

// transitions are those that exist, by the phase that they leave.
var transitions = [...][]phase{
	asking:      {holding, over},
	holding:     {releasing, lapsed, over},
	releasing:   {unconfirmed, over},
	unconfirmed: {releasing},
	lapsed:      {over},
	over:        {},
}

// toLocked is the one place where a phase changes. Tests with the race detector fail on a
// transition that is not in the table.
func (s *Lease) toLocked(p phase) {
	if checked && !allowed(s.phase, p) {
		panic(fmt.Sprintf("locker: a hold went from phase %d to %d", s.phase, p))
	}
	s.phase = p
}

func allowed(from, to phase) bool {
	for _, p := range transitions[from] {
		if p == to {
			return true
		}
	}
	return false
}

// endLocked is the one place where a hold ends, or where one ends that was never told of
// because its Lock is still under way.
func (s *Lease) endLocked(r Reason, cause error) {
	was := s.phase
	s.reason = r
	if cause != nil && r != ReasonExpired {
		s.own().cause = cause
	}
	s.toLocked(s.afterLocked(r))
	if x := s.extra; x != nil {
		if x.timer != nil {
			x.timer.Stop()
		}
		if x.kept != nil {
			s.l.keeper.remove(x.kept)
		}
		if x.done != nil {
			close(x.done)
		}
		if len(x.onEnd) > 0 {
			err := s.endedLocked("hold")
			for w := range x.onEnd {
				w.cancel(err)
			}
			x.onEnd = nil
		}
	}
	if was == asking {
		return
	}
	if s.l.hand == nil {
		s.l.live.remove(s)
	}
	if !r.chosen() {
		s.tellLossLocked()
	}
}

// chosen says that the program ended the hold, rather than its time or the backend.
func (r Reason) chosen() bool {
	return r == ReasonReleased || r == ReasonClosed || r == ReasonLeft
}

// runsOut says that the hold ended here before its time, and that its remaining time belongs to
// a holder who is still stopping, or to nobody: the core must not free it by itself.
func (s *Lease) runsOut() bool {
	return s.reason == ReasonCapped || s.reason == ReasonStalled || s.reason == ReasonLeft || s.seldom().lingers
}

// afterLocked is the phase in which the reason r leaves the hold.
func (s *Lease) afterLocked(r Reason) phase {
	switch {
	case s.phase == asking: // its Lock finds it, and gives it back
		return over
	case r == ReasonReleased && s.l.hand == nil:
		return releasing
	case r == ReasonCapped, r == ReasonStalled, s.seldom().lingers:
		return lapsed
	case r == ReasonExpired && (s.seldom().doubtful || s.l.keepsTime(s)), r == ReasonUnreachable:
		return lapsed
	}
	return over
}

// extra is what few leases in one process need, and most of those in a store elsewhere.
type extra struct {
	drift float64     // the share of the ttl by which deadline is early; 0 for the default
	timer *time.Timer // ends the hold at the deadline, where the backend does not
	cause error       // what the backend said of the loss
	done  chan struct{}
	onEnd map[*watch]struct{}

	since   time.Duration // when it was granted, where somebody observes
	late    time.Duration // the smallest ttl of requests that may yet reach the store; 0 for none
	longest time.Duration // the longest of those
	// doubtful says that the deadline may be earlier than the backend's: an Extend had an
	// unknown outcome.
	doubtful bool
	ending   *Event        // the hold's end, which came before EventAcquired was told
	turned   chan struct{} // closed when an operation that goes one at a time has ended
	kept     *kept         // of a lease that is kept
	label    string        // of its events
	lingers  bool          // it ended because another of its Leases did: its holder is still stopping
}

// nothing is the extra of a lease that has none, to be read only.
var nothing extra

// seldom is s.extra to read.
func (s *Lease) seldom() *extra {
	if s.extra == nil {
		return &nothing
	}
	return s.extra
}

// own is s.extra to write.
func (s *Lease) own() *extra {
	if s.extra == nil {
		s.extra = new(extra)
	}
	return s.extra
}

func (s *Lease) holder() driver.Holder {
	return driver.Holder{Key: s.key, Owner: s.owner(), Token: s.token, Session: s.session}
}

func (s *Lease) owner() driver.Owner { return driver.Owner{Instance: s.l.instance, Seq: s.seq} }

// listener is the side of a Lease that the backend sees.
type listener Lease

// Lost implements driver.Listener.
func (n *listener) Lost(cause error) {
	s := (*Lease)(n)
	s.mu.Lock()
	was := s.phase
	s.lostLocked(cause)
	s.mu.Unlock()
	if was == holding && s.l.queues != nil {
		s.l.queues.lost(s)
	}
}

func (s *Lease) lostLocked(cause error) {
	if s.reason == noReason {
		s.endLocked(reasonOf(cause), cause)
	}
}

// checkDeadlineLocked ends a hold whose time is up, whether or not a timer has noticed.
func (s *Lease) checkDeadlineLocked() {
	if s.phase == holding && !s.session {
		s.checkDeadlineAtLocked(s.l.now())
	}
}

func (s *Lease) checkDeadlineAtLocked(now time.Duration) {
	if s.phase == holding && !s.session && now >= s.deadline {
		s.endLocked(s.whyOverLocked(now), nil)
	}
}

// whyOverLocked is why the deadline has come. A kept lease reaches it where the keeper's timer
// came too late, on a machine that stood still, to say what ended it.
func (s *Lease) whyOverLocked(now time.Duration) Reason {
	switch k := s.seldom().kept; {
	case k == nil || k.ended:
		return ReasonExpired
	case k.cap > 0 && now >= k.cap:
		return ReasonCapped
	case k.asking || k.stalls:
		return ReasonStalled
	}
	return ReasonExpired
}

// endedLocked is the error of an operation on a hold that has ended.
func (s *Lease) endedLocked(op string) error {
	e := endings[s.reason]
	err, cause := e.err, s.seldom().cause
	switch {
	case s.reason == ReasonExpired:
		err = s.expiredLocked()
	case cause == nil:
	case s.reason == ReasonUnreachable:
		// Not ErrUnavailable, which would say that the hold goes on (ERR-002).
		err = errors.New(cause.Error())
	default:
		err = cause
	}
	return &Error{Op: op, Key: s.key, Backend: s.l.caps.Name, Code: e.code, Reason: s.reason, Err: err}
}

// expiredLocked matches ErrExpired, and says how long ago the deadline was, unless it was just
// now.
func (s *Lease) expiredLocked() error {
	const worthSaying = 10 * time.Millisecond
	if ago := s.l.now() - s.deadline; !s.session && ago >= worthSaying {
		return &wording{fmt.Sprintf("the lease expired %s ago", round(ago)), driver.ErrExpired}
	}
	return &wording{"the lease expired", driver.ErrExpired}
}

// round keeps the digits of a duration that somebody reads.
func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}

func (s *Lease) fail(op string, code Code, err error) error {
	return &Error{Op: op, Key: s.key, Backend: s.l.caps.Name, Code: code, Err: err}
}

// setDeadlineLocked does nothing for a session, which has none.
func (s *Lease) setDeadlineLocked(d time.Duration) {
	if s.session {
		return
	}
	s.deadline = d
	if s.extra == nil {
		return // the backend keeps the time
	}
	if s.extra.doubtful || s.l.keepsTime(s) {
		if left, x := d-s.l.now(), s.extra; x.timer == nil {
			x.timer = time.AfterFunc(left, s.onTimer)
		} else {
			x.timer.Reset(left)
		}
	}
}

func (s *Lease) onTimer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkDeadlineLocked() // not yet, if an Extend came between
}

// mayComeLateLocked notes a request whose outcome is unknown. What a client wrote on a
// connection that then broke can reach the store after what it sent on the next one, and would
// then make the hold end ttl from that moment.
func (s *Lease) mayComeLateLocked(ttl time.Duration) {
	x := s.own()
	if x.late == 0 || ttl < x.late {
		x.late = ttl
	}
	x.longest = max(x.longest, ttl)
}

// consideredLocked is how much of a granted ttl the hold may be considered held: no more than
// what a late request would leave of it, at whatever moment it came.
func (s *Lease) consideredLocked(ttl time.Duration) time.Duration {
	if late := s.seldom().late; late > 0 {
		return min(ttl, late)
	}
	return ttl
}

// leftLocked is how long the backend may still hold the key for us: for the longest that was
// ever asked for, if it is not known what the backend made of that.
func (s *Lease) leftLocked() time.Duration {
	left := s.l.caps.SessionValidity
	if !s.session {
		left = s.deadline - s.l.now()
	}
	return max(left, s.seldom().longest)
}

// mayBeChangedLocked says whether a request for s may yet reach the store. It would meet the
// hold of the owner that s is handed to, under the same name: such a hold is released instead.
func (s *Lease) mayBeChangedLocked() bool {
	return s.seldom().doubtful || s.seldom().late > 0 || s.extending
}
