// Package splice replaces the part of a document that stands between two markers.
package splice

import (
	"fmt"
	"strings"
)

// Markers are the lines around the part that is called mark.
func Markers(mark string) (begin, end string) {
	return "<!-- lockgen:" + mark + " -->", "<!-- /lockgen -->"
}

// Replace returns doc with text, whole lines, between the markers of mark. Each marker
// stands alone on its line.
func Replace(doc, mark, text string) (string, error) {
	begin, end := Markers(mark)
	lines := strings.SplitAfter(doc, "\n")
	from, to := -1, -1
	for i, line := range lines {
		switch strings.TrimSpace(line) {
		case begin:
			if from >= 0 {
				return "", fmt.Errorf("line %d: the marker %s is there twice, first in line %d", i+1, begin, from+1)
			}
			from = i
		case end:
			if from >= 0 && to < 0 {
				to = i
			}
		default:
			if from >= 0 && to < 0 && strings.HasPrefix(strings.TrimSpace(line), "<!-- lockgen:") {
				return "", fmt.Errorf("line %d: another marker stands before the %s of line %d's %s", i+1, end, from+1, begin)
			}
		}
	}
	switch {
	case from < 0:
		return "", fmt.Errorf("the marker %s is missing; write it and %s, each on a line of its own, where the text shall stand", begin, end)
	case to < 0:
		return "", fmt.Errorf("line %d: the marker %s has no %s after it", from+1, begin, end)
	}
	return strings.Join(lines[:from+1], "") + strings.TrimSuffix(text, "\n") + "\n" + strings.Join(lines[to:], ""), nil
}
