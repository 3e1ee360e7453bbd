package pgtest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

func TestSingleIsDurable(t *testing.T) {
	srv := Single(t)
	if Single(t) != srv {
		t.Error("there are two")
	}
	db := srv.Database(t)
	if got := Value[string](t, srv, db, "SHOW fsync"); got != "on" {
		t.Errorf("fsync is %s", got)
	}
	if a, b := db, srv.Database(t); a == b {
		t.Error("two tests have one database")
	}
}

func TestFaults(t *testing.T) {
	srv := Start(t, Fast())
	if data := Value[string](t, srv, "postgres", "SHOW data_directory"); !strings.HasPrefix(data, mainMemory()) {
		t.Errorf("its data is in %s, and there is room in %s", data, mainMemory())
	}
	db := srv.Database(t)
	srv.DoIn(t, db, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")

	srv.Pause(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := pgx.Connect(ctx, srv.URL(db)); err == nil || ctx.Err() == nil {
		t.Errorf("a paused server: %v", err)
	}
	srv.Resume(t)
	if n := Value[int](t, srv, db, "SELECT n FROM kept"); n != 7 {
		t.Error(n)
	}

	conn := connect(t, srv.URL(db)+"&application_name=victim")
	srv.Kill(t)
	if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a killed server answers")
	}
	srv.Restart(t)
	if n := Value[int](t, srv, db, "SELECT n FROM kept"); n != 7 {
		t.Error(n)
	}

	conn = connect(t, srv.URL(db)+"&application_name=victim")
	srv.Terminate(t, "victim%")
	var e *pgconn.PgError
	if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a connection that was terminated goes on")
	}
	conn = connect(t, srv.URL(db)+"&application_name=victim")
	asleep := make(chan error, 1)
	go func() { _, err := conn.Exec(context.Background(), "SELECT pg_sleep(60)"); asleep <- err }()
	for done := false; !done; {
		srv.CancelStatements(t, "victim%")
		select {
		case err := <-asleep:
			done = true
			if !errors.As(err, &e) || e.Code != "57014" {
				t.Error(err)
			}
		case <-time.After(10 * time.Millisecond):
		}
	}

	srv.Kill(t)
	srv.RestartEmpty(t)
	if Value[bool](t, srv, db, "SELECT to_regclass('kept') IS NOT NULL") {
		t.Error("the data are still there")
	}
}

func TestStandby(t *testing.T) {
	srv := Start(t, Fast())
	db := srv.Database(t)
	srv.DoIn(t, db, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
	standby := srv.Standby(t, Fast())
	var e *pgconn.PgError
	if err := standby.Exec(db, "INSERT INTO kept VALUES (8)"); !errors.As(err, &e) || e.Code != "25006" {
		t.Errorf("a write to the standby: %v", err)
	}
	srv.Kill(t)
	standby.Promote(t)
	standby.DoIn(t, db, "INSERT INTO kept VALUES (8)")
	if n := Value[int](t, standby, db, "SELECT sum(n)::int FROM kept"); n != 15 {
		t.Error(n)
	}
}

func TestBouncer(t *testing.T) {
	srv := Single(t)
	if !srv.Owned() {
		srv = Start(t)
	}
	db := srv.Database(t)
	conn := connect(t, StartBouncer(t, srv).URL(db))
	var pid uint32
	if err := conn.QueryRow(t.Context(), "SELECT pg_backend_pid()", pgx.QueryExecModeExec).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	if pid == conn.PgConn().PID() {
		t.Error("the pooler tells its client the server's number")
	}
}

func proxied(t *testing.T) (*Server, string, *Proxy, func() *pgx.Conn) {
	srv := Single(t)
	db := srv.Database(t)
	srv.DoIn(t, db, "CREATE TABLE log (what text)")
	p := NewProxy(t, srv.Addr())
	return srv, db, p, func() *pgx.Conn { return connect(t, srv.URLAt(p.Addr(), db)) }
}

const write = "INSERT INTO log VALUES ($1)"

func wrote(t *testing.T, srv *Server, db string) int {
	return Value[int](t, srv, db, "SELECT count(*)::int FROM log")
}

func TestProxyLoses(t *testing.T) {
	srv, db, p, dial := proxied(t)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		srv.DoIn(t, db, "TRUNCATE log")
		// Whatever prepares, connects or does something else is no such request.
		p.LoseReplies(1, "INSERT INTO log")
		conn := dial()
		if _, err := conn.Exec(t.Context(), "SELECT 1", mode); err != nil {
			t.Fatalf("%v: %v", mode, err)
		}
		text := write
		if mode == pgx.QueryExecModeCacheStatement {
			p.Heal()
			p.LoseReplies(1, "insert_log")
			if _, err := conn.Prepare(t.Context(), "insert_log", write); err != nil {
				t.Fatal(err)
			}
			text = "insert_log"
		}
		if _, err := conn.Exec(t.Context(), text, append(modeArg(mode), "x")...); err == nil {
			t.Errorf("%v: its reply came", mode)
		}
		if n := wrote(t, srv, db); n != 1 {
			t.Errorf("%v: the request whose reply is lost was carried out %d times", mode, n)
		}
		conn = dial()
		p.LoseRequests(1, "INSERT INTO log")
		if _, err := conn.Exec(t.Context(), write, pgx.QueryExecModeExec, "y"); err == nil {
			t.Errorf("%v: a lost request has a reply", mode)
		}
		if n := wrote(t, srv, db); n != 1 {
			t.Errorf("%v: the lost request was carried out", mode)
		}
	}
	if n := p.Lost(); n != 6 {
		t.Errorf("%d were lost", n)
	}
}

func modeArg(mode pgx.QueryExecMode) []any {
	if mode == pgx.QueryExecModeCacheStatement {
		return nil
	}
	return []any{mode}
}

func TestProxyHangs(t *testing.T) {
	srv, db, p, dial := proxied(t)
	conn := dial()
	p.HangReplies(1, "INSERT")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, write, pgx.QueryExecModeExec, "x")
		ended <- err
	}()
	for end := time.Now().Add(10 * time.Second); wrote(t, srv, db) != 1; {
		if time.Now().After(end) {
			t.Fatal("it was not carried out")
		}
	}
	select {
	case err := <-ended:
		t.Errorf("it ended with %v", err)
	case <-time.After(100 * time.Millisecond):
		cancel()
		<-ended
	}
	if n := wrote(t, srv, db); n != 1 {
		t.Errorf("carried out %d times", n)
	}
}

func TestProxyHolds(t *testing.T) {
	srv, db, p, dial := proxied(t)
	conn := dial()
	held := p.HoldRequest("INSERT")
	if _, err := conn.Exec(t.Context(), write, pgx.QueryExecModeExec, "late"); err == nil {
		t.Error("what is on its way has a reply")
	}
	<-held.Taken()
	if n := wrote(t, srv, db); n != 0 {
		t.Error("it has arrived")
	}
	if code := held.Deliver(t); code != "" {
		t.Error(code)
	}
	if n := wrote(t, srv, db); n != 1 {
		t.Error("it has not arrived")
	}
	conn = dial()
	held = p.HoldRequest("nonsense")
	if _, err := conn.Exec(t.Context(), "SELECT nonsense", pgx.QueryExecModeExec); err == nil {
		t.Error("what is on its way has a reply")
	}
	if code := held.Deliver(t); code != "42703" {
		t.Errorf("SQLSTATE %q", code)
	}
}

// TestProxyHoldsCancel: a client cancels what it gives up, from the background and so at any time.
func TestProxyHoldsCancel(t *testing.T) {
	srv, _, p, dial := proxied(t)
	conn := dial()
	held := p.HoldRequest("pg_sleep")
	if _, err := conn.Exec(t.Context(), "INSERT INTO log SELECT 'slow' FROM pg_sleep(0.5)", pgx.QueryExecModeExec); err == nil {
		t.Error("what is on its way has a reply")
	}
	code := make(chan string, 1)
	go func() { code <- held.Deliver(t) }()
	for len(code) == 0 && Value[int](t, srv, "postgres", "SELECT count(*)::int FROM pg_stat_activity WHERE query LIKE 'INSERT INTO log SELECT%' AND state = 'active'") == 0 {
	}
	if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
		t.Logf("the cancel: %v", err)
	}
	if code := <-code; code != "" {
		t.Errorf("SQLSTATE %q: it was cancelled", code)
	}
}

func TestProxySevers(t *testing.T) {
	srv, db, p, dial := proxied(t)
	conn, other := dial(), dial()
	p.Latency(100*time.Millisecond, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	sent := time.Now()
	if _, err := conn.Exec(ctx, write, pgx.QueryExecModeExec, "late"); err == nil {
		t.Error("what is on its way has a reply")
	}
	const late = 500 * time.Millisecond
	p.Sever(late)
	p.Latency(0, 0)
	if _, err := other.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a connection that was severed answers")
	}
	if _, err := dial().Exec(t.Context(), "SELECT 1"); err != nil {
		t.Error(err)
	}
	if n := wrote(t, srv, db); n != 0 && time.Since(sent) < late {
		t.Error("it has arrived")
	}
	for wrote(t, srv, db) == 0 {
		if time.Since(sent) > 20*late {
			t.Fatal("it has not arrived")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if took := time.Since(sent); took < late {
		t.Errorf("it arrived after %s", took)
	}
}

func TestProxyNetwork(t *testing.T) {
	_, _, p, dial := proxied(t)
	conn := dial()
	ask := func(within time.Duration) (time.Duration, error) {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		began := time.Now()
		_, err := conn.Exec(ctx, "SELECT 1", pgx.QueryExecModeSimpleProtocol)
		return time.Since(began), err
	}
	p.Latency(50*time.Millisecond, 70*time.Millisecond)
	if took, err := ask(10 * time.Second); err != nil || took < 120*time.Millisecond {
		t.Errorf("%s, %v", took, err)
	}
	p.Latency(0, 0)
	for _, way := range [][2]bool{{true, false}, {false, true}, {true, true}} {
		p.BlackHole(way[0], way[1])
		if _, err := ask(50 * time.Millisecond); err == nil {
			t.Errorf("a black hole %v answers", way)
		}
		p.Heal()
		conn = dial()
		if _, err := ask(10 * time.Second); err != nil {
			t.Error(err)
		}
	}
	p.Reset()
	if _, err := ask(10 * time.Second); err == nil {
		t.Error("a connection that was reset answers")
	}
	p.Cut()
	if _, err := pgx.Connect(t.Context(), "postgres://postgres@"+p.Addr()+"/postgres?sslmode=disable&connect_timeout=2"); err == nil {
		t.Error("a line that was cut connects")
	}
	p.Heal()
	conn = dial()
	if _, err := ask(10 * time.Second); err != nil {
		t.Error(err)
	}
}

// On a machine that has nothing, a test fails, and says what to do.
func TestNothingToBeHad(t *testing.T) {
	if os.Getenv("LOCKSTEP_PGTEST_HELPER") != "" {
		Single(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestNothingToBeHad$")
	cmd.Env = []string{"LOCKSTEP_PGTEST_HELPER=1", noFoldersVariable + "=1", "PATH=" + t.TempDir(), "HOME=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "apt-get install postgresql") || !strings.Contains(string(out), urlVariable) {
		t.Errorf("%v\n%s", err, out)
	}
}
