package adapters

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/robfig/cron/v3"

	cronlock "github.com/lockstep-go/lockstep/adapters/cron"
	gocronlock "github.com/lockstep-go/lockstep/adapters/gocron"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/once"
)

// coarse is a store that keeps no short ttl, and may be without a way to extend one. Its leases do
// not expire.
type coarse struct {
	noExtend bool

	mu    sync.Mutex
	token uint64
	held  map[string]driver.Owner
	left  []time.Duration // the ttls of Extend
}

func (c *coarse) Acquire(_ context.Context, r driver.Request) (driver.Grant, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o, ok := c.held[r.Key]; ok && o != r.Owner {
		return driver.Grant{}, driver.ErrHeld
	}
	if c.held == nil {
		c.held = map[string]driver.Owner{}
	}
	c.held[r.Key] = r.Owner
	c.token++
	return driver.Grant{Token: c.token, TTL: r.TTL}, nil
}

func (c *coarse) Extend(_ context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.noExtend {
		return driver.Grant{}, driver.ErrUnsupported
	}
	c.left = append(c.left, ttl)
	return driver.Grant{Token: h.Token, TTL: ttl}, nil
}

func (c *coarse) Release(_ context.Context, h driver.Holder) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[h.Key] != h.Owner {
		return driver.ErrLost
	}
	delete(c.held, h.Key)
	return nil
}

func (c *coarse) Capabilities() driver.Capabilities {
	return driver.Capabilities{Name: "coarse", MinTTL: time.Hour}
}

func (c *coarse) Close(context.Context) error { return nil }

func (c *coarse) open(t *testing.T) *locker.Locker {
	t.Helper()
	l, err := locker.New(c, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(context.Background()) })
	return l
}

// A run whose lease could not be left for AtLeast does not begin.
func TestGocronLongAtLeast(t *testing.T) {
	for _, d := range []time.Duration{-1, locker.MaxTTL + 1} {
		_, err := gocronlock.NewLocker(new(coarse).open(t), gocronlock.Options{AtLeast: d}).Lock(t.Context(), "job")
		if !errors.Is(err, locker.ErrInvalidTTL) {
			t.Errorf("%s: %v", d, err)
		}
	}
}

// What remains of AtLeast may be less than the store can keep.
func TestGocronShortRest(t *testing.T) {
	c := new(coarse)
	lock, err := gocronlock.NewLocker(c.open(t), gocronlock.Options{AtLeast: 30 * time.Minute}).Lock(t.Context(), "job")
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Unlock(t.Context()); err != nil || len(c.left) != 1 || c.left[0] != time.Hour {
		t.Errorf("%v; left for %v", err, c.left)
	}
}

// A lease that cannot be left is not kept until Close.
func TestGocronNotLeft(t *testing.T) {
	c := &coarse{noExtend: true}
	k := gocronlock.NewLocker(c.open(t), gocronlock.Options{AtLeast: 2 * time.Hour})
	lock, err := k.Lock(t.Context(), "job")
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Unlock(t.Context()); !errors.Is(err, locker.ErrUnsupported) {
		t.Error(err)
	}
	if len(c.held) > 0 {
		t.Errorf("it is still held: %v", c.held)
	}
}

// The default of AtLeast fits every schedule and store.
func TestCronDefaultAtLeast(t *testing.T) {
	for _, every := range []time.Duration{time.Second, time.Hour, locker.MaxTTL/2 + time.Second, locker.MaxTTL * 2} {
		logger, c, ran := &record{}, new(coarse), false
		schedule := cron.ConstantDelaySchedule{Delay: every}
		cronlock.Once(t.Context(), c.open(t), "job", schedule, logger, once.TTL(2*time.Hour))(cron.FuncJob(func() { ran = true })).Run()
		want := min(max(time.Hour, 2*min(every, locker.MaxTTL)), locker.MaxTTL)
		if len(logger.errs) > 0 || !ran || len(c.left) != 1 || c.left[0] != want {
			t.Errorf("@every %s: ran %t, errors %v, left for %v, want %s", every, ran, logger.errs, c.left, want)
		}
	}
}
