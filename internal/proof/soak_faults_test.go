package proof

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/conformance"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// The faults that a soak injects.
const (
	faultLatency     = "latency"
	faultBlackHole   = "black hole"
	faultReset       = "reset"
	faultLostReply   = "lost reply"
	faultLostRequest = "lost request"
	faultCut         = "cut"
	faultPause       = "pause"
	faultKill        = "CLIENT KILL"
	faultDelete      = "DEL"
	faultForeign     = "another type"
	faultOOM         = "OOM"
	faultNoReplicas  = "NOREPLICAS"
	faultReadonly    = "READONLY"
	faultTerminate   = "terminated connections"
	faultCancel      = "cancelled statements"
	faultRestart     = "restart"
	faultRowLock     = "row locks"
	faultPromotion   = "promoted standbys"
	faultFull        = "full disk"
)

var faultNames = []string{faultLatency, faultBlackHole, faultReset, faultLostReply, faultLostRequest, faultCut, faultPause, faultKill, faultDelete, faultForeign, faultOOM, faultNoReplicas, faultReadonly,
	faultTerminate, faultCancel, faultRestart, faultRowLock, faultPromotion, faultFull}

// A lane is a Redis and the networks that lead to it, one for each client, so that one may
// be cut off while others go on.
type lane struct {
	s       *soak
	polling bool         // its clients hear of no changes
	calm    sync.RWMutex // held while the server refuses writes, the administrator's too
	srv     *redistest.Server
	admin   rueidis.Client
	proxies [3]*redistest.Proxy
}

func newLane(s *soak, polling bool) *lane {
	l := &lane{s: s, polling: polling, srv: redistest.Start(s.t)}
	l.admin = adminClient(s.t, l.srv.ClientOption())
	for i := range l.proxies {
		l.proxies[i] = redistest.NewProxy(s.t, l.srv.Addr())
	}
	return l
}

// target is a target whose faults begin when its first client is open, and end with t.
//
// Its times are short against the faults, so that many a session is lost and many a call
// ends in doubt, and the latency is below its timeout, so that not all of them do.
func (l *lane) target(t *testing.T) *conformance.Target {
	c := redis.Config{
		Prefix: fmt.Sprintf("soak-%x-%d", processID, targets.Add(1)), Validity: 600 * time.Millisecond,
		Timeout: 400 * time.Millisecond, DialTimeout: 400 * time.Millisecond,
	}
	c.ClientName = c.Prefix
	if l.polling {
		c.Tracking = redis.TrackingOff
	}
	var mu sync.Mutex
	opened := 0
	open := func(tb testing.TB) driver.Backend {
		mu.Lock()
		c := c
		c.Addrs = []string{l.proxies[opened%len(l.proxies)].Addr()}
		opened++
		mu.Unlock()
		for began := time.Now(); ; {
			b, err := redis.Open(context.Background(), c)
			if err == nil {
				return b
			}
			if time.Since(began) > 20*time.Second { // no fault lasts so long
				tb.Fatalf("opening Redis: %v", err)
			}
		}
	}
	target := &conformance.Target{Backend: open(t), Peer: open, Delete: func(tb testing.TB, key string) {
		l.calm.RLock()
		defer l.calm.RUnlock()
		if err := l.remove(lockKey(c.Prefix, key)); err != nil {
			tb.Fatal(err)
		}
	}}
	var opens []func() (*locker.Locker, error)
	for _, p := range l.proxies {
		own := c
		own.Addrs = []string{p.Addr()}
		opens = append(opens, func() (*locker.Locker, error) {
			return patiently(func() (*locker.Locker, error) { return redis.New(context.Background(), own, locker.Config{}) })
		})
	}
	t.Cleanup(l.s.believers(fmt.Sprint("believed ", c.Prefix), opens))
	t.Cleanup(l.trouble(c.ClientName)) // ends first
	return target
}

// remove deletes a lock as an administrator would, or puts something else in its place before.
func (l *lane) remove(lock string) error {
	ctx := context.Background()
	if rand.IntN(3) == 0 {
		l.s.fault(faultForeign)
		other := fmt.Sprint("other-", rand.Uint64())
		for _, cmd := range [][]string{{"HSET", other, "a", "b"}, {"RENAME", other, lock}} {
			if err := l.admin.Do(ctx, l.admin.B().Arbitrary(cmd...).Build()).Error(); err != nil {
				return fmt.Errorf("%s: %w", cmd[0], err)
			}
		}
		time.Sleep(rand.N(20 * time.Millisecond)) // so long it stands there
	} else {
		l.s.fault(faultDelete)
	}
	if err := l.admin.Do(ctx, l.admin.B().Del().Key(lock).Build()).Error(); err != nil {
		return fmt.Errorf("DEL: %w", err)
	}
	return nil
}

// trouble injects faults until it is stopped.
func (l *lane) trouble(clientName string) (stop func()) {
	var networks []network
	for _, p := range l.proxies {
		networks = append(networks, p)
	}
	return l.s.trouble(networks, "EVALSHA", func(tr *trouble, r *rand.Rand) { l.server(tr, clientName, r) })
}

// network is what can be done to the connections of one client.
type network interface {
	Latency(up, down time.Duration)
	BlackHole(up, down bool)
	Reset()
	LoseReplies(n int, match string)
	LoseRequests(n int, match string)
	Lost() int
	Cut()
	Heal()
}

// trouble injects faults into networks, where requests contain match, and has server make its
// own, until it is stopped, and then heals everything.
func (s *soak) trouble(networks []network, match string, server func(*trouble, *rand.Rand)) (stop func()) {
	tr := &trouble{s: s, over: make(chan struct{})}
	seed := rand.Uint64() // what a fault meets is a matter of luck in any case
	for i, n := range networks {
		tr.run(seed+uint64(i), func(r *rand.Rand) { tr.network(n, match, r) })
	}
	tr.run(seed+uint64(len(networks)), func(r *rand.Rand) { server(tr, r) })
	return func() { close(tr.over); tr.wg.Wait() }
}

type trouble struct {
	s    *soak
	over chan struct{}
	wg   sync.WaitGroup
}

func (tr *trouble) run(seed uint64, fn func(*rand.Rand)) {
	tr.wg.Add(1)
	go func() {
		defer tr.wg.Done()
		fn(rand.New(rand.NewPCG(seed, 0)))
	}()
}

// goOn waits for a time between the two, and says whether to go on.
func (tr *trouble) goOn(r *rand.Rand, least, most time.Duration) bool {
	timer := time.NewTimer(least + rand.N(most-least))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-tr.over:
		return false
	}
}

// network is the trouble of one client's network.
func (tr *trouble) network(p network, match string, r *rand.Rand) {
	defer p.Heal()
	const ms = time.Millisecond
	for tr.goOn(r, 50*ms, 500*ms) {
		switch r.IntN(10) {
		case 0, 1, 2, 3:
			tr.s.fault(faultLatency)
			p.Latency(time.Duration(r.IntN(100))*ms, time.Duration(r.IntN(250))*ms)
			tr.goOn(r, 100*ms, 1000*ms)
		case 4, 5:
			tr.s.fault(faultBlackHole)
			way := r.IntN(3)
			p.BlackHole(way != 0, way != 1)
			tr.goOn(r, 100*ms, 1200*ms)
		case 6:
			tr.s.fault(faultReset)
			p.Reset()
		case 7, 8:
			before, name := p.Lost(), faultLostReply
			if r.IntN(2) == 0 {
				p.LoseReplies(1+r.IntN(3), match)
			} else {
				name = faultLostRequest
				p.LoseRequests(1+r.IntN(3), match)
			}
			tr.goOn(r, 100*ms, 500*ms)
			for range p.Lost() - before {
				tr.s.fault(name)
			}
		case 9:
			tr.s.fault(faultCut)
			p.Cut()
			tr.goOn(r, 50*ms, 500*ms)
		}
		p.Heal()
	}
}

// server is the trouble of the server, which is everybody's.
func (l *lane) server(tr *trouble, clientName string, r *rand.Rand) {
	const ms = time.Millisecond
	for tr.goOn(r, 300*ms, 2000*ms) {
		switch r.IntN(5) {
		case 0, 1:
			tr.s.fault(faultPause)
			l.srv.Pause(tr.s.t)
			tr.goOn(r, 100*ms, 700*ms)
			l.srv.Resume(tr.s.t)
		case 2:
			l.refuse(tr, r)
		default:
			tr.s.fault(faultKill)
			l.killClients(clientName)
		}
	}
}

// refuse has the server refuse writes for a while, in one of the ways that it has.
func (l *lane) refuse(tr *trouble, r *rand.Rand) {
	ways := []struct {
		name    string
		on, off []string
	}{
		{faultOOM, []string{"CONFIG", "SET", "maxmemory", "1"}, []string{"CONFIG", "SET", "maxmemory", "0"}},
		{faultNoReplicas, []string{"CONFIG", "SET", "min-replicas-to-write", "1"}, []string{"CONFIG", "SET", "min-replicas-to-write", "0"}},
		{faultReadonly, []string{"REPLICAOF", "127.0.0.1", "1"}, []string{"REPLICAOF", "NO", "ONE"}},
	}
	way := ways[r.IntN(len(ways))]
	l.calm.Lock()
	defer l.calm.Unlock()
	do := func(cmd []string) {
		if err := l.admin.Do(context.Background(), l.admin.B().Arbitrary(cmd...).Build()).Error(); err != nil {
			tr.s.t.Errorf("%s: %v", way.name, err)
		}
	}
	tr.s.fault(way.name)
	do(way.on)
	tr.goOn(r, 50*time.Millisecond, 700*time.Millisecond)
	do(way.off)
}

// killClients closes the connections of the clients of that name, and not the administrator's.
func (l *lane) killClients(name string) {
	ctx := context.Background()
	list, err := l.admin.Do(ctx, l.admin.B().Arbitrary("CLIENT", "LIST").Build()).ToString()
	if err != nil {
		l.s.t.Errorf("CLIENT LIST: %v", err)
	}
	for line := range strings.Lines(list) {
		id, _, _ := strings.Cut(strings.TrimPrefix(line, "id="), " ")
		if strings.Contains(line, " name="+name+" ") {
			// It may have gone by itself meanwhile.
			_ = l.admin.Do(ctx, l.admin.B().Arbitrary("CLIENT", "KILL", "ID", id).Build())
		}
	}
}
