package peers

import "time"

const million = 1_000_000

// memoryScenarios are the rows of the memory table.
func memoryScenarios() []Scenario {
	return []Scenario{{
		Name: "Lock + Unlock, one key, uncontended",
		Goals: []Goal{
			AtMost(1.4, perPair, mobyLocker).by(lockstepSession),
			AtMost(2, perPair, mobyLocker),
			AtMost(0.42, perPair, afterFuncMap),
			AtMost(1, allocations),
		},
		Opening:  []Column{{perPair, "Lock + Unlock"}, {cpuEach, "CPU per pair"}},
		Subjects: subjects(withAllocations(Pairs{Keys: 1, Workers: 1, Millis: 60}), lockstep, lockstepSession, mobyLocker, afterFuncMap),
		Note:     "Lockstep is a lease, with a ttl, unless it says session. moby/locker has no ttl, no ctx, no token and no notice of a loss: a session is the fair comparison.",
	}, {
		Name: "the same over 1 M random keys",
		Goals: []Goal{
			AtMost(1.15, perPair, mobyLocker).by(lockstepSession),
			AtMost(1.25, perPair, mobyLocker),
		},
		Subjects: subjects(task1("pairs", Pairs{Keys: million, Workers: 1, Millis: 100}), lockstep, lockstepSession, mobyLocker, afterFuncMap),
	}, {
		Name:  "the same while 1 M other leases are live",
		Goals: []Goal{AtMost(1.3, perPair, "Lockstep, empty")},
		Subjects: []Subject{
			inChild(lockstep, lockstep, "pairs", Pairs{Keys: 1, Workers: 1, Millis: 100, Live: million}),
			inChild("Lockstep, empty", lockstep, "pairs", Pairs{Keys: 1, Workers: 1, Millis: 100}),
			inChild(afterFuncMap, afterFuncMap, "pairs", Pairs{Keys: 1, Workers: 1, Millis: 100, Live: million}),
		},
	}, {
		Name:     "two goroutines on distinct keys, 2 cores",
		Goals:    []Goal{AtLeast(1.5, scaling, mobyLocker)},
		Opening:  []Column{{both, "2 goroutines, 2 keys"}},
		Subjects: subjects(scaled, lockstep, lockstepSession, mobyLocker, afterFuncMap),
		Note:     "The scaling is the throughput of two divided by that of one, one after the other in the same process. The cores must be idle otherwise.",
	}, {
		Name:     "64 goroutines, one key, FIFO",
		Goals:    []Goal{AtMost(1.25, handOff, handleFIFO), AtLeast(0.9, shares)},
		Opening:  []Column{{handOff, "hand-off, 64 goroutines"}},
		Subjects: subjects(task1("handOff", Crowd{Goroutines: 64, Millis: 120}), lockstep, lockstepSession, handleFIFO, channelFIFO, plainMutex, mobyLocker),
		Note:     "The hand-off is from the beginning of an unlock to the return of the next one's lock. sync.Mutex and moby/locker have no order: they mostly hand over to themselves. The FIFOs look at no key.",
	},
		held("1 M held leases", million, 10),
		held("5 M held leases", 5*million, 3),
		{
			Name: "1 M leases due at the same instant", Rounds: 6,
			Goals: []Goal{AtLeast(1.5e6, throughput), AtMost(1e6, excess), AtMost(100e3, p999)},
			Subjects: []Subject{
				afresh(lockstep, 0, "herd", Herd{N: million}),
				afresh(afterFuncMap, 1, "herd", Herd{N: million}),
			},
			Note: "The worst Lock is that of one goroutine which locks and unlocks other keys meanwhile, in turns with a moby/locker that nobody else uses; the goal is about the median of the rounds' worst.",
		}, {
			Name: "1 M leases due evenly over 5 s", Rounds: 3,
			Goals: []Goal{AtMost(3e6, "lateness p50"), AtMost(5e6, "lateness p99"), AtMost(0, "ended early")},
			Subjects: []Subject{
				afresh(lockstep, 0, "evenly", Herd{N: million, SpreadMillis: 5000}),
				afresh(afterFuncMap, 1, "evenly", Herd{N: million, SpreadMillis: 5000}),
			},
			Note: "Until a goroutine that waits on Done has noticed; one of 97 leases has one.",
		}, {
			Name: "idle, and idle with 1 M sessions", Rounds: 5,
			Goals: []Goal{AtMost(0, wakeUps), AtMost(0, wakeUps).by(lockstepSessions)},
			Subjects: []Subject{
				idle(lockstep, lockstep, Many{}),
				idle(lockstepSessions, lockstep, Many{N: million, Session: true}),
				idle("a program that does nothing", "", Many{}),
			},
			Together: true,
			Note:     "Voluntary context switches of all threads within a second, after a lock and unlock.",
		},
	}
}

const lockstepSessions = "Lockstep, 1 M sessions"

// held is a row about memory.
func held(name string, n, rounds int) Scenario {
	return Scenario{
		Name:     name,
		Rounds:   rounds,
		Goals:    []Goal{AtMost(200, bytesEach), AtMost(0.4, collection, afterFuncMap)},
		Subjects: subjects(holding(n), lockstep, afterFuncMap),
		Note:     "The memory is without the keys and the user's slice of handles, and with the handles. The GC cycle is a whole runtime.GC in a process with nothing else.",
	}
}

// subjects makes one of each name.
func subjects(make func(name string) Subject, names ...string) []Subject {
	var all []Subject
	for _, name := range names {
		all = append(all, make(name))
	}
	return all
}

func task1(task string, args any) func(name string) Subject {
	return func(name string) Subject { return inChild(name, name, task, args) }
}

// withAllocations is "pairs", with the allocations of one.
func withAllocations(a Pairs) func(name string) Subject {
	return func(name string) Subject {
		return Subject{Name: name, Open: func(b *Bench) func() Sample {
			c := b.child(name, "")
			return func() Sample { return c.sample("pairs", a).with(c.sample("allocations", nil)) }
		}}
	}
}

func (s Sample) with(other Sample) Sample {
	for name, v := range other {
		s[name] = v
	}
	return s
}

// scaled is "pairs" by one goroutine and by two, in a new child each round: a process hashes keys in its own way, and two
// in the same shard are not what is measured.
func scaled(name string) Subject {
	return Subject{Name: name, Open: func(b *Bench) func() Sample {
		return func() Sample {
			c := b.child(name, "")
			defer c.kill()
			c.sample("pairs", Pairs{Keys: 1, Workers: 2, Millis: 20})
			one := c.sample("pairs", Pairs{Keys: 1, Workers: 1, Millis: 80})
			two := c.sample("pairs", Pairs{Keys: 1, Workers: 2, Millis: 80})
			return Sample{alone: one[throughput], both: two[throughput], scaling: two[throughput] / one[throughput], cpuEach: two[cpuEach]}
		}
	}}
}

// holding fills its child once, and has the garbage collected each round.
func holding(n int) func(name string) Subject {
	return func(name string) Subject {
		return Subject{Name: name, Open: func(b *Bench) func() Sample {
			needMemory(b, int64(n)*1000)
			c := b.child(name, "")
			filled := c.sample("hold", Many{N: n})
			return func() Sample { return c.sample("collect", nil).with(Sample{bytesEach: filled[bytesEach]}) }
		}}
	}
}

// afresh is a subject with a new child each round.
func afresh(name string, rounds int, task string, args any) Subject {
	return Subject{Name: name, Rounds: rounds, Open: func(b *Bench) func() Sample {
		needMemory(b, 2<<30)
		return func() Sample {
			c := b.child(name, "")
			defer c.kill() // quicker than to let it free all that
			return c.sample(task, args)
		}
	}}
}

const wakeUps = "wake-ups"

// idle watches a child that has nothing to do.
func idle(name, locks string, a Many) Subject {
	return Subject{Name: name, Open: func(b *Bench) func() Sample {
		c := b.child(locks, "")
		var pid int
		c.do("idle", a, &pid)
		return func() Sample {
			before := switches(b, pid)
			b.sleep(time.Second)
			return Sample{wakeUps: float64(switches(b, pid) - before)}
		}
	}}
}

func needMemory(b *Bench, bytes int64) {
	if available := availableMemory(); available > 0 && available < bytes {
		b.Fatalf("it needs %d MB of memory, and %d are available", bytes>>20, available>>20)
	}
}
