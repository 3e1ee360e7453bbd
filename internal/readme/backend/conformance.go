// Package backend holds the conformance test that the documents show. It is compiled and vetted here; internal/proof
// runs the suite on memory.
package backend

import (
	"testing"

	"github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/conformance"
	"github.com/lockstep-go/lockstep/locker/driver"
)

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) *conformance.Target {
		store := t.Name() // each case gets a store of its own
		open := func(tb testing.TB) driver.Backend {
			b, err := memory.Open(tb.Context(), memory.Config{Store: store})
			if err != nil {
				tb.Fatal(err)
			}
			return b
		}
		return &conformance.Target{Backend: open(t), Peer: open}
	}, conformance.Synctest()) // virtual time, for a backend without I/O
}
