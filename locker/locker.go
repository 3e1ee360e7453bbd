package locker

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// releaseTimeout bounds a release that no longer has the caller's ctx to bound it.
const releaseTimeout = 5 * time.Second

// Locker takes locks in one backend. Make one for the whole program with Open, share it, and
// close it at the end. Its methods are safe for concurrent use.
type Locker struct {
	_ [0]func() // cannot be compared, only its address can
	*core
	defaults settings
	unusable error // what is wrong with the namespace
}

// core is what the Lockers that Namespace makes of one have in common.
type core struct {
	backend driver.Backend
	caps    driver.Capabilities

	// What the backend can do beyond the five methods, found out once, in New.
	waiting waiting      // how a Lock waits, unless there is a hand
	hand    driver.Hand  // nil: the store may be slow, or elsewhere
	queues  *queues      // waiting, if the core waits
	leaver  leaver       // nil: Close of the backend frees nothing that was extended
	clock   sessionClock // nil: sessions end by Listener.Lost alone

	together driver.Together // nil: LockAll takes one key after the other

	observer Observer
	logger   *slog.Logger
	epoch    time.Time // where the Locker's clock begins

	instance [16]byte
	identity string // who we are, to people
	seq      sequence

	live       live // of a backend that is not local
	ops        gate // calls under way that use the backend; of a local one, those that are not quick
	background gate // clean-ups, queues, notices and extensions of kept leases under way
	notices    notices
	keeper     keeper
	cleanups   cleanups

	closing   context.Context // ends with errClosing when Close begins
	endWaits  context.CancelCauseFunc
	closeOnce sync.Once
	closed    chan struct{} // Close has finished
	closeErr  error
}

type (
	sessionClock = driver.SessionClock
	leaver       = driver.Leaver
)

// New makes a Locker over a backend that is already open. The Locker owns it from then on:
// Close closes it. Most programs use Open, or the New of a backend's package.
// cfg.Type and cfg.Backend must be empty; they are for Open. The errors are
// ErrInvalidArgument (a nil backend) and ErrInvalidConfig; the backend then stays open.
func New(b driver.Backend, cfg Config) (*Locker, error) {
	const op = "new"
	if _, ok := driver.As[driver.Backend](b); !ok {
		return nil, &Error{Op: op, Code: CodeInvalidArgument, Err: errors.New("the backend is nil")}
	}
	if cfg.Type != "" || cfg.Backend != nil || cfg.sources.SayBackend() {
		return nil, &Error{Op: op, Code: CodeInvalidConfig, Err: errors.New("type, backend: they are for Open; this backend is open already")}
	}
	set, err := cfg.settings()
	if err != nil {
		return nil, &Error{Op: op, Code: CodeInvalidConfig, Err: err}
	}
	l := &core{
		backend: b, caps: b.Capabilities(),
		observer: cfg.Observer, logger: cfg.Logger, identity: cmp.Or(cfg.Identity, defaultIdentity()),
		epoch: time.Now(), closed: make(chan struct{}),
	}
	if _, err := rand.Read(l.instance[:]); err != nil {
		return nil, &Error{Op: op, Code: CodeUnavailable, Err: fmt.Errorf("no randomness for the owner's identity: %w", err)}
	}
	l.live.seed = maphash.MakeSeed()
	l.detect()
	l.closing, l.endWaits = context.WithCancelCause(context.Background())
	l.ops.open()
	l.background.open()
	return &Locker{core: l, defaults: set}, nil
}

// detect finds what the backend can do.
func (l *core) detect() {
	b := l.backend
	l.clock, _ = driver.As[driver.SessionClock](b)
	l.leaver, _ = driver.As[driver.Leaver](b)
	l.together, _ = driver.As[driver.Together](b)
	if local, ok := driver.As[driver.Local](b); ok {
		l.epoch, l.hand = local.Epoch(), local.Attach(l.instance, l.identity)
	}
	if waiter, ok := driver.As[driver.Waiter](b); ok {
		l.waiting = native{l, waiter}
		return
	}
	l.queues = &queues{l: l, queued: b.Acquire}
	l.queues.notifier, _ = driver.As[driver.Notifier](b)
	l.queues.handoff, _ = driver.As[driver.Handoff](b)
	if queuer, ok := driver.As[driver.Queuer](b); ok {
		l.queues.queued = queuer.Queue
	}
	l.waiting = l.queues
}

// Namespace returns a Locker that puts ns and a colon before every key, in every method:
// l.Namespace("billing").Lock(ctx, "42") takes billing:42. WithNamespace overrides it for one
// call. The Locker shares the backend, the holds and the settings of l; closing
// either closes both. If ns is not valid, its calls return ErrInvalidKey.
func (l *Locker) Namespace(ns string) *Locker {
	if !l.made() {
		return l
	}
	in := *l
	in.defaults.namespace, in.defaults.inNamespace = ns, true
	in.unusable = checkNamespace(ns)
	return &in
}

// Capabilities reports what this Locker's backend can do.
func (l *Locker) Capabilities() driver.Capabilities {
	if !l.made() {
		return driver.Capabilities{}
	}
	return l.caps
}

// Lock waits for the lock on key and returns the hold: a lease if there is a ttl (WithTTL, or
// Config.TTL), otherwise a session. The key is used without a namespace; see LockNS and
// Namespace.
//
// ctx bounds the waiting only; the hold lives on after it (CTX-002). Retry limits the
// waiting too; by default Lock waits until ctx ends, through contention and outages. The
// error then matches the ctx's error and the last obstacle, ErrHeld or ErrUnavailable
// (CTX-003).
//
// Other errors: ErrInvalidKey, ErrInvalidTTL, ErrInvalidConfig (a wrong Retry) and
// ErrInvalidArgument (a nil ctx), before any I/O; ErrClosed; and ErrLost, if the hold was
// granted but taken away before the answer came. Whatever the error, nothing stays held.
func (l *Locker) Lock(ctx context.Context, key string, opts ...Option) (*Lease, error) {
	return l.lock(ctx, "lock", key, false, true, opts)
}

// TryLock makes one attempt. If another owner holds the key it returns ErrHeld rather than
// wait. ctx bounds the attempt; the other errors are Lock's.
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

// Key returns the namespace, a colon, and key. The namespace is ns, of which there is at most
// one, or else the Locker's. It holds no colon, so that no two namespaces share a key. The
// error is ErrInvalidKey: the namespace is not valid, key is empty, or the whole is
// longer than MaxKey.
func (l *Locker) Key(key string, ns ...string) (string, error) {
	const op = "key"
	if !l.made() {
		return "", errNoLocker(op)
	}
	if l.unusable != nil {
		return "", l.fail(op, key, CodeInvalidKey, l.unusable)
	}
	space := l.defaults.namespace
	switch len(ns) {
	case 0:
	case 1:
		if err := checkNamespace(ns[0]); err != nil {
			return "", &Error{Op: op, Key: key, Code: CodeInvalidKey, Err: err}
		}
		space = ns[0]
	default:
		return "", &Error{Op: op, Key: key, Code: CodeInvalidKey, Err: fmt.Errorf("namespace: %d are given; at most one is allowed", len(ns))}
	}
	full, bad := joinKey(space, key)
	if bad != nil {
		bad.Op = op
		return "", bad
	}
	return full, nil
}

func joinKey(ns, key string) (string, *Error) {
	if err := checkKey(key); err != nil {
		return "", &Error{Key: key, Code: CodeInvalidKey, Err: err}
	}
	full := ns + ":" + key
	if err := checkKey(full); err != nil {
		return "", &Error{Key: key, Code: CodeInvalidKey, Err: fmt.Errorf("with its namespace %w", err)}
	}
	return full, nil
}

// lock is behind all four: argument checks, defaults, one attempt, then waiting.
func (l *Locker) lock(ctx context.Context, op, key string, inNamespace, wait bool, opts []Option) (*Lease, error) {
	if !l.made() {
		return nil, errNoLocker(op)
	}
	set := l.defaults
	if l.unusable != nil {
		return nil, l.fail(op, key, CodeInvalidKey, l.unusable)
	}
	set.inNamespace = set.inNamespace || inNamespace
	key, bad := l.check(ctx, key, &set, opts)
	if bad != nil {
		bad.Op, bad.Backend = op, l.caps.Name
		return nil, bad
	}
	if l.hand == nil || l.observed() { // Close waits for the Observer
		if !l.ops.enter() {
			return nil, l.fail(op, key, CodeClosed, nil)
		}
		defer l.ops.leave()
	}
	if !wait {
		set.retry.Attempts = 0
	}
	var began time.Duration
	if l.observed() {
		began = l.now() // nobody else asks how long it took, and reading the clock takes its time
	}
	s, waited, err := l.acquire(ctx, key, &set)
	if err != nil {
		err = l.lockError(ctx, op, key, err)
	} else if set.keep || set.label != "" {
		with := set // so that set itself need not escape
		s.prepare(&with)
	}
	if l.observed() {
		l.tellLock(ctx, key, &set, s, waited, l.now()-began, err)
	}
	return s, err
}

// acquire gets a hold, in the way that the backend allows.
func (l *core) acquire(ctx context.Context, key string, set *settings) (s *Lease, waited bool, err error) {
	if l.hand != nil {
		return l.take(ctx, key, set)
	}
	a, err := l.waiting.acquire(ctx, l.newAttempt(key, set), set.retry)
	if err != nil {
		a.giveBack()
		return nil, a.waited, err
	}
	return a.lease, a.waited, nil
}

// check is what can be said of a call's arguments before any I/O. It returns the whole key.
func (l *core) check(ctx context.Context, key string, set *settings, opts []Option) (string, *Error) {
	if ctx == nil {
		return key, &Error{Key: key, Code: CodeInvalidArgument, Err: errNilContext}
	}
	if len(opts) > 0 {
		if bad := set.change(opts); bad != nil {
			bad.Key = key
			return key, bad
		}
	}
	if set.inNamespace {
		full, bad := joinKey(set.namespace, key)
		if bad != nil {
			return key, bad
		}
		key = full
	} else if err := checkKey(key); err != nil {
		return key, &Error{Key: key, Code: CodeInvalidKey, Err: err}
	}
	if set.ttl != 0 && set.ttl < l.caps.MinTTL {
		return key, &Error{Key: key, Code: CodeInvalidTTL, Err: l.tooShort(set.ttl)}
	}
	if set.keep && set.ttl == 0 {
		return key, &Error{Key: key, Code: CodeInvalidTTL, Err: errors.New("keepAlive: a session has no ttl to keep; give one with WithTTL")}
	}
	if ctx.Err() != nil {
		return key, &Error{Key: key, Code: CodeCanceled, Err: ctxError(ctx)}
	}
	return key, nil
}

func (l *core) tooShort(ttl time.Duration) error {
	return fmt.Errorf("%s is below %s, the shortest that %s can keep", ttl, l.caps.MinTTL, l.caps.Name)
}

// now is the time on the Locker's own monotonic clock.
func (l *core) now() time.Duration { return time.Since(l.epoch) }

// Ping returns nil if the backend can grant locks now, as far as it can tell, and otherwise
// ErrUnavailable, or ErrClosed; ErrUnsupported if the backend has no way to tell.
func (l *Locker) Ping(ctx context.Context) error {
	const op = "ping"
	p, err := ability[driver.Pinger](l, ctx, op)
	if err != nil {
		return err
	}
	if !l.ops.enter() {
		return l.fail(op, "", CodeClosed, nil)
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
		return none, l.fail(op, "", CodeInvalidArgument, errNilContext)
	case ctx.Err() != nil:
		return none, l.fail(op, "", CodeCanceled, ctxError(ctx))
	}
	t, ok := driver.As[T](l.backend)
	if !ok {
		return none, l.fail(op, "", CodeUnsupported, nil)
	}
	return t, nil
}

// made says whether l came from New or Open.
func (l *Locker) made() bool { return l != nil && l.core != nil }

func (l *core) fail(op, key string, code Code, err error) error {
	return &Error{Op: op, Key: key, Backend: l.caps.Name, Code: code, Err: err}
}

func errNoLocker(op string) error {
	return &Error{Op: op, Code: CodeInvalidArgument, Err: errors.New("the Locker is nil or was not made by New or Open")}
}
