package elect_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/elect"
	"github.com/lockstep-go/lockstep/locker/internal/memory"
)

// In a program: memory.New or redis.New of a backend's package.
func open() *locker.Locker {
	l, err := memory.New(new(memory.Store), locker.Config{})
	if err != nil {
		log.Fatal(err)
	}
	return l
}

func ExampleRun() {
	l := open()
	ctx, shutdown := context.WithCancel(context.Background()) // or signal.NotifyContext
	err := elect.Run(ctx, l, "scheduler", func(ctx context.Context, term *elect.Term) error {
		fmt.Println("leads, with a token:", term.Token() > 0)
		shutdown()
		<-ctx.Done() // the end of the term, or of the program: stop within StopWithin
		return nil
	}, elect.Options{TTL: 15 * time.Second, StopWithin: 5 * time.Second})
	fmt.Println(err)
	// Output:
	// leads, with a token: true
	// context canceled
}

func ExampleCandidate() {
	l := open()
	ctx := context.Background()
	c, err := elect.NewCandidate(ctx, l, "scheduler", elect.Options{})
	if err != nil {
		log.Fatal(err)
	}
	for leader := range c.Observe(ctx) { // each change; nobody is the zero Leader
		if leader.Token > 0 {
			break
		}
	}
	fmt.Println("leads:", c.IsLeader())
	if err := c.Close(ctx); err != nil { // the next candidate leads at once
		log.Fatal(err)
	}
	fmt.Println("leads:", c.IsLeader())
	// Output:
	// leads: true
	// leads: false
}
