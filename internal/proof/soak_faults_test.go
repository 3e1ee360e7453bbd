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
)

var faultNames = []string{faultLatency, faultBlackHole, faultReset, faultLostReply, faultLostRequest, faultCut, faultPause, faultKill, faultDelete}

// A lane is a Redis and the networks that lead to it, one for each client, so that one may
// be cut off while others go on.
type lane struct {
	s       *soak
	srv     *redistest.Server
	admin   rueidis.Client
	proxies [3]*redistest.Proxy
}

func newLane(s *soak) *lane {
	l := &lane{s: s, srv: redistest.Start(s.t, redistest.Process())}
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
		l.s.fault(faultDelete)
		if err := l.admin.Do(context.Background(), l.admin.B().Del().Key(lockKey(c.Prefix, key)).Build()).Error(); err != nil {
			tb.Fatalf("DEL: %v", err)
		}
	}}
	t.Cleanup(l.believers(c))
	t.Cleanup(l.trouble(c.ClientName)) // ends first
	return target
}

// trouble injects faults until it is stopped, and then heals everything.
func (l *lane) trouble(clientName string) (stop func()) {
	tr := &trouble{lane: l, over: make(chan struct{})}
	seed := rand.Uint64() // what a fault meets is a matter of luck in any case
	for i, p := range l.proxies {
		tr.run(seed+uint64(i), func(r *rand.Rand) { tr.network(p, r) })
	}
	tr.run(seed+uint64(len(l.proxies)), func(r *rand.Rand) { tr.server(clientName, r) })
	return func() { close(tr.over); tr.wg.Wait() }
}

type trouble struct {
	*lane
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
func (tr *trouble) network(p *redistest.Proxy, r *rand.Rand) {
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
				p.LoseReplies(1+r.IntN(3), "EVALSHA")
			} else {
				name = faultLostRequest
				p.LoseRequests(1+r.IntN(3), "EVALSHA")
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
func (tr *trouble) server(clientName string, r *rand.Rand) {
	const ms = time.Millisecond
	for tr.goOn(r, 300*ms, 2000*ms) {
		if r.IntN(2) == 0 {
			tr.s.fault(faultPause)
			tr.srv.Pause(tr.s.t)
			tr.goOn(r, 100*ms, 700*ms)
			tr.srv.Resume(tr.s.t)
			continue
		}
		tr.s.fault(faultKill)
		tr.killClients(clientName)
	}
}

// killClients closes the connections of the clients of that name, and not the administrator's.
func (tr *trouble) killClients(name string) {
	ctx := context.Background()
	list, err := tr.admin.Do(ctx, tr.admin.B().Arbitrary("CLIENT", "LIST").Build()).ToString()
	if err != nil {
		tr.s.t.Errorf("CLIENT LIST: %v", err)
	}
	for line := range strings.Lines(list) {
		id, _, _ := strings.Cut(strings.TrimPrefix(line, "id="), " ")
		if strings.Contains(line, " name="+name+" ") {
			// It may have gone by itself meanwhile.
			_ = tr.admin.Do(ctx, tr.admin.B().Arbitrary("CLIENT", "KILL", "ID", id).Build())
		}
	}
}
