package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// A result is what came of one subtest that did something.
type result struct {
	test   string // TestRedis/MX-001/lease
	action string // pass, skip or fail
	reason string // of a skip
	output string
}

var said = regexp.MustCompile(`(?m)^\s+\S+\.go:\d+: (.+)$`)

// read takes in what go test -json says, in the order in which the tests began.
func read(r io.Reader) ([]result, error) {
	var all []*result
	by := map[string]*result{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var e struct{ Action, Test, Output string }
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("go test -json said %q: %w", lines.Text(), err)
		}
		if e.Test == "" {
			continue
		}
		x := by[e.Test]
		if x == nil {
			x = &result{test: e.Test}
			by[e.Test] = x
			all = append(all, x)
		}
		switch e.Action {
		case "output":
			x.output += e.Output
		case "pass", "skip", "fail":
			x.action = e.Action
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	var leaves []result
	for _, x := range all {
		if !strings.Contains(x.test, "/") || x.action == "pass" && contains(all, x) {
			continue
		}
		if x.action == "skip" {
			// The suite skips last; what it says before that is notes.
			if lines := said.FindAllStringSubmatch(x.output, -1); len(lines) > 0 {
				x.reason = lines[len(lines)-1][1]
			}
		}
		leaves = append(leaves, *x)
	}
	return leaves, nil
}

// contains says whether x is there only for the subtests below it. A repetition in the core's
// own loop, and a part about holds that are passed on, stand below a subtest that does
// something itself, unless it has other parts too.
func contains(all []*result, x *result) bool {
	return slices.ContainsFunc(all, func(o *result) bool {
		below, ok := strings.CutPrefix(o.test, x.test+"/")
		first, _, _ := strings.Cut(below, "/")
		return ok && first != "core-loop" && first != "passed"
	})
}
