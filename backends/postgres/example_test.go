package postgres_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lockstep-go/lockstep/backends/postgres"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// The examples run on a real server, which the environment names, as libpq reads it. This module
// must not require the one that starts servers for tests, and so asks for it by a command.
func TestMain(m *testing.M) {
	code, err := withServer(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, "the examples need a PostgreSQL: set LOCKSTEP_POSTGRES_URL to one for tests, or run them in the project's repository, with one installed:", err)
		code = 1
	}
	os.Exit(code)
}

func withServer(run func() int) (int, error) {
	source := os.Getenv("LOCKSTEP_POSTGRES_URL")
	if source == "" {
		cmd := exec.Command("go", "run", "github.com/lockstep-go/lockstep/internal/pgtest/serve")
		cmd.Dir, cmd.Stderr = "../..", os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return 0, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return 0, err
		}
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		defer func() {
			_ = in.Close() // which ends the server
			_ = cmd.Wait()
		}()
		if source, err = bufio.NewReader(out).ReadString('\n'); err != nil {
			return 0, err
		}
	}
	u, err := url.Parse(strings.TrimSpace(source))
	if err != nil {
		return 0, errors.New("its address is no URL")
	}
	password, _ := u.User.Password()
	for name, value := range map[string]string{
		"PGHOST": u.Hostname(), "PGPORT": u.Port(), "PGUSER": u.User.Username(), "PGPASSWORD": password,
		"PGDATABASE": strings.TrimPrefix(u.Path, "/"), "PGSSLMODE": u.Query().Get("sslmode"),
	} {
		if err := os.Setenv(name, value); err != nil {
			return 0, err
		}
	}
	return run(), nil
}

// Where the server is comes from the environment here (PGHOST, …), as libpq reads it.
func Example() {
	ctx := context.Background()
	l, err := postgres.New(ctx, postgres.Config{}, locker.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close(ctx)

	lease, err := l.Lock(ctx, "invoice:42", locker.WithTTL(30*time.Second))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("a token:", lease.Token() > 0)
	_, err = l.TryLock(ctx, "invoice:42", locker.WithTTL(30*time.Second))
	fmt.Println("held:", errors.Is(err, locker.ErrHeld))
	fmt.Println(lease.Unlock(ctx))
	// Output:
	// a token: true
	// held: true
	// <nil>
}

// A session, which lasts until it is unlocked, and ends within Validity after a crash.
func ExampleNew() {
	ctx := context.Background()
	l, err := postgres.New(ctx, postgres.Config{Validity: 10 * time.Second, ApplicationName: "billing"}, locker.Config{Namespace: "billing"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close(ctx)
	lease, err := l.LockNS(ctx, "nightly")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(lease.Key(), lease.Session())
	fmt.Println(lease.Unlock(ctx))
	// Output:
	// billing:nightly true
	// <nil>
}

// Locks over the pool that the program has already.
func ExampleNewPool() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close() // after the Locker
	l, err := postgres.NewPool(ctx, pool, postgres.Config{}, locker.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close(ctx)
	lease, err := l.Lock(ctx, "report", locker.WithTTL(time.Minute))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(lease.Unlock(ctx))
	// Output: <nil>
}

// Open is for those who build on the driver: tests, wrappers, tools.
func ExampleOpen() {
	ctx := context.Background()
	b, err := postgres.Open(ctx, postgres.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := locker.New(b, locker.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close(ctx) // and b
	fmt.Println(b.Capabilities().Name, b.Capabilities().Has.Has(driver.PromptLoss))
	// Output: postgres true
}

func ExampleOpenPool() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	b, err := postgres.OpenPool(ctx, pool, postgres.Config{Table: "leases"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close(ctx)
	pinger, _ := driver.As[driver.Pinger](b)
	fmt.Println(pinger.Ping(ctx))
	// Output: <nil>
}

// Whoever may create the schema runs the script, once; the program has only the rights that it
// needs.
func ExampleScript() {
	ctx := context.Background()
	c := postgres.Config{Schema: "app", Table: "app_locks", Migrate: postgres.MigrateOff}
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = conn.Conn().PgConn().Exec(ctx, postgres.Script(c)).ReadAll()
	conn.Release()
	fmt.Println(err)

	l, err := postgres.New(ctx, c, locker.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close(ctx)
	fmt.Println(l.Ping(ctx))
	// Output:
	// <nil>
	// <nil>
}

// A write that lets no holder through whose lock another has had since.
func ExampleFence() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, `CREATE TABLE invoices (id int, state text, fence bigint NOT NULL DEFAULT 0); INSERT INTO invoices VALUES (42, 'open')`); err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Exec(ctx, `DROP TABLE invoices`)
	write := func(state string, token uint64) error {
		return postgres.Fence(pool.Exec(ctx, `UPDATE invoices SET state = $1, fence = $2 WHERE id = 42 AND fence <= $2`, state, int64(token)))
	}
	l, err := postgres.NewPool(ctx, pool, postgres.Config{}, locker.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close(ctx)

	slow, err := l.Lock(ctx, "invoice:42", locker.WithTTL(50*time.Millisecond))
	if err != nil {
		fmt.Println(err)
		return
	}
	// slow stands still here for longer than its ttl, and does not know it.
	quick, err := l.Lock(ctx, "invoice:42", locker.WithTTL(time.Minute))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("quick:", write("paid", quick.Token()))
	fmt.Println("slow is refused:", errors.Is(write("cancelled", slow.Token()), postgres.ErrStaleToken))
	// Output:
	// quick: <nil>
	// slow is refused: true
}

// A lock that ends with its transaction, however that ends.
func ExampleTxLock() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	tx, err := pool.Begin(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tx.Rollback(ctx)
	if err := postgres.TxLock(ctx, tx, "orders:numbers"); err != nil { // waits for its turn
		fmt.Println(err)
		return
	}
	// Whatever tx does from here on, no other transaction with this lock does meanwhile.
	var next int
	if err := tx.QueryRow(ctx, `SELECT 1 + 1`).Scan(&next); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(next, tx.Commit(ctx)) // which also unlocks
	// Output: 2 <nil>
}

func ExampleTryTxLock() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	try := func() (tx interface{ Rollback(context.Context) error }, ok bool) {
		own, err := pool.Begin(ctx)
		if err != nil {
			fmt.Println(err)
			return own, false
		}
		ok, err = postgres.TryTxLock(ctx, own, "orders:export")
		if err != nil {
			fmt.Println(err)
		}
		return own, ok
	}
	first, ok := try()
	fmt.Println("the first transaction:", ok)
	second, ok := try()
	fmt.Println("the second:", ok)
	_ = first.Rollback(ctx)
	_ = second.Rollback(ctx)
	third, ok := try()
	fmt.Println("after the first has ended:", ok)
	_ = third.Rollback(ctx)
	// Output:
	// the first transaction: true
	// the second: false
	// after the first has ended: true
}
