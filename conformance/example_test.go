package conformance_test

import (
	"fmt"
	"testing"

	"github.com/lockstep-go/lockstep/conformance"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// store stands for whatever the backend under test talks to.
type store struct{}

func startStore(testing.TB) *store               { return &store{} }
func (s *store) open(testing.TB) driver.Backend  { return nil }
func (s *store) remove(_ testing.TB, key string) {}

// The whole of a backend's proof. The function is called TestConformance in real life.
func ExampleRun() {
	_ = func(t *testing.T) {
		conformance.Run(t, func(t *testing.T) *conformance.Target {
			s := startStore(t)
			return &conformance.Target{
				Backend: s.open(t), // the first client
				Peer:    s.open,    // and as many more as a case needs
				Delete:  s.remove,  // what an administrator can do to a hold
			}
		},
			conformance.Parallel(), // the store is far away
			conformance.Known("WAIT-001", "the store announces nothing; waiters poll"),
		)
	}
}

// The same target makes comparable numbers.
func ExampleBenchmark() {
	_ = func(b *testing.B) {
		conformance.Benchmark(b, func(b *testing.B) *conformance.Target {
			s := startStore(b)
			return &conformance.Target{Backend: s.open(b), Peer: s.open}
		})
	}
}

// The catalogue is data, for a table in the documentation.
func ExampleCases() {
	for _, c := range conformance.Cases() {
		if c.ID == "LOSS-003" {
			fmt.Println(c.ID, c.Kinds, c.Needs)
			fmt.Println(c.Clause)
		}
	}
	// Output:
	// LOSS-003 [lease session] [PromptLoss Target.Delete]
	// loss that the backend can see (deleted, overwritten, taken over) is signalled promptly where the capability is declared
}
