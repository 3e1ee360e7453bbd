package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-go/lockstep/conformance"
)

var update = flag.Bool("update", false, "write docs/catalogue.md")

// Each mutant is caught by the case of its own clause, and the catalogue is what there is. Which
// clause the whole suite names first, and real stores, are for make mutants: they take many minutes.
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the suite over all the broken cores, and runs each")
	}
	root, err := workspace(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := runAll(t.Context(), root, choice{virtual: true, own: true})
	if err != nil {
		t.Fatal(err)
	}
	if n := count(all); !n.ok() {
		var b strings.Builder
		report(&b, all)
		t.Errorf("not every clause is proven, or not every mutant caught:\n%s", b.String())
	}

	file := filepath.Join(root, "docs", "catalogue.md")
	if all, err = names(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	want := catalogue(all)
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("docs/catalogue.md is stale (%v); renew it: make generate", err)
	}
}

// What is missing makes the last line, and with it the exit code, say so.
func TestTally(t *testing.T) {
	all := []mutant{
		{Clause: "MX-001", Name: "caught", First: "MX-001", By: []string{"MX-001/lease"}},
		{Clause: "MX-001", Name: "not caught"},
		{Clause: "MX-002", Name: "not caught either"},
	}
	n := count(all)
	if n.ok() || n.proven != 1 || n.mutants != 3 || n.caught != 1 || n.right != 1 {
		t.Errorf("%s", n)
	}
	var b strings.Builder
	report(&b, all)
	for _, want := range []string{"nothing: NOT CAUGHT", "NO MUTANT", fmt.Sprintf("%d clauses, 1 proven; 3 mutants, 1 caught; the first failure names the right clause for 1 (33.3 %%), 0", len(conformance.Cases()))} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, b.String())
		}
	}
}

// A change that does not fit the core is an error and no mutant.
func TestOverlayMisfit(t *testing.T) {
	root, err := workspace(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, old := range []string{"this stands nowhere", "return"} {
		_, err := writeOverlay(root, t.TempDir(), base{sources: "locker", changes: []change{{name: "misfit", file: "lease.go", old: old}}})
		if err == nil || !strings.Contains(err.Error(), "misfit") {
			t.Errorf("%q: %v; want an error that names the mutant", old, err)
		}
	}
}

// Every change fits its source.
func TestOverlayFits(t *testing.T) {
	root, err := workspace(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writeOverlay(root, t.TempDir(), bases...); err != nil {
		t.Error(err)
	}
}

func TestFailedBy(t *testing.T) {
	const out = `
    --- FAIL: TestReference/MX-001 (0.00s)
        --- FAIL: TestReference/MX-001/lease (0.00s)
            MX-001: one live hold
            --- FAIL: TestReference/MX-001/lease/core-loop (0.00s)
    --- FAIL: TestOther/MX-001 (0.00s)
`
	if got := strings.Join(failedBy(out, "TestReference", "MX-001"), " "); got != "MX-001/lease/core-loop" {
		t.Errorf("failed by %q", got)
	}
	if got := failedBy(strings.ReplaceAll(out, "MX-001: ", ""), "TestReference", "MX-001"); got != nil {
		t.Errorf("a failure that does not name the clause counts: %q", got)
	}
}

// What is equally right is said of mutants that there are, with another clause and a reason.
func TestAlike(t *testing.T) {
	root, err := workspace(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := names(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	known, clauses := map[string]string{}, map[string]bool{}
	for _, m := range all {
		if of, ok := known[m.Name]; ok && of != m.Of {
			t.Logf("%q is the name of mutants of %s and %s", m.Name, of, m.Of)
		}
		known[m.Name] = m.Of
	}
	for _, c := range conformance.Cases() {
		clauses[c.ID] = true
	}
	for name, a := range equallyRight {
		if known[name] == "" || a.why == "" || len(a.clauses) == 0 {
			t.Errorf("%q: there is no such mutant, or no clause, or no reason", name)
		}
		for _, id := range a.clauses {
			if !clauses[id] {
				t.Errorf("%q: there is no clause %s", name, id)
			}
		}
	}
}

// The first failure is that of the case that begins first, and counts for the clause that it names.
func TestFirstFailed(t *testing.T) {
	const out = `
=== RUN   TestRedis
=== RUN   TestRedis/TOK-003
=== PAUSE TestRedis/TOK-003
=== RUN   TestRedis/MX-004
=== RUN   TestRedis/TTL-001
=== CONT  TestRedis/TTL-001
    suite.go:206: TTL-001: the key is free again at ttl
=== NAME  TestRedis/MX-004/lease
    suite.go:206: MX-001: one live hold per key at any instant
          in     a case of MX-004
--- FAIL: TestRedis (1.00s)
    --- FAIL: TestRedis/TTL-001 (0.00s)
    --- PASS: TestRedis/TOK-003 (0.00s)
    --- FAIL: TestRedis/MX-004 (0.00s)
        --- FAIL: TestRedis/MX-004/lease (0.00s)
`
	if got := firstFailed(out, "TestRedis"); got != "MX-001" {
		t.Errorf("first %q, want MX-001", got)
	}
}
