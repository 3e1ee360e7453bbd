// Program adapters-cron runs a job once per slot.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/robfig/cron/v3"

	cronlock "github.com/lockstep-go/lockstep/adapters/cron"
	_ "github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/locker"
)

func main() {
	ctx := context.Background()
	l, err := locker.Open(ctx, locker.Config{Type: "memory"})
	if err != nil {
		log.Fatal(err)
	}
	nightly, err := cron.ParseStandard("CRON_TZ=UTC 0 3 * * *")
	if err != nil {
		log.Fatal(err)
	}
	job := cronlock.Once(ctx, l, "report", nightly, cron.DiscardLogger)(cronlock.Func(func(context.Context) error {
		fmt.Println("reporting")
		return nil
	}))
	job.Run()
	job.Run() // the slot has been done
}
