package locker_test

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// fake is a backend in memory for these tests. Its hook stands between the core and the
// store: it can lose replies, be unavailable, or be slow. Zero value: a store with a clock
// of its own, which announces no loss.
type fake struct {
	caps  driver.Capabilities
	quiet bool // ErrHeld without the holder's rest

	mu     sync.Mutex
	hook   hook
	holds  map[string]*fakeHold
	token  uint64
	calls  []string // "acquire key", in order
	wakes  map[string]func()
	closed bool
}

// hook gets each call; do carries it out in the store.
type hook func(ctx context.Context, op, key string, do func() error) error

type fakeHold struct {
	driver.Request // what was asked for first
	owner          driver.Owner
	token          uint64
	ttl            time.Duration
	until          time.Time // zero: a session
	listener       driver.Listener
}

func (f *fake) run(ctx context.Context, op, key string, do func() error) error {
	f.mu.Lock()
	f.calls = append(f.calls, op+" "+key)
	h, closed := f.hook, f.closed
	f.mu.Unlock()
	if closed {
		return driver.ErrClosed
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	locked := func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		return do()
	}
	if h != nil {
		return h(ctx, op, key, locked)
	}
	return locked()
}

func (f *fake) live(key string) *fakeHold {
	h := f.holds[key]
	if h != nil && !h.until.IsZero() && !time.Now().Before(h.until) {
		delete(f.holds, key)
		return nil
	}
	return h
}

func (f *fake) Acquire(ctx context.Context, r driver.Request) (g driver.Grant, err error) {
	err = f.run(ctx, "acquire", r.Key, func() error {
		h := f.live(r.Key)
		if h == nil {
			f.token++
			h = &fakeHold{Request: r, owner: r.Owner, token: f.token}
			if f.holds == nil {
				f.holds = make(map[string]*fakeHold)
			}
			f.holds[r.Key] = h
		} else if h.owner != r.Owner {
			if f.quiet || h.until.IsZero() {
				return driver.ErrHeld
			}
			return driver.Held(time.Until(h.until))
		}
		h.ttl, h.listener = r.TTL, r.Hold
		if r.TTL > 0 {
			h.until = time.Now().Add(r.TTL)
		}
		g = driver.Grant{Token: h.token, TTL: r.TTL}
		return nil
	})
	return g, err
}

func (f *fake) Extend(ctx context.Context, h driver.Holder, ttl time.Duration) (g driver.Grant, err error) {
	err = f.run(ctx, "extend", h.Key, func() error {
		held := f.live(h.Key)
		if held == nil || held.owner != h.Owner {
			return driver.ErrLost
		}
		held.until = time.Now().Add(ttl)
		g = driver.Grant{Token: held.token, TTL: ttl}
		return nil
	})
	return g, err
}

func (f *fake) Release(ctx context.Context, h driver.Holder) error {
	return f.run(ctx, "release", h.Key, func() error {
		held := f.live(h.Key)
		if held == nil || held.owner != h.Owner {
			return driver.ErrLost
		}
		delete(f.holds, h.Key)
		if wake := f.wakes[h.Key]; wake != nil {
			wake()
		}
		return nil
	})
}

func (f *fake) Capabilities() driver.Capabilities {
	c := f.caps
	if c.Name == "" {
		c.Name = "fake"
	}
	return c
}

func (f *fake) Close(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errors.New("closed twice")
	}
	f.closed = true
	return nil
}

func (f *fake) info(key string) (info driver.Info, ok bool) {
	if h := f.live(key); h != nil {
		info, ok = driver.Info{Key: key, Owner: h.owner.String(), Identity: h.Identity, Note: h.Note,
			Token: h.token, Session: h.until.IsZero(), Remaining: h.ttl}, true
	}
	return info, ok
}

func (f *fake) Inspect(ctx context.Context, key string) (info driver.Info, ok bool, err error) {
	err = f.run(ctx, "inspect", key, func() error {
		info, ok = f.info(key)
		return nil
	})
	return info, ok, err
}

// List asks for each key anew, as a store does that tells them a page at a time.
func (f *fake) List(ctx context.Context, prefix string) iter.Seq2[driver.Info, error] {
	return func(yield func(driver.Info, error) bool) {
		f.mu.Lock()
		keys := slices.Sorted(maps.Keys(f.holds))
		f.mu.Unlock()
		for _, key := range keys {
			var info driver.Info
			var ok bool
			if !strings.HasPrefix(key, prefix) {
				continue
			}
			err := f.run(ctx, "list", key, func() error {
				info, ok = f.info(key)
				return nil
			})
			if err != nil {
				yield(driver.Info{}, err)
				return
			}
			if ok && !yield(info, nil) {
				return
			}
		}
	}
}

func (f *fake) Break(ctx context.Context, key string, token uint64) error {
	return f.run(ctx, "break", key, func() error {
		h := f.live(key)
		if h == nil || h.token != token {
			return driver.ErrLost
		}
		delete(f.holds, key)
		h.listener.Lost(driver.ErrBroken)
		if wake := f.wakes[key]; wake != nil {
			wake()
		}
		return nil
	})
}

func (f *fake) Ping(ctx context.Context) error {
	return f.run(ctx, "ping", "", func() error { return nil })
}

// notifying is a fake that hints.
type notifying struct{ *fake }

func (n notifying) Notify(key string, wake func()) (stop func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.wakes[key] != nil {
		panic("two registrations for one key at a time")
	}
	if n.wakes == nil {
		n.wakes = make(map[string]func())
	}
	n.wakes[key] = wake
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.wakes, key)
	}
}

// waiting is a fake that waits by itself, without fairness.
type waiting struct{ *fake }

func (w waiting) Wait(ctx context.Context, r driver.Request) (driver.Grant, error) {
	for {
		sent := time.Now()
		g, err := w.Acquire(ctx, r)
		if !errors.Is(err, driver.ErrHeld) {
			g.From = sent
			return g, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return driver.Grant{}, errors.Join(driver.ErrHeld, ctx.Err())
		}
	}
}

// plain hides everything optional of a fake.
type plain struct{ driver.Backend }

// set changes the hook while the fake is in use.
func (f *fake) set(h hook) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = h
}

// take makes somebody else hold key; ttl 0 is for ever.
func (f *fake) take(key string, ttl time.Duration) (release func()) {
	o := driver.Owner{Instance: [16]byte{1}}
	r := driver.Request{Key: key, Owner: o, TTL: ttl}
	h := f.hook
	f.set(nil)
	if _, err := f.Acquire(context.Background(), r); err != nil {
		panic(err)
	}
	f.set(h)
	return func() { _ = f.Release(context.Background(), driver.Holder{Key: key, Owner: o}) }
}

// lose takes the hold on key away, as an administrator would, and says so.
func (f *fake) lose(key string, cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.holds[key]
	delete(f.holds, key)
	h.listener.Lost(cause) // under the mutex: it may be
}

func (f *fake) held(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.live(key) != nil
}

// count is how many calls of op there were.
func (f *fake) count(op string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if strings.HasPrefix(c, op+" ") {
			n++
		}
	}
	return n
}

func (f *fake) nothingHeld(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.holds {
		if f.live(key) != nil {
			t.Errorf("key %.40q is still held", key)
		}
	}
}

// The hooks.

func unavailable(_ context.Context, op, _ string, _ func() error) error {
	return errors.Join(driver.ErrUnavailable, errors.New(op+": connection refused"))
}

// only applies h to one operation.
func only(which string, h hook) hook {
	return func(ctx context.Context, op, key string, do func() error) error {
		if op == which {
			return h(ctx, op, key, do)
		}
		return do()
	}
}

// lostReply carries the call out and loses the answer.
func lostReply(_ context.Context, op, _ string, do func() error) error {
	_ = do()
	return errors.New(op + ": connection reset")
}

// slow takes d for the way there and d for the way back.
func slow(d time.Duration) hook {
	return func(ctx context.Context, _, _ string, do func() error) error {
		if err := sleep(ctx, d); err != nil {
			return err
		}
		if err := do(); err != nil {
			return err
		}
		return sleep(ctx, d)
	}
}

// hung does nothing until ctx ends.
func hung(ctx context.Context, _, _ string, _ func() error) error {
	<-ctx.Done()
	return ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newLocker(t testing.TB, b driver.Backend, cfg locker.Config) *locker.Locker {
	t.Helper()
	l, err := locker.New(b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(context.Background()) })
	return l
}

func mustLock(t testing.TB, l *locker.Locker, key string, opts ...locker.Option) *locker.Lease {
	t.Helper()
	s, err := l.TryLock(context.Background(), key, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantError checks that err is an *Error with the code, and matches all of targets.
func wantError(t testing.TB, err error, code locker.Code, targets ...error) {
	t.Helper()
	var e *locker.Error
	if !errors.As(err, &e) {
		t.Errorf("got %v, want an *Error with code %v", err, code)
		return
	}
	if e.Code != code {
		t.Errorf("got code %v of %q, want %v", e.Code, err, code)
	}
	if e.Op == "" || !strings.HasPrefix(err.Error(), "lockstep: "+e.Op) {
		t.Errorf("%q does not name its operation %q", err, e.Op)
	}
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("%q does not match %q", err, target)
		}
	}
	// ERR-002: never both.
	if errors.Is(err, locker.ErrHeld) && errors.Is(err, locker.ErrUnavailable) {
		t.Errorf("%q is contention and unavailability at the same time", err)
	}
}

func isDone(s *locker.Lease) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}

// recorder keeps the events.
type recorder struct {
	mu     sync.Mutex
	events []locker.Event
}

func (r *recorder) Observe(_ context.Context, e locker.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) all() []locker.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

func (r *recorder) kinds(key string) (kinds []string) {
	for _, e := range r.all() {
		if e.Key == key {
			kinds = append(kinds, e.Kind.String())
		}
	}
	return kinds
}

func (r *recorder) want(t *testing.T, key string, kinds ...string) {
	t.Helper()
	if got := r.kinds(key); !slices.Equal(got, kinds) {
		t.Errorf("events of %q: got %v, want %v", key, got, kinds)
	}
}
