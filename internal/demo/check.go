package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// A Hold is one worker's having the lock, from when Lock had returned to when the worker
// began to give it back, or to its deadline: for this time it certainly believed that
// nobody else had it.
type Hold struct {
	Worker, Process string
	Token           uint64
	From, Until     time.Duration
	Waited          time.Duration
}

func (h Hold) String() string {
	return fmt.Sprintf("%s from %s to %s with token %d", h.Worker, h.From, h.Until, h.Token)
}

// check looks for holds that overlap and for tokens that do not rise. It knows nothing
// of locks: it sees intervals and numbers, of all processes.
func check(holds []Hold) (overlaps, disorders []string) {
	holds = slices.Clone(holds)
	slices.SortStableFunc(holds, func(a, b Hold) int { return cmp.Compare(a.From, b.From) })
	for i := range holds {
		if i == 0 {
			continue
		}
		// The hold before that lasts longest, which need not be the one just before.
		longest := slices.MaxFunc(holds[:i], func(a, b Hold) int { return cmp.Compare(a.Until, b.Until) })
		if h := holds[i]; h.From < longest.Until {
			overlaps = append(overlaps, fmt.Sprintf("%v, and %v", longest, h))
		}
		if last, h := holds[i-1], holds[i]; h.Token <= last.Token {
			disorders = append(disorders, fmt.Sprintf("%v, then %v", last, h))
		}
	}
	return overlaps, disorders
}
