package memory_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/locker/driver"
)

type listener struct{}

func (listener) Lost(cause error) { fmt.Println("lost:", cause) }

// What package locker does with a backend. A program calls locker.Open instead.
func ExampleOpen() {
	ctx := context.Background()
	b, err := memory.Open(ctx, memory.Config{Store: "example"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close(ctx)

	mine := driver.Request{Key: "orders:42", Owner: driver.Owner{Seq: 1}, TTL: time.Minute, Hold: listener{}}
	grant, err := b.Acquire(ctx, mine)
	fmt.Println("mine:", grant.TTL, err)

	theirs := driver.Request{Key: "orders:42", Owner: driver.Owner{Seq: 2}, Hold: listener{}}
	_, err = b.Acquire(ctx, theirs)
	fmt.Println("theirs is refused:", errors.Is(err, driver.ErrHeld))

	err = b.Release(ctx, driver.Holder{Key: mine.Key, Owner: mine.Owner, Token: grant.Token})
	fmt.Println("released:", err)
	// Output:
	// mine: 1m0s <nil>
	// theirs is refused: true
	// released: <nil>
}
