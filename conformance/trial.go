package conformance

import (
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
)

// trial is one run of one leaf: the harness, and what the case may ask of its target.
type trial struct {
	*harness.Trial
	leaf     leaf
	target   *Target
	injected sync.Once // Caps are those of the store that faults happen to
	holders  sync.Map  // by key: the *hold that was granted last
}

// far is a time that no case waits for.
const far = harness.Far

// hold is the options for a hold of the case's kind that does not end by itself.
func (c *trial) hold() []locker.Option {
	if c.leaf.kind == Lease {
		return []locker.Option{locker.WithTTL(far)}
	}
	return nil // with no ttl anywhere it is a session
}

// ttl is hold for a driver.Request.
func (c *trial) ttl() time.Duration {
	if c.leaf.kind == Lease {
		return far
	}
	return 0
}
