package harness

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// SeedEnv is the environment variable that holds the seed of all random choices.
const SeedEnv = "LOCKSTEP_SEED"

// A Claim is another clause than the case's own, which the case meets on its way. A failure of it
// names that clause, so that an author begins with the right one.
type Claim struct {
	c  *Trial
	id string
}

// Claim is the clause id.
func (c *Trial) Claim(id string) Claim { return Claim{c, id} }

// Must is Trial.Must of the claim.
func (cl Claim) Must(ok bool, want, got string, args ...any) {
	if !ok {
		cl.Fatal(want, got, args...)
	}
}

// Fatal is Trial.Fatal of the claim.
func (cl Claim) Fatal(want, got string, args ...any) {
	cl.c.fatal(cl.id, want, fmt.Sprintf(got, args...))
}

// OK is Trial.OK of the claim.
func (cl Claim) OK(err error, what string, args ...any) {
	if err != nil {
		cl.Fatal(fmt.Sprintf(what, args...)+" succeeds", "%v", err)
	}
}

// Is is Trial.Is of the claim.
func (cl Claim) Is(err, target error, what string, args ...any) {
	if !errors.Is(err, target) {
		cl.Fatal(fmt.Sprintf(what, args...)+" gives an error that matches “"+target.Error()+"”", "%v", err)
	}
}

// Must ends the case unless ok. want and got say what was wanted and what came.
func (c *Trial) Must(ok bool, want, got string, args ...any) {
	if !ok {
		c.Fatal(want, got, args...)
	}
}

// Check is must that goes on.
func (c *Trial) Check(ok bool, want, got string, args ...any) {
	if !ok {
		c.add(c.text(c.ID, want, fmt.Sprintf(got, args...), caller()))
	}
}

// Fatal ends the calling goroutine, and with it the case.
func (c *Trial) Fatal(want, got string, args ...any) {
	c.fatal(c.ID, want, fmt.Sprintf(got, args...))
}

func (c *Trial) fatal(id, want, got string) {
	if c.Ctx.Err() == nil { // otherwise it is a consequence of the first
		c.add(c.text(id, want, got, caller()))
	}
	c.cancel()
	runtime.Goexit()
}

// OK ends the case if what gave an error.
func (c *Trial) OK(err error, what string, args ...any) {
	if err != nil {
		c.Fatal(fmt.Sprintf(what, args...)+" succeeds", "%v", err)
	}
}

// Is ends the case unless what gave an error that matches target.
func (c *Trial) Is(err, target error, what string, args ...any) {
	if !errors.Is(err, target) {
		c.Fatal(fmt.Sprintf(what, args...)+" gives an error that matches “"+target.Error()+"”", "%v", err)
	}
}

// IsNot ends the case if err matches target.
func (c *Trial) IsNot(err, target error, what string, args ...any) {
	if errors.Is(err, target) {
		c.Fatal(fmt.Sprintf(what, args...)+" gives no error that matches “"+target.Error()+"”", "%v", err)
	}
}

// Local says whether the core sees the backend as a driver.Local, whose calls take no time
// and do not fail. It does not where the case makes them fail, nor in the core's own loop.
func (c *Trial) Local() bool {
	_, local := driver.As[driver.Local](c.Backend)
	return local && !c.Tampers && !c.CoreLoop
}

// Tamper is called before a fault is put into a client's calls. If the core has seen a
// driver.Local, it relies on there being none: unless something has failed by then, the case
// begins again, see [Result].
func (c *Trial) Tamper() {
	if !c.Local() {
		return
	}
	c.mu.Lock()
	if !c.tampered {
		c.tampered, c.trusted = true, slices.Clone(c.failures)
	}
	c.mu.Unlock()
	c.cancel()
	runtime.Goexit()
}

// Skip ends the case as one that could not run.
func (c *Trial) Skip(why string) {
	c.mu.Lock()
	c.skipped = why
	c.mu.Unlock()
	runtime.Goexit()
}

// Note tells the reader of the test's log something that is no failure.
func (c *Trial) Note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

func (c *Trial) add(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	const most = 5
	if len(c.failures) < most {
		c.failures = append(c.failures, text)
	}
}

// Failed says whether anything has failed so far.
func (c *Trial) Failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.failures) > 0
}

// text is a failure as it is printed.
func (c *Trial) text(id, want, got, at string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n  want   %s\n  got    %s\n", id, c.ClauseOf(id), want, got)
	if id != c.ID {
		fmt.Fprintf(&b, "  in     a case of %s: %s\n", c.ID, c.ClauseOf(c.ID))
	}
	if at != "" {
		fmt.Fprintf(&b, "  at     %s\n", at)
	}
	if strings.HasPrefix(c.ID, "FLT") {
		fmt.Fprintf(&b, "  limits prompt %s, ttl %s, session validity %s, granularity %s, slack %v\n", c.Prompt(), c.Life(), c.Caps.SessionValidity, c.Granularity(), c.Slack)
	}
	fmt.Fprintf(&b, "  %s\n  again  %s", c.Hist.Text("    "), c.Again())
	return b.String()
}

// Again is the command that runs this subtest with the same random choices.
func (c *Trial) Again() string {
	names := strings.Split(c.T.Name(), "/")
	for i, n := range names {
		names[i] = "^" + regexp.QuoteMeta(n) + "$"
	}
	return fmt.Sprintf("%s=%d go test -run '%s' -count=1", SeedEnv, c.Seed, strings.Join(names, "/"))
}

// caller is where the case found the failure: the innermost frame that is not one of the
// helpers'.
func caller() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		f, more := frames.Next()
		own := filepath.Base(filepath.Dir(f.File)) == "harness"
		switch filepath.Base(f.File) {
		case "client.go", "fault.go", "trial.go":
			own = true
		}
		if !own {
			return fmt.Sprintf("%s:%d", filepath.Base(f.File), f.Line)
		}
		if !more {
			return ""
		}
	}
}
