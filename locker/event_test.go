//go:build go1.25

package locker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

func TestEvents(t *testing.T) {
	f := &fake{quiet: true}
	rec := &recorder{}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	bubble(t, f, locker.Config{Observer: rec, Logger: logger}, func(t *testing.T, l *locker.Locker) {
		s := mustLock(t, l, "a", locker.WithTTL(time.Minute))
		_, _ = l.TryLock(bg, "a")
		_, _ = l.Lock(bg, "a", steady(1))
		_ = s.Extend(bg, time.Second)
		_ = s.Unlock(bg)
		_ = s.Unlock(bg)
		rec.want(t, "a", "Acquired", "Refused", "Waiting", "GaveUp", "Extended", "Released")

		s = mustLock(t, l, "b", locker.WithTTL(time.Second))
		time.Sleep(time.Minute)
		_ = s.Extend(bg, time.Second)
		_ = s.Unlock(bg)
		synctest.Wait()
		rec.want(t, "b", "Acquired", "Lost", "Extended")

		s = mustLock(t, l, "c\nd")
		f.set(only("release", unavailable))
		_, _ = s.Unlock(bg), s.Unlock(bg)
		f.set(nil)
		_ = s.Unlock(bg)
		rec.want(t, "c\nd", "Acquired", "Released")

		f.take("e", time.Second)
		s, _ = l.Lock(bg, "e")
		_ = l.Close(bg)
		_ = s.Unlock(bg)
		rec.want(t, "e", "Waiting", "Acquired", "Released")
	})
	for _, e := range rec.all() {
		refused := e.Kind == locker.EventWaiting || e.Kind == locker.EventGaveUp || e.Kind == locker.EventRefused
		wantErr := refused || e.Kind == locker.EventLost || e.Key == "b" && e.Kind == locker.EventExtended ||
			e.Key == "c\nd" && e.Kind == locker.EventReleased
		var le *locker.Error
		if (e.Err != nil) != wantErr || e.Err != nil && !errors.As(e.Err, &le) {
			t.Errorf("%s of %q: Err is %v", e.Kind, e.Key, e.Err)
		}
		if e.Backend != "fake" || !refused && e.Token == 0 {
			t.Errorf("incomplete: %+v", e)
		}
		if e.Key == "e" && e.Kind == locker.EventAcquired && (e.Waited < time.Second || !e.Queued) {
			t.Errorf("waited %s, queued %v", e.Waited, e.Queued)
		}
		if e.Key == "b" && e.Kind == locker.EventLost && e.Held != 990*time.Millisecond {
			t.Errorf("held for %s", e.Held)
		}
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != len(rec.events) {
		t.Errorf("%d lines for %d events:\n%s", len(lines), len(rec.events), &log)
	}
	for _, want := range []string{`level=WARN msg="lock lost" backend=fake key="\"b\""`, "reason=expired", `level=DEBUG msg="lock acquired"`,
		`level=WARN msg="lock extend failed"`, `level=WARN msg="lock release failed"`, `level=DEBUG msg="lock given up"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %s:\n%s", want, &log)
		}
	}
}

// A loss that comes before EventAcquired was told is told after it.
func TestEventsInOrder(t *testing.T) {
	for name, end := range map[string]func(f *fake, l *locker.Locker){
		"lost":   func(f *fake, _ *locker.Locker) { f.lose("k", driver.ErrLost) },
		"closed": func(_ *fake, l *locker.Locker) { go func() { _ = l.Close(bg) }(); time.Sleep(time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			rec := &recorder{}
			var l *locker.Locker
			slowly := locker.ObserverFunc(func(ctx context.Context, e locker.Event) {
				if e.Kind == locker.EventAcquired {
					end(f, l)
					synctest.Wait()
				}
				rec.Observe(ctx, e)
			})
			synctest.Test(t, func(t *testing.T) {
				l = newLocker(t, f, locker.Config{Observer: slowly})
				s := mustLock(t, l, "k")
				if s.Err() == nil {
					t.Error("still held")
				}
				_ = l.Close(bg)
				want := "Lost"
				if name == "closed" {
					want = "Released"
				}
				rec.want(t, "k", "Acquired", want)
			})
		})
	}
}

// A million losses at once cost one goroutine; the backend is not kept waiting by a slow
// Observer, and the order stays.
func TestLossesAreDrainedByOne(t *testing.T) {
	f := &fake{}
	var inside, most atomic.Int64
	var keys []string
	slowly := locker.ObserverFunc(func(_ context.Context, e locker.Event) {
		if e.Kind != locker.EventLost {
			return
		}
		most.Store(max(most.Load(), inside.Add(1)))
		time.Sleep(time.Millisecond)
		keys = append(keys, e.Key)
		inside.Add(-1)
	})
	bubble(t, f, locker.Config{Observer: slowly}, func(t *testing.T, l *locker.Locker) {
		const n = 1000
		for i := range n {
			mustLock(t, l, fmt.Sprintf("%04d", i))
		}
		began := time.Now()
		for i := range n {
			f.lose(fmt.Sprintf("%04d", i), driver.ErrLost)
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("the backend was kept for %s", d)
		}
		if err := l.Close(bg); err != nil { // tells the rest
			t.Error(err)
		}
		if len(keys) != n || most.Load() != 1 {
			t.Errorf("%d losses told, by %d at a time", len(keys), most.Load())
		}
		for i, key := range keys {
			if key != fmt.Sprintf("%04d", i) {
				t.Fatalf("number %d is %q", i, key)
			}
		}
	})
}

func TestNilObserverFunc(t *testing.T) {
	l := newLocker(t, &fake{}, locker.Config{Observer: locker.ObserverFunc(nil)})
	mustLock(t, l, "k")
}
