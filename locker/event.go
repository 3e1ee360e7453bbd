package locker

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Observer is told what happens to a Locker's holds, so that metrics and traces can
// be attached without this package depending on any. Observe is called outside of
// all of this package's mutexes, by the goroutine that made the call; for
// EventLost by a goroutine of its own, in order. A slow Observer slows its caller.
//
// Each hold has one EventAcquired and, later, one EventReleased or EventLost. Observe
// may be called by several goroutines at the same time. It must not call Close, which
// waits for it.
type Observer interface {
	Observe(ctx context.Context, e Event)
}

// ObserverFunc makes an Observer of a function.
type ObserverFunc func(ctx context.Context, e Event)

// Observe calls f, unless it is nil.
func (f ObserverFunc) Observe(ctx context.Context, e Event) {
	if f != nil {
		f(ctx, e)
	}
}

// EventKind says what happened.
type EventKind uint8

//go:generate go tool stringer -type=EventKind -trimprefix=Event
const (
	_             EventKind = iota
	EventAcquired           // a hold was granted; Waited is what it took since the call
	EventWaited             // a Lock met contention or an outage and gave up after Waited; Err says why
	EventExtended           // an Extend ended; Err is nil if it succeeded
	EventReleased           // Unlock or Close ended a hold; Err is nil if the release is confirmed, Reason is ReasonClosed after Close
	EventLost               // a hold ended that nobody unlocked; Reason and Err say why
)

// Event is one happening. It holds no secret; Key is anybody's bytes.
type Event struct {
	Kind    EventKind
	Backend string
	Key     string
	Token   uint64 // 0 when nothing was granted
	Session bool
	TTL     time.Duration // of Acquired and Extended; 0 for a session
	Waited  time.Duration
	Reason  Reason
	Err     error
}

// observed says whether anybody listens, so that the silent case pays nothing.
func (l *Locker) observed() bool { return l.observer != nil || l.logger != nil }

func (l *Locker) emit(ctx context.Context, e Event) {
	e.Backend = l.caps.Name
	if l.observer != nil {
		l.observer.Observe(ctx, e)
	}
	if l.logger == nil {
		return
	}
	level := slog.LevelDebug
	if e.Kind == EventLost || e.Err != nil && e.Kind != EventWaited {
		level = slog.LevelWarn
	}
	if !l.logger.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 8)
	attrs = append(attrs, slog.String("backend", e.Backend), slog.String("key", quote(e.Key)))
	if e.Token != 0 {
		attrs = append(attrs, slog.Uint64("token", e.Token), slog.Bool("session", e.Session))
	}
	if e.TTL != 0 {
		attrs = append(attrs, slog.Duration("ttl", e.TTL))
	}
	if e.Waited != 0 {
		attrs = append(attrs, slog.Duration("waited", e.Waited))
	}
	if e.Reason != 0 {
		attrs = append(attrs, slog.String("reason", e.Reason.String()))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	l.logger.LogAttrs(ctx, level, "lock "+messages[e.Kind], attrs...)
}

var messages = [...]string{
	EventAcquired: "acquired", EventWaited: "waited in vain", EventExtended: "extended",
	EventReleased: "released", EventLost: "lost",
}

// losses hands EventLost to the observer outside of the backend's call of
// Listener.Lost, which may come under a shard's mutex and for a million holds at
// once: one goroutine while there is something to tell, none otherwise.
type losses struct {
	mu      sync.Mutex
	queue   []Event
	running bool
}

func (l *Locker) emitLost(e Event) {
	q := &l.losses
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.running {
		if !l.background.enter() {
			return
		}
		q.running = true
		go l.drainLosses()
	}
	q.queue = append(q.queue, e)
}

func (l *Locker) drainLosses() {
	defer l.background.leave()
	q := &l.losses
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
