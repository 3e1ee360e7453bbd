package scaffold

import (
	_ "embed"
	"strings"
)

// A Step is what an author writes next, and the cases that pass from then on.
type Step struct {
	What  string
	Cases []string // their ids, such as TTL-001/lease, in the suite's order
}

// It is made, and compared with what the suite says of a module that was made, by the
// test of the workspace's internal/scaffold.
//
//go:embed unwritten.txt
var unwritten string

// Unwritten are the cases of the suite that fail on a new module, in the order in which
// they come to pass.
func Unwritten() []Step {
	var steps []Step
	for _, line := range strings.Split(unwritten, "\n") {
		switch what, isStep := strings.CutPrefix(line, "# "); {
		case isStep:
			steps = append(steps, Step{What: what})
		case line != "":
			s := &steps[len(steps)-1]
			s.Cases = append(s.Cases, strings.Fields(line)...)
		}
	}
	return steps
}

// Fold writes the ids in lines of some 100 columns, each after indent.
func Fold(ids []string, indent string) string {
	const width = 100
	var b strings.Builder
	column := 0
	for _, id := range ids {
		if column > 0 && column+1+len(id) > width {
			b.WriteByte('\n')
			column = 0
		}
		if column == 0 {
			b.WriteString(indent)
			column = len(indent)
		} else {
			b.WriteByte(' ')
			column++
		}
		b.WriteString(id)
		column += len(id)
	}
	return b.String()
}
