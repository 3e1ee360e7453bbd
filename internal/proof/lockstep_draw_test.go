package proof

import (
	"cmp"
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// programs draws what clients may do, in any order. There is no model: whatever is drawn
// has an outcome, and the other store's is the one that it must have.
//
// A program is drawn in parts, each of so few steps that they are done while a short lease
// lasts. At the end of a part these are waited for.
func programs() *rapid.Generator[program] {
	return rapid.Custom(func(t *rapid.T) program {
		keys := rapid.SliceOfNDistinct(rapid.SampledFrom(hostile), 1, 2, rapid.ID[string]).Draw(t, "keys")
		var p program
		for _, part := range rapid.SliceOfN(rapid.SliceOfN(steps(keys), 1, 10), 1, 10).Draw(t, "steps") {
			p = append(p, part...)
			if slices.ContainsFunc(part, func(s step) bool { return s.ttl == shortTTL }) {
				p = append(p, step{do: doPass})
			}
		}
		return p
	})
}

// weighted are the verbs, the simplest first and the frequent ones often.
var weighted = func() (all []string) {
	for _, v := range []struct {
		do    string
		times int
	}{
		{doTry, 16}, {doUnlock, 10}, {doExtend, 12}, {doInspect, 10}, {doLook, 6}, {doLock, 6}, {doPass, 3},
		{doHandOver, 4}, {doAwait, 1}, {doClose, 1}, {doOpen, 3},
	} {
		for range v.times {
			all = append(all, v.do)
		}
	}
	return all
}()

func steps(keys []string) *rapid.Generator[step] {
	key := rapid.SampledFrom(slices.Concat(slices.Repeat(keys, 10), []string{"", tooLongKey}))
	ttl := rapid.SampledFrom([]time.Duration{0, longTTL, shortTTL, longerTTL, 0, longTTL, shortTTL, 0, longTTL, shortTTL, wrongTTL, hugeTTL})
	lasting := rapid.SampledFrom([]time.Duration{0, longTTL, longerTTL})
	hold := rapid.SampledFrom([]string{"a", "b"})
	ctx := rapid.SampledFrom(append(make([]string, 25), "canceled", "nil"))
	return rapid.Custom(func(t *rapid.T) step {
		s := step{do: rapid.SampledFrom(weighted).Draw(t, "do")}
		if s.do == doPass {
			return s
		}
		switch s.do {
		case doExtend, doUnlock, doLook:
		default:
			s.by = rapid.IntRange(0, clients-1).Draw(t, "by")
		}
		switch s.do {
		case doTry, doLock:
			s.key, s.ttl, s.as = key.Draw(t, "key"), ttl.Draw(t, "ttl"), hold.Draw(t, "as")
		case doAwait:
			s.key, s.ttl, s.as = key.Draw(t, "key"), lasting.Draw(t, "ttl"), hold.Draw(t, "as")
		case doHandOver:
			s.ttl, s.as, s.of = lasting.Draw(t, "ttl"), hold.Draw(t, "as"), hold.Draw(t, "of")
		case doExtend:
			s.ttl, s.of = ttl.Draw(t, "ttl"), hold.Draw(t, "of")
		case doUnlock, doLook:
			s.of = hold.Draw(t, "of")
		case doInspect:
			s.key = key.Draw(t, "key")
		}
		switch s.do {
		case doLook, doOpen, doClose: // how much Close can release within a ctx that has ended, no two stores agree on
		default:
			s.ctx = ctx.Draw(t, "ctx")
		}
		return s
	})
}

// lockstep compares two kinds of store.
type lockstep struct {
	pair
	stores [2]func() opener
	least  program // that differed, as far as it has been shrunk
	ran    int     // programs that agreed
	steps  int     // of those
}

func newLockstep(tb testing.TB, p pair) *lockstep {
	return &lockstep{pair: p, stores: [2]func() opener{p.left.newStore(tb), p.right.newStore(tb)}}
}

// check fails t with the shrunk program if two stores differ.
func (l *lockstep) check(t *testing.T, n int) {
	t.Helper()
	if failure := l.find(n); failure != "" {
		t.Fatal(failure)
	}
}

// find draws programs until n of them have agreed, or one has not, which it shrinks and
// prints.
func (l *lockstep) find(n int) (failure string) {
	setRapid(n)
	drawn := programs()
	caught := &catcher{}
	var first string
	done := make(chan struct{})
	go func() { // because a failure ends its goroutine
		defer close(done)
		rapid.Check(caught, func(t *rapid.T) {
			prog := drawn.Draw(t, "program")
			switch r := prog.run(l.stores); {
			case r.void:
				t.Skip("the machine was too slow")
			case r.differ != 0:
				l.least = prog[:r.differ]
				first = cmp.Or(first, differs(l.pair, l.least, r))
				t.Fatal("the outcomes differ") // no more, as rapid compares failures by their text
			default:
				l.ran++
				l.steps += len(prog)
			}
		})
	}()
	<-done
	switch {
	case !caught.failed:
		return ""
	case l.least == nil:
		return caught.text.String()
	}
	l.reduce()
	if r := l.least.run(l.stores); r.differ != 0 {
		return differs(l.pair, l.least, r)
	}
	return "a program made a difference, and made none when it ran again:\n" + first
}

// reduce leaves out single steps as long as a difference is left. rapid, which knows only
// the random numbers behind them, may end where no step can be taken away by itself.
func (l *lockstep) reduce() {
	for i := len(l.least) - 2; i >= 0; i-- { // the last one shows the difference
		shorter := slices.Delete(slices.Clone(l.least), i, i+1)
		if r := shorter.run(l.stores); r.differ != 0 {
			l.least = shorter[:r.differ]
			i = len(l.least) - 1
		}
	}
}

// catcher is a test for rapid to fail.
type catcher struct {
	rapid.TB // nil: rapid calls nothing else
	failed   bool
	text     strings.Builder
}

func (c *catcher) Helper()                         {}
func (c *catcher) Name() string                    { return "lockstep" }
func (c *catcher) Fail()                           { c.failed = true }
func (c *catcher) Failed() bool                    { return c.failed }
func (c *catcher) FailNow()                        { c.failed = true; runtime.Goexit() }
func (c *catcher) Log(args ...any)                 { fmt.Fprintln(&c.text, args...) }
func (c *catcher) Logf(format string, args ...any) { fmt.Fprintf(&c.text, format+"\n", args...) }
func (c *catcher) Error(args ...any)               { c.Log(args...); c.Fail() }
func (c *catcher) Errorf(f string, args ...any)    { c.Logf(f, args...); c.Fail() }

func differs(p pair, prog program, r result) string {
	return fmt.Sprintf("CONC-003: one random sequence of operations has the same outcomes on every backend\n"+
		"  %s and %s differ at step %d:\n%s\n\nTo run it again, paste this into a test of this package:\n\n%s\n",
		p.left.name, p.right.name, r.differ, r.text(), prog.test(p.name))
}

// replay runs a program that was printed.
func replay(t *testing.T, p pair, prog program) {
	t.Helper()
	r := prog.run(newLockstep(t, p).stores)
	switch {
	case r.void:
		t.Fatal("the machine is too slow for the outcomes to mean anything")
	case r.differ != 0:
		t.Fatal(differs(p, prog, r))
	}
	t.Log("no difference:\n" + r.text())
}

// setRapid sets what only rapid's flags can.
func setRapid(checks int) {
	for name, value := range map[string]string{
		"rapid.checks":     fmt.Sprint(checks),
		"rapid.nofailfile": "true", // the printed program is the file
	} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
}
