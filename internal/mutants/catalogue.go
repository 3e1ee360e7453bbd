package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-go/lockstep/conformance"
)

const head = `# Catalogue of the clauses

<!-- Generated from conformance.Cases() and the tables of mutants. To renew it: make generate -->

Each clause of [the contract](contract.md) that package ` + "`conformance`" + ` runs by itself: what is required, why, and the mutants
that prove the case, which must fail each of them. [The matrix](matrix.md) shows which backend passes what; ` + "`make mutants`" + ` shows
by which subtest each mutant is caught.

- **runs for** names the kinds of hold, each a subtest of its own. **core-loop** means a second time in the core's own
  waiting, for a backend that waits by itself.
- **needs** is what a target must offer or a backend declare; without it the case, or that part, is skipped and says so.
- A **backend** is broken over a healthy reference; a **waiting backend** queues by itself; a **networked backend** stands behind a
  network with faults. A **core** is package locker itself, broken in one place; **memory**, **dirlock**, **Redis** and
  **Postgres** are the backends of this repository, broken in one place.

CONC-003 is not in the catalogue, because it compares two backends: ` + "`internal/proof`" + ` runs it.
`

// catalogue is docs/catalogue.md.
func catalogue(all []mutant) string {
	var b strings.Builder
	b.WriteString(head)
	for _, c := range conformance.Cases() {
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n\n%s\n\n", c.ID, escape(c.Clause), escape(c.Why))
		if runs := runsFor(c); runs != "" {
			fmt.Fprintf(&b, "- runs for: %s\n", runs)
		}
		if len(c.Needs) > 0 {
			fmt.Fprintf(&b, "- needs: %s\n", needs(c.Needs))
		}
		for _, p := range c.Parts {
			fmt.Fprintf(&b, "- part `%s`", p.Name)
			if len(c.Kinds) > 0 && len(p.Kinds) > 0 {
				fmt.Fprintf(&b, ", for %s", kinds(p.Kinds))
			}
			if len(p.Needs) > 0 {
				fmt.Fprintf(&b, ", needs %s", needs(p.Needs))
			}
			b.WriteString("\n")
		}
		mine := slices.DeleteFunc(slices.Clone(all), func(m mutant) bool { return m.Clause != c.ID })
		for _, m := range mine {
			fmt.Fprintf(&b, "- proven by a %s of which this is true: %s\n", m.Of, escape(m.Name))
		}
		if len(mine) == 0 {
			b.WriteString("- not proven by any mutant\n")
		}
	}
	return b.String()
}

func runsFor(c conformance.Case) string {
	s := kinds(c.Kinds)
	if c.CoreLoop {
		s += ", core-loop"
	}
	return s
}

func kinds(all []conformance.Kind) string {
	var names []string
	for _, k := range all {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

func needs(all []conformance.Need) string {
	var names []string
	for _, n := range all {
		names = append(names, "`"+n.String()+"`")
	}
	return strings.Join(names, ", ")
}

// escape keeps Markdown from reading what is meant as text.
func escape(s string) string { return strings.NewReplacer("*", `\*`, "<", `\<`, "|", `\|`).Replace(s) }
