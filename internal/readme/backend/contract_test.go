package backend

import (
	"os"
	"regexp"
	"testing"

	"github.com/lockstep-go/lockstep/conformance"
)

var clause = regexp.MustCompile(`(?m)^\*\*([A-Z]+-[0-9]{3})\*\* `)

// Each case of the suite has its clause in docs/contract.md, and no id is there twice.
func TestEveryCaseHasAClause(t *testing.T) {
	data, err := os.ReadFile("../../../docs/contract.md")
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]bool{}
	for _, m := range clause.FindAllStringSubmatch(string(data), -1) {
		if written[m[1]] {
			t.Errorf("docs/contract.md has %s twice", m[1])
		}
		written[m[1]] = true
	}
	cases := conformance.Cases()
	if len(cases) == 0 || len(written) == 0 {
		t.Fatalf("%d cases, %d clauses", len(cases), len(written))
	}
	for _, c := range cases {
		if !written[c.ID] {
			t.Errorf("docs/contract.md lacks %s: %s", c.ID, c.Clause)
		}
	}
}
