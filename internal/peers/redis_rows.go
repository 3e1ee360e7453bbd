package peers

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/redis/rueidis"
)

// redisScenarios are the rows of the Redis table. Each starts a Redis of its own.
func redisScenarios() []Scenario {
	everybody := []string{redsyncRueidis, bsmRedislock, rawRueidislock, redsyncGoRedis}
	return []Scenario{{
		Name:  "lease Lock + Unlock, 1 goroutine, token minted; client and server on one core",
		Goals: []Goal{redisGoal(AtMost(1.15, p50, floor)), redisGoal(AtMost(1, p50, everybody...))},
		Subjects: onOneServer(pinned, "latency", Pairs{Workers: 1, Millis: 150},
			lockstepRedis, floor, floorPipelined, redsyncRueidis, bsmRedislock, rawRueidislock, redsyncGoRedis),
		Note: "The floor mints no token. On one core a pair takes the CPU time of client and server together, with little noise. rueidis by default writes and reads in the caller's goroutine as long as there is one caller; “always pipelining” is the floor with a goroutine for each, which Lockstep needs, because otherwise a ctx that ends breaks everybody's connection.",
	}, {
		Name:  "the same, on all cores",
		Goals: []Goal{redisGoal(AtMost(1.15, p50, floor)), redisGoal(AtMost(1, p50, everybody...))},
		Subjects: onOneServer(free, "latency", Pairs{Workers: 1, Millis: 150},
			lockstepRedis, floor, floorPipelined, redsyncRueidis, bsmRedislock, rawRueidislock, redsyncGoRedis),
	}, {
		Name: "64 goroutines, distinct keys",
		Goals: []Goal{
			redisGoal(AtLeast(0.85, throughput, floor)),
			redisGoal(AtLeast(1.4, throughput, rawRueidislock)),
			redisGoal(AtLeast(2, throughput, bsmRedislock)),
		},
		Subjects: onOneServer(free, "latency", Pairs{Workers: 64, Millis: 300},
			lockstepRedis, floor, redsyncRueidis, bsmRedislock, rawRueidislock, redsyncGoRedis),
	}, {
		Name: "one key, 64 goroutines in one process",
		Goals: []Goal{
			redisGoal(AtLeast(30, throughput, rawRueidislock)),
			redisGoal(AtMost(0.05, p99Wait, rawRueidislock)),
			redisGoal(AtMost(0.1, scriptsEach)),
			redisGoal(AtLeast(0.9, shares)),
			redisGoal(AtMost(0, stuckWaiters)),
		},
		Subjects: rush(1, 64, lockstepRedis, rawRueidislock, redsyncRueidis, bsmRedislock),
		Note:     rushNote,
	}, {
		Name: "one key, 8 processes × 8 goroutines",
		Goals: []Goal{
			redisGoal(AtLeast(10, throughput, rawRueidislock)),
			redisGoal(AtMost(0.2, p99Wait, rawRueidislock)),
			redisGoal(AtMost(0.5, scriptsEach)),
			redisGoal(AtLeast(0.8, processShares)),
			redisGoal(AtMost(0, stuckWaiters)),
		},
		Subjects: rush(8, 8, lockstepRedis, rawRueidislock, redsyncRueidis, bsmRedislock),
		Note:     rushNote + " rueidislock can lose the gate that its waiters share: then all of a process wait for a free lock until their ctx ends, and its figures are of the time before.",
	}, {
		Name: "hand-off to an idle waiter in another process",
		Goals: []Goal{
			redisGoal(AtMost(0.7, p50, rawRueidislock)),
			redisGoal(AtMost(1.4, p50, barePublish)),
		},
		Subjects: handOffs(lockstepRedis, rawRueidislock, bsmRedislock, redsyncDefault),
		Note:     "From the beginning of the unlock, or of the PUBLISH, to the moment when the other process has it.",
	},
		crashed("holder crashed, ttl 1 s", 0, 3e6),
		crashed("the same among 100 k other volatile keys", 100_000, 10e6),
		{
			Name:     "one lease Lock + Unlock: allocations",
			Goals:    []Goal{redisGoal(AtMost(12, allocations))},
			Subjects: onOneServer(free, "allocations", nil, lockstepRedis, floor, redsyncRueidis, bsmRedislock, rawRueidislock, redsyncGoRedis),
			Note:     "Of the whole client process.",
		}, {
			Name:     "10 k held leases",
			Goals:    []Goal{redisGoal(AtMost(0, "goroutines")), redisGoal(AtMost(1024, bytesEach))},
			Subjects: []Subject{holdingOnRedis(lockstepRedis, false)},
		}, {
			Name: "10 k held sessions",
			Goals: []Goal{
				redisGoal(AtMost(1.01, renewals)),
				redisGoal(AtMost(1, clientCPU, rawRueidislock)),
			},
			Subjects: []Subject{holdingOnRedis(lockstepRedis, true), holdingOnRedis(rawRueidislock, true)},
			Together: true,
			Note:     "Renewed every second, for a validity of 3 s, each subject on a Redis of its own.",
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

	rushNote = "Waits that had not ended count with what they had lasted. A waiter is stuck that has not got the key half a second after nobody else wants it. Who polls does so each millisecond."
)

// server starts a Redis: a process, if there can be one, because a container's network
// costs more than a lock.
func server(b *Bench, args ...string) *redistest.Server {
	return redistest.Start(b, redistest.Process(), redistest.Args(args...))
}

// sharedServer is one server for the subjects of a scenario.
func sharedServer() func(b *Bench) *redistest.Server {
	var srv *redistest.Server
	return func(b *Bench) *redistest.Server {
		if srv == nil {
			srv = server(b)
		}
		return srv
	}
}

const (
	free   = false
	pinned = true
)

func onOneServer(pinned bool, task string, args any, names ...string) []Subject {
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
			return func() Sample { return c.sample(task, args) }
		}}
	}, names...)
}

// rush is a crowd on one key: processes with goroutines each.
func rush(processes, goroutines int, names ...string) []Subject {
	shared := sharedServer()
	return subjects(func(name string) Subject {
		return Subject{Name: name, Open: func(b *Bench) func() Sample {
			srv := shared(b)
			children := make([]*child, processes)
			for i := range children {
				children[i] = b.child(name, srv.Addr())
			}
			round := 0
			return func() Sample {
				round++
				start := time.Now().Add(150 * time.Millisecond) // for connecting
				a := Rush{
					Key: fmt.Sprintf("rush:%s:%d", name, round), Goroutines: goroutines,
					Start: start, End: start.Add(700 * time.Millisecond), Grace: 500 * time.Millisecond,
				}
				before := scripts(b, srv)
				waits := make([]func(any), processes)
				for i, c := range children {
					waits[i] = c.start("crowd", a)
				}
				all := Rushed{Waits: make(Histogram)}
				var each []int64
				for _, wait := range waits {
					var r Rushed
					wait(&r)
					all.Counts = append(all.Counts, r.Counts...)
					all.Acquired += r.Acquired
					all.Stuck += r.Stuck
					all.Waits.merge(r.Waits)
					each = append(each, total(r.Counts))
				}
				s := Sample{
					throughput:   float64(total(all.Counts)) / a.End.Sub(a.Start).Seconds(),
					p99Wait:      all.Waits.quantile(0.99),
					shares:       smallestShare(all.Counts),
					stuckWaiters: float64(all.Stuck),
					scriptsEach:  float64(scripts(b, srv)-before) / float64(max(all.Acquired, 1)),
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

// handOffs are between two children, or by a bare PUBLISH.
func handOffs(names ...string) []Subject {
	const pause = 10 * time.Millisecond // until the waiter is idle
	shared := sharedServer()
	all := subjects(func(name string) Subject {
		return Subject{Name: name, Open: func(b *Bench) func() Sample {
			srv := shared(b)
			holder, waiter := b.child(name, srv.Addr()), b.child(name, srv.Addr())
			times := 20
			if name == redsyncDefault {
				times = 3
			}
			return func() Sample {
				var took []time.Duration
				for range times {
					keys := []string{"handoff:" + name}
					holder.do("take", Take{Keys: keys}, nil)
					wait := waiter.start("await", Await{Keys: keys, Millis: 5000})
					b.sleep(pause)
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
	return append(all, Subject{Name: barePublish, Open: func(b *Bench) func() Sample {
		srv := shared(b)
		from, to := b.child("", srv.Addr()), b.child("", srv.Addr())
		return func() Sample {
			var took []time.Duration
			for range 20 {
				wait := to.start("subscribe", nil)
				b.sleep(pause)
				var sent, got time.Time
				from.do("publish", nil, &sent)
				wait(&got)
				took = append(took, got.Sub(sent))
			}
			slices.Sort(took)
			return Sample{p50: float64(quantile(took, 0.5))}
		}
	}})
}

// crashed: a child takes some leases and is killed; another waits for them.
func crashed(name string, others int, limit float64) Scenario {
	const (
		leases   = 5
		patience = 1500 // ms, from just before the crash
	)
	shared, filled := sharedServer(), false
	return Scenario{
		Name:  name,
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
		srv := server(b)
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
