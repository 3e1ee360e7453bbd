package locker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// together is LockAll in one step of the store, for whole keys. done is false, without an error,
// where the keys are to be taken one after the other: the backend cannot do it, others of this
// Locker are first (WAIT-004), or the step failed in a way that a Lock waits out.
//
// It is one attempt and is not repeated. A repeat by the same owners would find some keys taken by
// others and some by itself after a lost reply, and to wait with those in hand is waiting out of
// order. All are taken back instead, and asked for by new owners.
func (a *Leases) together(ctx context.Context, keys []string, set *settings) (done bool, err error) {
	l := a.l
	if l.together == nil || l.hand != nil || len(keys) < 2 || l.queues != nil && slices.ContainsFunc(keys, l.queues.busy) {
		return false, nil
	}
	if !l.ops.enter() {
		return false, l.fail("lock", keys[0], CodeClosed, nil)
	}
	defer l.ops.leave()
	began := l.now()
	holds, at, err := l.askTogether(ctx, keys, set)
	switch {
	case err == nil:
		for i, s := range holds {
			if set.keep || set.label != "" {
				s.prepare(set)
			}
			if l.observed() {
				l.tellLock(ctx, keys[i], set, s, false, l.now()-began, nil)
			}
			a.add(s)
		}
		return true, nil
	case errors.Is(err, driver.ErrNotTogether),
		mayRetry(err) && set.retry.Attempts != 0 && ctx.Err() == nil:
		return false, nil
	}
	key := keys[0]
	if at > 0 && at < len(keys) {
		key = keys[at]
	}
	err = l.lockError(ctx, "lock", key, err)
	if l.observed() {
		l.tellLock(ctx, key, set, nil, false, l.now()-began, err)
	}
	return false, err
}

// askTogether asks the backend once. All holds are live, or nothing stays held.
func (l *core) askTogether(ctx context.Context, keys []string, set *settings) (holds []*Lease, at int, err error) {
	attempts, requests := make([]attempt, len(keys)), make([]driver.Request, len(keys))
	for i, key := range keys {
		attempts[i] = l.newAttempt(key, set)
		requests[i] = attempts[i].request()
	}
	sent := l.now()
	grants, at, err := l.together.AcquireAll(ctx, requests)
	if err == nil && len(grants) != len(keys) {
		at, err = -1, fmt.Errorf("%w: the backend granted %d of %d keys in one step", driver.ErrUnavailable, len(grants), len(keys))
	}
	if err != nil {
		for i := range attempts {
			attempts[i].unknown = unknownOutcome(err)
			attempts[i].giveBack()
		}
		return nil, at, err
	}
	for i := range attempts {
		// One that has ended already is given back by granted, and then the others are of no use.
		if late := attempts[i].granted(grants[i], sent); late == nil {
			holds = append(holds, attempts[i].lease)
		} else if err == nil {
			at, err = i, late
		}
	}
	if err != nil {
		unlockTogether(ctx, holds)
		return nil, at, err
	}
	return holds, at, nil
}
