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
func Labelled(value string) string {
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		return err.Error()
	}
	mark := strconv.Quote(labelName) + ":" + strconv.Quote(value)
	var found []string
	for _, stack := range strings.Split(profile.String(), "\n\n") {
		if strings.Contains(stack, mark) {
			found = append(found, stack)
		}
	}
	return strings.Join(found, "\n\n")
}
