package peers

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// A Report is what a run found.
type Report struct {
	Machine Machine
	Rounds  int
	Results []*Result
	Took    time.Duration
}

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
	t, failed := table{append([]string{"subject"}, metrics...)}, ""
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
			failed += fmt.Sprintf("\n%s, a round that failed: %s\n", subject.Name, reason)
		}
	}
	return t.String() + failed
}

var sections = []string{"Memory", "Redis", "PostgreSQL"}

// Markdown is docs/benchmarks.md.
func (r *Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Benchmarks

<!-- Written by make bench. Do not edit. -->

Lockstep and what a user would pick instead do the same work, interleaved in one run (A B C, B C A, …), each in a
process of its own. A ratio is the median of the ratios within the rounds, with the middle half of them in
parentheses: what disturbs the machine disturbs both sides of a ratio. Absolute figures hold for this machine only.

| | |
|---|---|
| processor | %s, %d cores |
| system | %s |
| Go | %s |
| Redis | %s, on the same machine |
| PostgreSQL | %s, on the same machine, with its own default durability |
| peers | %s |
| run | %d rounds, %s |

`, r.Machine.CPU, r.Machine.Cores, r.Machine.OS, r.Machine.Go, r.Machine.Redis, r.Machine.Postgres,
		strings.Join(r.Machine.Peers, ", "), r.Rounds, r.Took.Round(time.Second))
	fmt.Fprintf(&b, "Run it again with `make bench`, which writes this page; some rows only, with\n"+
		"`go run ./internal/peers/cmd/bench -run 'idle|crashed'`. It is a report: a goal that is not met fails nothing.\n"+
		"Allocations and the commands that Redis gets are exact, and those are tests (`internal/peers`).\n\n")
	for _, section := range sections {
		fmt.Fprintf(&b, "## %s: goals\n\n%s\n", section, r.Goals(section))
	}
	for _, section := range sections {
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
	b.WriteString("[Where the time goes](benchmarks-notes.md), by profile.\n")
	return b.String()
}

// table is Markdown that can be read as it is, too. The first row is the heading.
type table [][]string

func (t table) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	for n, row := range t {
		fmt.Fprintf(w, "| %s\t|\n", strings.Join(row, "\t| "))
		if n == 0 {
			fmt.Fprintln(w, strings.Repeat("|---\t", len(row))+"|")
		}
	}
	_ = w.Flush()
	return b.String()
}
