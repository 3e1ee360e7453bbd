package proof

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"maps"
	"math/rand/v2"
	"net"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/redis/rueidis"
)

var maxclients = flag.Duration("maxclients", 3*time.Second, "how long the server of TestMaxclients has no connection left")

// A server that is at maxclients says so unasked, and closes the connection. The process survives it,
// also where the ctx of a call ends between the dial and the first command. 90 seconds of it:
//
//	go test ./internal/proof -run TestMaxclients -maxclients 90s
func TestMaxclients(t *testing.T) {
	srv := redistest.Start(t)
	l, err := redis.New(t.Context(), redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	admin, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{srv.Addr()}, ForceSingleClient: true, DisableCache: true, PipelineMultiplex: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	do := func(args ...string) rueidis.RedisResult {
		t.Helper()
		r := admin.Do(t.Context(), admin.B().Arbitrary(args...).Build())
		if err := r.Error(); err != nil {
			t.Fatal(err)
		}
		return r
	}
	do("CONFIG", "SET", "maxclients", "1")
	do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

	end := time.Now().Add(*maxclients)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for time.Now().Before(end) {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.Int64N(int64(5*time.Millisecond))))
				if lease, err := l.TryLock(ctx, "k"+strconv.Itoa(i)); err == nil {
					_ = lease.Unlock(ctx)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	info, _ := do("INFO", "stats").ToString()
	_, info, _ = strings.Cut(info, "rejected_connections:")
	info, _, _ = strings.Cut(info, "\r\n")
	refused, _ := strconv.Atoi(info)
	t.Logf("%d connections were refused", refused)
	if refused < 10 {
		t.Error("too few for this test to say anything")
	}
	if most := 30 + 10*maxclients.Seconds(); float64(refused) > most {
		t.Errorf("more than the %v that a pause between them allows", most)
	}

	do("CONFIG", "SET", "maxclients", "1000")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	lease, err := l.Lock(ctx, "k")
	if err != nil {
		t.Fatalf("after the server accepts connections again: %v", err)
	}
	if err := lease.Unlock(ctx); err != nil {
		t.Error(err)
	}
}

// Where each dial fails, or each login, there are pauses between them, however many callers there are. They
// are told what the server said last, and that nothing was sent.
func TestDialsArePaced(t *testing.T) {
	for name, fails := range map[string]struct {
		begin, end func(*testing.T, *redistest.Server, rueidis.Client)
		says       string
	}{
		"the password has changed": {
			func(t *testing.T, _ *redistest.Server, admin rueidis.Client) {
				for _, args := range [][]string{{"CONFIG", "SET", "requirepass", "another"}, {"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"}} {
					if err := admin.Do(t.Context(), admin.B().Arbitrary(args...).Build()).Error(); err != nil {
						t.Fatal(err)
					}
				}
			},
			func(t *testing.T, _ *redistest.Server, admin rueidis.Client) {
				if err := admin.Do(t.Context(), admin.B().Arbitrary("CONFIG", "SET", "requirepass", "").Build()).Error(); err != nil {
					t.Fatal(err)
				}
			}, "NOAUTH"},
		"nobody listens": {
			func(t *testing.T, srv *redistest.Server, _ rueidis.Client) { srv.Kill(t) },
			func(t *testing.T, srv *redistest.Server, _ rueidis.Client) { srv.Restart(t) },
			"connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := redistest.Start(t)
			admin, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{srv.Addr()}, ForceSingleClient: true, DisableCache: true, PipelineMultiplex: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer admin.Close()
			var dials atomic.Int64
			l, err := redis.New(t.Context(), redis.Config{Addrs: []string{srv.Addr()}, ClientOption: func(opt *rueidis.ClientOption) {
				opt.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
					dials.Add(1)
					return d.DialContext(ctx, "tcp", addr)
				}
			}}, locker.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close(context.Background())
			fails.begin(t, srv, admin)
			before := dials.Load()
			const during = 2 * time.Second
			end := time.Now().Add(during)
			var calls, unsaid atomic.Int64
			var other atomic.Value
			var wg sync.WaitGroup
			for i := range 64 {
				wg.Go(func() {
					for first := true; time.Now().Before(end); first = false {
						_, err := l.TryLock(t.Context(), "k"+strconv.Itoa(i))
						calls.Add(1)
						if err == nil {
							t.Error("TryLock succeeded")
						} else if !first && !strings.Contains(err.Error(), fails.says) {
							unsaid.Add(1) // as what met the connection while it broke
							other.Store(err.Error())
						}
						time.Sleep(5 * time.Millisecond)
					}
				})
			}
			wg.Wait()
			n := dials.Load() - before
			t.Logf("%d calls, %d dials; %d calls did not tell %q, such as %v", calls.Load(), n, unsaid.Load(), fails.says, other.Load())
			if n < 3 || n > 60 {
				t.Errorf("%d dials in %v", n, during)
			}
			if unsaid.Load() > calls.Load()/10 {
				t.Error("too many calls did not tell what the server says")
			}
			fails.end(t, srv, admin)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			lease, err := l.Lock(ctx, "k")
			if err != nil {
				t.Fatalf("afterwards: %v", err)
			}
			if err := lease.Unlock(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

var hang = flag.Duration("hang", 3500*time.Millisecond, "how long the server of TestHang hangs; internal timeouts are 1s, or the defaults from 10s on")

// The server hangs for longer than every timeout of the connection, with 3,000 callers side by side: each
// call ends with its own ctx (FLT-005), and what is left behind is bounded. By hand, with the defaults:
//
//	go test ./internal/proof -run TestHang -hang 10s
func TestHang(t *testing.T) {
	const (
		callers = 3000 / (raceFactor * raceFactor)
		held    = 1000
		limit   = 100 * time.Millisecond              // of each call
		late    = 100 * time.Millisecond * raceFactor // after which it is too late
		pause   = 300 * time.Millisecond              // between the calls of a caller
	)
	srv := redistest.Start(t)
	conf := redis.Config{Addrs: []string{srv.Addr()}, Timeout: time.Second, DialTimeout: time.Second}
	if *hang >= 10*time.Second {
		conf.Timeout, conf.DialTimeout = 0, 0
	}
	var dials atomic.Int64
	conf.ClientOption = func(opt *rueidis.ClientOption) {
		opt.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			dials.Add(1)
			return d.DialContext(ctx, "tcp", addr)
		}
	}
	l, err := redis.New(t.Context(), conf, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	leases := make([]*locker.Lease, held)
	for i := range leases {
		if leases[i], err = l.TryLock(t.Context(), "held"+strconv.Itoa(i), locker.WithTTL(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	freed, err := l.TryLock(t.Context(), "freed", locker.WithTTL(time.Hour))
	if err != nil {
		t.Fatal(err)
	}

	calls := map[string]func(ctx context.Context, i int) error{
		"TryLock": func(ctx context.Context, i int) error {
			_, err := l.TryLock(ctx, "k"+strconv.Itoa(i), locker.WithTTL(time.Minute))
			return err
		},
		"TryLock of a session": func(ctx context.Context, i int) error {
			_, err := l.TryLock(ctx, "held"+strconv.Itoa(i%held), locker.WithSession())
			return err
		},
		"Lock": func(ctx context.Context, i int) error {
			_, err := l.Lock(ctx, "held"+strconv.Itoa(i%held), locker.WithTTL(time.Minute))
			return err
		},
		"Extend":  func(ctx context.Context, i int) error { return leases[i%held].Extend(ctx, time.Hour) },
		"Inspect": func(ctx context.Context, i int) error { _, _, err := l.Inspect(ctx, "k"); return err },
		"Ping":    func(ctx context.Context, i int) error { return l.Ping(ctx) },
	}
	names := slices.Sorted(maps.Keys(calls))
	var mu sync.Mutex
	worst := make(map[string]time.Duration)
	count := make(map[string]int)
	note := func(name string, elapsed time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		worst[name] = max(worst[name], elapsed)
		count[name]++
	}

	before := runtime.NumGoroutine()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			name := names[i%len(names)]
			for {
				select {
				case <-stop:
					return
				case <-time.After(rand.N(2 * pause)): // otherwise they are late for want of a processor
				}
				// Ends that come all at once would measure the scheduler.
				limit := limit/2 + rand.N(limit)
				began := time.Now()
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				ended := make(chan time.Time, 1)
				forget := context.AfterFunc(ctx, func() { ended <- time.Now() })
				err := calls[name](ctx, i)
				if d := time.Since(began) - limit; d > late && !forget() {
					note(name, time.Since(<-ended)) // on a machine that is busy its end is late itself
				} else {
					note(name, d)
				}
				forget()
				cancel()
				if err != nil && !errors.Is(err, locker.ErrUnavailable) && !errors.Is(err, locker.ErrHeld) && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	// Callers whose ctx never ends see no end of another's.
	for range 20 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(rand.N(pause)):
				}
				if _, _, err := l.Inspect(context.Background(), "k"); errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
					t.Errorf("with a ctx without an end: %v", err)
				}
			}
		})
	}
	// A machine that stands still makes everything late: so late is a timer that is nobody's.
	var stood latest
	most, served, stacks := 0, 0, ""
	wg.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := 1; ; i++ {
			began := time.Now()
			select {
			case <-stop:
				return
			case <-tick.C:
				stood.note(time.Since(began) - 10*time.Millisecond)
				if i%50 == 0 {
					began := time.Now()
					n, serving, by := goroutinesBeside("proof.TestHang")
					if n > most {
						most, stacks = n, by
					}
					served = max(served, serving)
					stood.note(time.Since(began)) // nor is this for nothing
				}
			}
		}
	})

	time.Sleep(4 * pause)
	dialled := dials.Load()
	srv.Pause(t)
	opening := make(chan time.Duration)
	go func() {
		var worst time.Duration
		for range 5 {
			began := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			if other, err := redis.New(ctx, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{}); err == nil {
				_ = other.Close(ctx)
			}
			cancel()
			worst = max(worst, time.Since(began)-limit)
		}
		opening <- worst
	}()
	time.Sleep(*hang)
	if d := <-opening; d > late+stood.most() {
		t.Errorf("Open: %v late", d)
	}

	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), limit) // one that has ended before would not bound it
	if err := freed.Unlock(ctx); err == nil {
		t.Error("Unlock succeeded without a server")
	}
	cancel()
	if d := time.Since(began); d > limit+late+stood.most() {
		t.Errorf("Unlock with %v took %v", limit, d)
	}
	close(stop)
	wg.Wait()
	dialled = dials.Load() - dialled

	began = time.Now()
	ctx, cancel = context.WithTimeout(context.Background(), time.Second)
	err = l.Close(ctx)
	cancel()
	if d := time.Since(began); d > time.Second+late+stood.most() {
		t.Errorf("Close with 1s and %d holds took %v", held, d)
	}
	if err == nil {
		t.Error("Close succeeded without a server")
	}
	t.Logf("Close took %v", time.Since(began))
	srv.Resume(t)

	t.Logf("the machine was up to %v late", stood.most())
	for _, name := range names {
		t.Logf("%-22s %8d calls, at most %v late", name, count[name], worst[name])
		if worst[name] > late+stood.most() {
			t.Errorf("%s: %v late", name, worst[name])
		}
	}
	t.Logf("%d goroutines beside the callers, %d before there were any; %d dials", most, before, dialled)
	if most-before > 50 {
		t.Errorf("%d goroutines more than callers, which are\n%s", most-before, stacks)
	}
	if waiting := (callers + len(names) - 1) / len(names); served > waiting {
		t.Errorf("%d goroutines make the attempts of at most %d calls of Lock", served, waiting)
	}
	if dialled > 10*int64(*hang/time.Second) {
		t.Errorf("%d dials", dialled)
	}
}

// One master of a Cluster hangs: what becomes of holds on the others is heard as soon as ever (LOSS-003).
func TestLossBesideHungMaster(t *testing.T) {
	const (
		leases  = 300
		timeout = time.Second
		prompt  = 500 * time.Millisecond * raceFactor
	)
	cluster := redistest.StartCluster(t)
	// The client's part of each connection to the first master is known to be broken after that.
	silence := time.Second + 2*timeout
	l, err := redis.New(t.Context(), redis.Config{Addrs: cluster.Addrs(), Timeout: timeout, DialTimeout: timeout}, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	var others []*locker.Lease
	for i := range leases {
		lease, err := l.TryLock(t.Context(), "k"+strconv.Itoa(i), locker.WithTTL(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if len(others) < 30 && cluster.NodeOf(t, "lockstep:0:{:"+lease.Key()+"}") == cluster.Nodes[2] {
			others = append(others, lease)
		}
	}
	cluster.Nodes[0].Pause(t)
	defer cluster.Nodes[0].Resume(t)
	time.Sleep(silence)
	var worst time.Duration
	for _, lease := range others {
		time.Sleep(timeout / 20) // at all times of an attempt at the first master
		began := time.Now()
		cluster.Nodes[2].Do(t, "DEL", "lockstep:0:{:"+lease.Key()+"}")
		select {
		case <-lease.Done():
			worst = max(worst, time.Since(began))
		case <-time.After(10 * time.Second):
			t.Fatal("a deletion was not heard for 10s")
		}
	}
	t.Logf("%d deletions, heard after %v at most", len(others), worst)
	if len(others) < 10 || worst > prompt {
		t.Errorf("%d deletions, heard after %v at most; want at least 10, and %v", len(others), worst, prompt)
	}
}

// One master of a Cluster hangs for longer than every timeout: calls for its keys end with their ctx, the
// others' keys are served as before, and what is left behind is bounded (FLT-005).
func TestHangCluster(t *testing.T) {
	const (
		callers = 600 / raceFactor
		limit   = 100 * time.Millisecond
		late    = 100 * time.Millisecond * raceFactor
		// What may wait for a master: its lanes' direct commands and workers, with what rueidis
		// leaves behind of each (backends/redis/seam.go). It does not grow with the callers.
		bound = 6 * (16 + 48 + 2*4)
	)
	cluster := redistest.StartCluster(t)
	l, err := redis.New(t.Context(), redis.Config{Addrs: cluster.Addrs(), Timeout: time.Second, DialTimeout: time.Second}, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	pair := func(i int, limit time.Duration) (took time.Duration, err error) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		lease, err := l.TryLock(ctx, "k"+strconv.Itoa(i), locker.WithTTL(time.Minute))
		if err == nil {
			err = lease.Unlock(ctx)
		}
		return time.Since(began), err
	}
	for i := range callers { // the connections are there
		if _, err := pair(i, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	before, _, _ := goroutinesBeside("proof.TestHangCluster")
	cluster.Nodes[0].Pause(t)
	var wg sync.WaitGroup
	var worst, stood latest
	var served, failed atomic.Int64
	end := time.Now().Add(*hang)
	for i := range callers {
		wg.Go(func() {
			for {
				time.Sleep(rand.N(300 * time.Millisecond)) // otherwise they are late for want of a processor
				if !time.Now().Before(end) {
					return
				}
				took, err := pair(i, limit)
				worst.note(took - limit)
				switch {
				case err == nil:
					served.Add(1)
				case errors.Is(err, locker.ErrUnavailable), errors.Is(err, locker.ErrHeld), errors.Is(err, context.DeadlineExceeded):
					failed.Add(1)
				default:
					t.Errorf("%v", err)
				}
			}
		})
	}
	most, stacks := 0, ""
	for time.Now().Before(end) {
		began := time.Now()
		time.Sleep(10 * time.Millisecond)
		stood.note(time.Since(began) - 10*time.Millisecond)
		if n, _, by := goroutinesBeside("proof.TestHangCluster"); n > most {
			most, stacks = n, by
		}
	}
	wg.Wait()
	cluster.Nodes[0].Resume(t)
	t.Logf("%d pairs, and %d calls that ended with their ctx; at most %v late, the machine %v; %d goroutines, %d before", served.Load(), failed.Load(), worst.most(), stood.most(), most, before)
	if served.Load() == 0 || failed.Load() == 0 {
		t.Error("too few for this test to say anything")
	}
	if worst.most() > late+stood.most() {
		t.Errorf("%v late", worst.most())
	}
	if most-before > bound {
		t.Errorf("%d goroutines more than callers, which are\n%s", most-before, stacks)
	}
}

// All nodes of a Cluster answer late, as from afar: what asks each of them waits for that.
func TestClusterFromAfar(t *testing.T) {
	cluster := redistest.StartCluster(t)
	proxies := map[string]*redistest.Proxy{}
	for _, addr := range cluster.Addrs() {
		proxies[addr] = redistest.NewProxy(t, addr)
	}
	l, err := redis.New(t.Context(), redis.Config{Addrs: cluster.Addrs(), ClientOption: func(opt *rueidis.ClientOption) {
		opt.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", proxies[addr].Addr())
		}
	}}, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	if _, err := l.TryLock(t.Context(), "held", locker.WithTTL(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, p := range proxies {
		p.Latency(0, 400*time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := l.Ping(ctx); err != nil {
		t.Error(err)
	}
	found := 0
	for _, err := range l.List(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		found++
	}
	if found != 1 {
		t.Errorf("List told %d locks of one", found)
	}
}

// goroutinesBeside counts the goroutines that function does not run in, nor waits to be told of the end of a
// ctx: that is one for a moment for each. It also returns their stacks. serving are those of the core that make
// the attempts of a Lock in the place of its caller; they are not among the n.
func goroutinesBeside(function string) (n, serving int, stacks string) {
	var dump strings.Builder // not runtime.Stack, which stops the world for as long as it takes
	_ = pprof.Lookup("goroutine").WriteTo(&dump, 1)
	for _, group := range strings.Split(dump.String(), "\n\n") {
		if strings.Contains(group, function) || strings.Contains(group, "context.WithDeadlineCause") {
			continue
		}
		var count int
		if i := strings.Index(group, " @"); i > 0 {
			count, _ = strconv.Atoi(group[strings.LastIndexByte(group[:i], '\n')+1 : i])
		}
		if strings.Contains(group, "locker.(*queues).serve") {
			serving += count
			continue
		}
		n += count
		stacks += group + "\n"
	}
	return n, serving, stacks
}

var masterless = flag.Duration("masterless", 6*time.Second, "how long the Sentinels of TestNoMaster have no master")

// While Sentinels find no master, what is done about it is bounded; afterwards the locks are back. For longer:
//
//	go test ./internal/proof -run TestNoMaster -masterless 60s
func TestNoMaster(t *testing.T) {
	set := redistest.StartSentinel(t)
	l, err := redis.New(t.Context(), redis.Config{Addrs: set.Addrs(), MasterSet: set.MasterSet, Timeout: time.Second, DialTimeout: time.Second}, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	connections := func() (n int) {
		for _, s := range set.Sentinels {
			c, _ := strconv.Atoi(s.Info(t, "stats")["total_connections_received"])
			n += c
		}
		return n
	}
	lease, err := l.TryLock(t.Context(), "k", locker.WithTTL(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if err := lease.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	connected, before := connections(), runtime.NumGoroutine()
	for _, s := range set.Data {
		s.Kill(t)
	}
	var most int
	for end := time.Now().Add(*masterless); time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := l.TryLock(ctx, "k", locker.WithTTL(time.Minute))
		cancel()
		if err == nil {
			t.Fatal("TryLock succeeded without a master")
		}
		most = max(most, runtime.NumGoroutine()-before)
		time.Sleep(10 * time.Millisecond)
	}
	perSecond := float64(connections()-connected) / masterless.Seconds()
	t.Logf("at most %d goroutines more; %.1f connections to Sentinels a second", most, perSecond)
	if most > 50 {
		t.Errorf("%d goroutines more", most)
	}
	if perSecond > 20 {
		t.Errorf("%.1f connections to Sentinels a second", perSecond)
	}
	for _, s := range set.Data {
		s.Restart(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := l.Lock(ctx, "k", locker.WithTTL(time.Minute)); err != nil {
		t.Errorf("with a master again: %v", err)
	}
}

// latest is the greatest of the durations that several goroutines note.
type latest struct{ ns atomic.Int64 }

func (l *latest) note(d time.Duration) {
	for {
		was := l.ns.Load()
		if int64(d) <= was || l.ns.CompareAndSwap(was, int64(d)) {
			return
		}
	}
}

func (l *latest) most() time.Duration { return time.Duration(l.ns.Load()) }

// A List connects anew, while callers far away keep the other connection busy at all times: there is
// never a moment at which none of them waits for an answer.
func TestListFromAfar(t *testing.T) {
	srv := redistest.Start(t)
	proxy := redistest.NewProxy(t, srv.Addr())
	proxy.Latency(30*time.Millisecond, 30*time.Millisecond)
	l, err := redis.New(t.Context(), redis.Config{Addrs: []string{proxy.Addr()}}, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	if _, err := l.TryLock(t.Context(), "held", locker.WithTTL(time.Hour)); err != nil {
		t.Fatal(err)
	}

	stop := make(chan struct{})
	var busy sync.WaitGroup
	defer busy.Wait()
	defer close(stop)
	for i := range 8 {
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if lease, err := l.TryLock(context.Background(), "busy"+strconv.Itoa(i), locker.WithTTL(time.Minute)); err != nil {
					t.Error(err)
				} else if err := lease.Unlock(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 5 {
		found := 0
		for _, err := range l.List(t.Context(), "held") {
			if err != nil {
				t.Fatal(err)
			}
			found++
		}
		if found != 1 {
			t.Errorf("List told %d locks of one", found)
		}
	}
}
