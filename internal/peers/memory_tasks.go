package peers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mobylocker "github.com/moby/locker"
)

// tasks are all that a child can do.
var tasks = func() map[string]task {
	all := make(map[string]task)
	maps.Copy(all, memoryTasks)
	maps.Copy(all, redisTasks)
	maps.Copy(all, postgresTasks)
	return all
}()

var memoryTasks = map[string]task{
	"pairs":       typed(pairs),
	"allocations": typed(countAllocations),
	"handOff":     typed(passOn),
	"hold":        typed(holdMany),
	"collect":     typed(collectGarbage),
	"herd":        typed(herd),
	"evenly":      typed(evenly),
	"idle":        typed(beIdle),
}

// Pairs is lock and unlock, again and again.
type Pairs struct {
	Keys    int // drawn at random; 1: each worker has its own
	Workers int
	Millis  int
	Live    int // other leases that are held meanwhile
}

func pairs(c *childState, a Pairs) (any, error) {
	l, err := c.open()
	if err != nil {
		return nil, err
	}
	if len(c.held) < a.Live {
		if err := c.fill(a.Live, func(key string) (any, error) { return l.lease(key, time.Hour+rand.N(time.Hour)) }); err != nil {
			return nil, err
		}
	}
	if len(c.keys) < a.Keys {
		c.keys = makeKeys("orders", a.Keys)
	}
	runtime.GC()

	var wg sync.WaitGroup
	counts, errs := make([]int, a.Workers), make([]error, a.Workers)
	ctx := context.Background()
	cpu, err := cpuTime()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	end := start.Add(time.Duration(a.Millis) * time.Millisecond)
	for w := range a.Workers {
		wg.Go(func() {
			own := "orders:worker" + strconv.Itoa(w)
			random := rand.NewPCG(1, uint64(w))
			n := 0
			for time.Now().Before(end) {
				for range 256 {
					key := own
					if a.Keys > 1 {
						key = c.keys[random.Uint64()%uint64(a.Keys)]
					}
					if err := l.pair(ctx, key); err != nil {
						errs[w] = err
						return
					}
					n++
				}
			}
			counts[w] = n
		})
	}
	wg.Wait()
	took := time.Since(start)
	after, err := cpuTime()
	if err != nil {
		return nil, err
	}
	total := 0
	for w, n := range counts {
		if errs[w] != nil {
			return nil, errs[w]
		}
		total += n
	}
	return Sample{
		perPair:    float64(took.Nanoseconds()) * float64(a.Workers) / float64(total),
		throughput: float64(total) / took.Seconds(),
		cpuEach:    float64(after-cpu) / float64(total),
	}, nil
}

// countAllocations counts those of the whole process, so those of the peers' own
// goroutines too.
func countAllocations(c *childState, _ struct{}) (any, error) {
	l, err := c.open()
	if err != nil {
		return nil, err
	}
	n := testing.AllocsPerRun(1000, func() {
		if e := l.pair(context.Background(), "orders:42"); e != nil {
			err = e
		}
	})
	return Sample{allocations: n}, err
}

func makeKeys(prefix string, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = prefix + ":" + strconv.Itoa(i)
	}
	return keys
}

// fill holds n keys more; the child keeps the handles.
func (c *childState) fill(n int, take func(key string) (any, error)) error {
	keys := makeKeys("live", n)
	c.held = make([]any, n)
	for i, key := range keys {
		var err error
		if c.held[i], err = take(key); err != nil {
			return fmt.Errorf("holding %d keys: %w", n, err)
		}
	}
	return nil
}

// Crowd is many goroutines that want one key.
type Crowd struct {
	Goroutines int
	Millis     int
}

// passOn measures the time from the beginning of an unlock to the return of the next
// goroutine's lock, and how evenly the turns are shared.
func passOn(c *childState, a Crowd) (any, error) {
	l, err := c.open()
	if err != nil {
		return nil, err
	}
	const key = "orders:42"
	var (
		wg       sync.WaitGroup
		counts   = make([]int64, a.Goroutines)
		took     = make([]time.Duration, 0, 1<<22) // guarded by the lock that is measured
		released time.Duration                     // the same
		ctx      = context.Background()
	)
	first, err := l.lock(ctx, key)
	if err != nil {
		return nil, err
	}
	var start, end time.Time
	for g := range a.Goroutines {
		wg.Go(func() {
			for {
				held, e := l.lock(ctx, key)
				now := time.Since(start)
				if e != nil {
					err = e
					return
				}
				over := start.Add(now).After(end)
				if len(took) < cap(took) {
					took = append(took, now-released)
				}
				if !over {
					counts[g]++
				}
				released = time.Since(start)
				if e := l.unlock(ctx, key, held); e != nil {
					err = e
				}
				if over {
					return
				}
			}
		})
	}
	time.Sleep(10 * time.Millisecond) // until all of them wait
	start = time.Now()
	end = start.Add(time.Duration(a.Millis) * time.Millisecond)
	if err := l.unlock(ctx, key, first); err != nil {
		return nil, err
	}
	wg.Wait()
	if err != nil {
		return nil, err
	}
	slices.Sort(took)
	return Sample{
		handOff:    float64(quantile(took, 0.5)),
		throughput: float64(total(counts)) / time.Since(start).Seconds(),
		shares:     smallestShare(counts),
	}, nil
}

const shares = "smallest ÷ largest share"

func total(counts []int64) (sum int64) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

func smallestShare(counts []int64) float64 {
	return float64(slices.Min(counts)) / float64(max(slices.Max(counts), 1))
}

// Many is a number of holds that stay.
type Many struct {
	N       int
	Session bool
}

// holdMany reports the memory that the holds take: everything but the keys and the slice of
// handles, which are the user's.
func holdMany(c *childState, a Many) (any, error) {
	l, err := c.open()
	if err != nil {
		return nil, err
	}
	c.keys, c.held = makeKeys("live", a.N), make([]any, a.N)
	if l.pair != nil {
		// What the first lock makes once is not the leases'.
		if err := l.pair(context.Background(), "first"); err != nil {
			return nil, err
		}
	}
	before, goroutines := memoryInUse(), runtime.NumGoroutine()
	for i, key := range c.keys {
		if a.Session {
			c.held[i], err = l.hold(key)
		} else {
			c.held[i], err = l.lease(key, time.Hour)
		}
		if err != nil {
			return nil, err
		}
	}
	after := memoryInUse()
	return Sample{
		bytesEach:    (after - before) / float64(a.N),
		"goroutines": float64(runtime.NumGoroutine() - goroutines),
	}, nil
}

// memoryInUse is the heap and the stacks.
func memoryInUse() float64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools kept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// collectGarbage times one whole cycle.
func collectGarbage(*childState, struct{}) (any, error) {
	start := time.Now()
	runtime.GC()
	return Sample{collection: float64(time.Since(start).Nanoseconds())}, nil
}

// Herd is many leases that end at the same instant, or evenly over a time.
type Herd struct {
	N            int
	SpreadMillis int
}

// begin is when the first of n leases may end: when all are held, by a guess from the first
// of them, with room for a busy machine.
func begin(l *locks, n int) (time.Time, error) {
	const probe = 50_000
	start := time.Now()
	for _, key := range makeKeys("probe", probe) {
		if _, err := l.lease(key, time.Hour); err != nil {
			return start, err
		}
	}
	rate := time.Since(start) / probe
	return time.Now().Add(700*time.Millisecond + 5*rate*time.Duration(n)/2), nil
}

var errSlow = errors.New("the first leases ended before the last were held: the machine is too busy")

// herd measures how fast they are dealt with, and what others have to wait meanwhile.
func herd(c *childState, a Herd) (any, error) {
	l, err := c.open()
	if err != nil {
		return nil, err
	}
	due, err := begin(l, a.N)
	if err != nil {
		return nil, err
	}
	if err := c.fill(a.N, func(key string) (any, error) { return l.lease(key, time.Until(due)) }); err != nil {
		return nil, err
	}
	const every = 97 // so many leases for one that is looked at
	var ends []<-chan struct{}
	for i := 0; i < len(c.held); i += every {
		ends = append(ends, l.ended(c.held[i]))
	}
	keys := makeKeys("others", 1024)
	took := make([]time.Duration, 0, 1<<23)
	moby, mobyWorst := mobylocker.New(), time.Duration(0)
	runtime.GC()
	if time.Now().After(due) {
		return nil, errSlow
	}
	time.Sleep(time.Until(due))

	var gone atomic.Bool
	var goneAfter time.Duration
	go func() {
		for _, end := range ends {
			<-end
		}
		goneAfter = time.Since(due)
		gone.Store(true)
	}()
	for i := 0; !gone.Load() && len(took) < cap(took); i++ {
		start := time.Now()
		if err := l.pair(context.Background(), keys[i%len(keys)]); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))

		// What the scheduler and the collector do to a lock that has nothing to end.
		start = time.Now()
		moby.Lock(keys[i%len(keys)])
		if err := moby.Unlock(keys[i%len(keys)]); err != nil {
			return nil, err
		}
		mobyWorst = max(mobyWorst, time.Since(start))
	}
	if !gone.Load() {
		return nil, fmt.Errorf("after %s some leases had not ended", time.Since(due).Round(time.Second))
	}
	slices.Sort(took)
	longest := took[len(took)-1]
	return Sample{
		"all gone": float64(goneAfter.Nanoseconds()),
		throughput: float64(a.N) / goneAfter.Seconds(),
		worst:      float64(longest),
		worstMoby:  float64(mobyWorst),
		excess:     float64(longest - 2*mobyWorst),
		p999:       float64(quantile(took, 0.999)),
	}, nil
}

// evenly measures how late leases end. One of 97 has a goroutine that waits for its end, as
// a user's would, so that the time of waking it counts too.
func evenly(c *childState, a Herd) (any, error) {
	l, err := c.open()
	if err != nil {
		return nil, err
	}
	const every = 97
	lead, err := begin(l, a.N)
	if err != nil {
		return nil, err
	}
	var (
		wg   sync.WaitGroup
		late = make([]time.Duration, (a.N+every-1)/every)
		i    = 0
	)
	spread := time.Duration(a.SpreadMillis) * time.Millisecond
	err = c.fill(a.N, func(key string) (any, error) {
		at := lead.Add(spread * time.Duration(i) / time.Duration(a.N))
		held, err := l.lease(key, time.Until(at))
		if err == nil && i%every == 0 {
			at, end, slot := l.due(held), l.ended(held), i/every
			wg.Go(func() {
				<-end
				late[slot] = time.Since(at)
			})
		}
		i++
		return held, err
	})
	if err != nil {
		return nil, err
	}
	runtime.GC()
	if time.Now().After(lead) {
		return nil, errSlow
	}
	wg.Wait()
	slices.Sort(late)
	early := 0
	for _, d := range late {
		if d < 0 {
			early++
		}
	}
	return Sample{
		"lateness p50": float64(quantile(late, 0.5)),
		"lateness p99": float64(quantile(late, 0.99)),
		"ended early":  float64(early),
	}, nil
}

// beIdle prepares a process that then has nothing to do; the parent watches it.
func beIdle(c *childState, a Many) (any, error) {
	if c.order.Locks != "" {
		l, err := c.open()
		if err != nil {
			return nil, err
		}
		if l.pair != nil { // it was in use before
			if err := l.pair(context.Background(), "orders:42"); err != nil {
				return nil, err
			}
		}
		if a.N > 0 {
			take := func(key string) (any, error) { return l.lease(key, time.Hour) }
			if a.Session {
				take = l.hold
			}
			if err := c.fill(a.N, take); err != nil {
				return nil, err
			}
		}
	}
	runtime.GC()
	time.Sleep(300 * time.Millisecond) // what the collection leaves to do in the background
	return os.Getpid(), nil
}
