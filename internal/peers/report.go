package peers

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A Report is what a run found.
type Report struct {
	Machine Machine
	Rounds  int
	Results []*Result
	Took    time.Duration
}

//go:embed notes.md
var notes string

// Goals is the table of goals of one section, or of all ("").
func (r *Report) Goals(section string) string {
	t := table{{"what", "goal", "figure", "verdict"}}
	for _, result := range r.Results {
		s := result.Scenario
		if section != "" && s.Section != section {
			continue
		}
		name := s.Name
		for _, g := range s.Goals {
			f := g.figure(result)
			figure := g.show(f)
			if f.Rounds > 0 && f.Rounds < r.Rounds {
				figure += fmt.Sprintf(" in %d rounds", f.Rounds)
			}
			t = append(t, []string{name, g.String(), figure, f.verdict()})
			name = ""
		}
	}
	return t.String()
}

// Medians is the table of a scenario's subjects.
func (r *Result) Medians() string {
	metrics := r.metrics()
	t := table{append([]string{"subject"}, metrics...)}
	for _, subject := range r.Scenario.Subjects {
		row := []string{subject.Name}
		if n := len(r.rounds[subject.Name]); subject.Rounds == 1 {
			row[0] += " (1 round)"
		} else if subject.Rounds > 0 && n > 0 {
			row[0] += fmt.Sprintf(" (%d rounds)", n)
		}
		for _, metric := range metrics {
			cell := "–"
			if values := r.values(subject.Name, metric); len(values) > 0 {
				cell = show(metric, summarize(values).Value)
			}
			row = append(row, cell)
		}
		t = append(t, row)
		if reason := r.failed[subject.Name]; reason != "" {
			t = append(t, append([]string{subject.Name + failedRound + reason}, slices.Repeat([]string{""}, len(metrics))...))
		}
	}
	return t.String()
}

// Markdown is docs/benchmarks.md.
func (r *Report) Markdown(picture string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Benchmarks

<!-- Written by make bench. Do not edit: the text at the end is internal/peers/notes.md. -->

Lockstep and what a user would pick instead do the same work, interleaved in one run (A B C, B C A, …), each in a
process of its own. A ratio is the median of the ratios within the rounds, with the middle half of them in
parentheses: what disturbs the machine disturbs both sides of a ratio. Absolute figures hold for this machine only.

| | |
|---|---|
| processor | %s, %d cores |
| system | %s |
| Go | %s |
| Redis | %s, on the same machine |
| peers | %s |
| run | %d rounds, %s |

`, r.Machine.CPU, r.Machine.Cores, r.Machine.OS, r.Machine.Go, r.Machine.Redis,
		strings.Join(r.Machine.Peers, ", "), r.Rounds, r.Took.Round(time.Second))
	fmt.Fprintf(&b, "Run it again with `make bench`, which writes this page; some rows only, with\n"+
		"`go run ./internal/peers/cmd/bench -run 'idle|crashed'`. It is a report: a goal that is not met fails nothing.\n"+
		"Allocations and the commands that Redis gets are exact, and those are tests (`internal/peers`).\n\n")
	fmt.Fprintf(&b, "![how far each figure is from its goal](%s)\n\n", picture)
	for _, section := range []string{"Memory", "Redis"} {
		fmt.Fprintf(&b, "## %s: goals\n\n%s\n", section, r.Goals(section))
	}
	for _, section := range []string{"Memory", "Redis"} {
		fmt.Fprintf(&b, "## %s: medians\n\n", section)
		for _, result := range r.Results {
			if s := result.Scenario; s.Section == section {
				fmt.Fprintf(&b, "### %s\n\n%s\n", s.Name, result.Medians())
				if s.Note != "" {
					fmt.Fprintf(&b, "%s\n\n", s.Note)
				}
			}
		}
	}
	b.WriteString(notes)
	return b.String()
}

const failedRound = ", a round that failed: "

// table is Markdown that can be read as it is, too. The first row is the heading.
type table [][]string

func (t table) String() string {
	widths := make([]int, len(t[0]))
	for _, row := range t {
		for i, cell := range row {
			if strings.Contains(row[0], failedRound) {
				continue
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for n, row := range t {
		for i, cell := range row {
			fmt.Fprintf(&b, "| %s%s ", cell, strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(cell), 0)))
		}
		b.WriteString("|\n")
		if n == 0 {
			for _, w := range widths {
				b.WriteString("|" + strings.Repeat("-", w+2))
			}
			b.WriteString("|\n")
		}
	}
	return b.String()
}
