package conformance

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// racyMutants are right but for a data race: only a test binary with the race detector
// can tell, and it then fails the whole test. So each runs in a process of its own.
var racyMutants = []struct {
	name   string
	clause string
	alter  func(*mutant)
}{
	{"attempts are counted without a mutex", "CONC-002", func(m *mutant) {
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			m.races++
			return acquire(ctx, r)
		}
	}},
	{"Extend notes its time without a mutex", "CONC-002", func(m *mutant) {
		extend, acquire := m.extend, m.acquire
		m.extend = func(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
			m.races = int(ttl)
			return extend(ctx, h, ttl)
		}
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			if m.races < 0 {
				return driver.Grant{}, driver.ErrHeld
			}
			return acquire(ctx, r)
		}
	}},
}

const racyEnv = "LOCKSTEP_RACY_MUTANT"

// TestRacyMutant fails by design; the report of the mutants runs it.
func TestRacyMutant(t *testing.T) {
	for _, m := range racyMutants {
		if m.name == os.Getenv(racyEnv) {
			Run(t, refTarget(mutate(m.alter)), Synctest(), Only(m.clause))
			return
		}
	}
	t.Skip("make mutants runs it, one mutant at a time")
}
