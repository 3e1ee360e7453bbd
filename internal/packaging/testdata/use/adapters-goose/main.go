// Program adapters-goose takes the lock that goose would.
package main

import (
	"context"
	"fmt"
	"log"

	gooselock "github.com/lockstep-go/lockstep/adapters/goose"
	_ "github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/locker"
)

func main() {
	ctx := context.Background()
	l, err := locker.Open(ctx, locker.Config{Type: "memory"})
	if err != nil {
		log.Fatal(err)
	}
	k := gooselock.New(l, gooselock.Options{})
	fmt.Println(k.Lock(ctx, nil), k.Unlock(ctx, nil))
}
