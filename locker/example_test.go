package locker_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

func ExampleOpen() {
	ctx := context.Background()
	// With: import _ "github.com/lockstep-go/lockstep/backends/memory"
	l, err := locker.Open(ctx, locker.Config{Type: "memory", Namespace: "shop", TTL: 30 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close(ctx)

	lease, err := l.LockNS(ctx, "invoice:42")
	if err != nil {
		log.Fatal(err)
	}
	defer lease.Unlock(ctx)
	fmt.Println(lease.Key(), "is ours")
	// Output: shop:invoice:42 is ours
}

func ExampleNew() {
	ctx := context.Background()
	// A backend that is open already: one with its own constructor, or a wrapped one.
	backend := openBackend()
	l, err := locker.New(backend, locker.Config{Namespace: "shop"})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close(ctx) // closes the backend too
	fmt.Println(l.Capabilities().Name)
	// Output: memory
}

func ExampleLoadConfig() {
	ctx := context.Background()
	os.Setenv("LOCKS", "memory://?ttl=30s&retry.attempts=5")
	for _, source := range []string{
		"env:LOCKS", // what deployment decides: JSON, a URL or a file
		"memory://?namespace=shop",
		`{"type": "memory", "ttl": "30s", "backend": {"store": "tests"}}`,
		`{"type": "memory", "tttl": "30s"}`,
	} {
		cfg, err := locker.LoadConfig(source)
		if err != nil {
			fmt.Println(err)
			continue
		}
		l, err := locker.Open(ctx, cfg)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(cfg)
		l.Close(ctx)
	}
	// Output:
	// {"type":"memory","ttl":"30s","retry":{"attempts":5}}
	// {"type":"memory","namespace":"shop"}
	// {"type":"memory","ttl":"30s","backend":{"store":"tests"}}
	// lockstep: load: invalid configuration: JSON text, line 1, column 20: tttl: unknown field (known: type, namespace, ttl, retry, driftFactor, openWait, identity, backend)
}

// The program's own choices are the defaults; what a source says wins, field by field.
func ExampleConfig_Load() {
	defaults := locker.Config{Type: "memory", Namespace: "shop", TTL: 30 * time.Second}
	cfg, err := defaults.Load(`{"ttl": "5s"}`)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(cfg.Namespace, cfg.TTL)
	// Output: shop 5s
}

func ExampleConfig_String() {
	cfg, err := locker.LoadConfig(`{"type": "memory", "ttl": "30s"}`)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(cfg) // never a password, whatever the verb
	// Output: {"type":"memory","ttl":"30s"}
}

// Lock waits until ctx ends; the hold lives on after it.
func ExampleLocker_Lock() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	other, _ := l.Lock(ctx, "invoice:42")

	patience, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	_, err := l.Lock(patience, "invoice:42", locker.WithTTL(30*time.Second))
	fmt.Println(errors.Is(err, locker.ErrHeld), errors.Is(err, context.DeadlineExceeded))

	go other.Unlock(ctx)
	lease, err := l.Lock(ctx, "invoice:42", locker.WithTTL(30*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	defer lease.Unlock(ctx)
	fmt.Println("ours")
	// Output:
	// true true
	// ours
}

func ExampleLocker_TryLock() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)

	lease, err := l.TryLock(ctx, "nightly-report", locker.WithTTL(time.Hour))
	if err == nil {
		defer lease.Unlock(ctx)
		fmt.Println("this process makes the report")
	}
	_, err = l.TryLock(ctx, "nightly-report", locker.WithTTL(time.Hour))
	switch {
	case errors.Is(err, locker.ErrHeld):
		fmt.Println("somebody else does")
	case err != nil:
		log.Fatal(err) // the backend is down: nobody knows
	}
	// Output:
	// this process makes the report
	// somebody else does
}

func ExampleLocker_LockNS() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory", Namespace: "shop"})
	defer l.Close(ctx)
	lease, err := l.LockNS(ctx, "invoice:42")
	if err != nil {
		log.Fatal(err)
	}
	defer lease.Unlock(ctx)
	fmt.Println(lease.Key())
	// Output: shop:invoice:42
}

func ExampleLocker_TryLockNS() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory", Namespace: "shop"})
	defer l.Close(ctx)
	lease, err := l.TryLockNS(ctx, "invoice:42", locker.WithNamespace("archive"))
	if err != nil {
		log.Fatal(err)
	}
	defer lease.Unlock(ctx)
	fmt.Println(lease.Key())
	// Output: archive:invoice:42
}

func ExampleLocker_Key() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory", Namespace: "shop"})
	defer l.Close(ctx)
	key, err := l.Key("invoice:42")
	fmt.Println(key, err)
	key, err = l.Key("invoice:42", "archive")
	fmt.Println(key, err)
	_, err = l.Key("42", "archive:invoice")
	fmt.Println(err)
	// Output:
	// shop:invoice:42 <nil>
	// archive:invoice:42 <nil>
	// lockstep: key "42": invalid key: namespace: "archive:invoice" holds a colon, which separates the namespace from the key
}

func ExampleLocker_Do() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	err := l.Do(ctx, "invoice:42", func(ctx context.Context, _ *locker.Lease) error {
		// ctx ends when the hold does.
		fmt.Println("under the lock")
		return nil
	}, locker.WithTTL(30*time.Second))
	fmt.Println(err)
	// Output:
	// under the lock
	// <nil>
}

func ExampleCall() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	total, err := locker.Call(ctx, l, "invoice:42", func(ctx context.Context, _ *locker.Lease) (int, error) {
		return 40 + 2, nil
	})
	fmt.Println(total, err)
	// Output: 42 <nil>
}

// The package of a backend registers it, in its init function.
func ExampleOpen_registered() {
	type Config struct {
		Addr     string        `json:"addr"`
		Password driver.Secret `json:"password"`
		Timeout  time.Duration `json:"timeout"`
	}
	driver.Register("mystore", func(ctx context.Context, c Config) (driver.Backend, error) {
		if c.Timeout < 0 {
			return nil, fmt.Errorf("%w: timeout: %s is negative", driver.ErrInvalidConfig, c.Timeout)
		}
		return openBackend(), nil
	})

	cfg, err := locker.LoadConfig(`{"type": "mystore", "backend": {"password": "verysecret", "timeout": "-1s"}}`)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(cfg)
	_, err = locker.Open(context.Background(), cfg)
	fmt.Println(err)
	// Output:
	// {"type":"mystore","backend":{"password":"(hidden)","timeout":"-1s"}}
	// lockstep: open on mystore: invalid configuration: timeout: -1s is negative
}

func ExampleLease_Extend() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	lease, _ := l.Lock(ctx, "import", locker.WithTTL(10*time.Second))
	defer lease.Unlock(ctx)

	for range 3 {
		// work on one part …
		if err := lease.Extend(ctx, 10*time.Second); err != nil {
			log.Fatal(err) // errors.Is(err, locker.ErrLost): stop
		}
	}
	deadline, _ := lease.Deadline()
	fmt.Println(time.Until(deadline) > 9*time.Second)
	// Output: true
}

func ExampleLease_Unlock() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	lease, _ := l.Lock(ctx, "invoice:42")
	fmt.Println(lease.Unlock(ctx))
	fmt.Println(lease.Unlock(ctx))
	// Output:
	// <nil>
	// lockstep: unlock "invoice:42" on memory: lock has been released already
}

func ExampleLease_Done() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	lease, _ := l.Lock(ctx, "leader", locker.WithTTL(10*time.Millisecond))
	defer lease.Unlock(ctx)

	ticks := time.NewTicker(time.Hour)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			// a leader's work
		case <-lease.Done():
			fmt.Println(lease.Err())
			return
		}
	}
	// Output: lockstep: hold "leader" on memory: the lease expired
}

func ExampleLease_Err() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	lease, _ := l.Lock(ctx, "leader", locker.WithTTL(10*time.Millisecond))
	fmt.Println(lease.Err())
	<-lease.Done()

	var e *locker.Error
	if errors.As(lease.Err(), &e) {
		fmt.Println(e.Code, e.Reason, errors.Is(e, locker.ErrLost))
	}
	// Output:
	// <nil>
	// Lost expired true
}

// A ctx for the work under the lock: it ends with the hold, and says why.
func ExampleLease_Context() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	lease, _ := l.Lock(ctx, "import", locker.WithTTL(10*time.Millisecond))
	defer lease.Unlock(ctx)

	work, cancel := lease.Context(ctx)
	defer cancel()
	<-work.Done() // a query that takes work as its ctx is cut short
	fmt.Println(errors.Is(context.Cause(work), locker.ErrLost))
	// Output: true
}

func ExampleFromContext() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	write := func(ctx context.Context) error {
		lease, ok := locker.FromContext(ctx)
		fmt.Println(ok, lease.Key(), lease.Token() > 0)
		return nil
	}
	if err := l.Do(ctx, "invoice:42", func(ctx context.Context, _ *locker.Lease) error { return write(ctx) }); err != nil {
		log.Fatal(err)
	}
	// Output: true invoice:42 true
}

func ExampleWithTTL() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	lease, _ := l.Lock(ctx, "invoice:42", locker.WithTTL(30*time.Second))
	fmt.Println("a session:", lease.Session())
	_, err := l.Lock(ctx, "invoice:43", locker.WithTTL(0))
	fmt.Println(err)
	// Output:
	// a session: false
	// lockstep: lock "invoice:43" on memory: invalid ttl: 0s is not above 0; leave the ttl out for a session
}

func ExampleWithSession() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory", TTL: 30 * time.Second})
	defer l.Close(ctx)
	lease, _ := l.Lock(ctx, "leader", locker.WithSession()) // in spite of Config.TTL
	defer lease.Unlock(ctx)
	fmt.Println("a session:", lease.Session())
	// Output: a session: true
}

func ExampleWithRetry() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	lease, _ := l.Lock(ctx, "invoice:42")
	defer lease.Unlock(ctx)

	_, err := l.Lock(ctx, "invoice:42", locker.WithRetry(locker.Retry{Attempts: 3, Delay: 5 * time.Millisecond, Jitter: locker.NoJitter}))
	fmt.Println(err)
	// Output: lockstep: lock "invoice:42" on memory: lock is held by another owner
}

func ExampleWithNamespace() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	lease, _ := l.LockNS(ctx, "invoice:42", locker.WithNamespace("archive"))
	defer lease.Unlock(ctx)
	fmt.Println(lease.Key())
	// Output: archive:invoice:42
}

// Metrics and traces hang on an Observer.
func ExampleObserver() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory", Observer: locker.ObserverFunc(func(_ context.Context, e locker.Event) {
		fmt.Println(e.Kind, e.Key, e.Err)
	})})
	defer l.Close(ctx)
	lease, _ := l.Lock(ctx, "invoice:42", locker.WithTTL(30*time.Second))
	lease.Extend(ctx, time.Minute)
	lease.Unlock(ctx)
	// Output:
	// Acquired invoice:42 <nil>
	// Extended invoice:42 <nil>
	// Released invoice:42 <nil>
}

func ExampleLocker_Inspect() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	lease, _ := l.Lock(ctx, "invoice:42")
	info, held, err := l.Inspect(ctx, "invoice:42")
	fmt.Println(held, info.Token == lease.Token(), info.Session, err)
	lease.Unlock(ctx)
	_, held, err = l.Inspect(ctx, "invoice:42")
	fmt.Println(held, err)
	// Output:
	// true true true <nil>
	// false <nil>
}

func ExampleWithNote() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory", Identity: "web-3 billing"})
	defer l.Close(ctx)
	lease, _ := l.Lock(ctx, "invoice:42", locker.WithNote("request 7f3a, dunning letters"))
	defer lease.Unlock(ctx)

	info, _, _ := l.Inspect(ctx, "invoice:42") // here or in any other process
	fmt.Printf("%q holds it for %q\n", info.Identity, info.Note)
	// Output: "web-3 billing" holds it for "request 7f3a, dunning letters"
}

func ExampleLocker_List() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	for _, key := range []string{"invoice:1", "invoice:2", "customer:1"} {
		lease, _ := l.Lock(ctx, key, locker.WithNote("nightly run"))
		defer lease.Unlock(ctx)
	}
	for info, err := range l.List(ctx, "invoice:") {
		if err != nil {
			fmt.Println(err) // the last that comes
			break
		}
		fmt.Printf("%q is held for %q\n", info.Key, info.Note)
	}
	// Output:
	// "invoice:1" is held for "nightly run"
	// "invoice:2" is held for "nightly run"
}

func ExampleLocker_Break() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	lease, _ := l.Lock(ctx, "report") // by a process that hangs

	info, held, _ := l.Inspect(ctx, "report")
	if held { // a person has looked at info, and decided
		fmt.Println(l.Break(ctx, "report", info.Token))
	}
	var e *locker.Error
	fmt.Println(errors.As(lease.Err(), &e), e.Reason) // what its holder sees
	fmt.Println(errors.Is(l.Break(ctx, "report", info.Token), locker.ErrLost))
	// Output:
	// <nil>
	// true broken
	// true
}

func ExampleLocker_Ping() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	fmt.Println(l.Ping(ctx)) // for a health check
	// Output: <nil>
}

func ExampleLocker_Close() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	lease, _ := l.Lock(ctx, "leader")

	shutdown, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	fmt.Println(l.Close(shutdown)) // releases what is still held
	fmt.Println(lease.Err())
	_, err := l.Lock(ctx, "leader")
	fmt.Println(errors.Is(err, locker.ErrClosed))
	// Output:
	// <nil>
	// lockstep: hold "leader" on memory: locker is closed
	// true
}
