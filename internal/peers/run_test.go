package peers

import (
	"io"
	"slices"
	"strings"
	"testing"
)

// constant is a subject whose rounds measure what values says, one after the other.
func constant(name string, order *[]string, values ...float64) Subject {
	return Subject{Name: name, Open: func(b *Bench) func() Sample {
		i := 0
		return func() Sample {
			*order = append(*order, name)
			i++
			if values[i-1] < 0 {
				b.Fatal("no value")
			}
			return Sample{p50: values[i-1]}
		}
	}}
}

func TestRun(t *testing.T) {
	var order []string
	s := Scenario{
		Section: "Memory", Name: "work",
		Opening: []Column{{p50, "pair"}},
		Goals:   []Goal{AtMost(1.5, p50, "b"), AtMost(1.4, p50, "b", "c"), AtLeast(10, p50), AtMost(1, p50, "d")},
		Subjects: []Subject{
			constant(lockstep, &order, 10, 20, 30),
			constant("b", &order, 10, 10, 20),
			constant("c", &order, 10, 10, 10),
			{Name: "d", Open: func(b *Bench) func() Sample { b.Fatal("there is no d"); return nil }},
		},
	}
	r := Run(t.Context(), &s, 3, io.Discard)

	if got := strings.Join(order, " "); got != "Lockstep b c b c Lockstep c Lockstep b" {
		t.Errorf("the order of the rounds was %s", got)
	}
	for i, want := range []Figure{
		{Value: 1.5, Met: true}, // of 1, 2 and 1.5
		{Value: 2},              // to c, the worse one
		{Value: 20, Met: true},
		{Missing: "d: there is no d"},
	} {
		got := s.Goals[i].figure(r)
		if got.Value != want.Value || got.Met != want.Met || got.Missing != want.Missing {
			t.Errorf("%s: got %+v, want %+v", s.Goals[i], got, want)
		}
	}
	report := Report{Rounds: 3, Results: []*Result{r}}
	page := report.Markdown()
	// In this order: beside the peers, the medians, the goals and their verdicts, the notes.
	rest := page
	for _, want := range []string{
		"| subject          | pair  |\n", "| Lockstep         | 20 ns |\n", "| moby/locker      | –     |\n",
		"## Memory: medians", "| subject  | p50   |\n", "| b        | 10 ns |\n",
		"## Memory: goals", "| 1.5 × (1–2)", "| met ", "not measurable: d: there is no d",
		"(benchmarks-notes.md)",
	} {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			t.Fatalf("the page lacks %q, or has it elsewhere:\n%s", want, page)
		}
		rest = after
	}
}

// TestScenarioRounds: a row that takes long does fewer rounds, and the page does not say that some are missing.
func TestScenarioRounds(t *testing.T) {
	var order []string
	s := Scenario{Section: "Memory", Goals: []Goal{AtMost(1, p50)}, Rounds: 2, Subjects: []Subject{constant(lockstep, &order, 1, 1, 1)}}
	report := Report{Rounds: 3, Results: []*Result{Run(t.Context(), &s, 3, io.Discard)}}
	if len(order) != 2 {
		t.Errorf("it did %d rounds; want 2", len(order))
	}
	if goals := report.Goals(""); strings.Contains(goals, "rounds") {
		t.Errorf("the goals complain:\n%s", goals)
	}
}

// TestFailedRounds: one failed round is left out, and all failed rounds are no figure.
func TestFailedRounds(t *testing.T) {
	var order []string
	s := Scenario{Goals: []Goal{AtMost(1, p50, "b"), AtMost(1, p50, "c")}, Subjects: []Subject{
		constant(lockstep, &order, 2, -1, 2, 2),
		constant("b", &order, 4, 1, 4, 4),
		constant("c", &order, -1, -1, -1, -1),
	}}
	r := Run(t.Context(), &s, 4, io.Discard)
	if f := s.Goals[0].figure(r); f.Value != 0.5 || f.Rounds != 3 {
		t.Errorf("got %+v", f)
	}
	if f := s.Goals[1].figure(r); f.Missing != "c: no value" {
		t.Errorf("got %+v", f)
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		metric string
		value  float64
		want   string
	}{
		{perPair, 74.04, "74 ns"}, {perPair, 4286, "4.29 µs"}, {perPair, 0.31, "0.31 ns"}, {perPair, 2.71e9, "2.71 s"},
		{throughput, 138_000, "138 k/s"}, {throughput, 2.3e6, "2.3 M/s"}, {throughput, 512.4, "512/s"},
		{bytesEach, 200, "200 B"}, {shares, 0.0041, "0.0041"}, {stuckWaiters, 0, "0"},
	} {
		if got := show(c.metric, c.value); got != c.want {
			t.Errorf("show(%q, %v) = %q, want %q", c.metric, c.value, got, c.want)
		}
	}
}

// TestScenarios: every goal is about subjects that are there, and names are not used twice.
func TestScenarios(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range Scenarios() {
		if id := s.Section + s.Name; seen[id] {
			t.Errorf("%s: %s is there twice", s.Section, s.Name)
		} else {
			seen[id] = true
		}
		names := make(map[string]bool)
		for _, subject := range s.Subjects {
			if names[subject.Name] {
				t.Errorf("%s: subject %s is there twice", s.Name, subject.Name)
			}
			names[subject.Name] = subject.Rounds == 0
		}
		if len(s.Opening) > 0 && !slices.ContainsFunc(sections, func(opening section) bool {
			return opening.name == s.Section && slices.ContainsFunc(opening.subjects, func(name string) bool { return names[name] })
		}) {
			t.Errorf("%s: none of its subjects is among those with which the page opens", s.Name)
		}
		for _, g := range s.Goals {
			for _, name := range append([]string{g.Of}, g.To...) {
				if full, ok := names[name]; !ok || !full {
					t.Errorf("%s: the goal %q needs subject %q in all rounds", s.Name, g, name)
				}
			}
		}
	}
}
