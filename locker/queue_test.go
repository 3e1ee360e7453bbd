//go:build go1.25

package locker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// WAIT-002: a waiter whose patience ends behind the first may become the first before it has left. The
// attempt that it then has in flight is its last: it waits for that outcome, and for no other.
func TestPatienceEndsOnTheWayToTheFront(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &held{asked: make(chan struct{})}
		l, err := New(b, Config{TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close(context.Background())
		ctx, leave := context.WithCancel(context.Background())
		lock := func(ctx context.Context, r Retry) <-chan error {
			done := make(chan error, 1)
			go func() {
				_, err := l.Lock(ctx, "k", WithRetry(r))
				done <- err
			}()
			synctest.Wait()
			return done
		}
		front := lock(ctx, Retry{Attempts: Forever, Delay: time.Hour, Jitter: NoJitter})
		<-b.asked // before it waits
		<-b.asked // once there are hints
		synctest.Wait()
		second := lock(context.Background(), Retry{Attempts: 1, Delay: time.Hour, Jitter: NoJitter})

		qs := l.queues
		q := qs.m["k"]
		if qs.tick(q, q.waiters[1], true) {
			t.Fatal("the second one makes an attempt of its own")
		}
		leave() // between the tick and what follows from it
		if err := <-front; !errors.Is(err, context.Canceled) {
			t.Errorf("the first got %v", err)
		}
		<-b.asked // for the second
		synctest.Wait()
		select {
		case err := <-second:
			if !errors.Is(err, ErrHeld) {
				t.Errorf("the second got %v, want ErrHeld", err)
			}
		default:
			t.Error("the second waits on after its last attempt")
		}
	})
}

// held is a backend whose keys are somebody else's.
type held struct{ asked chan struct{} }

func (b *held) Acquire(context.Context, driver.Request) (driver.Grant, error) {
	b.asked <- struct{}{}
	return driver.Grant{}, driver.ErrHeld
}
func (*held) Extend(context.Context, driver.Holder, time.Duration) (driver.Grant, error) {
	return driver.Grant{}, driver.ErrLost
}
func (*held) Release(context.Context, driver.Holder) error { return nil }
func (*held) Capabilities() driver.Capabilities            { return driver.Capabilities{Name: "held"} }
func (*held) Close(context.Context) error                  { return nil }
