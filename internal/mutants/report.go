package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/lockstep-go/lockstep/conformance"
)

// tally counts what the last line of the report says.
type tally struct{ clauses, proven, mutants, caught int }

func (t tally) String() string {
	return fmt.Sprintf("%d clauses, %d proven; %d mutants, %d caught", t.clauses, t.proven, t.mutants, t.caught)
}

func (t tally) ok() bool { return t.clauses == t.proven && t.mutants == t.caught }

func count(all []mutant) tally {
	t := tally{mutants: len(all)}
	for _, m := range all {
		if len(m.By) > 0 {
			t.caught++
		}
	}
	for _, c := range conformance.Cases() {
		t.clauses++
		if slices.ContainsFunc(all, func(m mutant) bool { return m.Clause == c.ID && len(m.By) > 0 }) {
			t.proven++
		}
	}
	return t
}

// report writes the table clause × mutant, and ends with the tally.
func report(w io.Writer, all []mutant) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "CLAUSE\tMUTANT OF\tWHAT IS TRUE OF IT\tFAILED BY")
	for _, c := range conformance.Cases() {
		clause, of := c.ID, 0
		for _, m := range all {
			if m.Clause != c.ID {
				continue
			}
			of++
			by := strings.Join(m.By, " ")
			if by == "" {
				by = "nothing: NOT CAUGHT"
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", clause, m.Of, m.Name, by)
			clause = ""
		}
		if of == 0 {
			fmt.Fprintf(tw, "%s\t\tNO MUTANT\t\n", clause)
		}
	}
	tw.Flush()
	fmt.Fprintln(w, count(all))
}
