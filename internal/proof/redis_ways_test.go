package proof

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// What the suite does not ask, because it is Redis's own: what a hold costs the server,
// the ways in (TLS, ACL, database, Sentinel), and servers that cannot announce changes.

const minValidity = 500 * time.Millisecond

var processID = rand.Uint64()

// promptly is far above what a wake-up takes, and far below the delays that would come
// to the rescue if there were none.
const promptly = 2 * time.Second

// settle is time for a waiter to come to stand in line; nothing outside tells when it does.
const settle = 50 * time.Millisecond

// never is a Retry whose timed attempts play no part.
var never = locker.Retry{Attempts: locker.Forever, Delay: time.Hour, Jitter: locker.NoJitter}

func open(t *testing.T, c redis.Config, settings locker.Config) *locker.Locker {
	t.Helper()
	l, err := redis.New(t.Context(), c, settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), promptly)
		defer cancel()
		if err := l.Close(ctx); err != nil {
			t.Logf("closing: %v", err)
		}
	})
	return l
}

func mustLock(t *testing.T, l *locker.Locker, key string, opts ...locker.Option) *locker.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), promptly)
	defer cancel()
	lease, err := l.Lock(ctx, key, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return lease
}

func waitDone(t *testing.T, lease *locker.Lease, reason locker.Reason) {
	t.Helper()
	select {
	case <-lease.Done():
	case <-time.After(promptly):
		t.Fatalf("the hold still stands after %s; want it to end as %s", promptly, reason)
	}
	var e *locker.Error
	if err := lease.Err(); !errors.As(err, &e) || e.Reason != reason {
		t.Fatalf("the hold ended as %v; want %s", err, reason)
	}
}

// An idle session costs its renewals, an idle lease nothing. A client that answers its own
// announcements sends tens of thousands of commands a second, and nobody sees it.
func TestIdleCost(t *testing.T) {
	const validity = 3 * time.Second // renewed every second
	const watch = 10 * time.Second
	for _, tt := range []struct {
		name  string
		user  []string // ACL rules of the client's user
		opts  []locker.Option
		holds int
		want  int64 // the most scripts that may run
	}{
		{"session", nil, nil, 1, 11},
		{"ten sessions", nil, nil, 10, 110},
		{"lease", nil, []locker.Option{locker.WithTTL(time.Minute)}, 10, 0},
		// Without INFO the client must take the server for an old one, whose NOLOOP cannot be
		// relied on: each renewal is then announced to ourselves and answered by one look.
		{"session without NOLOOP", []string{"-info"}, nil, 1, 22},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := redistest.Start(t)
			c := redis.Config{Addrs: []string{srv.Addr()}, Validity: validity}
			if tt.user != nil {
				srv.Do(t, append([]string{"ACL", "SETUSER", "limited", "on", ">pass", "~*", "&*", "+@all"}, tt.user...)...)
				c.Username, c.Password = "limited", locker.Secret("pass")
			}
			l := open(t, c, locker.Config{})
			var leases []*locker.Lease
			for i := range tt.holds {
				leases = append(leases, mustLock(t, l, fmt.Sprint("k", i), tt.opts...))
			}
			before := srv.CommandStats(t)
			time.Sleep(watch) // the thing measured is what happens in this time
			cost := srv.CommandStats(t).Since(before)
			if n := cost["evalsha"] + cost["eval"]; n > tt.want {
				t.Errorf("%d scripts in %s, at most %d are its renewals; all commands: %v", n, watch, tt.want, cost)
			}
			for _, lease := range leases {
				if err := lease.Err(); err != nil {
					t.Errorf("an idle hold ended: %v", err)
				}
			}
		})
	}
}

// A waiter in another process hears of a release, an expiry and a shortened lease although
// its own next timed attempt is an hour away.
func TestWakeUps(t *testing.T) {
	srv := redistest.Start(t, redistest.Args("--enable-debug-command", "yes"))
	// The server finds no expired key by itself: the waiter's own timer must do.
	srv.Do(t, "DEBUG", "SET-ACTIVE-EXPIRE", "0")
	a := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
	b := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})

	waitFor := func(t *testing.T, l *locker.Locker, key string, opts ...locker.Option) <-chan error {
		t.Helper()
		got := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), promptly)
			defer cancel()
			lease, err := l.Lock(ctx, key, append(opts, locker.WithRetry(never))...)
			if err == nil {
				err = lease.Unlock(ctx)
			}
			got <- err
		}()
		return got
	}
	for _, waiter := range []struct {
		name string
		l    *locker.Locker
	}{{"same client", a}, {"other client", b}} {
		for _, kind := range []struct {
			name string
			opts []locker.Option
		}{{"lease", []locker.Option{locker.WithTTL(time.Hour)}}, {"session", nil}} {
			t.Run(waiter.name+"/"+kind.name, func(t *testing.T) {
				t.Run("release", func(t *testing.T) {
					key := t.Name()
					held := mustLock(t, a, key, kind.opts...)
					got := waitFor(t, waiter.l, key, kind.opts...)
					time.Sleep(settle)
					if err := held.Unlock(t.Context()); err != nil {
						t.Fatal(err)
					}
					if err := <-got; err != nil {
						t.Fatal(err)
					}
				})
				t.Run("shortened", func(t *testing.T) {
					key := t.Name()
					held := mustLock(t, a, key, locker.WithTTL(time.Hour))
					got := waitFor(t, waiter.l, key, kind.opts...)
					time.Sleep(settle)
					if err := held.Extend(t.Context(), 50*time.Millisecond); err != nil {
						t.Fatal(err)
					}
					if err := <-got; err != nil {
						t.Fatal(err)
					}
				})
				t.Run("expiry", func(t *testing.T) {
					key := t.Name()
					mustLock(t, a, key, locker.WithTTL(100*time.Millisecond))
					if err := <-waitFor(t, waiter.l, key, kind.opts...); err != nil {
						t.Fatal(err)
					}
				})
			})
		}
	}
}

// A hold hears within milliseconds of its deletion and of its overwriting, and survives a
// broken connection.
func TestHoldsAndAdministrators(t *testing.T) {
	srv := redistest.Start(t)
	for _, kind := range []struct {
		name string
		opts []locker.Option
	}{{"lease", []locker.Option{locker.WithTTL(time.Hour)}}, {"session", nil}} {
		t.Run(kind.name, func(t *testing.T) {
			l := open(t, redis.Config{Addrs: []string{srv.Addr()}, Validity: time.Hour, ClientName: "victim"}, locker.Config{})
			for _, tt := range []struct {
				name    string
				command []string
			}{
				{"DEL", []string{"DEL", lockKey("lockstep", "k")}},
				{"SET", []string{"SET", lockKey("lockstep", "k"), "mine"}},
				{"FLUSHALL", []string{"FLUSHALL"}},
			} {
				srv.Do(t, "DEL", lockKey("lockstep", "k"))
				lease := mustLock(t, l, "k", kind.opts...)
				srv.Do(t, tt.command...)
				waitDone(t, lease, locker.ReasonLost)
				if err := lease.Unlock(t.Context()); !errors.Is(err, locker.ErrLost) {
					t.Errorf("%s: Unlock gave %v, want ErrLost", tt.name, err)
				}
			}
			srv.Do(t, "DEL", lockKey("lockstep", "k"))

			lease := mustLock(t, l, "k", kind.opts...)
			for range 10 {
				srv.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
				if err := l.Ping(t.Context()); err != nil && !errors.Is(err, locker.ErrUnavailable) {
					t.Fatal(err)
				}
			}
			select {
			case <-lease.Done():
				t.Fatalf("a killed connection ended an intact hold: %v", lease.Err())
			case <-time.After(300 * time.Millisecond):
			}
			// The new connection tracks the key again.
			srv.Do(t, "DEL", lockKey("lockstep", "k"))
			waitDone(t, lease, locker.ReasonLost)
		})
	}
}

// A Redis that hangs: what is held ends by itself, in time, and says why.
func TestSilence(t *testing.T) {
	srv := redistest.Start(t)
	l := open(t, redis.Config{Addrs: []string{srv.Addr()}, Validity: time.Second, Timeout: 300 * time.Millisecond}, locker.Config{})
	session := mustLock(t, l, "s")
	lease := mustLock(t, l, "l", locker.WithTTL(500*time.Millisecond))
	srv.Pause(t)
	waitDone(t, lease, locker.ReasonExpired)
	waitDone(t, session, locker.ReasonUnreachable)

	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := l.Lock(ctx, "x")
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, locker.ErrUnavailable) || errors.Is(err, locker.ErrHeld) {
		t.Errorf("Lock on a Redis that hangs: %v; want it to end with its ctx, as unavailable", err)
	}
	// A waiter who came during the outage gets its lock when Redis is back.
	got := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*promptly)
		defer cancel()
		_, err := l.Lock(ctx, "s")
		got <- err
	}()
	srv.Resume(t)
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestWithoutAnnouncements(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start []redistest.Option
		setup []string
		conf  redis.Config
	}{
		{name: "a server that speaks RESP2 only", start: []redistest.Option{redistest.Args("--rename-command", "HELLO", "")}},
		{name: "an ACL without CLIENT", setup: []string{"ACL", "SETUSER", "limited", "on", ">pass", "~*", "&*", "+@all", "-client"},
			conf: redis.Config{Username: "limited", Password: locker.Secret("pass")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := redistest.Start(t, tt.start...)
			if tt.setup != nil {
				srv.Do(t, tt.setup...)
			}
			c := tt.conf
			c.Addrs, c.Validity = []string{srv.Addr()}, minValidity

			c.Tracking = redis.TrackingOn
			if _, err := redis.New(t.Context(), c, locker.Config{}); !errors.Is(err, locker.ErrUnsupported) || !strings.Contains(err.Error(), "tracking") {
				t.Errorf(`tracking "on": %v; want ErrUnsupported that names tracking`, err)
			}

			c.Tracking = redis.TrackingAuto
			a, b := open(t, c, locker.Config{}), open(t, c, locker.Config{})
			if a.Capabilities().Has.Has(driver.PromptLoss) {
				t.Error("PromptLoss is declared although nothing is announced")
			}
			for _, opts := range [][]locker.Option{nil, {locker.WithTTL(time.Minute)}} {
				lease := mustLock(t, a, "k", opts...)
				time.AfterFunc(2*minValidity, func() { _ = lease.Unlock(context.Background()) })
				next := mustLock(t, b, "k", opts...) // by polling
				if next.Token() <= lease.Token() {
					t.Errorf("token %d after %d", next.Token(), lease.Token())
				}
				if err := next.Unlock(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestTLSAndPasswords(t *testing.T) {
	srv := redistest.Start(t, redistest.TLS(), redistest.Password("s3cret-of-the-server"))
	c := redis.Config{Addrs: []string{srv.Addr()}, Password: locker.Secret("s3cret-of-the-server"), DB: 3, TLS: &redis.TLS{CAFile: srv.CAFile()}}
	if name := srv.TLSConfig().ServerName; name != "" {
		c.TLS.ServerName = name
	}
	l := open(t, c, locker.Config{})
	lease := mustLock(t, l, "k")
	other := c
	other.DB = 4
	mustLock(t, open(t, other, locker.Config{}), "k") // another database is another set of locks
	if err := lease.Unlock(t.Context()); err != nil {
		t.Error(err)
	}

	wrong := c
	wrong.Password = locker.Secret("wr0ng-of-the-client")
	_, err := redis.New(t.Context(), wrong, locker.Config{})
	if !errors.Is(err, locker.ErrInvalidConfig) || !strings.Contains(err.Error(), "password") {
		t.Errorf("a wrong password: %v; want ErrInvalidConfig that names the field", err)
	}
	outside := c
	outside.DB = 1 << 20
	if _, err := redis.New(t.Context(), outside, locker.Config{}); !errors.Is(err, locker.ErrInvalidConfig) || !strings.Contains(err.Error(), "db:") {
		t.Errorf("a database that the server does not have: %v; want ErrInvalidConfig that names the field", err)
	}
	untrusted := c
	untrusted.TLS = &redis.TLS{ServerName: c.TLS.ServerName}
	_, err2 := redis.New(t.Context(), untrusted, locker.Config{})
	if !errors.Is(err2, locker.ErrUnavailable) {
		t.Errorf("a certificate that nobody trusts: %v; want ErrUnavailable", err2)
	}
	for _, err := range []error{err, err2} {
		if strings.Contains(fmt.Sprint(err), "wr0ng") || strings.Contains(fmt.Sprint(err), "s3cret") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
}

func TestSentinelFailover(t *testing.T) {
	set := redistest.StartSentinel(t)
	l := open(t, redis.Config{Addrs: set.Addrs(), MasterSet: set.MasterSet, Validity: time.Second}, locker.Config{})
	before := mustLock(t, l, "k", locker.WithTTL(time.Minute))
	first := before.Token()
	if err := before.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	set.Failover(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*promptly)
	defer cancel()
	after, err := l.Lock(ctx, "k")
	if err != nil {
		t.Fatalf("after the failover: %v", err)
	}
	if after.Token() <= first {
		t.Errorf("token %d on the new master after %d on the old one", after.Token(), first)
	}
}
