package locker_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

func exampleLocker() *locker.Locker {
	l, err := locker.New(openBackend(), locker.Config{})
	if err != nil {
		log.Fatal(err)
	}
	return l
}

func ExampleWithKeepAlive() {
	ctx := context.Background()
	l := exampleLocker()
	defer l.Close(ctx)
	var steps, seen int // an atomic counter, where the work has goroutines of its own
	progress := func() bool { moved := steps > seen; seen = steps; return moved }

	// 30 s after a crash others may go on; an hour is more than the work ever takes.
	lease, err := l.Lock(ctx, "import", locker.WithTTL(30*time.Second),
		locker.WithKeepAlive(time.Hour), locker.WithProgress(progress))
	if err != nil {
		log.Fatal(err)
	}
	defer lease.Unlock(ctx)
	held, cancel := lease.Context(ctx)
	defer cancel()
	for range 3 {
		if held.Err() != nil {
			log.Fatal(context.Cause(held)) // capped, stalled, lost, …
		}
		steps++
	}
	fmt.Println(steps, "steps")
	// Output: 3 steps
}

func ExampleLease_Leave() {
	ctx := context.Background()
	l := exampleLocker()
	send := func(ctx context.Context, lease *locker.Lease) error {
		fmt.Println("sending")
		return lease.Leave(ctx, time.Hour) // nobody sends again for an hour
	}
	fmt.Println(l.TryDo(ctx, "reminder:42", send, locker.WithTTL(time.Minute)))
	_, err := l.TryLock(ctx, "reminder:42", locker.WithTTL(time.Minute))
	fmt.Println(err != nil)
	// Output:
	// sending
	// <nil>
	// true
}

func ExampleLocker_LockAll() {
	ctx := context.Background()
	l := exampleLocker()
	defer l.Close(ctx)
	all, err := l.LockAll(ctx, []string{"account:7", "account:3"}, locker.WithTTL(30*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	defer all.Unlock(ctx)
	held, cancel := all.Context(ctx) // ends with the first of them
	defer cancel()
	fmt.Println(all.Keys(), held.Err())
	// Output: [account:3 account:7] <nil>
}

var invoices = locker.NewFamily[int64]("invoice", locker.WithTTL(30*time.Second))

func ExampleFamily() {
	ctx := context.Background()
	l := exampleLocker()
	defer l.Close(ctx)
	err := invoices.Do(ctx, l, 42, func(_ context.Context, lease *locker.Lease) error {
		fmt.Println(lease.Key())
		return nil
	})
	fmt.Println(err)
	// Output:
	// invoice/42
	// <nil>
}
