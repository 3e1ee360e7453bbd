package locker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// releaseTimeout bounds a release that no longer has the caller's ctx to bound it.
const releaseTimeout = 5 * time.Second

// Locker hands out holds of one backend. Make it once and share it: all methods may
// be called by any number of goroutines at the same time. Close it at the end.
type Locker struct {
	backend  driver.Backend
	caps     driver.Capabilities
	waiter   driver.Waiter   // nil: the core waits
	local    driver.Local    // nil: the store may be slow, or elsewhere
	notifier driver.Notifier // nil: by its timer alone
	passer   driver.Passer   // nil: a hold is released before the next one is granted

	defaults settings
	observer Observer
	logger   *slog.Logger
	epoch    time.Time // where the Locker's clock begins

	instance [16]byte
	seq      sequence

	live       live // of a backend that is not local
	ops        gate // calls under way that use the backend; of a local one, those that are not quick
	background gate // clean-ups and notices under way
	losses     losses
	cleanups   cleanups
	queues     queues

	closing   context.Context // ends with errClosing when Close begins
	endWaits  context.CancelCauseFunc
	closeOnce sync.Once
	closed    chan struct{} // Close has finished
	closeErr  error
}

// New makes a Locker over a backend that is already open, and owns it from then on:
// Close closes it. Most programs use Open, or the New of a backend's package.
// cfg.Type and cfg.Backend belong to Open and must be left out. The errors are
// ErrInvalidArgument (a nil backend) and ErrInvalidConfig; the backend is then still open.
func New(b driver.Backend, cfg Config) (*Locker, error) {
	const op = "new"
	if _, ok := driver.As[driver.Backend](b); !ok {
		return nil, &Error{Op: op, Code: InvalidArgument, Err: errors.New("the backend is nil")}
	}
	if cfg.Type != "" || cfg.Backend != nil || len(cfg.layers) > 0 {
		return nil, &Error{Op: op, Code: InvalidConfig, Err: errors.New("type, backend: they are for Open; this backend is open already")}
	}
	set, err := cfg.settings()
	if err != nil {
		return nil, &Error{Op: op, Code: InvalidConfig, Err: err}
	}
	l := &Locker{
		backend: b, caps: b.Capabilities(), defaults: set,
		observer: cfg.Observer, logger: cfg.Logger,
		epoch: time.Now(), closed: make(chan struct{}),
	}
	if _, err := rand.Read(l.instance[:]); err != nil {
		return nil, &Error{Op: op, Code: Unavailable, Err: fmt.Errorf("no randomness for the owner's identity: %w", err)}
	}
	l.waiter, _ = driver.As[driver.Waiter](b)
	l.notifier, _ = driver.As[driver.Notifier](b)
	l.passer, _ = driver.As[driver.Passer](b)
	if l.local, _ = driver.As[driver.Local](b); l.local != nil {
		l.epoch = l.local.Epoch()
	}
	l.closing, l.endWaits = context.WithCancelCause(context.Background())
	l.ops.open()
	l.background.open()
	return l, nil
}

// Capabilities says what this Locker's backend can do.
func (l *Locker) Capabilities() driver.Capabilities {
	if l == nil {
		return driver.Capabilities{}
	}
	return l.caps
}

// Lock waits for the lock on key, which is taken as it is (see LockNS), and returns
// the hold: a lease with a ttl (WithTTL, or Config.TTL), otherwise a session.
//
// ctx bounds the waiting only; the hold lives on after it (CTX-002). Retry says how
// patient the waiting is; the default waits until ctx ends, through contention and
// outages. The error then matches the ctx's error and the last obstacle, ErrHeld or
// ErrUnavailable (CTX-003).
//
// Further errors: ErrInvalidKey, ErrInvalidTTL, ErrInvalidConfig (a wrong Retry) and
// ErrInvalidArgument (a nil ctx) before any I/O; ErrClosed; and ErrLost when the hold was
// granted but was over before the answer came. Whatever the error, nothing stays held.
func (l *Locker) Lock(ctx context.Context, key string, opts ...Option) (*Lease, error) {
	return l.lock(ctx, "lock", key, false, true, opts)
}

// TryLock makes one attempt and never waits for another holder: ErrHeld. It ends with
// ctx; its other errors are Lock's.
func (l *Locker) TryLock(ctx context.Context, key string, opts ...Option) (*Lease, error) {
	return l.lock(ctx, "trylock", key, false, false, opts)
}

// LockNS is Lock on Key(key): the namespace, a colon, and key.
func (l *Locker) LockNS(ctx context.Context, key string, opts ...Option) (*Lease, error) {
	return l.lock(ctx, "lock", key, true, true, opts)
}

// TryLockNS is TryLock on Key(key).
func (l *Locker) TryLockNS(ctx context.Context, key string, opts ...Option) (*Lease, error) {
	return l.lock(ctx, "trylock", key, true, false, opts)
}

// Key is the namespace, a colon, and key. The namespace is ns, or the Locker's; it
// holds no colon, so that no two namespaces share a key. At most one ns. The error is
// ErrInvalidKey: the namespace is not usable, or key is empty, or the whole is longer
// than MaxKey.
func (l *Locker) Key(key string, ns ...string) (string, error) {
	const op = "key"
	if !l.made() {
		return "", errNoLocker(op)
	}
	space := l.defaults.namespace
	switch len(ns) {
	case 0:
	case 1:
		if err := checkNamespace(ns[0]); err != nil {
			return "", &Error{Op: op, Key: key, Code: InvalidKey, Err: err}
		}
		space = ns[0]
	default:
		return "", &Error{Op: op, Key: key, Code: InvalidKey, Err: fmt.Errorf("namespace: %d are given; at most one is allowed", len(ns))}
	}
	return joinKey(op, space, key)
}

func joinKey(op, ns, key string) (string, error) {
	if err := checkKey(key); err != nil {
		return "", &Error{Op: op, Key: key, Code: InvalidKey, Err: err}
	}
	full := ns + ":" + key
	if err := checkKey(full); err != nil {
		return "", &Error{Op: op, Key: key, Code: InvalidKey, Err: fmt.Errorf("with its namespace %w", err)}
	}
	return full, nil
}

// lock is behind all four: argument checks, defaults, one attempt, then waiting.
func (l *Locker) lock(ctx context.Context, op, key string, prefix, wait bool, opts []Option) (*Lease, error) {
	if !l.made() {
		return nil, errNoLocker(op)
	}
	if ctx == nil {
		return nil, l.fail(op, key, InvalidArgument, errNilContext)
	}
	set := l.defaults
	if len(opts) > 0 {
		if bad := set.change(opts); bad != nil {
			bad.Op, bad.Key, bad.Backend = op, key, l.caps.Name
			return nil, bad
		}
	}
	if prefix {
		full, err := joinKey(op, set.namespace, key)
		if err != nil {
			return nil, err
		}
		key = full
	} else if err := checkKey(key); err != nil {
		return nil, l.fail(op, key, InvalidKey, err)
	}
	if ctx.Err() != nil {
		return nil, l.fail(op, key, Canceled, ctxError(ctx))
	}
	if l.local == nil || l.observed() { // Close waits for the Observer
		if !l.ops.enter() {
			return nil, l.fail(op, key, Closed, nil)
		}
		defer l.ops.leave()
	}

	var began time.Duration
	if l.observed() {
		began = l.now() // nobody else asks how long it took, and reading the clock takes its time
	}
	s := l.newLease(key, set.ttl, set.drift)
	if !wait {
		set.retry.Attempts = 0
	}
	var waited bool
	var err error
	switch {
	case l.local != nil:
		waited, err = l.acquireHere(ctx, s, &set.retry)
	case set.retry.Attempts != 0:
		waited, err = l.acquireOrWait(ctx, s, set.retry)
	default:
		err = l.attempt(ctx, s, l.backend.Acquire, false)
	}
	if err != nil {
		l.giveUp(s)
		err = l.lockError(ctx, op, key, err)
		if waited && set.retry.Attempts != 0 && l.observed() {
			l.emit(ctx, Event{Kind: EventWaited, Key: key, Session: s.session, TTL: set.ttl, Waited: l.now() - began, Err: err})
		}
		return nil, err
	}
	if l.observed() {
		l.emit(ctx, Event{Kind: EventAcquired, Key: key, Token: s.token, Session: s.session, TTL: set.ttl, Waited: l.now() - began})
		s.told()
	}
	return s, nil
}

func (l *Locker) newLease(key string, ttl time.Duration, drift float64) *Lease {
	var s *Lease
	if l.local != nil && drift == 0 {
		s = new(Lease)
	} else { // it will need its extra: one allocation for both
		both := new(struct {
			Lease
			extra
		})
		both.Lease.extra, both.extra.drift = &both.extra, drift
		s = &both.Lease
	}
	s.l, s.key, s.seq, s.deadline, s.session = l, key, l.seq.next(key), ttl, ttl == 0
	return s
}

// sequence hands out numbers, none of them twice. It is striped by key, because a
// single counter would be a cache line that all processors want in every Lock.
type sequence [stripes]struct {
	_ [120]byte // a cache line each, and none that holds what every Lock reads; they are fetched in pairs
	atomic.Uint64
}

const stripes = 16

func (q *sequence) next(key string) uint64 {
	stripe := uint64(key[len(key)-1]^key[len(key)/2]) % stripes
	return q[stripe].Add(1)*stripes + stripe
}

// attempt calls the backend once, through its Acquire or its Wait, and makes s a hold
// if it was granted. waiting says whether it is one of those that Lock makes while it waits.
// After an error whose outcome is unknown, s.unknown is set: then the attempt must be
// repeated with the same s, or taken back with giveUp.
func (l *Locker) attempt(ctx context.Context, s *Lease, acquire func(context.Context, driver.Request) (driver.Grant, error), waiting bool) error {
	var hold driver.Listener = (*listener)(s)
	if s.unknown {
		hold = s.again()
	}
	sent := l.now()
	r := driver.Request{Key: s.key, Owner: s.owner(), TTL: s.asked(), Hold: hold, Waiting: waiting}
	if l.local != nil {
		r.Sent = sent // by any other clock than the backend's own it would be nonsense
	}
	g, err := acquire(ctx, r)
	if err != nil {
		return s.refused(err)
	}
	return l.grant(s, &g, sent)
}

// attemptHere is the first attempt on a local backend: the same, without what a pair of Lock
// and Unlock that takes 200 ns would feel.
func (l *Locker) attemptHere(ctx context.Context, s *Lease, wait bool) (err error) {
	// It is put together before the clock is read: passed on at once, its copy would have to wait
	// for what was written just before, for 20 ns.
	r := driver.Request{Key: s.key, TTL: s.asked(), Hold: (*listener)(s)}
	r.Owner.Instance, r.Owner.Seq = l.instance, s.seq
	if !s.session {
		r.Sent = l.now()
	}
	var g driver.Grant
	if wait {
		g, err = l.waiter.Wait(ctx, r)
	} else {
		g, err = l.backend.Acquire(ctx, r)
	}
	if err != nil {
		return s.refused(err)
	}
	return l.grant(s, &g, r.Sent)
}

// grant turns what the backend granted into a live hold.
func (l *Locker) grant(s *Lease, g *driver.Grant, sent time.Duration) error {
	if !g.From.IsZero() {
		sent = g.From.Sub(l.epoch)
	}
	s.mu.Lock()
	deadline := l.localDeadline(sent, g.TTL, s.seldom().drift) // Lost may be making the extra
	s.unknown = false
	s.token, s.ref = g.Token, g.Ref
	if g.Owner != (driver.Owner{}) {
		s.seq = g.Owner.Seq // it was passed on, and the store knows it by this name
	}
	switch {
	case s.reason != 0: // the backend announced its loss already, or Close came between
	case !s.session && l.local == nil && l.now() >= deadline: // a local one takes no time
		s.reason = ReasonExpired
	case l.local == nil && !l.live.add(s):
		s.reason = ReasonClosed
	default:
		s.granted = true
		s.setDeadline(deadline)
		s.mu.Unlock()
		return nil
	}
	defer s.mu.Unlock()
	l.abandon(s.holder(), s.longest())
	if s.reason == ReasonClosed {
		return driver.ErrClosed
	}
	return fmt.Errorf("the hold was granted, but ended before the answer came, %s after it was asked for: %w", l.now()-sent, driver.ErrLost)
}

// lockError makes the error of Lock and TryLock out of the last obstacle.
func (l *Locker) lockError(ctx context.Context, op, key string, err error) error {
	code := codeOf(err)
	if code == Unavailable && l.closing.Err() != nil {
		return l.fail(op, key, Closed, nil) // Close ended the attempt
	}
	if code == Held || code == Unavailable {
		err = withContext(ctx, err)
	}
	return l.fail(op, key, code, err)
}

// now is the time on the Locker's own monotonic clock.
func (l *Locker) now() time.Duration { return time.Since(l.epoch) }

// localDeadline is when a hold of ttl that was asked for at sent is over for this
// process: earlier than for the backend, by the way there and by the drift (TTL-002).
func (l *Locker) localDeadline(sent, ttl time.Duration, drift float64) time.Duration {
	if drift == 0 {
		if l.caps.Has.Has(driver.LocalClock) {
			return sent + ttl
		}
		drift = DefaultDriftFactor
	}
	return sent + ttl - time.Duration(float64(ttl)*drift)
}

// keepsTime says whether the core must end s by a timer of its own: not where the
// backend times holds by the same clock and s asks for no drift allowance.
func (l *Locker) keepsTime(s *Lease) bool {
	return s.seldom().drift != 0 || !l.caps.Has.Has(driver.LocalClock)
}

// Inspect says who holds key at this moment, or ok == false when it is free. It is
// for people: by the time it is read it may be wrong. key is taken as it is (see Key).
// ErrUnsupported if the backend cannot say, otherwise ErrUnavailable, ErrClosed or
// ErrInvalidKey.
func (l *Locker) Inspect(ctx context.Context, key string) (info driver.Info, ok bool, err error) {
	const op = "inspect"
	i, err := ability[driver.Inspector](l, ctx, op)
	if err != nil {
		return driver.Info{}, false, err
	}
	if err := checkKey(key); err != nil {
		return driver.Info{}, false, l.fail(op, key, InvalidKey, err)
	}
	if !l.ops.enter() {
		return driver.Info{}, false, l.fail(op, key, Closed, nil)
	}
	defer l.ops.leave()
	info, ok, err = i.Inspect(ctx, key)
	if err != nil {
		return driver.Info{}, false, l.fail(op, key, codeOf(err), withContext(ctx, err))
	}
	return info, ok, nil
}

// Ping says whether the backend answers: nil, or ErrUnavailable, ErrClosed, or
// ErrUnsupported where the backend cannot say.
func (l *Locker) Ping(ctx context.Context) error {
	const op = "ping"
	p, err := ability[driver.Pinger](l, ctx, op)
	if err != nil {
		return err
	}
	if !l.ops.enter() {
		return l.fail(op, "", Closed, nil)
	}
	defer l.ops.leave()
	if err := p.Ping(ctx); err != nil {
		return l.fail(op, "", codeOf(err), withContext(ctx, err))
	}
	return nil
}

func ability[T any](l *Locker, ctx context.Context, op string) (T, error) {
	var none T
	switch {
	case !l.made():
		return none, errNoLocker(op)
	case ctx == nil:
		return none, l.fail(op, "", InvalidArgument, errNilContext)
	case ctx.Err() != nil:
		return none, l.fail(op, "", Canceled, ctxError(ctx))
	}
	t, ok := driver.As[T](l.backend)
	if !ok {
		return none, l.fail(op, "", Unsupported, nil)
	}
	return t, nil
}

// Close ends the Locker: no new holds (CLO-001), waiters wake with ErrClosed
// (CLO-002), what is still held ends with that cause and is released, best effort,
// within ctx (CLO-003), and the backend is closed with all it has (CLO-004). Calling
// it again waits for the first call and returns its result.
//
// The error says how many holds could not be released; they end by their ttl or
// validity.
func (l *Locker) Close(ctx context.Context) error {
	const op = "close"
	if !l.made() {
		return errNoLocker(op)
	}
	if ctx == nil {
		return l.fail(op, "", InvalidArgument, errNilContext)
	}
	first := false
	l.closeOnce.Do(func() { first = true })
	if !first {
		select {
		case <-l.closed:
			return l.closeErr
		default:
		}
		select {
		case <-l.closed:
			return l.closeErr
		case <-ctx.Done():
			return l.fail(op, "", Canceled, ctxError(ctx))
		}
	}
	defer close(l.closed)

	l.endWaits(errClosing)
	// Every hold has ended before ops is shut: who finds ops shut, finds its hold ended.
	held := l.live.shut()
	if l.local != nil {
		held = holdsOf(l.local.Shut())
	}
	held = endAll(held)
	l.ops.shut()
	errs := l.releaseAll(ctx, held)

	// What is under way gets a little time to end by itself, clean-ups last because the
	// others start them; then the backend's Close ends it.
	_ = l.settle(ctx, releaseTimeout)
	if err := l.backend.Close(ctx); err != nil {
		errs = append(errs, fmt.Errorf("backend: %w", err))
	}
	if err := l.settle(context.WithoutCancel(ctx), time.Second); err != nil {
		errs = append(errs, fmt.Errorf("calls are still under way: %w", err))
	}
	if len(errs) > 0 {
		l.closeErr = l.fail(op, "", Unavailable, errors.Join(errs...))
	}
	return l.closeErr
}

// endAll ends all of holds for good and returns those that were live.
func endAll(holds []*Lease) (live []*Lease) {
	return slices.DeleteFunc(holds, func(s *Lease) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.checkDeadline()
		if s.reason != 0 {
			return true // an Unlock or a loss was quicker
		}
		s.end(ReasonClosed, nil)
		return !s.granted // its Lock will find it, and give it back
	})
}

// settle waits until nothing is under way, for as long as limit at most. The background
// is shut only when nobody is left who might need it, or when it is given up.
func (l *Locker) settle(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := l.ops.wait(ctx)
	if err == nil {
		l.background.shut()
		err = l.background.wait(ctx)
	}
	return err
}

// releaseAll releases what Close found held, several at a time.
func (l *Locker) releaseAll(ctx context.Context, held []*Lease) []error {
	const workers = 64
	var (
		next   atomic.Int64
		failed atomic.Int64
		last   atomic.Pointer[error]
		wg     sync.WaitGroup
	)
	for range min(workers, len(held)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(held) {
					return
				}
				s := held[i]
				err := l.backend.Release(ctx, s.holder())
				if err != nil && !errors.Is(err, driver.ErrLost) {
					failed.Add(1)
					last.Store(&err)
				}
				if err != nil {
					err = s.fail("close", codeOf(err), err)
				}
				s.tellRelease(ctx, ReasonClosed, err)
			}
		}()
	}
	wg.Wait()
	if failed.Load() == 0 {
		return nil
	}
	return []error{fmt.Errorf("%d of %d holds were not released: %w", failed.Load(), len(held), *last.Load())}
}

// made says whether l came from New or Open.
func (l *Locker) made() bool { return l != nil && l.backend != nil }

func (l *Locker) fail(op, key string, code Code, err error) error {
	return &Error{Op: op, Key: key, Backend: l.caps.Name, Code: code, Err: err}
}

func errNoLocker(op string) error {
	return &Error{Op: op, Code: InvalidArgument, Err: errors.New("the Locker is nil or was not made by New or Open")}
}

// ctxError matches ctx.Err() and, where it differs, context.Cause(ctx).
func ctxError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if err == nil || errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// withContext adds the ctx's error to err, if it has ended and err does not say so.
func withContext(ctx context.Context, err error) error {
	if ctx.Err() == nil || errors.Is(err, ctx.Err()) && errors.Is(err, context.Cause(ctx)) {
		return err
	}
	return fmt.Errorf("%w: %w", err, ctxError(ctx))
}
