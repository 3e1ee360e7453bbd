// Program adapters-gocron runs a job under a lock.
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/go-co-op/gocron/v2"

	gocronlock "github.com/lockstep-go/lockstep/adapters/gocron"
	_ "github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/locker"
)

func main() {
	l, err := locker.Open(context.Background(), locker.Config{Type: "memory"})
	if err != nil {
		log.Fatal(err)
	}
	locks := gocronlock.NewLocker(l, gocronlock.Options{})
	s, err := gocron.NewScheduler(gocron.WithDistributedLocker(locks))
	if err != nil {
		log.Fatal(err)
	}
	ran := make(chan bool)
	j, err := s.NewJob(gocron.DurationJob(time.Hour), gocron.NewTask(locks.Task("report", func(_ context.Context, lease *locker.Lease) error {
		ran <- lease.Token() > 0
		return nil
	})), gocron.WithName("report"))
	if err != nil {
		log.Fatal(err)
	}
	s.Start()
	if err := j.RunNow(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("ran with a token:", <-ran)
}
