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
			if f.Rounds > 0 && f.Rounds < s.wanted(r.Rounds) {
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
			row = append(row, r.median(subject.Name, metric))
		}
		t = append(t, row)
		if reason := r.failed[subject.Name]; reason != "" {
			failed += fmt.Sprintf("\n%s, a round that failed: %s\n", subject.Name, reason)
		}
	}
	return t.String() + failed
}

// section is one of the page's tables.
type section struct {
	name string
	// Those of whom the page tells first: what a user chooses from, without floors.
	subjects []string
	note     string
}

var sections = []section{{
	"Memory", []string{lockstep, lockstepSession, mobyLocker, afterFuncMap, plainMutex},
	"A session has no ttl, nor has moby/locker. sync.Mutex is one key, and like moby/locker it has no order: its waiters are passed by, and a hand-off is mostly one to itself.",
}, {
	"Redis", []string{lockstepRedis, rawRueidislock, redsyncRueidis, redsyncGoRedis, redsyncDefault, bsmRedislock},
	"Client and server share the machine. redsync and bsm/redislock poll, each millisecond unless it says default.",
}, {
	"PostgreSQL", []string{lockstepPostgres, cirelloPglock, cirelloQuick, advisorySession, advisoryTx, allissonPglock},
	"An advisory lock has no ttl, no token and no notice of a loss, and writes nothing. cirello.io/pglock polls once a lease.",
}}

// beside is the table of Lockstep and its peers with which the page opens, for one section.
func (r *Report) beside(s section) string {
	t := table{{"subject"}}
	for _, name := range s.subjects {
		t = append(t, []string{name})
	}
	for _, result := range r.Results {
		if result.Scenario.Section != s.name {
			continue
		}
		for _, column := range result.Scenario.Opening {
			t[0] = append(t[0], column.Heading)
			for i, name := range s.subjects {
				t[i+1] = append(t[i+1], result.median(name, column.Metric))
			}
		}
	}
	return t.String()
}

// median is a subject's, as the page shows it.
func (r *Result) median(subject, metric string) string {
	values := r.values(subject, metric)
	if len(values) == 0 {
		return "–"
	}
	return show(metric, summarize(values).Value)
}

// Markdown is docs/benchmarks.md: what a reader came for, then all that was measured, then what was asked for.
func (r *Report) Markdown() string {
	var b strings.Builder
	fmt.Fprint(&b, `# Benchmarks

<!-- Written by make bench. Do not edit. -->

Lockstep beside what a user would pick instead: [memory](#memory), [Redis](#redis), [PostgreSQL](#postgresql). Medians, for this machine only;
below are [how they were measured](#how), all rows, the [goals](#memory-goals), met and not met, and [where the time goes](benchmarks-notes.md).

`)
	for _, s := range sections {
		fmt.Fprintf(&b, "## %s\n\n%s\n%s\n\n", s.name, r.beside(s), s.note)
	}
	fmt.Fprintf(&b, `## How

All do the same work, interleaved in one run (A B C, B C A, …), each in a
process of its own. A ratio is the median of the ratios within the rounds, with the middle half of them in
parentheses: what disturbs the machine disturbs both sides of a ratio.

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
	for _, s := range sections {
		fmt.Fprintf(&b, "## %s: medians\n\n", s.name)
		for _, result := range r.Results {
			if row := result.Scenario; row.Section == s.name {
				fmt.Fprintf(&b, "### %s\n\n%s\n", row.Name, result.Medians())
				if row.Note != "" {
					fmt.Fprintf(&b, "%s\n\n", row.Note)
				}
			}
		}
	}
	for _, s := range sections {
		fmt.Fprintf(&b, "## %s: goals\n\n%s\n", s.name, r.Goals(s.name))
	}
	b.WriteString("## Notes\n\n[Where the time goes](benchmarks-notes.md), by profile, and why what is not met is not.\n")
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
