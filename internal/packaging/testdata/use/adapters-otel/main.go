// Program adapters-otel observes a lock.
package main

import (
	"context"
	"fmt"
	"log"

	otellock "github.com/lockstep-go/lockstep/adapters/otel"
	_ "github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/locker"
)

func main() {
	ctx := context.Background()
	observer, err := otellock.New(otellock.Options{})
	if err != nil {
		log.Fatal(err)
	}
	l, err := locker.Open(ctx, locker.Config{Type: "memory", Observer: observer})
	if err != nil {
		log.Fatal(err)
	}
	lease, err := l.Lock(ctx, "invoice:42")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("released:", lease.Unlock(ctx))
}
