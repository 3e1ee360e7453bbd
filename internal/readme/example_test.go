package readme

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/locker"
)

func open(ctx context.Context, store string) *locker.Locker {
	l, err := locker.Open(ctx, locker.Config{Type: "memory", Backend: memory.Config{Store: store}})
	if err != nil {
		panic(err)
	}
	return l
}

// Store refuses a write whose token is older than the newest that it has seen.
type Store struct {
	mu    sync.Mutex
	fence uint64
	value string
}

func (s *Store) Write(value string, token uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if token < s.fence {
		return errors.New("refused: a later holder has written")
	}
	s.fence, s.value = token, value
	return nil
}

// What a fencing token is for: a holder that overslept its lease.
func Example_fencing() {
	ctx := context.Background()
	l := open(ctx, "fencing")
	defer l.Close(ctx)
	var store Store

	slow, err := l.Lock(ctx, "invoice:42", locker.WithTTL(50*time.Millisecond))
	if err != nil {
		fmt.Println(err)
		return
	}
	// slow pauses here for longer than its ttl, and does not know it.
	quick, err := l.Lock(ctx, "invoice:42", locker.WithTTL(time.Minute)) // waits for those 50 ms
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("tokens rise:", quick.Token() > slow.Token())
	fmt.Println("quick:", store.Write("paid", quick.Token()))
	fmt.Println("slow:", store.Write("open", slow.Token()))
	fmt.Println("the store says", store.value)
	// Output:
	// tokens rise: true
	// quick: <nil>
	// slow: refused: a later holder has written
	// the store says paid
}

var errOvertaken = errors.New("a later holder has written")

// setState writes only if no later holder has written. fence is a BIGINT that begins at 0.
func setState(ctx context.Context, db *sql.DB, lease *locker.Lease, id int64, state string) error {
	result, err := db.ExecContext(ctx,
		`UPDATE invoices SET state = $3, fence = $1 WHERE id = $2 AND fence <= $1`,
		lease.Token(), id, state)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 1 {
		return err
	}
	return errOvertaken
}

var _ = setState

func Example_front() {
	ctx := context.Background()
	pay := func(ctx context.Context, invoice int, token uint64) error {
		fmt.Println("paying", invoice, "with a token:", token > 0)
		return ctx.Err()
	}
	err := func() error {
		l, err := locker.Open(ctx, locker.Config{Type: "memory"}) // or "redis", or "postgres": with its import, and no other change
		if err != nil {
			return err
		}
		defer l.Close(context.WithoutCancel(ctx)) // releases what is still held; with a ctx that has ended it would not

		return l.Do(ctx, "invoice:42", func(ctx context.Context, lease *locker.Lease) error {
			return pay(ctx, 42, lease.Token()) // ctx ends as soon as the lock is lost
		}, locker.WithTTL(30*time.Second))
	}()
	fmt.Println(err)
	// Output:
	// paying 42 with a token: true
	// <nil>
}

func Example_namespace() {
	ctx := context.Background()
	l := open(ctx, "namespace")
	defer l.Close(ctx)

	billing := l.Namespace("billing") // shares the backend, the holds and the settings of l
	err := billing.Do(ctx, "invoice:42", func(ctx context.Context, hold *locker.Lease) error {
		fmt.Println(hold.Key())
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// billing:invoice:42
}

func Example_lease() {
	ctx := context.Background()
	l := open(ctx, "lease")
	defer l.Close(ctx)
	steps := []string{"fetch", "resize", "store"}
	do := func(ctx context.Context, step string) error { fmt.Println(step); return ctx.Err() }

	err := func() error {
		lease, err := l.Lock(ctx, "image:7", locker.WithTTL(30*time.Second))
		if err != nil {
			return err
		}
		defer lease.Unlock(ctx) // also right when ctx has been cancelled

		work, cancel := lease.Context(ctx) // ends when the hold does
		defer cancel()
		for _, step := range steps {
			if err := lease.Extend(ctx, 30*time.Second); err != nil { // 30 s from now
				return err
			}
			if err := do(work, step); err != nil {
				return err
			}
		}
		return nil
	}()
	fmt.Println(err)
	// Output:
	// fetch
	// resize
	// store
	// <nil>
}

func Example_retry() {
	ctx := context.Background()
	l := open(ctx, "retry")
	defer l.Close(ctx)
	if _, err := l.LockNS(ctx, "invoice:42"); err != nil { // "app:invoice:42", for as long as l is open
		fmt.Println(err)
		return
	}

	// The first attempt and at most three more, 20 ms ± 5 ms apart.
	patience := locker.WithRetry(locker.Retry{Attempts: 3, Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond})
	_, err := l.LockNS(ctx, "invoice:42", patience)
	fmt.Println(errors.Is(err, locker.ErrHeld))

	// As long as the ctx allows. The error says both: the time was up, the lock was held.
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = l.LockNS(short, "invoice:42")
	fmt.Println(errors.Is(err, locker.ErrHeld), errors.Is(err, context.DeadlineExceeded))
	// Output:
	// true
	// true true
}

func Example_load() {
	dir, err := os.MkdirTemp("", "lockstep")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "locks.json")
	if err := os.WriteFile(file, []byte(`{"type": "redis", "ttl": "1m", "backend": {"addrs": ["redis:6379"]}}`), 0o600); err != nil {
		panic(err)
	}

	for _, value := range []string{
		"redis://app:secret@localhost:6379/0?validity=20s&retry.attempts=5",
		`{"type": "redis", "backend": {"addrs": ["localhost:6379"], "validity": "20s"}}`,
		"memory://",
		file,
	} {
		os.Setenv("LOCKSTEP_CONFIG", value)

		cfg, err := locker.Config{Type: "memory", TTL: 30 * time.Second}.Load("env:LOCKSTEP_CONFIG")

		fmt.Println(cfg.Type, cfg.TTL, err)
	}
	os.Unsetenv("LOCKSTEP_CONFIG")
	// Output:
	// redis 30s <nil>
	// redis 30s <nil>
	// memory 30s <nil>
	// redis 1m0s <nil>
}

func Example_observe() {
	ctx := context.Background()
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			switch a.Key {
			case slog.TimeKey, "token", "waited", "held":
				return slog.Attr{} // differ from run to run
			}
			return a
		},
	}))
	var losses int

	l, err := locker.Open(ctx, locker.Config{
		Type:   "memory",
		Logger: logger,
		Observer: locker.ObserverFunc(func(ctx context.Context, e locker.Event) {
			if e.Kind == locker.EventLost {
				losses++ // a counter of your metrics library, with e.Reason as its label
			}
		}),
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	lease, err := l.Lock(ctx, "invoice:42", locker.WithTTL(5*time.Millisecond))
	if err != nil {
		fmt.Println(err)
		return
	}
	<-lease.Done() // nobody extends it
	if err := l.Close(ctx); err != nil {
		fmt.Println(err)
	}
	fmt.Println("losses:", losses)
	// Output:
	// level=WARN msg="lock lost" backend=memory key="\"invoice:42\"" session=false reason=expired error="lockstep: hold \"invoice:42\" on memory: the lease expired"
	// losses: 1
}
