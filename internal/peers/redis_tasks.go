package peers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

var redisTasks = map[string]task{
	"latency":    typed(latency),
	"once":       typed(once),
	"crowd":      typed(crowd),
	"take":       typed(take),
	"release":    typed(releaseAt),
	"await":      typed(await),
	"awaitAll":   typed(awaitAll),
	"roundTrips": typed(roundTrips),
	"usage":      typed(usage),
	"pin":        typed(pinSelf),
	"connect":    typed(connect),
	"publish":    typed(publish),
	"subscribe":  typed(subscribe),
}

// callTimeout bounds a call that should never take long.
const callTimeout = 10 * time.Second

func pinSelf(c *childState, _ struct{}) (any, error) {
	if _, err := c.open(); err != nil { // its threads and connections first
		return nil, err
	}
	return nil, pin(os.Getpid())
}

// connect opens the locks.
func connect(c *childState, _ struct{}) (any, error) {
	_, err := c.open()
	return nil, err
}

// latency is Pairs over Redis: how long they take one by one, and how many there are.
func latency(c *childState, a Pairs) (any, error) {
	l, err := c.open()
	if err != nil {
		return nil, err
	}
	keys := make([]string, a.Workers)
	for w := range keys {
		keys[w] = "orders:" + strconv.Itoa(os.Getpid()) + ":" + strconv.Itoa(w)
	}
	return latencyOf(a, func(ctx context.Context, w int) error { return l.pair(ctx, keys[w]) })
}

// Once is so many keys that are locked and unlocked once each.
type Once struct{ Keys, Workers int }

func once(c *childState, a Once) (any, error) {
	l, err := c.open()
	if err != nil {
		return nil, err
	}
	var (
		wg   sync.WaitGroup
		errs = make([]error, a.Workers)
	)
	for w := range a.Workers {
		wg.Go(func() {
			for i := w; i < a.Keys && errs[w] == nil; i += a.Workers {
				errs[w] = l.pair(context.Background(), "once:"+strconv.Itoa(i))
			}
		})
	}
	wg.Wait()
	return nil, errors.Join(errs...)
}

// latencyOf measures what the workers do, again and again.
func latencyOf(a Pairs, do func(ctx context.Context, worker int) error) (s Sample, err error) {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		took  []time.Duration
		ctx   = context.Background()
		start = time.Now()
		end   = start.Add(time.Duration(a.Millis) * time.Millisecond)
	)
	cpu, err := cpuTime()
	if err != nil {
		return nil, err
	}
	for w := range a.Workers {
		wg.Go(func() {
			own := make([]time.Duration, 0, 1<<14)
			var failed error
			for now := time.Now(); now.Before(end) && failed == nil; {
				failed = do(ctx, w)
				after := time.Now()
				own = append(own, after.Sub(now))
				now = after
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, own...)
			err = errors.Join(err, failed)
		})
	}
	wg.Wait()
	if err != nil {
		return nil, err
	}
	all := time.Since(start)
	after, err := cpuTime()
	if err != nil {
		return nil, err
	}
	slices.Sort(took)
	return Sample{
		p50:        float64(quantile(took, 0.5)),
		p99:        float64(quantile(took, 0.99)),
		throughput: float64(len(took)) / all.Seconds(),
		clientEach: float64(after-cpu) / float64(len(took)),
		pairsDone:  float64(len(took)),
	}, nil
}

// Rush is a Crowd that begins and ends together with those of other processes.
type Rush struct {
	Key        string
	Goroutines int
	Clients    int           // the goroutines are spread over so many, as if each were a process; 0 is 1
	Hold       time.Duration // each has the key for so long
	Start, End time.Time
	// Grace is how long after End the last waiters have to get their turn. Who has not got it by
	// then, although nobody wants the key any more, is stuck.
	Grace time.Duration
}

// Rushed is what came of it.
type Rushed struct {
	Counts   []int64 // by goroutine, until End
	Acquired int64   // also after it
	Stuck    int
	CPU      time.Duration   // of the whole process
	Waits    []time.Duration // of those who got nothing, too
}

func crowd(c *childState, a Rush) (any, error) {
	// New locks each time, because a waiter that is stuck spoils what comes after it.
	clients := make([]*locks, max(a.Clients, 1))
	var err error
	for i := range clients {
		if clients[i], err = openLocks(context.Background(), c.order.Locks, c.order.Server); err != nil {
			return nil, err
		}
		defer clients[i].close()
	}
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		all = Rushed{Counts: make([]int64, a.Goroutines)}
	)
	ctx, cancel := context.WithDeadline(context.Background(), a.End.Add(a.Grace))
	defer cancel()
	time.Sleep(time.Until(a.Start))
	cpu, err := cpuTime()
	if err != nil {
		return nil, err
	}
	for g := range a.Goroutines {
		l := clients[g%len(clients)]
		wg.Go(func() {
			waits := make([]time.Duration, 0, 1<<14)
			var acquired int64
			var failed error
			stuck := 0
			for now := time.Now(); now.Before(a.End); {
				held, err := l.lock(ctx, a.Key)
				got := time.Now()
				waits = append(waits, got.Sub(now))
				if err != nil {
					if ctx.Err() == nil {
						failed = err
					} else {
						stuck++
					}
					break
				}
				acquired++
				if got.Before(a.End) {
					all.Counts[g]++
				}
				if a.Hold > 0 {
					time.Sleep(a.Hold)
				}
				if err := l.unlock(context.Background(), a.Key, held); err != nil {
					failed = err
					break
				}
				now = time.Now()
			}
			mu.Lock()
			defer mu.Unlock()
			all.Acquired += acquired
			all.Stuck += stuck
			all.Waits = append(all.Waits, waits...)
			err = errors.Join(err, failed)
		})
	}
	wg.Wait()
	after, failed := cpuTime()
	all.CPU = after - cpu
	return all, errors.Join(err, failed)
}

// Take is keys to hold.
type Take struct {
	Keys []string
	// TTL of a lease; 0 waits for the key and holds it until told otherwise.
	TTL time.Duration
	// Every is the pause between two.
	Every time.Duration
}

// take holds keys, and leaves them held.
func take(c *childState, a Take) (any, error) {
	l, err := c.open()
	if err != nil {
		return nil, err
	}
	c.held = nil
	for i, key := range a.Keys {
		if i > 0 {
			time.Sleep(a.Every)
		}
		var held any
		switch {
		case a.TTL == 0:
			ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
			held, err = l.lock(ctx, key)
			cancel()
		case l.lease != nil:
			held, err = l.lease(key, a.TTL)
		default: // rueidislock: its own validity
			held, err = l.hold(key)
		}
		if err != nil {
			return nil, err
		}
		c.held = append(c.held, held)
	}
	return nil, nil
}

// releaseAt unlocks the key that take holds, and returns when it began to.
func releaseAt(c *childState, a Take) (any, error) {
	l, err := c.open()
	if err != nil {
		return nil, err
	}
	at := time.Now()
	return at, l.unlock(context.Background(), a.Keys[0], c.held[0])
}

// Await is keys to wait for.
type Await struct {
	Keys   []string
	Millis int // for so long
}

// await waits for a key, unlocks it, and returns when it got it.
func await(c *childState, a Await) (any, error) {
	at, err := awaitAll(c, a)
	if err != nil {
		return nil, err
	}
	got := at.([]time.Time)[0]
	if got.IsZero() {
		return nil, fmt.Errorf("the waiter did not get the key within %d ms", a.Millis)
	}
	return got, nil
}

// awaitAll waits for all the keys at the same time; the zero time stands for not at all.
func awaitAll(c *childState, a Await) (any, error) {
	l, err := c.open()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(a.Millis)*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	at, errs := make([]time.Time, len(a.Keys)), make([]error, len(a.Keys))
	for i, key := range a.Keys {
		wg.Go(func() {
			held, err := l.lock(ctx, key)
			now := time.Now()
			if err != nil {
				if ctx.Err() == nil {
					errs[i] = err
				}
				return
			}
			at[i] = now
			errs[i] = l.unlock(context.Background(), key, held)
		})
	}
	wg.Wait()
	return at, errors.Join(errs...)
}

// Slow is a network with a long round trip.
type Slow struct{ RoundTrip time.Duration }

// roundTrips counts them by the time that they take.
func roundTrips(c *childState, a Slow) (any, error) {
	l, err := c.open()
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	key := "orders:" + strconv.FormatUint(rand.Uint64(), 36)
	s := make(Sample)
	timed := func(name string, f func() error) {
		start := time.Now()
		if e := f(); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", name, e))
		}
		s[name+" round trips"] = float64(time.Since(start)) / float64(a.RoundTrip)
	}
	var held any
	timed("Lock", func() (err error) { held, err = l.lock(ctx, key); return err })
	if l.extend != nil && err == nil {
		timed("Extend", func() error { return l.extend(ctx, held) })
	}
	if err == nil {
		timed("Unlock", func() error { return l.unlock(ctx, key, held) })
	}
	return s, err
}

// usage is the CPU time that this process has used so far, in nanoseconds.
func usage(*childState, struct{}) (any, error) { return cpuTime() }

const channel = "peers"

// publish sends a message, and returns when it began to.
func publish(c *childState, _ struct{}) (any, error) {
	client, err := c.rueidis()
	if err != nil {
		return nil, err
	}
	at := time.Now()
	return at, client.Do(context.Background(), client.B().Publish().Channel(channel).Message("x").Build()).Error()
}

// subscribe waits for the next message, and returns when it came.
func subscribe(c *childState, _ struct{}) (any, error) {
	client, err := c.rueidis()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	var at time.Time
	err = client.Receive(ctx, client.B().Subscribe().Channel(channel).Build(), func(rueidis.PubSubMessage) {
		at = time.Now()
		cancel()
	})
	if at.IsZero() {
		return nil, err
	}
	return at, nil
}

// rueidis is a bare client of the order's server.
func (c *childState) rueidis() (rueidis.Client, error) {
	if c.client == nil {
		client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{c.order.Server}})
		if err != nil {
			return nil, err
		}
		c.client = client
	}
	return c.client, nil
}
