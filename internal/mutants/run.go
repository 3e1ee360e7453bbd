package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// A mutant is one, and what became of it.
type mutant struct {
	Clause string   `json:"clause"`
	Name   string   `json:"name"`
	Of     string   `json:"of"` // backend, waiting backend, networked backend, or a base
	Racy   bool     `json:"racy"`
	First  string   `json:"first"` // the first clause, in the order of the suite, that failed it
	By     []string `json:"by"`    // the subtests of its own clause that failed it; none if it was not caught

	amiss string // how the suite ended, if neither with ok nor with a failure
}

// names lists all mutants without running any.
func names(ctx context.Context, root string) ([]mutant, error) {
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "names.json")
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-run=^TestMutantReport$", ".")
	cmd.Dir = filepath.Join(root, "conformance")
	cmd.Env = append(os.Environ(), "LOCKSTEP_MUTANTS_REPORT="+file, "LOCKSTEP_MUTANTS_NAMES=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("listing the broken backends: %w\n%s", err, out)
	}
	all, err := read(file)
	return append(all, ofBases("")...), err
}

// read is what package conformance told of its own mutants.
func read(file string) (all []mutant, err error) {
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	return all, err
}

// ofBases lists the mutants of one base, or of all.
func ofBases(of string) (all []mutant) {
	for _, b := range bases {
		for _, c := range b.changes {
			if of == "" || of == b.of {
				all = append(all, mutant{Clause: c.clause, Name: c.name, Of: b.of})
			}
		}
	}
	return all
}

// binary is the tests of one folder, compiled over the broken sources.
type binary struct{ path, dir string }

// build compiles them. They run in their own folder, as under go test.
func build(ctx context.Context, root, tests, dir, overlay string, flags ...string) (binary, error) {
	in := filepath.Join(root, tests)
	b := binary{filepath.Join(dir, strings.ReplaceAll(tests, "/", "-")+strings.Join(flags, "")+".test"), in}
	args := append([]string{"test", "-c", "-overlay", overlay, "-o", b.path}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Dir = in
	if out, err := cmd.CombinedOutput(); err != nil {
		return b, fmt.Errorf("building %s over the broken sources: %w\n%s", tests, err, out)
	}
	return b, nil
}

// A choice says which mutants run.
type choice struct {
	of      string         // a base, or "backend" for those in package conformance; empty for all
	name    *regexp.Regexp // of the names of a base's; nil for all
	virtual bool           // none whose store is real
	own     bool           // by their own clause only, and without a look at what is healthy: quick
}

func (c choice) takes(m mutant) bool {
	of := m.Of
	if strings.HasSuffix(of, "backend") {
		of = "backend"
	}
	real := slices.ContainsFunc(bases, func(b base) bool { return b.of == m.Of && b.real })
	return (c.of == "" || c.of == of) && (c.name == nil || c.name.MatchString(m.Name)) && !(c.virtual && real)
}

// runAll runs the mutants of a choice over the whole suite.
func runAll(ctx context.Context, root string, chosen choice) ([]mutant, error) {
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file, err := writeOverlay(root, dir, bases...)
	if err != nil {
		return nil, err
	}
	r := runner{root: root, dir: dir, overlay: file, chosen: chosen, binaries: map[string]binary{}}
	return r.all(ctx)
}

type runner struct {
	root, dir, overlay string
	chosen             choice
	binaries           map[string]binary
}

// binary of a folder, built once.
func (r *runner) binary(ctx context.Context, tests string, flags ...string) (binary, error) {
	id := tests + strings.Join(flags, "")
	if b, ok := r.binaries[id]; ok {
		return b, nil
	}
	b, err := build(ctx, r.root, tests, r.dir, r.overlay, flags...)
	r.binaries[id] = b
	return b, err
}

// job is one run of a test binary.
type job struct {
	m    *mutant
	base base
	b    binary
	own  bool
	racy bool // its fault is a data race, which one run may not show

	stages []string // of the whole suite, one after the other; see stagesOf
}

func (r *runner) all(ctx context.Context) ([]mutant, error) {
	var all []mutant
	if r.chosen.of == "" || r.chosen.of == "backend" {
		own, err := r.backends(ctx)
		if err != nil {
			return nil, err
		}
		all = own
	}
	n := len(all)
	all = append(all, slices.DeleteFunc(ofBases(r.chosen.of), func(m mutant) bool { return !r.chosen.takes(m) })...)
	var jobs []job
	healthy := map[string]job{}
	for i := range all[n:] {
		m := &all[n+i]
		at := slices.IndexFunc(bases, func(b base) bool { return b.of == m.Of })
		var flags []string
		racy := m.Clause == "CONC-002"
		if racy {
			flags = []string{"-race"}
		}
		b, err := r.binary(ctx, bases[at].tests, flags...)
		if err != nil {
			return nil, err
		}
		j := job{m: m, base: bases[at], b: b, own: r.chosen.own || racy, racy: racy}
		jobs = append(jobs, j)
		if !j.own {
			healthy[m.Of] = j
		}
	}
	// Nothing is wrong while no mutant is chosen.
	for _, of := range slices.Sorted(maps.Keys(healthy)) {
		j := healthy[of]
		var out string
		var err error
		for n := 0; n < j.base.tries() && (n == 0 || err != nil); n++ {
			out, err = j.b.run(ctx, "^"+j.base.run+"$", j.base.flags())
		}
		if err != nil {
			return nil, fmt.Errorf("the suite fails what is healthy: %s: %w\n%s", of, err, out)
		}
		for i := range jobs {
			if jobs[i].m.Of == of {
				jobs[i].stages = stagesOf(out, j.base)
			}
		}
	}
	for _, b := range bases {
		of := slices.DeleteFunc(slices.Clone(jobs), func(j job) bool { return j.base.of != b.of })
		if err := side(len(of), b.atOnce(), func(i int) error { return of[i].run(ctx) }); err != nil {
			return nil, err
		}
		// A race that is hit alone may not be while others take the processors.
		for _, j := range of {
			if j.base.real && !j.m.caught() {
				if err := j.runOwn(ctx); err != nil {
					return nil, err
				}
			}
		}
		progress(b.of, slices.DeleteFunc(slices.Clone(all), func(m mutant) bool { return m.Of != b.of }))
	}
	return all, nil
}

// progress tells on stderr how a part of the run ended: the whole takes an hour.
func progress(of string, all []mutant) {
	if len(all) > 0 {
		fmt.Fprintf(os.Stderr, "%s  %s: %s\n", time.Now().Format(time.TimeOnly), of, count(all).ofMutants())
	}
}

// side runs n functions, some side by side.
func side(n, atOnce int, f func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	free := make(chan struct{}, atOnce)
	for i := range n {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			errs[i] = f(i)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// backends runs the mutants that live in package conformance.
func (r *runner) backends(ctx context.Context) ([]mutant, error) {
	b, err := r.binary(ctx, "conformance")
	if err != nil {
		return nil, err
	}
	if out, err := b.run(ctx, "^(TestWaiter|TestFaults)$", nil); err != nil {
		return nil, fmt.Errorf("the suite fails what is healthy: %w\n%s", err, out)
	}
	shares := runtime.GOMAXPROCS(0)
	told := make([][]mutant, shares)
	err = side(shares, shares, func(i int) (err error) {
		file := filepath.Join(r.dir, fmt.Sprintf("report%d.json", i))
		env := []string{"LOCKSTEP_MUTANTS_REPORT=" + file, fmt.Sprintf("LOCKSTEP_MUTANTS_SHARE=%d/%d", i, shares)}
		if r.chosen.own {
			env = append(env, "LOCKSTEP_MUTANTS_OWN=1")
		}
		out, err := b.runFor(ctx, time.Hour, "^TestMutantReport$", nil, env...) // more than a hundred of them
		if err != nil {
			return fmt.Errorf("the broken backends: %w\n%s", err, out)
		}
		told[i], err = read(file)
		return err
	})
	if err != nil {
		return nil, err
	}
	all := make([]mutant, len(told[0]))
	for i := range all {
		all[i] = told[i%shares][i]
	}
	// Only a data race needs the detector, which makes all else slow.
	err = side(len(all), shares, func(i int) error {
		if !all[i].Racy {
			return nil
		}
		return r.racy(ctx, &all[i])
	})
	progress("backend", all)
	return all, err
}

// racyRuns is how often a race may stay unseen: the detector sees two accesses only if the
// schedule puts nothing between them that orders them, and one run shows most, not all.
const racyRuns = 10

// racy runs one whose fault is a data race. The detector blames whichever case is under way, so
// that it runs under its own alone.
func (r *runner) racy(ctx context.Context, m *mutant) error {
	b, err := r.binaryOnce(ctx)
	if err != nil {
		return err
	}
	const test = "TestRacyMutant"
	for n := 0; n < racyRuns && len(m.By) == 0; n++ {
		out, err := b.run(ctx, "^"+test+"$/^"+m.Clause+"$", nil, "LOCKSTEP_RACY_MUTANT="+m.Name)
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			return err
		}
		m.By = failedBy(out, test, m.Clause)
	}
	if len(m.By) > 0 {
		m.First = m.Clause
	}
	return nil
}

var building sync.Mutex

func (r *runner) binaryOnce(ctx context.Context) (binary, error) {
	building.Lock()
	defer building.Unlock()
	return r.binary(ctx, "conformance", "-race")
}

// stagesOf is what to run one after the other so that what fails first does so in the order of the suite, of which
// out is a run. In virtual time that is the suite. With a real store its cases run side by side, and
// one that the suite begins late may be the first to fail: there a stage is a few clauses, all of whose cases are waited for.
func stagesOf(out string, b base) (stages []string) {
	if !b.real {
		return []string{"^" + b.run + "$"}
	}
	const clauses = 18
	var order []string
	for _, m := range clauseLine.FindAllStringSubmatch(out, -1) {
		if m[1] == b.run {
			order = append(order, m[2])
		}
	}
	for some := range slices.Chunk(order, clauses) {
		stages = append(stages, "^"+b.run+"$/^("+strings.Join(some, "|")+")$")
	}
	return stages
}

// suite runs the whole suite, up to the first stage in which something fails.
func (j job) suite(ctx context.Context) (out string, err error) {
	flags := j.base.flags()
	if !j.base.real {
		flags = append(flags, "-test.failfast")
	}
	for _, stage := range j.stages {
		if out, err = j.b.run(ctx, stage, flags, chosenEnv+"="+j.m.Name); err != nil {
			break
		}
	}
	return out, err
}

// run runs one mutant: the suite in its order, up to the first clause that is broken; and its own
// clause alone, if that was another's.
func (j job) run(ctx context.Context) error {
	var out string
	tries := j.base.tries()
	if j.own {
		tries = 0
	}
	for range tries {
		var err error
		out, err = j.suite(ctx)
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			return err
		}
		j.m.First, j.m.amiss = firstFailed(out, j.base.run), ""
		if j.m.First == "" && err != nil {
			j.m.amiss = "the suite ended without the failure of a clause: " + err.Error()
		}
		if j.m.First == j.m.Clause || j.m.alike() {
			break
		}
	}
	runs := 0
	switch {
	case j.racy:
		runs = racyRuns
	case j.m.First != j.m.Clause || len(failedBy(out, j.base.run, j.m.Clause)) == 0: // or a case of another clause named it
		runs = 1
	}
	j.m.By = failedBy(out, j.base.run, j.m.Clause)
	first := out
	for n := 0; n < runs && (n == 0 || len(j.m.By) == 0); n++ {
		if err := j.runOwn(ctx); err != nil {
			return err
		}
	}
	if dir := os.Getenv("LOCKSTEP_MUTANTS_OUTPUT"); dir != "" && runs > 0 {
		_ = os.WriteFile(filepath.Join(dir, strings.ReplaceAll(j.m.Of+" "+j.m.Name, " ", "-")+".txt"), []byte(first), 0o644)
	}
	return nil
}

// runOwn runs it by its own clause alone.
func (j job) runOwn(ctx context.Context) error {
	out, err := j.b.run(ctx, "^"+j.base.run+"$/^"+j.m.Clause+"$", j.base.flags(), chosenEnv+"="+j.m.Name)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return err
	}
	j.m.By = failedBy(out, j.base.run, j.m.Clause)
	if j.own && len(j.m.By) > 0 {
		j.m.First = j.m.Clause // no other was asked
	}
	return nil
}

// tries is how often a run against a real store is looked at whose outcome is not what it should
// be: on a busy machine anything is late now and then, and lateness fails any case.
func (b base) tries() int {
	if b.real {
		return 2
	}
	return 1
}

// atOnce is how many mutants run side by side: one for each processor, because more would be late, and be
// caught for that. With a real store the suite waits most of the time; but a Postgres works hard.
func (b base) atOnce() int {
	if b.real && b.of != "Postgres" {
		return 3 * runtime.GOMAXPROCS(0)
	}
	return runtime.GOMAXPROCS(0)
}

func (b base) flags() []string {
	switch {
	case b.of == "Postgres": // each commit is a write to the disk
		return []string{"-test.parallel=16"}
	case b.real:
		return []string{"-test.parallel=32"}
	}
	return nil
}

// run runs some of them. One mutant that makes a case wait for ever costs eight minutes.
func (b binary) run(ctx context.Context, tests string, flags []string, env ...string) (string, error) {
	return b.runFor(ctx, 8*time.Minute, tests, flags, env...)
}

func (b binary) runFor(ctx context.Context, most time.Duration, tests string, flags []string, env ...string) (string, error) {
	patience, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	cmd := exec.CommandContext(patience, b.path, append(flags, "-test.run="+tests, "-test.v", "-test.count=1")...)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if patience.Err() != nil {
		fmt.Fprintln(&out, "it was stopped after", most) // which is an *exec.ExitError, as of any run that fails
	}
	return out.String(), cmp.Or(ctx.Err(), err)
}

var (
	clauseLine = regexp.MustCompile(`(?m)^=== RUN +([^/\s]+)/([^/\s]+)$`)
	failLine   = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	testLine   = regexp.MustCompile(`^=== (RUN|NAME|CONT) +(\S+)`)
	textLine   = regexp.MustCompile(`^ +suite\.go:\d+: ([A-Z]+-\d{3}): `)
)

// firstFailed is the clause that the first failure names: of the first case that failed, in the
// order in which the suite begins them, the first text.
func firstFailed(out, test string) string {
	failed := map[string]bool{}
	for _, m := range failLine.FindAllStringSubmatch(out, -1) {
		failed[m[1]] = true
	}
	var order []string           // the cases that failed
	named := map[string]string{} // by case: what its first text names
	current := ""                // the case whose output this is
	for line := range strings.Lines(out) {
		if m := testLine.FindStringSubmatch(line); m != nil {
			path, ok := strings.CutPrefix(m[2], test+"/")
			if current, _, _ = strings.Cut(path, "/"); !ok {
				continue
			}
			if m[1] == "RUN" && path == current && failed[m[2]] {
				order = append(order, current)
			}
		} else if m := textLine.FindStringSubmatch(line); m != nil && named[current] == "" {
			named[current] = m[1]
		}
	}
	if len(order) == 0 {
		return ""
	}
	return cmp.Or(named[order[0]], order[0])
}

// failedBy is the subtests of clause that failed, without those that only contain others.
// One that fails must say which clause is broken; the race detector says so in its own way.
func failedBy(out, test, clause string) (paths []string) {
	if !strings.Contains(out, clause+": ") && !strings.Contains(out, "race detected during execution of test") {
		return nil
	}
	var all []string
	for _, m := range failLine.FindAllStringSubmatch(out, -1) {
		path, ok := strings.CutPrefix(m[1], test+"/")
		if ok && (path == clause || strings.HasPrefix(path, clause+"/")) {
			all = append(all, path)
		}
	}
	for _, p := range all {
		inner := false
		for _, q := range all {
			inner = inner || strings.HasPrefix(q, p+"/")
		}
		if !inner {
			paths = append(paths, p)
		}
	}
	return paths
}
