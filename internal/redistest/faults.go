package redistest

import (
	"context"
	"fmt"
	"testing"
	"time"
)

type state int

const (
	running state = iota
	paused
	killed
)

func (s state) String() string { return [...]string{"running", "paused", "killed"}[s] }

// faultTimeout bounds one change of state.
const faultTimeout = 20 * time.Second

// Pause makes the server hang: connections stay open and are even accepted, by the kernel, but nothing answers.
// Like all faults it is for a server of the test's own.
func (s *Server) Pause(tb testing.TB) {
	tb.Helper()
	s.change(tb, "pause", func(ctx context.Context) error {
		if s.state != running {
			return fmt.Errorf("it is %s", s.state)
		}
		if err := s.node.pause(ctx); err != nil {
			return err
		}
		s.state = paused
		return nil
	})
}

// Resume ends a Pause and waits until the server answers.
func (s *Server) Resume(tb testing.TB) {
	tb.Helper()
	s.change(tb, "resume", func(ctx context.Context) error {
		if s.state != paused {
			return fmt.Errorf("it is %s", s.state)
		}
		return s.put(ctx)
	})
}

// Kill ends the server at once, as a crash does. Connections to its address are refused from then on.
func (s *Server) Kill(tb testing.TB) {
	tb.Helper()
	s.change(tb, "kill", func(ctx context.Context) error {
		if s.state == killed {
			return fmt.Errorf("it is killed")
		}
		if err := s.node.kill(ctx); err != nil {
			return err
		}
		s.state = killed
		return nil
	})
}

// Restart starts a killed server again, on the same address and empty (unless its Args made it persistent), and waits
// until it answers.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	s.change(tb, "restart", func(ctx context.Context) error {
		if s.state != killed {
			return fmt.Errorf("it is %s", s.state)
		}
		return s.put(ctx)
	})
}

// put puts the server right again, from whatever state.
func (s *Server) put(ctx context.Context) error {
	var err error
	switch s.state {
	case running:
		return nil
	case paused:
		err = s.node.resume()
	case killed:
		err = s.node.restart()
	}
	if err != nil {
		return err
	}
	s.state = running
	return s.waitReady(ctx)
}

func (s *Server) change(tb testing.TB, what string, do func(context.Context) error) {
	tb.Helper()
	if !s.private {
		tb.Fatalf("redistest: cannot %s %s, which is not this test's own: take redistest.Start for it", what, s.addr)
	}
	ctx, cancel := context.WithTimeout(context.Background(), faultTimeout)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := do(ctx); err != nil {
		tb.Fatalf("redistest: cannot %s %s: %v", what, s.addr, err)
	}
}
