package locker

import "github.com/lockstep-go/lockstep/locker/driver"

// Info is what Inspect and List say of a lock.
type Info = driver.Info

// Capabilities is what a backend says of itself.
type Capabilities = driver.Capabilities

// Capability is one thing that a backend may or may not be able to do:
// l.Capabilities().Has.Has(locker.PromptLoss).
type Capability = driver.Capability

// The capabilities; package driver says of each what it promises.
const (
	LocalClock            = driver.LocalClock
	LeaseOutlivesProcess  = driver.LeaseOutlivesProcess
	PromptLoss            = driver.PromptLoss
	TokensSurviveRestart  = driver.TokensSurviveRestart
	TokensSurviveDataLoss = driver.TokensSurviveDataLoss
	SharedStore           = driver.SharedStore
	Notes                 = driver.Notes
	Listing               = driver.Listing
	Breaking              = driver.Breaking
)
