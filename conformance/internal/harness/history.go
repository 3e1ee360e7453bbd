package harness

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// History is what happened in one trial, for the text of a failure. It keeps the
// last events only: a trial may make a hundred thousand.
type History struct {
	Start time.Time
	cut   string // the beginning of the case's keys, which would only be in the way

	mu    sync.Mutex
	ring  [keepEvents]event
	total int
	focus []time.Duration // what the failure is about; none for the last events
}

type event struct {
	at   time.Duration
	line string
	fold string // events with the same one are told once, if nothing else happens between them
	more int
	last time.Duration
}

const (
	keepEvents = 4096 // an overlap is found when all is over
	showEvents = 30
	foldEvents = 256 // so far back an event is looked for that is the same
)

// Add notes an event.
func (h *History) Add(format string, args ...any) { h.Fold("", format, args...) }

// Fold is add for an event that repeats itself, such as a poll in vain: a hundred of them
// would push out what matters.
func (h *History) Fold(as, format string, args ...any) {
	at := time.Since(h.Start).Round(time.Microsecond)
	line := fmt.Sprintf("%-12s ", "+"+at.String()) + strings.ReplaceAll(fmt.Sprintf(format, args...), h.cut, "")
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := h.total - 1; as != "" && i >= 0 && i > h.total-foldEvents; i-- {
		e := &h.ring[i%keepEvents]
		if e.fold == as {
			e.more++
			e.last = at
			return
		}
		if e.fold == "" {
			break
		}
	}
	h.ring[h.total%keepEvents] = event{at: at, line: line, fold: as}
	h.total++
}

// Focus makes Text show what happened around some moments, instead of the last events.
func (h *History) Focus(at ...time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.focus = nil
	for _, t := range at {
		h.focus = append(h.focus, t.Sub(h.Start))
	}
}

// Text is the last events, or those around the focus, indented.
func (h *History) Text(indent string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := max(0, h.total-keepEvents)
	shown, what := h.last(first), "last"
	if len(h.focus) > 0 {
		shown, what = h.around(first), "those around it,"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d of %d events:", what, len(shown), h.total)
	for k, i := range shown {
		if k > 0 && i > shown[k-1]+1 {
			fmt.Fprintf(&b, "\n%s… %d others", indent, i-shown[k-1]-1)
		}
		e := &h.ring[i%keepEvents]
		b.WriteString("\n" + indent + e.line)
		if e.more > 0 {
			fmt.Fprintf(&b, " (and %d times more, last at +%s)", e.more, e.last)
		}
	}
	return b.String()
}

// last are the numbers of the last events.
func (h *History) last(first int) (shown []int) {
	for i := max(first, h.total-showEvents); i < h.total; i++ {
		shown = append(shown, i)
	}
	return shown
}

// around are the numbers of the events that are nearest to the focus, in order.
func (h *History) around(first int) (shown []int) {
	each := showEvents / len(h.focus)
	for _, at := range h.focus {
		next := first // the first event after it
		for next < h.total && h.ring[next%keepEvents].at <= at {
			next++
		}
		for i := max(first, next-each*2/3); i < min(h.total, next+each/3+1); i++ {
			shown = append(shown, i)
		}
	}
	slices.Sort(shown)
	return slices.Compact(shown)
}
