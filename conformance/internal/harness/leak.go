package harness

import (
	"bytes"
	"context"
	"runtime/pprof"
	"strconv"
	"strings"
)

// Goroutines inherit the profiler's labels of whoever starts them. That is how the suite
// tells which of them are left of what, also while other tests run beside it.
const labelName = "lockstep-conformance"

// Label marks the calling goroutine, and those that it starts.
func Label(value string) {
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels(labelName, value)))
}

// Labelled is the stacks of the goroutines that carry value, "" when there are none.
func Labelled(value string) string { return strings.Join(labelled(value), "\n\n") }

// CountLabelled is how many goroutines carry value.
func CountLabelled(value string) (n int) {
	for _, stack := range labelled(value) { // "3 @ 0x…" begins that of three
		count, _, _ := strings.Cut(stack, " @")
		of, err := strconv.Atoi(strings.TrimSpace(count[strings.LastIndexByte(count, '\n')+1:]))
		if err != nil {
			of = 1
		}
		n += of
	}
	return n
}

// labelled is one text for all goroutines that have the same stack and carry value.
func labelled(value string) (found []string) {
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		return []string{err.Error()}
	}
	mark := strconv.Quote(labelName) + ":" + strconv.Quote(value)
	for _, stack := range strings.Split(profile.String(), "\n\n") {
		if strings.Contains(stack, mark) {
			found = append(found, stack)
		}
	}
	return found
}
