//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package dirlock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/lockstep-go/lockstep/conformance/examples/dirlock"
	"github.com/lockstep-go/lockstep/locker"
)

func Example() {
	ctx := context.Background()
	path, err := os.MkdirTemp("", "dirlock")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(path)

	// Two processes would do the same.
	one, err := locker.Open(ctx, locker.Config{Type: "dir", Backend: dirlock.Config{Path: path}})
	if err != nil {
		panic(err)
	}
	defer one.Close(ctx)
	cfg, err := locker.LoadConfig("dir://" + path + "?validity=2s") // what an operator writes
	if err != nil {
		panic(err)
	}
	two, err := locker.Open(ctx, cfg)
	if err != nil {
		panic(err)
	}
	defer two.Close(ctx)

	lease, err := one.Lock(ctx, "invoice:42", locker.WithTTL(30*time.Second))
	if err != nil {
		panic(err)
	}
	_, err = two.TryLock(ctx, "invoice:42")
	fmt.Println("a second one is refused:", errors.Is(err, locker.ErrHeld))

	if err := lease.Unlock(ctx); err != nil {
		panic(err)
	}
	next, err := two.TryLock(ctx, "invoice:42")
	if err != nil {
		panic(err)
	}
	fmt.Println("tokens rise:", next.Token() > lease.Token())
	// Output:
	// a second one is refused: true
	// tokens rise: true
}
