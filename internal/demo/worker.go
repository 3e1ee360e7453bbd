package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// A worker is one of those who want the lock.
type worker struct {
	number int
	client string // that it is one of
	key    string // without its namespace
	locker *locker.Locker
	open   func(context.Context) (*locker.Locker, error) // another Locker on the same store
	admin  *administrator
	stage  *stage
	clock  clock
}

func (w *worker) name() string { return fmt.Sprintf("w%d", w.number) }

// holding is a hold and what has to be remembered of it for the check.
type holding struct {
	lease        *locker.Lease
	from, waited time.Duration
}

// lock waits for the lock. LockNS puts the configuration's namespace before the key;
// the option says whether a lease or a session is wanted.
func (w *worker) lock(ctx context.Context, kind locker.Option) (*holding, error) {
	began := w.clock.now()
	lease, err := w.locker.LockNS(ctx, w.key, kind)
	if err != nil {
		return nil, err
	}
	h := &holding{lease: lease, from: w.clock.now()}
	h.waited = h.from - began

	what := "a session"
	if deadline, ok := lease.Deadline(); ok {
		what = "a lease that ends in " + short(time.Until(deadline))
	}
	w.tellAt(h.from, "holds", lease.Token(), "%s, after a wait of %s", what, short(h.waited))
	return h, nil
}

// unlock gives the lock back. That it was lost before is part of a worker's life, not a
// failure of the run.
func (w *worker) unlock(ctx context.Context, h *holding) error {
	until := w.clock.now()
	if deadline, ok := h.lease.Deadline(); ok {
		until = min(until, w.clock.at(deadline))
	}
	w.count(h, until)
	err := h.lease.Unlock(ctx)
	switch {
	case err == nil:
		w.tellAt(until, "unlocks", h.lease.Token(), "held it for %s", short(until-h.from))
	case errors.Is(err, locker.ErrLost):
		w.tell("unlocks", h.lease.Token(), "ErrLost, reason: %s", reason(err))
		err = nil
	}
	return err
}

// write hands the fencing token to the store with the value, which is all that a
// worker has to do for its safety.
func (w *worker) write(h *holding, value int) {
	if greatest := w.stage.write(h.lease.Token(), value); greatest == h.lease.Token() {
		w.tell("writes", h.lease.Token(), "%d into the store", value)
	} else {
		w.tell("REFUSED", h.lease.Token(), "its write of %d: the store has seen token %d", value, greatest)
	}
}

// count tells the check how long h certainly lasted for this worker.
func (w *worker) count(h *holding, until time.Duration) {
	w.stage.count(hold{w.name(), w.client, h.lease.Token(), h.from, until, h.waited})
}

func (w *worker) tell(what string, token uint64, format string, args ...any) {
	w.tellAt(w.clock.now(), what, token, format, args...)
}

func (w *worker) tellAt(at time.Duration, what string, token uint64, format string, args ...any) {
	w.stage.tell(line{at, w.client, w.name(), what, token, fmt.Sprintf(format, args...)})
}

// reason is why a hold ended, in one word.
func reason(err error) string {
	var e *locker.Error
	if !errors.As(err, &e) {
		return fmt.Sprint(err)
	}
	return strings.ToLower(strings.TrimPrefix(e.Reason.String(), "Reason"))
}

// pause is work, or sleep.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// short is d for people: three digits are plenty.
func short(d time.Duration) string {
	if d.Abs() < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// A clock tells the time since the start.
type clock struct{ start time.Time }

func (c clock) at(t time.Time) time.Duration { return t.Sub(c.start) }
func (c clock) now() time.Duration           { return c.at(time.Now()) }
