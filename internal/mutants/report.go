package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/lockstep-go/lockstep/conformance"
)

// tally counts what the last lines of the report say.
type tally struct {
	clauses, proven, mutants, caught int

	// Over the whole suite, in its order: how many were failed by their own clause first, and how
	// many by another that is as right.
	right, alike int
}

func (t tally) String() string {
	return fmt.Sprintf("%d clauses, %d proven; %s", t.clauses, t.proven, t.ofMutants())
}

func (t tally) ofMutants() string {
	return fmt.Sprintf("%d mutants, %d caught; the first failure names the right clause for %d (%.1f %%), %d of them by one that is equally right",
		t.mutants, t.caught, t.right+t.alike, t.rate(), t.alike)
}

// enough is the part of the mutants, in percent, of which the first failure must name the right
// clause: it is what an author reads first.
const enough = 95

func (t tally) rate() float64 { return 100 * float64(t.right+t.alike) / float64(max(t.mutants, 1)) }

func (t tally) ok() bool {
	return t.clauses == t.proven && t.mutants == t.caught && t.rate() >= enough
}

func count(all []mutant) tally {
	t := tally{mutants: len(all)}
	for _, m := range all {
		if m.caught() {
			t.caught++
		}
		switch {
		case m.First == m.Clause:
			t.right++
		case m.alike():
			t.alike++
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
			switch {
			case by == "" && m.First == m.Clause:
				by = "a case of another clause, which names this one"
			case by == "":
				by = "nothing: NOT CAUGHT"
			}
			switch {
			case m.alike():
				by += "; first by " + m.First + ", which is as right: " + equallyRight[m.Name].why
			case m.First != m.Clause:
				by += "; FIRST BY " + cmp.Or(m.First, "nothing")
			}
			if m.amiss != "" {
				by += "; " + m.amiss
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

// alike says whether the clause that failed first is another one than the mutant's, but as right.
func (m mutant) alike() bool {
	return m.First != m.Clause && slices.Contains(equallyRight[m.Name].clauses, m.First)
}

// caught says whether a case failed that names its clause, or one that is as right.
func (m mutant) caught() bool { return len(m.By) > 0 || m.First == m.Clause || m.alike() }
