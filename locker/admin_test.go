package locker_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// listed is the error of a List, if there is one.
func listed(l *locker.Locker, ctx context.Context, prefix ...string) (last error) {
	for info, err := range l.List(ctx, strings.Join(prefix, "")) {
		if err != nil && info != (locker.Info{}) {
			return errors.New("an Info beside an error")
		}
		last = err
	}
	return last
}

func keysOf(t *testing.T, l *locker.Locker, prefix string) (keys []string) {
	t.Helper()
	for info, err := range l.List(bg, prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// What is asked for reaches the backend with each request, and what it says reaches the caller.
func TestIdentityAndNote(t *testing.T) {
	hostile := "\x00\xff\x1b[31m\n" + strings.Repeat("n", locker.MaxNote-9)
	for name, b := range map[string]driver.Backend{"of its own": &fake{}, "local": newLocal(), "waiting": waiting{&fake{}}} {
		t.Run(name, func(t *testing.T) {
			l := newLocker(t, b, locker.Config{Identity: "\xfe who"})
			s := mustLock(t, l, "k", locker.WithTTL(time.Minute), locker.WithNote("the first"), locker.WithNote(hostile))
			done := make(chan *locker.Lease)
			go func() {
				next, _ := l.Lock(context.Background(), "k", locker.WithTTL(time.Minute), locker.WithNote("the next"))
				done <- next
			}()
			info, _, err := l.Inspect(bg, "k")
			if err != nil || info.Note != hostile || info.Identity != "\xfe who" || info.Key != "k" {
				t.Errorf("%.80q, %q, %q, %v", info.Note, info.Identity, info.Key, err)
			}
			if err := s.Unlock(bg); err != nil {
				t.Error(err)
			}
			next := <-done
			if info, _, _ := l.Inspect(bg, "k"); info.Note != "the next" {
				t.Errorf("after a wait: %+v", info)
			}
			_ = next.Unlock(bg)
			mustLock(t, l, "k")
			if info, _, _ := l.Inspect(bg, "k"); info.Note != "" {
				t.Errorf("without a note: %+v", info)
			}
		})
	}
}

// Without a word in the configuration the identity is the host, the process and the program, and
// none of its arguments, which may be secret.
func TestDefaultIdentity(t *testing.T) {
	l := newLocker(t, &fake{}, locker.Config{})
	mustLock(t, l, "k")
	info, _, _ := l.Inspect(bg, "k")
	host, _ := os.Hostname()
	if want := host + ":" + strconv.Itoa(os.Getpid()) + " " + filepath.Base(os.Args[0]); info.Identity != want {
		t.Errorf("%q instead of %q", info.Identity, want)
	}
}

func TestList(t *testing.T) {
	l := newLocker(t, &fake{}, locker.Config{Namespace: "app"})
	for _, key := range []string{"a", "ab", "app:ab", "app:b", "b"} {
		mustLock(t, l, key)
	}
	in := l.Namespace("app")
	for name, c := range map[string]struct {
		l      *locker.Locker
		prefix string
		want   string
	}{
		"all":                        {l, "", "a ab app:ab app:b b"},
		"a prefix":                   {l, "a", "a ab app:ab app:b"},
		"nothing":                    {l, "c", ""},
		"a namespace":                {in, "", "ab b"},
		"a namespace and a prefix":   {in, "a", "ab"},
		"a namespace that has none":  {l.Namespace("ap"), "", ""},
		"the namespace as a prefix":  {l, "app:", "app:ab app:b"},
		"another namespace's prefix": {in, "app:", ""},
	} {
		if got := strings.Join(keysOf(t, c.l, c.prefix), " "); got != c.want {
			t.Errorf("%s: %q instead of %q", name, got, c.want)
		}
	}
	wantError(t, listed(l.Namespace("a:b"), bg), locker.CodeInvalidKey, locker.ErrInvalidKey)
	for range l.List(bg, "") {
		break
	}
	info, held, err := in.Inspect(bg, "ab")
	if !held || err != nil || info.Key != "ab" {
		t.Errorf("%+v, %v, %v", info, held, err)
	}
}

// A loop may end in the middle, or end the Locker.
func TestListEnds(t *testing.T) {
	f := &fake{}
	l := newLocker(t, f, locker.Config{})
	for _, key := range []string{"a", "b", "c"} {
		mustLock(t, l, key)
	}
	ctx, cancel := context.WithCancel(bg)
	defer cancel()
	var seen []string
	for info, err := range l.List(ctx, "") {
		cancel()
		if seen = append(seen, info.Key); err != nil {
			wantError(t, err, locker.CodeUnavailable, context.Canceled)
		}
	}
	if !slices.Equal(seen, []string{"a", ""}) {
		t.Errorf("%q", seen)
	}

	seen = nil
	began := time.Now()
	for info, err := range l.List(bg, "") {
		_ = l.Close(context.Background())
		if seen = append(seen, info.Key); err != nil {
			wantError(t, err, locker.CodeClosed, locker.ErrClosed)
		}
	}
	if !slices.Equal(seen, []string{"a", ""}) || time.Since(began) > 3*time.Second {
		t.Errorf("%q after %s", seen, time.Since(began))
	}
}

func TestBreak(t *testing.T) {
	l := newLocker(t, notifying{&fake{}}, locker.Config{})
	in := l.Namespace("app")
	s := mustLock(t, in, "k")
	wantError(t, l.Break(bg, "k", s.Token()), locker.CodeLost, locker.ErrLost)
	wantError(t, in.Break(bg, "k", s.Token()+1), locker.CodeLost, locker.ErrLost)
	if s.Err() != nil {
		t.Fatal(s.Err())
	}
	waits := make(chan *locker.Lease, 1)
	go func() {
		next, _ := in.Lock(context.Background(), "k")
		waits <- next
	}()
	if err := in.Break(bg, "k", s.Token()); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{s.Err(), s.Unlock(bg)} {
		wantError(t, err, locker.CodeLost, locker.ErrLost, driver.ErrBroken)
		var e *locker.Error
		if errors.As(err, &e); e.Reason != locker.ReasonBroken || !strings.Contains(err.Error(), "somebody broke the lock") {
			t.Errorf("%v, %v", e.Reason, err)
		}
	}
	next := <-waits
	wantError(t, in.Break(bg, "k", s.Token()), locker.CodeLost, locker.ErrLost)
	if err := next.Unlock(bg); err != nil {
		t.Error(err)
	}
}
