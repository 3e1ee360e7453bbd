package peers

import (
	"time"

	"github.com/lockstep-go/lockstep/internal/pgtest"
)

// postgresScenarios are the rows of the PostgreSQL table. Each starts a Postgres of its own, with
// the durability that it has by default: a grant is on disk before it is answered.
func postgresScenarios() []Scenario {
	const shortcomings = "An advisory lock has no ttl, no token and no notice of a loss, and writes nothing."
	return []Scenario{{
		Name:     "lease Lock + Unlock, 1 goroutine",
		Goals:    []Goal{postgresGoal(AtMost(1.5, p50, twoUpdates))},
		Opening:  []Column{{p50, "Lock + Unlock, p50"}},
		Subjects: onOnePostgres("latency", Pairs{Workers: 1, Millis: 300}, lockstepPostgres, twoUpdates, advisorySession, advisoryTx, cirelloPglock, allissonPglock),
		Note:     shortcomings,
	}, {
		Name:     "32 goroutines, distinct keys",
		Goals:    []Goal{postgresGoal(AtLeast(3, throughput, cirelloPglock))},
		Opening:  []Column{{throughput, "32 goroutines, 32 keys"}, {clientEach, "client CPU per pair"}},
		Subjects: onOnePostgres("latency", Pairs{Workers: 32, Millis: 300}, lockstepPostgres, twoUpdates, advisorySession, advisoryTx, cirelloPglock, allissonPglock),
		Note:     "Each has a pool of 16 connections.",
	}, {
		Name:     "an attempt at a key that is held",
		Goals:    []Goal{postgresGoal(AtMost(1.3, p50, selectOne))},
		Subjects: onOnePostgres("refused", Pairs{Workers: 1, Millis: 200}, lockstepPostgres, selectOne, advisorySession, cirelloPglock, allissonPglock),
	}, {
		Name: "one key, 2 processes × 16 goroutines", Rounds: 3,
		Goals: []Goal{
			postgresGoal(AtLeast(0.8, processShares)),
			postgresGoal(AtMost(0, stuckWaiters)),
		},
		Subjects: rush(sharedPostgres().served(), 2, 16, lockstepPostgres, advisorySession, advisoryTx, cirelloQuick, allissonPglock),
		Note:     "Waits that had not ended count with what they had lasted. A waiter is stuck that has not got the key half a second after nobody else wants it. cirello.io/pglock polls once a lease, here of 1 s.",
	}, {
		Name:     "hand-off to an idle waiter in another process",
		Rounds:   6,
		Goals:    []Goal{postgresGoal(AtMost(2, p50, bareNotify))},
		Opening:  []Column{{p50, "hand-off to another process"}},
		Subjects: postgresHandOffs(lockstepPostgres, advisorySession, advisoryTx, cirelloQuick, allissonPglock),
		Note:     "From the beginning of the unlock, or of the NOTIFY, to the moment when the other process has it. “With UPDATEs” is what a lock whose holder stands in a row cannot do without: an UPDATE that notifies, and one by the process that hears of it, each of which waits for the disk. A bare NOTIFY does not.",
	}, {
		Name: "10 k held sessions, and idle", Rounds: 4,
		Goals: []Goal{
			postgresGoal(AtMost(1, statementsEach)),
			postgresGoal(AtMost(1, tripsEach)),
			postgresGoal(AtMost(1024, bytesEach)),
			AtMost(1, tripsEach).by(lockstepPostgres + ", idle"),
		},
		Subjects: []Subject{holdingOnPostgres(lockstepPostgres, 10_000), holdingOnPostgres(lockstepPostgres+", idle", 0)},
		Together: true,
		Note:     "Of one client with a validity of 3 s, which renews every second; all that its connections sent is counted. Each on a Postgres of its own.",
	}}
}

// postgresGoal is a goal of Lockstep's on Postgres.
func postgresGoal(g Goal) Goal { return g.by(lockstepPostgres) }

const (
	statementsEach = "statements per interval"
	tripsEach      = "round trips per interval"
	bareNotify     = "bare NOTIFY"
	updatesNotify  = "NOTIFY with UPDATEs"
)

// postgresServer is one server for the subjects of a scenario.
type postgresServer func(b *Bench) *pgtest.Server

func sharedPostgres() postgresServer {
	var srv *pgtest.Server
	return func(b *Bench) *pgtest.Server {
		if srv == nil {
			srv = pgtest.Start(b)
		}
		return srv
	}
}

func (s postgresServer) served() served {
	// Where each turn waits for the disk there are few, and shares of few differ by chance.
	return served{addr: func(b *Bench) string { return s(b).Addr() }, rush: 2 * time.Second}
}

func onOnePostgres(task string, args any, names ...string) []Subject {
	shared := sharedPostgres()
	return subjects(func(name string) Subject {
		return Subject{Name: name, Open: func(b *Bench) func() Sample {
			c := b.child(name, shared(b).Addr())
			c.sample(task, args) // connects, and creates what it needs
			return func() Sample { return c.sample(task, args).without(pairsDone) }
		}}
	}, names...)
}

func postgresHandOffs(names ...string) []Subject {
	shared := sharedPostgres().served()
	return append(handOffs(shared, names...),
		bareHandOff(shared, bareNotify, "listen", "notify", Told{}),
		bareHandOff(shared, updatesNotify, "listen", "notify", Told{Writes: true}))
}

// holdingOnPostgres holds n sessions, and watches what one renewal interval costs.
func holdingOnPostgres(name string, n int) Subject {
	const intervals = 3
	return Subject{Name: name, Open: func(b *Bench) func() Sample {
		c := b.child(lockstepPostgres, pgtest.Start(b).Addr())
		filled := Sample{}
		if n > 0 {
			filled = c.sample("hold", Many{N: n, Session: true})
		} else {
			c.do("sent", nil, nil) // opens
		}
		b.sleep(validity) // until what the filling left is done
		return func() Sample {
			var from, to Sent
			c.do("sent", nil, &from)
			start := time.Now()
			b.sleep(intervals * validity / 3)
			c.do("sent", nil, &to)
			each := time.Since(start).Seconds() / (validity / 3).Seconds()
			s := Sample{
				statementsEach: float64(to.Statements-from.Statements) / each,
				tripsEach:      float64(to.Trips-from.Trips) / each,
			}
			if n > 0 {
				s[bytesEach], s["goroutines"] = filled[bytesEach], filled["goroutines"]
			}
			return s
		}
	}}
}
