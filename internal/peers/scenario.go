package peers

import (
	"fmt"
	"slices"
	"strings"
)

// A Sample is what one round of one subject measured, by the name of the metric.
type Sample map[string]float64

// A Scenario is one row of the report: work that several subjects do.
type Scenario struct {
	Section string // "Memory", "Redis" or "PostgreSQL"
	Name    string
	Goals   []Goal
	// Subjects in the order of the first round.
	Subjects []Subject
	// Rounds is the number of rounds of a row that takes long, if it is to be less than that of all.
	Rounds int
	// Opening are the columns that it adds to its section's table with which the page opens.
	Opening []Column
	// Together runs the subjects of a round at the same time: for work that is mostly waiting.
	Together bool
	// Note says what a reader must know to read the figures.
	Note string
}

// A Column is one metric, and what the opening table calls it.
type Column struct{ Metric, Heading string }

// A Subject is one of those who do the work.
type Subject struct {
	Name string
	// Rounds is the number of rounds, where they take so long that a subject which no goal
	// asks for does fewer. 0: as many as all.
	Rounds int
	// Open prepares, and returns what does one round. What it opens it closes by b.Cleanup.
	Open func(b *Bench) (round func() Sample)
}

// A Goal is one thing that is asked of one metric.
type Goal struct {
	Metric string
	Of     string   // the subject
	To     []string // the goal is about the ratio of Of to each of these; none: about the value
	Op     string   // "≤" or "≥"
	Limit  float64
}

// AtMost and AtLeast make the goals of Lockstep.
func AtMost(limit float64, metric string, to ...string) Goal {
	return Goal{Metric: metric, Of: lockstep, To: to, Op: "≤", Limit: limit}
}

func AtLeast(limit float64, metric string, to ...string) Goal {
	return Goal{Metric: metric, Of: lockstep, To: to, Op: "≥", Limit: limit}
}

// by is the goal of another subject than Lockstep itself.
func (g Goal) by(subject string) Goal { g.Of = subject; return g }

func (g Goal) String() string {
	of := g.Metric
	if g.Of != lockstep && g.Of != lockstepRedis && g.Of != lockstepPostgres {
		of += ", " + g.Of
	}
	switch {
	case len(g.To) == 0:
		return fmt.Sprintf("%s %s %s", of, g.Op, show(g.Metric, g.Limit))
	case g.Limit == 1:
		return fmt.Sprintf("%s %s %s", of, g.Op, strings.Join(g.To, ", "))
	}
	return fmt.Sprintf("%s %s %s × %s", of, g.Op, number(g.Limit), strings.Join(g.To, ", "))
}

// A Figure is what a goal was found to be.
type Figure struct {
	Value     float64 // the median over the rounds
	Low, High float64 // the middle half of them
	Rounds    int
	Met       bool
	Missing   string // why there is no figure
}

// figure looks at the rounds in which all who are compared took part.
func (g Goal) figure(r *Result) Figure {
	if reason := r.missing(g.Of); reason != "" {
		return Figure{Missing: reason}
	}
	worst := Figure{}
	if len(g.To) == 0 {
		worst = summarize(r.values(g.Of, g.Metric))
	}
	for _, to := range g.To {
		if reason := r.missing(to); reason != "" {
			return Figure{Missing: to + ": " + reason}
		}
		f := summarize(r.ratios(g.Of, to, g.Metric))
		if worst.Rounds == 0 || g.Op == "≤" && f.Value > worst.Value || g.Op == "≥" && f.Value < worst.Value {
			worst = f
		}
	}
	if worst.Rounds == 0 {
		worst.Missing = "no round measured it"
		return worst
	}
	worst.Met = g.Op == "≤" && worst.Value <= g.Limit || g.Op == "≥" && worst.Value >= g.Limit
	return worst
}

// show writes the figure, and the middle half where it tells something.
func (g Goal) show(f Figure) string {
	switch {
	case f.Missing != "":
		return "–"
	case len(g.To) > 0:
		if f.Low == f.High {
			return number(f.Value) + " ×"
		}
		return fmt.Sprintf("%s × (%s–%s)", number(f.Value), number(f.Low), number(f.High))
	case f.Low == f.High:
		return show(g.Metric, f.Value)
	}
	return fmt.Sprintf("%s (%s–%s)", show(g.Metric, f.Value), show(g.Metric, f.Low), show(g.Metric, f.High))
}

func (f Figure) verdict() string {
	switch {
	case f.Missing != "":
		return "not measurable: " + f.Missing
	case f.Met:
		return "met"
	}
	return "not met"
}

// A Result is what the rounds of a scenario measured.
type Result struct {
	Scenario *Scenario
	rounds   map[string]map[int]Sample // by subject, by round
	failed   map[string]string         // by subject: why it gave up
}

// wanted is how many of so many rounds the scenario was to do.
func (s *Scenario) wanted(rounds int) int {
	if s.Rounds > 0 {
		return min(s.Rounds, rounds)
	}
	return rounds
}

func (r *Result) missing(subject string) string {
	if len(r.rounds[subject]) > 0 {
		return ""
	}
	if reason := r.failed[subject]; reason != "" {
		return reason
	}
	return "it did not run"
}

func (r *Result) values(subject, metric string) []float64 {
	var values []float64
	for _, s := range r.rounds[subject] {
		if v, ok := s[metric]; ok {
			values = append(values, v)
		}
	}
	return values
}

func (r *Result) ratios(of, to, metric string) []float64 {
	var ratios []float64
	for i, s := range r.rounds[of] {
		own, ok := s[metric]
		other := r.rounds[to][i][metric]
		if ok && other > 0 {
			ratios = append(ratios, own/other)
		}
	}
	return ratios
}

// metrics are the names of what was measured, in alphabetical order.
func (r *Result) metrics() []string {
	var names []string
	for _, rounds := range r.rounds {
		for _, s := range rounds {
			for name := range s {
				if !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
	}
	slices.Sort(names)
	return names
}

// Scenarios are all rows of the report, in its order.
func Scenarios() []Scenario {
	var all []Scenario
	for _, s := range memoryScenarios() {
		s.Section = "Memory"
		all = append(all, s)
	}
	for _, s := range redisScenarios() {
		s.Section = "Redis"
		all = append(all, s)
	}
	for _, s := range postgresScenarios() {
		s.Section = "PostgreSQL"
		all = append(all, s)
	}
	return all
}
