// Package app is the test of somebody who has written a backend.
package app

import (
	"testing"

	"github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/conformance"
	"github.com/lockstep-go/lockstep/locker/driver"
)

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) *conformance.Target {
		open := func(tb testing.TB) driver.Backend {
			b, err := memory.Open(tb.Context(), memory.Config{Store: t.Name()})
			if err != nil {
				tb.Fatal(err)
			}
			return b
		}
		return &conformance.Target{Backend: open(t), Peer: open}
	}, conformance.Only("MX-001"))
}
