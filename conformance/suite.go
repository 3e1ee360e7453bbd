package conformance

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// SeedEnv is the environment variable that holds the seed of all random choices. Without
// it they are different each time. The text of a failure names it.
const SeedEnv = "LOCKSTEP_SEED"

// Option changes how Run works.
type Option func(*suite)

// Synctest runs each case in a bubble of testing/synctest, in virtual time. It is for
// backends without I/O; newTarget is called within the bubble, and whatever the
// target starts must end with it.
func Synctest() Option { return func(s *suite) { s.virtual = true } }

// Known declares that id (TTL-001, or WAIT-004/lease, or a longer path) is known to
// fail, and why that is accepted. It still runs. It is reported as skipped with the
// reason while it fails, and fails when it passes. A part that a case has beside what it
// proves itself (TTL-001/lease/passed) is not meant by the case's id.
func Known(id, reason string) Option {
	return func(s *suite) { s.known = append(s.known, known{id, reason}) }
}

// Only runs the cases that ids name (TTL-001, or WAIT-004/lease, or a longer path), and
// no others.
func Only(ids ...string) Option {
	return func(s *suite) { s.only = append(s.only, ids...) }
}

// Parallel runs the cases side by side, as far as go test -parallel lets them. It
// is for stores to which a network leads: the cases mostly wait there, and go test's own
// -parallel, the number of processors, is small for them. Run returns before they have run:
// end what they need in a t.Cleanup, not in a defer.
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

	mu      sync.Mutex
	passed  int
	skipped map[string]int // by reason
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
	for _, c := range Cases() {
		leaves := slices.DeleteFunc(c.leaves(), func(l leaf) bool { return !s.wants(l) })
		if len(leaves) > 0 {
			s.run(t, c.ID, leaves, 1)
		}
	}
}

func newSuite(newTarget func(*testing.T) *Target, opts []Option) (*suite, error) {
	s := &suite{newTarget: newTarget, slack: 1, seed: rand.Uint64(), skipped: map[string]int{}}
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
		t.Fatal(fail)
	}
	s.mu.Lock()
	if skip == "" {
		s.passed++
	} else {
		s.skipped[skip]++
	}
	s.mu.Unlock()
	if skip != "" {
		t.Skip(skip)
	}
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
		return failures, "known to fail: " + k.reason, ""
	}
	return "", "", failures
}

// summary says at the end what did not run, so that nobody takes it for proven.
func (s *suite) summary() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "conformance: %d passed, seed %d", s.passed, s.seed)
	for _, why := range slices.Sorted(mapKeys(s.skipped)) {
		fmt.Fprintf(&b, "\n  %d skipped: %s", s.skipped[why], why)
	}
	return b.String()
}

func mapKeys(m map[string]int) func(func(string) bool) {
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
				r.failures = append(r.failures, fmt.Sprintf("%s: %s\n  got    %v\n%s", l.ID, l.Clause, p, indent(labelled(t.Name()), "    ")))
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
			l.ID, l.Clause, limit, indent(allStacks(), "    "))}}
	}
}

// trial makes a target and runs l against it.
func (s *suite) trial(t *testing.T, l leaf) (r result) {
	r.ran = false
	// All that is started from here on carries the name of the subtest, so that what is
	// left of it can be told from what is not of it.
	defer pprof.SetGoroutineLabels(context.Background())
	label(t.Name())

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
	c := newTrial(t, s, l, target)
	for _, n := range l.needs {
		if !n.met(target) {
			r.skipped = n.why
		}
	}
	if r.skipped == "" {
		c.run()
	}
	c.finish()
	c.mu.Lock()
	defer c.mu.Unlock()
	r.failures = slices.Clone(c.failures)
	if c.tampered {
		if r.failures = c.trusted; len(r.failures) > 0 {
			return r
		}
		l.tampers = true
		return s.trial(t, l)
	}
	r.notes = slices.Clone(c.notes)
	if c.skipped != "" {
		r.skipped = c.skipped
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

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+by)
}
