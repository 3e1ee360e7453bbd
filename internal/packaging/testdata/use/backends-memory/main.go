// Program backends-memory takes a lock in this process.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	_ "github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/locker"
)

func main() {
	ctx := context.Background()
	l, err := locker.Open(ctx, locker.Config{Type: "memory"})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close(ctx)
	lease, err := l.Lock(ctx, "invoice:42", locker.WithTTL(time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	_, err = l.TryLock(ctx, "invoice:42")
	fmt.Println("held by another:", errors.Is(err, locker.ErrHeld))
	fmt.Println("released:", lease.Unlock(ctx))
}
