package proof

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/conformance"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// counted is target with its operations counted. t is that of the history, or nil where
// it always comes to a verdict.
func (s *soak) counted(t *testing.T, target *conformance.Target) *conformance.Target {
	s.count(func() { s.histories++ })
	if t != nil {
		t.Cleanup(func() {
			if t.Skipped() {
				s.count(func() { s.undecided++ })
			}
		})
	}
	peer := target.Peer
	target.Backend = s.counting(target.Backend)
	target.Peer = func(tb testing.TB) driver.Backend { return s.counting(peer(tb)) }
	return target
}

func (s *soak) counting(b driver.Backend) driver.Backend {
	c := &counting{b, s}
	if w, ok := driver.As[driver.Waiter](b); ok {
		return &waiting{c, w}
	}
	return c
}

// counting counts the calls of a backend that change something, or try to.
type counting struct {
	driver.Backend
	s *soak
}

// waiting is counting for a backend that waits by itself.
type waiting struct {
	*counting
	waiter driver.Waiter
}

func (c *counting) Unwrap() driver.Backend { return c.Backend }

func (c *counting) counted(err error) {
	known := err == nil
	for _, e := range []error{driver.ErrHeld, driver.ErrLost, driver.ErrClosed} {
		known = known || errors.Is(err, e)
	}
	c.s.count(func() {
		c.s.operations++
		if !known {
			c.s.unanswered++
		}
	})
}

func (c *counting) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	g, err := c.Backend.Acquire(ctx, r)
	c.counted(err)
	return g, err
}

func (c *counting) Extend(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	g, err := c.Backend.Extend(ctx, h, ttl)
	c.counted(err)
	return g, err
}

func (c *counting) Release(ctx context.Context, h driver.Holder) error {
	err := c.Backend.Release(ctx, h)
	c.counted(err)
	return err
}

func (w *waiting) Wait(ctx context.Context, r driver.Request) (driver.Grant, error) {
	g, err := w.waiter.Wait(ctx, r)
	w.counted(err)
	return g, err
}
