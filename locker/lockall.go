package locker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Leases are the holds of several keys that LockAll took together. When one is lost, the others
// end with it. All methods may be called by any number of goroutines at the same time.
type Leases struct {
	_     [0]func() // cannot be compared, only its address can
	l     *core
	holds []*Lease // by key, as they were taken
	ttl   time.Duration
	kept  bool

	mu   sync.Mutex
	all  bool  // LockAll is over
	err  error // the end of the first hold that ended
	done chan struct{}
	ends map[*watch]struct{}
}

// LockAll takes the locks on all keys, or none (MULTI-001). It sorts them and drops duplicates,
// so that two callers whose keys overlap cannot wait for each other (MULTI-002); callers that
// take several keys by several calls of Lock can. While it waits for one key it keeps the leases
// that it has already, and in the end it makes all of them end at one time; the cap of WithKeepAlive
// counts, and WithProgress is asked, from then on. ctx bounds the whole
// wait, and Retry the wait for each key. A backend that is a driver.Together gets them in one round
// trip, if all are free and no Lock of this Locker waits for one of them.
//
// The errors are Lock's, for the first key that could not be locked; then no key stays locked. It
// is ErrInvalidKey, before any I/O, if keys is empty or holds an invalid one.
//
// LockAll orders whole keys, with their namespace: lock all that you need together in one call.
// In a Redis Cluster keys of one slot are one round trip together; others are one each.
func (l *Locker) LockAll(ctx context.Context, keys []string, opts ...Option) (*Leases, error) {
	const op = "lockall"
	if !l.made() {
		return nil, errNoLocker(op)
	}
	if len(keys) == 0 {
		return nil, l.fail(op, "", CodeInvalidKey, errors.New("no keys are given"))
	}
	if l.unusable != nil {
		return nil, l.fail(op, keys[0], CodeInvalidKey, l.unusable)
	}
	keys = slices.Clone(keys)
	slices.Sort(keys)
	keys = slices.Compact(keys)
	var set settings // the same for all
	whole := make([]string, len(keys))
	for i, key := range keys {
		var bad *Error
		set = l.defaults
		if whole[i], bad = l.check(ctx, key, &set, opts); bad != nil {
			bad.Op, bad.Backend = op, l.caps.Name
			return nil, bad
		}
	}
	all := &Leases{l: l.core, ttl: set.ttl, kept: set.keep, done: make(chan struct{})}
	done, err := all.together(ctx, whole, &set)
	if !done && err == nil {
		err = all.oneByOne(ctx, l, keys, opts, &set)
	}
	if err == nil {
		err = all.complete()
	}
	if err != nil {
		unlockTogether(ctx, all.holds)
		return nil, err
	}
	return all, nil
}

// unlockTogether gives back what was taken before a LockAll failed. Side by side: one after the other, each
// would take its own time where the store hangs, long after the end of ctx.
func unlockTogether(ctx context.Context, holds []*Lease) {
	var wg sync.WaitGroup
	for _, s := range holds {
		wg.Add(1)
		go func() {
			defer wg.Done()
			_ = s.Unlock(ctx) // what fails is repeated in the background
		}()
	}
	wg.Wait()
}

// oneByOne takes the locks in the order of keys, and makes them end at one time.
func (a *Leases) oneByOne(ctx context.Context, l *Locker, keys []string, opts []Option, set *settings) error {
	if a.ttl > 0 {
		// The first ones must not run out while the others are waited for: neither at a cap, nor
		// because a holder that has nothing to do yet makes no progress.
		opts = append(slices.Clip(opts), WithKeepAlive(0), WithProgress(nil))
	}
	// A loss while others are waited for ends the wait.
	waiting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := a.watch(cancel)
	defer began()
	for _, key := range keys {
		s, err := l.Lock(waiting, key, opts...)
		if err == nil {
			a.add(s)
			err = a.Err()
		} else if lost := a.Err(); lost != nil {
			err = lost
		}
		if err != nil {
			return err
		}
	}
	return a.level(ctx, set)
}

// complete says that a loss from now on ends the others; one that came before is the error.
func (a *Leases) complete() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = true
	return a.err
}

// level makes all leases end at one time, and puts what set says in place of the keeping that was
// for the wait only.
func (a *Leases) level(ctx context.Context, set *settings) error {
	if a.ttl == 0 {
		return nil
	}
	if !a.kept {
		for _, s := range a.holds {
			s.unkeep()
		}
	}
	if len(a.holds) > 1 {
		if err := a.Extend(ctx, a.ttl); err != nil {
			return err
		}
	}
	if a.kept {
		for _, s := range a.holds {
			s.unkeep()
			s.prepare(set)
		}
	}
	return nil
}

// unkeep has the lease end by itself from now on.
func (s *Lease) unkeep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.extra; x != nil && x.kept != nil {
		s.l.keeper.remove(x.kept)
		x.kept.ended = true
		x.kept = nil
	}
}

func (a *Leases) add(s *Lease) {
	a.holds = append(a.holds, s)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkDeadlineLocked()
	if s.reason != noReason {
		a.end(s.endedLocked("hold"))
		return
	}
	w, x := &watch{a.end}, s.own()
	if x.onEnd == nil {
		x.onEnd = make(map[*watch]struct{})
	}
	x.onEnd[w] = struct{}{}
}

// watch has cancel called with the cause when the first hold ends.
func (a *Leases) watch(cancel context.CancelCauseFunc) (stop func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		cancel(a.err)
		return func() {}
	}
	w := &watch{cancel}
	if a.ends == nil {
		a.ends = make(map[*watch]struct{})
	}
	a.ends[w] = struct{}{}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.ends, w)
	}
}

// end is called under the mutex of the hold that ended, with its error.
func (a *Leases) end(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return
	}
	a.err = err
	close(a.done)
	for w := range a.ends {
		w.cancel(err)
	}
	a.ends = nil
	if !a.all || !a.l.background.enter() {
		return // LockAll releases the others, or Close ends them
	}
	go func() { // the mutexes of two holds are never held at once
		defer a.l.background.leave()
		a.endOthers(err)
	}()
}

// endOthers ends what the first loss left. What remains of it stays taken until Unlock, or until
// its time is up: its holder may still be stopping.
func (a *Leases) endOthers(err error) {
	var first *Error
	if !errors.As(err, &first) || first.Reason.chosen() {
		return
	}
	for _, s := range a.holds {
		s.mu.Lock()
		if s.phase == holding {
			s.own().lingers = true
			s.endLocked(first.Reason, err)
		}
		s.mu.Unlock()
	}
}

// Keys are the whole keys that are held, in the order in which they were taken.
func (a *Leases) Keys() []string {
	if a == nil {
		return nil
	}
	keys := make([]string, len(a.holds))
	for i, s := range a.holds {
		keys[i] = s.key
	}
	return keys
}

// Token is the fencing token of one whole key, or 0 if it is not among Keys.
func (a *Leases) Token(key string) uint64 {
	if a == nil {
		return 0
	}
	i, ok := slices.BinarySearchFunc(a.holds, key, func(s *Lease, key string) int {
		switch {
		case s.key < key:
			return -1
		case s.key > key:
			return 1
		}
		return 0
	})
	if !ok {
		return 0
	}
	return a.holds[i].token
}

// Deadline is when the first of the leases ends for this process. ok is false for sessions.
func (a *Leases) Deadline() (deadline time.Time, ok bool) {
	if a == nil {
		return time.Time{}, false
	}
	for _, s := range a.holds {
		if d, has := s.Deadline(); has && (!ok || d.Before(deadline)) {
			deadline, ok = d, true
		}
	}
	return deadline, ok
}

// Done is closed when the first of the holds has ended, for whatever reason (MULTI-003). Err then
// says which, and why.
func (a *Leases) Done() <-chan struct{} {
	if a == nil {
		return closedChan
	}
	return a.done
}

// Err is nil while all holds last, and afterwards the Err of the first that ended.
func (a *Leases) Err() error {
	if a == nil {
		return errNotALease("hold")
	}
	for _, s := range a.holds {
		_ = s.Err() // it looks at the clock
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// Context derives a ctx from parent that ends with the first of the holds, with Err as its
// context.Cause. Call cancel when it is not needed any more; it does not unlock.
func (a *Leases) Context(parent context.Context) (ctx context.Context, cancel context.CancelFunc) {
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancelCause := context.WithCancelCause(parent)
	if a == nil {
		cancelCause(errNotALease("hold"))
		return ctx, func() {}
	}
	stop := a.watch(cancelCause)
	return ctx, func() {
		stop()
		cancelCause(context.Canceled)
	}
}

// Extend makes every lease end d from now, one after the other. It stops at the first error,
// which is that of Lease.Extend.
func (a *Leases) Extend(ctx context.Context, d time.Duration) error {
	if a == nil {
		return errNotALease("extend")
	}
	for _, s := range a.holds {
		if err := s.Extend(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// Unlock ends all holds and frees their keys in reverse order (MULTI-004), including those that
// ended for this process because another one was lost. The error joins those of Lease.Unlock: nil
// if every release is confirmed, and ErrLost if one of the holds was lost before.
func (a *Leases) Unlock(ctx context.Context) error {
	if a == nil {
		return errNotALease("unlock")
	}
	if ctx == nil {
		return a.l.fail("unlock", "", CodeInvalidArgument, errNilContext)
	}
	var errs []error
	for _, s := range slices.Backward(a.holds) {
		// A ctx of Context ends with the first release: each takes its own time then (REL-004).
		if err := s.Unlock(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	return joinErrors(errs...)
}
