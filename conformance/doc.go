// Package conformance is the proof that a Lockstep backend keeps the contract: one
// case for each clause, run against any implementation of [driver.Backend].
//
// # For the author of a backend
//
// Write one test in the backend's own module, and let it fail until the backend is
// right:
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, func(t *testing.T) *conformance.Target {
//			store := startYourStore(t)
//			open := func(tb testing.TB) driver.Backend {
//				b, err := yourbackend.Open(tb.Context(), yourbackend.Config{Addr: store.Addr})
//				if err != nil {
//					tb.Fatal(err)
//				}
//				return b
//			}
//			return &conformance.Target{Backend: open(t), Peer: open}
//		})
//	}
//
// Each case makes a target of its own and uses keys that nobody else has, so that the store may
// be shared and in use. The subtests are named by the clauses of the contract (docs/contract.md):
// TestConformance/TTL-001/lease is clause TTL-001 where a lease is asked for. An id never gets
// another meaning, in any version.
//
// Which cases run depends on what the backend declares (its [driver.Capabilities]) and on what
// the test can do to the store (the functions of [Target]); a case that cannot run is skipped and
// says what is missing. Time limits follow from Capabilities().Granularity. A capability that is
// declared and does not hold is a failure.
//
// A backend that waits by itself ([driver.Waiter]) also runs the cases about waiting with
// that ability hidden, as TTL-001/lease/core-loop, because a user may wrap it.
//
// # When a case fails
//
// The failure quotes the clause and shows what was wanted, what came, the last events
// before it, and a command that runs just this case with the same random choices:
//
//	REL-002: after expiry: ErrLost, and the next holder's lock is untouched
//	  want   the release by the former owner gives ErrLost
//	  got    <nil>
//	  at     release.go:71
//	  last 6 of 6 events:
//	    +0s      A  acquire "k" #1 lease 50ms → token 1
//	    …
//	  again  LOCKSTEP_SEED=42 go test -run '^TestConformance$/^REL-002$/^lease$' -count=1
//
// The clients are named A, B, C; lines of the driver's calls are indented beneath the
// calls of package locker that made them.
//
// A failure that is known and accepted is declared with [Known]. It must go on failing: once the
// case passes, the declaration is reported as a failure, and has to be removed.
//
// # Time
//
// A backend without any I/O can be tested in virtual time ([Synctest]): every case runs
// in a bubble of testing/synctest, where an hour takes no time and every timeout is
// exact. A store with a clock of its own that can be moved gives [Target.Advance].
package conformance
