// Package elect makes one of many processes the leader, on any backend of package locker.
//
// [Run] campaigns, calls a function while this process leads, and campaigns again after a loss; a
// [Candidate] is for a program that cannot hand over a function. Leadership is a kept lease
// ([locker.WithKeepAlive]): an outage of the store may cost the term, but never ends the process.
//
// A leader stops before anybody else starts: the function's ctx ends Options.StopWithin before
// the lease does, and after a resignation or a shutdown the lock is freed only when the function
// has returned (ELECT-001). Three things are not covered: a function that does not obey its ctx
// (Options.OnOverrun reports it), a process that is stopped for longer than the lease, and a
// store that loses the lock. What must not be written twice needs [Term.Token], as with every
// lock.
package elect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// Options are how a candidate campaigns and leads. The zero value works.
type Options struct {
	// TTL is how long the others wait after a leader died: the length of its lease. 0 means
	// DefaultTTL, or the backend's MinTTL if that is longer.
	TTL time.Duration
	// StopWithin is how long the function may take to return when its ctx has ended. The ctx of a
	// leader that cannot extend its lease ends that long before the lease does, so that it leads on
	// through an outage of at least TTL·2/3 − StopWithin. 0 means a third of TTL; at most half.
	StopWithin time.Duration
	// Backoff is the pause after the function failed; it doubles with each further failure, up to
	// MaxBackoff. 0 means DefaultBackoff and DefaultMaxBackoff.
	Backoff, MaxBackoff time.Duration
	// Poll is how often Observe asks who leads. 0 means DefaultPoll.
	Poll time.Duration
	// OnOverrun is called, at most once for each term, when the function still runs StopWithin after
	// the end of its ctx, whose cause it is given: from then on another process may lead at the same
	// time. It is called by a goroutine of its own.
	OnOverrun func(term *Term, cause error)
	// Logger gets terms at Info, failures at Warn, and overruns at Error. nil: nothing is logged,
	// except that without OnOverrun overruns go to slog.Default.
	Logger *slog.Logger
}

// Defaults, where Options are silent.
const (
	DefaultTTL        = 15 * time.Second
	DefaultBackoff    = 100 * time.Millisecond
	DefaultMaxBackoff = 10 * time.Second
	DefaultPoll       = time.Second
)

// ErrResign is returned by a function that gives up its term but wants to campaign again, after
// Backoff, so that another candidate comes first.
var ErrResign = errors.New("elect: the leader resigns")

// ErrTooLate is the cause of a ctx that ended because the lease could not be extended in time. It
// matches locker.ErrLost.
var ErrTooLate = fmt.Errorf("elect: the term could not be extended in time: %w", locker.ErrLost)

// Stop makes an error with which the function ends the campaign for good: Run returns err, which
// may be nil. That is no failure.
func Stop(err error) error { return &stop{err} }

type stop struct{ err error }

func (s *stop) Error() string {
	if s.err == nil { // Stop(nil), which Run returns as nil
		return "elect: the leader ends the campaign"
	}
	return s.err.Error()
}
func (s *stop) Unwrap() error { return s.err }

// Term is one span of leadership. Its methods are safe for concurrent use.
type Term struct {
	lease *locker.Lease
	name  string
	early time.Duration
	ctx   context.Context
	stuck atomic.Bool // the function did not return in time
}

// Token is the fencing token of the term: greater than that of every earlier term (TOK-001).
// Pass it with every write, and let the store refuse a smaller one.
func (t *Term) Token() uint64 { return t.lease.Token() }

// Name is the name of the election.
func (t *Term) Name() string { return t.name }

// Until is when the ctx of the term ends unless the lease is extended first.
func (t *Term) Until() time.Time {
	d, _ := t.lease.Deadline()
	return d.Add(-t.early)
}

// Leads says whether the term goes on. It looks at the clock itself, so that it is right even in
// a process that has just woken up (ELECT-002).
func (t *Term) Leads() bool {
	return t.ctx.Err() == nil && t.lease.Err() == nil && time.Now().Before(t.Until())
}

// Context returns a ctx that ends with parent or with the term, whichever is first, with the reason
// as its context.Cause: for work that begins during the term of a Candidate. Call cancel when it is
// not needed any more. In the function of Run, the ctx of its call is this already.
func (t *Term) Context(parent context.Context) (ctx context.Context, cancel context.CancelFunc) {
	ctx, cancelCause := context.WithCancelCause(parent)
	stop := context.AfterFunc(t.ctx, func() { cancelCause(context.Cause(t.ctx)) })
	return ctx, func() {
		stop()
		cancelCause(context.Canceled)
	}
}

// Run campaigns for name, calls lead while this process leads, and campaigns again when the term
// is lost, when lead fails, and when it returns ErrResign. It ends when
//
//   - ctx ends: lead's ctx ends too, and when lead has returned the lock is freed, so that the
//     next candidate leads at once. The error is ctx's cause, joined with lead's if that is
//     another one.
//   - lead returns nil, or Stop(err), during its term: the campaign ends for good. The error is
//     nil, or err.
//   - the campaign cannot succeed: the Locker is closed, or the name or the options are wrong.
//
// lead's ctx ends when ctx or the term does, with the reason as its context.Cause;
// locker.FromContext finds the lease in it. lead must return within Options.StopWithin then.
func Run(ctx context.Context, l *locker.Locker, name string, lead func(ctx context.Context, term *Term) error, o Options) error {
	if lead == nil {
		return fmt.Errorf("elect: the function is nil: %w", locker.ErrInvalidArgument)
	}
	c, err := newCampaign(l, name, o)
	if err != nil {
		return err
	}
	return c.run(ctx, lead, func(*Term, error) {})
}

type campaign struct {
	Options
	l    *locker.Locker
	name string
}

func newCampaign(l *locker.Locker, name string, o Options) (*campaign, error) {
	if o.TTL == 0 {
		o.TTL = max(DefaultTTL, l.Capabilities().MinTTL)
	}
	if o.StopWithin == 0 {
		o.StopWithin = o.TTL / 3
	}
	if o.Backoff == 0 {
		o.Backoff = DefaultBackoff
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = max(DefaultMaxBackoff, o.Backoff)
	}
	if o.Poll == 0 {
		o.Poll = DefaultPoll
	}
	switch {
	case o.StopWithin < 0 || o.StopWithin > o.TTL/2:
		return nil, fmt.Errorf("elect: StopWithin: %s is not between 0 and half of TTL, %s: %w", o.StopWithin, o.TTL/2, locker.ErrInvalidConfig)
	case o.Backoff < 0 || o.MaxBackoff < o.Backoff:
		return nil, fmt.Errorf("elect: Backoff: %s is not between 0 and MaxBackoff, %s: %w", o.Backoff, o.MaxBackoff, locker.ErrInvalidConfig)
	case o.Poll < 0:
		return nil, fmt.Errorf("elect: Poll: %s is below 0: %w", o.Poll, locker.ErrInvalidConfig)
	}
	return &campaign{o, l, name}, nil
}

// run is Run; after is told of each term that is over, with the error of its Unlock.
func (c *campaign) run(ctx context.Context, lead func(context.Context, *Term) error, after func(*Term, error)) error {
	failures := 0
	for {
		t := &Term{name: c.name, early: c.StopWithin}
		var err error
		t.lease, err = c.l.Lock(ctx, c.name, locker.WithTTL(c.TTL), locker.WithRetry(locker.DefaultRetry()), locker.WithLabel(c.name),
			// A leader that does not stop must not lead for ever.
			locker.WithKeepAlive(0), locker.WithProgress(func() bool { return !t.stuck.Load() }))
		if err == nil {
			began := time.Now()
			var lost bool
			err, lost = c.serve(ctx, t, lead, after)
			var final *stop
			switch {
			case errors.As(err, &final):
				return final.err
			case ctx.Err() != nil:
			case lost:
				failures = 0
				continue
			case err == nil:
				return nil
			case errors.Is(err, ErrResign):
				failures = 0
			case time.Since(began) > c.MaxBackoff:
				failures = 1
			default:
				failures++
			}
		} else if !passes(err) {
			return err
		} else {
			failures++
		}
		if ctx.Err() == nil {
			c.pause(ctx, failures)
		}
		if ctx.Err() != nil {
			if cause := context.Cause(ctx); err == nil || errors.Is(err, ctx.Err()) || errors.Is(err, cause) || errors.Is(err, ErrResign) {
				return cause
			}
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// passes says whether another attempt may end otherwise.
func passes(err error) bool {
	return errors.Is(err, locker.ErrHeld) || errors.Is(err, locker.ErrUnavailable) || errors.Is(err, locker.ErrLost) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// pause waits for Backoff·2^(failures-1), and less by up to a quarter, so that candidates that
// failed together do not come back together.
func (c *campaign) pause(ctx context.Context, failures int) {
	d := c.Backoff
	for ; failures > 1 && d < c.MaxBackoff; failures-- {
		d *= 2
	}
	d = min(d, c.MaxBackoff)
	d -= time.Duration(rand.Int64N(int64(d)/4 + 1))
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// serve is one term. lost says that it ended before lead did, and ctx did not.
func (c *campaign) serve(ctx context.Context, t *Term, lead func(context.Context, *Term) error, after func(*Term, error)) (err error, lost bool) {
	held, release := t.lease.Context(ctx)
	defer release()
	tctx, cancel := context.WithCancelCause(held)
	defer cancel(nil)
	t.ctx = tctx

	early := c.watch(t, cancel)
	defer early()
	unwatch := c.watchOverrun(t)
	c.log(slog.LevelInfo, "term begins", t, nil)
	defer func() {
		unwatch()
		// In this order: a successor may lead from the Unlock on.
		lost = tctx.Err() != nil && ctx.Err() == nil
		if lost {
			c.log(slog.LevelWarn, "term lost", t, context.Cause(tctx))
		}
		cancel(context.Canceled)
		unlockErr := t.lease.Unlock(ctx)
		if errors.Is(unlockErr, locker.ErrLost) || errors.Is(unlockErr, locker.ErrReleased) {
			unlockErr = nil
		}
		c.log(slog.LevelInfo, "term ends", t, unlockErr)
		after(t, unlockErr)
	}()
	err = lead(tctx, t)
	var final *stop
	switch {
	case errors.As(err, &final):
		c.log(slog.LevelInfo, "leader ends the campaign", t, final.err)
	case err != nil && tctx.Err() == nil && !errors.Is(err, ErrResign):
		c.log(slog.LevelWarn, "leader failed", t, err)
	}
	return err, false
}

// watch ends the term StopWithin before its lease would end.
func (c *campaign) watch(t *Term, cancel context.CancelCauseFunc) (stop func()) {
	var timer atomic.Pointer[time.Timer]
	look := func() {
		if t.ctx.Err() != nil {
			return
		}
		if left := time.Until(t.Until()); left > 0 {
			if w := timer.Load(); w != nil {
				w.Reset(left)
			}
			return
		}
		cancel(ErrTooLate)
	}
	// Not AfterFunc(time.Until(…)) at once: look needs the timer that runs it.
	w := time.AfterFunc(time.Hour, look)
	timer.Store(w)
	w.Reset(max(0, time.Until(t.Until())))
	return func() { w.Stop() }
}

// watchOverrun reports a function that does not return when its ctx has ended.
func (c *campaign) watchOverrun(t *Term) (stop func()) {
	returned := make(chan struct{})
	undo := context.AfterFunc(t.ctx, func() {
		timer := time.NewTimer(c.StopWithin)
		defer timer.Stop()
		select {
		case <-returned:
			return
		case <-timer.C:
		}
		t.stuck.Store(true)
		cause := context.Cause(t.ctx)
		if c.OnOverrun != nil {
			c.OnOverrun(t, cause)
		}
		c.log(slog.LevelError, "leader still runs after its term; another may lead beside it", t, cause)
	})
	return func() {
		undo()
		close(returned)
	}
}

func (c *campaign) log(level slog.Level, what string, t *Term, err error) {
	logger := c.Logger
	if logger == nil {
		if level < slog.LevelError || c.OnOverrun != nil {
			return
		}
		logger = slog.Default()
	}
	attrs := []slog.Attr{slog.String("election", c.name), slog.Uint64("token", t.Token())}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	logger.LogAttrs(context.Background(), level, "elect: "+what, attrs...)
}
