package conformance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// A healthy backend passes.
func TestReference(t *testing.T) {
	Run(t, refTarget(nil), Synctest())
}

// So does one whose store has a clock of its own, which stands still unless it is moved.
func TestAdvance(t *testing.T) {
	for name, opts := range map[string][]Option{"virtual time": {Synctest()}, "real time": {Parallel(), Slack(3)}} {
		t.Run(name, func(t *testing.T) {
			Run(t, func(t *testing.T) *Target {
				var mu sync.Mutex
				now := time.Unix(1e9, 0)
				target := refTargetAt(func() time.Time {
					mu.Lock()
					defer mu.Unlock()
					return now
				}, patient)(t)
				target.Advance = func(d time.Duration) {
					mu.Lock()
					defer mu.Unlock()
					now = now.Add(d)
				}
				return target
			}, append(opts, Only("TTL-001", "TTL-002", "EXT-001", "EXT-002", "REL-002", "LOSS-001", "MX-001"))...)
		})
	}
}

// And it does so by the clock on the wall.
func TestReferenceRealTime(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	Run(t, refTarget(patient), Parallel(), Slack(3))
}

// patient is for many cases at a time: a session outlives a machine that stands still for a second.
func patient(b *reference) driver.Backend {
	b.validity, b.every = 2*time.Second, 500*time.Millisecond
	return b
}

func TestCatalogue(t *testing.T) {
	want := strings.Fields(`MX-001 MX-002 MX-003 MX-004 TTL-001 TTL-002 TTL-003 TTL-004 TTL-005 EXT-001 EXT-002 EXT-003 EXT-004
		REL-001 REL-002 REL-003 REL-004 REL-005 REL-006 TOK-001 TOK-002 TOK-003 TOK-004 TOK-005 LOSS-001 LOSS-002 LOSS-003 LOSS-004 LOSS-005
		WAIT-001 WAIT-002 WAIT-003 WAIT-004 WAIT-005 WAIT-006 WAIT-007 CTX-001 CTX-002 CTX-003 CTX-004 KEY-001 KEY-002 KEY-003
		CLO-001 CLO-002 CLO-003 CLO-004 CLO-005 ERR-001 ERR-002 ERR-003 ERR-004 SES-001 SES-002 INS-001 INS-002 CONC-001 CONC-002
		FLT-001 FLT-002 FLT-003 FLT-004 FLT-005 FLT-006 FLT-007 FLT-008 FLT-009
		KEEP-001 KEEP-002 KEEP-003 KEEP-004 ELECT-001 ELECT-002 ELECT-003 ONCE-001 ONCE-002 ONCE-003 ONCE-004
		MULTI-001 MULTI-002 MULTI-003 MULTI-004 FAM-001
		ADM-001 ADM-002 ADM-003 ADM-004 ADM-005 ADM-006 ADM-007`)
	var got []string
	paths := map[string]bool{}
	for _, c := range Cases() {
		got = append(got, c.ID)
		if c.Clause == "" {
			t.Errorf("%s has no clause", c.ID)
		}
		if c.Why == "" {
			t.Errorf("%s has no reason", c.ID)
		}
		if c.fn == nil && len(c.Parts) == 0 {
			t.Errorf("%s has neither a function nor parts", c.ID)
		}
		if c.CoreLoop && len(c.Kinds) == 0 {
			t.Errorf("%s: without a kind, Known could not tell the core's own loop", c.ID)
		}
		for _, l := range c.leaves() {
			if l.fn == nil || paths[l.path()] {
				t.Errorf("%s has no function, or exists twice", l.path())
			}
			paths[l.path()] = true
		}
	}
	if len(reasons) != len(got) {
		t.Errorf("%d reasons for %d clauses", len(reasons), len(got))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the ids are\n%v, want\n%v", got, want)
	}
}

func TestVerdict(t *testing.T) {
	find := func(path string) leaf {
		for _, c := range Cases() {
			for _, l := range c.leaves() {
				for _, l.coreLoop = range []bool{false, c.CoreLoop} {
					if l.path() == path {
						return l
					}
				}
			}
		}
		t.Fatalf("there is no %s", path)
		return leaf{}
	}
	bad, good, skipped := result{failures: []string{"it failed"}}, result{}, result{skipped: "no Delete"}
	for _, tt := range []struct {
		known, path string
		r           result
		want        string // a part of skip or fail
		skip        bool
	}{
		{"", "TTL-001/lease", good, "", false},
		{"", "TTL-001/lease", bad, "it failed", false},
		{"", "LOSS-003/lease", skipped, "no Delete", true},
		{"TTL-001", "TTL-001/lease", bad, "known to fail: because", true},
		{"TTL-001", "TTL-001/lease", good, "TTL-001/lease passes, but is declared", false},
		{"TTL-001", "TTL-001/lease/core-loop", bad, "known to fail: because", true},
		{"TTL-001/lease", "TTL-001/lease", bad, "known to fail: because", true},
		{"TTL-001/lease", "TTL-001/session", bad, "it failed", false},
		{"TTL-001/lease", "TTL-001/lease/core-loop", bad, "it failed", false},
		{"TTL-001/lease/core-loop", "TTL-001/lease", bad, "it failed", false},
		{"TTL-001/lease/core-loop", "TTL-001/lease/core-loop", bad, "known to fail: because", true},
		{"WAIT-006/lease", "WAIT-006/lease/outage", bad, "known to fail: because", true},
		{"LOSS-003", "LOSS-003/lease", skipped, "no Delete", true},
		{"TTL-001", "TTL-001/lease/passed", good, "", false},
		{"TTL-001/lease", "TTL-001/lease/passed", bad, "it failed", false},
		{"TTL-001/lease/passed", "TTL-001/lease/passed", bad, "known to fail: because", true},
		{"CTX-004/lease", "CTX-004/lease/passed", bad, "known to fail: because", true},
	} {
		var opts []Option
		if tt.known != "" {
			opts = append(opts, Known(tt.known, "because"))
		}
		s, err := newSuite(refTarget(nil), opts)
		if err != nil {
			t.Fatal(err)
		}
		_, skip, fail := s.verdict(find(tt.path), tt.r)
		got, other := fail, skip
		if tt.skip {
			got, other = skip, fail
		}
		if !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") || other != "" {
			t.Errorf("Known(%q), %s: skip %q, fail %q; want %q", tt.known, tt.path, skip, fail, tt.want)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, tt := range []struct {
		opt  Option
		want string
	}{
		{Known("TTL-009", "because"), `no case "TTL-009"`},
		{Known("TTL-001/leases", "because"), `no case "TTL-001/leases"`},
		{Known("TTL-001", ""), "no reason"},
		{Only("MX-001", "FOO"), `no case "FOO"`},
		{Slack(0), "Slack is 0"},
	} {
		if _, err := newSuite(refTarget(nil), []Option{tt.opt}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v; want %s", err, tt.want)
		}
	}
	t.Setenv(SeedEnv, "seven")
	if _, err := newSuite(refTarget(nil), nil); err == nil || !strings.Contains(err.Error(), `"seven"`) {
		t.Errorf("%v; want the value named", err)
	}
}

// A case that hangs ends as a failure that shows where, whatever it is that hangs.
func TestWatchdog(t *testing.T) {
	forever := make(chan struct{}) // never closed
	for _, tt := range []struct {
		name  string
		hang  func(quit <-chan struct{})
		opts  []Option
		shows string
	}{
		{"waits, virtual time", func(<-chan struct{}) { select {} }, []Option{Synctest()}, "it hangs"},
		{"waits outside of the bubble", func(quit <-chan struct{}) { <-quit; <-forever }, []Option{Synctest(), Timeout(time.Second)}, "it hangs"},
		{"runs, virtual time", func(quit <-chan struct{}) {
			for !harness.IsClosed(quit) {
			}
		}, []Option{Synctest(), Timeout(time.Second)}, "it hangs"},
		{"waits, real time", func(quit <-chan struct{}) { <-quit }, []Option{Timeout(time.Second)}, "it hangs"},
		{"panics", func(<-chan struct{}) { panic("a backend panics") }, []Option{Synctest()}, "a backend panics"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			quit := make(chan struct{})
			defer close(quit)
			s, err := newSuite(refTarget(mutate(func(m *mutant) {
				m.acquire = func(context.Context, driver.Request) (driver.Grant, error) {
					tt.hang(quit)
					return driver.Grant{}, driver.ErrClosed
				}
			})), tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			r := s.execute(t, Cases()[2].leaves()[0])
			text := strings.Join(r.failures, "\n")
			if !strings.Contains(text, tt.shows) || !strings.Contains(text, "mutant_test.go") && !strings.Contains(text, "TestWatchdog") {
				t.Errorf("want a failure that says %q and shows the stack; got:\n%s", tt.shows, text)
			}
		})
	}
}

// A case that hangs says who waits for which key since when, and what the store says of it.
func TestStuck(t *testing.T) {
	s, err := newSuite(refTarget(nil), []Option{Synctest()})
	if err != nil {
		t.Fatal(err)
	}
	l := leaf{Case: Case{ID: "MX-001"}, kind: Lease, fn: func(c *trial) {
		a, b := c.client(), c.client()
		a.mustTry(c.Key("k"), locker.WithTTL(1000*far))
		p := b.goLock(c.Key("k"), locker.WithTTL(far), harness.Patient())
		c.Await(p.done, 1000*far, "what never comes")
	}}
	text := strings.Join(s.execute(t, l).failures, "\n")
	for _, want := range []string{"it hangs", `B waits for the lock of "k" since +0s; the store says that`, "holds it, token 1, a lease for another", "the case waits for this: what never comes since +0s"} {
		if !strings.Contains(text, want) {
			t.Errorf("the failure lacks %q:\n%s", want, text)
		}
	}
}

// A backend that panics fails the case at hand, also where nobody but the core's own goroutine
// calls it, and no other one.
func TestPanic(t *testing.T) {
	s, err := newSuite(refTarget(mutate(func(m *mutant) {
		m.release = func(context.Context, driver.Holder) error { panic("index out of range") }
	})), []Option{Synctest()})
	if err != nil {
		t.Fatal(err)
	}
	l := leaf{Case: Case{ID: "CTX-004"}, kind: Lease, fn: func(c *trial) {
		a := c.client()
		a.tap.Next(harness.OpAcquire, harness.Lose)
		_, _ = a.try(c.Key("k"), c.hold()...) // the core gives it back in the background
		c.Sleep(far)
	}}
	if text := strings.Join(s.execute(t, l).failures, "\n"); !strings.HasPrefix(text, "CTX-004: ") || !strings.Contains(text, "panic: index out of range") {
		t.Errorf("want a failure of CTX-004 that shows the panic; got:\n%s", text)
	}
}

// A backend whose Extend is still to be written makes nobody wait for the end of a lease that
// could not be shortened. In real time, because virtual time would wait for it.
func TestExtendToBeWritten(t *testing.T) {
	s, err := newSuite(func(t *testing.T) *Target {
		target := refTarget(mutate(func(m *mutant) {
			m.extend = func(context.Context, driver.Holder, time.Duration) (driver.Grant, error) {
				return driver.Grant{}, driver.ErrUnsupported
			}
		}))(t)
		target.Delete = nil // it would end the wait
		return target
	}, []Option{Timeout(20 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(concCases, func(c Case) bool { return c.ID == "CONC-001" })
	if r := s.execute(t, concCases[i].leaves()[0]); len(r.failures) > 0 {
		t.Error(strings.Join(r.failures, "\n"))
	}
}

// What a backend leaves behind for ever in a bubble is a failure of the case, and not the
// end of the test.
func TestLeftInBubble(t *testing.T) {
	s, err := newSuite(refTarget(mutate(func(m *mutant) {
		m.notify = func(key string, wake func()) func() {
			go func() { select {} }()
			return m.reference.Notify(key, wake)
		}
	})), []Option{Synctest()})
	if err != nil {
		t.Fatal(err)
	}
	r := s.execute(t, waitCases[0].leaves()[0])
	if text := strings.Join(r.failures, "\n"); !strings.Contains(text, "blocked goroutines remain") || !strings.Contains(text, "TestLeftInBubble.func") {
		t.Errorf("want a failure that shows the goroutine; got:\n%s", text)
	}
}

// A target that cannot be made is the test's failure, not the case's.
func TestNoTarget(t *testing.T) {
	for name, target := range map[string]*Target{"nil": nil, "no Backend": {}, "no Peer": {Backend: newReference(newRefStore())}} {
		s, err := newSuite(func(*testing.T) *Target { return target }, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r := s.execute(t, Cases()[0].leaves()[0]); len(r.failures) != 1 || !strings.Contains(r.failures[0], "newTarget returned no") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestOverlap(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(0, int64(ms)*1e6) }
	// Spans by number and by time; in virtual time many numbers share an instant.
	session := func(from, to int64) span { return span{from: from, to: to, at: at(1), unlockAt: at(1)} }
	lease := func(from int64, ms, deadline int) span {
		return span{from: from, at: at(ms), deadline: at(deadline)}
	}
	for _, tt := range []struct {
		name string
		a, b span
		want bool
	}{
		{"one after the other", session(1, 2), session(3, 4), false},
		{"one in the other", session(1, 4), session(2, 3), true},
		{"across", session(1, 3), session(2, 4), true},
		{"never unlocked", session(1, 0), session(5, 6), true},
		{"after the deadline", lease(1, 0, 10), lease(2, 10, 20), false},
		{"before the deadline", lease(1, 0, 10), lease(2, 9, 20), true},
		{"unlocked before the deadline", span{from: 1, to: 2, at: at(0), unlockAt: at(1), deadline: at(10)}, lease(3, 1, 20), false},
		{"a session in a lease", lease(1, 0, 10), session(2, 3), true},
	} {
		if got := overlap(tt.a, tt.b); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
		if got := overlap(tt.b, tt.a); got != tt.want {
			t.Errorf("%s, the other way round: %v", tt.name, got)
		}
	}
}

const selfEnv = "LOCKSTEP_CONFORMANCE_SELF"

// TestSelf fails by design; TestOutput runs it in a process of its own.
func TestSelf(t *testing.T) {
	if os.Getenv(selfEnv) == "" {
		t.Skip("TestOutput runs it")
	}
	var extendAdds func(*mutant)
	for _, m := range mutants {
		if m.name == "Extend adds" {
			extendAdds = m.alter
		}
	}
	Run(t, func(t *testing.T) *Target {
		target := refTarget(mutate(extendAdds))(t)
		target.Delete = nil
		return target
	}, Synctest(), Only("EXT-001", "EXT-002", "REL-001", "LOSS-003", "TTL-002", "MX-003/lease"),
		Known("TTL-002/store", "Extend adds, and we know it"), Known("MX-003", "we believe so"))
}

// What an author sees: each verdict where it belongs, the text of a failure, and a command
// that leads to the same failure again.
func TestOutput(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs the test binary several times")
	}
	run := func(env, pattern string) string {
		cmd := exec.Command(os.Args[0], "-test.run", pattern, "-test.v", "-test.count=1")
		cmd.Env = append(os.Environ(), selfEnv+"=1")
		if env != "" {
			cmd.Env = append(cmd.Env, env)
		}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if cmd.Run() == nil {
			t.Errorf("TestSelf passes:\n%s", out.String())
		}
		return out.String()
	}
	out := run("", "^TestSelf$")
	for _, want := range []string{
		"--- FAIL: TestSelf/EXT-001 ",
		"--- PASS: TestSelf/EXT-002 ",
		"--- PASS: TestSelf/REL-001/lease ",
		"--- PASS: TestSelf/REL-001/session ",
		"--- SKIP: TestSelf/LOSS-003/lease ",
		"the target has no Delete",
		"--- SKIP: TestSelf/TTL-002/store ",
		"known to fail: Extend adds, and we know it",
		"--- FAIL: TestSelf/MX-003/lease ",
		`MX-003/lease passes, but is declared with Known("MX-003", "we believe so")`,
		"EXT-001: expiry becomes now + d: never adds, may shorten\n",
		"want   ", "got    ", "extend.go:", "events:", `acquire "shorter" #`, ` lease 10m0s → token`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	if strings.Contains(out, "MX-003/session") || strings.Contains(out, "TTL-001") {
		t.Error("what Only does not name has run")
	}
	again := regexp.MustCompile(`again  (LOCKSTEP_SEED=\d+) go test -run '(\S+EXT-001\S*)' -count=1`).FindStringSubmatch(out)
	if again == nil {
		t.Fatalf("the output has no command for EXT-001:\n%s", out)
	}
	second := run(again[1], again[2])
	if !strings.Contains(second, "--- FAIL: TestSelf/EXT-001 ") || strings.Contains(second, "EXT-002") || !strings.Contains(second, again[0]) {
		t.Errorf("%s leads to:\n%s", again[0], second)
	}
	if t.Failed() {
		t.Log(fmt.Sprint("the output:\n", out))
	}
}
