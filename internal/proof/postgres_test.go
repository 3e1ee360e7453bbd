package proof

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lockstep-go/lockstep/backends/postgres"
	"github.com/lockstep-go/lockstep/conformance"
	"github.com/lockstep-go/lockstep/internal/pgtest"
	"github.com/lockstep-go/lockstep/locker/driver"
)

func TestPostgres(t *testing.T) {
	srv := pgtest.Single(t)
	db := srv.Database(t)
	conformance.Run(t, func(t *testing.T) *conformance.Target {
		target := postgresTarget(t, srv, db, postgresConfig(srv.Addr(), db), nil)
		target.Inject = postgresInject(t, postgres.Config{}, nil)
		return target
	}, conformance.Parallel(), busy)
}

// pooledValidity is twice that of others: a renewal waits in the pooler behind a crowd that polls.
const pooledValidity = 4 * time.Second

// TestPostgresBouncer is the suite through PgBouncer in transaction mode: nothing is prepared,
// and nothing announced.
func TestPostgresBouncer(t *testing.T) {
	srv := pgtest.Start(t)
	db := srv.Database(t)
	bouncer := pgtest.StartBouncer(t, srv)
	conformance.Run(t, func(t *testing.T) *conformance.Target {
		c := postgresConfig(bouncer.Addr(), db)
		c.Validity = pooledValidity
		return postgresTarget(t, srv, db, c, nil)
	}, conformance.Parallel(), busy)
}

// TestPostgresBouncerAndListener is the same with a connection past PgBouncer that listens.
func TestPostgresBouncerAndListener(t *testing.T) {
	srv := pgtest.Start(t)
	db := srv.Database(t)
	bouncer := pgtest.StartBouncer(t, srv)
	conformance.Run(t, func(t *testing.T) *conformance.Target {
		c := postgresConfig(bouncer.Addr(), db)
		c.Validity = pooledValidity
		c.ListenHost = []string{srv.Addr()}
		return postgresTarget(t, srv, db, c, nil)
	}, conformance.Parallel(), busy)
}

// TestPostgresPool is the suite over pools that the program has made, in a database whose
// transactions are serializable, so that the server rolls back what meets. The one has nothing to do
// with the other; a run for each takes twice as long.
func TestPostgresPool(t *testing.T) {
	srv := pgtest.Single(t)
	db := srv.Database(t)
	srv.Do(t, "ALTER DATABASE "+db+" SET default_transaction_isolation = 'serializable'")
	conformance.Run(t, func(t *testing.T) *conformance.Target {
		return postgresTarget(t, srv, db, postgresConfig(srv.Addr(), db), func(tb testing.TB, c postgres.Config) driver.Backend {
			pc, err := pgxpool.ParseConfig(srv.URL(db))
			if err != nil {
				tb.Fatal(err)
			}
			c.ConnConfig(pc.ConnConfig)
			pc.ConnConfig.RuntimeParams["application_name"] = c.ApplicationName
			pool, err := pgxpool.NewWithConfig(context.Background(), pc)
			if err != nil {
				tb.Fatal(err)
			}
			b, err := postgres.OpenPool(context.Background(), pool, c)
			if err != nil {
				tb.Fatalf("opening Postgres: %v", err)
			}
			return &closesPool{b, pool}
		})
	}, conformance.Parallel(), busy)
}

// closesPool closes the pool after the backend, as a program does.
type closesPool struct {
	driver.Backend
	pool *pgxpool.Pool
}

func (c *closesPool) Unwrap() driver.Backend { return c.Backend }

func (c *closesPool) Close(ctx context.Context) error {
	err := c.Backend.Close(ctx)
	c.pool.Close()
	return err
}

// TestPostgresDataLoss is the suite's part that needs a Postgres of its own: it is restarted,
// and loses all its data.
func TestPostgresDataLoss(t *testing.T) {
	srv := pgtest.Start(t)
	db := srv.Database(t)
	conformance.Run(t, func(t *testing.T) *conformance.Target {
		c := postgresConfig(srv.Addr(), db)
		target := postgresTarget(t, srv, db, c, nil)
		target.Restart = func(tb testing.TB) { srv.Kill(tb); srv.Restart(tb) }
		target.Wipe = func(tb testing.TB) { srv.Kill(tb); srv.RestartEmpty(tb) }
		return target
	}, conformance.Only("TOK-005"), busy)
}

func postgresConfig(addr, db string) postgres.Config {
	return postgres.Config{
		Host: []string{addr}, User: "postgres", Database: db, SSLMode: "disable",
		// Short, because a case that waits for a session to run out takes so long; see redisTarget.
		Validity: 2 * time.Second,
		// Many clients at a time share one server here.
		MaxConns: 4,
	}
}

// postgresTarget is a target with a schema of its own in a database that others use too.
func postgresTarget(t *testing.T, srv *pgtest.Server, db string, c postgres.Config, openAs func(testing.TB, postgres.Config) driver.Backend) *conformance.Target {
	t.Helper()
	c.Schema = fmt.Sprintf("proof %x-%d", processID, targets.Add(1))
	c.ApplicationName = c.Schema
	if openAs == nil {
		openAs = openPostgres
	}
	var mu sync.Mutex
	wires := map[driver.Backend]*wire{}
	open := func(tb testing.TB) driver.Backend {
		tb.Helper()
		own, w := c, &wire{}
		own.ConnConfig = func(cc *pgx.ConnConfig) { cc.DialFunc = w.dial(cc.DialFunc) }
		b := openAs(tb, own)
		mu.Lock()
		defer mu.Unlock()
		wires[b] = w
		return b
	}
	b := open(t)
	admin := &postgresAdmin{srv: srv, db: db, table: tableOf(c)}
	return &conformance.Target{
		Backend: b,
		Peer:    open,
		Delete:  admin.delete,
		Crash: func(_ testing.TB, b driver.Backend) {
			mu.Lock()
			defer mu.Unlock()
			wires[b].cut()
		},
		Keys: admin.keys,
		Connections: func(tb testing.TB) int {
			return pgtest.Value[int](tb, srv, db, "SELECT count(*)::int FROM pg_stat_activity WHERE application_name = $1", c.ApplicationName)
		},
	}
}

func openPostgres(tb testing.TB, c postgres.Config) driver.Backend {
	tb.Helper()
	b, err := postgres.Open(context.Background(), c)
	if err != nil {
		tb.Fatalf("opening Postgres: %v", err)
	}
	return b
}

func tableOf(c postgres.Config) string {
	c.SetDefaults()
	return pgx.Identifier{c.Schema, c.Table}.Sanitize()
}

// postgresAdmin is what an administrator would do behind the backend's back.
type postgresAdmin struct {
	srv   *pgtest.Server
	db    string
	table string
}

func (a *postgresAdmin) do(tb testing.TB, sql string) {
	tb.Helper()
	a.srv.DoIn(tb, a.db, strings.ReplaceAll(sql, "@", a.table))
}

func literal(key string) string { return `'\x` + hex.EncodeToString([]byte(key)) + "'" }

func (a *postgresAdmin) delete(tb testing.TB, key string) {
	a.do(tb, "DELETE FROM @ WHERE key = "+literal(key))
}

// overwrite puts something in the key's place that is none of ours, for ever.
func (a *postgresAdmin) overwrite(tb testing.TB, key string) {
	a.do(tb, "UPDATE @ SET owner = 'mine', until = 'infinity' WHERE key = "+literal(key))
}

// full answers each change of the table as the server does when the disk is full.
func (a *postgresAdmin) full(tb testing.TB) {
	a.do(tb, `CREATE OR REPLACE FUNCTION out_of_space() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
		CREATE TRIGGER out_of_space BEFORE INSERT OR UPDATE ON @ EXECUTE FUNCTION out_of_space()`)
}

func (a *postgresAdmin) hasRoom(tb testing.TB) { a.do(tb, "DROP TRIGGER out_of_space ON @") }

func (a *postgresAdmin) wipe(tb testing.TB) { a.do(tb, "TRUNCATE @") }

// keys lists the rows. One that nobody holds is swept away by itself.
func (a *postgresAdmin) keys(tb testing.TB) (all []conformance.StoreKey) {
	conn := a.srv.Admin(tb, a.db)
	rows, err := conn.Query(context.Background(), strings.ReplaceAll("SELECT key, until <= clock_timestamp() FROM @", "@", a.table))
	if err != nil {
		tb.Fatal(err)
	}
	for rows.Next() {
		var key []byte
		var k conformance.StoreKey
		if err := rows.Scan(&key, &k.Expires); err != nil {
			tb.Fatal(err)
		}
		k.Name = string(key)
		all = append(all, k)
	}
	if rows.Err() != nil {
		tb.Fatal(rows.Err())
	}
	return all
}

// wire is one client's connections, so that they can be torn as the death of its process would.
type wire struct {
	mu    sync.Mutex
	conns []net.Conn
	dead  bool
}

type dialer = func(context.Context, string, string) (net.Conn, error)

func (w *wire) dial(dial dialer) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.dead {
			_ = conn.Close()
			return nil, errors.New("this client has crashed")
		}
		w.conns = append(w.conns, conn)
		return conn, nil
	}
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	for _, c := range w.conns {
		_ = c.Close()
	}
}

func BenchmarkPostgres(b *testing.B) {
	srv := pgtest.Single(b)
	db := srv.Database(b)
	conformance.Benchmark(b, func(b *testing.B) *conformance.Target {
		open := func(tb testing.TB) driver.Backend {
			return openPostgres(tb, postgresConfig(srv.Addr(), db))
		}
		return &conformance.Target{Backend: open(b), Peer: open}
	})
}

const postgresHolderEnv = "LOCKSTEP_PROOF_POSTGRES_HOLDER"

// TestPostgresHolderProcess is the other process of FLT-009, which is killed and stopped.
func TestPostgresHolderProcess(t *testing.T) {
	source := os.Getenv(postgresHolderEnv)
	if source == "" {
		t.Skip("FLT-009 runs it, in a process of its own")
	}
	addr, db, _ := strings.Cut(source, "/")
	c := postgresConfig(addr, db)
	c.Validity = faultValidity
	if err := conformance.Holder(openPostgres(t, c), os.Stdin, os.Stdout); err != nil {
		t.Fatal(err)
	}
}
