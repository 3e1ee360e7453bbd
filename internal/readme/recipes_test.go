package readme

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/elect"
	"github.com/lockstep-go/lockstep/locker/once"
)

var invoices = locker.NewFamily[int64]("invoice", locker.WithTTL(30*time.Second))

func Example_keepAlive() {
	ctx := context.Background()
	l := open(ctx, "keepAlive")
	defer l.Close(ctx)
	progress := func() bool { return true }
	lease, err := l.Lock(ctx, "import", locker.WithTTL(30*time.Second),
		locker.WithKeepAlive(time.Hour), locker.WithProgress(progress))
	if err != nil {
		panic(err)
	}
	fmt.Println(lease.Unlock(ctx))
	// Output: <nil>
}

func Example_leave() {
	ctx := context.Background()
	l := open(ctx, "leave")
	defer l.Close(ctx)
	fmt.Println(l.TryDo(ctx, "reminder:42", func(ctx context.Context, lease *locker.Lease) error {
		return lease.Leave(ctx, time.Hour) // nobody sends again for an hour
	}, locker.WithTTL(time.Minute)))
	// Output: <nil>
}

func Example_elect() {
	ctx, stop := context.WithCancel(context.Background())
	l := open(ctx, "elect")
	defer l.Close(context.Background())
	serveMetrics := func(context.Context, uint64) {}
	schedule := func(ctx context.Context) error { stop(); <-ctx.Done(); return ctx.Err() }
	err := elect.Run(ctx, l, "scheduler", func(ctx context.Context, term *elect.Term) error {
		go serveMetrics(ctx, term.Token())
		return schedule(ctx) // returns within StopWithin of the end of its ctx
	}, elect.Options{TTL: 15 * time.Second, StopWithin: 5 * time.Second})
	fmt.Println(err)
	// Output: context canceled
}

func Example_once() {
	ctx := context.Background()
	l := open(ctx, "once")
	defer l.Close(ctx)
	fire := time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)
	report := func(context.Context, *locker.Lease) error { fmt.Println("reporting"); return nil }
	for range 2 {
		err := once.Do(ctx, l, "nightly-report", once.Slots(24*time.Hour).At(fire), report, once.AtLeast(48*time.Hour))
		if errors.Is(err, once.ErrDone) || errors.Is(err, once.ErrRunning) {
			err = nil // another process has it
		}
		fmt.Println(err)
	}
	// Output:
	// reporting
	// <nil>
	// <nil>
}

func Example_fill() {
	ctx := context.Background()
	l := open(ctx, "fill")
	defer l.Close(ctx)
	cache := map[string]string{}
	look := func(context.Context) (string, bool, error) { page, ok := cache["home"]; return page, ok, nil }
	render := func(context.Context, *locker.Lease) (string, error) { cache["home"] = "<html>"; return "<html>", nil }
	page, err := once.Fill(ctx, l, "page:home", look, render, once.Pause(5*time.Second))
	fmt.Println(page, err)
	// Output: <html> <nil>
}

func Example_lockAll() {
	ctx := context.Background()
	l := open(ctx, "lockAll")
	defer l.Close(ctx)
	all, err := l.LockAll(ctx, []string{"account:7", "account:3"}, locker.WithTTL(30*time.Second))
	if err != nil {
		panic(err)
	}
	defer all.Unlock(ctx)
	fmt.Println(all.Keys())
	// Output: [account:3 account:7]
}

func Example_family() {
	ctx := context.Background()
	l := open(ctx, "family")
	defer l.Close(ctx)
	fmt.Println(invoices.Do(ctx, l, 42, func(_ context.Context, lease *locker.Lease) error {
		fmt.Println(lease.Key())
		return nil
	}))
	// Output:
	// invoice/42
	// <nil>
}
