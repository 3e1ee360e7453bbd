// Command demo shows Lockstep at work: several workers contend for one lock, and one
// sees who holds it, with which fencing token, how a lease is extended and how it
// expires, why a hold was lost, and how a store refuses the write of a worker that
// overslept its lease; then they elect leaders, and do a job once per slot. At the end it checks by itself that no two workers ever held the
// lock at the same time.
//
//	make demo                                               locks in this process's memory
//	LOCKSTEP_CONFIG=redis://localhost:6379 make demo        the same run on a Redis, between two clients
//	LOCKSTEP_CONFIG=postgres://localhost/locks make demo    and on a Postgres
//
// LOCKSTEP_CONFIG is whatever locker.LoadConfig takes: a URL, JSON text, or the path of
// a file with JSON text.
//
// Where to read: acts.go is the story and uses nothing but the public API; worker.go is
// the little that every worker does around a hold. The theatre, and the independent
// check, are in stage.go and program.go.
//
// Exit codes: 0; 1 when two holds overlapped or the run failed; 2 when the configuration
// is wrong or the backend cannot be reached.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	// A backend registers itself when it is imported; from then on a configuration can
	// choose it by its name. The Redis one is imported in admin.go, which uses more of it.
	_ "github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/locker"
)

const (
	configVariable = "LOCKSTEP_CONFIG"
	openTimeout    = 10 * time.Second
	runTimeout     = time.Minute // something hangs: the story takes a few seconds
)

const (
	exitFailed   = 1
	exitNotReady = 2
)

func main() { os.Exit(demo(os.Args[1:], os.Stdout, os.Stderr)) }

func demo(args []string, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, runTimeout, fmt.Errorf("it should take a few seconds, and has not ended after %s", runTimeout))
	defer cancel()

	if len(args) > 0 {
		fmt.Fprintf(errOut, "demo: it takes no arguments; set %s to choose a backend\n", configVariable)
		return exitNotReady
	}
	violations, err := perform(ctx, out, source())
	if err != nil {
		return explain(errOut, err)
	}
	if violations > 0 {
		fmt.Fprintf(errOut, "demo: mutual exclusion was violated; see the summary\n")
		return exitFailed
	}
	return 0
}

func source() string {
	if strings.TrimSpace(os.Getenv(configVariable)) == "" {
		return "memory://"
	}
	return "env:" + configVariable
}

// open reads the configuration and opens a Locker by it. The story has its own
// durations and its own patience, so these two are not taken from the configuration.
func open(ctx context.Context, source string, admin *administrator) (*locker.Locker, error) {
	cfg, err := admin.config(source)
	if err != nil {
		return nil, err
	}
	cfg.DriftFactor = 0
	cfg.Retry = locker.Retry{Attempts: locker.Forever, Delay: 50 * time.Millisecond, Jitter: 25 * time.Millisecond}

	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	return locker.Open(ctx, cfg)
}

// explain prints what went wrong and what to do, and returns the exit code. Errors of
// package locker hold no secret.
func explain(w io.Writer, err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(w, "demo: interrupted")
		return exitFailed
	case errors.Is(err, locker.ErrUnavailable):
		fmt.Fprintf(w, `demo: %v

The backend that %[2]s names does not answer. Is it running, and is this its address?
To start a Redis here and run the demo on it:
    redis-server --port 6379        or: docker run --rm -d -p 6379:6379 redis
    %[2]s=redis://localhost:6379 make demo
Without %[2]s the demo runs on the memory backend and needs nothing.
`, err, configVariable)
		return exitNotReady
	case errors.Is(err, locker.ErrInvalidConfig), errors.Is(err, locker.ErrUnknownBackend), errors.Is(err, locker.ErrUnsupported):
		fmt.Fprintf(w, `demo: %v

Correct %[2]s. It may be one of
    a URL        redis://user:password@localhost:6379/0    postgres://user:password@localhost/db    memory://
    JSON text    {"type": "redis", "backend": {"addrs": ["localhost:6379"]}}
    a file       the path of a file with such JSON text
Without %[2]s the demo runs on the memory backend and needs nothing.
`, err, configVariable)
		return exitNotReady
	}
	fmt.Fprintf(w, "demo: %v\n", err)
	return exitFailed
}
