package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"
)

// A mutant is one, and what became of it.
type mutant struct {
	Clause string   `json:"clause"`
	Name   string   `json:"name"`
	Of     string   `json:"of"` // backend, waiting backend, networked backend, core
	Racy   bool     `json:"racy"`
	By     []string `json:"by"` // the subtests that failed it; none if it was not caught
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
	return withCores(file)
}

// withCores reads what package conformance told, and adds the broken cores.
func withCores(file string) ([]mutant, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []mutant
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, err
	}
	for _, c := range core {
		all = append(all, mutant{Clause: c.clause, Name: c.name, Of: "core"})
	}
	return all, nil
}

// binary is the suite's own tests, compiled with the race detector over a core that holds
// all the broken ones.
type binary struct{ path, dir string }

// runAll runs every mutant against its clause.
func runAll(ctx context.Context, root string) ([]mutant, error) {
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	overlay, err := writeOverlay(root, dir, core)
	if err != nil {
		return nil, err
	}
	b := binary{filepath.Join(dir, "conformance.test"), dir}
	build := exec.CommandContext(ctx, "go", "test", "-race", "-c", "-overlay", overlay, "-o", b.path, ".")
	build.Dir = filepath.Join(root, "conformance")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the broken cores: %w\n%s", err, out)
	}

	// Nothing is wrong while no mutant is chosen.
	if out, err := b.run(ctx, "^(TestReference|TestWaiter|TestFaults)$"); err != nil {
		return nil, fmt.Errorf("healthy backends over the healthy core fail: %w\n%s", err, out)
	}
	file := filepath.Join(dir, "report.json")
	if out, err := b.run(ctx, "^TestMutantReport$", "LOCKSTEP_MUTANTS_REPORT="+file); err != nil {
		return nil, fmt.Errorf("the broken backends: %w\n%s", err, out)
	}
	all, err := withCores(file)
	if err != nil {
		return nil, err
	}
	return all, b.runEach(ctx, all)
}

// racyRuns is how often a race may stay unseen: the detector sees two accesses only if the
// schedule puts nothing between them that orders them, and one run shows most, not all.
const racyRuns = 10

// runEach runs those that need a process of their own.
func (b binary) runEach(ctx context.Context, all []mutant) error {
	var wg sync.WaitGroup
	errs := make([]error, len(all))
	free := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i := range all {
		m := &all[i]
		test, choice := "TestReference", chosenEnv
		switch {
		case m.Racy:
			test, choice = "TestRacyMutant", "LOCKSTEP_RACY_MUTANT"
		case m.Of != "core":
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			free <- struct{}{}
			defer func() { <-free }()
			runs := 1
			if m.Clause == "CONC-002" {
				runs = racyRuns
			}
			for ; runs > 0 && len(m.By) == 0 && errs[i] == nil; runs-- {
				out, err := b.run(ctx, "^"+test+"$/^"+m.Clause+"$", choice+"="+m.Name)
				if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
					errs[i] = err
				} else if m.By = failedBy(out, test, m.Clause); err != nil && len(m.By) == 0 {
					errs[i] = fmt.Errorf("the mutant %q fails otherwise than by %s:\n%s", m.Name, m.Clause, out)
				}
			}
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (b binary) run(ctx context.Context, tests string, env ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.path, "-test.run="+tests, "-test.v", "-test.count=1")
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

var failLine = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

// failedBy is the subtests of clause that failed, without those that only contain others.
// One that fails must say which clause is broken; the race detector says so in its own way.
func failedBy(out, test, clause string) (paths []string) {
	if !strings.Contains(out, clause+": ") && !strings.Contains(out, "race detected during execution of test") {
		return nil
	}
	var all []string
	for _, m := range failLine.FindAllStringSubmatch(out, -1) {
		if path, ok := strings.CutPrefix(m[1], test+"/"); ok {
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
