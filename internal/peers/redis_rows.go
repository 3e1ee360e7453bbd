package peers

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/redis/rueidis"
)

// redisScenarios are the rows of the Redis table. Each starts a Redis of its own.
func redisScenarios() []Scenario {
	everybody := []string{redsyncRueidis, bsmRedislock, rawRueidislock, redsyncGoRedis}
	return []Scenario{{
		Name: "lease Lock + Unlock, 1 goroutine, token minted; client and server on one core",
		Goals: []Goal{
			redisGoal(AtMost(1.2, p50, floor)),
			redisGoal(AtMost(1.05, p50, rawMinting)),
			redisGoal(AtMost(1, p50, everybody...)),
		},
		Subjects: onOneServer(pinned, Pairs{Workers: 1, Millis: 150},
			lockstepRedis, floor, floorPipelined, rawMinting, redsyncRueidis, bsmRedislock, rawRueidislock, redsyncGoRedis),
		Note: "The floor mints no token. On one core a pair takes the CPU time of client and server together, with little noise. rueidis by default writes and reads in the caller's goroutine as long as there is one caller; “always pipelining” is the floor with a goroutine for each, which Lockstep needs, because otherwise a ctx that ends breaks everybody's connection. The raw client has that, hears of changes to its locks, and its script counts a token.",
	}, {
		Name:    "the same, on all cores",
		Goals:   []Goal{redisGoal(AtMost(1.15, p50, floor)), redisGoal(AtMost(1, p50, everybody...))},
		Opening: []Column{{p50, "Lock + Unlock, p50"}},
		Subjects: onOneServer(free, Pairs{Workers: 1, Millis: 150},
			lockstepRedis, floor, floorPipelined, redsyncRueidis, bsmRedislock, rawRueidislock, redsyncGoRedis),
	}, {
		Name: "64 goroutines, distinct keys",
		Goals: []Goal{
			redisGoal(AtLeast(0.85, throughput, floor)),
			redisGoal(AtLeast(1.5, throughput, rawRueidislock)),
			redisGoal(AtLeast(2, throughput, bsmRedislock)),
		},
		Opening: []Column{{throughput, "64 goroutines, 64 keys"}, {clientEach, "client CPU per pair"}, {serverEach, "server CPU per pair"}},
		Subjects: onOneServer(free, Pairs{Workers: 64, Millis: 200},
			lockstepRedis, floor, rawMinting, redsyncRueidis, bsmRedislock, rawRueidislock, redsyncGoRedis),
	}, {
		Name: "one key, 64 goroutines in one process", Rounds: 5,
		Goals: []Goal{
			redisGoal(AtLeast(30, throughput, rawRueidislock)),
			redisGoal(AtMost(0.05, p99Wait, rawRueidislock)),
			redisGoal(AtMost(0.1, scriptsEach)),
			redisGoal(AtLeast(0.9, shares)),
			redisGoal(AtMost(0, stuckWaiters)),
		},
		Subjects: rush(sharedServer().served(), 1, 64, lockstepRedis, rawRueidislock, redsyncRueidis, bsmRedislock),
		Note:     rushNote,
	}, {
		Name: "one key, 8 processes × 8 goroutines", Rounds: 5,
		Goals: []Goal{
			redisGoal(AtLeast(10, throughput, rawRueidislock)),
			redisGoal(AtMost(0.2, p99Wait, rawRueidislock)),
			redisGoal(AtMost(0.5, scriptsEach)),
			redisGoal(AtLeast(0.8, processShares)),
			redisGoal(AtMost(0, stuckWaiters)),
		},
		Opening:  []Column{{throughput, "one key, 8 × 8 goroutines"}},
		Subjects: rush(sharedServer().served(), 8, 8, lockstepRedis, rawRueidislock, redsyncRueidis, bsmRedislock),
		Note:     rushNote + " rueidislock can lose the gate that its waiters share: then all of a process wait for a free lock until their ctx ends, and its figures are of the time before.",
	},
		manyClients(32, 3*time.Second, 4, 0.9, 250e6),
		manyClients(100, 5*time.Second, 7, 0.75, 800e6),
		{
			Name: "hand-off to an idle waiter in another process",
			Goals: []Goal{
				redisGoal(AtMost(0.7, p50, rawRueidislock)),
				redisGoal(AtMost(1.5, p50, barePublish)),
			},
			Opening:  []Column{{p50, "hand-off to another process"}},
			Subjects: redisHandOffs(lockstepRedis, rawRueidislock, bsmRedislock, redsyncDefault),
			Note:     "From the beginning of the unlock, or of the PUBLISH, to the moment when the other process has it.",
		},
		inFront("hung process in front", syscall.SIGSTOP, AtMost(300e6, nextHas), AtMost(300e6, nextCalled), AtMost(300e6, lastHas)),
		inFront("crashed process in front", syscall.SIGKILL, AtMost(5e6, nextHas), AtMost(5e6, nextCalled)),
		crashed("holder crashed, ttl 1 s", 0, 3e6),
		crashed("the same among 100 k other volatile keys", 100_000, 10e6),
		{
			Name:     "one lease Lock + Unlock: allocations, and what the server does",
			Goals:    []Goal{redisGoal(AtMost(12, allocations)), redisGoal(AtMost(5, callsEach))},
			Subjects: exactly(lockstepRedis, floor, rawMinting, redsyncRueidis, bsmRedislock, rawRueidislock, redsyncGoRedis),
			Rounds:   3, // they differ in nothing
			Note:     "Allocations of the whole client process. Calls are the commands that the server carries out (INFO commandstats), those within scripts too, but not EVALSHA itself.",
		}, {
			Name:     "10 k held leases",
			Goals:    []Goal{redisGoal(AtMost(0, "goroutines")), redisGoal(AtMost(1024, bytesEach))},
			Subjects: []Subject{holdingOnRedis(lockstepRedis, false)},
		}, {
			Name: "10 k held sessions",
			Goals: []Goal{
				redisGoal(AtMost(1.01, renewals)),
				redisGoal(AtMost(1, clientCPU, rawRueidislock)),
				redisGoal(AtMost(5000, bytesEach)),
			},
			Subjects: []Subject{holdingOnRedis(lockstepRedis, true), holdingOnRedis(rawRueidislock, true)},
			Together: true,
			Note:     "Renewed every second, for a validity of 3 s, each subject on a Redis of its own.",
		}, {
			Name:     "after 1 M keys were locked once",
			Goals:    []Goal{redisGoal(AtMost(20, serverStays))},
			Subjects: subjects(lockedOnce, lockstepRedis, rawMinting),
			Note:     "What the server's memory has grown by. 200 k keys are locked and unlocked, once, and the growth is multiplied by 5.",
		}, {
			Name: "200 ms round trip",
			Goals: []Goal{
				redisGoal(AtMost(1.05, "Lock round trips")),
				redisGoal(AtMost(1.05, "Unlock round trips")),
				redisGoal(AtMost(1.05, "Extend round trips")),
			},
			Subjects: slowly(lockstepRedis, redsyncRueidis, bsmRedislock, rawRueidislock),
			Together: true,
			Note:     "The time that an uncontended call takes, in round trips of 200 ms. The goals allow 5 % for the machine.",
		},
	}
}

// redisGoal is a goal of Lockstep's on Redis.
func redisGoal(g Goal) Goal { return g.by(lockstepRedis) }

const (
	scriptsEach   = "scripts per acquisition"
	stuckWaiters  = "stuck waiters"
	processShares = "smallest ÷ largest process"
	barePublish   = "bare PUBLISH"
	renewals      = "scripts per session and interval"
	clientCPU     = "client CPU"

	lineNote = "One waiter each. " + rushNote + " The clients are in one process, so that the machine's scheduler is not what is measured."
	rushNote = "Waits that had not ended count with what they had lasted. A waiter is stuck that has not got the key half a second after nobody else wants it. Who polls does so each millisecond."
)

// redisServer is one of a scenario, and starts when it is first asked for.
type redisServer func(b *Bench) *redistest.Server

// served is a store, for the subjects of any.
type served struct {
	addr    func(b *Bench) string
	scripts func(b *Bench) int64         // how many it has been sent; nil where that is not counted
	cpu     func(b *Bench) time.Duration // what it has used so far; nil where that is not known
	rush    time.Duration                // how long a rush lasts
}

func (s redisServer) served() served {
	return served{
		addr:    func(b *Bench) string { return s(b).Addr() },
		scripts: func(b *Bench) int64 { return scripts(b, s(b)) },
		cpu:     func(b *Bench) time.Duration { return serverCPU(b, s(b)) },
		rush:    700 * time.Millisecond,
	}
}

// sharedServer is one server for the subjects of a scenario.
func sharedServer() redisServer {
	var srv *redistest.Server
	return func(b *Bench) *redistest.Server {
		if srv == nil {
			srv = redistest.Start(b)
		}
		return srv
	}
}

const (
	free   = false
	pinned = true
)

// onOneServer is "latency", by children with the same server.
func onOneServer(pinned bool, a Pairs, names ...string) []Subject {
	shared := sharedServer()
	return subjects(func(name string) Subject {
		return Subject{Name: name, Open: func(b *Bench) func() Sample {
			srv := shared(b)
			c := b.child(name, srv.Addr())
			if pinned {
				pid, err := strconv.Atoi(srv.Info(b, "server")["process_id"])
				b.check(err)
				b.check(pin(pid))
				c.do("pin", nil, nil)
			}
			c.sample("latency", Pairs{Workers: 1, Millis: 1}) // connects, and makes the scripts known
			return func() Sample {
				before := serverCPU(b, srv)
				s := c.sample("latency", a)
				s[serverEach] = float64(serverCPU(b, srv)-before) / s[pairsDone]
				return s.without(pairsDone)
			}
		}}
	}, names...)
}

// serverCPU is the time that the server has used so far.
func serverCPU(b *Bench, srv *redistest.Server) time.Duration {
	info, sum := srv.Info(b, "cpu"), 0.0
	for _, name := range []string{"used_cpu_user", "used_cpu_sys"} {
		seconds, err := strconv.ParseFloat(info[name], 64)
		b.check(err)
		sum += seconds
	}
	return time.Duration(sum * 1e9)
}

func (s Sample) without(name string) Sample {
	delete(s, name)
	return s
}

// exactly counts what a pair costs.
func exactly(names ...string) []Subject {
	shared := sharedServer()
	return subjects(func(name string) Subject {
		return Subject{Name: name, Open: func(b *Bench) func() Sample {
			srv := shared(b)
			c := b.child(name, srv.Addr())
			return func() Sample {
				s := c.sample("allocations", nil) // connects, and makes the scripts known
				// A key that was locked before, but not in this very millisecond, is the ordinary one.
				const keys = 300
				c.do("once", Once{Keys: keys, Workers: 1}, nil)
				before := srv.CommandStats(b)
				c.do("once", Once{Keys: keys, Workers: 1}, nil)
				s[callsEach] = float64(calls(srv.CommandStats(b).Since(before))) / keys
				return s
			}
		}}
	}, names...)
}

// calls are the commands that a server was sent for locks, or that the scripts for them called.
func calls(stats redistest.Stats) (n int64) {
	for command, times := range stats {
		switch command {
		case "evalsha", "hello", "ping", "info": // the clients' connections, and those that count
		default:
			n += times
		}
	}
	return n
}

// lockedOnce is what stays of locks that nobody wants any more.
func lockedOnce(name string) Subject {
	const keys = 200_000
	return Subject{Name: name, Open: func(b *Bench) func() Sample {
		srv := redistest.Start(b)
		c := b.child(name, srv.Addr())
		c.do("once", Once{Keys: 1, Workers: 1}, nil) // connects, and makes the scripts known
		before := usedMemory(b, srv)
		c.do("once", Once{Keys: keys, Workers: 64}, nil)
		stays := Sample{serverStays: (usedMemory(b, srv) - before) * million / keys / 1e6}
		return func() Sample { return stays }
	}}
}

func usedMemory(b *Bench, srv *redistest.Server) float64 {
	n, err := strconv.ParseFloat(srv.Info(b, "memory")["used_memory"], 64)
	b.check(err)
	return n
}

// rush is a crowd on one key: processes with goroutines each.
func rush(shared served, processes, goroutines int, names ...string) []Subject {
	return rushes(shared, processes, Rush{Goroutines: goroutines}, names...)
}

// manyClients is a row of a line that lasts so long, with its goals. Shares of few turns each differ by
// chance, so that it is better to do few rounds that last.
func manyClients(clients int, lasts time.Duration, perAcquisition, share, wait float64) Scenario {
	return Scenario{
		Name: fmt.Sprintf("one key, %d processes, held for 2 ms", clients), Rounds: 3,
		Goals: []Goal{
			redisGoal(AtMost(perAcquisition, scriptsEach)),
			redisGoal(AtLeast(share, shares)),
			redisGoal(AtMost(wait, p99Wait)),
			redisGoal(AtMost(0, stuckWaiters)),
		},
		Subjects: line(sharedServer().served(), clients, lasts, lockstepRedis, rawRueidislock),
		Note:     lineNote,
	}
}

// line is a crowd of clients with one waiter each, who keep the key for a while. They are in one process
// of the machine's, which has not the processors for as many; to the server they are as many.
func line(shared served, clients int, lasts time.Duration, names ...string) []Subject {
	shared.rush = lasts
	return rushes(shared, 1, Rush{Goroutines: clients, Clients: clients, Hold: 2 * time.Millisecond}, names...)
}

func rushes(shared served, processes int, a Rush, names ...string) []Subject {
	return subjects(func(name string) Subject {
		return Subject{Name: name, Open: func(b *Bench) func() Sample {
			addr := shared.addr(b)
			children := make([]*child, processes)
			for i := range children {
				children[i] = b.child(name, addr)
			}
			round := 0
			return func() Sample {
				round++
				start := time.Now().Add(150*time.Millisecond + time.Duration(a.Clients)*5*time.Millisecond) // for connecting
				a.Key, a.Start, a.End = fmt.Sprintf("rush:%s:%d", name, round), start, start.Add(shared.rush)
				a.Grace = 500*time.Millisecond + 2*time.Duration(a.Clients)*a.Hold
				var before int64
				var cpu time.Duration
				if shared.scripts != nil {
					before = shared.scripts(b)
				}
				if shared.cpu != nil {
					cpu = shared.cpu(b)
				}
				waits := make([]func(any), processes)
				for i, c := range children {
					waits[i] = c.start("crowd", a)
				}
				var all Rushed
				var each []int64
				for _, wait := range waits {
					var r Rushed
					wait(&r)
					all.Counts = append(all.Counts, r.Counts...)
					all.Acquired += r.Acquired
					all.Stuck += r.Stuck
					all.CPU += r.CPU
					all.Waits = append(all.Waits, r.Waits...)
					each = append(each, total(r.Counts))
				}
				slices.Sort(all.Waits)
				s := Sample{
					throughput:   float64(total(all.Counts)) / a.End.Sub(a.Start).Seconds(),
					p99Wait:      float64(quantile(all.Waits, 0.99)),
					shares:       smallestShare(all.Counts),
					stuckWaiters: float64(all.Stuck),
					clientEach:   float64(all.CPU) / float64(max(all.Acquired, 1)),
				}
				if shared.scripts != nil {
					s[scriptsEach] = float64(shared.scripts(b)-before) / float64(max(all.Acquired, 1))
				}
				if shared.cpu != nil {
					s[serverEach] = float64(shared.cpu(b)-cpu) / float64(max(all.Acquired, 1))
				}
				if processes > 1 {
					s[processShares] = smallestShare(each)
				}
				return s
			}
		}}
	}, names...)
}

// scripts is how many the server has been sent.
func scripts(b *Bench, srv *redistest.Server) int64 {
	stats := srv.CommandStats(b)
	return stats["evalsha"] + stats["eval"] + stats["fcall"]
}

func redisHandOffs(names ...string) []Subject {
	shared := sharedServer().served()
	return append(handOffs(shared, names...), bareHandOff(shared, barePublish, "subscribe", "publish", nil))
}

// untilIdle is when a waiter does nothing but wait: on Postgres it has by then written that it does.
const untilIdle = 30 * time.Millisecond

// handOffs are between two children.
func handOffs(shared served, names ...string) []Subject {
	return subjects(func(name string) Subject {
		return Subject{Name: name, Open: func(b *Bench) func() Sample {
			addr := shared.addr(b)
			holder, waiter := b.child(name, addr), b.child(name, addr)
			times := 12
			if name == redsyncDefault || name == cirelloQuick {
				times = 2
			}
			return func() Sample {
				var took []time.Duration
				for range times {
					keys := []string{"handoff:" + name}
					holder.do("take", Take{Keys: keys}, nil)
					wait := waiter.start("await", Await{Keys: keys, Millis: 5000})
					b.sleep(untilIdle)
					var from, to time.Time
					holder.do("release", Take{Keys: keys}, &from)
					wait(&to)
					took = append(took, to.Sub(from))
				}
				slices.Sort(took)
				return Sample{p50: float64(quantile(took, 0.5))}
			}
		}}
	}, names...)
}

// inFront: a process holds a key and three wait for it. When the holder releases it, the first of
// them is stopped, or killed.
func inFront(name string, signal syscall.Signal, goals ...Goal) Scenario {
	const times = 2
	for i := range goals {
		goals[i] = redisGoal(goals[i])
	}
	shared := sharedServer()
	return Scenario{
		Name: name, Goals: goals, Rounds: 7,
		Subjects: subjects(func(name string) Subject {
			return Subject{Name: name, Open: func(b *Bench) func() Sample {
				addr := shared(b).Addr()
				f := &front{holder: b.child(name, addr), next: b.child(name, addr), last: b.child(name, addr)}
				f.take, f.await = Take{Keys: []string{"front:" + name}}, Await{Keys: []string{"front:" + name}, Millis: 5000}
				return func() Sample {
					s := make(Sample)
					for i := range 2 * times {
						if f.first == nil {
							f.first = b.child(name, addr)
							f.first.do("connect", nil, nil)
						}
						next, last := f.lose(b, signal, i%2 == 1)
						if i%2 == 1 {
							s[nextCalled] = max(s[nextCalled], float64(next))
						} else {
							s[nextHas] = max(s[nextHas], float64(next))
						}
						s[lastHas] = max(s[lastHas], float64(last))
					}
					return s
				}
			}}
		}, lockstepRedis, rawRueidislock, bsmRedislock),
		Note: fmt.Sprintf("From the beginning of the unlock to the moment when the second and the third process that wait have it: the worst of %d in each round, and as many of a holder that got the key when others waited for it, so that its release calls the first. The third unlocks after the second. bsm/redislock polls each millisecond, and rueidislock tells all who wait.", times),
	}
}

// front are the processes of inFront.
type front struct {
	holder, first, next, last *child
	take                      Take
	await                     Await
}

// lose loses the first, which waited also when the holder got the key if it is known.
func (f *front) lose(b *Bench, signal syscall.Signal, known bool) (next, last time.Duration) {
	wait := func(c *child, task string, args any) func(any) {
		w := c.start(task, args)
		b.sleep(untilIdle)
		return w
	}
	var first func(any)
	if known {
		f.next.do("take", f.take, nil)
		got := wait(f.holder, "take", f.take)
		first = wait(f.first, "await", f.await)
		f.next.do("release", f.take, nil)
		got(nil)
	} else {
		f.holder.do("take", f.take, nil)
		first = wait(f.first, "await", f.await)
	}
	second, third := wait(f.next, "await", f.await), wait(f.last, "await", f.await)
	b.check(f.first.cmd.Process.Signal(signal))
	if signal == syscall.SIGKILL {
		f.first.kill() // until its connection is closed
		f.first = nil
	}
	var from, nextGot, lastGot time.Time
	f.holder.do("release", f.take, &from)
	second(&nextGot)
	third(&lastGot)
	if f.first != nil {
		b.check(f.first.cmd.Process.Signal(syscall.SIGCONT))
		first(nil)
	}
	return nextGot.Sub(from), lastGot.Sub(from)
}

// bareHandOff is what the store itself takes to tell another child something.
func bareHandOff(shared served, name, hear, tell string, args any) Subject {
	return Subject{Name: name, Open: func(b *Bench) func() Sample {
		addr := shared.addr(b)
		from, to := b.child("", addr), b.child("", addr)
		return func() Sample {
			var took []time.Duration
			for range 12 {
				wait := to.start(hear, args)
				b.sleep(untilIdle)
				var sent, got time.Time
				from.do(tell, args, &sent)
				wait(&got)
				took = append(took, got.Sub(sent))
			}
			slices.Sort(took)
			return Sample{p50: float64(quantile(took, 0.5))}
		}
	}}
}

// crashed: a child takes some leases and is killed; another waits for them.
func crashed(name string, others int, limit float64) Scenario {
	const (
		leases   = 5
		patience = 1500 // ms, from just before the crash
	)
	shared, filled := sharedServer(), false
	return Scenario{
		Name: name, Rounds: 6,
		Goals: []Goal{redisGoal(AtMost(limit, "lateness"))},
		Subjects: subjects(func(name string) Subject {
			return Subject{Name: name, Open: func(b *Bench) func() Sample {
				srv := shared(b)
				if !filled {
					filled = true
					fillVolatile(b, srv, others)
				}
				l, err := openLocks(b.ctx, name, srv.Addr())
				b.check(err)
				b.Cleanup(l.close)
				waiter, round := b.child(name, srv.Addr()), 0
				return func() Sample {
					round++
					keys := make([]string, leases)
					for i := range keys {
						keys[i] = fmt.Sprintf("crash:%s:%d:%d", name, round, i)
					}
					holder := b.child(name, srv.Addr())
					holder.do("take", Take{Keys: keys, TTL: time.Second, Every: 37 * time.Millisecond}, nil)
					wait := waiter.start("awaitAll", Await{Keys: keys, Millis: patience})
					holder.kill()
					ends := expiries(b, srv, keys, l.stored)
					var got []time.Time
					wait(&got)
					var late []float64
					for i, at := range got {
						if at.IsZero() { // it waits still
							at = time.Now()
						}
						late = append(late, float64(at.Sub(ends[i])))
					}
					slices.Sort(late)
					return Sample{"lateness": median(late)}
				}
			}}
		}, lockstepRedis, rueidislock1s, redsyncRueidis, bsmRedislock),
		Together: true,
		Note:     "From the instant of the expiry (PEXPIRETIME: whole milliseconds, at the end of which the key goes). Waits are given up after about half a second, and count with that. redsync and bsm/redislock poll each millisecond.",
	}
}

func expiries(b *Bench, srv *redistest.Server, keys []string, stored func(string) string) []time.Time {
	ends := make([]time.Time, len(keys))
	for i, key := range keys {
		ms, err := srv.Do(b, "PEXPIRETIME", stored(key)).AsInt64()
		b.check(err)
		if ms < 0 {
			b.Fatalf("the lock on %s was gone before its time", key)
		}
		ends[i] = time.UnixMilli(ms)
	}
	return ends
}

// fillVolatile adds n keys that expire some day.
func fillVolatile(b *Bench, srv *redistest.Server, n int) {
	client, err := rueidis.NewClient(srv.ClientOption())
	b.check(err)
	defer client.Close()
	const batch = 1000
	for i := 0; i < n; i += batch {
		sets := make([]rueidis.Completed, batch)
		for k := range sets {
			sets[k] = client.B().Set().Key("other:" + strconv.Itoa(i+k)).Value("x").ExSeconds(int64(3600 + k)).Build()
		}
		for _, reply := range client.DoMulti(context.Background(), sets...) {
			b.check(reply.Error())
		}
	}
}

// holdingOnRedis holds ten thousand and watches what that costs, second by second.
func holdingOnRedis(name string, session bool) Subject {
	const n = 10_000
	return Subject{Name: name, Open: func(b *Bench) func() Sample {
		srv := redistest.Start(b)
		c := b.child(name, srv.Addr())
		filled := c.sample("hold", Many{N: n, Session: session})
		if !session {
			return func() Sample { return filled }
		}
		return func() Sample {
			var from, to time.Duration
			start, before := time.Now(), scripts(b, srv)
			c.do("usage", nil, &from)
			b.sleep(validity / 3)
			c.do("usage", nil, &to)
			after, took := scripts(b, srv), time.Since(start)
			intervals := took.Seconds() / (validity / 3).Seconds()
			return Sample{
				renewals:     float64(after-before) / n / intervals,
				clientCPU:    100 * (to - from).Seconds() / took.Seconds(),
				bytesEach:    filled[bytesEach],
				"goroutines": filled["goroutines"],
			}
		}
	}}
}

// slowly works over a network with a round trip of 200 ms.
func slowly(names ...string) []Subject {
	const roundTrip = 200 * time.Millisecond
	shared := sharedServer()
	return subjects(func(name string) Subject {
		return Subject{Name: name, Open: func(b *Bench) func() Sample {
			proxy := redistest.NewProxy(b, shared(b).Addr())
			c := b.child(name, proxy.Addr())
			c.sample("roundTrips", Slow{roundTrip}) // connects, and makes the scripts known
			proxy.Latency(roundTrip/2, roundTrip/2)
			return func() Sample { return c.sample("roundTrips", Slow{roundTrip}) }
		}}
	}, names...)
}
