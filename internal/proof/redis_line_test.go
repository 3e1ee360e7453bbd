package proof

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// crowd lets n workers of l take key again and again, each for a while, until stop is called,
// which returns how often they had it.
func crowd(t *testing.T, l *locker.Locker, key string, n int, stay time.Duration) (grants *atomic.Int64, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	grants = new(atomic.Int64)
	var wg sync.WaitGroup
	for range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for ctx.Err() == nil {
				lease, err := l.Lock(ctx, key, locker.WithTTL(time.Minute), locker.WithRetry(never))
				if err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
				grants.Add(1)
				if stay > 0 {
					time.Sleep(stay)
				}
				if err := lease.Unlock(context.Background()); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return grants, stop
}

// WAIT-007: a turn ends by time as well, or 64 holders who take their time would be one.
func TestTurnOfSlowHolders(t *testing.T) {
	srv := redistest.Start(t)
	c := redis.Config{Addrs: []string{srv.Addr()}}
	a, b := open(t, c, locker.Config{}), open(t, c, locker.Config{})
	grants, _ := crowd(t, a, "k", 4, 20*time.Millisecond)
	for grants.Load() < 4 {
		time.Sleep(time.Millisecond)
	}
	var worst int64
	for range 5 {
		before := grants.Load()
		ctx, cancel := context.WithTimeout(t.Context(), 5*promptly)
		lease, err := b.Lock(ctx, "k", locker.WithTTL(time.Minute), locker.WithRetry(never))
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		worst = max(worst, grants.Load()-before)
		if err := lease.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if worst > 20 { // two or three; more where a machine is too busy to come within the time
		t.Errorf("the other process waited for %d holds", worst)
	}
}

// Inspect tells the token of who was passed the key, not the last that was set aside.
func TestInspectOfPassed(t *testing.T) {
	srv := redistest.Start(t)
	c := redis.Config{Addrs: []string{srv.Addr()}}
	a, b := open(t, c, locker.Config{}), open(t, c, locker.Config{})
	lease := mustLock(t, a, "k", locker.WithTTL(time.Minute))
	next := make(chan *locker.Lease, 1)
	go func() {
		lease, err := a.Lock(t.Context(), "k", locker.WithTTL(time.Minute))
		if err != nil {
			t.Error(err)
		}
		next <- lease
	}()
	time.Sleep(settle)
	if err := lease.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	lease = <-next
	for l, exact := range map[*locker.Locker]bool{a: true, b: false} {
		info, ok, err := l.Inspect(t.Context(), "k")
		if err != nil || !ok || info.Token < lease.Token() || exact && info.Token != lease.Token() {
			t.Errorf("%+v, %v, %v; want the token %d", info, ok, err, lease.Token())
		}
	}
}

// A process that died in line is waited for once, and not for long.
func TestDeadInLine(t *testing.T) {
	s := redistest.Start(t)
	settings := locker.Config{TTL: time.Minute, Retry: never}
	a := open(t, redis.Config{Addrs: []string{s.Addr()}}, settings)
	b := open(t, redis.Config{Addrs: []string{s.Addr()}}, settings)
	lease := mustLock(t, a, "k")
	line := "token:lockstep:{:k}:queue"
	for _, dead := range []string{"1", "2", "3"} {
		s.Do(t, "ZADD", line, dead, "dead"+dead)
	}
	got := make(chan *locker.Lease, 1)
	go func() { got <- mustLock(t, b, "k") }()
	time.Sleep(settle)
	if err := lease.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := (<-got).Unlock(t.Context()); err != nil {
		t.Error(err)
	}
	if left, err := s.Do(t, "ZCARD", line).AsInt64(); err != nil || left != 0 {
		t.Errorf("%d are still in line, %v", left, err)
	}
}

// Where the line cannot be kept (here: something else has its key), locks work without it.
func TestWithoutLine(t *testing.T) {
	s := redistest.Start(t)
	l := open(t, redis.Config{Addrs: []string{s.Addr()}}, locker.Config{TTL: time.Minute, Retry: never})
	s.Do(t, "SET", "token:lockstep:{:k}:queue", "x")
	lease := mustLock(t, l, "k")
	for range 3 {
		got := make(chan *locker.Lease, 1)
		go func() { got <- mustLock(t, l, "k") }()
		time.Sleep(settle)
		if err := lease.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
		next := <-got
		if next.Token() <= lease.Token() {
			t.Errorf("token %d after %d", next.Token(), lease.Token())
		}
		lease = next
	}
}

// A release calls the first process in the queue. The others neither ask nor overtake it: each
// acquisition is one attempt and one release, however many wait.
func TestOneIsCalled(t *testing.T) {
	srv := redistest.Start(t)
	settings := locker.Config{TTL: time.Minute, Retry: never}
	const n = 20
	holder := open(t, redis.Config{Addrs: []string{srv.Addr()}}, settings)
	lease := mustLock(t, holder, "k")
	order := make(chan int, n)
	var wg sync.WaitGroup
	for i := range n {
		l := open(t, redis.Config{Addrs: []string{srv.Addr()}}, settings)
		wg.Go(func() {
			lease, err := l.Lock(t.Context(), "k")
			if err != nil {
				t.Error(err)
				return
			}
			order <- i
			if err := lease.Unlock(t.Context()); err != nil {
				t.Error(err)
			}
		})
		waitInLine(t, srv, int64(i+1))
	}
	before := srv.CommandStats(t)
	if err := lease.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	close(order)
	// On a machine that is too busy some do not come within 10 ms, and lose their places.
	last, jumps := -1, 0
	for i := range order {
		if i != last+1 {
			jumps++
		}
		last = i
	}
	if jumps > n/2 {
		t.Errorf("%d of %d processes did not have the lock after the one before", jumps, n)
	}
	// All of them asking after each release would be 210 attempts, and 20 releases.
	if scripts := srv.CommandStats(t).Since(before)["evalsha"]; scripts > 6*n {
		t.Errorf("%d scripts for %d acquisitions", scripts, n)
	}
	if n, err := srv.Do(t, "DBSIZE").AsInt64(); n != 1 || err != nil {
		t.Errorf("%d keys are left, %v; want the token counter", n, err)
	}
}

func waitInLine(t *testing.T, srv *redistest.Server, n int64) {
	t.Helper()
	queued(t, srv, "token:lockstep:{:k}:queue", n)
}

// queued waits until n stand in the queue.
func queued(t *testing.T, srv *redistest.Server, queue string, n int64) {
	t.Helper()
	for end := time.Now().Add(5 * promptly); ; time.Sleep(time.Millisecond) {
		switch in, err := srv.Do(t, "ZCARD", queue).AsInt64(); {
		case in == n:
			return
		case err != nil || time.Now().After(end):
			t.Fatalf("%d in the queue, %v; want %d", in, err, n)
		}
	}
}

// Who had its turn and wants another one stands behind those who waited meanwhile, even if its first
// attempt comes before the one that was called.
func TestReleaserDoesNotOvertake(t *testing.T) {
	srv := redistest.Start(t)
	c := redis.Config{Addrs: []string{srv.Addr()}}
	for name, opts := range map[string][]locker.Option{"lease": {minute}, "session": nil} {
		t.Run(name, func(t *testing.T) {
			opts := append(opts, locker.WithRetry(never))
			// On a machine that is busy the one that was called may not come within 10 ms. One round
			// will do: who may overtake does so in all of them.
			const rounds = 20
			for range rounds {
				if !releaserOvertakes(t, srv, c, opts) {
					return
				}
			}
			t.Errorf("in %d of %d rounds it had the lock again before the one that waited", rounds, rounds)
		})
	}
}

func releaserOvertakes(t *testing.T, srv *redistest.Server, c redis.Config, opts []locker.Option) bool {
	// The one that is called is 6 ms away: long enough for another attempt to come first, and not for losing its turn.
	far := redistest.NewProxy(t, srv.Addr())
	a, first := open(t, c, locker.Config{}), open(t, c, locker.Config{})
	b := open(t, redis.Config{Addrs: []string{far.Addr()}}, locker.Config{})
	lease := mustLock(t, first, "k", opts...)
	got := make(chan *locker.Lease, 2)
	go func() { got <- mustLock(t, a, "k", opts...) }()
	waitInLine(t, srv, 1)
	next := make(chan *locker.Lease, 1)
	go func() { next <- mustLock(t, b, "k", opts...) }()
	waitInLine(t, srv, 2)
	if err := lease.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	lease = <-got
	far.Latency(3*time.Millisecond, 3*time.Millisecond)
	if err := lease.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	go func() { got <- mustLock(t, a, "k", opts...) }()
	var second, third *locker.Lease
	for second == nil || third == nil {
		var now *locker.Lease
		select {
		case second = <-next:
			now = second
		case third = <-got:
			now = third
		}
		if err := now.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return third.Token() < second.Token()
}

// Who had the lock and wants it again, while it is free and another one is called, asks once, and again
// when it is called itself.
func TestFreeForAnother(t *testing.T) {
	srv := redistest.Start(t)
	fewest := int64(1 << 60)
	// On a machine that is busy the one that was called may not come within 10 ms; one round will do.
	for i := range 20 {
		fewest = min(fewest, freeForAnother(t, srv, fmt.Sprint("k", i)))
		if fewest <= 6 { // the release, an attempt that is refused, and one that is granted and a release of each
			return
		}
	}
	t.Errorf("%d scripts at least; want 6", fewest)
}

func freeForAnother(t *testing.T, srv *redistest.Server, key string) int64 {
	t.Helper()
	far := redistest.NewProxy(t, srv.Addr())
	c := redis.Config{Addrs: []string{srv.Addr()}}
	holder := open(t, c, locker.Config{})
	called := open(t, redis.Config{Addrs: []string{far.Addr()}}, locker.Config{})
	first := mustLock(t, open(t, c, locker.Config{}), key, minute)
	had := make(chan *locker.Lease, 1)
	go func() { had <- mustLock(t, holder, key, minute, locker.WithRetry(never)) }()
	queue := "token:lockstep:{:" + key + "}:queue"
	queued(t, srv, queue, 1)
	var wg sync.WaitGroup
	lockAndUnlock := func(l *locker.Locker) {
		wg.Go(func() {
			lease, err := l.Lock(t.Context(), key, minute, locker.WithRetry(never))
			if err == nil {
				err = lease.Unlock(t.Context())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	lockAndUnlock(called)
	queued(t, srv, queue, 2)
	if err := first.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	lease := <-had // and knows that another one waits
	far.Latency(3*time.Millisecond, 3*time.Millisecond)
	before := srv.CommandStats(t)
	if err := lease.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	lockAndUnlock(holder)
	wg.Wait()
	return srv.CommandStats(t).Since(before)["evalsha"]
}

// One that was called and has given up hands the call on.
func TestCallIsHandedOn(t *testing.T) {
	srv := redistest.Start(t)
	c, settings := redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{TTL: time.Minute, Retry: never}
	mustLock(t, open(t, c, settings), "k")
	const queue = "token:lockstep:{:k}:queue"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gone := make(chan error, 1)
	b := open(t, c, settings)
	first, leave := context.WithCancel(t.Context())
	defer leave()
	go func() { _, err := b.Lock(first, "k"); gone <- err }()
	waitInLine(t, srv, 1)
	of, err := srv.Do(t, "ZRANGE", queue, "0", "0").AsStrSlice()
	if err != nil || len(of) != 1 {
		t.Fatal(of, err)
	}
	d, waits := open(t, c, settings), make(chan struct{})
	go func() {
		defer close(waits)
		_, _ = d.Lock(ctx, "k")
	}()
	waitInLine(t, srv, 2)
	called := strconv.FormatInt(-time.Now().Add(time.Minute).UnixMicro(), 10)
	srv.Do(t, "ZADD", queue, called, of[0])
	leave()
	<-gone
	for end := time.Now().Add(5 * promptly); ; time.Sleep(time.Millisecond) {
		left, err := srv.Do(t, "ZRANGE", queue, "0", "-1", "WITHSCORES").AsZScores()
		if err == nil && len(left) == 1 && left[0].Score <= 1 { // 1: it came, and found the lock held
			break
		}
		if time.Now().After(end) {
			t.Fatalf("in the queue: %v, %v; want the second one, called", left, err)
		}
	}
	cancel()
	<-waits
}

// What waiting had the server track ends with it: nothing else ends the tracking of a bell, and the
// table is one for all clients.
func TestWaitingLeavesNoBellTracked(t *testing.T) {
	srv := redistest.Start(t)
	c, settings := redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{TTL: time.Minute}
	lockers := make([]*locker.Locker, 4)
	for i := range lockers {
		lockers[i] = open(t, c, settings)
	}
	const keys = 20
	for k := range keys {
		key := strconv.Itoa(k)
		lease := mustLock(t, lockers[0], key)
		ctx, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i, l := range lockers[1:] {
			ctx := ctx
			if i > 0 {
				ctx = t.Context()
			}
			wg.Go(func() {
				lease, err := l.Lock(ctx, key)
				if err != nil {
					return // the one that leaves
				}
				if err := lease.Unlock(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		for end := time.Now().Add(5 * promptly); ; time.Sleep(time.Millisecond) {
			if in, err := srv.Do(t, "ZCARD", "token:lockstep:{:"+key+"}:queue").AsInt64(); in == 3 {
				break
			} else if err != nil || time.Now().After(end) {
				t.Fatal(in, err)
			}
		}
		leave()
		if err := lease.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
	}
	// Up to Redis 7.0 a script has all its keys tracked, the counter and the queue of each lock among them.
	for end := time.Now().Add(5 * promptly); ; time.Sleep(10 * time.Millisecond) {
		left, err := strconv.Atoi(srv.Info(t, "stats")["tracking_total_keys"])
		if err != nil {
			t.Fatal(err)
		}
		if left <= 2*keys {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d keys are tracked after %d locks were waited for", left, keys)
		}
	}
}

// An outage is told of once to one who stands behind others as well: an answer from before it does not
// pass for one.
func TestOutageBehindOthers(t *testing.T) {
	srv := redistest.Start(t)
	c := redis.Config{Addrs: []string{srv.Addr()}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	mustLock(t, open(t, c, locker.Config{}), "k", minute)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var outages, recoveries atomic.Int64
	for i := range 3 {
		settings := locker.Config{TTL: time.Minute}
		if i == 2 {
			settings.Observer = locker.ObserverFunc(func(_ context.Context, e locker.Event) {
				switch e.Kind {
				case locker.EventOutage:
					outages.Add(1)
				case locker.EventRecovered:
					recoveries.Add(1)
				}
			})
		}
		l := open(t, c, settings)
		wg.Go(func() { _, _ = l.Lock(ctx, "k") })
		waitInLine(t, srv, int64(i+1))
	}
	srv.Kill(t)
	for end := time.Now().Add(5 * promptly); outages.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing was told of the outage")
		}
	}
	time.Sleep(time.Second) // ten timed attempts
	if o, r := outages.Load(), recoveries.Load(); o != 1 || r != 0 {
		t.Errorf("%d outages and %d recoveries were told of while the server was down", o, r)
	}
}

// A lock that somebody set to nothing is held by somebody.
func TestEmptyValueIsHeld(t *testing.T) {
	srv := redistest.Start(t)
	l := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{TTL: time.Minute})
	other := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{TTL: time.Minute})
	for _, ttl := range []string{"", "60000"} {
		set := []string{"SET", lockKey("lockstep", "k"), ""}
		if ttl != "" {
			set = append(set, "PX", ttl)
		}
		srv.Do(t, set...)
		if _, err := l.TryLock(t.Context(), "k"); !errors.Is(err, locker.ErrHeld) {
			t.Errorf("TryLock: %v; want ErrHeld", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := other.Lock(ctx, "k"); !errors.Is(err, locker.ErrHeld) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lock: %v; want ErrHeld, and the ctx's end", err)
		}
		cancel()
		if _, err := l.LockAll(t.Context(), []string{"a", "k"}, locker.WithRetry(locker.Retry{Attempts: 1, Delay: time.Millisecond})); !errors.Is(err, locker.ErrHeld) {
			t.Errorf("LockAll: %v; want ErrHeld", err)
		}
		left, err := srv.Do(t, "PTTL", lockKey("lockstep", "k")).AsInt64()
		if err != nil || (left > 0) != (ttl != "") {
			t.Errorf("its ttl is %d, %v; it was %q", left, err, ttl)
		}
	}
}

// FLT-001: an owner that asks again for what it holds, because the reply got lost above the backend, is
// granted it. What another owner of the same client was told a moment ago is not its answer.
func TestRepeatBehindOthers(t *testing.T) {
	srv := redistest.Start(t)
	c := redis.Config{Addrs: []string{srv.Addr()}}
	for name, ttl := range map[string]time.Duration{"lease": time.Minute, "session": 0} {
		t.Run(name, func(t *testing.T) {
			a, b := openDriver(t, c), openDriver(t, c)
			for _, x := range []driver.Backend{a, b} {
				n, ok := driver.As[driver.Notifier](x)
				if !ok {
					t.Fatal("no Notifier")
				}
				defer n.Notify(name, func() {})()
			}
			first, _ := ask(name, 1, ttl)
			granted, err := attempt(t, a, first, true)
			if err != nil {
				t.Fatal(err)
			}
			before, _ := ask(name, 2, time.Minute) // so that A's next one is not the first in the queue
			if _, err := attempt(t, b, before, true); !errors.Is(err, driver.ErrHeld) {
				t.Fatal(err)
			}
			other, _ := ask(name, 3, time.Minute)
			if _, err := attempt(t, a, other, true); !errors.Is(err, driver.ErrHeld) {
				t.Fatal(err)
			}
			again, _ := ask(name, 1, ttl)
			if g, err := attempt(t, a, again, true); err != nil || g.Token != granted.Token {
				t.Errorf("the owner who holds it asks again: token %d, %v; want %d", g.Token, err, granted.Token)
			}
		})
	}
}
