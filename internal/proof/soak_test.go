package proof

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/conformance"
	"github.com/lockstep-go/lockstep/internal/redistest"
)

// soakEnv says how long TestSoak lasts; make soak sets it.
const soakEnv = "LOCKSTEP_SOAK"

// TestSoak looks for what needs luck to be found: it repeats CONC-001 and CONC-003 with new
// random choices, in turns, for as long as LOCKSTEP_SOAK says: on memory, on Redis, and on a
// Redis beside which networks fail, servers hang and administrators interfere. Without the
// variable it lasts for a few seconds, so that it is never a test that did not run.
//
// A violation is reported as in the tests of each clause, with a command that runs that one
// turn again.
func TestSoak(t *testing.T) {
	s := newSoak(t)
	faults := turn{"faults", s.faults} // most of the time: nothing else tests so much
	turns := []turn{
		faults, {"memory", s.memory},
		faults, {"lockstep", func(t *testing.T) { s.lockstep(t, memoryAndRedis) }},
		faults, {"redis", func(t *testing.T) { s.redis(t, redis.TrackingAuto) }},
		faults, {"redis-polling", func(t *testing.T) { s.redis(t, redis.TrackingOff) }},
		faults, {"memory-real-time", s.memoryRealTime},
		faults, {"lockstep-cluster", func(t *testing.T) { s.lockstep(t, memoryAndCluster) }},
		{"postgres-faults", s.postgresFaults}, {"lockstep-postgres", func(t *testing.T) { s.lockstep(t, memoryAndPostgres) }},
		{"postgres-faults", s.postgresFaults}, {"postgres", s.postgres},
	}
	only, round := selected()
	if only != "" {
		turns = slices.DeleteFunc(turns, func(t turn) bool { return t.name != only })
	}
	if round != 0 && len(turns) > 0 {
		s.run(t, turns[0], round)
		return
	}
	rounds := map[string]int{}
	for len(turns) > 0 {
		for _, turn := range turns {
			rounds[turn.name]++
			s.run(t, turn, rounds[turn.name])
			if !time.Now().Before(s.until) || s.violations() >= enoughViolations {
				return
			}
		}
	}
}

// enoughViolations end the soak: more of them would say no more.
const enoughViolations = 3

type turn struct {
	name string
	run  func(t *testing.T)
}

// selected is the kind of turn and, unless it is 0, the one turn of that kind that go test
// -run asks for: TestSoak/name/round, as in the rerun command of a violation.
func selected() (name string, round int) {
	parts := strings.Split(flag.Lookup("test.run").Value.String(), "/")
	if len(parts) > 1 {
		name = strings.Trim(parts[1], "^$")
	}
	if len(parts) > 2 {
		round, _ = strconv.Atoi(strings.Trim(parts[2], "^$"))
	}
	return name, round
}

// soak is what has been done so far.
type soak struct {
	t       *testing.T
	start   time.Time
	until   time.Time
	seed    uint64
	lanes   []*lane
	pgLanes []*pgLane
	pgTurns int

	mu                   sync.Mutex
	histories, undecided int
	operations           int
	unanswered           int // of the operations: their outcome is not known
	programs, steps      int
	held                 int           // by believers
	overlap              time.Duration // the longest time for which a session was believed in beside another hold
	injected             map[string]int
	violated             int
}

func newSoak(t *testing.T) *soak {
	lasts, loud := 3*time.Second, false
	if text, ok := os.LookupEnv(soakEnv); ok {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			t.Fatalf("%s is %q; want a duration above 0, such as 10m", soakEnv, text)
		}
		lasts, loud = d, true
	}
	s := &soak{t: t, start: time.Now(), seed: rand.Uint64(), injected: map[string]int{}}
	s.until = s.start.Add(lasts)
	s.fixSeed()

	say := func(text string) { t.Log(text) }
	if loud {
		say = func(text string) { fmt.Println(text) } // now, not at the end
		stop := make(chan struct{})
		t.Cleanup(func() { close(stop) })
		go s.everyMinute(stop, say)
	}
	t.Cleanup(func() { say(s.summary()) })
	return s
}

// fixSeed gives all turns one seed; their names make their choices different. It is in the
// environment because it is there that conformance.Run looks for it.
func (s *soak) fixSeed() {
	if text, ok := os.LookupEnv(conformance.SeedEnv); ok {
		s.seed, _ = strconv.ParseUint(text, 10, 64) // a wrong one is conformance.Run's to refuse
		return
	}
	s.t.Setenv(conformance.SeedEnv, strconv.FormatUint(s.seed, 10))
}

func (s *soak) everyMinute(stop <-chan struct{}, say func(string)) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			say(s.summary())
		case <-stop:
			return
		}
	}
}

func (s *soak) run(t *testing.T, turn turn, round int) {
	name := fmt.Sprintf("%s/%d", turn.name, round)
	if !t.Run(name, func(t *testing.T) { turn.run(t) }) {
		s.count(func() { s.violated++ })
		fmt.Printf("soak: a violation in %s; to run that turn again:\n  %s=%d go test -race -count=1 -run '^TestSoak$/^%s$/^%d$' ./internal/proof\n",
			name, conformance.SeedEnv, s.seed, turn.name, round)
	}
}

func (s *soak) count(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
}

func (s *soak) violations() (n int) {
	s.count(func() { n = s.violated })
	return n
}

// violation reports one that is not a case's.
func (s *soak) violation(format string, args ...any) {
	s.t.Errorf(format+"\n  to look for it again: %s=5m go test -race -count=1 -run '^TestSoak$/^faults$' ./internal/proof", append(args, soakEnv)...)
	s.count(func() { s.violated++ })
}

func (s *soak) fault(name string) { s.count(func() { s.injected[name]++ }) }

// summary is one line.
func (s *soak) summary() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := 0
	var kinds []string
	for _, name := range faultNames {
		all += s.injected[name]
		kinds = append(kinds, fmt.Sprintf("%s %d", name, s.injected[name]))
	}
	return fmt.Sprintf("soak %s: %d histories checked (%d more undecided) of %d operations (%d without an answer), %d programs of %d steps in lockstep, %d holds watched (longest overlap %s), %d faults (%s), %d violations, seed %d",
		time.Since(s.start).Round(time.Second), s.histories-s.undecided, s.undecided, s.operations, s.unanswered, s.programs, s.steps, s.held, s.overlap.Round(time.Microsecond), all, strings.Join(kinds, ", "), s.violated, s.seed)
}

// --- the turns ------------------------------------------------------------------------

const linearizability = "CONC-001"

// memory is CONC-001 in virtual time, several times, because it is quick.
func (s *soak) memory(t *testing.T) {
	for range 5 {
		conformance.Run(t, func(t *testing.T) *conformance.Target { return s.counted(nil, memoryTarget(t)) },
			conformance.Only(linearizability), conformance.Synctest())
	}
}

func (s *soak) memoryRealTime(t *testing.T) {
	conformance.Run(t, func(t *testing.T) *conformance.Target { return s.counted(t, memoryTarget(t)) }, conformance.Only(linearizability))
}

func (s *soak) redis(t *testing.T, tracking string) {
	srv := redistest.Single(t)
	conformance.Run(t, func(t *testing.T) *conformance.Target {
		return s.counted(t, redisTarget(t, redis.Config{Addrs: []string{srv.Addr()}, Tracking: tracking, ClientOption: credentials(srv.ClientOption())}, srv.ClientOption()))
	}, conformance.Only(linearizability))
}

// faults is CONC-001 on several servers at once, as it mostly waits, each with faults of
// its own. The clients of every other pair poll.
func (s *soak) faults(t *testing.T) {
	kinds := []conformance.Kind{conformance.Lease, conformance.Session, conformance.Lease, conformance.Session}
	for len(s.lanes) < len(kinds) {
		s.lanes = append(s.lanes, newLane(s, len(s.lanes) >= 2))
	}
	var wg sync.WaitGroup
	for i, lane := range s.lanes {
		wg.Add(1)
		go func() {
			defer wg.Done()
			t.Run(fmt.Sprint("lane-", i+1), func(t *testing.T) {
				conformance.Run(t, func(t *testing.T) *conformance.Target { return s.counted(t, lane.target(t)) },
					conformance.Only(fmt.Sprintf("%s/%s", linearizability, kinds[i])))
			})
		}()
	}
	wg.Wait()
}

func (s *soak) lockstep(t *testing.T, p pair) {
	const programs = 5
	l := newLockstep(t, p)
	t.Cleanup(func() {
		s.count(func() { s.programs += l.ran; s.steps += l.steps })
		if f := flag.Lookup("test.artifacts"); t.Failed() && f != nil && f.Value.String() == "true" {
			path := filepath.Join(t.ArtifactDir(), "program.go.txt")
			if err := os.WriteFile(path, []byte(l.least.test(p.name)+"\n"), 0o666); err != nil {
				t.Log(err)
			}
		}
	})
	l.check(t, programs)
}
