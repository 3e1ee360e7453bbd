package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-go/lockstep/conformance"
)

const head = `# Backend × clause

<!-- Made from a run of the suite on every backend. To renew it: make matrix -->

What package ` + "`conformance`" + ` found, clause by clause; [the catalogue](catalogue.md) says what each clause is and why. A case has
subtests: for leases and sessions, and for parts that need different things.

- **pass**: all of them pass.
- **skip**: the target cannot bring about what the case needs, or the backend does not declare the capability.
- **known**: it fails, and this is declared with a reason. The suite fails as soon as it passes.
- Where the subtests differ, the numbers of each are given.

`

const known = "known to fail: "

// matrix is docs/matrix.md.
func matrix(columns []column, results []result) (string, error) {
	var b strings.Builder
	b.WriteString(head)
	b.WriteString("| Clause |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	var reasons []string
	for _, c := range conformance.Cases() {
		fmt.Fprintf(&b, "| %s |", c.ID)
		for _, col := range columns {
			text, err := cell(subtests(col, c.ID, results), &reasons)
			if err != nil {
				return "", fmt.Errorf("%s on %s: %w", c.ID, col.name, err)
			}
			fmt.Fprintf(&b, " %s |", text)
		}
		b.WriteString("\n")
	}
	b.WriteString("\nThe reasons:\n\n")
	for i, r := range reasons {
		fmt.Fprintf(&b, "%d. %s\n", i+1, r)
	}
	return b.String(), nil
}

// subtests are those of one case in one column. Of one that several of the column's tests
// ran, a pass counts more than a skip: the first test could not, the second did.
func subtests(col column, id string, results []result) []result {
	best := map[string]result{}
	var order []string
	for _, test := range col.tests {
		for _, r := range results {
			path, ok := strings.CutPrefix(r.test, test+"/")
			if !ok || path != id && !strings.HasPrefix(path, id+"/") {
				continue
			}
			old, seen := best[path]
			if !seen {
				order = append(order, path)
			}
			if !seen || old.action == "skip" {
				best[path] = r
			}
		}
	}
	var all []result
	for _, path := range order {
		all = append(all, best[path])
	}
	return all
}

func cell(subtests []result, reasons *[]string) (string, error) {
	if len(subtests) == 0 {
		return "", fmt.Errorf("it did not run")
	}
	names := []string{"pass", "known", "skip"}
	n := map[string]int{}
	why := map[string][]int{}
	for _, r := range subtests {
		name, reason := r.action, r.reason
		if text, ok := strings.CutPrefix(reason, known); ok {
			name, reason = "known", text
		}
		if !slices.Contains(names, name) {
			return "", fmt.Errorf("%s: %q", r.test, r.action)
		}
		n[name]++
		if name == "pass" {
			continue
		}
		if reason == "" {
			return "", fmt.Errorf("%s is skipped without a reason", r.test)
		}
		i := slices.Index(*reasons, reason)
		if i < 0 {
			i = len(*reasons)
			*reasons = append(*reasons, reason)
		}
		if !slices.Contains(why[name], i+1) {
			why[name] = append(why[name], i+1)
		}
	}
	var parts []string
	for _, name := range names {
		if n[name] == 0 {
			continue
		}
		text := name
		if len(n) > 1 {
			text = fmt.Sprint(n[name], " ", name)
		}
		if w := why[name]; len(w) > 0 {
			slices.Sort(w)
			text += " (" + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(w)), ", "), "[]") + ")"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", "), nil
}
