package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	urlVariable    = "LOCKSTEP_REDIS_URL"
	serverVariable = "LOCKSTEP_REDIS_SERVER"

	startTimeout = time.Minute // bounds the start of anything here
)

var single shared[*Server]

// Single returns the Redis that all tests of this process share. The first call starts it.
//
// Other tests use it at the same time when they run in parallel: choose keys of your own, and take [Start] for
// anything that others would notice.
func Single(tb testing.TB) *Server {
	tb.Helper()
	return single.get(tb, func(ctx context.Context) (*Server, error) {
		if url := os.Getenv(urlVariable); url != "" {
			return openURL(ctx, url)
		}
		return start(ctx, spec{})
	})
}

// Start returns a Redis of the test's own, which ends with the test.
func Start(tb testing.TB, opts ...Option) *Server {
	tb.Helper()
	return startPrivate(tb, opts, start, func(srv *Server) []*Server { return []*Server{srv} })
}

// startPrivate starts what a test has of its own. servers are those of which it consists.
func startPrivate[T any](tb testing.TB, opts []Option, start func(context.Context, spec) (T, error), servers func(T) []*Server) T {
	tb.Helper()
	s := newSpec(tb, opts)
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	all, err := start(ctx, s)
	if err != nil {
		tb.Fatalf("redistest: %v", err)
	}
	for _, srv := range servers(all) {
		srv.private = true
	}
	tb.Cleanup(func() { terminateAll(servers(all)) })
	return all
}

// An Option changes a server that [Start], [StartCluster] or [StartSentinel] starts.
type Option func(*spec)

// Args adds redis-server arguments, as on its command line: Args("--maxmemory", "1mb", "--rename-command", "HELLO",
// ""). They come last, so they win over the defaults (no persistence, no protected mode). The port is chosen.
func Args(args ...string) Option {
	return func(s *spec) { s.args = append(s.args, args...) }
}

// Password makes the server ask for this password. URL and Do know it.
func Password(password string) Option {
	return func(s *spec) { s.password = password }
}

// TLS makes the server speak TLS only, with a certificate made for it; see [Server.TLSConfig] and [Server.CAFile].
func TLS() Option {
	return func(s *spec) { s.tls = true }
}

// File puts a file into the server's working directory, so that an argument can name it:
// File("users.acl", …), Args("--aclfile", "users.acl").
func File(name string, content []byte) Option {
	return func(s *spec) { s.files = append(s.files, file{name, content}) }
}

// Env sets a variable in the server's environment, such as LD_PRELOAD with the name of a [File].
func Env(name, value string) Option {
	return func(s *spec) { s.env = append(s.env, [2]string{name, value}) }
}

// spec says what to start. The zero value is a plain Redis on a port of its own.
type spec struct {
	args     []string
	files    []file
	env      [][2]string // names and values
	password string
	tls      bool

	cluster  bool // a Cluster node: also needs a port for the bus
	sentinel bool // a Sentinel: its configuration is the file sentinel.conf
}

type file struct {
	name    string
	content []byte
}

func newSpec(tb testing.TB, opts []Option) spec {
	tb.Helper()
	var s spec
	for _, opt := range opts {
		opt(&s)
	}
	for _, name := range []string{"--port", "--bind", "--tls-port"} {
		if slices.Contains(s.args, name) {
			tb.Fatalf("redistest: %s cannot be an argument: this package has to know the address (see TLS)", name)
		}
	}
	return s
}

// host is where servers listen.
const host = "127.0.0.1"

// commandLine returns redis-server's arguments for a server that listens on port.
func (s spec) commandLine(port, busPort int) []string {
	number := fmt.Sprint(port)
	if s.sentinel {
		return []string{"sentinel.conf", "--sentinel", "--port", number, "--bind", host, "--protected-mode", "no"}
	}
	// hz stays at the default of 10. A higher one would hide how late Redis announces an expiry. No server here
	// is ever asked to stop politely, so nothing waits for it either.
	args := []string{"--save", "", "--appendonly", "no", "--protected-mode", "no", "--bind", host}
	if s.tls {
		args = append(args, "--port", "0", "--tls-port", number, "--tls-cert-file", certFile, "--tls-key-file", keyFile,
			"--tls-ca-cert-file", certFile, "--tls-auth-clients", "no")
	} else {
		args = append(args, "--port", number)
	}
	if s.password != "" {
		args = append(args, "--requirepass", s.password, "--masterauth", s.password)
	}
	if s.cluster {
		// The timeout is a third of the default, so that a test that kills a node need not wait for 15 s, and far
		// above what a busy machine makes a healthy node miss.
		args = append(args, "--cluster-enabled", "yes", "--cluster-port", fmt.Sprint(busPort),
			"--cluster-node-timeout", "5000", "--cluster-config-file", "nodes.conf")
	}
	return append(args, s.args...)
}

// start starts one server and returns it once it answers.
func start(ctx context.Context, s spec) (*Server, error) {
	for attempt := 1; ; attempt++ {
		srv, err := startOnce(ctx, s)
		if err == nil {
			return srv, nil
		}
		// Between the choice of a free port and its use, another process may have taken it.
		taken := strings.Contains(err.Error(), "ddress already in use")
		if !taken || attempt == 5 {
			return nil, err
		}
	}
}

func startOnce(ctx context.Context, s spec) (*Server, error) {
	port, busPort := freePort(), 0
	if s.cluster {
		busPort = freePort()
	}
	srv := &Server{addr: fmt.Sprintf("%s:%d", host, port), password: s.password, busPort: busPort}
	if s.tls {
		var err error
		if srv.ca, err = makeAuthority(&s); err != nil {
			return nil, fmt.Errorf("making a certificate: %w", err)
		}
	}
	var err error
	if srv.node, err = startProcess(s, port, busPort); err != nil {
		return nil, err
	}
	if err := srv.waitReady(ctx); err != nil {
		srv.terminate()
		return nil, err
	}
	return srv, nil
}

// startAll starts servers side by side. If one cannot be had, none is left.
func startAll(ctx context.Context, specs ...spec) ([]*Server, error) {
	servers := make([]*Server, len(specs))
	errs := make([]error, len(specs))
	var wg sync.WaitGroup
	for i, s := range specs {
		wg.Go(func() { servers[i], errs[i] = start(ctx, s) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		terminateAll(servers)
		return nil, err
	}
	return servers, nil
}

func terminateAll(servers []*Server) {
	for _, srv := range servers {
		if srv != nil {
			srv.terminate()
		}
	}
}

// shared is something that is made at most once in a process, by whoever asks first. A failure is kept as well: the
// tests after the first need not wait for it again.
type shared[T any] struct {
	mu    sync.Mutex
	done  bool
	value T
	err   error
}

func (s *shared[T]) get(tb testing.TB, make func(context.Context) (T, error)) T {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.done {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		s.value, s.err = make(ctx)
		s.done = true
	}
	if s.err != nil {
		tb.Fatalf("redistest: %v", s.err)
	}
	return s.value
}
