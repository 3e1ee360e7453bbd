package once_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/internal/memory"
	"github.com/lockstep-go/lockstep/locker/once"
)

// In a program: memory.New or redis.New of a backend's package.
func open() *locker.Locker {
	l, err := memory.New(new(memory.Store), locker.Config{})
	if err != nil {
		log.Fatal(err)
	}
	return l
}

func ExampleDo() {
	l := open()
	ctx := context.Background()
	fire := time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC) // the scheduler's, in each process
	slot := once.Slots(24 * time.Hour).At(fire)
	for range 2 {
		err := once.Do(ctx, l, "nightly-report", slot, func(context.Context, *locker.Lease) error {
			fmt.Println("reporting")
			return nil
		}, once.AtLeast(48*time.Hour))
		switch {
		case errors.Is(err, once.ErrDone), errors.Is(err, once.ErrRunning):
			fmt.Println("somebody else has it")
		case err != nil:
			log.Fatal(err)
		}
	}
	// Output:
	// reporting
	// somebody else has it
}

func ExampleFill() {
	l := open()
	cache := map[string]string{}
	for range 2 {
		page, err := once.Fill(context.Background(), l, "page:home",
			func(context.Context) (string, bool, error) { p, ok := cache["home"]; return p, ok, nil },
			func(context.Context, *locker.Lease) (string, error) {
				fmt.Println("rendering")
				cache["home"] = "<html>"
				return cache["home"], nil
			})
		fmt.Println(page, err)
	}
	// Output:
	// rendering
	// <html> <nil>
	// <html> <nil>
}
