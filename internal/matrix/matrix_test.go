package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/lockstep-go/lockstep/conformance"
)

// The matrix on record is of these backends and of all clauses that there are. What stands in it
// is checked only by make matrix, which takes minutes.
func TestFresh(t *testing.T) {
	data, err := os.ReadFile("../../docs/matrix.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(data), head) {
		t.Error("the head is another one")
	}
	var ids []string
	reasons := 0
	number := regexp.MustCompile(`\((\d+(?:, \d+)*)\)`)
	greatest := 0
	for _, line := range strings.Split(string(data), "\n") {
		switch fields := strings.Split(strings.Trim(line, "| "), " | "); {
		case strings.HasPrefix(line, "| Clause |"):
			var names []string
			for _, c := range columns {
				names = append(names, c.name)
			}
			if !slices.Equal(fields[1:], names) {
				t.Errorf("the backends are %q, want %q", fields[1:], names)
			}
		case strings.HasPrefix(line, "| "):
			ids = append(ids, fields[0])
			if len(fields) != 1+len(columns) {
				t.Errorf("%s has %d cells, want %d", fields[0], len(fields)-1, len(columns))
			}
			for _, m := range number.FindAllStringSubmatch(line, -1) {
				for _, n := range strings.Split(m[1], ", ") {
					i, _ := strconv.Atoi(n)
					greatest = max(greatest, i)
				}
			}
		case regexp.MustCompile(`^\d+\. `).MatchString(line):
			reasons++
		}
	}
	var want []string
	for _, c := range conformance.Cases() {
		want = append(want, c.ID)
	}
	if !slices.Equal(ids, want) {
		t.Errorf("the clauses are\n%v, want\n%v", ids, want)
	}
	if reasons != greatest {
		t.Errorf("%d reasons, and the greatest number in the table is %d", reasons, greatest)
	}
	if t.Failed() {
		t.Log("docs/matrix.md is stale; renew it: make matrix")
	}
}

func TestMatrix(t *testing.T) {
	var in strings.Builder
	say := func(test, action, output string) {
		if output != "" {
			fmt.Fprintf(&in, "{\"Action\":\"output\",\"Test\":%q,\"Output\":%q}\n", test, output)
		}
		fmt.Fprintf(&in, "{\"Action\":%q,\"Test\":%q}\n", action, test)
	}
	for _, c := range conformance.Cases() {
		switch c.ID {
		case "MX-001":
			say("TestA/MX-001/lease", "run", "")
			say("TestA/MX-001/lease/core-loop", "pass", "")
			say("TestA/MX-001/lease", "skip", "    suite.go:1: a note\n    suite.go:2: no Delete\n")
			say("TestA/MX-001/session", "pass", "")
			say("TestA/MX-001", "pass", "")
		case "MX-002":
			say("TestA/MX-002", "skip", "    suite.go:2: known to fail: we accept it\n")
		case "MX-003":
			say("TestA/MX-003", "skip", "    suite.go:2: no Delete\n")
			say("TestB/MX-003", "pass", "")
		default:
			say("TestA/"+c.ID, "pass", "")
		}
	}
	say("TestA", "pass", "")
	results, err := read(strings.NewReader(in.String()))
	if err != nil {
		t.Fatal(err)
	}
	text, err := matrix([]column{{"a", []string{"TestA", "TestB"}}}, results)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| MX-001 | 2 pass, 1 skip (1) |", "| MX-002 | known (2) |", "| MX-003 | pass |", "| MX-004 | pass |",
		"\n1. no Delete\n2. we accept it\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the matrix lacks %q:\n%s", want, text)
		}
	}
	if _, err := matrix([]column{{"b", []string{"TestB"}}}, results); err == nil {
		t.Error("cases that did not run make no error")
	}
}
