package proof

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lockstep-go/lockstep/backends/postgres"
	"github.com/lockstep-go/lockstep/internal/pgtest"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// pgWorld is a database of the test's own.
type pgWorld struct {
	*testing.T
	srv *pgtest.Server
	db  string
}

func newPGWorld(t *testing.T) pgWorld {
	srv := pgtest.Single(t)
	return pgWorld{t, srv, srv.Database(t)}
}

func (w pgWorld) open(change func(*postgres.Config)) *locker.Locker {
	w.Helper()
	c := postgresConfig(w.srv.Addr(), w.db)
	if change != nil {
		change(&c)
	}
	l, err := postgres.New(w.Context(), c, locker.Config{})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = l.Close(ctx)
	})
	return l
}

func (w pgWorld) do(sql string) { w.Helper(); w.srv.DoIn(w.T, w.db, sql) }

func (w pgWorld) text(sql string) string {
	w.Helper()
	return pgtest.Value[string](w.T, w.srv, w.db, sql)
}

// function is one of the schema's, whose name ends with the version.
func (w pgWorld) function(name string) string {
	w.Helper()
	return w.text(`SELECT oid::regproc::text FROM pg_proc WHERE proname ~ '^locks_` + name + `_[0-9]+$' ORDER BY oid DESC LIMIT 1`)
}

func (w pgWorld) number(sql string) int {
	w.Helper()
	return pgtest.Value[int](w.T, w.srv, w.db, sql)
}

// CTX-004, FLT-001: an attempt that was given up and taken back leaves no orphan, even if it
// reaches the server only after that.
func TestPostgresLateAcquire(t *testing.T) {
	w := newPGWorld(t)
	for _, kind := range []struct {
		name string
		opts []locker.Option
	}{{"lease", []locker.Option{locker.WithTTL(time.Hour)}}, {"session", nil}} {
		t.Run(kind.name, func(t *testing.T) {
			proxy := pgtest.NewProxy(t, w.srv.Addr())
			l := w.open(func(c *postgres.Config) { c.Host, c.Validity = []string{proxy.Addr()}, time.Hour })
			held := proxy.HoldRequest("lockstep_acquire")
			if _, err := l.TryLock(t.Context(), kind.name, kind.opts...); !errors.Is(err, locker.ErrUnavailable) {
				t.Fatalf("an attempt that never arrived: %v", err)
			}
			<-held.Taken()
			// The core takes it back by itself, on another connection.
			deadline := time.Now().Add(promptly)
			for w.number("SELECT count(*)::int FROM lockstep.locks_undone") == 0 {
				if time.Now().After(deadline) {
					t.Fatal("it is not taken back")
				}
			}
			if code := held.Deliver(t); code != "LS001" {
				t.Errorf("what came late was answered with SQLSTATE %q", code)
			}
			mustLock(t, w.open(nil), kind.name, kind.opts...)
			w.do("TRUNCATE lockstep.locks_undone")
		})
	}
}

// A holder whose attempt was repeated releases for good: the first copy comes later.
func TestPostgresLateCopy(t *testing.T) {
	w := newPGWorld(t)
	proxy := pgtest.NewProxy(t, w.srv.Addr())
	l := w.open(func(c *postgres.Config) { c.Host = []string{proxy.Addr()} })
	held := proxy.HoldRequest("lockstep_acquire")
	lease := mustLock(t, l, "k", locker.WithTTL(time.Hour))
	<-held.Taken()
	if err := lease.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if code := held.Deliver(t); code != "LS001" {
		t.Errorf("the copy was answered with SQLSTATE %q", code)
	}
	mustLock(t, w.open(nil), "k", locker.WithTTL(time.Minute))
}

// lockRows locks rows as somebody's transaction would, until unlock is called.
func (w pgWorld) lockRows(where string) (unlock func()) {
	w.Helper()
	tx, err := w.srv.Admin(w.T, w.db).Begin(w.Context())
	if err == nil {
		_, err = tx.Exec(w.Context(), "SELECT FROM lockstep.locks WHERE "+where+" FOR UPDATE")
	}
	if err != nil {
		w.Fatal(err)
	}
	return func() {
		w.Helper()
		if err := tx.Rollback(w.Context()); err != nil {
			w.Fatal(err)
		}
	}
}

// An attempt that waits for a row lock ends with its ctx, and takes nothing afterwards, even if
// the server does not hear that its client has gone.
func TestPostgresForeignRowLock(t *testing.T) {
	w := newPGWorld(t)
	if err := mustLock(t, w.open(nil), "k", locker.WithTTL(time.Hour)).Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	proxy := pgtest.NewProxy(t, w.srv.Addr())
	c := postgresConfig(proxy.Addr(), w.db)
	c.ApplicationName = "waits"
	b, err := postgres.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.Background())
	unlock := w.lockRows("true")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := b.Acquire(ctx, driver.Request{Key: "k", Owner: driver.Owner{Seq: 1}, TTL: time.Hour, Hold: ignore{}})
		done <- err
	}()
	waiting := func() int {
		return w.number("SELECT count(*)::int FROM pg_stat_activity WHERE application_name = 'waits' AND wait_event_type = 'Lock'")
	}
	for waiting() == 0 {
		if ctx.Err() != nil {
			t.Fatal("the attempt does not wait for the row")
		}
	}
	proxy.BlackHole(true, true)
	if err := <-done; !errors.Is(err, driver.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, driver.ErrRefused) {
		t.Errorf("an attempt at a row that is locked: %v", err)
	}
	unlock()
	for began := time.Now(); waiting() > 0; {
		if time.Since(began) > promptly {
			t.Fatal("the attempt still waits")
		}
	}
	if n := w.number("SELECT count(*)::int FROM lockstep.locks WHERE until > now()"); n != 0 {
		t.Error("an attempt took the key whose client had gone")
	}
	proxy.Heal()
}

// A session whose row is busy is not lost by that, and does not keep the others from being renewed.
func TestPostgresBusyRow(t *testing.T) {
	w := newPGWorld(t)
	l := w.open(func(c *postgres.Config) { c.Validity = 6 * time.Second }) // renewed every 2 s
	busy, other := mustLock(t, l, "busy"), mustLock(t, l, "other")
	unlock := w.lockRows("key = 'busy'")
	time.Sleep(2500 * time.Millisecond) // one renewal at least
	unlock()
	time.Sleep(2 * time.Second)
	if busy.Err() != nil || other.Err() != nil {
		t.Fatalf("after 2.5 s: %v, %v", busy.Err(), other.Err())
	}
	unlock = w.lockRows("key = 'busy'")
	time.Sleep(8 * time.Second)
	unlock()
	if !errors.Is(busy.Err(), locker.ErrLost) {
		t.Errorf("a session that was not renewed within its validity: %v", busy.Err())
	}
	if other.Err() != nil {
		t.Errorf("the other one: %v", other.Err())
	}
}

// What the connection that renews sessions asks besides waits for nobody's row: such a key is worth
// an attempt, which marks it, on another connection.
func TestPostgresBusyRowWaitedFor(t *testing.T) {
	w := newPGWorld(t)
	l := w.open(nil)
	mustLock(t, l, "busy", locker.WithTTL(time.Hour))
	mustLock(t, l, "held", locker.WithTTL(time.Hour))
	free := w.function("free")
	worth := func() string {
		t.Helper()
		return w.text("SELECT " + free + "(ARRAY['busy', 'held', 'nobody''s']::bytea[], true)::text FROM set_config('statement_timeout', '5s', false)")
	}
	unlock := w.lockRows("key = 'busy'")
	if got := worth(); got != "{t,f,t}" {
		t.Errorf("while a row is locked by somebody: %s", got)
	}
	unlock()
	if got := worth(); got != "{f,f,t}" {
		t.Errorf("after that: %s", got)
	}
	if n := w.number("SELECT count(*)::int FROM lockstep.locks WHERE wanted"); n != 2 {
		t.Errorf("%d rows are marked, of two that are held", n)
	}
}

// LOSS-003: whatever others do to a row that is held is announced.
func TestPostgresAnnounces(t *testing.T) {
	w := newPGWorld(t)
	l := w.open(func(c *postgres.Config) { c.Validity = time.Hour })
	for name, sql := range map[string]string{
		"delete":   "DELETE FROM lockstep.locks",
		"update":   "UPDATE lockstep.locks SET owner = 'x'",
		"truncate": "TRUNCATE lockstep.locks",
	} {
		for _, opts := range [][]locker.Option{{locker.WithTTL(time.Hour)}, nil} {
			t.Run(fmt.Sprint(name, len(opts)), func(t *testing.T) {
				lease := mustLock(t, l, name, opts...)
				w.do(sql)
				select {
				case <-lease.Done():
				case <-time.After(promptly):
					t.Error("the holder hears nothing")
				}
				if !errors.Is(lease.Err(), locker.ErrLost) {
					t.Error(lease.Err())
				}
				w.do("TRUNCATE lockstep.locks")
			})
		}
	}
}

// Nobody is notified where nobody waits, and a refusal writes nothing.
func TestPostgresWritesOnlyWhatItMust(t *testing.T) {
	w := newPGWorld(t)
	l, other := w.open(nil), w.open(nil)
	listener := w.srv.Admin(t, w.db)
	channel := pgtest.Value[string](t, w.srv, w.db, "SELECT substring(prosrc from 'lockstep_[0-9a-f]{24}') FROM pg_proc WHERE proname LIKE 'locks_release_%'")
	if _, err := listener.Exec(t.Context(), "LISTEN "+channel); err != nil {
		t.Fatal(err)
	}
	lease := mustLock(t, l, "k", locker.WithTTL(time.Hour))
	before := w.number("SELECT xmin::text::int FROM lockstep.locks")
	for range 10 {
		if _, err := other.TryLock(t.Context(), "k", locker.WithTTL(time.Hour)); !errors.Is(err, locker.ErrHeld) {
			t.Fatal(err)
		}
	}
	if after := w.number("SELECT xmin::text::int FROM lockstep.locks"); after != before {
		t.Error("a refused TryLock has written")
	}
	if err := lease.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.do("NOTIFY " + channel + ", 'end'")
	n, err := listener.WaitForNotification(t.Context())
	if err != nil || n.Payload != "end" {
		t.Errorf("announced %q, %v", n.Payload, err)
	}
}

// TOK-001 across a sweep, which takes what is free and old, and nothing else.
func TestPostgresSweep(t *testing.T) {
	w := newPGWorld(t)
	l := w.open(nil)
	held := mustLock(t, l, "held", locker.WithTTL(time.Hour))
	for i := range 20 {
		if err := mustLock(t, l, fmt.Sprint(i), locker.WithTTL(time.Hour)).Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	function := w.function("sweep")
	sweep := func(keep time.Duration) any {
		return pgtest.Value[*int](t, w.srv, w.db, "SELECT "+function+"($1, $2, 10000)", keep.Microseconds(), time.Minute.Microseconds())
	}
	if n := sweep(time.Hour).(*int); n == nil || *n != 0 {
		t.Errorf("it removes what is not old: %v", n)
	}
	if n := sweep(0).(*int); n != nil {
		t.Errorf("two sweep within a minute: %d", *n)
	}
	w.do("UPDATE lockstep.locks_swept SET at = '-infinity'")
	if n := sweep(0).(*int); n == nil || *n != 20 {
		t.Errorf("swept %v", n)
	}
	if n := w.number("SELECT count(*)::int FROM lockstep.locks"); n != 1 || held.Err() != nil {
		t.Errorf("%d rows are left; held: %v", n, held.Err())
	}
	if next := mustLock(t, l, "0", locker.WithTTL(time.Hour)); next.Token() <= held.Token() {
		t.Error("tokens do not rise")
	}
}

// Rows stay in their pages, and touch no index.
func TestPostgresHOT(t *testing.T) {
	w := newPGWorld(t)
	l := w.open(nil)
	for range 200 {
		lease := mustLock(t, l, "k", locker.WithTTL(time.Hour))
		if err := lease.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// What a session did is counted when it is idle, and at most once a second.
	deadline := time.Now().Add(20 * time.Second)
	for {
		all := w.number("SELECT n_tup_upd::int FROM pg_stat_user_tables WHERE relname = 'locks'")
		hot := w.number("SELECT n_tup_hot_upd::int FROM pg_stat_user_tables WHERE relname = 'locks'")
		if all >= 300 {
			if hot < all*95/100 {
				t.Errorf("%d of %d updates are HOT", hot, all)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d updates were counted", all)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// migrate: off refuses a database without the schema, and takes one that Script has made.
func TestPostgresMigrateOff(t *testing.T) {
	w := newPGWorld(t)
	c := postgresConfig(w.srv.Addr(), w.db)
	c.Migrate, c.Schema, c.Table, c.Unlogged = postgres.MigrateOff, `odd "schema"; --`, `it's \odd`, true
	if _, err := postgres.Open(t.Context(), c); !errors.Is(err, driver.ErrInvalidConfig) || !strings.Contains(err.Error(), "postgres.Script") {
		t.Fatal(err)
	}
	w.do(postgres.Script(c))
	w.do(postgres.Script(c)) // again
	l := w.open(func(own *postgres.Config) { *own = c })
	for _, key := range []string{"a", "'; DROP TABLE x; --", "\x00\xff", strings.Repeat("k", 1024)} {
		mustLock(t, l, key, locker.WithTTL(time.Minute))
	}
	if kind := pgtest.Value[string](t, w.srv, w.db, "SELECT relpersistence::text FROM pg_class WHERE relname = $1", c.Table); kind != "u" {
		t.Errorf("relpersistence is %s", kind)
	}
}

// Many clients may create the schema at the same time.
func TestPostgresMigrateTogether(t *testing.T) {
	w := newPGWorld(t)
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() {
			b, err := postgres.Open(context.Background(), postgresConfig(w.srv.Addr(), w.db))
			if err == nil {
				err = b.Close(context.Background())
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// Somebody drops the schema: the next operation creates it anew, and the holders learn.
func TestPostgresSchemaDropped(t *testing.T) {
	w := newPGWorld(t)
	l := w.open(nil)
	session := mustLock(t, l, "s")
	w.do("DROP SCHEMA lockstep CASCADE")
	lease := mustLock(t, l, "k", locker.WithTTL(time.Minute))
	if lease.Token() <= session.Token() {
		t.Error("tokens do not rise")
	}
	select {
	case <-session.Done():
	case <-time.After(promptly):
		t.Error("a session whose table is gone goes on")
	}
}

// Somebody drops one part of the schema: whoever needs it creates it anew, and nobody loses a lock.
func TestPostgresPartDropped(t *testing.T) {
	w := newPGWorld(t)
	l, polls := w.open(nil), w.open(func(c *postgres.Config) { c.Listen = postgres.ListenOff })
	session := mustLock(t, l, "session")
	mustLock(t, l, "held", locker.WithTTL(time.Hour))
	b := openPostgres(t, postgresConfig(w.srv.Addr(), w.db))
	defer b.Close(context.Background())
	take := func(key string, ttl time.Duration) (*locker.Lease, error) {
		return l.TryLock(t.Context(), key, locker.WithTTL(ttl))
	}
	used, dropped := 0, 0
	fresh := func() (*locker.Lease, error) { used++; return take(fmt.Sprint("fresh ", used), time.Hour) }
	open := func() error {
		other, err := postgres.Open(t.Context(), postgresConfig(w.srv.Addr(), w.db))
		if err == nil {
			err = other.Close(context.Background())
		}
		return err
	}
	nothing := func() error { return nil }
	// What needs each of them. It is prepared before the part is dropped.
	for part, prepare := range map[string]func() (need func() error){
		"next":    func() func() error { return func() error { return second(fresh()) } },
		"micros":  func() func() error { return func() error { return second(fresh()) } },
		"acquire": func() func() error { return func() error { return second(fresh()) } },
		"acquire_all": func() func() error {
			return func() error {
				return second(l.LockAll(t.Context(), []string{"all 1", "all 2"}, locker.WithTTL(time.Hour)))
			}
		},
		"extend": func() func() error {
			lease, err := fresh()
			return func() error { return errors.Join(err, lease.Extend(t.Context(), time.Minute)) }
		},
		"release": func() func() error {
			lease, err := fresh()
			return func() error { return errors.Join(err, lease.Unlock(t.Context())) }
		},
		"takeback": func() func() error {
			q := driver.Request{Key: "taken back", Owner: driver.Owner{Seq: 1}, TTL: time.Hour, Hold: ignore{}}
			_, err := b.Acquire(t.Context(), q)
			return func() error { return errors.Join(err, b.Release(t.Context(), holderOf(q, driver.Grant{}))) }
		},
		"break": func() func() error {
			lease, err := fresh()
			return func() error { return errors.Join(err, l.Break(t.Context(), lease.Key(), lease.Token())) }
		},
		"renew": func() func() error { return nothing }, // which happens by itself
		"check": func() func() error {
			return func() error { w.do("UPDATE lockstep.locks SET note = 'x' WHERE key = 'held'"); return nil }
		},
		"free": func() func() error {
			return func() error {
				go func() { _, _ = polls.Lock(t.Context(), "held", locker.WithTTL(time.Minute)) }()
				return nil
			}
		},
		// Sweeping happens too rarely for a test, and what a trigger calls is called by no client.
		"sweep": func() func() error { return open }, "changed": func() func() error { return open },
		"table _swept": func() func() error { return open },
		"table _undone": func() func() error {
			q := driver.Request{Key: "taken back too", Owner: driver.Owner{Seq: 2}, TTL: time.Hour, Hold: ignore{}}
			_, err := b.Acquire(t.Context(), q)
			return func() error { return errors.Join(err, b.Release(t.Context(), holderOf(q, driver.Grant{}))) }
		},
	} {
		need := prepare()
		exists := "to_regclass('lockstep.locks" + strings.TrimPrefix(part, "table ") + "')"
		if suffix, table := strings.CutPrefix(part, "table "); table {
			w.do("DROP TABLE lockstep.locks" + suffix + " CASCADE")
		} else {
			exists = "to_regproc('" + w.function(part) + "')"
			w.do("DROP FUNCTION " + w.function(part) + " CASCADE")
			dropped++
		}
		if err := need(); err != nil {
			t.Errorf("without %s: %v", part, err)
		}
		for began := time.Now(); w.number("SELECT ("+exists+" IS NOT NULL)::int") == 0; time.Sleep(time.Millisecond) {
			if time.Since(began) > promptly {
				t.Errorf("%s is not there again", part)
				w.do(postgres.Script(postgres.Config{}))
			}
		}
	}
	if n := w.number("SELECT count(*)::int FROM pg_proc WHERE pronamespace = 'lockstep'::regnamespace"); n != dropped {
		t.Errorf("%d functions were dropped in turn, of %d", dropped, n)
	}
	if session.Err() != nil {
		t.Errorf("a session ended: %v", session.Err())
	}
}

// Ping fails where a lock would: while a part is not there, directly and through a pooler, if nobody
// may create it anew.
func TestPostgresPingPart(t *testing.T) {
	w := newPGWorld(t)
	w.open(nil) // installs the schema
	addrs := map[string]string{"directly": w.srv.Addr(), "through a pooler": pgtest.StartBouncer(t, w.srv).Addr()}
	ls := map[string]*locker.Locker{}
	for name, addr := range addrs {
		ls[name] = w.open(func(c *postgres.Config) { c.Host, c.Migrate = []string{addr}, postgres.MigrateOff })
	}
	ping := func(part string, missing bool) {
		t.Helper()
		for name, l := range ls {
			if err := l.Ping(t.Context()); missing && !errors.Is(err, locker.ErrUnavailable) || !missing && err != nil {
				t.Errorf("%s, %s: %v", part, name, err)
			}
		}
	}
	ping("nothing is missing", false)
	for _, part := range []string{"next", "micros", "acquire", "acquire_all", "extend", "release", "takeback", "renew", "check", "free"} {
		w.do("DROP FUNCTION " + w.function(part))
		ping("without "+part, true)
		w.do(postgres.Script(postgres.Config{}))
		ping("with "+part+" again", false)
	}
	for _, sql := range []string{"DROP TABLE lockstep.locks_undone", "DROP TABLE lockstep.locks", "DROP SCHEMA lockstep CASCADE"} {
		w.do(sql)
		ping(sql, true)
		w.do(postgres.Script(postgres.Config{}))
		ping("after "+sql+" and the script", false)
	}
	if n := w.number("SELECT count(*)::int FROM lockstep.locks"); n != 0 {
		t.Errorf("a Ping wrote %d rows", n)
	}
	auto := w.open(nil)
	w.do("DROP SCHEMA lockstep CASCADE")
	if err := auto.Ping(t.Context()); err != nil {
		t.Errorf("with migrate: auto: %v", err)
	}
}

// A standby refuses, as a wrong peer, and is passed over where there are several hosts; after
// the promotion all goes on there.
func TestPostgresStandby(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Fast())
	db := primary.Database(t)
	c := postgresConfig(primary.Addr(), db)
	first, err := postgres.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Close(t.Context())
	standby := primary.Standby(t, pgtest.Fast())

	alone := c
	alone.Host = []string{standby.Addr()}
	if _, err := postgres.Open(t.Context(), alone); !errors.Is(err, driver.ErrWrongPeer) {
		t.Errorf("Open on a standby: %v", err)
	}

	// A name that moves to the standby, as after a failover that went wrong.
	proxy := pgtest.NewProxy(t, primary.Addr())
	moving := c
	moving.Host = []string{proxy.Addr()}
	b, err := postgres.Open(t.Context(), moving)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.Background())
	proxy.Redirect(standby.Addr())
	proxy.Reset()
	pinger, _ := driver.As[driver.Pinger](b)
	request := driver.Request{Key: "k", Owner: driver.Owner{Seq: 1}, TTL: time.Minute, Hold: ignore{}}
	for name, err := range map[string]error{"Ping": pinger.Ping(t.Context()), "Acquire": second(b.Acquire(t.Context(), request))} {
		if !errors.Is(err, driver.ErrWrongPeer) {
			t.Errorf("%s on a standby: %v", name, err)
		}
	}
	proxy.Redirect(primary.Addr())
	// The connections to the standby are given up by that.
	_, err = b.Acquire(t.Context(), request)
	for n := 0; err != nil && n < 3; n++ {
		_, err = b.Acquire(t.Context(), request)
	}
	if err != nil {
		t.Errorf("back on the primary: %v", err)
	}

	both := c
	both.Host = []string{standby.Addr(), primary.Addr()}
	l, err := postgres.New(t.Context(), both, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	lease := mustLock(t, l, "moves", locker.WithTTL(time.Hour))
	primary.Kill(t)
	standby.Promote(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	after, err := l.Lock(ctx, "after", locker.WithTTL(time.Minute))
	if err != nil {
		t.Fatalf("after the promotion: %v", err)
	}
	if after.Token() <= lease.Token() {
		t.Error("tokens do not rise")
	}
}

func second[T any](_ T, err error) error { return err }

type ignore struct{}

func (ignore) Lost(error) {}

// A wrong password is a wrong configuration, and neither it nor another secret is shown.
func TestPostgresWrongDatabase(t *testing.T) {
	w := newPGWorld(t)
	c := postgresConfig(w.srv.Addr(), "nowhere")
	c.Password = driver.NewSecret("hunter2")
	_, err := postgres.New(t.Context(), c, locker.Config{})
	if !errors.Is(err, locker.ErrInvalidConfig) || !strings.Contains(err.Error(), "dbname") || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
	c = postgresConfig(w.srv.Addr(), w.db)
	c.User = "nobody_here"
	if _, err := postgres.New(t.Context(), c, locker.Config{}); !errors.Is(err, locker.ErrInvalidConfig) || !strings.Contains(err.Error(), "user, password") {
		t.Error(err)
	}
}

// TxLock excludes another transaction until the first ends.
func TestPostgresTxLock(t *testing.T) {
	w := newPGWorld(t)
	one, two := w.srv.Admin(t, w.db), w.srv.Admin(t, w.db)
	begin := func(conn *pgx.Conn) pgx.Tx {
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	a, b := begin(one), begin(two)
	if err := postgres.TxLock(t.Context(), a, "k"); err != nil {
		t.Fatal(err)
	}
	if ok, err := postgres.TryTxLock(t.Context(), b, "k"); ok || err != nil {
		t.Errorf("a second one has it: %v, %v", ok, err)
	}
	if ok, err := postgres.TryTxLock(t.Context(), b, "other"); !ok || err != nil {
		t.Errorf("another key: %v, %v", ok, err)
	}
	if err := a.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, err := postgres.TryTxLock(t.Context(), b, "k"); !ok || err != nil {
		t.Errorf("after the first one's end: %v, %v", ok, err)
	}
	if err := b.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, conn := range []any{one, w.pool(t, "no transaction", nil)} {
		if _, ok := conn.(postgres.Tx); ok {
			t.Errorf("a %T passes for a transaction", conn)
		}
	}
}

// A waiter sees what the holder before it has committed.
func TestPostgresTxLockSees(t *testing.T) {
	w := newPGWorld(t)
	w.do("CREATE TABLE counted (n int NOT NULL); INSERT INTO counted VALUES (0)")
	a, err := w.srv.Admin(t, w.db).Begin(t.Context())
	if err == nil {
		err = postgres.TxLock(t.Context(), a, "k")
	}
	if err == nil {
		_, err = a.Exec(t.Context(), "UPDATE counted SET n = 1")
	}
	if err != nil {
		t.Fatal(err)
	}
	conn := w.srv.Admin(t, w.db)
	seen, errs := make(chan int, 1), make(chan error, 1)
	go func() {
		b, err := conn.Begin(t.Context())
		if err == nil {
			err = postgres.TxLock(t.Context(), b, "k")
		}
		n := 0
		if err == nil {
			err = b.QueryRow(t.Context(), "SELECT n FROM counted").Scan(&n)
		}
		seen <- n
		errs <- err
	}()
	for w.number("SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == 0 {
		if t.Context().Err() != nil || len(errs) > 0 {
			t.Fatal("nobody waits")
		}
	}
	if err := a.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := <-seen, <-errs; n != 1 || err != nil {
		t.Errorf("the next holder sees %d, %v", n, err)
	}
}

// A transaction that would not see what the holder before it has committed is refused, without the
// lock, and can go on.
func TestPostgresTxLockIsolation(t *testing.T) {
	w := newPGWorld(t)
	for level, refused := range map[pgx.TxIsoLevel]bool{pgx.ReadUncommitted: false, pgx.ReadCommitted: false, pgx.RepeatableRead: true, pgx.Serializable: true} {
		tx, err := w.srv.Admin(t, w.db).BeginTx(t.Context(), pgx.TxOptions{IsoLevel: level})
		if err != nil {
			t.Fatal(err)
		}
		try := func() error {
			ok, err := postgres.TryTxLock(t.Context(), tx, "tried "+string(level))
			if ok == refused {
				t.Errorf("%s: it has the lock: %t", level, ok)
			}
			return err
		}
		for name, err := range map[string]error{"TxLock": postgres.TxLock(t.Context(), tx, string(level)), "TryTxLock": try()} {
			if errors.Is(err, driver.ErrUnsupported) != refused || refused && !strings.Contains(err.Error(), strings.ToUpper(string(level))) || !refused && err != nil {
				t.Errorf("%s in %s: %v", name, level, err)
			}
		}
		var locks int
		if err := tx.QueryRow(t.Context(), "SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()").Scan(&locks); err != nil || refused && locks != 0 {
			t.Errorf("%s: %d locks, %v", level, locks, err)
		}
		_ = tx.Rollback(t.Context())
	}
}

// A holder that stood still past the end of its hold writes nothing.
func TestPostgresFence(t *testing.T) {
	w := newPGWorld(t)
	w.do("CREATE TABLE invoices (id int PRIMARY KEY, state text, fence bigint NOT NULL DEFAULT 0); INSERT INTO invoices VALUES (42, 'open')")
	conn := w.srv.Admin(t, w.db)
	write := func(lease *locker.Lease, state string) error {
		return postgres.Fence(conn.Exec(t.Context(), "UPDATE invoices SET state = $1, fence = $2 WHERE id = 42 AND fence <= $2", state, int64(lease.Token())))
	}
	l, other := w.open(nil), w.open(nil)
	stopped := mustLock(t, l, "invoice:42", locker.WithTTL(100*time.Millisecond))
	if err := write(stopped, "seen"); err != nil {
		t.Fatal(err)
	}
	next := mustLock(t, other, "invoice:42", locker.WithTTL(time.Minute)) // when the first one's time is up
	if err := write(next, "paid"); err != nil {
		t.Fatal(err)
	}
	if err := write(stopped, "seen again"); !errors.Is(err, postgres.ErrStaleToken) {
		t.Errorf("the old holder writes: %v", err)
	}
	if err := write(next, "sent"); err != nil {
		t.Error(err)
	}
}

// A call that leaves gives its connection up without a cancel request to a pooler: PgBouncer 1.18
// ends itself at some of them. Directly the server gets one.
func TestPostgresCancelRequests(t *testing.T) {
	w := newPGWorld(t)
	if err := mustLock(t, w.open(nil), "k", locker.WithTTL(time.Hour)).Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	bouncer := pgtest.StartBouncer(t, w.srv)
	for _, pooler := range []string{postgres.PoolerAuto, postgres.PoolerOff} { // off: it takes the pooler for a server
		c := postgresConfig(bouncer.Addr(), w.db)
		c.Pooler = pooler
		b, err := postgres.Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		unlock := w.lockRows("true")
		before := len(bouncer.Log(t))
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err = b.Acquire(ctx, driver.Request{Key: "k", Owner: driver.Owner{Seq: 1}, TTL: time.Hour, Hold: ignore{}})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an attempt at a row that is locked: %v", err)
		}
		// Terminate comes after the cancel request.
		var said string
		for began := time.Now(); !strings.Contains(said, "closing because: client"); said = bouncer.Log(t)[before:] {
			if time.Since(began) > 10*time.Second {
				t.Fatalf("pooler %s: the connection is not given up:\n%s", pooler, said)
			}
			time.Sleep(time.Millisecond)
		}
		if sent := strings.Contains(said, "cancel request"); sent != (pooler == postgres.PoolerOff) {
			t.Errorf("pooler %s: a cancel request was sent: %t\n%s", pooler, sent, said)
		}
		unlock()
		_ = b.Close(t.Context())
	}
}

// Settings that are refused leave nothing open.
func TestPostgresPoolSettings(t *testing.T) {
	w := newPGWorld(t)
	pool := w.pool(t, "settings_"+w.db, nil)
	l, err := postgres.NewPool(t.Context(), pool, postgres.Config{}, locker.Config{Namespace: "\x00"})
	if l != nil || !errors.Is(err, locker.ErrInvalidConfig) {
		t.Fatalf("%v, %v", l, err)
	}
	pool.Close()
	w.gone("settings_" + w.db)
}

// The connection that listens is made as those of the given pool are: here all that a role may do comes
// with its SET ROLE.
func TestPostgresPoolAfterConnect(t *testing.T) {
	w := newPGWorld(t)
	w.open(nil) // installs the schema
	grants, _ := rightsPage(t)
	does := w.role(t, "does", grants)
	login := "login_" + w.db
	w.do("CREATE ROLE " + login + " LOGIN NOINHERIT; GRANT " + does.name + " TO " + login)
	t.Cleanup(func() { w.do("DROP ROLE " + login) })
	p := w.pool(t, login, func(pc *pgxpool.Config) {
		pc.ConnConfig.User = login
		pc.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "SET ROLE "+does.name)
			return err
		}
	})
	l, err := postgres.NewPool(t.Context(), p, postgres.Config{Migrate: postgres.MigrateOff}, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := mustLock(t, l, "k").Unlock(t.Context()); err != nil {
		t.Error(err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
	// One whose AfterConnect fails is closed.
	failed := errors.New("not this one")
	name := "fails_" + w.db
	var made atomic.Int32
	p = w.pool(t, name, func(pc *pgxpool.Config) {
		pc.AfterConnect = func(context.Context, *pgx.Conn) error {
			if made.Add(1) > 1 { // the first is the pool's
				return failed
			}
			return nil
		}
	})
	if _, err := postgres.NewPool(t.Context(), p, postgres.Config{}, locker.Config{}); !errors.Is(err, failed) || !errors.Is(err, locker.ErrUnavailable) {
		t.Error(err)
	}
	p.Close()
	w.gone(name)
}

// A given pool leads through a pooler, and listenHost past it, to the first host that answers: without
// TLS, which the pool prefers and this server does not have.
func TestPostgresPoolListenHost(t *testing.T) {
	w := newPGWorld(t)
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = nobody.Close()
	pc, err := pgxpool.ParseConfig(strings.Replace(pgtest.StartBouncer(t, w.srv).URL(w.db), "sslmode=disable", "sslmode=prefer", 1))
	if err != nil {
		t.Fatal(err)
	}
	p, err := pgxpool.NewWithConfig(context.Background(), pc)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, err := postgres.NewPool(t.Context(), p, postgres.Config{ListenHost: []string{nobody.Addr().String(), w.srv.Addr()}}, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	lease := mustLock(t, l, "k", locker.WithTTL(time.Hour))
	w.do("TRUNCATE lockstep.locks")
	select {
	case <-lease.Done():
	case <-time.After(promptly):
		t.Error("the holder hears nothing")
	}
}

// pool is a program's own.
func (w pgWorld) pool(t *testing.T, name string, change func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	pc, err := pgxpool.ParseConfig(w.srv.URL(w.db))
	if err != nil {
		t.Fatal(err)
	}
	pc.ConnConfig.RuntimeParams["application_name"] = name
	if change != nil {
		change(pc)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), pc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// gone waits until the server has no connection of that name.
func (w pgWorld) gone(name string) {
	w.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		n := pgtest.Value[int](w.T, w.srv, w.db, "SELECT count(*)::int FROM pg_stat_activity WHERE application_name = $1", name)
		if n == 0 {
			return
		}
		if time.Since(began) > promptly {
			w.Fatalf("%d connections are left", n)
		}
	}
}
