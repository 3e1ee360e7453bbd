package redistest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// startTimeout bounds the start of anything here. It is long because a first run may pull an image.
const startTimeout = 3 * time.Minute

var single shared[*Server]

// Single returns the Redis that all tests of this process share. The first call starts it.
//
// Other tests use it at the same time when they run in parallel: choose keys of your own, and take [Start] for
// anything that others would notice.
func Single(tb testing.TB) *Server {
	tb.Helper()
	return single.get(tb, func(ctx context.Context) (*Server, error) {
		return choose(ctx, tb.Logf, "a Redis", sharedOrder, ways[*Server]{
			byURL:       func(ctx context.Context) (*Server, error) { return openURL(ctx, urlVariable) },
			byContainer: func(ctx context.Context) (*Server, error) { return start(ctx, byContainer, spec{}) },
			byProcess:   func(ctx context.Context) (*Server, error) { return start(ctx, byProcess, spec{}) },
		})
	})
}

// Start returns a Redis of the test's own, which ends with the test.
func Start(tb testing.TB, opts ...Option) *Server {
	tb.Helper()
	s := newSpec(tb, opts)
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	srv, err := choose(ctx, tb.Logf, "a Redis", s.order, ways[*Server]{
		byContainer: func(ctx context.Context) (*Server, error) { return start(ctx, byContainer, s) },
		byProcess:   func(ctx context.Context) (*Server, error) { return start(ctx, byProcess, s) },
	})
	if err != nil {
		tb.Fatal(err)
	}
	srv.private = true
	tb.Cleanup(srv.terminate)
	return srv
}

// An Option changes a server that [Start], [StartCluster] or [StartSentinel] starts.
type Option func(*spec)

// Args adds redis-server arguments, as on its command line: Args("--maxmemory", "1mb", "--rename-command", "HELLO",
// ""). They come last, so they win over the defaults (no persistence, no protected mode). The port has its own
// option, [Port].
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

// Port fixes the port. Without it a free one is chosen, which is nearly always better.
func Port(port int) Option {
	return func(s *spec) { s.port = port }
}

// Process prefers a child process to a container: it starts in 10 ms instead of 300, so it is meant for tests that
// need many servers or many restarts. Both can be paused, killed and restarted. LOCKSTEP_REDISTEST still wins.
func Process() Option {
	return func(s *spec) { s.order = processFirst }
}

// spec says what to start. The zero value is a plain Redis on a port of its own.
type spec struct {
	args     []string
	files    []file
	env      [][2]string // names and values
	password string
	tls      bool
	port     int
	order    []means

	cluster  bool // a Cluster node: also needs a port for the bus
	sentinel bool // a Sentinel: its configuration is the file sentinel.conf
	direct   bool // must be reachable by others of its group under the address that the test uses
}

type file struct {
	name    string
	content []byte
}

func newSpec(tb testing.TB, opts []Option) spec {
	tb.Helper()
	s := spec{order: privateOrder}
	for _, opt := range opts {
		opt(&s)
	}
	for _, name := range []string{"--port", "--bind", "--tls-port"} {
		if slices.Contains(s.args, name) {
			tb.Fatalf("redistest: %s cannot be an argument: this package has to know the address (see Port and TLS)", name)
		}
	}
	return s
}

// commandLine returns redis-server's arguments for a server that listens on bind (empty: everywhere) and port.
func (s spec) commandLine(bind string, port, busPort int) []string {
	number := fmt.Sprint(port)
	if s.sentinel {
		return []string{"sentinel.conf", "--sentinel", "--port", number, "--bind", bind, "--protected-mode", "no"}
	}
	// hz stays at the default of 10. A higher one would hide how late Redis announces an expiry. No server here
	// is ever asked to stop politely, so nothing waits for it either.
	args := []string{"--save", "", "--appendonly", "no", "--protected-mode", "no"}
	if bind != "" {
		args = append(args, "--bind", bind)
	}
	if s.tls {
		args = append(args, "--port", "0", "--tls-port", number, "--tls-cert-file", certFile, "--tls-key-file", keyFile,
			"--tls-ca-cert-file", caFile, "--tls-auth-clients", "no")
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

// start starts one server by the given means and returns it once it answers.
func start(ctx context.Context, how means, s spec) (*Server, error) {
	for attempt := 1; ; attempt++ {
		srv, err := startOnce(ctx, how, s)
		if err == nil {
			return srv, nil
		}
		// Between the choice of a free port and its use, another process may have taken it.
		taken := strings.Contains(err.Error(), "ddress already in use") || // Redis, and the kernel through Docker
			strings.Contains(err.Error(), "port is already allocated") // Docker
		if s.port != 0 || !taken || attempt == 5 {
			return nil, err
		}
	}
}

func startOnce(ctx context.Context, how means, s spec) (*Server, error) {
	port, busPort := s.port, 0
	if port == 0 {
		port = freePort()
	}
	if s.cluster {
		busPort = freePort()
	}
	srv := &Server{means: how, password: s.password, busPort: busPort}
	if s.tls {
		var err error
		if srv.ca, err = makeAuthority(&s); err != nil {
			return nil, fmt.Errorf("making a certificate: %w", err)
		}
	}
	var err error
	switch how {
	case byContainer:
		srv.node, srv.addr, err = startContainer(ctx, s, port, busPort)
	case byProcess:
		srv.node, srv.addr, err = startProcess(s, port, busPort)
	}
	if err != nil {
		return nil, err
	}
	if err := srv.waitReady(ctx); err != nil {
		srv.terminate()
		return nil, err
	}
	return srv, nil
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
		tb.Fatal(s.err)
	}
	return s.value
}
