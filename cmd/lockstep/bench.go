package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/conformance"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/spf13/cobra"
)

// measured is one line of bench --json. The fields are documented in docs/command.md.
type measured struct {
	Task      string  `json:"task"`
	Operation string  `json:"operation"` // in words
	Count     int     `json:"count"`     // how many were measured
	NsPerOp   int64   `json:"nsPerOp"`
	PerSecond float64 `json:"perSecond"`
	// RoundTrips is how many bare round trips one operation takes as long as, and Least how many it
	// needs, where that can be said.
	RoundTrips float64 `json:"roundTrips"`
	Least      int     `json:"least,omitempty"`
}

// leastRoundTrips is what an operation needs on a store that is asked over a network: one round
// trip to take a lock, one to release it.
var leastRoundTrips = map[string]int{"lease": 2, "session": 2}

func newBench(s *store) *cobra.Command {
	var each time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this store, and compare it with what one could expect",
		Long: `bench runs the benchmark of the conformance suite on the configured store, and a bare round trip
beside it. To take a lock and to release it is a round trip each: a store that takes much longer than
two has something else to do, such as to wait for its disk.

It takes keys that begin with conformance/benchmark/, and is a load like any other: not for a store
that others need at this moment.`,
		Example: `  lockstep bench --config redis://localhost:6379
  lockstep bench --time 5s --json`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if each < 10*time.Millisecond {
				return usage(cmd, fmt.Errorf("--time %s is below 10ms", each))
			}
			return bench(cmd.Context(), s, each, asJSON)
		},
	}
	cmd.Flags().DurationVar(&each, "time", time.Second, "how long to measure each task")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line for each task")
	return cmd
}

func bench(ctx context.Context, s *store, each time.Duration, asJSON bool) error {
	testing.Init() // has package testing's flags, of which one is needed
	if err := flag.Set("test.benchtime", each.String()); err != nil {
		return err
	}
	first, _, err := s.open(ctx, locker.Config{})
	if err != nil {
		return err
	}
	defer closeLocker(first)
	second, _, err := s.open(ctx, locker.Config{})
	if err != nil {
		return err
	}
	defer closeLocker(second)

	trip, err := roundTrip(ctx, first)
	if err != nil {
		return err
	}
	if !asJSON {
		fmt.Printf("a bare round trip: %s\n\n", trip)
	}
	t := table{head: []string{"TASK", "TIME", "PER SECOND", "ROUND TRIPS", "ONE OPERATION IS"},
		give: []bool{false, false, false, false, true}, columns: width(os.Stdout)}
	var rows [][]string
	for _, task := range conformance.Tasks() {
		peer := first
		if task.Peers {
			peer = second
		}
		r := testing.Benchmark(func(b *testing.B) { task.Run(b, first, peer) })
		if r.N == 0 {
			return &exitError{exitFailed, errors.New(task.Name + " failed: see lockstep doctor")}
		}
		m := measured{Task: task.Name, Operation: task.What, Count: r.N, NsPerOp: r.NsPerOp(),
			PerSecond:  float64(r.N) / r.T.Seconds(),
			RoundTrips: float64(r.NsPerOp()) / float64(max(trip.percentile(50), 1)), Least: leastRoundTrips[task.Name]}
		if asJSON {
			if err := writeJSONLine(os.Stdout, m); err != nil {
				return err
			}
			continue
		}
		trips := fmt.Sprintf("%.1f", m.RoundTrips)
		if m.Least > 0 {
			trips += fmt.Sprintf(" (at least %d)", m.Least)
		}
		rows = append(rows, []string{m.Task, micro(time.Duration(m.NsPerOp)), fmt.Sprintf("%.0f", m.PerSecond), trips, m.Operation})
	}
	if asJSON {
		return nil
	}
	return t.write(os.Stdout, rows)
}

// roundTrip is how long the store takes to say that it would grant a lock.
func roundTrip(ctx context.Context, l *locker.Locker) (all latencies, err error) {
	const times = 200
	for range times {
		began := time.Now()
		if err := l.Ping(ctx); err != nil {
			return nil, err
		}
		all = append(all, time.Since(began))
	}
	return all, nil
}
