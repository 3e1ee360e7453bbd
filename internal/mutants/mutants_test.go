package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/catalogue.md")

// The report, and the catalogue that it belongs to.
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the suite over all the broken cores, and runs each")
	}
	root, err := workspace(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := runAll(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if n := count(all); !n.ok() {
		var b strings.Builder
		report(&b, all)
		t.Errorf("not every clause is proven, or not every mutant caught:\n%s", b.String())
	}

	file := filepath.Join(root, "docs", "catalogue.md")
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
		{Clause: "MX-001", Name: "caught", By: []string{"MX-001/lease"}},
		{Clause: "MX-001", Name: "not caught"},
		{Clause: "MX-002", Name: "not caught either"},
	}
	n := count(all)
	if n.ok() || n.proven != 1 || n.mutants != 3 || n.caught != 1 {
		t.Errorf("%s", n)
	}
	var b strings.Builder
	report(&b, all)
	for _, want := range []string{"nothing: NOT CAUGHT", "NO MUTANT", "58 clauses, 1 proven; 3 mutants, 1 caught\n"} {
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
		_, err := writeOverlay(root, t.TempDir(), []change{{name: "misfit", file: "lease.go", old: old}})
		if err == nil || !strings.Contains(err.Error(), "misfit") {
			t.Errorf("%q: %v; want an error that names the mutant", old, err)
		}
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
