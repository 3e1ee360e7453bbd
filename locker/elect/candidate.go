package elect

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// Leader is who leads, as far as the backend can say. The zero value is nobody.
type Leader struct {
	// Owner is the identity of the lease. Each term has another one.
	Owner string
	// Token is the fencing token of the term; 0 means that there is no leader.
	Token uint64
	// Remaining is how long the lease lasts unless the leader extends it.
	Remaining time.Duration
}

// Candidate campaigns in the background, for a program that asks whether it leads rather than
// handing over a function. All methods may be called by any number of goroutines at the same time.
type Candidate struct {
	c    *campaign
	stop context.CancelFunc
	done chan struct{}
	err  error // after done

	mu      sync.Mutex
	reign   *reign        // nil while it does not lead
	changed chan struct{} // closed when a term here begins or ends
}

// reign is one term of a Candidate.
type reign struct {
	term   *Term
	resign chan struct{} // closed by Resign
	over   chan struct{} // closed when the lock is free
	err    error         // of the Unlock
}

// NewCandidate begins to campaign for name, until ctx ends, Close is called, or the campaign
// cannot succeed: see Run. The end of ctx frees the lock at once: first end what this process
// does as the leader.
func NewCandidate(ctx context.Context, l *locker.Locker, name string, o Options) (*Candidate, error) {
	c, err := newCampaign(l, name, o)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	k := &Candidate{c: c, stop: stop, done: make(chan struct{}), changed: make(chan struct{})}
	go func() {
		defer close(k.done)
		defer stop()
		k.err = c.run(ctx, func(held context.Context, t *Term) error { return k.lead(ctx, held, t) }, k.after)
	}()
	return k, nil
}

// lead waits for the end of the term.
func (k *Candidate) lead(ctx, held context.Context, t *Term) error {
	r := &reign{term: t, resign: make(chan struct{}), over: make(chan struct{})}
	k.set(r)
	select {
	case <-r.resign:
		return ErrResign
	case <-held.Done():
	}
	if ctx.Err() == nil {
		// The user has StopWithin to notice, and may not be overtaken before.
		stopped := time.NewTimer(k.c.StopWithin - time.Millisecond)
		defer stopped.Stop()
		select {
		case <-stopped.C:
		case <-r.resign:
		case <-ctx.Done():
		case <-t.lease.Done():
		}
	}
	return held.Err()
}

func (k *Candidate) set(r *reign) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reign = r
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *Candidate) after(_ *Term, err error) {
	k.mu.Lock()
	r := k.reign
	k.mu.Unlock()
	if r != nil {
		k.set(nil)
		r.err = err
		close(r.over)
	}
}

// current is the term that goes on here, or nil.
func (k *Candidate) current() *reign {
	k.mu.Lock()
	r := k.reign
	k.mu.Unlock()
	if r == nil || !r.term.Leads() {
		return nil
	}
	select {
	case <-r.resign:
		return nil
	default:
		return r
	}
}

// IsLeader says whether this process leads: false from the instant of the loss on, and
// Options.StopWithin before anybody else can lead (ELECT-002).
func (k *Candidate) IsLeader() bool { return k.current() != nil }

// Term is the current term of this process, or nil if it does not lead.
func (k *Candidate) Term() *Term {
	if r := k.current(); r != nil {
		return r.term
	}
	return nil
}

// Resign gives up the leadership, if this process has it, and returns when the lock is free:
// another candidate then leads at once. First end what this process does as the leader. After
// Options.Backoff it campaigns again. The error is that of the release, or ctx's cause.
func (k *Candidate) Resign(ctx context.Context) error {
	k.mu.Lock()
	r := k.reign
	if r != nil {
		select {
		case <-r.resign:
		default:
			close(r.resign)
		}
	}
	k.mu.Unlock()
	if r == nil {
		return nil
	}
	select {
	case <-r.over:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Done is closed when the candidate no longer campaigns; Err then says why.
func (k *Candidate) Done() <-chan struct{} { return k.done }

// Err is nil while the candidate campaigns and after Close, otherwise Run's error.
func (k *Candidate) Err() error {
	select {
	case <-k.done:
	default:
		return nil
	}
	if errors.Is(k.err, context.Canceled) {
		return nil
	}
	return k.err
}

// Close ends the campaign, and frees the lock if this process leads: first end what it does as
// the leader. The Locker stays open. The error is ctx's cause, if that ends first.
func (k *Candidate) Close(ctx context.Context) error {
	k.stop()
	select {
	case <-k.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Leader says who leads at this moment; ok is false if nobody does. It is for people: by the time
// it is read it may be wrong. The errors are those of Locker.Inspect.
func (k *Candidate) Leader(ctx context.Context) (leader Leader, ok bool, err error) {
	info, ok, err := k.c.l.Inspect(ctx, k.c.name)
	if err != nil || !ok {
		return Leader{}, false, err
	}
	return Leader{Owner: info.Owner, Token: info.Token, Remaining: info.Remaining}, true, nil
}

// Observe yields who leads, and then each change, until ctx ends; the zero Leader means nobody.
// It asks the store every Options.Poll, so that it may miss a short term of another process.
// While the store does not answer nothing is yielded. Observe ends at once if the backend cannot
// say who holds a lock.
func (k *Candidate) Observe(ctx context.Context) iter.Seq[Leader] {
	return func(yield func(Leader) bool) {
		var last Leader
		first := true
		poll := time.NewTicker(k.c.Poll)
		defer poll.Stop()
		for {
			k.mu.Lock()
			changed := k.changed
			k.mu.Unlock()
			now, _, err := k.Leader(ctx)
			switch {
			case ctx.Err() != nil, errors.Is(err, locker.ErrUnsupported), errors.Is(err, locker.ErrClosed):
				return
			case err == nil && (first || now.Token != last.Token):
				first, last = false, now
				if !yield(now) {
					return
				}
			}
			select {
			case <-poll.C:
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}
