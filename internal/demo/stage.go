package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// A stage is what the workers have in common apart from the lock: a store to write to, cues,
// and somebody who writes everything down.
type stage struct {
	out        io.Writer
	clients    int // of the store
	tokenWidth int

	mu    sync.Mutex
	lines []line // not printed yet
	holds []hold
	cues  map[string]chan struct{}

	// The store that the lock protects holds one number. It checks fencing tokens, which takes
	// one comparison, done in the same step as the write.
	value             int
	greatest          uint64 // token
	accepted, refused int
}

// A line is one line of the output.
type line struct {
	at             time.Duration
	client, worker string
	what           string
	token          uint64 // 0 for none
	text           string
}

// A hold is one worker's having the lock, from when Lock had returned to when the worker
// began to give it back, or to its deadline: for this time it certainly believed that
// nobody else had it.
type hold struct {
	worker, client string
	token          uint64
	from, until    time.Duration
	waited         time.Duration
}

func (h hold) String() string {
	return fmt.Sprintf("%s from %s to %s with token %d", h.worker, h.from, h.until, h.token)
}

// check looks for holds that overlap and for tokens that do not rise. It knows nothing of
// locks: it sees intervals and numbers.
func check(holds []hold) (overlaps, disorders []string) {
	holds = slices.SortedStableFunc(slices.Values(holds), func(a, b hold) int { return cmp.Compare(a.from, b.from) })
	for i, longest := 1, 0; i < len(holds); i++ {
		if holds[i-1].until > holds[longest].until {
			longest = i - 1 // which need not be the one just before
		}
		if holds[i].from < holds[longest].until {
			overlaps = append(overlaps, fmt.Sprintf("%v, and %v", holds[longest], holds[i]))
		}
		if holds[i].token <= holds[i-1].token {
			disorders = append(disorders, fmt.Sprintf("%v, then %v", holds[i-1], holds[i]))
		}
	}
	return overlaps, disorders
}

func (s *stage) read() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value
}

// write returns the greatest token that the store has seen. If that is not token, it has
// refused to write.
func (s *stage) write(token uint64, value int) (greatest uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if token < s.greatest {
		s.refused++
		return s.greatest
	}
	s.greatest, s.value = token, value
	s.accepted++
	return token
}

func (s *stage) count(h hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = append(s.holds, h)
}

func (s *stage) tell(l line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, l)
}

// print writes the lines up to the given time, in the order of their times: a worker tells
// of a step when it is done.
func (s *stage) print(until time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortStableFunc(s.lines, func(a, b line) int { return cmp.Compare(a.at, b.at) })
	for len(s.lines) > 0 && s.lines[0].at <= until {
		l := s.lines[0]
		s.lines = s.lines[1:]
		client, token := "", ""
		if s.clients > 1 {
			client = fmt.Sprintf("%-10s", l.client)
		}
		if l.token != 0 {
			token = fmt.Sprint(l.token)
		}
		text := fmt.Sprintf("%7.3fs  %s%-5s  %-8s  %*s  %s", l.at.Seconds(), client, l.worker, l.what, s.tokenWidth, token, l.text)
		fmt.Fprintln(s.out, strings.TrimRight(text, " "))
	}
}

// newAct forgets the cues of the act before.
func (s *stage) newAct() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cues = make(map[string]chan struct{})
}

func (s *stage) cued(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cues[name]
	if c == nil {
		c = make(chan struct{})
		s.cues[name] = c
	}
	return c
}

// cue is called once in an act for each name.
func (s *stage) cue(name string) { close(s.cued(name)) }

func (s *stage) await(ctx context.Context, name string) error {
	select {
	case <-s.cued(name):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
