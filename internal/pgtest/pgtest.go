// Package pgtest gives tests a real Postgres, or fails and says what to install. A test that
// did not run is never green.
//
// [Single] is the server that LOCKSTEP_POSTGRES_URL names, or one that all tests of the process
// share; [Start] is one of the test's own, which may be paused, killed and restarted. Both are
// made by initdb and run as a child process, by an unprivileged user if the tests run as root,
// with the durability that Postgres has by default. [NewProxy] does to connections what networks
// do, [Server.Standby] is a streaming replica, and [StartBouncer] is a PgBouncer in between.
package pgtest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const urlVariable = "LOCKSTEP_POSTGRES_URL"

// startTimeout bounds the start of anything here.
const startTimeout = time.Minute

var single struct {
	sync.Mutex
	srv *Server
	err error
}

// Single returns the Postgres that all tests of this process share. The first call starts it.
// Other tests use it at the same time: take a [Server.Database] each, and [Start] for anything
// that others would notice.
func Single(tb testing.TB) *Server {
	tb.Helper()
	single.Lock()
	defer single.Unlock()
	if single.srv == nil && single.err == nil {
		if text := os.Getenv(urlVariable); text != "" {
			single.srv, single.err = openURL(text)
		} else {
			single.srv, single.err = start(spec{})
		}
	}
	if single.err != nil {
		tb.Fatal(single.err)
	}
	return single.srv
}

// Start returns a Postgres of the test's own, which ends with the test.
func Start(tb testing.TB, opts ...Option) *Server {
	tb.Helper()
	var s spec
	for _, o := range opts {
		o(&s)
	}
	srv, err := start(s)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(srv.terminate)
	return srv
}

// Serve starts a Postgres, or takes the one that LOCKSTEP_POSTGRES_URL names, writes the URL to out
// as one line, and returns when in has ended.
func Serve(in io.Reader, out io.Writer) error {
	url := os.Getenv(urlVariable)
	if url == "" {
		srv, err := start(spec{})
		if err != nil {
			return err
		}
		defer srv.terminate()
		url = srv.url(srv.base)
	}
	if _, err := fmt.Fprintln(out, url); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, in)
	return err
}

// An Option changes a server that [Start] starts.
type Option func(*spec)

// Param sets a parameter of the server, as in postgresql.conf.
func Param(name, value string) Option {
	return func(s *spec) { s.params = append(s.params, name+"="+value) }
}

// Fast leaves out the disk: nothing is synced, and the folder is in main memory where that has room.
// It is for tests that start many servers, none of which has to survive the machine. A killed process
// loses nothing by it.
func Fast() Option {
	return func(s *spec) {
		Param("fsync", "off")(s)
		s.in = cmp.Or(s.in, mainMemory())
	}
}

// In has the server's folder made in another one than that for temporary files.
func In(folder string) Option { return func(s *spec) { s.in = folder } }

// Env sets a variable in the server's environment. In its value, $DIR is the server's folder.
func Env(name, value string) Option {
	return func(s *spec) { s.env = append(s.env, name+"="+value) }
}

// File puts a file into the server's folder.
func File(name string, content []byte) Option {
	return func(s *spec) { s.files = append(s.files, file{name, content}) }
}

type spec struct {
	in     string
	params []string
	env    []string
	files  []file
}

type file struct {
	name    string
	content []byte
}

// Server is one Postgres. Its methods are safe for concurrent use.
type Server struct {
	host string
	user *url.Userinfo
	port int
	node *node  // nil for a server given by URL
	base string // the database that administrators use
	more url.Values

	mu        sync.Mutex
	databases []string
}

func openURL(text string) (*Server, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return nil, fmt.Errorf("pgtest: %s is not a URL with a host", urlVariable)
	}
	port := 5432
	if p := u.Port(); p != "" {
		if port, err = strconv.Atoi(p); err != nil {
			return nil, fmt.Errorf("pgtest: %s: its port is no number", urlVariable)
		}
	}
	srv := &Server{host: u.Hostname(), port: port, user: u.User, base: strings.TrimPrefix(u.Path, "/"), more: u.Query()}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, srv.url(srv.base))
	if err != nil {
		return nil, fmt.Errorf("pgtest: %s: %w", urlVariable, err)
	}
	return srv, conn.Close(ctx)
}

// Addr returns host:port.
func (s *Server) Addr() string { return net.JoinHostPort(s.host, strconv.Itoa(s.port)) }

// Owned reports whether the server is this package's own, so that it can be broken.
func (s *Server) Owned() bool { return s.node != nil }

// URL is that of one database, for the administrator.
func (s *Server) URL(database string) string { return s.url(database) }

// URLAt is URL by another way to the server, such as a [Proxy].
func (s *Server) URLAt(addr, database string) string {
	u, _ := url.Parse(s.url(database))
	u.Host = addr
	return u.String()
}

func (s *Server) url(database string) string {
	u := url.URL{Scheme: "postgres", Host: s.Addr(), User: s.user, Path: "/" + database, RawQuery: s.more.Encode()}
	return u.String()
}

var (
	processID = fmt.Sprintf("%d_%x", os.Getpid(), time.Now().UnixNano()&0xffffff)
	databases atomic.Int64
)

// Database makes a database of the test's own, and returns its name. It ends with the test.
func (s *Server) Database(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("pgtest_%s_%d", processID, databases.Add(1))
	s.Do(tb, "CREATE DATABASE "+name)
	s.mu.Lock()
	s.databases = append(s.databases, name)
	s.mu.Unlock()
	if !s.Owned() { // one of our own goes with the server
		tb.Cleanup(func() { s.Do(tb, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	}
	return name
}

// Do runs statements without parameters, as an administrator would, in the database for that.
func (s *Server) Do(tb testing.TB, sql string) {
	tb.Helper()
	s.DoIn(tb, s.base, sql)
}

// DoIn is Do in another database.
func (s *Server) DoIn(tb testing.TB, database, sql string) {
	tb.Helper()
	if err := s.Exec(database, sql); err != nil {
		tb.Fatalf("pgtest: %s: %v", sql, err)
	}
}

// adminTimeout bounds what an administrator does.
const adminTimeout = 20 * time.Second

// connect connects as an administrator, whose transactions are not rolled back because of what
// clients do, whatever the server's default is.
func (s *Server) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(s.url(database))
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["default_transaction_isolation"] = "read committed"
	return pgx.ConnectConfig(ctx, config)
}

// Exec is DoIn for tests that expect an error.
func (s *Server) Exec(database, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	conn, err := s.connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// Admin is a connection of an administrator, which ends with the test.
func (s *Server) Admin(tb testing.TB, database string) *pgx.Conn {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	conn, err := s.connect(ctx, database)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// Value returns the first column of the first row.
func Value[T any](tb testing.TB, s *Server, database, sql string, args ...any) (value T) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	conn, err := s.connect(ctx, database)
	if err == nil {
		defer conn.Close(ctx)
		err = conn.QueryRow(ctx, sql, args...).Scan(&value)
	}
	if err != nil {
		tb.Fatalf("pgtest: %s: %v", sql, err)
	}
	return value
}

// Terminate has the server close the connections whose application_name is like name.
func (s *Server) Terminate(tb testing.TB, name string) {
	tb.Helper()
	Value[int](tb, s, s.base, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE $1 AND pid <> pg_backend_pid()", name)
}

// CancelStatements cancels what runs on those connections.
func (s *Server) CancelStatements(tb testing.TB, name string) {
	tb.Helper()
	Value[int](tb, s, s.base, "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE $1 AND state = 'active' AND pid <> pg_backend_pid()", name)
}
