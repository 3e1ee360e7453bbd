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

// A stage is what the workers have in common apart from the lock: a store to write to,
// cues, and somebody who writes everything down. There is one, in the first process; the
// second one reaches it through a pipe.
type stage interface {
	Tell(Line)
	Count(Hold)
	Read() int
	Write(token uint64, value int) Verdict
	Cue(name string)
	Await(ctx context.Context, cue string) error
}

// A Line is one line of the output. Like everything that crosses the pipe it is exported,
// because net/rpc asks for that.
type Line struct {
	At              time.Duration
	Process, Worker string
	What            string
	Token           uint64 // 0 for none
	Text            string
}

// store is what the lock protects: one number. It checks fencing tokens, which takes one
// comparison, done in the same step as the write.
type store struct {
	mu                sync.Mutex
	value             int
	greatest          uint64 // token
	accepted, refused int
}

// A Verdict is the store's answer to a write.
type Verdict struct {
	Accepted bool
	Greatest uint64 // the greatest token that the store has seen
}

func (s *store) read() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value
}

func (s *store) write(token uint64, value int) Verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	if token < s.greatest {
		s.refused++
		return Verdict{false, s.greatest}
	}
	s.greatest, s.value = token, value
	s.accepted++
	return Verdict{true, token}
}

// house is the stage in its own process.
type house struct {
	out          io.Writer
	twoProcesses bool
	tokenWidth   int
	store        store

	mu    sync.Mutex
	lines []Line // not printed yet
	holds []Hold
	cues  map[string]chan struct{}
}

var _ stage = (*house)(nil)

func (s *house) Read() int                             { return s.store.read() }
func (s *house) Write(token uint64, value int) Verdict { return s.store.write(token, value) }

func (s *house) Count(h Hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = append(s.holds, h)
}

func (s *house) Tell(l Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, l)
}

// print writes the lines up to the given time, in the order of their times: those of the
// second process arrive a little later than they happened.
func (s *house) print(until time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortStableFunc(s.lines, func(a, b Line) int { return cmp.Compare(a.At, b.At) })
	n := 0
	for ; n < len(s.lines) && s.lines[n].At <= until; n++ {
		l := s.lines[n]
		process, token := "", ""
		if s.twoProcesses {
			process = fmt.Sprintf("%-11s", l.Process)
		}
		if l.Token != 0 {
			token = fmt.Sprint(l.Token)
		}
		text := fmt.Sprintf("%7.3fs  %s%-5s  %-8s  %*s  %s", l.At.Seconds(), process, l.Worker, l.What, s.tokenWidth, token, l.Text)
		fmt.Fprintln(s.out, strings.TrimRight(text, " "))
	}
	s.lines = s.lines[n:]
}

func (s *house) printAll() { s.print(1<<63 - 1) }

// newAct forgets the cues of the act before.
func (s *house) newAct() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cues = make(map[string]chan struct{})
}

func (s *house) cue(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cues[name]
	if c == nil {
		c = make(chan struct{})
		s.cues[name] = c
	}
	return c
}

// Cue is called once in an act for each name.
func (s *house) Cue(name string) { close(s.cue(name)) }

func (s *house) Await(ctx context.Context, name string) error {
	select {
	case <-s.cue(name):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
