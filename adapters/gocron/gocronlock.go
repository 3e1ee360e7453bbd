// Package gocronlock runs the jobs of gocron's schedulers in one process of a fleet at a time, under
// locks of package locker. A [Locker] decides for each run; an [Elector] has all jobs run where one
// process leads.
//
// gocron gives a job its ctx before it asks for the lock, and has no way to end it. So a job hears of
// a loss only through [Locker.Task] or [Elector.Task]. It drops the error of the release, too: the
// locker's Logger and Observer hear of that.
package gocronlock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-co-op/gocron/v2"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/elect"
)

// Defaults, where Options are silent.
const (
	DefaultName = "gocron"
	DefaultTTL  = 15 * time.Second
)

// Options are how jobs are locked. The zero value works for jobs that take longer than the clocks of
// the fleet are apart.
type Options struct {
	// Name and a slash go before the names of the jobs. It may hold no slash. "" means DefaultName.
	Name string
	// TTL is how long a job waits for its next run after a process died in the middle of it: the
	// length of the leases, which are kept alive. 0 means DefaultTTL, or the backend's MinTTL if
	// that is longer.
	TTL time.Duration
	// AtLeast is for how long from the begin of a run no other may begin, however short the run
	// was: longer than the schedulers' clocks are apart, and shorter than the interval of the jobs.
	// With 0, a process whose clock is late runs a short job once more. At most locker.MaxTTL.
	AtLeast time.Duration
}

// Locker is a gocron.Locker: a run of a job is skipped while another process runs it. Its methods
// are safe for concurrent use.
type Locker struct {
	l       *locker.Locker
	jobs    locker.Family[string]
	atLeast time.Duration
	wrong   error // of the options

	mu   sync.Mutex
	held map[string]*locker.Lease // by the job's name, for Task
}

var (
	_ gocron.Locker  = (*Locker)(nil)
	_ gocron.Elector = (*Elector)(nil)
)

// NewLocker makes a Locker, for gocron.WithDistributedLocker or gocron.WithDistributedJobLocker. Jobs
// need the same gocron.WithName in every process; without one they are called by their function. The
// name is also the label of the lock. What is wrong with the options is the error of each run.
func NewLocker(l *locker.Locker, o Options) *Locker {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.TTL == 0 {
		o.TTL = max(DefaultTTL, l.Capabilities().MinTTL)
	}
	var wrong error
	if o.AtLeast < 0 || o.AtLeast > locker.MaxTTL {
		// The Leave at the end of a run would refuse it.
		wrong = fmt.Errorf("gocronlock: AtLeast: %s is not between 0 and %s: %w", o.AtLeast, locker.MaxTTL, locker.ErrInvalidTTL)
	}
	return &Locker{
		l: l, atLeast: o.AtLeast, wrong: wrong, held: map[string]*locker.Lease{},
		jobs: locker.NewFamily[string](o.Name, locker.WithTTL(o.TTL), locker.WithKeepAlive(0)),
	}
}

// Lock implements gocron.Locker. It does not wait: gocron skips the run at any error, which is
// locker.ErrHeld where another process has it. gocron.AfterLockError hears of it.
func (k *Locker) Lock(ctx context.Context, job string) (gocron.Lock, error) {
	if k.wrong != nil {
		return nil, k.wrong
	}
	lease, err := k.jobs.TryLock(ctx, k.l, job, locker.WithLabel(job))
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[job] = lease
	return &lock{k, job, lease, time.Now()}, nil
}

type lock struct {
	k     *Locker
	job   string
	lease *locker.Lease
	began time.Time
}

// Unlock implements gocron.Lock. gocron calls it with the ctx of the job, which may have ended.
func (h *lock) Unlock(ctx context.Context) error {
	h.k.mu.Lock()
	if h.k.held[h.job] == h.lease {
		delete(h.k.held, h.job)
	}
	h.k.mu.Unlock()
	for {
		remaining := h.k.atLeast - time.Since(h.began)
		if remaining <= 0 {
			return h.lease.Unlock(ctx)
		}
		// An Unlock would let a short job run again. The lease is kept alive until it is left, or
		// until its time is up because the store is away for longer.
		// What remains may be less than the store can keep.
		err := h.lease.Leave(context.WithoutCancel(ctx), max(remaining, h.k.l.Capabilities().MinTTL))
		if err != nil && h.lease.Err() == nil && !errors.Is(err, locker.ErrUnavailable) {
			// It would be kept until Close. One that has ended is not freed: the store may have left it.
			return errors.Join(err, h.lease.Unlock(ctx))
		}
		if !errors.Is(err, locker.ErrUnavailable) {
			return err
		}
		const pause = 50 * time.Millisecond
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-h.lease.Done():
		}
		timer.Stop()
	}
}

// Task makes a function for gocron.NewTask of the job that has this name (gocron.WithName). Its ctx
// ends with the job's, and with the lock, with the reason as its context.Cause. lease has the
// fencing token of the run. Without the lock, such as under WithDisabledDistributedJobLocker, the
// task fails.
func (k *Locker) Task(job string, fn func(ctx context.Context, lease *locker.Lease) error) func(context.Context) error {
	return func(ctx context.Context) error {
		k.mu.Lock()
		lease := k.held[job]
		k.mu.Unlock()
		if lease == nil {
			return fmt.Errorf("gocronlock: the job %q runs without its lock: the name of the task and that of the job must be the same, and this Locker the job's: %w", job, locker.ErrInvalidArgument)
		}
		held, cancel := lease.Context(ctx)
		defer cancel()
		return fn(held, lease)
	}
}

// ErrNotLeader is returned by IsLeader where another process leads, or none.
var ErrNotLeader = errors.New("gocronlock: this process does not lead")

// Elector is a gocron.Elector: the jobs of the fleet run in the process that leads. Its methods are
// safe for concurrent use.
type Elector struct{ *elect.Candidate }

// NewElector begins to campaign for name, for gocron.WithDistributedElector. Close it when the
// scheduler has been shut down: then another process leads at once.
func NewElector(ctx context.Context, l *locker.Locker, name string, o elect.Options) (*Elector, error) {
	c, err := elect.NewCandidate(ctx, l, name, o)
	if err != nil {
		return nil, err
	}
	return &Elector{c}, nil
}

// IsLeader implements gocron.Elector, which asks before each run. It asks no server. The error is
// ErrNotLeader, and says why where the campaign has ended. Candidate.IsLeader is the plain question.
func (e *Elector) IsLeader(context.Context) error {
	if e.Candidate.IsLeader() {
		return nil
	}
	if err := e.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	return ErrNotLeader
}

// Task makes a function for gocron.NewTask. Its ctx ends with the job's, and with the term, with the
// reason as its context.Cause. If the term ended before the task began it fails with ErrNotLeader.
func (e *Elector) Task(fn func(ctx context.Context, term *elect.Term) error) func(context.Context) error {
	return func(ctx context.Context) error {
		term := e.Term()
		if term == nil {
			return ErrNotLeader
		}
		ctx, cancel := term.Context(ctx)
		defer cancel()
		return fn(ctx, term)
	}
}
