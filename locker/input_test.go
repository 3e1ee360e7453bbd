package locker_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// TestBadInput: each mistake is an *Error with its own code, before any I/O, with nothing
// held, and never a panic.
func TestBadInput(t *testing.T) {
	var (
		bg       = context.Background()
		tooLong  = strings.Repeat("k", locker.MaxKey+1)
		noLocker *locker.Locker
		noLease  *locker.Lease
		fn       = func(context.Context, *locker.Lease) error { return nil }
	)
	type call = func(l *locker.Locker, held *locker.Lease) error
	lock := func(key string, opts ...locker.Option) call {
		return func(l *locker.Locker, _ *locker.Lease) error {
			_, err := l.Lock(bg, key, opts...)
			_, err2 := l.TryLock(bg, key, opts...)
			return same(t, err, err2)
		}
	}
	lockNS := func(key string, opts ...locker.Option) call {
		return func(l *locker.Locker, _ *locker.Lease) error {
			_, err := l.LockNS(bg, key, opts...)
			_, err2 := l.TryLockNS(bg, key, opts...)
			return same(t, err, err2)
		}
	}
	key := func(key string, ns ...string) call {
		return func(l *locker.Locker, _ *locker.Lease) error {
			_, err := l.Key(key, ns...)
			return err
		}
	}
	retry := func(r locker.Retry) call { return lock("k", locker.WithRetry(r)) }

	for name, c := range map[string]struct {
		call     call
		code     locker.Code
		sentinel error
		says     string
	}{
		"empty key":              {lock(""), locker.CodeInvalidKey, locker.ErrInvalidKey, "empty"},
		"key too long":           {lock(tooLong), locker.CodeInvalidKey, locker.ErrInvalidKey, "1025 bytes; at most 1024"},
		"empty key with ns":      {lockNS(""), locker.CodeInvalidKey, locker.ErrInvalidKey, "empty"},
		"too long with its ns":   {lockNS(tooLong[:locker.MaxKey-3]), locker.CodeInvalidKey, locker.ErrInvalidKey, "1025 bytes"},
		"Key empty":              {key(""), locker.CodeInvalidKey, locker.ErrInvalidKey, "empty"},
		"Key too long":           {key(tooLong), locker.CodeInvalidKey, locker.ErrInvalidKey, "1025 bytes"},
		"Key ns with colon":      {key("k", "a:b"), locker.CodeInvalidKey, locker.ErrInvalidKey, "colon"},
		"Key ns empty":           {key("k", ""), locker.CodeInvalidKey, locker.ErrInvalidKey, "empty"},
		"Key two ns":             {key("k", "a", "b"), locker.CodeInvalidKey, locker.ErrInvalidKey, "at most one"},
		"ns with colon":          {lockNS("k", locker.WithNamespace("a:b")), locker.CodeInvalidKey, locker.ErrInvalidKey, `"a:b" holds a colon`},
		"ns empty":               {lockNS("k", locker.WithNamespace("")), locker.CodeInvalidKey, locker.ErrInvalidKey, "empty"},
		"ns too long":            {lockNS("k", locker.WithNamespace(tooLong[:257])), locker.CodeInvalidKey, locker.ErrInvalidKey, "257 bytes; at most 256"},
		"ttl 0":                  {lock("k", locker.WithTTL(0)), locker.CodeInvalidTTL, locker.ErrInvalidTTL, "0s is not above 0"},
		"ttl -1":                 {lock("k", locker.WithTTL(-1)), locker.CodeInvalidTTL, locker.ErrInvalidTTL, "-1ns"},
		"ttl min":                {lock("k", locker.WithTTL(math.MinInt64)), locker.CodeInvalidTTL, locker.ErrInvalidTTL, "not above 0"},
		"ttl max":                {lock("k", locker.WithTTL(math.MaxInt64)), locker.CodeInvalidTTL, locker.ErrInvalidTTL, "876000h"},
		"retry attempts -2":      {retry(locker.Retry{Attempts: -2}), locker.CodeInvalidConfig, locker.ErrInvalidConfig, "retry.attempts: -2"},
		"retry delay negative":   {retry(locker.Retry{Delay: -1}), locker.CodeInvalidConfig, locker.ErrInvalidConfig, "retry.delay: -1ns is not between 1ns and 24h"},
		"retry delay max":        {retry(locker.Retry{Delay: math.MaxInt64}), locker.CodeInvalidConfig, locker.ErrInvalidConfig, "retry.delay"},
		"retry jitter negative":  {retry(locker.Retry{Jitter: -1}), locker.CodeInvalidConfig, locker.ErrInvalidConfig, "retry.jitter: -1ns"},
		"retry jitter too large": {retry(locker.Retry{Delay: time.Second, Jitter: time.Minute}), locker.CodeInvalidConfig, locker.ErrInvalidConfig, "retry.jitter: 1m is larger than retry.delay, 1s"},
		"drift 0":                {lock("k", locker.WithDriftFactor(0)), locker.CodeInvalidConfig, locker.ErrInvalidConfig, "driftFactor: 0"},
		"drift NaN":              {lock("k", locker.WithDriftFactor(math.NaN())), locker.CodeInvalidConfig, locker.ErrInvalidConfig, "NaN"},
		"drift too large":        {lock("k", locker.WithDriftFactor(0.6)), locker.CodeInvalidConfig, locker.ErrInvalidConfig, "0.6 is not above 0 and at most 0.5"},

		"nil ctx": {func(l *locker.Locker, held *locker.Lease) error {
			_, err := l.Lock(nil, "k") //nolint:staticcheck
			_, err2 := l.TryLockNS(nil, "k")
			_, _, err3 := l.Inspect(nil, "k")
			return same(t, err, err2, err3, listed(l, nil), l.Break(nil, "k", 1), l.Ping(nil), l.Close(nil), l.Do(nil, "k", fn), held.Extend(nil, time.Second), held.Unlock(nil))
		}, locker.CodeInvalidArgument, locker.ErrInvalidArgument, "ctx is nil"},
		"nil ctx of Lease.Context": {func(_ *locker.Locker, held *locker.Lease) error {
			ctx, cancel := held.Context(nil) //nolint:staticcheck
			cancel()
			return context.Cause(ctx)
		}, locker.CodeInvalidArgument, locker.ErrInvalidArgument, "ctx is nil"},
		"nil fn": {func(l *locker.Locker, _ *locker.Lease) error {
			_, err := locker.Call[int](bg, l, "k", nil)
			return same(t, l.Do(bg, "k", nil), err)
		}, locker.CodeInvalidArgument, locker.ErrInvalidArgument, "the function is nil"},
		"nil Locker":  {func(*locker.Locker, *locker.Lease) error { return useLocker(t, noLocker) }, locker.CodeInvalidArgument, locker.ErrInvalidArgument, "Locker is nil"},
		"zero Locker": {func(*locker.Locker, *locker.Lease) error { return useLocker(t, new(locker.Locker)) }, locker.CodeInvalidArgument, locker.ErrInvalidArgument, "Locker is nil or"},
		"nil Lease":   {func(*locker.Locker, *locker.Lease) error { return useLease(t, noLease) }, locker.CodeInvalidArgument, locker.ErrInvalidArgument, "Lease is nil"},
		"zero Lease":  {func(*locker.Locker, *locker.Lease) error { return useLease(t, new(locker.Lease)) }, locker.CodeInvalidArgument, locker.ErrInvalidArgument, "not made by a Locker"},
		"extend a session": {func(_ *locker.Locker, held *locker.Lease) error { return held.Extend(bg, time.Second) },
			locker.CodeUnsupported, locker.ErrUnsupported, "session has no ttl"},
		"inspect an invalid key": {func(l *locker.Locker, _ *locker.Lease) error {
			_, _, err := l.Inspect(bg, "")
			return err
		}, locker.CodeInvalidKey, locker.ErrInvalidKey, "empty"},
		"break an invalid key":  {func(l *locker.Locker, _ *locker.Lease) error { return l.Break(bg, "", 1) }, locker.CodeInvalidKey, locker.ErrInvalidKey, "empty"},
		"break without a token": {func(l *locker.Locker, _ *locker.Lease) error { return l.Break(bg, "k", 0) }, locker.CodeInvalidArgument, locker.ErrInvalidArgument, "token: 0 is no hold's"},
		"break beyond tokens": {func(l *locker.Locker, _ *locker.Lease) error { return l.Break(bg, "k", driver.MaxToken+1) },
			locker.CodeInvalidArgument, locker.ErrInvalidArgument, "token: 9007199254740993 is no hold's"},
		"list a long prefix": {func(l *locker.Locker, _ *locker.Lease) error {
			return same(t, listed(l, bg, strings.Repeat("k", locker.MaxKey+1)), listed(l.Namespace("ns"), bg, strings.Repeat("k", locker.MaxKey-2)))
		}, locker.CodeInvalidKey, locker.ErrInvalidKey, "the prefix has 1025 bytes, namespace included"},
		"note too long": {lock("k", locker.WithNote(strings.Repeat("x", locker.MaxNote+1))), locker.CodeInvalidArgument, locker.ErrInvalidArgument,
			"note: it has 1025 bytes; at most 1024 are allowed"},
		"ended ctx": {func(l *locker.Locker, _ *locker.Lease) error {
			ctx, cancel := context.WithCancelCause(bg)
			cancel(errBoom)
			_, err := l.Lock(ctx, "k")
			_, err2 := l.TryLock(ctx, "k")
			_, _, err3 := l.Inspect(ctx, "k")
			for _, err := range []error{err, err2, err3, listed(l, ctx), l.Break(ctx, "k", 1), l.Ping(ctx), l.Do(ctx, "k", fn)} {
				wantError(t, err, locker.CodeCanceled, context.Canceled, errBoom)
			}
			return err
		}, locker.CodeCanceled, errBoom, "canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &fake{}
			l := newLocker(t, b, locker.Config{})
			held := mustLock(t, l, "held")
			err := c.call(l, held)
			wantError(t, err, c.code, c.sentinel)
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q does not say %q", err, c.says)
			}
			if len(b.calls) != 1 {
				t.Errorf("calls of the backend: %v, want none after the first", b.calls)
			}
			if held.Err() != nil {
				t.Errorf("the other hold has ended: %v", held.Err())
			}
		})
	}
}

var errBoom = errors.New("boom")

// same returns the first of errs and checks that all have the same code.
func same(t *testing.T, errs ...error) error {
	t.Helper()
	var first *locker.Error
	if !errors.As(errs[0], &first) {
		t.Fatalf("got %v, want an *Error", errs[0])
	}
	for _, err := range errs[1:] {
		wantError(t, err, first.Code)
	}
	return errs[0]
}

// useLocker calls everything that l has.
func useLocker(t *testing.T, l *locker.Locker) error {
	bg := context.Background()
	_, err := l.Lock(bg, "k")
	_, err2 := l.TryLock(bg, "k")
	_, err3 := l.LockNS(bg, "k")
	_, err4 := l.TryLockNS(bg, "k")
	_, err5 := l.Key("k")
	_, _, err6 := l.Inspect(bg, "k")
	_, err7 := locker.Call(bg, l, "k", func(context.Context, *locker.Lease) (int, error) { return 0, nil })
	if l.Capabilities().Name != "" {
		t.Error("capabilities out of nothing")
	}
	return same(t, err, err2, err3, err4, err5, err6, err7, listed(l, bg), l.Break(bg, "k", 1), l.Ping(bg), l.Close(bg),
		l.Do(bg, "k", func(context.Context, *locker.Lease) error { return nil }))
}

// useLease calls everything that s has.
func useLease(t *testing.T, s *locker.Lease) error {
	bg := context.Background()
	ctx, cancel := s.Context(bg)
	defer cancel()
	if ctx.Err() == nil || !isDone(s) {
		t.Error("it looks held")
	}
	nilCtx, cancelNil := s.Context(nil) //nolint:staticcheck
	defer cancelNil()
	if _, ok := s.Deadline(); ok || s.Key() != "" || s.Token() != 0 || s.Session() {
		t.Error("it says something of a hold")
	}
	return same(t, s.Err(), s.Extend(bg, time.Second), s.Unlock(bg), context.Cause(ctx), context.Cause(nilCtx))
}

func TestUseAfterClose(t *testing.T) {
	b := &fake{}
	l, err := locker.New(b, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	bg := context.Background()
	lease := mustLock(t, l, "lease", locker.WithTTL(time.Minute))
	session := mustLock(t, l, "session")
	released := mustLock(t, l, "released")
	ctx, cancel := session.Context(bg)
	defer cancel()
	if err := released.Unlock(bg); err != nil {
		t.Fatal(err)
	}
	for range 2 { // CLO-004
		if err := l.Close(bg); err != nil {
			t.Fatal(err)
		}
	}
	b.nothingHeld(t)
	calls := len(b.calls)

	_, err = l.Lock(bg, "k")
	_, err2 := l.TryLock(bg, "k")
	_, err3 := l.LockNS(bg, "k")
	_, _, err4 := l.Inspect(bg, "k")
	for _, err := range []error{
		err, err2, err3, err4, listed(l, bg), l.Break(bg, "k", 1), l.Ping(bg), l.Do(bg, "k", func(context.Context, *locker.Lease) error { return nil }),
		lease.Err(), lease.Unlock(bg), lease.Extend(bg, time.Second), session.Err(), session.Unlock(bg), context.Cause(ctx),
	} {
		wantError(t, err, locker.CodeClosed, locker.ErrClosed)
	}
	wantError(t, released.Unlock(bg), locker.CodeReleased, locker.ErrReleased)
	wantError(t, released.Err(), locker.CodeReleased, locker.ErrReleased)
	if !isDone(lease) || !isDone(session) {
		t.Error("a hold's Done is open after Close")
	}
	if len(b.calls) != calls {
		t.Errorf("the closed backend was called: %v", b.calls[calls:])
	}
	if key, err := l.Key("k"); key != "app:k" || err != nil {
		t.Errorf("Key: %q, %v", key, err)
	}
}

func TestNewRefuses(t *testing.T) {
	var noFake *fake
	for name, c := range map[string]struct {
		b    driver.Backend
		cfg  locker.Config
		code locker.Code
		says string
	}{
		"nil":             {nil, locker.Config{}, locker.CodeInvalidArgument, "backend is nil"},
		"nil pointer":     {noFake, locker.Config{}, locker.CodeInvalidArgument, "backend is nil"},
		"type":            {&fake{}, locker.Config{Type: "memory"}, locker.CodeInvalidConfig, "for Open"},
		"backend":         {&fake{}, locker.Config{Backend: 1}, locker.CodeInvalidConfig, "for Open"},
		"namespace":       {&fake{}, locker.Config{Namespace: "a:b"}, locker.CodeInvalidConfig, "namespace"},
		"negative ttl":    {&fake{}, locker.Config{TTL: -1}, locker.CodeInvalidConfig, "ttl: -1ns"},
		"ttl above max":   {&fake{}, locker.Config{TTL: math.MaxInt64}, locker.CodeInvalidConfig, "ttl"},
		"retry":           {&fake{}, locker.Config{Retry: locker.Retry{Attempts: -2}}, locker.CodeInvalidConfig, "retry.attempts: -2"},
		"negative drift":  {&fake{}, locker.Config{DriftFactor: -1}, locker.CodeInvalidConfig, "driftFactor"},
		"drift infinite":  {&fake{}, locker.Config{DriftFactor: math.Inf(1)}, locker.CodeInvalidConfig, "driftFactor"},
		"drift no number": {&fake{}, locker.Config{DriftFactor: math.NaN()}, locker.CodeInvalidConfig, "driftFactor"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := locker.New(c.b, c.cfg)
			wantError(t, err, c.code)
			if l != nil || err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, %v, want an error that says %q", l, err, c.says)
			}
		})
	}
}

func TestAs(t *testing.T) {
	var noFake *fake
	for _, b := range []driver.Backend{nil, noFake} {
		if _, ok := driver.As[driver.Pinger](b); ok {
			t.Errorf("%T: an ability out of nothing", b)
		}
	}
	if _, ok := driver.As[driver.Pinger](plain{&fake{}}); ok {
		t.Error("a wrapper without Unwrap must hide")
	}
	if p, ok := driver.As[driver.Pinger](wrapper{wrapper{&fake{}}}); !ok || p.Ping(context.Background()) != nil {
		t.Error("not found through two wrappers")
	}
	if _, ok := driver.As[driver.Pinger](wrapper{}); ok {
		t.Error("an ability of a wrapper around nothing")
	}
}

type wrapper struct{ driver.Backend }

func (w wrapper) Unwrap() driver.Backend { return w.Backend }

func TestUnsupported(t *testing.T) {
	l := newLocker(t, plain{&fake{}}, locker.Config{})
	_, _, err := l.Inspect(context.Background(), "k")
	wantError(t, err, locker.CodeUnsupported, locker.ErrUnsupported)
	for _, err := range []error{l.Ping(context.Background()), listed(l, context.Background()), l.Break(context.Background(), "k", 1)} {
		wantError(t, err, locker.CodeUnsupported, locker.ErrUnsupported)
	}
}

var hostileKeys = []string{
	":", "::", "a:b", "{}", "}{", "{a}b", "}x", "\x00", "\x00\x00", " ", "  ", "\t\r\n", "*", "?", "[a-z]", `\`, `"`, "'",
	"\xff\xfe", "\xc0\x80", "é", "e\u0301", "\u202e", "%s%n", "../../etc/passwd", "app", "app:", "lock", "lock:k", "-", "💥",
	strings.Repeat("k", 1000), strings.Repeat("\x00", 1000),
}

// KEY-002: all of them at the same time, with and without namespace, and none is another.
func TestHostileKeys(t *testing.T) {
	b := &fake{}
	l := newLocker(t, b, locker.Config{})
	bg := context.Background()
	seen := map[string]bool{}
	for _, key := range hostileKeys {
		s := mustLock(t, l, key)
		ns, err := l.TryLockNS(bg, key, locker.WithNamespace("ns"))
		if err != nil {
			t.Fatalf("%q: %v", key, err)
		}
		if s.Key() != key || ns.Key() != "ns:"+key {
			t.Errorf("%q became %q and %q", key, s.Key(), ns.Key())
		}
		if seen[s.Key()] || seen[ns.Key()] {
			t.Errorf("%q collides", key)
		}
		seen[s.Key()], seen[ns.Key()] = true, true
		_, err = l.TryLock(bg, key)
		wantError(t, err, locker.CodeHeld, locker.ErrHeld)
		if strings.ContainsAny(err.Error(), "\x00\n\r\x1b\u202e") || strings.Contains(err.Error(), "\xff") || len(err.Error()) > 400 {
			t.Errorf("the error is not fit for a log: %q", err)
		}
		defer func() {
			if err := errors.Join(s.Unlock(bg), ns.Unlock(bg)); err != nil {
				t.Errorf("%q: %v", key, err)
			}
		}()
	}
}

// TTL-003: the backend sees whole milliseconds.
func TestTTLRoundsUp(t *testing.T) {
	b := &fake{}
	l := newLocker(t, b, locker.Config{})
	for _, c := range []struct{ ask, get time.Duration }{
		{1, time.Millisecond}, {time.Millisecond, time.Millisecond}, {time.Millisecond + 1, 2 * time.Millisecond},
		{locker.MaxTTL, locker.MaxTTL},
	} {
		if _, err := l.TryLock(context.Background(), c.ask.String(), locker.WithTTL(c.ask)); err != nil && c.get > time.Second {
			t.Fatal(err) // a shorter one may be over already
		}
		if got := b.holds[c.ask.String()].ttl; got != c.get {
			t.Errorf("%s: the backend saw %s, want %s", c.ask, got, c.get)
		}
	}
}

func TestOptionsOverConfig(t *testing.T) {
	b := &fake{}
	l := newLocker(t, b, locker.Config{TTL: time.Minute, Namespace: "shop"})
	bg := context.Background()
	if s := mustLock(t, l, "a"); s.Session() || b.holds["a"].ttl != time.Minute {
		t.Error("Config.TTL is not the default")
	}
	if s := mustLock(t, l, "b", locker.WithSession()); !s.Session() {
		t.Error("WithSession gave a lease")
	}
	if s := mustLock(t, l, "c", locker.WithSession(), locker.WithTTL(time.Second)); s.Session() || b.holds["c"].ttl != time.Second {
		t.Error("the last option does not count")
	}
	if s, err := l.TryLockNS(bg, "d"); err != nil || s.Key() != "shop:d" {
		t.Errorf("%v, %v", s.Key(), err)
	}
	if s, err := l.LockNS(bg, "d", locker.WithNamespace("stock")); err != nil || s.Key() != "stock:d" {
		t.Errorf("%v, %v", s.Key(), err)
	}
	if s := mustLock(t, l, "e", nil...); s.Key() != "e" {
		t.Error("no options")
	}
	if s := mustLock(t, l, "f", locker.Option{}); s.Key() != "f" {
		t.Error("an empty option")
	}
}
