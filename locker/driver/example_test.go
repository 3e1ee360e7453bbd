package driver_test

import (
	"context"
	"fmt"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// counting wraps a backend and counts its acquisitions. Unwrap leaves the optional
// abilities of what it wraps in sight.
type counting struct {
	driver.Backend
	n int
}

func (c *counting) Unwrap() driver.Backend { return c.Backend }

func (c *counting) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	c.n++
	return c.Backend.Acquire(ctx, r)
}

// store is a backend that can be pinged; the rest of it is left out.
type store struct{ driver.Backend }

func (store) Ping(context.Context) error { return nil }

func ExampleAs() {
	var b driver.Backend = &counting{Backend: store{}}
	p, ok := driver.As[driver.Pinger](b)
	fmt.Println(ok, p.Ping(context.Background()))
	_, ok = driver.As[driver.Waiter](b)
	fmt.Println(ok)
	// Output:
	// true <nil>
	// false
}
