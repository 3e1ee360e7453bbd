package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"
)

// A scenario that has taken so long begins no further round: on a machine that is busy with
// something else the report still ends some time.
const limit = 110 * time.Second

// Run runs a scenario's rounds, interleaved.
func Run(ctx context.Context, s *Scenario, rounds int, log io.Writer) *Result {
	r := &Result{Scenario: s, rounds: make(map[string]map[int]Sample), failed: make(map[string]string)}
	b := &Bench{ctx: ctx, log: log}
	defer b.cleanUp()

	run := make([]func() Sample, len(s.Subjects))
	for i, subject := range s.Subjects {
		r.rounds[subject.Name] = make(map[int]Sample)
		if err := catch(func() { run[i] = subject.Open(b) }); err != nil {
			r.failed[subject.Name] = err.Error()
		}
	}
	var mu sync.Mutex
	failures := make(map[string]int)
	const patience = 3 // failed rounds
	one := func(round, i int) {
		subject := s.Subjects[i]
		mu.Lock()
		skip := run[i] == nil || subject.Rounds > 0 && round >= subject.Rounds || failures[subject.Name] >= patience
		mu.Unlock()
		if skip || ctx.Err() != nil {
			return
		}
		var sample Sample
		err := catch(func() { sample = run[i]() })
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			r.failed[subject.Name] = err.Error()
			failures[subject.Name]++
			fmt.Fprintf(log, "%s: %s, round %d: %v\n", s.Name, subject.Name, round+1, err)
			return
		}
		r.rounds[subject.Name][round] = sample
	}
	began := time.Now()
	for round := range s.wanted(rounds) {
		if round > 0 && time.Since(began) > limit {
			break
		}
		var wg sync.WaitGroup
		for k := range s.Subjects {
			i := (k + round) % len(s.Subjects)
			if s.Together {
				wg.Go(func() { one(round, i) })
			} else {
				one(round, i)
			}
		}
		wg.Wait()
	}
	return r
}

// Bench is what a scenario's subjects have: a ctx, and the helpers of redistest, for which
// it is a testing.TB. Whatever fails in it ends the subject, and the report says why.
type Bench struct {
	testing.TB // nil: only what is below can be called
	ctx        context.Context
	log        io.Writer

	mu       sync.Mutex
	cleanups []func()
}

// failure is what Fatal panics with.
type failure struct{ error }

func (b *Bench) Helper()                           {}
func (b *Bench) Logf(format string, args ...any)   { fmt.Fprintf(b.log, format+"\n", args...) }
func (b *Bench) Fatalf(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }
func (b *Bench) Fatal(args ...any)                 { panic(failure{errors.New(fmt.Sprint(args...))}) }
func (b *Bench) Context() context.Context          { return b.ctx }

func (b *Bench) Cleanup(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cleanups = append(b.cleanups, f)
}

func (b *Bench) cleanUp() {
	for {
		b.mu.Lock()
		n := len(b.cleanups)
		if n == 0 {
			b.mu.Unlock()
			return
		}
		f := b.cleanups[n-1]
		b.cleanups = b.cleanups[:n-1]
		b.mu.Unlock()
		if err := catch(f); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

// check ends the subject if err is not nil.
func (b *Bench) check(err error) {
	if err != nil {
		b.Fatal(err)
	}
}

func catch(f func()) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure:
			err = p.error
		default:
			panic(p)
		}
	}()
	f()
	return nil
}

// sleep sleeps unless the run is given up.
func (b *Bench) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-b.ctx.Done():
		b.Fatal(b.ctx.Err())
	}
}
