package conformance

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// history is what happened in one trial, for the text of a failure. It keeps the
// last events only: a trial may make a hundred thousand.
type history struct {
	start time.Time
	cut   string // the beginning of the case's keys, which would only be in the way

	mu    sync.Mutex
	ring  [keepEvents]event
	total int
}

type event struct {
	line string
	fold string // events with the same one are told once, if nothing else happens between them
	more int
	last time.Duration
}

const (
	keepEvents = 256
	showEvents = 30
)

func (h *history) add(format string, args ...any) { h.fold("", format, args...) }

// fold is add for an event that repeats itself, such as a poll in vain: a hundred of them
// would push out what matters.
func (h *history) fold(as, format string, args ...any) {
	at := time.Since(h.start).Round(time.Microsecond)
	line := fmt.Sprintf("%-12s ", "+"+at.String()) + strings.ReplaceAll(fmt.Sprintf(format, args...), h.cut, "")
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := h.total - 1; as != "" && i >= 0 && i > h.total-keepEvents; i-- {
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
	h.ring[h.total%keepEvents] = event{line: line, fold: as}
	h.total++
}

// text is the last events, indented.
func (h *history) text(indent string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	show := min(h.total, showEvents)
	var b strings.Builder
	fmt.Fprintf(&b, "last %d of %d events:", show, h.total)
	for i := h.total - show; i < h.total; i++ {
		e := &h.ring[i%keepEvents]
		b.WriteString("\n" + indent + e.line)
		if e.more > 0 {
			fmt.Fprintf(&b, " (and %d times more, last at +%s)", e.more, e.last)
		}
	}
	return b.String()
}
