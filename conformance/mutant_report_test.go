package conformance

import (
	"encoding/json"
	"fmt"
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
	First  string   `json:"first,omitempty"` // the first clause, in reading order, that failed it
	By     []string `json:"by,omitempty"`    // the subtests of its own clause that failed it
}

const (
	reportEnv = "LOCKSTEP_MUTANTS_REPORT" // the file to write
	namesEnv  = "LOCKSTEP_MUTANTS_NAMES"  // not empty: run none
	ownEnv    = "LOCKSTEP_MUTANTS_OWN"    // each by its own clause only: quick
	shareEnv  = "LOCKSTEP_MUTANTS_SHARE"  // 1/3: run every third one, beginning with the second
)

// TestMutantReport tells of all mutants in this package, as JSON.
func TestMutantReport(t *testing.T) {
	file := os.Getenv(reportEnv)
	if file == "" {
		t.Skip("internal/mutants runs it, in its own test and in make mutants")
	}
	var all []told
	share, shares := 0, 1
	if text := os.Getenv(shareEnv); text != "" {
		if _, err := fmt.Sscanf(text, "%d/%d", &share, &shares); err != nil {
			t.Fatalf("%s is %q: %v", shareEnv, text, err)
		}
	}
	tell := func(clause, name, of string, target func(*testing.T) *Target) {
		m := told{Clause: clause, Name: name, Of: of}
		if os.Getenv(namesEnv) == "" && len(all)%shares == share {
			t.Run(name, func(t *testing.T) {
				var failed []string
				if os.Getenv(ownEnv) == "" {
					failed = firstFailing(t, target)
				}
				m.First = clauseOf(failed)
				if m.By = naming(clause, failed); len(m.By) == 0 {
					m.By = naming(clause, failing(t, target, clause))
				}
				if os.Getenv(ownEnv) != "" && len(m.By) > 0 {
					m.First = clause
				}
				if m.First != clause && os.Getenv("LOCKSTEP_MUTANTS_OUTPUT") != "" {
					t.Log(m.Clause, "<-", m.First, strings.Join(failed, "\n"))
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

// firstFailing is what fails of the first clause, in reading order, of which anything does.
func firstFailing(t *testing.T, newTarget func(*testing.T) *Target) []string {
	for _, c := range elementaryFirst(Cases()) {
		if failed := failing(t, newTarget, c.ID); len(failed) > 0 {
			return failed
		}
	}
	return nil
}

func clauseOf(failed []string) string {
	if len(failed) == 0 {
		return ""
	}
	path, text, _ := strings.Cut(failed[0], "\n")
	id, _, _ := strings.Cut(path, "/")
	return namedBy(id, text)
}

// naming is the paths of the failures that name the clause: a failure must say what is broken.
func naming(clause string, failed []string) (paths []string) {
	for _, f := range failed {
		if path, text, _ := strings.Cut(f, "\n"); strings.Contains(text, clause+": ") {
			paths = append(paths, path)
		}
	}
	return paths
}
