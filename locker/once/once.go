// Package once runs a job once per slot in a whole fleet, and fills a cache once, on any backend
// of package locker.
//
// A slot is what the job is done for: the fire time of a schedule, or any string, such as the
// name of a migration. Each slot has two keys. One is held while the job runs. The other is taken
// with it and, when the job is done, left to expire after AtLeast ([locker.Lease.Leave]): until
// then nobody does the job again, whatever becomes of the process, and however short the job was.
//
// A slot of which only the second key is taken is done. So a job that loses the first key alone
// while it runs, because somebody broke that hold or the store forgot it, gives up the second one as
// soon as this process hears of the loss: its ctx ends, Do returns [locker.ErrLost], and the job may
// run again. Until then, at most for the ttl of the first key, twice TTL, others may be told that it
// is done. Who breaks the hold of a job that runs breaks both, the second key first.
package once

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

var (
	// ErrRunning is returned by Do when another caller does the slot's job at this moment. It is no
	// failure. It may come, too, for a job that has just ended, or whose process has died.
	ErrRunning = errors.New("once: another caller is running it")
	// ErrDone is returned by Do when the slot's job has been done. It is no failure.
	ErrDone = errors.New("once: it has been done")
)

// Defaults, where the options are silent, or the backend's MinTTL where that is longer.
const (
	DefaultTTL     = 15 * time.Second
	DefaultAtLeast = 24 * time.Hour
	DefaultPause   = time.Second
)

// Slot is the type of what a job is done for once.
type Slot interface{ ~string | time.Time }

// Option changes one setting of one call. A duration that is not above 0, above locker.MaxTTL (TTL
// of Do: above half of that), or shorter than the backend can keep (Capabilities.MinTTL) is
// ErrInvalidTTL, before anything is asked for.
type Option func(*settings)

type settings struct {
	ttl, atLeast, pause time.Duration
	failedIsDone        bool
	note                string
}

// AtLeast says for how long after the end of the job nobody does it again. Make it longer than
// the time for which somebody may still ask for the slot. The default is DefaultAtLeast.
func AtLeast(d time.Duration) Option { return func(s *settings) { s.atLeast = d } }

// TTL is the length of the leases under which a job runs, or a cache is filled. It says how long
// the others wait when a process dies in the middle: after at most twice d a slot can be done by
// another. The default is DefaultTTL.
func TTL(d time.Duration) Option { return func(s *settings) { s.ttl = d } }

// Note is put beside the slot's holds, for people (locker.WithNote).
func Note(text string) Option { return func(s *settings) { s.note = text } }

// FailedIsDone says that a job which failed is not tried again. Without it the next caller tries.
// A job whose process died is tried again in any case.
func FailedIsDone() Option { return func(s *settings) { s.failedIsDone = true } }

// Pause says for how long nobody tries again after a fill that failed; see Fill. The default is
// DefaultPause.
func Pause(d time.Duration) Option { return func(s *settings) { s.pause = d } }

// set is what opts say, checked: a job whose lease can be taken but not left at its end would run
// again. longest is the longest lease for each TTL, in multiples of it.
func set(l *locker.Locker, opts []Option, longest time.Duration) (settings, error) {
	shortest := max(time.Millisecond, l.Capabilities().MinTTL)
	s := settings{ttl: max(DefaultTTL, shortest), atLeast: max(DefaultAtLeast, shortest), pause: max(DefaultPause, shortest)}
	for _, o := range opts {
		o(&s)
	}
	for _, d := range []struct {
		name   string
		d, max time.Duration
	}{{"TTL", s.ttl, locker.MaxTTL / longest}, {"AtLeast", s.atLeast, locker.MaxTTL}, {"Pause", s.pause, locker.MaxTTL}} {
		// A ttl is rounded up to whole milliseconds.
		if d.d <= 0 || d.d > d.max || (d.d+time.Millisecond-1).Truncate(time.Millisecond) < shortest {
			return s, fmt.Errorf("once: %s: %s is not between %s and %s: %w", d.name, d.d, shortest, d.max, locker.ErrInvalidTTL)
		}
	}
	return s, nil
}

// keys are the slot's two. The length of name keeps names and slots that hold a slash apart.
func keys[S Slot](name string, slot S) (run, done string) {
	var of string
	switch v := any(slot).(type) {
	case time.Time:
		of = v.UTC().Format(time.RFC3339Nano) // one instant is one slot, in whatever zone
	case string:
		of = v
	default:
		of = reflect.ValueOf(v).String() // not fmt, which asks the type's own String, Error or Format
	}
	key := strconv.Itoa(len(name)) + "/" + name + "/" + of
	return "once-run/" + key, "once/" + key
}

// Do runs fn, unless the job name has been done for slot, or is being done: then Do returns
// ErrDone or ErrRunning at once. fn's ctx ends with the lock, with the reason as its
// context.Cause.
//
// The error is fn's; after an error the job counts as not done (see FailedIsDone). If the error
// also matches locker.ErrLost, the lock ended while fn was running, or before it could be noted
// that it ran: the job may run again. A panic of fn counts as a failure and goes on. The other
// errors are those of Locker.TryLock.
func Do[S Slot](ctx context.Context, l *locker.Locker, name string, slot S, fn func(ctx context.Context, lease *locker.Lease) error, opts ...Option) (err error) {
	s, err := set(l, opts, 2)
	if err != nil {
		return err
	}
	if fn == nil {
		return fmt.Errorf("once: the function is nil: %w", locker.ErrInvalidArgument)
	}
	runKey, doneKey := keys(name, slot)
	if was(ctx, l, runKey, doneKey) {
		return ErrDone
	}
	// The one that says that it runs outlives the other: who finds it free and the other one
	// taken knows that the job is done.
	run, err := l.TryLock(ctx, runKey, locker.WithTTL(2*s.ttl), locker.WithKeepAlive(0), locker.WithLabel(name), locker.WithNote(s.note))
	if errors.Is(err, locker.ErrHeld) {
		return ErrRunning
	}
	if err != nil {
		return err
	}
	defer func() { err = join(err, run.Unlock(ctx)) }()
	done, err := l.TryLock(ctx, doneKey, locker.WithTTL(s.ttl), locker.WithKeepAlive(0), locker.WithLabel(name), locker.WithNote(s.note))
	if errors.Is(err, locker.ErrHeld) {
		return ErrDone
	}
	if err != nil {
		return err
	}
	// Who finds run's key free and the other one taken takes the job for done. So a job that loses
	// run gives the other one up. It has a ctx of its own: fn may go on after the end of ctx.
	lost, cancel := run.Context(context.WithoutCancel(ctx))
	defer cancel()
	var stop func() bool
	failed := true
	defer func() {
		if !stop() {
			err = join(err, done.Unlock(ctx)) // also waits for the one that goes on
			return
		}
		if failed && !s.failedIsDone {
			err = join(err, done.Unlock(ctx))
		} else {
			err = join(err, leaveOrFree(ctx, done, s.atLeast))
		}
	}()
	held, cancel := run.Context(ctx)
	defer cancel()
	held, cancel = done.Context(held)
	defer cancel()
	stop = context.AfterFunc(lost, func() {
		<-held.Done() // with the reason why run ended: an Unlock before would be its cause
		_ = done.Unlock(ctx)
	})
	err = fn(held, done)
	failed = err != nil
	return err
}

// was says whether the job has been done, where the backend can say who holds what. The job is
// done if nobody runs it at a moment at which one holder has the other key. Without such a look
// callers who find that it is done would hold, for a moment, the key that says that it runs.
func was(ctx context.Context, l *locker.Locker, runKey, doneKey string) bool {
	before, ok, err := l.Inspect(ctx, doneKey)
	if err != nil || !ok {
		return false
	}
	if _, runs, err := l.Inspect(ctx, runKey); err != nil || runs {
		return false
	}
	after, ok, err := l.Inspect(ctx, doneKey)
	return err == nil && ok && after.Token == before.Token
}

// leaveOrFree is leave, and frees a lease that could not be left. It is kept: otherwise others would
// take the job for done, or wait for the value, until the Locker is closed. One that has ended is
// not freed: what the store was last asked for may be that it is left.
func leaveOrFree(ctx context.Context, s *locker.Lease, d time.Duration) error {
	err := leave(ctx, s, d)
	if err != nil && s.Err() == nil {
		err = join(err, s.Unlock(ctx))
	}
	return err
}

// leave tries until it is known that the lease is left, or until it ends: a job that ran and is
// not noted runs again.
func leave(ctx context.Context, s *locker.Lease, d time.Duration) error {
	const pause = 50 * time.Millisecond
	ctx = context.WithoutCancel(ctx)
	for {
		err := s.Leave(ctx, d)
		if err == nil || !errors.Is(err, locker.ErrUnavailable) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-s.Done():
		}
		timer.Stop()
	}
}

func join(err, after error) error {
	switch {
	case after == nil || errors.Is(after, locker.ErrReleased):
		return err
	case err == nil:
		return after
	}
	return fmt.Errorf("%w; %w", err, after)
}

// Schedule is a schedule that fires at a fixed interval.
type Schedule struct{ every time.Duration }

// Slots is the Schedule that fires every so often, whose slots At returns.
func Slots(every time.Duration) Schedule { return Schedule{every} }

// At is the slot of a fire time: the nearest multiple of the interval since the zero time, as
// time.Time.Round has it. Pass the time for which the scheduler fired, or the time at which it
// fired if that is late by less than half the interval; not the time at which the job happens to
// begin. A process whose clock is off fires earlier or later than the others, but for the same
// slot.
func (s Schedule) At(fire time.Time) time.Time { return fire.UTC().Round(max(s.every, 0)) }
