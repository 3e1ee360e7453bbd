package proof

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/lockstep-go/lockstep/backends/postgres"
	"github.com/lockstep-go/lockstep/internal/pgtest"
	"github.com/lockstep-go/lockstep/locker"
)

// A primary that takes no writes any more answers all the same. Who waits asks it by a timer, and no more connections
// are made than to a server that is down.
func TestPostgresReadOnlyPrimary(t *testing.T) {
	for _, listen := range []string{postgres.ListenOn, postgres.ListenOff} {
		t.Run("listen="+listen, func(t *testing.T) {
			srv := pgtest.Start(t, pgtest.Fast())
			w := pgWorld{t, srv, srv.Database(t)}
			var dials atomic.Int64
			l := w.open(func(c *postgres.Config) {
				c.Listen, c.Validity = listen, time.Minute
				c.ConnConfig = func(cc *pgx.ConnConfig) {
					dial := cc.DialFunc
					cc.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
						dials.Add(1)
						return dial(ctx, network, addr)
					}
				}
			})
			session := mustLock(t, l, "session")
			readOnly := func(value string) {
				w.do("ALTER SYSTEM SET default_transaction_read_only = " + value)
				w.do("SELECT pg_reload_conf()")
			}
			readOnly("on")
			for n := 0; ; n++ { // the server's processes hear of it one by one
				lease, err := l.TryLock(t.Context(), fmt.Sprint("probe ", n))
				if errors.Is(err, locker.ErrUnavailable) {
					break
				}
				if err == nil {
					err = lease.Unlock(t.Context())
				}
				if err != nil && !errors.Is(err, locker.ErrUnavailable) {
					t.Fatal(err)
				}
			}
			before := dials.Load()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if _, err := l.Lock(ctx, "free"); !errors.Is(err, locker.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Lock on a server that takes no writes: %v", err)
			}
			if n := dials.Load() - before; n > 150 { // 2 s of attempts each 100 ms, and of connecting each 200 ms
				t.Errorf("%d connections were made", n)
			}
			readOnly("off")
			if err := mustLock(t, l, "free").Unlock(t.Context()); err != nil {
				t.Error(err)
			}
			if err := session.Unlock(t.Context()); err != nil {
				t.Errorf("the session: %v", err)
			}
		})
	}
}

// The first of two hosts swallows everything: the connection that renews sessions goes to the other one.
func TestPostgresSilentHost(t *testing.T) {
	w := newPGWorld(t)
	silent, other := pgtest.NewProxy(t, w.srv.Addr()), pgtest.NewProxy(t, w.srv.Addr())
	l := w.open(func(c *postgres.Config) {
		c.Host, c.ConnectTimeout, c.Validity = []string{silent.Addr(), other.Addr()}, 1, 6*time.Second
	})
	session := mustLock(t, l, "session")
	silent.BlackHole(true, true)
	silent.Reset() // what is open ends; what is opened hears nothing
	other.Reset()
	select {
	case <-session.Done():
		t.Errorf("the session ended: %v", session.Err())
	case <-time.After(10 * time.Second): // it lasts for 6 s if nobody renews it
	}
	if err := session.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
}

// LOSS-003 where several holds are changed by one statement: of each the holder hears at once, not only of the first.
func TestPostgresAnnouncesAll(t *testing.T) {
	w := newPGWorld(t)
	l := w.open(func(c *postgres.Config) { c.Validity = time.Hour })
	var all []*locker.Lease
	for i := range 20 {
		all = append(all, mustLock(t, l, fmt.Sprint("lease ", i), locker.WithTTL(time.Hour)), mustLock(t, l, fmt.Sprint("session ", i)))
	}
	w.do("DELETE FROM lockstep.locks")
	late := time.After(promptly)
	for _, lease := range all {
		select {
		case <-lease.Done():
		case <-late:
			t.Fatalf("the holder of %q hears nothing", lease.Key())
		}
	}
}

// Whoever empties every table of a database empties the one that says when the last sweep was.
func TestPostgresSweepsWithoutItsRow(t *testing.T) {
	w := newPGWorld(t)
	l := w.open(nil)
	if err := mustLock(t, l, "k").Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.do("TRUNCATE lockstep.locks_swept")
	n := pgtest.Value[*int](t, w.srv, w.db, "SELECT "+w.function("sweep")+"(0, $1, 10000)", time.Minute.Microseconds())
	if n == nil || *n != 1 {
		t.Errorf("swept %v", n)
	}
}
