package memory

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// TestLockersShareAStore: whatever the Lockers of one store do, Close included, at no instant
// are two holds of a key alive, tokens rise, and in the end nothing is held and nobody waits.
func TestLockersShareAStore(t *testing.T) {
	watch := open(t, Config{Shards: 2})
	type cell struct {
		mu    sync.Mutex
		last  *locker.Lease
		token uint64 // the greatest of a hold that was alive
	}
	var cells [5]cell
	var grants, closes atomic.Int64
	// enter is called by whoever got a hold.
	enter := func(c *cell, s *locker.Lease) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if s.Err() != nil {
			return
		}
		before, token := c.last, c.token
		alive := before != nil && before.Err() == nil
		if s.Err() != nil {
			return
		}
		if alive {
			t.Errorf("%s: holds %d and %d at the same time", s.Key(), before.Token(), s.Token())
		}
		if s.Token() <= token {
			t.Errorf("%s: token %d after %d", s.Key(), s.Token(), token)
		}
		c.last, c.token = s, max(token, s.Token())
		grants.Add(1)
	}
	work := func(l *locker.Locker, stop *atomic.Bool) {
		for !stop.Load() {
			i := rand.IntN(len(cells))
			key, c := fmt.Sprint("k", i), &cells[i]
			var opts []locker.Option
			switch rand.IntN(4) {
			case 0:
				opts = append(opts, locker.WithTTL(time.Hour))
			case 1:
				opts = append(opts, locker.WithTTL(time.Duration(rand.IntN(3)+1)*time.Millisecond))
			case 2:
				opts = append(opts, locker.WithTTL(4*time.Millisecond), locker.WithDriftFactor(0.3))
			}
			if rand.IntN(3) == 0 {
				opts = append(opts, locker.WithRetry(locker.Retry{Attempts: []int{locker.None, 1, 2}[rand.IntN(3)], Delay: time.Millisecond, Jitter: locker.NoJitter}))
			}
			ctx, cancel := context.Background(), context.CancelFunc(func() {})
			if rand.IntN(2) == 0 {
				ctx, cancel = context.WithTimeout(ctx, time.Duration(rand.IntN(2000))*time.Microsecond)
			}
			lock := l.Lock
			if rand.IntN(4) == 0 {
				lock = l.TryLock
			}
			s, err := lock(ctx, key, opts...)
			cancel()
			switch {
			case errors.Is(err, locker.ErrClosed):
				return
			case err != nil:
				if !errors.Is(err, locker.ErrHeld) && !errors.Is(err, locker.ErrLost) && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				continue
			}
			enter(c, s)
			switch rand.IntN(8) {
			case 0:
				_ = s.Extend(context.Background(), time.Duration(rand.IntN(3)+1)*time.Millisecond)
			case 1:
				go func() { _ = s.Extend(context.Background(), time.Duration(rand.IntN(3)+1)*time.Millisecond) }()
			case 2:
				go func() { _ = s.Unlock(context.Background()) }()
			case 3:
				if !s.Session() {
					time.Sleep(time.Millisecond)
				}
			case 4:
				select {
				case <-s.Done():
				case <-time.After(time.Millisecond):
				}
			}
			err = s.Unlock(context.Background())
			if err != nil && !errors.Is(err, locker.ErrLost) && !errors.Is(err, locker.ErrReleased) && !errors.Is(err, locker.ErrClosed) {
				t.Error(err)
			}
		}
	}
	var all sync.WaitGroup
	end := time.Now().Add(time.Second)
	for range 3 {
		all.Add(1)
		go func() {
			defer all.Done()
			for time.Now().Before(end) {
				l, err := New(Config{Store: t.Name()}, locker.Config{})
				if err != nil {
					t.Error(err)
					return
				}
				var stop atomic.Bool
				var users sync.WaitGroup
				for range 4 {
					users.Add(1)
					go func() {
						defer users.Done()
						work(l, &stop)
					}()
				}
				time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
				if err := l.Close(context.Background()); err != nil {
					t.Error(err)
				}
				closes.Add(1)
				stop.Store(true)
				users.Wait()
			}
		}()
	}
	all.Wait()
	if n, m := live(watch), waiting(watch); n != 0 || m != 0 {
		t.Errorf("%d keys and %d waiters are left", n, m)
	}
	t.Logf("%d grants, %d closes", grants.Load(), closes.Load())
}
