package locker

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Observer is told of a Locker's events, for metrics and traces. Observe is called by the
// goroutine that made the call that the event is about; for EventLost, EventOutage and
// EventRecovered by a goroutine of the Locker, in order. No mutex of this package is held. A
// slow Observer slows its caller.
//
// Each hold has one EventAcquired and, later, one EventReleased or EventLost. Each EventWaiting
// is followed by one EventAcquired with Queued set, or by one EventGaveUp. Observe may be called
// by several goroutines at the same time. It must not call Close, which waits for it.
//
// Observe must not panic. In a goroutine of the Locker a panic ends the program; in a call it goes
// through that call: a Lock that panics so has its hold already, which nobody can unlock then, so that
// it lasts until its ttl or Close.
type Observer interface {
	Observe(ctx context.Context, e Event)
}

// ObserverFunc is a function that is an Observer.
type ObserverFunc func(ctx context.Context, e Event)

// Observe calls f, unless it is nil.
func (f ObserverFunc) Observe(ctx context.Context, e Event) {
	if f != nil {
		f(ctx, e)
	}
}

// EventKind is what an Event is about.
type EventKind uint8

//go:generate go tool stringer -type=EventKind -trimprefix=Event
const (
	_ EventKind = iota
	// EventAcquired says that a hold was granted; Waited is the time since the call.
	EventAcquired
	// EventWaiting says that a Lock begins to wait; Err says what for, such as ErrHeld.
	EventWaiting
	// EventGaveUp says that a Lock which waited gave up after Waited; Err says why.
	EventGaveUp
	// EventRefused says that a TryLock, or a Lock that does not wait (NoRetry), got no hold; Err
	// says why.
	EventRefused
	// EventExtended says that an Extend, or an extension by WithKeepAlive, has ended; Err is nil if
	// it succeeded.
	EventExtended
	// EventReleased says that Unlock, Close or Leave ended a hold; Err is nil if the release is
	// confirmed. Reason is ReasonClosed after Close, and ReasonLeft after Leave. Held is how long it
	// was held.
	EventReleased
	// EventLost says that a hold ended without being unlocked; Reason and Err say why. Held is how
	// long it was held.
	EventLost
	// EventOutage says that the backend does not answer the waiters of Key, or refuses; Err is
	// what it said. They go on waiting. There is one for each outage, however many wait.
	EventOutage
	// EventRecovered says that the outage is over, or, if Err is not nil, that nobody waits for Key any
	// more: whether it is over is not known then, and Err is the EventOutage's, or a later one.
	EventRecovered
)

// Event is one thing that happened. It holds no secret. Key may hold any bytes.
type Event struct {
	Kind    EventKind
	Backend string
	Key     string // with its namespace
	Label   string // of WithLabel and of a Family; for metrics, in place of Key
	Token   uint64 // 0 when nothing was granted
	Session bool
	TTL     time.Duration // of Acquired, Waiting, Extended, and Released by Leave; 0 for a session
	Waited  time.Duration // since the call, of Acquired, GaveUp and Refused
	Held    time.Duration // since the grant, of Released and Lost
	Queued  bool          // of Acquired: an EventWaiting came before
	Reason  Reason        // why the hold ended, of Released and Lost
	Err     error         // as Kind says; nil where nothing went wrong
}

// observed reports whether there is an Observer or a Logger, so that a Locker without pays nothing.
func (l *core) observed() bool { return l.observer != nil || l.logger != nil }

func (l *core) emit(ctx context.Context, e Event) {
	e.Backend = l.caps.Name
	if l.observer != nil {
		l.observer.Observe(ctx, e)
	}
	if l.logger == nil {
		return
	}
	level := e.level()
	if !l.logger.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 9)
	attrs = append(attrs, slog.String("backend", e.Backend), slog.String("key", quote(e.Key)))
	if e.Label != "" {
		attrs = append(attrs, slog.String("label", quote(e.Label)))
	}
	if e.Token != 0 {
		attrs = append(attrs, slog.Uint64("token", e.Token), slog.Bool("session", e.Session))
	}
	for _, d := range [...]struct {
		name string
		d    time.Duration
	}{{"ttl", e.TTL}, {"waited", e.Waited}, {"held", e.Held}} {
		if d.d != 0 {
			attrs = append(attrs, slog.Duration(d.name, d.d))
		}
	}
	if e.Reason != noReason {
		attrs = append(attrs, slog.String("reason", e.Reason.String()))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	l.logger.LogAttrs(ctx, level, e.message(), attrs...)
}

// level is Warn for what somebody may have to look into.
func (e *Event) level() slog.Level {
	switch e.Kind {
	case EventLost, EventOutage, EventRecovered:
		return slog.LevelWarn
	case EventExtended, EventReleased:
		if e.Err != nil {
			return slog.LevelWarn
		}
	}
	return slog.LevelDebug
}

// messages are what the log says of an event, and of one that failed.
var messages = [...][2]string{
	EventAcquired:  {"lock acquired"},
	EventWaiting:   {"lock waiting", "lock waiting"},
	EventGaveUp:    {"", "lock given up"},
	EventRefused:   {"", "lock not acquired"},
	EventExtended:  {"lock extended", "lock extend failed"},
	EventReleased:  {"lock released", "lock release failed"},
	EventLost:      {"", "lock lost"},
	EventOutage:    {"", "lock waiting through an outage"},
	EventRecovered: {"lock outage over", "lock outage not waited for any more"},
}

func (e *Event) message() string {
	if e.Err != nil {
		return messages[e.Kind][1]
	}
	return messages[e.Kind][0]
}

// tellLock emits what came of a Lock or TryLock, which is err.
func (l *core) tellLock(ctx context.Context, key string, set *settings, s *Lease, waited bool, took time.Duration, err error) {
	e := Event{Key: key, Label: set.label, Session: set.ttl == 0, TTL: set.ttl, Waited: took, Err: err}
	switch {
	case err == nil:
		e.Kind, e.Token, e.Queued = EventAcquired, s.token, waited
	case waited:
		e.Kind = EventGaveUp
	default:
		e.Kind = EventRefused
	}
	l.emit(ctx, e)
	if err == nil {
		s.told()
	}
}

// tellOutage emits EventOutage when one begins, and EventRecovered when it ends. It may be
// called under any of this package's mutexes.
func (l *core) tellOutage(key string, begins bool, err error) {
	if !l.observed() {
		return
	}
	if begins {
		l.emitLater(Event{Kind: EventOutage, Key: key, Err: l.fail("lock", key, CodeUnavailable, err)})
	} else {
		l.emitLater(Event{Kind: EventRecovered, Key: key})
	}
}

// tellUnwatched emits the EventRecovered of an outage whose last waiter has left. Without one, whoever
// counts outages would count this one for ever.
func (l *core) tellUnwatched(key string, err error) {
	if l.observed() {
		l.emitLater(Event{Kind: EventRecovered, Key: key, Err: l.fail("lock", key, CodeUnavailable, err)})
	}
}

func (s *Lease) tellLossLocked() {
	if !s.l.observed() {
		return
	}
	e := Event{Kind: EventLost, Key: s.key, Label: s.seldom().label, Token: s.token, Session: s.session,
		Held: s.l.now() - s.seldom().since, Reason: s.reason, Err: s.endedLocked("hold")}
	if s.announced {
		s.l.emitLater(e)
	} else {
		s.own().ending = &e
	}
}

// tellRelease emits EventReleased, with mu not held.
func (s *Lease) tellRelease(ctx context.Context, r Reason, err error) {
	s.tellEnd(ctx, Event{Kind: EventReleased, Reason: r, Err: err})
}

// tellEnd emits the end e, which this call brought about, with mu not held.
func (s *Lease) tellEnd(ctx context.Context, e Event) {
	if !s.l.observed() {
		return
	}
	s.mu.Lock()
	e.Key, e.Label, e.Token, e.Session = s.key, s.seldom().label, s.token, s.session
	e.Held = s.l.now() - s.seldom().since
	first := !s.announced
	if first {
		later := e // so that e itself need not escape
		s.own().ending = &later
	}
	s.mu.Unlock()
	if !first {
		s.l.emit(ctx, e)
	}
}

// told makes up for an end that came before EventAcquired was told, so that the two
// are told in order.
func (s *Lease) told() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.announced = true
	if x := s.extra; x != nil && x.ending != nil {
		s.l.emitLater(*x.ending)
		x.ending = nil
	}
}

// notices are events for which there is no caller's goroutine: a loss, say, may be reported
// under a shard's mutex and for a million holds at once. One goroutine tells them while there
// is something to tell, none otherwise.
type notices struct {
	mu      sync.Mutex
	queue   []Event
	running bool
}

func (l *core) emitLater(e Event) {
	q := &l.notices
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.running {
		if !l.background.enter() {
			return
		}
		q.running = true
		go l.tellNotices()
	}
	q.queue = append(q.queue, e)
}

func (l *core) tellNotices() {
	defer l.background.leave()
	q := &l.notices
	for {
		q.mu.Lock()
		batch := q.queue
		q.queue = nil
		q.running = len(batch) > 0
		q.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for _, e := range batch {
			l.emit(context.Background(), e)
		}
	}
}
