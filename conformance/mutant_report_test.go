package conformance

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// told is what the report of internal/mutants reads of one mutant.
type told struct {
	Clause string   `json:"clause"`
	Name   string   `json:"name"`
	Of     string   `json:"of"` // what it is a mutant of
	Racy   bool     `json:"racy,omitempty"`
	By     []string `json:"by,omitempty"` // the subtests that failed it
}

const (
	reportEnv = "LOCKSTEP_MUTANTS_REPORT" // the file to write
	namesEnv  = "LOCKSTEP_MUTANTS_NAMES"  // not empty: run none
)

// TestMutantReport tells of all mutants in this package, as JSON.
func TestMutantReport(t *testing.T) {
	file := os.Getenv(reportEnv)
	if file == "" {
		t.Skip("make mutants runs it; TestMutants and its neighbours fail by themselves")
	}
	var all []told
	tell := func(clause, name, of string, target func(*testing.T) *Target) {
		m := told{Clause: clause, Name: name, Of: of}
		if os.Getenv(namesEnv) == "" {
			t.Run(name, func(t *testing.T) {
				for _, f := range failing(t, target, clause) {
					path, text, _ := strings.Cut(f, "\n")
					if strings.Contains(text, clause+": ") { // the failure must name what is broken
						m.By = append(m.By, path)
					}
				}
			})
		}
		all = append(all, m)
	}
	for _, m := range mutants {
		tell(m.clause, m.name, "backend", refTarget(mutate(m.alter)))
	}
	for _, m := range waiterMutants {
		tell(m.clause, m.name, "waiting backend", queueingTarget(m.alter))
	}
	for _, m := range faultMutants {
		tell(m.clause, m.name, "networked backend", refNetTarget(m.alter))
	}
	for _, m := range racyMutants {
		all = append(all, told{Clause: m.clause, Name: m.name, Of: "backend", Racy: true})
	}
	text, err := json.Marshal(all)
	if err == nil {
		err = os.WriteFile(file, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
