//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package dirlock

import (
	"testing"

	"github.com/lockstep-go/lockstep/conformance"
	"github.com/lockstep-go/lockstep/locker/driver"
)

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) *conformance.Target {
		path := directory(t) // each case gets one of its own
		open := func(tb testing.TB) driver.Backend {
			b, err := Open(tb.Context(), Config{Path: path, Validity: validity})
			if err != nil {
				tb.Fatal(err)
			}
			return b
		}
		s := &store{path: path}
		return &conformance.Target{
			Backend: open(t),
			Peer:    open,
			Delete:  s.remove,
			Crash:   s.crash,
			Restart: s.restart,
			Wipe:    s.wipe,
			Keys:    s.keys,
			Inject:  s.inject(),
		}
	}, conformance.Parallel(), conformance.Slack(3)) // for machines that have other things to do
}
