//go:build go1.25

package locker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// The same words mean the same in Go, in JSON, in a URL and in the environment: each opens a
// Locker whose Lock makes as many attempts, as far apart.
func TestRetryMeansTheSame(t *testing.T) {
	variables := map[string]string{"attempts": "LOCKSTEP_RETRY_ATTEMPTS", "delay": "LOCKSTEP_RETRY_DELAY", "jitter": "LOCKSTEP_RETRY_JITTER"}
	for _, c := range []struct {
		inGo        locker.Retry
		words       map[string]string
		attempts    int // until 10 s are over
		least, most time.Duration
	}{
		{locker.Retry{}, nil, 65, 50 * time.Millisecond, 150 * time.Millisecond},
		{locker.Retry{Attempts: locker.Forever}, map[string]string{"attempts": "-1"}, 65, 50 * time.Millisecond, 150 * time.Millisecond},
		{locker.Retry{Attempts: locker.None}, map[string]string{"attempts": "0"}, 1, 0, 0},
		{locker.NoRetry(), map[string]string{"attempts": "0"}, 1, 0, 0},
		{locker.Retry{Attempts: 3}, map[string]string{"attempts": "3"}, 4, 50 * time.Millisecond, 150 * time.Millisecond},
		{locker.Retry{Attempts: 2, Jitter: locker.NoJitter}, map[string]string{"attempts": "2", "jitter": "0s"}, 3, 100 * time.Millisecond, 100 * time.Millisecond},
		{locker.Retry{Attempts: 5, Delay: 20 * time.Millisecond}, map[string]string{"attempts": "5", "delay": "20ms"}, 6, 10 * time.Millisecond, 30 * time.Millisecond},
		{locker.Retry{Attempts: 5, Delay: time.Second}, map[string]string{"attempts": "5", "delay": "1s"}, 6, 950 * time.Millisecond, 1050 * time.Millisecond},
		{locker.Retry{Attempts: 2, Delay: time.Second, Jitter: time.Second}, map[string]string{"attempts": "2", "delay": "1s", "jitter": "1s"}, 3, time.Millisecond, 2 * time.Second},
	} {
		var fields, query []string
		for name, value := range c.words {
			query = append(query, "retry."+name+"="+value)
			if name != "attempts" {
				value = `"` + value + `"`
			}
			fields = append(fields, `"`+name+`": `+value)
		}
		for way, load := range map[string]func(t *testing.T) (locker.Config, error){
			"Go": func(*testing.T) (locker.Config, error) { return locker.Config{Type: "fake", Retry: c.inGo}, nil },
			"JSON": func(*testing.T) (locker.Config, error) {
				return locker.LoadConfig(`{"type": "fake", "retry": {` + strings.Join(fields, ", ") + `}}`)
			},
			"URL": func(*testing.T) (locker.Config, error) {
				return locker.LoadConfig("fake://?" + strings.Join(query, "&"))
			},
			"environment": func(t *testing.T) (locker.Config, error) {
				for name, value := range c.words {
					t.Setenv(variables[name], value)
				}
				return locker.LoadConfig(`{"type": "fake"}`)
			},
			"printed": func(*testing.T) (locker.Config, error) {
				return locker.LoadConfig(locker.Config{Type: "fake", Retry: c.inGo}.String())
			},
		} {
			t.Run(way+fmt.Sprint(c.inGo), func(t *testing.T) {
				cfg, err := load(t)
				if err != nil {
					t.Fatal(err)
				}
				tries := attemptsWithin(t, cfg)
				if len(tries) < c.attempts || c.inGo.Attempts > 0 && len(tries) > c.attempts || c.most == 0 && len(tries) > 1 {
					t.Fatalf("%d attempts, want %d", len(tries), c.attempts)
				}
				gaps := map[time.Duration]bool{}
				for i := 1; i < len(tries); i++ {
					gaps[tries[i]-tries[i-1]] = true
					if d := tries[i] - tries[i-1]; d < c.least || d > c.most {
						t.Errorf("%s between attempts, want %s to %s", d, c.least, c.most)
					}
				}
				if c.least < c.most && len(tries) > 3 && len(gaps) < 2 {
					t.Errorf("all attempts are equally far apart, %v: there is no jitter", gaps)
				}
			})
		}
	}
}

// timing notes when it is asked for a lock that never becomes free.
type timing struct {
	driver.Backend
	began time.Time
	tries []time.Duration
}

func (b *timing) Acquire(context.Context, driver.Request) (driver.Grant, error) {
	// A waiter asks once more when it has begun to listen, at once.
	if now := time.Since(b.began); len(b.tries) == 0 || b.tries[len(b.tries)-1] != now {
		b.tries = append(b.tries, now)
	}
	return driver.Grant{}, driver.ErrHeld
}

func attemptsWithin(t *testing.T, cfg locker.Config) (tries []time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		b := &timing{Backend: plain{&fake{}}, began: time.Now()}
		l, err := locker.New(b, locker.Config{Retry: cfg.Retry})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if _, err := l.Lock(ctx, "k"); !errors.Is(err, locker.ErrHeld) {
			t.Errorf("got %v, want ErrHeld", err)
		}
		_ = l.Close(context.Background())
		tries = b.tries
	})
	return tries
}

var (
	upAfter    atomic.Int32 // attempts to open that fail before one succeeds
	openErrors atomic.Pointer[error]
)

func init() {
	driver.Register("late", func(context.Context, struct{}) (driver.Backend, error) {
		if upAfter.Add(-1) >= 0 {
			return nil, *openErrors.Load()
		}
		return &fake{}, nil
	})
}

// Open waits for a store that is not there yet, if it is asked to, and for nothing else.
func TestOpenWait(t *testing.T) {
	down, invalid, refused := error(driver.ErrUnavailable), error(driver.ErrInvalidConfig), error(driver.ErrRefused)
	for name, c := range map[string]struct {
		fails int32
		err   error
		wait  time.Duration
		ctx   time.Duration
		want  error
		least time.Duration
		most  time.Duration
	}{
		"not asked":      {1, down, 0, time.Hour, locker.ErrUnavailable, 0, 0},
		"comes in time":  {5, down, time.Minute, time.Hour, nil, 700 * time.Millisecond, 6 * time.Second},
		"refuses first":  {2, refused, time.Minute, time.Hour, nil, 100 * time.Millisecond, time.Second},
		"comes too late": {1000, down, 10 * time.Second, time.Hour, locker.ErrUnavailable, 10 * time.Second, 10 * time.Second},
		"ctx ends first": {1000, down, time.Hour, 3 * time.Second, context.DeadlineExceeded, 3 * time.Second, 3 * time.Second},
		"invalid":        {1, invalid, time.Minute, time.Hour, locker.ErrInvalidConfig, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				upAfter.Store(c.fails)
				openErrors.Store(&c.err)
				ctx, cancel := context.WithTimeout(context.Background(), c.ctx)
				defer cancel()
				began := time.Now()
				l, err := locker.Open(ctx, locker.Config{Type: "late", OpenWait: c.wait})
				if took := time.Since(began); took < c.least || took > c.most {
					t.Errorf("it took %s, want %s to %s", took, c.least, c.most)
				}
				if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if c.err == down && c.want != nil && !errors.Is(err, locker.ErrUnavailable) {
					t.Errorf("%v does not say what the store did", err)
				}
				if c.want != nil && c.wait > 0 && c.least > 0 && !strings.Contains(err.Error(), "waited ") {
					t.Errorf("%q does not say that it waited", err)
				}
				if l != nil {
					_ = l.Close(ctx)
				}
			})
		})
	}
	_, err := locker.Open(context.Background(), locker.Config{Type: "late", OpenWait: -1})
	wantError(t, err, locker.CodeInvalidConfig, locker.ErrInvalidConfig)
}
