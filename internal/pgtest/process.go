package pgtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// node is a postgres as a child of the test process, with a data directory of its own.
type node struct {
	dir  string // holds data, the log and what else belongs to it
	args []string
	env  []string

	mu     sync.Mutex
	cmd    *exec.Cmd
	done   chan struct{} // closed when cmd has ended
	paused bool
}

func (n *node) data() string { return filepath.Join(n.dir, "data") }

// noFoldersVariable keeps program to PATH, for the test of a machine that has nothing.
const noFoldersVariable = "LOCKSTEP_PGTEST_PATH_ONLY"

// program finds a program of Postgres. Debian does not put them on PATH.
func program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	var found []string
	if os.Getenv(noFoldersVariable) == "" {
		found, _ = filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	}
	if len(found) == 0 {
		return "", fmt.Errorf(`pgtest: a Postgres is needed, and there is no %s on PATH or in /usr/lib/postgresql. Do one of these:
  - install it (Debian: apt-get install postgresql; no server need run)
  - set %s to a Postgres for tests, for instance postgres://postgres@127.0.0.1/postgres`, name, urlVariable)
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(strings.Split(strings.TrimPrefix(path, "/usr/lib/postgresql/"), "/")[0])
		return n
	}
	return slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }), nil
}

// identity is the user that servers run as: postgres refuses root.
var identity = sync.OnceValues(func() (*user.User, error) {
	if os.Getuid() != 0 {
		return user.Current()
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			return u, nil
		}
	}
	return nil, errors.New("pgtest: postgres does not run as root, and there is no user postgres or nobody")
})

// command is a command that runs as that user.
func command(dir, name string, args ...string) (*exec.Cmd, error) {
	path := name
	if !strings.Contains(name, "/") {
		var err error
		if path, err = program(name); err != nil {
			return nil, err
		}
	}
	who, err := identity()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	// Nothing of libpq's, and messages in English.
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "LC_") && !strings.HasPrefix(v, "LANG") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "LC_ALL=C")
	return cmd, become(cmd, who)
}

// run runs a command to its end.
func run(dir, name string, args ...string) error {
	cmd, err := command(dir, name, args...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgtest: %s: %w\n%s", name, err, tail(string(out)))
	}
	return nil
}

// folder makes a folder that belongs to that user and goes with this process, in another one, or
// where temporary files are ("").
func folder(in string) (string, error) {
	dir, err := os.MkdirTemp(in, "pgtest-")
	if err != nil {
		return "", err
	}
	if err := removeLater(dir); err != nil {
		return "", err
	}
	return dir, give(dir)
}

// give gives path to the user that servers run as.
func give(path string) error {
	who, err := identity()
	if err != nil || os.Getuid() != 0 {
		return err
	}
	uid, _ := strconv.Atoi(who.Uid)
	gid, _ := strconv.Atoi(who.Gid)
	return os.Chown(path, uid, gid)
}

// template is a data directory as initdb makes it, once in a process: to copy it takes a tenth
// of the time.
var template = sync.OnceValues(func() (string, error) {
	dir, err := folder("")
	if err != nil {
		return "", err
	}
	data := filepath.Join(dir, "data")
	return data, run(dir, "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "--wal-segsize=1")
})

func start(s spec) (*Server, error) {
	from, err := template()
	if err != nil {
		return nil, err
	}
	dir, err := folder(s.in)
	if err != nil {
		return nil, err
	}
	if err := copyData(from, filepath.Join(dir, "data")); err != nil {
		return nil, err
	}
	return startIn(dir, s)
}

func copyData(from, to string) error {
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("pgtest: cp: %w\n%s", err, out)
	}
	return nil
}

// startIn starts a server on the data directory in dir.
func startIn(dir string, s spec) (*Server, error) {
	for _, f := range s.files {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, f.content, 0o644); err != nil {
			return nil, err
		}
		if err := give(path); err != nil {
			return nil, err
		}
	}
	for attempt := 1; ; attempt++ {
		port := freePort()
		n := &node{dir: dir, args: s.commandLine(dir, port)}
		for _, v := range s.env {
			n.env = append(n.env, strings.ReplaceAll(v, "$DIR", dir))
		}
		srv := &Server{host: "127.0.0.1", port: port, user: url.User("postgres"), node: n, base: "postgres",
			more: url.Values{"sslmode": {"disable"}}}
		err := n.start()
		if err == nil {
			err = srv.waitReady()
		}
		if err == nil {
			return srv, nil
		}
		_ = n.kill()
		if attempt == 5 || !strings.Contains(err.Error(), "ddress already in use") {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
}

func (s spec) commandLine(dir string, port int) []string {
	args := []string{"-D", filepath.Join(dir, "data"), "-p", strconv.Itoa(port), "-h", "127.0.0.1", "-k", dir}
	// Small, because there may be many; and nothing outside of the folder that a killed server
	// would leave behind.
	for _, p := range append([]string{
		"max_connections=200", "shared_buffers=16MB", "dynamic_shared_memory_type=mmap", "wal_level=replica",
		"max_wal_size=256MB", "hot_standby=on", "log_min_messages=warning", "timezone=UTC",
	}, s.params...) {
		args = append(args, "-c", p)
	}
	return args
}

func (n *node) start() error {
	cmd, err := command(n.data(), "postgres", n.args...)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(n.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(cmd.Env, n.env...)
	if err := startChild(cmd); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(done)
	}()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cmd, n.done, n.paused = cmd, done, false
	return nil
}

// kill ends all processes of the server at once.
func (n *node) kill() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return nil
	}
	select {
	case <-n.done: // its number may be another's by now
		return waitGone(n.data())
	default:
	}
	err := signalAll(n.data(), n.cmd.Process.Pid, sigKill)
	<-n.done
	return errors.Join(err, waitGone(n.data()))
}

func (n *node) exited() error {
	n.mu.Lock()
	done := n.done
	n.mu.Unlock()
	select {
	case <-done:
	default:
		return nil
	}
	log, _ := os.ReadFile(filepath.Join(n.dir, "log"))
	return fmt.Errorf("pgtest: postgres has ended:\n%s", tail(string(log)))
}

func tail(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}

func (s *Server) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	return poll(ctx, s.Addr()+" answers", func() error {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		conn, err := pgx.Connect(attempt, s.url(s.base))
		if err != nil {
			if gone := s.node.exited(); gone != nil {
				return stopPolling{gone}
			}
			return err
		}
		return conn.Close(attempt)
	})
}

// stopPolling is an error after which it makes no sense to go on.
type stopPolling struct{ error }

func poll(ctx context.Context, what string, check func() error) error {
	for {
		err := check()
		var stop stopPolling
		switch {
		case err == nil:
			return nil
		case errors.As(err, &stop):
			return stop.error
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("pgtest: waiting until %s: %w", what, err)
		}
	}
}

func (s *Server) terminate() {
	if s.node != nil {
		_ = s.node.kill()
		_ = os.RemoveAll(s.node.dir)
	}
}

func (s *Server) own(tb testing.TB, what string) {
	tb.Helper()
	if s.node == nil {
		tb.Fatalf("pgtest: cannot %s a server that was given by URL: take pgtest.Start for this test", what)
	}
}

// Pause makes the server hang: connections stay open and are even accepted, by the kernel, but
// nothing answers.
func (s *Server) Pause(tb testing.TB) {
	tb.Helper()
	s.own(tb, "pause")
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	if err := signalAll(s.node.data(), s.node.cmd.Process.Pid, sigStop); err != nil {
		tb.Fatalf("pgtest: pause: %v", err)
	}
	s.node.paused = true
}

// Resume ends a Pause and waits until the server answers.
func (s *Server) Resume(tb testing.TB) {
	tb.Helper()
	s.own(tb, "resume")
	s.node.mu.Lock()
	err := signalAll(s.node.data(), s.node.cmd.Process.Pid, sigContinue)
	s.node.paused = false
	s.node.mu.Unlock()
	if err == nil {
		err = s.waitReady()
	}
	if err != nil {
		tb.Fatalf("pgtest: resume: %v", err)
	}
}

// Kill ends the server at once, as a crash does.
func (s *Server) Kill(tb testing.TB) {
	tb.Helper()
	s.own(tb, "kill")
	if err := s.node.kill(); err != nil {
		tb.Fatalf("pgtest: kill: %v", err)
	}
}

// Restart starts a killed server again, on the same address and with its data, and waits until
// it answers.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	s.own(tb, "restart")
	err := s.node.start()
	if err == nil {
		err = s.waitReady()
	}
	if err != nil {
		tb.Fatalf("pgtest: restart: %v", err)
	}
}

// RestartEmpty is Restart without the data. Its databases are there, and empty.
func (s *Server) RestartEmpty(tb testing.TB) {
	tb.Helper()
	s.own(tb, "restart")
	from, err := template()
	if err == nil {
		err = os.RemoveAll(s.node.data())
	}
	if err == nil {
		err = copyData(from, s.node.data())
	}
	if err != nil {
		tb.Fatalf("pgtest: restart: %v", err)
	}
	s.Restart(tb)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.databases {
		s.Do(tb, "CREATE DATABASE "+name)
	}
}

// Standby starts a streaming replica of the server, which ends with the test.
func (s *Server) Standby(tb testing.TB, opts ...Option) *Server {
	tb.Helper()
	s.own(tb, "replicate")
	var sp spec
	for _, o := range opts {
		o(&sp)
	}
	dir, err := folder(sp.in)
	if err == nil {
		err = run(dir, "pg_basebackup", "-D", filepath.Join(dir, "data"), "-h", s.host, "-p", strconv.Itoa(s.port), "-U", "postgres", "-R", "-X", "stream", "-c", "fast", "--no-sync")
	}
	var standby *Server
	if err == nil {
		standby, err = startIn(dir, sp)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(standby.terminate)
	return standby
}

// End ends the server for good, before its test does.
func (s *Server) End() { s.terminate() }

// Recover returns when the server answers again after a fault that it recovers from by itself, or
// ended by: then it is started again.
func (s *Server) Recover(tb testing.TB) {
	tb.Helper()
	s.own(tb, "restart")
	if s.waitReady() != nil {
		s.Kill(tb)
		s.Restart(tb)
	}
}

// Promote makes a standby a primary, and returns when it takes writes.
func (s *Server) Promote(tb testing.TB) {
	tb.Helper()
	if !Value[bool](tb, s, s.base, "SELECT pg_promote(true, 30)") {
		tb.Fatal("pgtest: the standby was not promoted")
	}
}

var ports struct {
	sync.Mutex
	given map[int]bool
}

// freePort returns a port of this machine that nobody listens on, and never the same twice. It
// lies below the range that the kernel gives to outgoing connections, so that it is still free
// when a killed server comes back.
func freePort() int {
	ports.Lock()
	defer ports.Unlock()
	if ports.given == nil {
		ports.given = map[int]bool{}
	}
	for range 1000 {
		port := 12000 + rand.IntN(18000)
		if ports.given[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			continue
		}
		l.Close()
		ports.given[port] = true
		return port
	}
	panic("pgtest: no free port between 12000 and 30000")
}
