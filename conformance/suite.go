package conformance

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// SeedEnv is the environment variable that holds the seed of all random choices. Without
// it they are different each time. The text of a failure names it.
const SeedEnv = harness.SeedEnv

// Option changes how Run works.
type Option func(*suite)

// Synctest runs each case in a bubble of testing/synctest, in virtual time. It is for
// backends without I/O; newTarget is called within the bubble, and whatever the
// target starts must end with it.
func Synctest() Option { return func(s *suite) { s.virtual = true } }

// Known declares that id (TTL-001, or WAIT-004/lease, or a longer path) is known to fail, and why
// that is accepted. The case still runs. While it fails it is reported as skipped, with the
// reason; when it passes, that is a failure. A part that a case has beside its own proof
// (TTL-001/lease/passed) is not covered by the case's id.
func Known(id, reason string) Option {
	return func(s *suite) { s.known = append(s.known, known{id, reason}) }
}

// Only runs the cases that ids name (TTL-001, or WAIT-004/lease, or a longer path), and
// no others.
func Only(ids ...string) Option {
	return func(s *suite) { s.only = append(s.only, ids...) }
}

// Parallel runs the cases side by side, as far as go test -parallel lets them. It is for stores
// that are reached through a network: the cases mostly wait there, so that the default of
// -parallel, the number of processors, is too small. Run returns before the cases have run: end
// what they need in a t.Cleanup, not in a defer.
func Parallel() Option { return func(s *suite) { s.parallel = true } }

// Slack multiplies every time limit by factor, for a machine that is slow or busy. A
// factor above 1 makes the suite blind to that much lateness; the default is 1.
func Slack(factor float64) Option { return func(s *suite) { s.slack = factor } }

// Timeout is the time after which the watchdog ends a case. The default follows from
// the backend's Granularity; no case takes half of it.
func Timeout(d time.Duration) Option { return func(s *suite) { s.timeout = d } }

type known struct{ id, reason string }

// suite is one call of Run.
type suite struct {
	newTarget func(*testing.T) *Target
	virtual   bool
	parallel  bool
	known     []known
	only      []string
	slack     float64
	timeout   time.Duration
	seed      uint64

	failFast bool // go test -failfast

	mu      sync.Mutex
	passed  int
	skipped map[string][]string // clauses and parts, by reason
	failed  map[string]bool     // clauses of which a case failed
	broken  map[string]bool     // clauses that failures name
}

// Run proves the backend that newTarget opens, with a subtest for each clause of the
// contract: see the package comment. It calls newTarget once for every subtest.
func Run(t *testing.T, newTarget func(t *testing.T) *Target, opts ...Option) {
	t.Helper()
	s, err := newSuite(newTarget, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { t.Log(s.summary()) }) // after the parallel ones
	for _, c := range elementaryFirst(Cases()) {
		leaves := slices.DeleteFunc(c.leaves(), func(l leaf) bool { return !s.wants(l) })
		if len(leaves) > 0 {
			s.run(t, c.ID, leaves, 1)
		}
	}
}

func newSuite(newTarget func(*testing.T) *Target, opts []Option) (*suite, error) {
	s := &suite{newTarget: newTarget, slack: 1, seed: rand.Uint64(), skipped: map[string][]string{}, failed: map[string]bool{}, broken: map[string]bool{}}
	if f := flag.Lookup("test.failfast"); f != nil {
		s.failFast = f.Value.String() == "true"
	}
	for _, o := range opts {
		o(s)
	}
	if text, ok := os.LookupEnv(SeedEnv); ok {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("conformance: %s is %q; want a whole number that is not negative", SeedEnv, text)
		}
		s.seed = seed
	}
	if s.slack <= 0 {
		return nil, fmt.Errorf("conformance: the Slack is %v; want a factor above 0", s.slack)
	}
	ids := slices.Clone(s.only)
	for _, k := range s.known {
		ids = append(ids, k.id)
		if k.reason == "" {
			return nil, fmt.Errorf("conformance: Known(%q) has no reason", k.id)
		}
	}
	for _, id := range ids {
		if !exists(id) {
			return nil, fmt.Errorf("conformance: there is no case %q (Known, Only)", id)
		}
	}
	return s, nil
}

func exists(id string) bool {
	for _, c := range Cases() {
		for _, l := range c.leaves() {
			if l.matches(id) {
				return true
			}
			if l.coreLoop = c.CoreLoop; l.coreLoop && l.matches(id) {
				return true
			}
		}
	}
	return false
}

func (s *suite) wants(l leaf) bool {
	if len(s.only) == 0 {
		return true
	}
	return slices.ContainsFunc(s.only, l.within)
}

// runLeaves opens one level of subtests for each further element of the leaves' paths.
func (s *suite) runLeaves(t *testing.T, leaves []leaf, depth int) {
	if strings.Count(leaves[0].path(), "/") < depth {
		s.runLeaf(t, leaves[0], leaves[1:]...)
		return
	}
	for len(leaves) > 0 {
		name := strings.Split(leaves[0].path(), "/")[depth]
		end := slices.IndexFunc(leaves, func(l leaf) bool { return strings.Split(l.path(), "/")[depth] != name })
		if end < 0 {
			end = len(leaves)
		}
		below := leaves[:end]
		leaves = leaves[end:]
		s.run(t, name, below, depth+1)
	}
}

// run opens one subtest. Every level is parallel: one that is not would wait for those
// below it before the next begins.
func (s *suite) run(t *testing.T, name string, leaves []leaf, depth int) {
	t.Run(name, func(t *testing.T) {
		if s.parallel && strings.Count(leaves[0].path(), "/") >= depth { // a leaf does so itself
			t.Parallel()
		}
		s.runLeaves(t, leaves, depth)
	})
}

// runLeaf runs one subtest and, below it, its repetition in the core's own loop and the
// parts that its case has beside it.
func (s *suite) runLeaf(t *testing.T, l leaf, parts ...leaf) {
	if s.parallel {
		t.Parallel()
	}
	if s.followsFailure(l) {
		t.Skip(afterFailure)
	}
	r := s.execute(t, l)
	if r.waits && l.CoreLoop && !l.coreLoop {
		l.coreLoop = true
		t.Run(coreLoop, func(t *testing.T) { s.runLeaf(t, l) })
		l.coreLoop = false
	}
	if len(parts) > 0 {
		s.runLeaves(t, parts, strings.Count(l.path(), "/")+1)
	}
	s.report(t, l, r)
}

// followsFailure says whether l need not run: with -failfast the first clause that is broken, in
// reading order, is all that is asked for. go test itself stops before the next subtest begins,
// by when Parallel has begun them all.
func (s *suite) followsFailure(l leaf) bool {
	if !s.failFast {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.failed {
		if before(id, l.ID) {
			return true
		}
	}
	return false
}

const afterFailure = "an earlier clause is broken, and go test runs with -failfast"

// report turns the result of a trial into that of the subtest.
func (s *suite) report(t *testing.T, l leaf, r result) {
	t.Helper()
	for _, n := range r.notes {
		t.Log(n)
	}
	if !r.ran {
		t.FailNow() // newTarget failed the test, and said why
	}
	log, skip, fail := s.verdict(l, r)
	if log != "" {
		t.Log(log)
	}
	if fail != "" {
		s.mu.Lock()
		s.failed[l.ID] = true
		s.broken[namedBy(l.ID, fail)] = true
		s.mu.Unlock()
		t.Fatal(fail)
	}
	s.mu.Lock()
	if skip == "" {
		s.passed++
	} else {
		s.skipped[skip] = append(s.skipped[skip], l.clauseAndPart())
	}
	s.mu.Unlock()
	if skip != "" {
		t.Skip(skip)
	}
}

func (s *suite) isKnown(l leaf) bool {
	return slices.ContainsFunc(s.known, func(k known) bool { return l.matches(k.id) })
}

// verdict is what a result means, given what is known. At most one of skip and fail is not
// empty; with neither, l has passed.
func (s *suite) verdict(l leaf, r result) (log, skip, fail string) {
	failures := strings.Join(r.failures, "\n")
	if r.skipped != "" && failures == "" {
		return "", r.skipped, ""
	}
	for _, k := range s.known {
		if !l.matches(k.id) {
			continue
		}
		if failures == "" {
			return "", "", fmt.Sprintf("%s passes, but is declared with Known(%q, %q): take the declaration away", l.path(), k.id, k.reason)
		}
		return failures, knownToFail + k.reason, ""
	}
	return "", "", failures
}

// namedBy is the clause that the text of a failure names first: the case's own, or another that
// it met on its way.
func namedBy(id, text string) string {
	if named := clauseLine.FindStringSubmatch(text); named != nil {
		return named[1]
	}
	return id
}

var clauseLine = regexp.MustCompile(`(?m)^([A-Z]+-\d{3}): `)

// sentence is what a clause requires.
func sentence(id string) string {
	for _, c := range Cases() {
		if c.ID == id {
			return c.Clause
		}
	}
	return ""
}

// summary says at the end what did not run, so that nobody takes it for proven.
func (s *suite) summary() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "conformance: %d passed, seed %d", s.passed, s.seed)
	if n := len(s.broken); n > 1 {
		for _, c := range elementaryFirst(Cases()) {
			if s.broken[c.ID] {
				fmt.Fprintf(&b, "\n  %d clauses are broken; begin with %s (%s): the others may follow from it", n, c.ID, c.Clause)
				break
			}
		}
	}
	for _, why := range slices.Sorted(mapKeys(s.skipped)) {
		what := "NOT PROVEN"
		if strings.HasPrefix(why, knownToFail) {
			what = "ACCEPTED"
		}
		which := slices.Clone(s.skipped[why])
		slices.Sort(which)
		fmt.Fprintf(&b, "\n  %s, %s: %s", what, why, strings.Join(slices.Compact(which), " "))
	}
	return b.String()
}

const knownToFail = "known to fail: "

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// result is what came of one trial.
type result struct {
	ran      bool // false when newTarget gave up
	waits    bool // the backend is a driver.Waiter
	skipped  string
	failures []string
	notes    []string
}

// execute makes one trial of l, in a bubble if that is asked for, and sees to it that it
// ends. It fails t only if newTarget does.
func (s *suite) execute(t *testing.T, l leaf) result {
	if !s.virtual {
		return s.trial(t, l)
	}
	var r result
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			// The runtime panics when goroutines of a bubble stay blocked for ever. That is
			// a leak of this case and no reason to end the others.
			if p := recover(); p != nil {
				const id = "CLO-004"
				r.failures = append(r.failures, fmt.Sprintf("%s: %s\n  got    %v\n  in     a case of %s\n%s", id, sentence(id), p, l.ID, harness.Indent(harness.Labelled(t.Name()), "    ")))
			}
		}()
		synctest.Test(t, func(t *testing.T) { r = s.trial(t, l) })
	}()
	limit := cmp.Or(s.timeout, time.Minute)
	select {
	case <-done:
		return r
	case <-time.After(limit):
		// Virtual time stands still while anything runs or waits for a mutex, and then
		// the watchdog within the bubble sleeps too.
		return result{ran: true, failures: []string{fmt.Sprintf(
			"%s: %s\n  want   the case ends\n  got    it hangs: after %s a goroutine of the bubble is still running, or waits for a mutex\n%s",
			l.ID, l.Clause, limit, harness.Indent(allStacks(), "    "))}}
	}
}

// trial makes a target and runs l against it.
func (s *suite) trial(t *testing.T, l leaf) (r result) {
	r.ran = false
	// All that is started from here on carries the name of the subtest, so that what is
	// left of it can be told from what is not of it.
	defer pprof.SetGoroutineLabels(context.Background())
	harness.Label(t.Name())

	target := s.newTarget(t)
	r.ran = true
	switch {
	case target == nil || target.Backend == nil:
		r.failures = []string{"conformance: newTarget returned no Backend"}
		return r
	case target.Peer == nil:
		r.failures = []string{"conformance: newTarget returned no Peer"}
		return r
	}
	_, r.waits = driver.As[driver.Waiter](target.Backend)
	c := &trial{leaf: l, target: target, Trial: harness.New(t, harness.Setup{
		ID: l.ID, ClauseOf: sentence, CoreLoop: l.coreLoop, Tampers: l.tampers, Known: s.isKnown(l),
		Virtual: s.virtual, Slack: s.slack, Timeout: s.timeout, Seed: s.seed, Random: s.seedOf(t.Name()),
		Backend: target.Backend, Peer: target.Peer, Advance: target.Advance,
	})}
	for _, n := range l.needs {
		if !n.met(target) {
			r.skipped = n.why
		}
	}
	if r.skipped == "" {
		c.Run(func() { l.fn(c) })
	}
	c.Finish()
	came := c.Result()
	if came.Tampered && len(came.Failures) == 0 {
		l.tampers = true
		return s.trial(t, l)
	}
	r.failures = came.Failures
	if !came.Tampered {
		r.notes = came.Notes
		r.skipped = cmp.Or(came.Skipped, r.skipped)
	}
	return r
}

// seedOf gives each subtest random choices of its own that do not depend on which others
// run.
func (s *suite) seedOf(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return s.seed ^ h.Sum64()
}

func allStacks() string {
	buf := make([]byte, 256<<10)
	return string(buf[:runtime.Stack(buf, true)])
}
