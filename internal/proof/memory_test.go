package proof

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/conformance"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var stores atomic.Int64

// memoryTarget is a store of its own for each trial: in virtual time a store must not
// outlive its bubble.
func memoryTarget(tb testing.TB) *conformance.Target {
	store := fmt.Sprint("proof ", stores.Add(1))
	open := func(tb testing.TB) driver.Backend {
		b, err := memory.Open(context.Background(), memory.Config{Store: store})
		if err != nil {
			tb.Fatal(err)
		}
		return b
	}
	// There is no administrator of a process's memory who could delete a hold, nothing
	// that survives the process, and no connection.
	return &conformance.Target{Backend: open(tb), Peer: open}
}

// TestMemory is the suite in virtual time: exact, and done in a moment.
func TestMemory(t *testing.T) {
	conformance.Run(t, func(t *testing.T) *conformance.Target { return memoryTarget(t) }, conformance.Synctest())
}

// TestMemoryRealTime is the suite by the clock that users have.
func TestMemoryRealTime(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	conformance.Run(t, func(t *testing.T) *conformance.Target { return memoryTarget(t) }, conformance.Parallel(), busy)
}

// TestMemoryOneShard is the suite where all keys share one mutex, one table and one timer.
func TestMemoryOneShard(t *testing.T) {
	conformance.Run(t, func(t *testing.T) *conformance.Target {
		store := fmt.Sprint("proof ", stores.Add(1))
		open := func(tb testing.TB) driver.Backend {
			b, err := memory.Open(context.Background(), memory.Config{Store: store, Shards: 1})
			if err != nil {
				tb.Fatal(err)
			}
			return b
		}
		return &conformance.Target{Backend: open(t), Peer: open}
	}, conformance.Synctest())
}

func BenchmarkMemory(b *testing.B) {
	conformance.Benchmark(b, func(b *testing.B) *conformance.Target { return memoryTarget(b) })
}
