// Command quickstart is the program of docs/guide.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/lockstep-go/lockstep/locker"

	_ "github.com/lockstep-go/lockstep/backends/memory"   // for Type "memory"
	_ "github.com/lockstep-go/lockstep/backends/postgres" // for Type "postgres"
	_ "github.com/lockstep-go/lockstep/backends/redis"    // for Type "redis"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	cfg := locker.Config{Type: "memory"} // the code's choice …
	if os.Getenv("LOCKSTEP_CONFIG") != "" {
		var err error
		if cfg, err = cfg.Load("env:LOCKSTEP_CONFIG"); err != nil { // … and the operator's
			return err
		}
	}
	l, err := locker.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer l.Close(ctx)

	// With a ttl it is a lease: over in 30 s at the latest, whatever becomes of this process.
	lease, err := l.Lock(ctx, "invoice:42", locker.WithTTL(30*time.Second))
	if err != nil {
		return err
	}
	_, err = l.TryLock(ctx, "invoice:42")
	fmt.Println("a second one gets ErrHeld:", errors.Is(err, locker.ErrHeld))
	if err := lease.Unlock(ctx); err != nil {
		return err // ErrLost: the hold was over before; somebody else may have had the lock
	}

	// Without one it is a session: held until it is unlocked, which Do does by itself.
	return l.Do(ctx, "nightly-report", func(ctx context.Context, hold *locker.Lease) error {
		fmt.Println("holding", hold.Key(), "as a session:", hold.Session())
		return ctx.Err() // ends when the hold does; context.Cause(ctx) says why
	})
}
